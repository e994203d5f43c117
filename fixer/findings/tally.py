"""What a capture adds up to: counts per sender, and whether a sender's packets were captured on the sender itself.

The packets come from a `Census`, which has counted them by kind; here the kinds become a report.

A sender is a VTEP (outer source address), or for a plain packet its source address. Captured before its NIC has
finished the checksums, everything a healthy sender sends looks unfinished; `Sender.own_capture` says what gives that
away.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import NamedTuple

from fixer.datapath.diagnose import Diagnosis, Explanation, InnerState, OuterState
from fixer.datapath.repair import Action
from fixer.datapath.result import Result
from fixer.datapath.walk import Reason
from fixer.findings.census import Census

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

NO_VNI = frozenset({Reason.OUTER_UNREADABLE, Reason.OUTER_FRAGMENT, Reason.NOT_VXLAN})
"""Reasons for which a packet to a VXLAN port shows no VNI."""

COMMON_MTU = 1500
"""Bytes. A Linux sender leaves both layers unfinished only in a super-packet (the outer sum of a single packet already
agrees with its inner one), so with both at P anything longer than a common packet is one."""
LARGEST_MTU = 9216
"""Bytes. The largest jumbo frame that is in use: no wire carried what is longer."""

MOST_CONVERSATIONS = 1 << 16
"""Inner conversations that are followed, for bounded memory; those that begin later prove nothing."""
MOST_KINDS = 1 << 16
"""Kinds of packets that are counted before they are taken into the tally."""
MOST_SENDERS = 1 << 12
"""Senders that are kept apart, the worst and busiest; a file can be of as many as it has packets."""
MOST_GONE = 1 << 20
"""Other senders that are told from each other, to count them."""
MOST_VNIS = 1 << 18
"""VNIs that are remembered, of all senders together."""
ENOUGH_ANSWERED = 2
"""Unfinished packets of answered conversations that make a sender's own capture: a handshake has that many."""


class Row(NamedTuple):
    """What makes packets of one sender alike."""

    diagnosis: Diagnosis
    inner: InnerState
    outer: OuterState
    reason: Reason
    explanation: Explanation
    action: Action
    unverified: bool


@dataclass
class Counts:
    """Of a whole file, or of one sender: packets by the state of each layer, and what would become of them."""

    vxlan: int = 0
    outer: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(LAYER_STATES, 0)))
    inner: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(LAYER_STATES, 0)))
    repairable: int = 0
    corrupt: int = 0
    unverified: int = 0

    def add(self, rows: Counter[Row]) -> Counts:
        for row, count in rows.items():
            if row.outer is not OuterState.NO_TUNNEL:
                self.vxlan += count
                self.outer[OUTER_COUNTED_AS[row.outer]] += count
            self.inner[INNER_COUNTED_AS[row.inner]] += count
            self.repairable += count if row.diagnosis in REPAIRABLE else 0
            self.corrupt += count if row.diagnosis is Diagnosis.CORRUPT else 0
            self.unverified += count if row.unverified else 0
        return self


@dataclass
class Sender:
    """One VTEP or plain sender: the kinds of packets it sent with an example of each, and its unfinished ones sorted by
    what they say about where the capture was taken."""

    packets: int = 0
    rows: Counter[Row] = field(default_factory=Counter)
    examples: dict[Row, Result] = field(default_factory=dict)
    vnis: dict[Row, set[int]] = field(default_factory=dict)
    more_vnis: bool = False
    unfinished: int = 0
    unfinished_outgoing: int = 0
    unfinished_incoming: int = 0
    super_packets: int = 0
    answered: int = 0
    unanswered: int = 0

    @property
    def counts(self) -> Counts:
        return Counts().add(self.rows)

    @property
    def harm(self) -> int:
        """Packets that are not sound, but for those that only look so where the capture was taken."""
        return sum(count for row, count in self.rows.items() if row.diagnosis not in SOUND) - self.own_capture()[0]

    def add(self, row: Row, result: Result, outgoing: bool | None, count: int) -> None:
        self.packets += count
        self.rows[row] += count
        if row not in self.examples:
            self.examples[row] = result
            self.vnis[row] = set()
        if is_unfinished(row):
            is_super = is_super_packet(row, result.length)
            self.unfinished += count
            self.super_packets += count if is_super else 0
            self.unfinished_outgoing += count if outgoing is True else 0
            self.unfinished_incoming += count if outgoing is False and not is_super else 0

    def join(self, other: Sender) -> None:
        """Count another sender's packets as this one's; its VNIs are forgotten."""
        for row, count in other.rows.items():
            self.rows[row] += count
            self.examples.setdefault(row, other.examples[row])
            self.vnis.setdefault(row, set())
        for name in COUNTED:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def own_capture(self) -> tuple[int, str]:
        """How many of this sender's unfinished packets are no fault, having been captured before a NIC finished them or
        after GRO merged them, and why we think so; 0 if nothing says that.

        One of three things says it: the capture marks them as outgoing; some are longer than any packet on a wire (GRO
        merges only what verified, GSO is the sender's own); or, where the capture knows no directions, the other side
        answers what looks unfinished here, so it was finished when it arrived. Packets marked as incoming are exempt.
        """
        if self.super_packets:
            return self.unfinished - self.unfinished_incoming, "some are longer than any packet on a wire"
        if self.unfinished_outgoing:
            return self.unfinished_outgoing, "they are marked as outgoing"
        if self.answered >= ENOUGH_ANSWERED and self.answered > self.unanswered:
            return self.unfinished - self.unfinished_incoming, "the other side answers them and sends none like them"
        return 0, ""


class Others(NamedTuple):
    """Those who are not told one by one: how many, as '980 others', '' if none; their packets; how many harm."""

    words: str
    sender: Sender
    harm: int


COUNTED = tuple(each.name for each in fields(Sender) if each.default == 0 and each.name != "more_vnis")


def new_census() -> Census:
    """An empty census that tells apart the lengths which mean something here."""
    return Census(
        common_mtu=COMMON_MTU,
        largest_mtu=LARGEST_MTU,
        most_kinds=MOST_KINDS,
        most_conversations=MOST_CONVERSATIONS,
    )


class Tally:
    """Everything counted in one file. Of more than MOST_SENDERS, those who harm least are counted together."""

    def __init__(self) -> None:
        self.frames = 0
        self.not_ip = 0
        self.unread: Counter[int] = Counter()
        self.other: Counter[Reason] = Counter()
        self.vteps: dict[str, Sender] = {}
        self.senders: dict[str, Sender] = {}
        self.others = {True: Sender(), False: Sender()}  # VTEPs, and senders of plain packets
        self._gone: set[int] = set()
        self._harm = 0  # of those
        self._vnis = 0

    def take(self, census: Census) -> None:
        """Take what `census` has counted since it was last asked; it goes on with room for more."""
        self.frames, self.not_ip = census.frames + self.unread.total(), census.not_ip
        for result, outgoing, count in census.drain():
            self._add(result, outgoing, count)

    def finish(self, census: Census) -> None:
        """After the last packet: take the rest, and what the conversations say of their senders."""
        self.take(census)
        for (is_vtep, address), (answered, unanswered) in census.answers().items():
            sender = (self.vteps if is_vtep else self.senders).get(address, self.others[is_vtep])
            sender.answered += answered
            sender.unanswered += unanswered
        self._shrink()

    def _add(self, result: Result, outgoing: bool | None, count: int) -> None:
        """`count` IP packets of one kind; `outgoing` as in `capture.Frame`."""
        outer, reason = result.outer, result.reason
        vxlan = outer is not OuterState.NO_TUNNEL
        if vxlan and not result.vxlan:
            self.other[reason] += count
            return
        row = Row(result.diagnosis, result.inner, outer, reason, result.explanation, result.would, result.unverified)
        senders, source = (self.vteps, result.outer_source) if vxlan else (self.senders, result.inner_source)
        sender = senders.get(source)
        if sender is None:
            if len(self.vteps) + len(self.senders) >= 4 * MOST_SENDERS:
                self._shrink()
            sender = senders[source] = Sender()
        sender.add(row, result, outgoing, count)
        if vxlan and reason not in NO_VNI and result.vni not in sender.vnis[row]:
            if self._vnis < MOST_VNIS:
                self._vnis += 1
                sender.vnis[row].add(result.vni)
            else:
                sender.more_vnis = True

    def _shrink(self) -> None:
        """Keep MOST_SENDERS apart, and no more."""
        for is_vtep, address, sender in self.by_harm()[MOST_SENDERS:]:
            del (self.vteps if is_vtep else self.senders)[address]
            self._harm += sender.harm  # each by itself: what excuses one sender excuses no other
            self.others[is_vtep].join(sender)
            self._vnis -= sum(map(len, sender.vnis.values()))
            if len(self._gone) < MOST_GONE:
                self._gone.add(hash((is_vtep, address)))

    def by_harm(self) -> list[tuple[bool, str, Sender]]:
        """Who is kept apart, whether it is a VTEP, and its packets: those of whom most are not sound first."""
        known = [(True, *each) for each in self.vteps.items()] + [(False, *each) for each in self.senders.items()]
        return sorted(known, key=lambda each: (-each[2].harm, -each[2].packets))

    def worst(self, most: int) -> tuple[list[tuple[bool, str, Sender]], Others]:
        """The `most` worst senders, as in `by_harm`, and the others."""
        known = self.by_harm()
        rest = Sender()
        for sender in (*self.others.values(), *(sender for *_, sender in known[most:])):
            rest.join(sender)
        # Who was counted with the others may have come back.
        others = len(known[most:]) + len(self._gone - {hash((is_vtep, address)) for is_vtep, address, _ in known})
        over = "over " if len(self._gone) == MOST_GONE else ""
        harm = self._harm + sum(sender.harm for *_, sender in known[most:])
        return known[:most], Others(f"{over}{others:,} others" if others else "", rest, harm)

    @property
    def total(self) -> Counts:
        counts = Counts()
        for sender in self.everybody():
            counts.add(sender.rows)
        return counts

    @property
    def plain(self) -> int:
        return sum(sender.packets for sender in (*self.senders.values(), self.others[False]))

    def everybody(self) -> list[Sender]:
        """VTEPs and plain senders; the others as one of each kind."""
        return [*self.vteps.values(), *self.senders.values(), *self.others.values()]


def is_unfinished(row: Row) -> bool:
    """Whether these packets are as a sender leaves them to its NIC; some leave it the IPv4 header's checksum as well.

    The datapath calls such a packet corrupt, as it would be on a wire: inner PARTIAL under an outer that is not wrong.
    """
    header_too = row.diagnosis is Diagnosis.CORRUPT and row.inner is InnerState.PARTIAL
    return row.diagnosis in UNFINISHED or (header_too and row.outer is not OuterState.WRONG)


def is_super_packet(row: Row, length: int) -> bool:
    """Whether an unfinished packet of `length` bytes (from its IP header) is longer than a wire would have carried."""
    nothing_done = row.diagnosis in (Diagnosis.BOTH_UNFINISHED, Diagnosis.CORRUPT)
    return length > LARGEST_MTU or (nothing_done and length > COMMON_MTU)
