"""``fixer compare``, without a screen: two captures of one way, and what became of the packets between them.

Both go through the walk and the judgement of the datapath into one `Match`; what that finds becomes legs, and the legs
become three sentences: what happened there, what happened back, and where it dies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from fixer.capture.open import Capture
from fixer.capture.source import STDIN
from fixer.config import Settings
from fixer.errors import CaptureDamaged, FixerError
from fixer.findings.fates import fates
from fixer.findings.finding import Verdict
from fixer.findings.legs import Clock, Leg, Remark, ToldBy, Way, clock_of, legs_of
from fixer.findings.match import Fate, Match
from fixer.scan import warnings_of

Step = Callable[[int, int], None]

UNCOUNTED = {
    "outside": "before the other capture began or after it ended",
    "missed": "acknowledged though the other capture has not seen them: it missed them, or they came in other segments",
    "silent": "at a time of which the other capture shows nothing at all: it paused, or the way was dead",
    "unknowable": "in a capture with fragments of the underlay or copies too short to be known again (`tcpdump -s 0`)",
}
"""Why packets are not counted as lost, nor as sent by nobody."""


class Comparison:
    """What two files turned out to be; `error` says why one was not read to its end."""

    def __init__(self, paths: tuple[Path, Path]) -> None:
        self.paths = paths
        self.names = tuple("standard input" if path == STDIN else str(path) for path in paths)
        self.sides: list[dict[str, int]] = []
        self.legs: list[Leg] = []
        self.clock: Clock | None = None
        self.error: FixerError | None = None
        self.warnings: list[str] = []

    def told(self, way: Way) -> list[Leg]:
        return [leg for leg in self.legs if leg.way is way]

    @property
    def arrived(self) -> int:
        return sum(leg.arrived for leg in self.legs)

    def remarks(self, way: Way) -> list[Remark]:
        """Of all legs that go one way, the same of several in one; the worst first."""
        together: dict[tuple[str, Verdict], list[Remark]] = {}
        for leg in self.told(way):
            for remark in leg.remarks():
                together.setdefault((remark.what, remark.verdict), []).append(remark)
        order = list(Verdict)
        return sorted(
            (first.and_of(rest) for first, *rest in together.values()), key=lambda each: order.index(each.verdict)
        )

    @property
    def verdict(self) -> Verdict:
        """The worst of what was found; unclear where nothing of either capture is in the other."""
        found = {remark.verdict for way in Way for remark in self.remarks(way)}
        if Verdict.FAULT in found:
            return Verdict.FAULT
        return Verdict.UNCLEAR if Verdict.UNCLEAR in found or not self.arrived else Verdict.HARMLESS

    def sentences(self) -> list[str]:
        """Three: there, back, and where it dies."""
        return [*(self._of_way(way) for way in Way), self._of_both()]

    def _of_way(self, way: Way) -> str:
        legs = self.told(way)
        where = f"{self._file(way is Way.BACK)} to {self._file(way is Way.THERE)}"
        if not legs:
            return f"From {where}: nothing was captured of this direction."
        sent, arrived = sum(leg.sent for leg in legs), sum(leg.arrived for leg in legs)
        found = self.remarks(way)
        said = "; ".join(f"{each.words} ({each.verdict})" for each in found) or "nothing is lost or broken"
        return f"From {where}: of {sent} sent {arrived} arrived; {said}."

    def _of_both(self) -> str:
        faults = [(way, remark) for way in Way for remark in self.remarks(way) if remark.verdict is Verdict.FAULT]
        on_the_way = [way for way, remark in faults if remark.what != "unfinished"]
        if on_the_way:
            where = "in both directions" if len(set(on_the_way)) == 2 else self._direction(on_the_way[0])
            return (
                f"fault: it happens between the two points of capture, {where}: capture at a hop between them and "
                f"compare again to halve the way."
            )
        if faults:
            way = faults[0][0]
            sender = self._file(way is Way.BACK)
            return (
                f"fault: nothing is lost on the way, but checksums leave the host of {sender} unfinished and the "
                f"receiver discards such: `ethtool -K DEV tx off` there (`fixer scan` names the card's own switch); "
                f"until then `fixer on` and `fixer run` on the receiver."
            )
        if not self.arrived:
            return (
                "unclear: no packet is in both captures: other traffic, another time, or everything was lost; capture "
                "both at once, without a filter but for the VXLAN port."
            )
        if self.verdict is Verdict.UNCLEAR:
            return "unclear: nothing proves a fault between the two points of capture, nor that there is none."
        return (
            "harmless: nothing dies between the two points of capture: look behind them, on the receiver (`fixer scan` "
            "of its capture, its firewall) and before the sender's."
        )

    def _direction(self, way: Way) -> str:
        return f"from {self._file(way is Way.BACK)} to {self._file(way is Way.THERE)}"

    def _file(self, second: bool) -> str:
        return self.names[second]

    def notes(self) -> list[str]:
        """What bounds the above: clocks, and what was not counted and why."""
        said = list(self.warnings)
        if self.clock is not None:
            which = "behind" if self.clock.offset < 0 else "ahead of"
            ahead = f"the clock of {self.names[1]} is {abs(self.clock.offset) / 1e6:.3f} ms {which} {self.names[0]}'s"
            if self.clock.delay is None:
                said.append(f"{ahead}, the time on the way included (packets are matched one way only)")
            else:
                least = f"a packet takes at least {self.clock.delay / 1e6:.3f} ms (if as long there as back)"
                said.append(f"{ahead}, {least}")
        for why, count in self.uncounted.items():
            said.append(f"{count} not counted, {UNCOUNTED[why]}")
        if pieces := sum(leg.of(Fate.PIECES) for leg in self.legs):
            said.append(f"{pieces} are in the other capture in other segments (GSO, GRO)")
        if cut := sum(leg.found["cut"] for leg in self.legs):
            said.append(f"{cut} matched by their headers alone, for a capture cuts them: `tcpdump -s 0`")
        if assumed := [leg for leg in self.legs if leg.told_by == "assumed"]:
            said.append(f"which way {len(assumed)} of {len(self.legs)} flows go is taken from the command line")
        return said

    @property
    def uncounted(self) -> Counter[str]:
        return sum((leg.uncounted for leg in self.legs), Counter[str]())


def compare(sender: Path, receiver: Path, settings: Settings, step: Step | None = None) -> Comparison:
    """Read both files to their ends, or to where one is damaged. Raises FileUnreadable, and CaptureDamaged where not
    even the file's own header is whole."""
    comparison = Comparison((sender, receiver))
    match = Match(ports=settings.vxlan.ports, plain=settings.plain)
    for side, path in enumerate(comparison.paths):
        with Capture(path) as capture:
            try:
                for frames in capture.batches():
                    if not frames.match(match, side):
                        most = match.side(side)["compared"]
                        comparison.warnings.append(
                            f"{comparison.names[side]}: only its first {most:,} packets are compared: "
                            f"`editcap -c 2000000` splits a capture"
                        )
                        break
                    if step is not None:
                        step(capture.position, capture.size)
            except CaptureDamaged as error:
                comparison.error = comparison.error or error
            comparison.warnings += [f"{comparison.names[side]}: {each}" for each in warnings_of(capture)]
    match.settle()
    comparison.legs = legs_of(fates(match))
    comparison.clock = clock_of([leg.found for leg in comparison.legs])
    comparison.sides = [match.side(side) for side in range(2)]
    return comparison


# What `--json` prints: docs/compare.schema.json is made of these types.


class CaptureObject(msgspec.Struct):
    file: str
    frames: int
    compared: int
    others: int
    began_ns: int
    ended_ns: int


class ClockObject(msgspec.Struct):
    offset_ns: int
    delay_ns: int | None
    packets: int


class RemarkObject(msgspec.Struct):
    way: Way
    what: str
    verdict: Verdict
    packets: int
    text: str


class LegObject(msgspec.Struct):
    source: str
    destination: str
    tunnel: bool
    way: Way
    told_by: ToldBy
    sent: int
    arrived: int
    lost: int
    first_lost: int
    unsent: int
    first_unsent: int
    duplicated: int
    reordered: int
    pieces: int
    cut: int
    changed: dict[str, int]
    first_changed: dict[str, int]
    uncounted: dict[str, int]


class ComparisonObject(msgspec.Struct):
    sender: CaptureObject
    receiver: CaptureObject
    verdict: Verdict
    clock: ClockObject | None
    legs: list[LegObject]
    findings: list[RemarkObject]
    sentences: list[str]
    notes: list[str]
    error: str | None


def as_object(comparison: Comparison) -> ComparisonObject:
    """The comparison as `--json` prints it; docs/compare.md describes the keys."""
    sender, receiver = (
        CaptureObject(str(path), side["frames"], side["compared"], side["others"], side["began"], side["ended"])
        for path, side in zip(comparison.paths, comparison.sides, strict=True)
    )
    return ComparisonObject(
        sender,
        receiver,
        comparison.verdict,
        None if comparison.clock is None else ClockObject(*comparison.clock),
        [of_leg(leg) for leg in comparison.legs],
        [
            RemarkObject(way, remark.what, remark.verdict, remark.packets, remark.words)
            for way in Way
            for remark in comparison.remarks(way)
        ],
        comparison.sentences(),
        comparison.notes(),
        None if comparison.error is None else str(comparison.error),
    )


def of_leg(leg: Leg) -> LegObject:
    found = leg.found
    return LegObject(
        source=found["source"],
        destination=found["destination"],
        tunnel=found["tunnel"],
        way=leg.way,
        told_by=leg.told_by,
        sent=leg.sent,
        arrived=leg.arrived,
        lost=leg.lost,
        first_lost=found["first"][leg.here][Fate.ONLY],
        unsent=leg.unsent,
        first_unsent=found["first"][1 - leg.here][Fate.ONLY],
        duplicated=leg.duplicated,
        reordered=leg.reordered,
        pieces=leg.of(Fate.PIECES),
        cut=found["cut"],
        changed={field.name.lower(): count for field, count in found["changed"].items()},
        first_changed={field.name.lower(): number for field, number in found["first_changed"].items()},
        uncounted=dict(leg.uncounted),
    )
