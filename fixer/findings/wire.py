"""What passes on the wire, as findings: the same conclusions as of a capture, from what the packet paths tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from fixer.datapath.pipeline import Pipeline
from fixer.datapath.result import Result
from fixer.findings.finding import Finding, Role, Verdict
from fixer.findings.ledger import Ledger
from fixer.findings.lifecycle import CLOSE_SECONDS, Key
from fixer.findings.sender import SOUND, Door, Row, row_of, sender_of
from fixer.findings.tally import COMMON_MTU, LARGEST_MTU, ON_WIRE, Tally
from fixer.now import Now

Packet = tuple[Result, bytes, bytes | None]
"""One that was kept: as it came, and as it left (None: dropped)."""

MOST_TOLD = 64
"""Senders that are spoken of one by one: the worst."""


def watch(pipelines: Sequence[Pipeline]) -> list[Ledger]:
    """A ledger for each packet path, told from its next packet on. Before their threads start."""
    ledgers = []
    for pipeline in pipelines:
        ledger = Ledger(common_mtu=COMMON_MTU, largest_mtu=LARGEST_MTU)
        ledger.watch(pipeline)
        ledgers.append(ledger)
    return ledgers


class Wire:
    """Everything counted on one wire since it was last forgotten."""

    def __init__(self, ledgers: Sequence[Ledger], *, monitor: bool) -> None:
        self._ledgers = ledgers
        self._found: list[Finding] = []
        self._rows: dict[tuple[str, Role, str], set[Row]] = {}
        self._late: list[Packet] = []
        self._last: dict[tuple[bool, str], float] = {}
        """When each sender, a VTEP or not, last sent what is not sound: in steady seconds."""
        self._tally = _tally(monitor)

    @property
    def monitor(self) -> bool:
        """Whether packets pass as they come."""
        return self._tally.door is Door.WATCHED

    @monitor.setter
    def monitor(self, value: bool) -> None:
        """From now on; what became of packets before says nothing of those that come now, so all is counted anew."""
        if value != self.monitor:
            self._tally = _tally(value)

    def findings(self, now: Now) -> list[Finding]:
        """All that is not harmless. To be called about once a second."""
        news = [kind for ledger in self._ledgers for kind in ledger.drain()]
        sent: Counter[tuple[bool, str]] = Counter()
        for result, _, _, _, count in news:
            if result.diagnosis not in SOUND:
                sent[result.vxlan, sender_of(result)] += count
        # None in all where only what became of earlier ones has been told.
        self._last |= {key: now.steady for key, count in sent.items() if count > 0}
        silent = [key for key, last in self._last.items() if now.steady - last >= CLOSE_SECONDS]
        for key in silent:
            self._tally.leave(*key)
        if news or silent:
            self._tally.add(news)
            self._draw()
            self._last = {key: last for key, last in self._last.items() if self._tally.knows(*key)}
        return self._found

    def samples(self) -> Iterator[tuple[Key, Packet]]:
        """Packets that were kept since it was last asked, and the finding that each is of. After `findings`."""
        late, self._late = self._late, []
        for packet in late:
            yield from self._found_of(packet)
        for packet in [packet for ledger in self._ledgers for packet in ledger.take_samples()]:
            of = self._found_of(packet)
            if not of:  # kept before its kind was handed over
                self._late.append(packet)
            yield from of

    def _found_of(self, packet: Packet) -> list[tuple[Key, Packet]]:
        who, row = sender_of(packet[0]), row_of(packet[0])
        return [
            ((sender, role, cause, ""), packet)
            for (sender, role, cause), rows in self._rows.items()
            if sender == who and row in rows
        ]

    def forget(self, finding: Finding) -> None:
        """It is over: whatever comes now is counted anew."""
        if finding.cause == "others":
            self._tally.forget_others()
        for senders in (self._tally.vteps, self._tally.senders):
            if sender := senders.get(finding.who):
                sender.forget(self._rows.get((finding.who, finding.role, finding.cause), ()))
        self._draw()

    def _draw(self) -> None:
        """The conclusions of what there is now."""
        # With the first of them: a daemon on a healthy node needs none of it.
        from fixer.findings.sentences import of_others, of_senders

        self._tally.leave_the_sound()
        worst, others = self._tally.worst(MOST_TOLD)
        self._rows, self._found = {}, of_others(others)
        for each in of_senders(worst):
            self._found += [finding for finding in each.findings() if _is_told(finding)]
            self._rows |= {(each.address, role, cause): rows for (role, cause), rows in each.rows.items()}


def _tally(monitor: bool) -> Tally:
    return Tally(Door.WATCHED if monitor else Door.MENDED, ON_WIRE)


def _is_told(finding: Finding) -> bool:
    """What was forgotten may be told the fate of."""
    return finding.packets > 0 and finding.verdict is not Verdict.HARMLESS
