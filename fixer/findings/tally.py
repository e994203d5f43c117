"""What a capture adds up to: counts per sender, and what became of those of its packets that are not sound.

The packets come from a `Census`, which has counted them by kind; here the kinds become a report. A sender is a VTEP
(outer source address), or for a plain packet its source address. What the numbers mean is concluded in `verdicts`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from fixer.datapath.diagnose import OuterState
from fixer.datapath.result import Result
from fixer.datapath.walk import Reason
from fixer.findings.census import Census
from fixer.findings.conversations import Fate
from fixer.findings.roads import Seen
from fixer.findings.sender import Counts, Door, Sender, row_of
from fixer.findings.strangers import Strangers
from fixer.findings.verdicts import Harms

NO_VNI = frozenset({Reason.OUTER_UNREADABLE, Reason.OUTER_FRAGMENT, Reason.NOT_VXLAN})
"""Reasons for which a packet to a VXLAN port shows no VNI."""

COMMON_MTU = 1500
"""Bytes. A Linux sender leaves both layers unfinished only in a super-packet (the outer sum of a single packet already
agrees with its inner one), so with both at P anything longer than a common packet is one."""
LARGEST_MTU = 9216
"""Bytes. The largest jumbo frame that is in use: no wire carried what is longer."""

MOST_CONVERSATIONS = 1 << 16
"""Inner conversations that are followed, for bounded memory; those that begin later prove nothing."""
MOST_WAITING = 1 << 17
"""Packets of all conversations that wait for an answer at once; of those beyond it nothing becomes known."""
MOST_KINDS = 1 << 16
"""Kinds of packets that are counted before they are taken into the tally."""


class Room(NamedTuple):
    """How much is kept apart; a file, or a flood, can be of as many senders as it has packets."""

    senders: int
    """The worst and busiest."""
    gone: int
    """Other senders that are told from each other, to count them."""
    vnis: int
    """Of all senders together."""


IN_FILE = Room(1 << 12, 1 << 19, 1 << 18)
ON_WIRE = Room(1 << 7, 1 << 12, 1 << 12)


class Others(NamedTuple):
    """Those who are not told one by one: how many, as '980 others', '' if none; their packets; how many harm."""

    words: str
    sender: Sender
    harm: int


def new_census() -> Census:
    """An empty census that tells apart the lengths which mean something here."""
    return Census(
        common_mtu=COMMON_MTU,
        largest_mtu=LARGEST_MTU,
        most_kinds=MOST_KINDS,
        most_conversations=MOST_CONVERSATIONS,
        most_waiting=MOST_WAITING,
    )


class Tally:
    """Everything counted in one file, or on one wire. Of more senders than there is room for, those who harm least are
    counted together."""

    def __init__(self, door: Door = Door.CAPTURE, room: Room | None = None) -> None:
        """room: by default, that of a file."""
        self.door = door
        self.room = room or IN_FILE
        self.frames = 0
        self.not_ip = 0
        self.unread: Counter[int] = Counter()
        self.other: Counter[Reason] = Counter()
        self.vteps: dict[str, Sender] = {}
        self.senders: dict[str, Sender] = {}
        self.roads: list[Seen] = []
        self.later_parts = 0
        """Fragments of the underlay that are not the first of their packet."""
        self.strangers = Strangers()
        self.unfollowed = 0
        """Packets that are not sound, and for whose fate there was no room."""
        self._vnis = 0
        self.forget_others()

    def forget_others(self) -> None:
        """Count those who are not kept apart anew."""
        self.others = {True: Sender(), False: Sender()}  # VTEPs, and senders of plain packets
        self._gone: set[int] = set()
        self._harm = 0  # of those

    def take(self, census: Census) -> None:
        """Take what `census` has counted since it was last asked; it goes on with room for more."""
        self.frames, self.not_ip = census.frames + self.unread.total(), census.not_ip
        self.add(census.drain())

    def add(self, kinds: Iterable[tuple[Result, bool | None, Fate, int, int]]) -> None:
        """Add kinds of packets, as `Census.drain` tells them."""
        for result, outgoing, fate, frame, count in kinds:
            self._add(result, outgoing, fate, frame, count)

    def finish(self, census: Census) -> None:
        """After the last packet: take the rest."""
        census.end()
        self.take(census)
        self.roads, self.later_parts = census.roads.all(), census.roads.later_parts
        self.strangers, self.unfollowed = census.strangers, census.unfollowed
        self._shrink()

    def _add(self, result: Result, outgoing: bool | None, fate: Fate, frame: int, count: int) -> None:
        """`count` IP packets of one kind, as `Census.drain` tells them."""
        row = row_of(result)
        vxlan = row.outer is not OuterState.NO_TUNNEL
        if vxlan and not result.vxlan:
            self.other[row.reason] += count
            return
        senders, source = (self.vteps, result.outer_source) if vxlan else (self.senders, result.inner_source)
        sender = senders.get(source)
        if sender is None:
            if len(self.vteps) + len(self.senders) >= 4 * self.room.senders:
                self._shrink()
            sender = senders[source] = Sender(self.door)
        vnis = sender.add(row, result, outgoing, fate, frame, count).vnis
        if vxlan and row.reason not in NO_VNI and result.vni not in vnis:
            if self._vnis < self.room.vnis:
                self._vnis += 1
                vnis.add(result.vni)
            else:
                sender.more_vnis = True

    def _shrink(self) -> None:
        """Keep as many apart as there is room for, and no more."""
        for harm, is_vtep, address, sender in self._ranked()[self.room.senders :]:
            del (self.vteps if is_vtep else self.senders)[address]
            self._harm += harm  # each by itself: what excuses one sender excuses no other
            self.others[is_vtep].join(sender)
            self._vnis -= _vnis_of(sender)
            if len(self._gone) < self.room.gone:
                self._gone.add(hash((is_vtep, address)))

    def knows(self, is_vtep: bool, address: str) -> bool:
        """Whether that sender is kept apart."""
        return address in (self.vteps if is_vtep else self.senders)

    def leave(self, is_vtep: bool, address: str) -> None:
        """Forget a sender."""
        (self.vteps if is_vtep else self.senders).pop(address, None)

    def leave_the_sound(self) -> None:
        """Forget who sends nothing that is not sound: on a wire, where such are told beside others."""
        for senders in (self.vteps, self.senders):
            for address, sender in list(senders.items()):
                if not any(row.is_broken and packets.count > 0 for row, packets in sender.rows.items()):
                    del senders[address]
        self._vnis = sum(map(_vnis_of, (*self.vteps.values(), *self.senders.values())))

    def by_harm(self) -> list[tuple[bool, str, Sender]]:
        """Who is kept apart, whether it is a VTEP, and its packets: those of whom most are not sound first."""
        return [each[1:] for each in self._ranked()]

    def _ranked(self) -> list[tuple[int, bool, str, Sender]]:
        """The same, each behind how many packets of it harm."""
        known = [(True, *each) for each in self.vteps.items()] + [(False, *each) for each in self.senders.items()]
        harms = Harms()
        ranked = [(harms.of(sender, address), is_vtep, address, sender) for is_vtep, address, sender in known]
        return sorted(ranked, key=lambda each: (-each[0], -each[3].packets))

    def worst(self, most: int) -> tuple[list[tuple[bool, str, Sender]], Others]:
        """The `most` worst senders, as in `by_harm`, and the others."""
        ranked = self._ranked()
        known = [each[1:] for each in ranked]
        rest = Sender()
        for sender in (*self.others.values(), *(sender for *_, sender in known[most:])):
            rest.join(sender)
        # Who was counted with the others may have come back.
        others = len(known[most:]) + len(self._gone - {hash((is_vtep, address)) for is_vtep, address, _ in known})
        over = "over " if len(self._gone) == self.room.gone else ""
        harm = self._harm + sum(each[0] for each in ranked[most:])
        return known[:most], Others(f"{over}{others:,} others" if others else "", rest, harm)

    @property
    def total(self) -> Counts:
        counts = Counts()
        for sender in self.everybody():
            counts.add(sender)
        return counts

    @property
    def plain(self) -> int:
        return sum(sender.packets for sender in (*self.senders.values(), self.others[False]))

    def everybody(self) -> list[Sender]:
        """VTEPs and plain senders; the others as one of each kind."""
        return [*self.vteps.values(), *self.senders.values(), *self.others.values()]


def _vnis_of(sender: Sender) -> int:
    return sum(len(packets.vnis) for packets in sender.rows.values())
