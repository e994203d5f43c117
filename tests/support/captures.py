"""Capture files written byte by byte, so that what reads them is not tested against its own writer; and read once more,
slowly and obviously, as the twin of what reads them."""

from __future__ import annotations

import struct
from fractions import Fraction

IP = bytes.fromhex("450000140001000040110000c0000201c0000202")  # 192.0.2.1 → 192.0.2.2, a bare header
ETHERNET = bytes.fromhex("02420a0001c002420a0001b0")
WHEN_NS = 1_700_000_000_123_456_789


LATEST = (1 << 63) - 1

Read = tuple[bytes, int, int, int, bool | None]
"""A frame: its bytes, its length on the wire, when in nanoseconds, its link type, whether it is marked as outgoing."""


def pcap(
    frames: list[bytes],
    link_type: int = 1,
    order: str = "<",
    nano: bool = False,
    wire_lengths: list[int] | None = None,
    when_ns: int = WHEN_NS,
) -> bytes:
    """A classic pcap file; `order` is ``<`` or ``>``; frames are a second apart."""
    out = [struct.pack(order + "IHHiIII", 0xA1B23C4D if nano else 0xA1B2C3D4, 2, 4, 0, 0, 262144, link_type)]
    for number, frame in enumerate(frames):
        seconds, ns = divmod(when_ns + number * 10**9, 10**9)
        wire = wire_lengths[number] if wire_lengths else len(frame)
        out += struct.pack(order + "IIII", seconds, ns if nano else ns // 1000, len(frame), wire), frame
    return b"".join(out)


def modified(frames: list[tuple[bytes, int]], order: str = "<") -> bytes:
    """The pcap of A. Kuznetsov's tcpdump: (frame, packet type), 4 for outgoing."""
    out = struct.pack(order + "IHHiIII", 0xA1B2CD34, 2, 4, 0, 0, 262144, 1)
    for frame, kind in frames:
        seconds, ns = divmod(WHEN_NS, 10**9)
        out += struct.pack(order + "IIIIIHBB", seconds, ns // 1000, len(frame), len(frame), 2, 8, kind, 0) + frame
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


def interface(
    link_type: int = 1, limit: int = 262144, resolution: bytes = b"\x09", order: str = "<", options: bytes = b""
) -> bytes:
    """An interface whose clock ticks in nanoseconds unless `resolution` says otherwise."""
    head = struct.pack(order + "HHI", link_type, 0, limit)
    return block(1, head + options + option(9, resolution, order) + bytes(4), order)


def enhanced(
    frame: bytes, ticks: int = WHEN_NS, flags: int | None = None, number: int = 0, wire: int = 0, order: str = "<"
) -> bytes:
    """An enhanced packet block; `flags` bits 0 and 1 are 1 for inbound, 2 for outbound."""
    body = struct.pack(order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), wire or len(frame))
    body += frame + bytes(-len(frame) % 4)
    if flags is not None:
        body += option(2, struct.pack(order + "I", flags), order) + bytes(4)
    return block(6, body, order)


def obsolete(frame: bytes, ticks: int = WHEN_NS, number: int = 0, order: str = "<") -> bytes:
    """A packet block, as pcapng had it before the enhanced one."""
    head = struct.pack(order + "HHIIII", number, 0, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame))
    return block(2, head + frame + bytes(-len(frame) % 4), order)


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


def read_pcap(data: bytes) -> tuple[list[Read], bool]:
    """The whole records of a pcap file whose header is whole; and whether it is damaged behind them."""
    order = ">" if data[0] == 0xA1 else "<"
    magic, *_, network = struct.unpack_from(order + "IHHIIII", data)
    header = 24 if magic == 0xA1B2CD34 else 16
    found: list[Read] = []
    at = 24
    while len(data) - at >= header:
        seconds, fraction, captured, wire = struct.unpack_from(order + "IIII", data, at)
        if captured > 1 << 24 or len(data) - at - header < captured:
            return found, True
        when = seconds * 10**9 + fraction * (1 if magic == 0xA1B23C4D else 1000)
        marked = data[at + 22] == 4 if header == 24 else None
        frame = data[at + header : at + header + captured]
        found.append((frame, max(wire, captured), min(when, LATEST), network & 0xFFFF, marked))
        at += header + captured
    return found, at != len(data)


def read_pcapng(data: bytes) -> tuple[list[Read], bool]:
    """The packets of a pcapng file; and whether it is damaged behind them."""
    found: list[Read] = []
    interfaces: list[tuple[int, int, Fraction | None, int]] = []
    order = ""
    at = 0
    while len(data) - at >= 12:
        if data[at : at + 4] == b"\x0a\x0d\x0d\x0a":
            order = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}.get(data[at + 8 : at + 12], "")
        if not order:
            return found, True
        kind, total = struct.unpack_from(order + "II", data, at)
        whole = total + -total % 4
        if total < (28 if kind == 0x0A0D0D0A else 12) or total > 1 << 24 or whole > len(data) - at:
            return found, True
        body, end = data[at + 8 : at + whole - 4], data[at + whole - 4 : at + whole]
        if struct.unpack(order + "I", end) != (total,):
            return found, True
        try:
            if kind == 0x0A0D0D0A:
                interfaces = []
            elif kind == 1:
                link_type, _, limit = struct.unpack_from(order + "HHI", body)
                options = read_options(body[8:], order)
                interfaces.append((link_type, limit, ticks_a_second(options.get(9, b"\6")), seconds_of(options, order)))
            elif kind in (2, 6):
                number = struct.unpack_from(order + ("H" if kind == 2 else "I"), body)[0]
                high, low, captured, wire = struct.unpack_from(order + "IIII", body, 4)
                frame = body[20 : 20 + captured]
                assert len(frame) == captured
                link_type, _, ticks, offset = interfaces[number]
                when = 0 if ticks is None else int(((high << 32 | low) / ticks + offset) * 10**9)
                flags = read_options(body[20 + captured + -captured % 4 :], order).get(2, b"")
                marked = (
                    {1: False, 2: True}.get(struct.unpack(order + "I", flags[:4])[0] & 3) if len(flags) > 3 else None
                )
                found.append((frame, max(wire, captured), min(max(when, 0), LATEST), link_type, marked))
            elif kind == 3:
                link_type, limit, *_ = interfaces[0]
                wire = struct.unpack_from(order + "I", body)[0]
                captured = min(wire, limit or wire)
                frame = body[4 : 4 + captured]
                assert len(frame) == captured
                found.append((frame, wire, 0, link_type, None))
        except (struct.error, IndexError, AssertionError):
            return found, True
        at += whole
    return found, at != len(data)


def read_options(data: bytes, order: str) -> dict[int, bytes]:
    """The first of each, up to the end or to one that does not fit."""
    found: dict[int, bytes] = {}
    while len(data) >= 4:
        code, length = struct.unpack_from(order + "HH", data)
        if code == 0 or length > len(data) - 4:
            break
        found.setdefault(code, data[4 : 4 + length])
        data = data[4 + length + -length % 4 :]
    return found


def ticks_a_second(resolution: bytes) -> Fraction | None:
    if not resolution:
        return Fraction(10**6)
    exponent = resolution[0] & 0x7F
    ticks = 2**exponent if resolution[0] & 0x80 else 10**exponent
    return Fraction(ticks) if ticks < 1 << 64 else None


def seconds_of(options: dict[int, bytes], order: str) -> int:
    offset = options.get(14, b"")
    return int(struct.unpack(order + "q", offset[:8])[0]) if len(offset) >= 8 else 0
