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
    """What the program changes goes on; anything else is judged by ``path``, which tells the program of envelopes."""

    def __init__(self, path: Pipeline) -> None:
        """Raises OSError where the kernel takes no such program."""
        self.path = path
        path.want_unfinished(True)
        self.finisher = Finisher()
        self.finished = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finisher.close()

    def examine(self, packet: bytes, when_ns: int) -> tuple[bytes, Action]:
        """The packet as it leaves, and what was done."""
        version = 6 if packet[:1] and packet[0] >> 4 == 6 else 4
        frame = ETHERNET + (b"\x86\xdd" if version == 6 else b"\x08\x00") + packet
        left = bpf.try_out(self.finisher.program, frame).packet
        if left != frame:
            self.finished += 1
            return left[14:], Action.REPAIR
        mended = bytearray(packet)
        action = self.path.examine(mended, when_ns=when_ns).action
        for key, outers in self.path.take_unfinished():
            now = time.monotonic_ns()
            self.finisher.put(key, outers, deadline=now + HOUR, sample=now + HOUR, interval=HOUR)
        return bytes(mended), action
