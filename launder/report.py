"""What the runs have found, as lines and as the tables of docs/launder.md; and what of it is a fault."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

from .runs import Run

MARK = "<!-- Below this line: written by `python -m launder --write docs/launder.md`. -->"
EXPLAINED = {
    "neutral": "The damage leaves the inner sum as it was (two words changed places, two bits of one column turned "
    "over, 0000 became ffff): no Internet checksum sees that, neither the inner nor an outer one.",
    "chance": "By chance a checksum field is the pseudo-header's sum, which means *unfinished*, or an outer checksum "
    "agrees: 1 in 65,536.",
    "wiped": "The damage made a checksum field 0000, which means that there is none.",
    "unvouched": "Nobody ever summed what was damaged: the payload of an unfinished inner segment, or what only an "
    "outer checksum covers where that is zero, never finished or computed wrongly from the start.",
    "stranger": "Over IPv6 an address and the envelope are damaged, three times in the same way: a pair of its own, "
    "of which nothing verifies. (More than one in 5,000 of the damaged is a fault.)",
    "regime": "There is no inner checksum, and on the way NAT has spoilt the outer one of every packet.",
    "before": "It was damaged before its sender summed it, so that every sum includes the damage.",
    "padding": "Only the padding behind the inner packet was damaged, which nobody reads.",
}
WORSE = {
    "laundered": "laundered",
    "meddled": "changed elsewhere than in a checksum",
    "spoilt": "given back with a wrong checksum, though they came undamaged",
    "lost": "dropped, though they came undamaged",
}
STRANGERS = 1 / 5000
CHANCES = 4 / 65536  # ways for chance to make one damaged packet look unfinished; most damages have one


@dataclass(frozen=True)
class Outcome:
    """found, shown: of ``Trial``."""

    run: Run
    found: dict[str, Any]
    shown: list[tuple[str, str, int, bytes, bytes, bytes]]
    seconds: float

    def count(self, *fates: str) -> int:
        return sum(sum(self.found["fates"][fate].values()) for fate in fates)


def faults(outcome: Outcome) -> Iterator[str]:
    """One line for each kind of fault."""
    run, name = outcome.run, f"{outcome.run.group}: {outcome.run.name}"
    for fate, what in WORSE.items():
        most = run.most * outcome.found["damaged"] if run.remains and fate == "laundered" else 0
        if (count := outcome.count(fate)) > most:
            by = ", ".join(f"{harm} {number:,}" for harm, number in outcome.found["fates"][fate].items())
            yield f"{name}: {count:,} {what} ({by})"
    if outcome.count("stranger") > STRANGERS * outcome.found["damaged"]:
        yield f"{name}: {outcome.count('stranger'):,} are taken for pairs of their own, which is more than repeats"
    if outcome.count("chance") > 10 + CHANCES * outcome.found["damaged"]:
        yield f"{name}: {outcome.count('chance'):,} looked unfinished, which is more than chance"


def line(outcome: Outcome) -> str:
    bad = [f"{outcome.count(fate):,} {fate}" for fate in WORSE if outcome.count(fate)]
    named = " (named: it cannot be told)" if outcome.run.remains and bad else ""
    return (f"  {outcome.run.name}: {outcome.found['damaged']:,} of {outcome.found['packets']:,} damaged, "
            f"{', '.join(bad) or '0 laundered'}{named}  [{outcome.seconds:.1f} s]")  # fmt: skip


def examples(outcome: Outcome) -> Iterator[str]:
    for fate, harm, number, meant, came, left in outcome.shown:
        yield f"    {fate}, {harm}, packet {number:,}; what differs from what came before: offset, byte > byte"
        yield f"      meant {meant.hex()}"
        yield f"      came  {differences(meant, came)}"
        yield f"      left  {differences(came, left)}"


def differences(before: bytes, after: bytes) -> str:
    changed = [
        f"{at} {old:02x}>{new:02x}" for at, (old, new) in enumerate(zip(before, after, strict=False)) if old != new
    ]
    return ", ".join(changed[:24] + ["…"] * (len(changed) > 24)) + f" ({len(after)} bytes)" * (
        len(before) != len(after)
    )


# --- tables -----------------------------------------------------------------------------------------------------------


def write(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Put the tables behind the mark in ``path``; what stands before it is for people to write."""
    before, mark, _ = path.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise ValueError(f"{path} has no line {MARK}")
    path.write_text(before + mark + "\n\n" + "\n".join(document(outcomes)), encoding="utf-8")


def document(outcomes: Sequence[Outcome]) -> Iterator[str]:
    packets, damaged = (sum(outcome.found[what] for outcome in outcomes) for what in ("packets", "damaged"))
    laundered = sum(outcome.count("laundered") for outcome in outcomes if not outcome.run.remains)
    yield f"{packets:,} packets, {damaged:,} of them damaged: **{laundered:,} laundered**.\n"
    for group, some in groupby(outcomes, lambda outcome: outcome.run.group):
        yield f"### {group[0].upper()}{group[1:]}\n"
        yield from table(
            ("run", "packets", "damaged", "dropped", "as they came", "taken anyway", "righted, whole", "explained",
             "laundered"),
            (
                (one.run.name, *map(number, (one.found["packets"], one.found["damaged"], one.count("dropped"),
                 one.count("passed"), one.count("invisible"), one.count("whole"), one.count(*EXPLAINED))),
                 f"named: {one.count('laundered'):,}" if one.run.remains else f"**{one.count('laundered'):,}**")
                for one in some
            ),
        )  # fmt: skip
    yield "### What is explained\n"
    yield from table(
        ("", "packets", "why nobody could have told"),
        ((fate, number(sum(one.count(fate) for one in outcomes)), why) for fate, why in EXPLAINED.items()),
    )
    yield "### What remains\n"
    yield from table(
        ("run", "righted", "why that cannot be told"),
        ((one.run.name, number(one.count("laundered")), one.run.remains) for one in outcomes if one.run.remains),
    )
    yield "### By kind of damage\n"
    yield from table(("damage", "dropped", "as they came", "taken anyway", "righted, whole", "explained", "laundered"),
                     by_harm(outcomes))  # fmt: skip
    yield "### What should be righted, and is\n"
    yield from table(
        (
            "run",
            "cause",
            "undamaged",
            "righted",
            "share",
            "dropped",
            "first one righted: median, last",
            "envelopes never",
        ),
        useful(outcomes),
    )


def by_harm(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, ...]]:
    told = [one for one in outcomes if not one.run.remains]
    harms = sorted({harm for one in told for fate in one.found["fates"].values() for harm in fate} - {"none"})
    for harm in harms:

        def count(*fates: str, harm: str = harm) -> str:
            return number(sum(one.found["fates"][fate].get(harm, 0) for one in told for fate in fates))

        yield harm, *map(count, ("dropped", "passed", "invisible", "whole")), count(*EXPLAINED), count("laundered")


def useful(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, ...]]:
    for one in outcomes:
        causes = {name: counts for name, counts in one.found["causes"].items() if name != "straight" and counts[0]}
        if not causes or one.run.group.startswith(("tables", "somebody")):
            continue
        first = one.found["first"]
        late = f"{median(first):,.0f}, {first[-1]:,}" if first else ""
        for cause, (whole, mended, stopped) in causes.items():
            yield (one.run.name, cause, number(whole), number(mended), f"{mended / whole:.2%}", number(stopped), late,
                   number(one.found["never"]))  # fmt: skip


def number(count: int) -> str:
    return f"{count:,}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Markdown; all but text to the right."""
    found = list(rows)
    numeric = [bool(found) and all(row[at].strip("*%").replace(",", "").replace(".", "").isdigit() for row in found)
               for at in range(len(head))]  # fmt: skip
    yield f"| {' | '.join(head)} |"
    yield f"|{'|'.join('---:' if right else '---' for right in numeric)}|"
    yield from (f"| {' | '.join(row)} |" for row in found)
    yield ""
