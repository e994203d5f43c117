"""Findings on a screen: whole in `fixer status`, a line each in `--watch`, and all of it on 80 × 24."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from fixer.screen import findings
from fixer.screen.live import LINES, _page
from fixer.state.report import OpenFinding
from fixer.status.answer import Status

NOW = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)


def found(number: int, **fields: Any) -> OpenFinding:
    defaults: dict[str, Any] = {
        "id": f"{number:016x}",
        "since": NOW,
        "last": NOW,
        "who": f"192.0.2.{number}",
        "role": "vtep",
        "cause": "outer_field_ffff",
        "verdict": "fault",
        "text": f"VTEP 192.0.2.{number}: cure: `ethtool -K DEV tx-checksum-ip-generic off` for its NIC.",
        "packets": 100 * number,
        "of": 1000,
        "vnis": (7,),
        "taken": "receiver",
        "evidence": (),
        "cure": "",
        "kernel": "",
    }
    return OpenFinding(**defaults | fields)


def drawn(*shown: Any) -> list[str]:
    stream = io.StringIO()
    console = Console(file=stream, width=80, height=24)
    for each in shown:
        console.print(each)
    return stream.getvalue().splitlines()


def test_a_finding_is_shown_whole_with_its_time_and_samples() -> None:
    stream = io.StringIO()
    findings.show([found(1, samples="/run/fixer/4026531840-0-00c0ffee00c0ffee.pcapng")], Console(file=stream, width=60))
    first, *_, last = stream.getvalue().splitlines()
    assert first.startswith("fault: VTEP 192.0.2.1: cure:")
    assert "`ethtool -K DEV tx-checksum-ip-generic off`" in stream.getvalue(), "to be copied"
    assert last == "  samples: /run/fixer/4026531840-0-00c0ffee00c0ffee.pcapng"


def test_of_many_the_worst_are_shown_and_the_others_counted() -> None:
    stream = io.StringIO()
    many = [found(number, verdict="fault" if number < 12 else "unclear") for number in range(1, 15)]
    findings.show(many, Console(file=stream, width=80))
    assert stream.getvalue().count("cure:") == findings.MOST
    assert "and 4 more: 1 fault, 3 unclear; --json has them" in stream.getvalue()
    assert findings.summary([]) == "none"


def test_a_line_has_who_what_how_many_and_how_fast_and_is_cut_at_the_width() -> None:
    before = [found(3, packets=100)]
    [line, new] = drawn(*findings.lines([found(3), found(4, who="2001:db8:" + "f" * 90)], before, 2.0, 80))
    assert line == "fault    192.0.2.3 outer field ffff: 300 of 1,000 +100/s"
    assert len(new) <= 80
    assert new.endswith("…")


def test_a_page_with_many_findings_and_notes_has_room_on_a_small_screen() -> None:
    status = Status(
        queues=[0],
        on=True,
        listening=True,
        rules={},
        listeners=[],
        passed_unseen=0,
        flows=None,
        outgoing=None,
        merging={},
        spread={},
        daemon=None,
        wanted=None,
        tunnels=[],
        wire=None,
        notes=["something is wrong, and it takes more than a line of eighty columns to say what that is " * 2] * 9,
        reasons=[],
    )
    lines = findings.lines([found(number) for number in range(1, 40)], [], 1.0, 80)
    page = drawn(_page(status, [("Packets/s", "1")], lines, 80))
    assert len(page) <= LINES
    assert any("more findings" in line for line in page)
    assert any(line.startswith("! something") for line in page)
    few = drawn(_page(status, [("Packets/s", "1")], lines[:2], 80))
    assert len(few) <= LINES
    assert sum("outer field" in line for line in few) == 2
