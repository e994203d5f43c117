"""What crossed between two captures, by direction: who sent to whom, which way, what became of it, how bad that is.

A leg is one sender and one receiver. No direction is believed because a file is called sender's: time, marks, TTLs
and checksums tell it. No loss is called a fault unless the other capture shows that it would have been seen.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from fixer.datapath.diagnose import InnerState, OuterState
from fixer.findings.finding import Verdict
from fixer.findings.match import Fate, Field


class Way(StrEnum):
    THERE = "there"
    BACK = "back"


ToldBy = Literal["marks", "ttl", "time", "checksums", "only there", "assumed"]

FIELDS = {
    Field.OUTER_ADDRESSES: "outer addresses",
    Field.OUTER_SOURCE_PORT: "outer source port",
    Field.VXLAN_PORT: "VXLAN port",
    Field.OUTER_TTL: "outer TTL",
    Field.OUTER_TOS: "outer DSCP or ECN",
    Field.OUTER_CHECKSUM: "outer checksum",
    Field.VNI: "VNI",
    Field.VXLAN_FLAGS: "VXLAN flags",
    Field.MACS_OR_TAGS: "inner MACs or VLAN tags",
    Field.INNER_TTL: "inner TTL",
    Field.INNER_TOS: "inner DSCP or ECN",
    Field.INNER_CHECKSUM: "inner checksum",
    Field.INNER_OPTIONS: "inner TCP flags, window or options",
    Field.PAYLOAD: "payload",
    Field.TUNNEL: "tunnelled in one of both only",
}

GATEWAY = (Field.VNI, Field.VXLAN_PORT, Field.VXLAN_FLAGS, Field.MACS_OR_TAGS, Field.INNER_OPTIONS)
"""What a gateway or middlebox may change because it was told to, and nothing else does."""


ONE = {"are": "is", "have": "has", "were": "was", "they": "it", "them": "it"}
SINGULAR = re.compile(rf"\b({'|'.join(ONE)})\b")
"""What is another word where there is one packet."""


class Remark(NamedTuple):
    """What is to be said of a leg, or of all that go one way.

    `text` stands behind the number of packets; `more` is what holds for all of them and is not always to be said."""

    what: str
    verdict: Verdict
    packets: int
    text: str
    more: str = ""

    @property
    def words(self) -> str:
        text = self.text if self.packets > 1 else SINGULAR.sub(lambda verb: ONE[verb[0]], self.text)
        return f"{self.packets} {text}{self.more}"

    def and_of(self, others: Sequence[Remark]) -> Remark:
        """This one and the same of other legs, in one."""
        more = self.more if all(other.more == self.more for other in others) else ""
        return self._replace(packets=self.packets + sum(other.packets for other in others), more=more)


@dataclass(frozen=True)
class Leg:
    """`found`: what `fates` counted of it; `told_by`: how its way is known."""

    way: Way
    told_by: ToldBy
    found: dict[str, Any]

    @property
    def here(self) -> int:
        """The capture that is nearer to who sent it: 0 for the first, 1 for the second."""
        return 0 if self.way is Way.THERE else 1

    def of(self, fate: Fate, *, received: bool = False) -> int:
        count: int = self.found["fates"][self.here ^ received][fate]
        return count

    @property
    def arrived(self) -> int:
        return self.of(Fate.MATCHED) + self.of(Fate.ALTERED) + self.of(Fate.PIECES)

    @property
    def missing(self) -> int:
        return self.of(Fate.ONLY) + self.of(Fate.COPY)

    @property
    def lost(self) -> int:
        """Missing beyond those that may be among fragments and copies too short to be known again."""
        excused: int = self.found["unknowable"][1 - self.here]
        return max(0, self.missing - excused)

    @property
    def unsent(self) -> int:
        excused: int = self.found["unknowable"][self.here]
        return max(0, self.of(Fate.ONLY, received=True) - excused)

    @property
    def duplicated(self) -> int:
        return self.of(Fate.COPY, received=True)

    @property
    def reordered(self) -> int:
        count: int = self.found["reordered"][self.here]
        return count

    @property
    def uncounted(self) -> Counter[str]:
        """Packets of either capture that say nothing of the way, by why."""
        counts: Counter[str] = Counter()
        for received in (False, True):
            counts["outside"] += self.of(Fate.OUTSIDE, received=received)
            counts["missed"] += self.of(Fate.MISSED, received=received)
            counts["silent"] += self.of(Fate.SILENT, received=received)
        counts["unknowable"] = sum(self.found["unknowable"])
        counts["unknowable"] += self.missing - self.lost + self.of(Fate.ONLY, received=True) - self.unsent
        return +counts

    @property
    def sent(self) -> int:
        return self.arrived + self.lost

    def inner(self, was: InnerState, came: InnerState) -> int:
        count: int = self.found["inner"].get((was, came) if self.here == 0 else (came, was), 0)
        return count

    def outer(self, was: OuterState, came: OuterState) -> int:
        count: int = self.found["outer"].get((was, came) if self.here == 0 else (came, was), 0)
        return count

    def remarks(self) -> Iterator[Remark]:
        yield from self._lost()
        yield from self._changed()
        yield from self._checksums()
        if self.unsent:
            text = "came that the other capture has not: on another way, or it missed them"
            yield Remark("unsent", Verdict.UNCLEAR, self.unsent, text)
        if self.duplicated:
            text = "came more often than they were sent: a loop, or a capture on several interfaces"
            yield Remark("duplicated", Verdict.UNCLEAR, self.duplicated, text)
        if self.reordered:
            yield Remark("reordered", Verdict.HARMLESS, self.reordered, "came out of order")

    def _lost(self) -> Iterator[Remark]:
        if self.lost and self.arrived:
            yield Remark("lost", Verdict.FAULT, self.lost, "are lost", self._trait())
        elif self.lost:
            text = (
                "never arrived, nor anything else of that sender and receiver: lost, or the other capture leaves them "
                "out (its filter, its interface, another way)"
            )
            yield Remark("lost", Verdict.UNCLEAR, self.lost, text)

    def _trait(self) -> str:
        """What the lost ones have in common and none of the others."""
        shortest, longest = self.found["shortest"][self.here], self.found["longest"]
        if self.of(Fate.COPY) or self.lost != self.missing:
            return ""
        if shortest > longest:
            return f", each of {shortest} bytes or more, while what arrived has at most {longest}: look at the MTU"
        if self.found["lost_unfinished"][self.here] == self.lost and not self.found["arrived_unfinished"][self.here]:
            return ", all with unfinished checksums, and none such arrived: a hop drops them, or cannot finish them"
        return ""

    def _changed(self) -> Iterator[Remark]:
        changed = self.found["changed"]
        if altered := changed.get(Field.PAYLOAD, 0):
            yield Remark("payload", Verdict.FAULT, altered, "arrived with another payload")
        for field in GATEWAY:
            if count := changed.get(field, 0):
                text = f"arrived with another {FIELDS[field]}: meant so, if a gateway is between"
                yield Remark(field.name.lower(), Verdict.UNCLEAR, count, text)

    def _checksums(self) -> Iterator[Remark]:
        damaged = sum(self.inner(was, InnerState.WRONG) for was in (InnerState.VERIFIES, InnerState.PARTIAL))
        if damaged:
            text = "have a wrong inner checksum that was not wrong when they were sent"
            yield Remark("inner_checksum", Verdict.FAULT, damaged, text)
        unjudged = (OuterState.WRONG, OuterState.UNCHECKABLE, OuterState.NO_TUNNEL)
        stale = sum(self.outer(was, OuterState.WRONG) for was in OuterState if was not in unjudged)
        if stale:
            text = "have a wrong outer checksum that was not wrong when they were sent (damage, or a NAT)"
            yield Remark("outer_checksum", Verdict.FAULT, stale, text)
        before = self.inner(InnerState.WRONG, InnerState.WRONG) + self.outer(OuterState.WRONG, OuterState.WRONG)
        if before:
            text = "have a checksum that was wrong already where they were sent"
            yield Remark("wrong_before", Verdict.UNCLEAR, before, text)
        acknowledged, repeated, unknown = self.found["unfinished"][self.here]
        if unfinished := acknowledged + repeated + unknown:
            text = "arrived with unfinished checksums"
            if repeated and not acknowledged:
                text += ", were sent again and never acknowledged"
                yield Remark("unfinished", Verdict.FAULT, unfinished, text)
            elif acknowledged and not repeated:
                text += " and were acknowledged: normal where this was captured"
                yield Remark("unfinished", Verdict.HARMLESS, unfinished, text)
            else:
                text += ": the receiver discards such, unless they were merged or handed over on one host"
                yield Remark("unfinished", Verdict.UNCLEAR, unfinished, text)


def legs_of(found: Sequence[dict[str, Any]]) -> list[Leg]:
    """Each of what `fates` found with the way it goes, those with most packets first."""
    by_ends = {ends(each): number for number, each in enumerate(found)}
    backs = [by_ends.get((tunnel, there, here)) for tunnel, here, there in map(ends, found)]
    clock = clock_of(found)
    ways = [told(each, clock) for each in found]
    for last_resort in (alone, assumed):
        for number, back in enumerate(backs):
            known = None if back is None else ways[back]
            if ways[number] is None and known is not None:
                ways[number] = (Way.BACK if known[0] is Way.THERE else Way.THERE), known[1]
            elif ways[number] is None:
                ways[number] = last_resort(found[number])
    legs = [Leg(*way, each) for way, each in zip(ways, found, strict=True) if way is not None]
    return sorted(legs, key=lambda leg: -sum(sum(fates.values()) for fates in leg.found["fates"]))


def assumed(leg: dict[str, Any]) -> tuple[Way, ToldBy] | None:
    """As the command line has it."""
    return Way.THERE, "assumed"


def ends(leg: dict[str, Any]) -> tuple[bool, str, str]:
    return leg["tunnel"], leg["source"], leg["destination"]


def told(leg: dict[str, Any], clock: Clock | None) -> tuple[Way, ToldBy] | None:
    """Which way a leg goes by what its packets show themselves."""
    first, second = leg["leaving"]
    if bool(first) != bool(second):
        return (Way.THERE if first else Way.BACK), "marks"
    first, second = leg["higher"]
    if bool(first) != bool(second):
        return (Way.THERE if first else Way.BACK), "ttl"
    if clock is not None and clock.delay and leg["timed"] and leg["middle"] != clock.offset:
        return (Way.THERE if leg["middle"] > clock.offset else Way.BACK), "time"
    first, second = leg["arrived_unfinished"]
    if first != second:
        return (Way.THERE if first > second else Way.BACK), "checksums"
    return None


def alone(leg: dict[str, Any]) -> tuple[Way, ToldBy] | None:
    """What only one capture has was sent there: to be sent and not seen is likelier than the other way round."""
    first, second = (sum(fates.values()) for fates in leg["fates"])
    if bool(first) != bool(second):
        return (Way.THERE if first else Way.BACK), "only there"
    return None


class Clock(NamedTuple):
    """By how many nanoseconds the second capture's clock is ahead, and how long a packet takes there at least, if as
    long as back; `delay` is None where packets are matched one way only, and in `offset` then."""

    offset: int
    delay: int | None
    packets: int


def clock_of(found: Sequence[dict[str, Any]]) -> Clock | None:
    """From the busiest leg with an answering one; None if nothing is matched. Of each way the fastest packet counts,
    which waited in queues least (the clock filter of RFC 5905 section 10): under a download the others wait one way
    only. Where the two contradict each other, a packet was taken for its copy, and what is usual counts."""
    timed = {ends(leg): leg for leg in sorted(found, key=lambda leg: -leg["timed"]) if leg["timed"]}
    for (tunnel, here, there), leg in timed.items():
        if (back := timed.get((tunnel, there, here))) is not None and back is not leg:
            lower, higher = sorted((leg, back), key=lambda each: each["middle"])
            two = higher["least"], lower["most"]
            if two[0] < two[1]:
                two = higher["middle"], lower["middle"]
            return Clock(sum(two) // 2, (two[0] - two[1]) // 2, leg["timed"] + back["timed"])
    for leg in timed.values():
        return Clock(leg["middle"], None, leg["timed"])
    return None
