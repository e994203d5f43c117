"""The daemon's log for who watches it on a terminal: one coloured line an event."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fixer.findings.lifecycle import End
from fixer.screen.console import Console, exactly, text
from fixer.telemetry.events import Level, Saying
from fixer.telemetry.findings import ENDS

WIDTH = 9
"""Of the word that stands before each line, behind the time."""
_PACKETS = {"repair": "repaired", "drop": "dropped", "pass": "passed", "left-out": "left out"}
_ENDED = {ENDS[End.OVER]: "over", ENDS[End.GAVE_WAY]: "gave way", ENDS[End.STOPPED]: "left open"}
_LEVELS: dict[Level, str] = {"info": "", "warning": "yellow", "error": "bold red"}
_STYLES = {
    "repaired": "green",
    "dropped": "red",
    "passed": "yellow",
    "left out": "dim",
    "FAULT": "bold red",
    "unclear": "bold yellow",
    "over": "dim",
    "gave way": "dim",
    "left open": "dim",
}


def show(saying: Saying, console: Console) -> None:
    """The event as a line. What is in it was chosen by others and is only shown."""
    word = word_of(saying.fields)
    style = _STYLES.get(word, _LEVELS[saying.level])
    when = when_of(saying.fields.get("@timestamp"))
    exactly(console, text((f"{when:%H:%M:%S} ", "dim"), (f"{word:{WIDTH}} ", style), saying.message))


def word_of(fields: dict[str, Any]) -> str:
    """What happened, in a word: of a packet what became of it; of a finding its verdict, or why it is followed no more;
    else the event's own name."""
    dataset, action = fields["event.dataset"], fields["event.action"]
    if dataset == "fixer.packet":
        return _PACKETS[action]
    if dataset != "fixer.finding" or action == "findings-left-out":
        return str(action)
    if action == "finding-closed":
        return _ENDED[fields["event.reason"]]
    verdict = str(fields["fixer.finding.verdict"])
    return "FAULT" if verdict == "fault" else verdict


def when_of(timestamp: str | None) -> datetime:
    """In the time of whoever watches; without one it is told as it happens."""
    return datetime.fromisoformat(timestamp).astimezone() if timestamp else datetime.now().astimezone()
