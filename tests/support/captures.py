"""Capture files written byte by byte, so that what reads them is not tested against its own writer."""

from __future__ import annotations

import struct

IP = bytes.fromhex("450000140001000040110000c0000201c0000202")  # 192.0.2.1 → 192.0.2.2, a bare header
ETHERNET = bytes.fromhex("02420a0001c002420a0001b0")
WHEN_NS = 1_700_000_000_123_456_789


def pcap(
    frames: list[bytes],
    link_type: int = 1,
    order: str = "<",
    nano: bool = False,
    wire_lengths: list[int] | None = None,
    when_ns: int = WHEN_NS,
) -> bytes:
    """A classic pcap file; `order` is ``<`` or ``>``; frames are a second apart."""
    out = struct.pack(order + "IHHiIII", 0xA1B23C4D if nano else 0xA1B2C3D4, 2, 4, 0, 0, 262144, link_type)
    for number, frame in enumerate(frames):
        seconds, ns = divmod(when_ns + number * 10**9, 10**9)
        wire = wire_lengths[number] if wire_lengths else len(frame)
        out += struct.pack(order + "IIII", seconds, ns if nano else ns // 1000, len(frame), wire) + frame
    return out


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """One pcapng block: type, total length, body padded to 32 bits, total length."""
    body += bytes(-len(body) % 4)
    total = len(body) + 12
    return struct.pack(order + "II", kind, total) + body + struct.pack(order + "I", total)


def option(code: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def section(order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(link_type: int = 1, limit: int = 262144, resolution: bytes = b"\x09", order: str = "<") -> bytes:
    """An interface whose clock ticks in nanoseconds unless `resolution` says otherwise."""
    return block(1, struct.pack(order + "HHI", link_type, 0, limit) + option(9, resolution, order) + bytes(4), order)


def enhanced(
    frame: bytes, ticks: int = WHEN_NS, flags: int | None = None, number: int = 0, wire: int = 0, order: str = "<"
) -> bytes:
    """An enhanced packet block; `flags` bits 0 and 1 are 1 for inbound, 2 for outbound."""
    body = struct.pack(order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), wire or len(frame))
    body += frame + bytes(-len(frame) % 4)
    if flags is not None:
        body += option(2, struct.pack(order + "I", flags), order) + bytes(4)
    return block(6, body, order)


def simple(frame: bytes, order: str = "<") -> bytes:
    return block(3, struct.pack(order + "I", len(frame)) + frame, order)


def ethernet(packet: bytes, *tags: tuple[int, int]) -> bytes:
    """`packet` in an Ethernet frame, behind (ethertype, VLAN ID) tags, outermost first."""
    ethertype = 0x86DD if packet[0] >> 4 == 6 else 0x0800
    return (
        ETHERNET
        + b"".join(struct.pack(">HH", kind, vlan) for kind, vlan in tags)
        + struct.pack(">H", ethertype)
        + packet
    )


def cooked(packet: bytes, kind: int = 0, ethertype: int = 0x0800) -> bytes:
    """Linux cooked, SLL: `kind` 4 is outgoing."""
    return struct.pack(">HHH8sH", kind, 1, 6, ETHERNET[:6] + bytes(2), ethertype) + packet


def cooked2(packet: bytes, kind: int = 0, ethertype: int = 0x0800) -> bytes:
    """Linux cooked, SLL2."""
    return struct.pack(">HHIHBB8s", ethertype, 0, 3, 1, kind, 6, ETHERNET[:6] + bytes(2)) + packet
