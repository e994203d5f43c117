"""``fixer compare`` over two captures of a million packets each: how long it takes, and how much memory."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .scan import write_capture

LOST = 1000  # one packet in so many is not in the second capture
MOST_SECONDS = 10.0
MOST_MIB = 500.0 * 1e6 / (1 << 20)


class Compared(NamedTuple):
    """Of the whole command, start and end included; ``mib`` is the most that was resident."""

    frames: int
    seconds: float
    cpu_seconds: float
    mib: float

    @property
    def reached(self) -> bool:
        return self.seconds < MOST_SECONDS and self.mib < MOST_MIB


def compared(scratch: Path, frames: int, tell: Callable[[str], None]) -> Compared:
    """Both captures are made below ``scratch``, and removed."""
    tell(f"compare: making two captures of {frames:,} packets")
    left, right = scratch / "left.pcap", scratch / "right.pcap"
    try:
        write_capture(left, frames)
        write_crossed(left, right)
        tell("compare: fixer")
        begun = time.perf_counter()
        command = [sys.executable, "-m", "fixer", "compare", "--json", str(left), str(right)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None  # noqa: S101
            found = json.loads(process.stdout.read())
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - begun
        counted = sum(leg["lost"] + sum(leg["uncounted"].values()) for leg in found["legs"])
        if (found["sender"]["compared"], counted) != (frames, frames // LOST):
            raise RuntimeError(f"fixer compare has counted {counted} lost of {frames // LOST}")
        return Compared(frames, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
    finally:
        left.unlink(missing_ok=True)
        right.unlink(missing_ok=True)


def write_crossed(left: Path, right: Path) -> None:
    """The same capture without one packet in LOST; a record at a time, for a process that is started counts as its own
    what we have held."""
    number = 0
    with left.open("rb") as whole, right.open("wb") as file:
        file.write(whole.read(24))
        while record := whole.read(16):
            frame = whole.read(struct.unpack_from("=I", record, 8)[0])
            number += 1
            if number % LOST:
                file.write(record + frame)
