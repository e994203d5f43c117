"""SYNs with timestamps through a packet path, quick enough for hundreds of thousands, and what it saw of clocks."""

from __future__ import annotations

import struct

from support.packets import MACS

from fixer.datapath.pipeline import Pipeline
from fixer.datapath.snat import Sight

SERVER_PORT, VXLAN_PORT = 80, 4789
SYN, TCP = 2, 6
MSS_AND_STAMPS = bytes.fromhex("020405b40101080a")  # …and TSval, TSecr
TCP_BYTES = 36


def ones(data: bytes) -> int:
    """RFC 1071: what is to be written into a field of zero, for an even number of bytes that are not all zero."""
    return 0xFFFF - (int.from_bytes(data, "big") - 1) % 0xFFFF - 1


def syn(source: bytes, destination: bytes, port: int, sequence: int, tsval: int) -> bytes:
    """A finished IP packet; the addresses have 4 or 16 bytes."""
    tcp = struct.pack(
        ">HHIIBBHHH8sII", port, SERVER_PORT, sequence, 0, TCP_BYTES << 2, SYN, 65535, 0, 0, MSS_AND_STAMPS, tsval, 0
    )
    pseudo = source + destination + struct.pack(">HH", TCP, TCP_BYTES)
    tcp = tcp[:16] + ones(pseudo + tcp).to_bytes(2, "big") + tcp[18:]
    if len(source) == 16:
        return struct.pack(">IHBB", 6 << 28, TCP_BYTES, TCP, 64) + source + destination + tcp
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + TCP_BYTES, 1, 0, 64, TCP, 0) + source + destination
    return ip[:10] + ones(ip).to_bytes(2, "big") + ip[12:] + tcp


def in_vxlan(packet: bytes, vni: int) -> bytes:
    """Between two VTEPs, whose UDP has no checksum."""
    ethertype = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
    inner = struct.pack(">II", 0x08000000, vni << 8) + MACS + struct.pack(">H", ethertype) + packet
    udp = struct.pack(">HHHH", 50000, VXLAN_PORT, 8 + len(inner), 0) + inner
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0) + bytes([192, 0, 2, 1, 192, 0, 2, 2])
    return ip[:10] + ones(ip).to_bytes(2, "big") + ip[12:] + udp


class Watched:
    """A packet path that only SYNs pass."""

    def __init__(self, seed: int | None = 1) -> None:
        self.pipeline = Pipeline(ports=[VXLAN_PORT], plain=True, seed=seed)

    def note(
        self, source: bytes, destination: bytes, vni: int | None, port: int, sequence: int, tsval: int, when_ns: int
    ) -> None:
        """A SYN passes; ``vni``: None outside a tunnel."""
        packet = syn(source, destination, port, sequence, tsval)
        self.pipeline.examine(bytearray(packet if vni is None else in_vxlan(packet, vni)), when_ns=when_ns)

    def sights(self, now_ns: int) -> list[Sight]:
        return self.pipeline.snat_sights(now_ns)
