"""The program of ``finish.bpf.c`` in the kernel: what it is to finish, until when, and what it has counted.

Everything ends with the process: entries at their deadline, the maps and the program once nobody holds them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from importlib import resources
from typing import NamedTuple, Self

from fixer.kernel import bpf, elf

PROGRAM = "fixer_finish"
"""What the kernel calls it, as ``bpftool prog`` and ``tc filter show`` tell."""
ENTRIES = 1024
OUTCOMES = (
    "unknown",
    "sampled",
    "merged",
    "local",
    "header_wrong",
    "outer_open",
    "verifies",
    "too_long",
    "refused",
)
"""What becomes of packets that look unfinished and are left as they are: ``enum outcome``."""
KEY_BYTES = 40
"""``struct key``: the outer source (16; IPv4 behind twelve bytes of zero), UDP port (2), VXLAN header, inner MACs (20),
in network order; the outer IP version (2), in the machine's."""
ZERO, PSEUDO, AGREES = 1, 2, 4
"""How the outer field may stand: bits."""

_ENTRY = struct.Struct("=QQQIHH")
_COUNT = struct.Struct("=QQ")
_MOST_CPUS = 8192
"""Linux's own limit: so many values may come where a map has one for each CPU."""
_UNWRITTEN = b"\xa5"


class Count(NamedTuple):
    """Packets, and their bytes from the outer IP header on."""

    packets: int
    bytes: int


class Finisher:
    """The program, loaded, and its maps; to be closed. It does nothing before it is attached and has an entry."""

    WAYS = (ZERO, PSEUDO, AGREES)

    def __init__(self) -> None:
        """Raises OSError with the kernel's error: EPERM without CAP_BPF and CAP_NET_ADMIN, EINVAL before Linux 5.8."""
        found = elf.read(resources.files("fixer.kernel").joinpath("finish.bpf.o").read_bytes(), "tc")
        self._maps: dict[str, int] = {}
        self._slots: dict[bytes, int] = {}
        self._free = list(range(ENTRIES - 1, -1, -1))
        bpf.lift_memory_limit()
        try:
            for name, shape in found.maps.items():
                self._maps[name] = bpf.make_map(*shape, name=f"fixer_{name}")
            self.program = bpf.load(found.linked(self._maps), found.licence, PROGRAM)
            """Its descriptor."""
        except BaseException:
            self._close_maps()
            raise
        self._cpus = self._count_cpus()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it. What is attached keeps the program and the maps, until that is detached or its entries end."""
        os.close(self.program)
        self._close_maps()

    def _close_maps(self) -> None:
        for descriptor in self._maps.values():
            os.close(descriptor)
        self._maps.clear()

    def put(self, key: bytes, outers: int, *, deadline: int, sample: int, interval: int, marks: bool = False) -> bool:
        """Finish packets of ``key`` whose outer field stands in one of these ways, until the ``deadline``.

        From ``sample`` on the next one, and then one each ``interval``, is left as it is. All three in nanoseconds, the
        first two of CLOCK_MONOTONIC. ``marks``: mark them as verified, where that can be done, and sum no payload: what
        is forwarded then leaves wrong. False: there is no room for another one.
        """
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key of {len(key)} bytes")
        slot = self._slots.get(key)
        if slot is None:
            if not self._free:
                return False
            slot = self._free.pop()
        try:
            bpf.update(self._maps["entries"], key, _ENTRY.pack(deadline, sample, interval, slot, outers, marks))
        except BaseException:
            if key not in self._slots:
                self._free.append(slot)
            raise
        self._slots[key] = slot
        return True

    def drop(self, key: bytes) -> Count:
        """Finish no more of this one; what was finished."""
        slot = self._slots.pop(key, None)
        if slot is None:
            return Count(0, 0)
        bpf.delete(self._maps["entries"], key)
        found = self._read(slot)
        # A packet on another CPU may be at it still, and is then counted for who comes next: a number, and no harm.
        bpf.update(self._maps["counted"], struct.pack("=I", slot), bytes(_COUNT.size * self._cpus))
        self._free.append(slot)
        return found

    def finished(self, key: bytes) -> Count:
        """What was finished of this one since it was put there."""
        return self._read(self._slots[key]) if key in self._slots else Count(0, 0)

    def left(self) -> dict[str, Count]:
        """What looked unfinished and was left as it was, by :data:`OUTCOMES`."""
        return {name: self._read(ENTRIES + number) for number, name in enumerate(OUTCOMES)}

    def __contains__(self, key: bytes) -> bool:
        return key in self._slots

    def __iter__(self) -> Iterator[bytes]:
        return iter(list(self._slots))

    def __len__(self) -> int:
        return len(self._slots)

    def _read(self, slot: int) -> Count:
        found = bpf.look_up(self._maps["counted"], struct.pack("=I", slot), _COUNT.size * self._cpus) or b""
        each = list(_COUNT.iter_unpack(found))
        return Count(sum(packets for packets, _ in each), sum(size for _, size in each))

    def _count_cpus(self) -> int:
        """How many values there are of each counter: one for each CPU that could be there, which is told by how far the
        kernel writes."""
        room = bpf.look_up(
            self._maps["counted"], bytes(4), _COUNT.size * _MOST_CPUS, filled=_UNWRITTEN * (_COUNT.size * _MOST_CPUS)
        )
        return len((room or b"").rstrip(_UNWRITTEN)) // _COUNT.size
