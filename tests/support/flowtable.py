"""The header of a flow table's file: for tests that need a file that says how many, and no connections in it."""

from __future__ import annotations

import struct
from pathlib import Path

from fixer.state import flowfile

NORMALISED_AT = struct.calcsize("=8s4IQI")  # what stands before the count in `flowfile`'s struct


def header(*, capacity: int = 1024, normalised: int = 0, used: int = 0, draining: int = 0) -> bytes:
    clocks, check, seed = 16, 0, 0
    magic, version = flowfile._MAGIC, flowfile._VERSION
    return flowfile._HEADER.pack(magic, version, capacity, clocks, check, seed, draining, normalised, used)


def set_normalised(path: Path, count: int) -> None:
    """In a file that a daemon may have mapped, and nothing else in it."""
    with path.open("r+b") as file:
        file.seek(NORMALISED_AT)
        file.write(struct.pack("=I", count))
