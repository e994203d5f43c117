"""The line that ``systemctl status`` shows: what it says of nothing, and of what was long ago."""

from __future__ import annotations

from typing import Any

import pytest

from fixer.daemon.standing import LATELY_SECONDS, Standing
from fixer.now import Now
from fixer.telemetry.events import Saying

START = Now(1000.0, 0)
LATER = Now(1000.0 + LATELY_SECONDS, 0)


def counters(packets: int, repair: int = 0, drop: int = 0) -> dict[str, Any]:
    return {"packets": packets, "would": {"pass": packets - repair - drop, "repair": repair, "drop": drop}}


def told(sender: str, policy: str = "repair") -> Saying:
    return Saying("info", "", {"fixer.vtep.source.ip": sender, "fixer.policy": policy})


@pytest.mark.parametrize(
    ("counted", "line"),
    [
        (counters(0), "listening; no packet has come yet"),
        (counters(1), "listening; 1 packet, none to repair"),
        (counters(1234), "listening; 1,234 packets, none to repair"),
        (counters(1234, drop=2), "listening; 1,234 packets, none to repair, 2 dropped"),
        (counters(5000, repair=1204), "repairing for VTEP 192.168.102.4; 1,204 packets"),
        (counters(5000, repair=1204, drop=1), "repairing for VTEP 192.168.102.4; 1,204 packets, 1 dropped"),
    ],
)
def test_what_is_counted_in_words(counted: dict[str, Any], line: str) -> None:
    standing = Standing(monitor=False)
    standing.note(told("192.168.102.4"), START)
    standing.note(told("192.168.102.9", "pass"), START)
    assert standing.words(counted, START) == line


def test_repairs_without_an_envelope_or_a_log_are_told_without_a_vtep() -> None:
    standing = Standing(monitor=False)
    standing.note(Saying("info", "", {"fixer.policy": "repair"}), START)
    assert standing.words(counters(9, repair=3), START) == "repairing; 3 packets"


def test_a_repair_of_a_minute_ago_is_not_said_to_go_on() -> None:
    standing = Standing(monitor=False)
    standing.note(told("192.0.2.1"), START)
    assert standing.words(counters(9, repair=3), START).startswith("repairing for VTEP 192.0.2.1")
    assert standing.words(counters(99, repair=3), LATER) == "listening; 3 packets repaired, none in the last minute"
    assert standing.words(counters(100, repair=4), LATER) == "repairing; 4 packets", "and not for whom it was then"


def test_the_latest_senders_are_named_and_of_the_others_it_is_said_that_there_are() -> None:
    standing = Standing(monitor=False)
    for last in (1, 2, 3, 1):
        standing.note(told(f"192.0.2.{last}"), START)
    assert "for VTEPs 192.0.2.1, 192.0.2.3, 192.0.2.2; " in standing.words(counters(9, repair=1), START)
    for last in range(100):
        standing.note(told(f"198.51.100.{last}"), START)
    line = standing.words(counters(9, repair=1), START)
    assert "for VTEPs 198.51.100.99, 198.51.100.98, 198.51.100.97 and others; " in line


def test_a_monitor_says_what_it_would_do() -> None:
    standing = Standing(monitor=True)
    standing.note(told("192.0.2.1"), START)
    assert standing.words(counters(9, 3, 1), START) == "would repair for VTEP 192.0.2.1; 3 packets, 1 to drop"
    assert standing.words(counters(9, 3), LATER) == "listening; 3 packets to repair, none in the last minute"


def test_a_configuration_that_was_refused_is_said_as_long_as_it_is() -> None:
    standing = Standing(monitor=False)
    standing.refused = "fixer.toml: unknown key nonsense"
    assert standing.words(counters(0), START).endswith("; not reloaded: fixer.toml: unknown key nonsense")
    standing.refused = ""
    assert "reloaded" not in standing.words(counters(0), START)
