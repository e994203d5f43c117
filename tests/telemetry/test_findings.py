"""A finding's life as ECS events: which fields, which words, how loud."""

from __future__ import annotations

import pytest
from support import shared

from fixer.findings.finding import Fact, Finding, Role, Verdict
from fixer.findings.lifecycle import Case, End, News, Stage
from fixer.telemetry.events import Saying
from fixer.telemetry.findings import event, left_out

SECOND = 1_000_000_000
SINCE = 1_700_000_000 * SECOND
FOUND = Finding(
    "192.0.2.1",
    Role.VTEP,
    "unfinished",
    Verdict.FAULT,
    "VTEP 192.0.2.1 sends unfinished inner checksums.",
    packets=12,
    of=40,
    vnis=(7, 9),
    evidence=(Fact("sent again and never answered", 3, 0),),
    cure="`ethtool -K DEV tx-checksum-ip-generic off` for its NIC",
)


def told(stage: Stage, finding: Finding = FOUND, end: End = End.OVER) -> Saying:
    case = Case("00c0ffee00c0ffee", finding, SINCE, SINCE + 90 * SECOND, 0.0, finding, 0.0)
    return event(News(stage, case, end))


def test_an_opened_finding_in_full() -> None:
    said = told(Stage.OPENED)
    assert (said.level, said.message) == ("warning", FOUND.text)
    assert said.fields == {
        "event.dataset": "fixer.finding",
        "event.kind": "alert",
        "event.category": ["network"],
        "event.type": ["start"],
        "event.action": "finding-opened",
        "event.start": "2023-11-14T22:13:20.000Z",
        "fixer.finding.id": "00c0ffee00c0ffee",
        "fixer.finding.who": "192.0.2.1",
        "fixer.finding.role": "vtep",
        "fixer.finding.cause": "unfinished",
        "fixer.finding.verdict": "fault",
        "fixer.finding.packets": 12,
        "fixer.finding.of": 40,
        "fixer.finding.vnis": [7, 9],
        "fixer.finding.taken": "unknown",
        "fixer.finding.evidence": ["3 sent again and never answered"],
        "fixer.finding.cure": FOUND.cure,
        "related.ip": ["192.0.2.1"],
    }


def test_an_update_and_an_end() -> None:
    said = told(Stage.UPDATED)
    assert (said.level, said.fields["event.action"], said.fields["event.type"]) == (
        "warning",
        "finding-updated",
        ["info"],
    )
    said = told(Stage.CLOSED)
    assert (said.level, said.fields["event.kind"], said.fields["event.type"]) == ("info", "event", ["end"])
    assert said.message == f"over, none for 5 minutes: {FOUND.text}"
    assert said.fields["event.end"] == "2023-11-14T22:14:50.000Z"
    assert said.fields["event.duration"] == 90 * SECOND


@pytest.mark.parametrize("end", End)
def test_every_end_is_said(end: End) -> None:
    said = told(Stage.CLOSED, end=end)
    assert said.message.startswith(f"{said.fields['event.reason']}: ")


def test_what_is_harmless_is_no_alert() -> None:
    harmless = Finding("192.0.2.9", Role.HOST, "random_offsets", Verdict.HARMLESS, "Fine.", packets=3)
    said = told(Stage.OPENED, harmless)
    assert (said.level, said.fields["event.kind"]) == ("info", "event")


def test_others_are_no_address() -> None:
    assert "related.ip" not in told(Stage.OPENED, Finding("3 others", Role.VTEP, "others", Verdict.UNCLEAR, "…")).fields


def test_every_field_is_ecs_s_or_under_fixer() -> None:
    said = [*map(told, Stage), left_out(3)]
    names = {name for each in said for name in each.fields}
    assert {name for name in names if not name.startswith("fixer.")} <= shared.ecs_fields()
    assert left_out(3).message == "3 more findings, not so bad as those that are told"
