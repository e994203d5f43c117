"""Rules that are not what was wanted: over, off, forgotten; and what looks so and is not."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace
from support.fakehost import FakeHost

from fixer.host.machine import Completed
from fixer.host.operator import Operator
from fixer.rules.selection import Selection
from fixer.state import intent
from fixer.state.intent import Intent
from fixer.status import facts, intended
from fixer.status.reason import Severity

SAVED = """\
*raw
[0:0] -A PREROUTING -j FIXER
[0:0] -A FIXER -p udp -m multiport --dports 4789 -j NFQUEUE --queue-num 7 --queue-bypass
COMMIT
"""
SELECTION = Selection(queue=7, ports=(4789,))


@pytest.fixture
def host() -> FakeHost:
    """Rules in both families."""
    host = FakeHost()
    for command in ("iptables", "ip6tables"):
        host.answers[f"{command}-save"] = Completed(0, SAVED, "")
    return host


def wanted(host: FakeHost, **changes: object) -> Intent[Selection]:
    said = Intent(
        on=True, selection=SELECTION, since=host.now() - timedelta(hours=23), by=Operator("root", sudo="alice")
    )
    return replace(said, **changes)


def said(host: FakeHost) -> list[tuple[Severity, str]]:
    found = intended.reasons(facts.look(host, 7))
    return [(reason.severity, reason.what) for reason in found]


def test_what_is_wanted_and_there_is_nothing_to_speak_of(host: FakeHost) -> None:
    intent.write(host, wanted(host))
    assert said(host) == []


def test_nothing_was_said_of_a_rule_of_whoever_wrote_it(host: FakeHost) -> None:
    assert said(host) == []


def test_after_a_day_without_an_end_it_may_be_forgotten(host: FakeHost) -> None:
    old = host.now() - timedelta(days=2)
    intent.write(host, wanted(host, since=old))
    ((severity, what),) = said(host)
    assert (severity, what.partition(":")[0]) == (
        Severity.NOTE,
        "the rule is there for 2.0 days, and nobody has said until when",
    )
    intent.write(host, wanted(host, since=old, until=host.now() + timedelta(hours=1)))
    assert said(host) == [], "somebody has"


def test_a_rule_whose_time_is_over_takes_nothing(host: FakeHost) -> None:
    end: datetime = host.now()
    intent.write(host, wanted(host, until=end))
    ((severity, what),) = said(host)
    assert severity is Severity.WARNING
    assert what.startswith("the rule is there, and root (sudo by alice) wanted it until 2026-01-02")
    intent.write(host, wanted(host, until=end + timedelta(seconds=1)))
    assert said(host) == []


def test_a_rule_that_is_back_after_off(host: FakeHost) -> None:
    intent.write(host, wanted(host, on=False))
    ((severity, what),) = said(host)
    assert severity is Severity.WARNING
    assert "root (sudo by alice) has said fixer off at 2026-01-01" in what


def test_a_rule_that_is_wanted_and_not_there_in_one_family(host: FakeHost) -> None:
    intent.write(host, wanted(host))
    host.answers["ip6tables-save"] = Completed(0, "", "")
    assert said(host) == [(Severity.DOWN, "IPv6: no rule sends packets to the queue")]
    intent.write(host, wanted(host, selection=replace(SELECTION, sources=("10.0.0.0/8",))))
    assert said(host) == [], "no source of that family is wanted"


def test_what_is_not_understood_is_said(host: FakeHost) -> None:
    intent.path_of(host).write_text("{")
    ((severity, what),) = said(host)
    assert severity is Severity.WARNING
    assert "nobody obeys it" in what
