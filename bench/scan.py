"""``fixer scan`` next to tshark with checksum validation on, over a capture made for it."""

from __future__ import annotations

import json
import resource
import struct
import sys
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

from fixer.host.machine import Host

from .cable import must
from .packets import ETHERNET, conversation, flow
from .ratio import Interval, interval, ratios

FRAMES = 1_000_000
LEAST_RATIO = 20.0  # of packets a second
SIZES = (64, 64, 64, 576, 1450)  # bytes of inner packet, in turn
FLOWS = 200
BROKEN = 100  # one packet in so many is left unfinished
BLOCK = 20_000  # frames written at once

TSHARK = (
    "tshark", "-n", "-q", "-z", "io,stat,0", "-o", "udp.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE",
    "-o", "ip.check_checksum:TRUE", "-r",
)  # fmt: skip
FIXER = (sys.executable, "-m", "fixer", "scan", "--json")


class Scanned(NamedTuple):
    """Seconds are of the whole command, start and end included; CPU's are no others' on the machine."""

    frames: int
    capture_bytes: int
    fixer_seconds: tuple[float, ...]
    tshark_seconds: tuple[float, ...]
    fixer_cpu_seconds: tuple[float, ...]
    tshark_cpu_seconds: tuple[float, ...]

    @property
    def fixer_per_second(self) -> Interval:
        return interval([self.frames / seconds for seconds in self.fixer_seconds])

    @property
    def tshark_per_second(self) -> Interval:
        return interval([self.frames / seconds for seconds in self.tshark_seconds])

    @property
    def ratio(self) -> Interval:
        return ratios(self.tshark_seconds, self.fixer_seconds)

    @property
    def cpu_ratio(self) -> Interval:
        return ratios(self.tshark_cpu_seconds, self.fixer_cpu_seconds)


def scanned(host: Host, scratch: Path, frames: int, pairs: int, tell: Callable[[str], None]) -> Scanned:
    """Both over one capture below ``scratch``, in turns; the capture is removed."""
    tell(f"scan: making a capture of {frames:,} packets")
    capture = scratch / "bench.pcap"
    broken = write_capture(capture, frames)
    size = capture.stat().st_size
    times: dict[Sequence[str], list[float]] = {FIXER: [], TSHARK: []}
    cpu: dict[Sequence[str], list[float]] = {FIXER: [], TSHARK: []}
    try:
        capture.read_bytes()  # both find it in the page cache
        for number in range(pairs):
            order = (FIXER, TSHARK) if number % 2 else (TSHARK, FIXER)
            for command in order:
                tell(f"scan: {'fixer' if command is FIXER else 'tshark'}, {number + 1} of {pairs}")
                begun, cpu_begun = time.perf_counter(), cpu_of_children()
                done = must(host.run([*command, str(capture)], seconds=None), command[0])
                times[command].append(time.perf_counter() - begun)
                cpu[command].append(cpu_of_children() - cpu_begun)
                if command is FIXER:
                    report = json.loads(done.out)
                    if (report["frames"], report["repairable"]) != (frames, broken):
                        raise RuntimeError(f"fixer scan has counted {report}")
    finally:
        capture.unlink(missing_ok=True)
    return Scanned(frames, size, *(tuple(each[command]) for each in (times, cpu) for command in (FIXER, TSHARK)))


def cpu_of_children() -> float:
    """Seconds that all programs which were started here, and have ended, have had of CPUs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def write_capture(path: Path, frames: int) -> int:
    """A pcap of ``frames`` Ethernet frames of FLOWS conversations, one in BROKEN unfinished; how many are.

    Segments are acknowledged, since tshark keeps, and searches, what is not.
    """
    sound = [conversation(size, number) for number, size in zip(range(FLOWS), cycle(SIZES), strict=False)]
    unfinished = [flow(size, FLOWS + number, True) for number, size in zip(range(8), cycle(SIZES), strict=False)]
    # Each flow in turn, and at the end of every BROKEN packets one of a broken sender.
    turn, broken_turn = cycle(sound), cycle(unfinished)
    ethernet = bytes.fromhex("0200000000050200000000040800")
    broken = 0
    with path.open("wb") as file:
        file.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
        for first in range(0, frames, BLOCK):
            records: list[bytes] = []
            for number in range(first, min(first + BLOCK, frames)):
                is_broken = number % BROKEN == BROKEN - 1
                broken += is_broken
                packet = next(next(broken_turn if is_broken else turn))
                size = ETHERNET + len(packet)
                records += (struct.pack("=IIII", 1_700_000_000 + number // 100_000, number % 100_000 * 10, size, size),
                            ethernet, packet)  # fmt: skip
            file.write(b"".join(records))
    return broken
