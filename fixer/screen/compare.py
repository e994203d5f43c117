"""What ``fixer compare`` shows of two captures; ``--json`` prints :func:`fixer.compare.as_object` itself."""

from __future__ import annotations

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD

from fixer.compare import Comparison
from fixer.findings.finding import Verdict
from fixer.findings.legs import FIELDS, Leg
from fixer.screen.console import Console, Part, Table, Text, exactly, say, text

MOST_LEGS = 20
"""Senders and receivers that are shown: the busiest."""

STYLES = {Verdict.FAULT: "bold red", Verdict.UNCLEAR: "yellow", Verdict.HARMLESS: "green"}


def show(comparison: Comparison, console: Console) -> None:
    """A table by who sent to whom, what it means in three sentences, and what bounds that."""
    for name, side in zip(comparison.names, comparison.sides, strict=True):
        exactly(console, text((name, "bold"), f": {side['frames']} frames, {side['compared']} compared"))
    if comparison.legs:
        console.print(table(comparison.legs))
    if (more := len(comparison.legs) - MOST_LEGS) > 0:
        say(console, f"And {more:,} more senders and receivers, which the sentences count.", indent=2)
    for sentence in comparison.sentences():
        say(console, *coloured(sentence), indent=2)
    for note in comparison.notes():
        say(console, ("!", "yellow"), f" {note}.", indent=2)


def table(legs: Iterable[Leg]) -> Table:
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in ("from", "to"):
        shown.add_column(heading, overflow="fold", max_width=24)
    shown.add_column("way", no_wrap=True)
    for heading in ("sent", "arrived", "lost", "unsent"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("not counted", justify="right")
    shown.add_column("changed")
    for leg, _ in zip(legs, range(MOST_LEGS), strict=False):
        counts = (leg.sent, leg.arrived, leg.lost, leg.unsent, leg.uncounted.total())
        shown.add_row(
            text(leg.found["source"] or "unknown"),
            text(leg.found["destination"] or "unknown"),
            text(leg.way if leg.told_by != "assumed" else f"{leg.way}?"),
            *(text(str(count)) for count in counts),
            Text("\n").join(map(text, changes(leg))),
        )
    return shown


def changes(leg: Leg) -> list[str]:
    said = [f"{FIELDS[field]} {count}" for field, count in leg.found["changed"].items()]
    said += [f"twice {leg.duplicated}"] if leg.duplicated else []
    return said + ([f"order {leg.reordered}"] if leg.reordered else [])


def coloured(sentence: str) -> list[Part]:
    """The verdict that a sentence begins with in its colour."""
    word, colon, rest = sentence.partition(":")
    style = next((style for verdict, style in STYLES.items() if verdict == word), None)
    return [sentence] if style is None else [(word, style), colon + rest]
