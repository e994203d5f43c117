"""The findings of a running daemon, as `fixer status` prints them: whole, or one line each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fixer.screen.changes import moment
from fixer.screen.console import Console, Part, Text, exactly, say, text
from fixer.state.report import OpenFinding

STYLES = {"fault": "bold red", "unclear": "bold yellow", "harmless": "dim"}
MOST = 10
"""Findings that are shown whole: the worst."""


def summary(findings: Sequence[OpenFinding]) -> str:
    """``2 fault, 1 unclear``; ``none``."""
    counts = Counter(each.verdict for each in findings)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in STYLES if counts[verdict]) or "none"


def show(findings: Sequence[OpenFinding], console: Console) -> None:
    """Each with its sentence, since when it holds, and where samples of its packets are."""
    for each in findings[:MOST]:
        say(console, (each.verdict, STYLES[each.verdict]), f": {each.text}")
        say(console, (f"since {moment(each.since)}, last {moment(each.last)}", "dim"), indent=2)
        if each.samples:
            exactly(console, text((f"  samples: {each.samples}", "dim")))
    if rest := findings[MOST:]:
        say(console, f"and {len(rest)} more: {summary(rest)}; --json has them")


def lines(findings: Sequence[OpenFinding], before: Sequence[OpenFinding], seconds: float, width: int) -> list[Text]:
    """A line for each, cut at the width: who, what, how many, and how many a second since ``before``."""
    earlier = {each.id: each.packets for each in before}
    shown = []
    for each in findings:
        rate = f" +{(each.packets - earlier[each.id]) / seconds:,.0f}/s" if each.id in earlier else ""
        of = f" of {each.of:,}" if each.of else ""
        parts: tuple[Part, ...] = (
            (f"{each.verdict:8} ", STYLES[each.verdict]),
            f"{each.who or 'this host'} {each.cause.replace('_', ' ')}: {each.packets:,}{of}{rate}",
        )
        line = text(*parts)
        line.truncate(width, overflow="ellipsis")
        shown.append(line)
    return shown
