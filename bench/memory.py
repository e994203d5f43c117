"""The daemon's memory while ten million packets pass, every one of them broken, repaired, and told or counted."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fixer.errors import SystemRefused
from fixer.host.machine import Host
from fixer.lab import net

from .cable import OVERLAY, Cable, Traffic
from .receivers import FIXER_ALL, in_place, listening

PACKETS = 10_000_000
PAYLOAD = 64  # bytes: the more packets a second
LOOK_SECONDS = 0.5
MOST_MIB = 80.0
FLAT_MIB = 1.0  # what may come after the first tenth of the packets


class Sample(NamedTuple):
    packets: int
    mib: float  # VmRSS


class Memory(NamedTuple):
    samples: tuple[Sample, ...]

    @property
    def last(self) -> float:
        return self.samples[-1].mib

    @property
    def growth(self) -> float:
        """MiB between a tenth of the packets and all of them."""
        end = self.samples[-1]
        return end.mib - next(sample.mib for sample in self.samples if sample.packets * 10 >= end.packets)

    @property
    def reached(self) -> bool:
        return max(sample.mib for sample in self.samples) < MOST_MIB and self.growth < FLAT_MIB


def watched(host: Host, packets: int, scratch: Path, tell: Callable[[str], None]) -> Memory:
    """One stream, and the daemon looked at until ``packets`` have come in."""
    traffic = Traffic(payload=PAYLOAD, broken=True, outer_checksum=True)
    samples = []
    with (
        Cable(traffic, host) as cable,
        cable.serving(),
        listening(cable, [FIXER_ALL], Path(), scratch) as standing,
        cable.breaking(True),
        in_place(cable, standing[FIXER_ALL.name].table),
    ):
        pid, queue = standing[FIXER_ALL.name].pids[0], standing[FIXER_ALL.name].queues[0]
        sender = cable.left.start("iperf3", "--client", OVERLAY["right"], "--time", "86400", "--logfile", os.devnull)
        try:
            while True:
                time.sleep(LOOK_SECONDS)
                seen = cable.queues()[queue].sequence
                samples.append(Sample(seen, resident(host, pid)))
                tell(f"memory: {seen:,} of {packets:,} packets, {samples[-1].mib:.1f} MiB")
                if seen >= packets:
                    return Memory(tuple(samples))
                if sender.poll() is not None:
                    raise SystemRefused("memory: iperf3 ended before its time")
        finally:
            net.stop(sender)


def resident(host: Host, pid: int) -> float:
    """VmRSS in MiB (proc(5): /proc/pid/status)."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", host.read(f"/proc/{pid}/status") or "", re.MULTILINE)
    if found is None:
        raise SystemRefused("memory: the daemon has gone")
    return int(found[1]) / 1024
