"""The program that finishes packets in the kernel (docs/kernel.md), before the packet path: as a node has them."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from fixer.datapath.pipeline import Pipeline
from fixer.datapath.repair import Action
from fixer.kernel import bpf
from fixer.kernel.finisher import Finisher

HOUR = 3600 * 10**9
ETHERNET = bytes(12)


class Node:
    """What the program changes goes on; anything else is judged by ``path``, which tells the program of envelopes.

    With ``marks`` it marks packets as verified instead of summing, as where the overlay ends on the host. Whoever gets
    such a packet takes it unseen: it is judged as what summing would have made of it. A mark that does more than that,
    or one where summing would have left the packet alone though it is not right, is an AssertionError.
    """

    def __init__(self, path: Pipeline, *, marks: bool = False) -> None:
        """Raises OSError where the kernel takes no such program."""
        self.path = path
        path.want_unfinished(True)
        self.marks = marks
        self.finisher = Finisher()
        self.summing = Finisher() if marks else self.finisher
        self.finished = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finisher.close()
        if self.marks:
            self.summing.close()

    def examine(self, packet: bytes, when_ns: int) -> tuple[bytes, Action]:
        """The packet as it leaves, and what was done."""
        version = 6 if packet[:1] and packet[0] >> 4 == 6 else 4
        frame = ETHERNET + (b"\x86\xdd" if version == 6 else b"\x08\x00") + packet
        left = bpf.try_out(self.finisher.program, frame).packet
        if left != frame:
            self.finished += 1
            return self._taken(frame, left)[14:], Action.REPAIR
        mended = bytearray(packet)
        action = self.path.examine(mended, when_ns=when_ns).action
        for key, outers in self.path.take_unfinished():
            now = time.monotonic_ns()
            for finisher in {self.finisher, self.summing}:
                marks = self.marks and finisher is self.finisher
                finisher.put(key, outers, deadline=now + HOUR, sample=now + HOUR, interval=HOUR, marks=marks)
        return bytes(mended), action

    def _taken(self, frame: bytes, left: bytes) -> bytes:
        """As which its receiver takes a ``frame`` that was ``left`` by the program."""
        if not self.marks:
            return left
        summed = bpf.try_out(self.summing.program, frame).packet
        if left != summed and len(words_between(frame, left) | words_between(frame, summed)) > 1:
            raise AssertionError(f"more was marked than one field: {frame.hex()} became {left.hex()}")
        if summed == frame and not self._verifies(frame):
            raise AssertionError(f"marked, and not to be repaired: {frame.hex()}")
        return summed

    def _verifies(self, frame: bytes) -> bool:
        """Whether it was right as it came, which who sums sees, and who marks does not look at."""
        before = self.summing.left()["verifies"].packets
        bpf.try_out(self.summing.program, frame)
        return self.summing.left()["verifies"].packets == before + 1


def words_between(one: bytes, other: bytes) -> set[int]:
    """Where two frames of one length differ: the numbers of their 16-bit words."""
    return {at // 2 for at, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1]}
