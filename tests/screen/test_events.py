"""The log for people: a line an event, in a colour, and nothing in it acts on the terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from support.packets import in_state, segment, tunnelled

from fixer.datapath.pipeline import Pipeline
from fixer.findings.finding import Finding, Role, Verdict
from fixer.findings.lifecycle import Case, End, News, Stage
from fixer.screen.events import show, word_of
from fixer.telemetry import findings
from fixer.telemetry.events import EVENTS, Saying, header, state_change
from fixer.telemetry.log import Teller
from fixer.telemetry.packets import happened


def line(saying: Saying, *, colour: bool = False) -> str:
    stream = io.StringIO()
    show(
        saying,
        Console(
            file=stream,
            width=40,
            force_terminal=colour,
            color_system="standard" if colour else None,
            no_color=not colour,
        ),
    )
    return stream.getvalue()


def told(stage: Stage, verdict: Verdict = Verdict.FAULT, end: End = End.OVER) -> Saying:
    finding = Finding("192.0.2.1", Role.VTEP, "corrupt", verdict, "VTEP 192.0.2.1: much is corrupt.", packets=3)
    return findings.event(News(stage, Case("00ff", finding, 0, 0, 0.0, finding, 0.0), end))


def test_a_repaired_packet_is_one_line_however_narrow_the_terminal_is() -> None:
    pipeline = Pipeline(ports=[4789])
    pipeline.examine(bytearray(tunnelled("PARTIAL", "AGREES")), when_ns=1)
    [saying] = happened([pipeline])
    said = line(saying)
    assert said.count("\n") == 1
    assert said[8:].startswith(" repaired  inner checksum never finished; inner ")


@pytest.mark.parametrize(
    ("saying", "word", "colour"),
    [
        (told(Stage.OPENED), "FAULT", "1;31"),
        (told(Stage.OPENED, Verdict.UNCLEAR), "unclear", "1;33"),
        (told(Stage.UPDATED, Verdict.HARMLESS), "harmless", ""),
        (told(Stage.CLOSED), "over", "2"),
        (told(Stage.CLOSED, end=End.GAVE_WAY), "gave way", "2"),
        (told(Stage.CLOSED, end=End.STOPPED), "left open", "2"),
        (findings.left_out(3), "findings-left-out", ""),
        (state_change("started", "serving queue 0"), "started", ""),
        (state_change("failed", "a queue failed"), "failed", "1;31"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_happened_stands_first_in_its_colour(saying: Saying, word: str, colour: str) -> None:
    assert f" {word} " in line(saying)
    assert (f"\x1b[{colour}m{word}" in line(saying, colour=True)) == bool(colour)


def test_there_is_a_word_for_every_event() -> None:
    for dataset, actions in EVENTS.items():
        for action in actions:
            more = {"fixer.finding.verdict": "fault", "event.reason": findings.ENDS[End.OVER]}
            assert word_of(header(dataset, action) | more)


def test_nothing_in_a_line_acts_on_the_terminal() -> None:
    said = line(state_change("degraded", "a \x1b[31mred\x1b[0m\nprocess [bold]"))
    assert "\x1b" not in said
    assert said.count("\n") == 1
    assert "[bold]" in said


def test_plain_packets_have_no_inner_checksum() -> None:
    pipeline = Pipeline(ports=[4789], plain=True, events_per_second=1)
    plain = in_state(segment(4, "tcp"), 4, "tcp", "PARTIAL")
    for _ in range(3):
        pipeline.examine(bytearray(plain), when_ns=1)
    pipeline.settle(2_000_000_000, 0, False)
    packet, summary = happened([pipeline])
    assert packet.message.startswith("checksum never finished; checksum ")
    assert packet.fields["event.reason"] == summary.fields["event.reason"] == "checksum never finished"
    assert summary.message == "checksum never finished: 2 more from 10.0.1.176, not told"
    assert summary.fields["source.ip"] == "10.0.1.176"
    assert "fixer.vtep.source.ip" not in summary.fields


def test_who_shows_lines_needs_no_log_and_a_terminal_that_is_gone_loses_none() -> None:
    shown: list[Saying] = []

    def gone(saying: Saying) -> None:
        shown.append(saying)
        raise OSError(5, "Input/output error")

    log = io.StringIO()
    for stream in (None, log):
        teller = Teller(lambda: [state_change("started", "serving")], stream, show=gone)
        assert teller.tell() == 1
        assert not teller.failed
    assert len(shown) == 2
    assert '"message":"serving"' in log.getvalue()
