"""Whether what looks unfinished in a capture is a fault, packet by packet, from what became of it.

Before a sender's NIC nothing is finished, between the ends of a veth nothing ever is, and what GRO or LRO merged on the
host that captured is not either. So only a packet that was sent again in vain, or that expects an answer and has none,
can be a fault, and only where the capture was taken behind the sender's NIC: it is marked as incoming, or the same
sender's other packets are finished. Where the user says that it came in, it need not even expect an answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

from fixer.findings.conversations import Fate
from fixer.findings.finding import Place, Verdict
from fixer.findings.sender import Door, Row, Sender, is_unfinished

ENOUGH_FINISHED = 2
"""Finished segments that show that a sender's NIC has been passed: one may be forwarded, or right by chance."""

ALL = tuple(Fate)
ARRIVED = (Fate.ACCEPTED, Fate.ACCEPTED_DATA, Fate.REFUSED)
IN_VAIN = (Fate.LOST, Fate.UNANSWERED)


class Unfinished:
    """One sender's unfinished packets: `verdicts` of each row, the `place` of the capture as seen from it."""

    def __init__(self, sender: Sender, address: str) -> None:
        self.sender = sender
        self.cells = sender.cells(row for row in sender.rows if is_unfinished(row))
        self.total = self.cells.total()
        self.loopback = is_loopback(address)
        self.outgoing = self.count(True)
        self.merged = self.count(None, False, fates=(Fate.MERGED,))
        self.accepted = self.count(None, False, fates=(Fate.ACCEPTED, Fate.REFUSED))
        self.acknowledged = self.count(None, False, fates=(Fate.ACCEPTED_DATA,))
        self.in_vain = self.count(None, False, fates=IN_VAIN)
        self.lost = self.count(None, False, fates=(Fate.LOST,))
        self.accepted_incoming = self.count(False, fates=(Fate.ACCEPTED, Fate.REFUSED))
        self.lost_incoming = self.count(False, fates=(Fate.LOST,))
        self.passed_nic = sender.finished >= ENOUGH_FINISHED
        if not self.passed_nic:  # nothing says that these were merged by a receiver
            self.accepted += self.acknowledged

    def count(self, *outgoing: bool | None, fates: tuple[Fate, ...] = ALL) -> int:
        return sum(packets for (mark, fate), packets in self.cells.items() if mark in outgoing and fate in fates)

    def verdict(self, outgoing: bool | None, fate: Fate) -> Verdict:
        if self.loopback or outgoing or fate in ARRIVED or fate is Fate.MERGED:
            return Verdict.HARMLESS
        if self.accepted:
            return Verdict.UNCLEAR if fate is Fate.LOST else Verdict.HARMLESS
        if outgoing is False and (self.sender.door is not Door.CAPTURE or self.lost_incoming):
            return Verdict.FAULT
        return Verdict.FAULT if self.passed_nic and self.in_vain else Verdict.UNCLEAR

    def verdicts(self, row: Row) -> Counter[Verdict]:
        if self.sender.mends([row]):  # this host's kernel does not vouch for it, and would have discarded it
            return Counter({Verdict.FAULT: self.sender.rows[row].count})
        found: Counter[Verdict] = Counter()
        for cell, count in self.sender.rows[row].fates.items():
            found[self.verdict(*cell)] += count
        return found

    def place(self, *, everybody: bool) -> Place:
        """everybody: whether others send such here as well, and somebody's are accepted before any NIC had them."""
        if self.sender.door.is_wire:
            return Place.RECEIVER
        if self.loopback or ((self.accepted or self.outgoing) and everybody):
            return Place.ONE_HOST
        if self.accepted_incoming:
            return Place.RECEIVER
        if self.outgoing or self.accepted:
            return Place.SENDER
        if self.passed_nic and (self.merged or self.acknowledged):
            return Place.RECEIVER
        if self.count(False):
            return Place.RECEIVER
        return Place.BEHIND if self.passed_nic and self.in_vain else Place.UNKNOWN


def row_verdicts(sender: Sender, address: str) -> dict[Row, Counter[Verdict]]:
    """Of each kind of a sender's packets that is not sound, how many are what; the same as its findings say."""
    unfinished = Unfinished(sender, address)
    found: dict[Row, Counter[Verdict]] = {}
    for row in sender.rows:
        if is_unfinished(row):
            found[row] = unfinished.verdicts(row)
        elif row.is_broken:
            found[row] = Counter({other(sender, [row]): sender.rows[row].count})
    return found


def other(sender: Sender, rows: list[Row]) -> Verdict:
    """Of rows that are broken in another way, as one. What was accepted all the same is unclear: repaired behind this
    point, or not looked at by its receiver."""
    cells = sender.cells(rows)
    arrived = sum(count for (_, fate), count in cells.items() if fate in ARRIVED)
    lost = sum(count for (_, fate), count in cells.items() if fate in IN_VAIN)
    if all(row.is_absent for row in rows):
        return Verdict.HARMLESS if arrived else Verdict.FAULT if lost else Verdict.UNCLEAR
    return Verdict.UNCLEAR if arrived == cells.total() and not sender.mends(rows) else Verdict.FAULT


class Harms:
    """What senders did: packets that are not sound, but for those that only look so where the capture was taken.

    A flood's senders are alike by the hundred thousand, and verdicts are dear: so those that are alike are judged once.
    For one look at them all and no longer: what they were alike in is counted on.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, int] = {}

    def of(self, sender: Sender, address: str) -> int:
        broken = [(row, packets.count, *packets.fates.items()) for row, packets in sender.rows.items() if packets.fates]
        if not broken:
            return 0
        alike = sender.door, sender.finished >= ENOUGH_FINISHED, is_loopback(address), *broken
        harm = self._known.get(alike)
        if harm is None:
            harm = self._known[alike] = sum(
                count
                for verdicts in row_verdicts(sender, address).values()
                for verdict, count in verdicts.items()
                if verdict is not Verdict.HARMLESS
            )
        return harm


def is_loopback(address: str) -> bool:
    return address == "::1" or (address.startswith("127.") and ":" not in address)
