"""Packets on their way between two captures: made one by one, so that a test knows what became of each."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

from support import oracle
from support.captures import ethernet
from support.packets import frame, vxlan
from support.quick import made

LEFT, RIGHT = bytes([192, 0, 2, 4]), bytes([192, 0, 2, 5])
HERE, THERE = bytes([10, 0, 1, 4]), bytes([10, 0, 1, 5])
SECOND = 10**9
MS = 10**6
NOON = 1_700_000_000 * SECOND


class Sight(NamedTuple):
    """One packet at one point of capture; `cut`: bytes that the capture kept of its frame."""

    when: int
    packet: bytes
    cut: int = 1 << 18


def tcp(
    sequence: int = 1,
    acknowledged: int = 1,
    flags: int = 0x18,
    ports: tuple[int, int] = (4000, 80),
    options: bytes = b"",
) -> bytes:
    offset = 5 + len(options) // 4
    return struct.pack(">HHIIBBHHH", *ports, sequence, acknowledged, offset << 4, flags, 512, 0, 0) + options


def inner(number: int, payload: bytes, *, back: bool = False, state: str = "VERIFIES", header: bytes = b"") -> bytes:
    """An IPv4 packet with the identification `number`: TCP with `header`, else UDP."""
    addresses = THERE + HERE if back else HERE + THERE
    packet = made(4, "tcp" if header else "udp", addresses, payload, state, header=header)
    packet = oracle.with_field(oracle.with_field(packet, 4, number), 10, 0)
    return oracle.with_field(packet, 10, 0xFFFF - oracle.ones_sum(packet[:20]))


def around(
    packet: bytes,
    *,
    back: bool = False,
    vni: int = 4097,
    ttl: int = 64,
    port: int = 4789,
    state: str = "ZERO",
    vteps: bytes = b"",
) -> bytes:
    """`packet` in VXLAN, in an Ethernet frame."""
    outer = made(4, "udp", vteps or (RIGHT + LEFT if back else LEFT + RIGHT), vxlan(frame(packet), vni), state, port)
    outer = oracle.with_field(outer, 8, ttl << 8 | 17)
    outer = oracle.with_field(outer, 10, 0)
    return ethernet(oracle.with_field(outer, 10, 0xFFFF - oracle.ones_sum(outer[:20])))


def write(path: Path, sights: list[Sight]) -> Path:
    """As a pcap in nanoseconds, in the order of the list."""
    out = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)]
    for sight in sights:
        kept = sight.packet[: sight.cut]
        out.append(struct.pack("<IIII", *divmod(sight.when, SECOND), len(kept), len(sight.packet)) + kept)
    path.write_bytes(b"".join(out))
    return path
