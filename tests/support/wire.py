"""VXLAN packets by the thousand, plain bytes and quick: TCP or UDP in IPv4 or IPv6, each field as it is asked for."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from ipaddress import ip_address

EPHEMERAL = range(32768, 61000)


def total(data: bytes) -> int:
    """The folded ones'-complement sum of 16-bit words (RFC 1071), 0…ffff."""
    data += b"\0" * (len(data) & 1)
    found = sum(struct.unpack(f">{len(data) // 2}H", data))
    while found > 0xFFFF:
        found = (found & 0xFFFF) + (found >> 16)
    return found


def pseudo(source: str, destination: str, protocol: int, length: int) -> bytes:
    return ip_address(source).packed + ip_address(destination).packed + struct.pack(">HIH", protocol, length, 0)


def right(header: bytes, segment: bytes) -> int:
    """The checksum field that makes ``segment``, its field zero, verify."""
    return (~total(header + segment) & 0xFFFF) or 0xFFFF


def ip_header(source: str, destination: str, protocol: int, length: int, number: int) -> bytes:
    ends = ip_address(source).packed + ip_address(destination).packed
    if len(ends) == 32:
        return struct.pack(">IHBB", 0x60000000, length, protocol, 64) + ends
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + length, number & 0xFFFF, 0, 64, protocol, 0) + ends
    return header[:10] + struct.pack(">H", right(b"", header)) + header[12:]


@dataclass(frozen=True)
class Wire:
    """One VXLAN packet. ``inner``: verifies, partial or none (UDP zero); ``outer``: good, agrees (LCO), zero, partial,
    or the field itself. ``number`` makes packets differ."""

    number: int = 0
    inner: str = "verifies"
    outer: str | int = "good"
    protocol: int = 6
    payload: bytes = b""
    hosts: tuple[str, str] = ("10.0.1.176", "10.0.1.192")
    macs: bytes = bytes.fromhex("02420a0001c002420a0001b0")
    vni: int = 4097
    vteps: tuple[str, str] = ("192.0.2.4", "192.0.2.5")
    port: int = 40000
    padding: bytes = b""

    def but(self, **fields: object) -> Wire:
        return replace(self, **fields)  # type: ignore[arg-type]

    def segment(self, state: str) -> bytes:
        payload = self.payload or b"%010d" % self.number
        if self.protocol == 6:
            at, head = 16, struct.pack(">HHIIBBHHH", 37648, 80, 1000 + self.number * 10, 1, 0x50, 0x18, 512, 0, 0)
        else:
            at, head = 6, struct.pack(">HHHH", 5353, 53, 8 + len(payload), 0)
        segment = head + payload
        header = pseudo(*self.hosts, self.protocol, len(segment))
        field = {"verifies": right(header, segment), "partial": total(header), "none": 0}[state]
        return segment[:at] + struct.pack(">H", field) + segment[at + 2 :]

    def tunnelled(self, state: str) -> bytes:
        """From the VXLAN header on."""
        segment = self.segment(state)
        packet = ip_header(*self.hosts, self.protocol, len(segment), self.number) + segment
        kind = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
        return (
            struct.pack(">II", 0x08000000, self.vni << 8) + self.macs + struct.pack(">H", kind) + packet + self.padding
        )

    def sum_over(self, payload: bytes) -> int:
        """The outer field that is right over ``payload``."""
        head = struct.pack(">HHHH", self.port, 4789, 8 + len(payload), 0)
        return right(pseudo(*self.vteps, 17, 8 + len(payload)), head + payload)

    @property
    def field(self) -> int:
        """The outer field that is right once the inner segment is finished."""
        return self.sum_over(self.tunnelled("none" if self.inner == "none" else "verifies"))

    def bytes(self) -> bytearray:
        """The packet, from its outer IP header."""
        payload = self.tunnelled(self.inner)
        length = 8 + len(payload)
        fields = {
            "good": lambda: self.sum_over(payload),
            "agrees": lambda: self.field,
            "zero": lambda: 0,
            "partial": lambda: total(pseudo(*self.vteps, 17, length)),
        }
        field = self.outer if isinstance(self.outer, int) else fields[self.outer]()
        udp = struct.pack(">HHHH", self.port, 4789, length, field)
        return bytearray(ip_header(*self.vteps, 17, length, self.number) + udp + payload)

    def mended(self) -> bytearray:
        """As it should leave: every checksum right, and a zero outer as it is."""
        outer = self.outer if self.outer == "zero" else self.field
        return self.but(inner="verifies" if self.inner == "partial" else self.inner, outer=outer).bytes()

    @property
    def udp_at(self) -> int:
        return 20 if ":" not in self.vteps[0] else 40


def off_by(wire: Wire, error: int) -> Wire:
    """The outer field less than the right one by ``error``, as when something was rewritten and not folded in."""
    return wire.but(outer=(wire.field - error) % 0xFFFF)


def from_port(wire: Wire, old: int) -> Wire:
    """Its source port was rewritten from ``old``, and the outer checksum was not told."""
    return wire.but(outer=wire.but(port=old).field)
