"""One sender of a capture: its packets by kind, and of those that are not sound what became of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from fixer.datapath.diagnose import Diagnosis, Explanation, InnerState, OuterState
from fixer.datapath.repair import Action
from fixer.datapath.result import Result
from fixer.datapath.walk import Reason
from fixer.findings.conversations import Fate

LAYER_STATES = ("good", "absent", "partial", "wrong", "uncheckable")
INNER_COUNTED_AS = {
    InnerState.VERIFIES: "good",
    InnerState.PARTIAL: "partial",
    InnerState.WRONG: "wrong",
    InnerState.NONE: "uncheckable",
    InnerState.ABSENT: "absent",
    InnerState.UNCHECKABLE: "uncheckable",
}
OUTER_COUNTED_AS = {
    OuterState.GOOD: "good",
    OuterState.AGREES: "good",
    OuterState.ZERO: "absent",
    OuterState.ZERO6: "absent",
    OuterState.PARTIAL: "partial",
    OuterState.STALE: "wrong",
    OuterState.WRONG: "wrong",
    OuterState.UNCHECKABLE: "uncheckable",
}
REPAIRABLE = frozenset(
    {
        Diagnosis.INNER_UNFINISHED,
        Diagnosis.OUTER_UNFINISHED,
        Diagnosis.BOTH_UNFINISHED,
        Diagnosis.OUTER_STALE,
        Diagnosis.STALE_UNFINISHED,
    }
)
UNFINISHED = frozenset(
    {
        Diagnosis.INNER_UNFINISHED,
        Diagnosis.OUTER_UNFINISHED,
        Diagnosis.BOTH_UNFINISHED,
    }
)

SOUND = frozenset({Diagnosis.SOUND, Diagnosis.UNCHECKABLE})


class Door(StrEnum):
    """Where packets were seen: in a CAPTURE; in one of which the user has TOLD where it was taken, so that its marks
    are the user's; on the wire where they come in, and were only WATCHED, or MENDED."""

    CAPTURE = "capture"
    TOLD = "told"
    WATCHED = "watched"
    MENDED = "mended"

    @property
    def is_wire(self) -> bool:
        return self in (Door.WATCHED, Door.MENDED)


Cell = tuple[bool | None, Fate]
"""Whether packets are marked as outgoing (None: it is not known), and what became of them."""


class Row(NamedTuple):
    """What makes packets of one sender alike."""

    diagnosis: Diagnosis
    inner: InnerState
    outer: OuterState
    reason: Reason
    explanation: Explanation
    action: Action
    unverified: bool

    @property
    def is_broken(self) -> bool:
        return self.diagnosis not in SOUND

    @property
    def is_absent(self) -> bool:
        return self.diagnosis is Diagnosis.OUTER_ABSENT6


def sender_of(result: Result) -> str:
    """A VTEP's address; of a plain packet its source's."""
    return result.outer_source if result.vxlan else result.inner_source


_ROWS: dict[int, Row] = {}
"""By `Result.alike`: a flood has one of few rows in each of a million results."""


def row_of(result: Result) -> Row:
    row = _ROWS.get(result.alike)
    if row is None:
        row = _ROWS[result.alike] = Row(
            result.diagnosis,
            result.inner,
            result.outer,
            result.reason,
            result.explanation,
            result.would,
            result.unverified,
        )
    return row


@dataclass
class Counts:
    """Of a whole file, or of one sender: packets by the state of each layer, and what would become of them."""

    vxlan: int = 0
    outer: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(LAYER_STATES, 0)))
    inner: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(LAYER_STATES, 0)))
    repairable: int = 0
    corrupt: int = 0
    unverified: int = 0

    def add(self, sender: Sender) -> Counts:
        for row, packets in sender.rows.items():
            count = packets.count
            if row.outer is not OuterState.NO_TUNNEL:
                self.vxlan += count
                self.outer[OUTER_COUNTED_AS[row.outer]] += count
            self.inner[INNER_COUNTED_AS[row.inner]] += count
            self.repairable += count if row.diagnosis in REPAIRABLE else 0
            self.corrupt += count if row.diagnosis is Diagnosis.CORRUPT else 0
            self.unverified += count if row.unverified else 0
        return self


@dataclass(slots=True)
class Packets:
    """Those of one sender that are alike, with an example; of such as are not sound also what became of them."""

    example: Result
    count: int = 0
    vnis: set[int] = field(default_factory=set)
    fates: dict[Cell, int] = field(default_factory=dict)
    first: dict[Fate, int] = field(default_factory=dict)
    """The number of the first such frame."""


@dataclass(slots=True)
class Sender:
    """One VTEP or plain sender: the kinds of packets it sent."""

    door: Door = Door.CAPTURE
    packets: int = 0
    rows: dict[Row, Packets] = field(default_factory=dict)
    more_vnis: bool = False
    finished: int = 0
    """Segments that a NIC would have finished and that are; none of those marked as outgoing."""

    @property
    def counts(self) -> Counts:
        return Counts().add(self)

    def add(self, row: Row, result: Result, outgoing: bool | None, fate: Fate, frame: int, count: int) -> Packets:
        """`count` packets, of which the first is frame number `frame`; all of them that are alike."""
        packets = self.rows.get(row)
        if packets is None:
            packets = self.rows[row] = Packets(result)
        self.packets += count
        packets.count += count
        if fate is Fate.FINISHED and not outgoing:
            self.finished += count
        if row.is_broken:
            cell = outgoing, fate
            packets.fates[cell] = packets.fates.get(cell, 0) + count
            packets.first[fate] = min(frame, packets.first.get(fate, frame))
        return packets

    def count(self, rows: Iterable[Row]) -> int:
        """Its packets of these kinds."""
        return sum(self.rows[row].count for row in rows)

    def cells(self, rows: Iterable[Row]) -> Counter[Cell]:
        """What became of its packets of these kinds."""
        found: Counter[Cell] = Counter()
        for row in rows:
            found.update(self.rows[row].fates)
        return found

    def vnis(self, rows: Iterable[Row]) -> list[int]:
        return sorted(set().union(*(self.rows[row].vnis for row in rows)))

    def mends(self, rows: Iterable[Row]) -> bool:
        """Whether these packets did not go on as they came: what became of them says nothing of how they came."""
        return self.door is Door.MENDED and all(row.action is not Action.PASS for row in rows)

    def forget(self, rows: Iterable[Row]) -> None:
        """Count these kinds anew, as if there had been none."""
        for row in rows:
            if row in self.rows:
                self.packets -= self.rows.pop(row).count

    def join(self, other: Sender) -> None:
        """Count another sender's packets as this one's; its VNIs are forgotten, and which frames were the first."""
        for row, theirs in other.rows.items():
            ours = self.rows.get(row)
            if ours is None:
                ours = self.rows[row] = Packets(theirs.example)
            ours.count += theirs.count
            for cell, count in theirs.fates.items():
                ours.fates[cell] = ours.fates.get(cell, 0) + count
        self.packets += other.packets
        self.finished += other.finished


def is_unfinished(row: Row) -> bool:
    """Whether these packets are as a sender leaves them to its NIC; some leave it the IPv4 header's checksum as well.

    The datapath calls such a packet corrupt, as it would be on a wire: inner PARTIAL under an outer that is not wrong.
    """
    header_too = row.diagnosis is Diagnosis.CORRUPT and row.inner is InnerState.PARTIAL
    return row.diagnosis in UNFINISHED or (header_too and row.outer is not OuterState.WRONG)
