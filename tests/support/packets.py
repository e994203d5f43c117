"""Packets made to order with scapy: each layer's checksum in the state that is asked for.

scapy writes the right checksums; what is put in their place is told here in a line each. A layer's states are named as
in the datapath (InnerState, OuterState), and every packet is bytes from its first IP header.
"""

from __future__ import annotations

import struct

from scapy.layers.inet import ICMP, IP, TCP, UDP, in4_pseudoheader
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, in6_pseudoheader
from scapy.packet import Packet, Raw
from scapy.utils import checksum

HOSTS = {4: ("10.0.1.176", "10.0.1.192"), 6: ("2001:db8::b0", "2001:db8::c0")}
VTEPS = {4: ("192.0.2.4", "192.0.2.5"), 6: ("2001:db8:ffff::4", "2001:db8:ffff::5")}
MACS = bytes.fromhex("02420a0001c002420a0001b0")
VNI = 4097
TRANSPORTS = {
    "tcp": TCP(sport=37648, dport=80, seq=0x509DEDB1, flags="PA", ack=1, window=512, options=[("NOP", None)]),
    "udp": UDP(sport=5353, dport=5300),
    "icmp": ICMP(id=7, seq=1),
    "icmp6": ICMPv6EchoRequest(id=7, seq=1),
}
FIELD = {"tcp": 16, "udp": 6, "icmp": 2, "icmp6": 2}
NUMBER = {"tcp": 6, "udp": 17, "icmp": 1, "icmp6": 58}


def ip(version: int, hosts: dict[int, tuple[str, str]] = HOSTS, **fields: object) -> Packet:
    source, destination = hosts[version]
    return (
        IP(src=source, dst=destination, id=1, **fields) if version == 4 else IPv6(src=source, dst=destination, **fields)
    )


def pseudo_sum(version: int, protocol: int, length: int, hosts: dict[int, tuple[str, str]] = HOSTS) -> int:
    """P, as Linux stores it in the field of a CHECKSUM_PARTIAL packet."""
    if version == 4:
        header = in4_pseudoheader(protocol, ip(4, hosts, proto=protocol), length)
    else:
        header = bytes(in6_pseudoheader(protocol, ip(6, hosts, nh=protocol), length))
    return int(checksum(header)) ^ 0xFFFF


def with_field(packet: bytes, at: int, value: int) -> bytes:
    return packet[:at] + struct.pack(">H", value) + packet[at + 2 :]


def field(packet: bytes, at: int) -> int:
    return int.from_bytes(packet[at : at + 2], "big")


def segment(version: int, kind: str, payload: bytes = b"payload!") -> bytes:
    """An IP packet that scapy has finished, with a TCP, UDP, ICMP or ICMPv6 header."""
    return bytes(ip(version) / TRANSPORTS[kind] / Raw(payload))


def merged_by_lro(wire: int, payload: int, version: int = 4) -> bytes:
    """`payload` bytes of TCP that came in packets of `wire` bytes, in one that has the first one's checksum."""
    sent = bytes(at * 7 % 251 for at in range(payload))
    whole = segment(version, "tcp", sent)
    header = len(whole) - payload
    first = segment(version, "tcp", sent[: wire - header])
    assert len(first) == wire
    at = (20 if version == 4 else 40) + 16
    return with_field(whole, at, field(first, at))


def in_state(packet: bytes, version: int, kind: str, state: str) -> bytes:
    """`packet` (from `segment`) with its transport checksum VERIFIES, PARTIAL, LENGTH_0 (PARTIAL as TSO has it), WRONG
    or ABSENT."""
    start = 20 if version == 4 else 40
    at = start + FIELD[kind]
    right = field(packet, at)
    values = {
        "VERIFIES": right,
        "PARTIAL": pseudo_sum(version, NUMBER[kind], len(packet) - start),
        "LENGTH_0": pseudo_sum(version, NUMBER[kind], 0),
        "WRONG": right ^ 0x0110,
        "ABSENT": 0,
    }
    return with_field(packet, at, values[state])


def frame(packet: bytes, *tags: int, ethertype: int | None = None, padding: bytes = b"") -> bytes:
    """`packet` in an Ethernet frame, behind 802.1Q tags (802.1ad for the first of several)."""
    if ethertype is None:
        ethertype = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
    kinds = [0x8100] * len(tags)
    kinds[:-1] = [0x88A8] * len(kinds[:-1])
    between = b"".join(struct.pack(">HH", kind, tag) for kind, tag in zip(kinds, tags, strict=True))
    return MACS + between + struct.pack(">H", ethertype) + packet + padding


def vxlan(inner: bytes, vni: int = VNI, flags: int = 0x08000000, low: int = 0) -> bytes:
    """A VXLAN header (RFC 7348 §5) before a frame; `low` is the reserved byte behind the VNI."""
    return struct.pack(">II", flags, vni << 8 | low) + inner


def encapsulate(
    payload: bytes,
    state: str = "GOOD",
    version: int = 4,
    finished: bytes | None = None,
    port: int = 4789,
    **fields: object,
) -> bytes:
    """`payload` (a VXLAN header and its frame) in underlay UDP, its checksum GOOD over the payload as it is, AGREES
    with `finished`, ZERO, PARTIAL or WRONG. `fields` go into the IP header."""

    def summed(over: bytes) -> bytes:
        return bytes(ip(version, VTEPS, **fields) / UDP(sport=60690, dport=port) / Raw(over))

    packet = summed(payload)
    at = len(packet) - len(payload) - 2
    if state == "GOOD":
        return packet
    values = {
        "AGREES": field(summed(finished), at) if finished is not None else 0,
        "ZERO": 0,
        "PARTIAL": pseudo_sum(version, 17, len(payload) + 8, VTEPS),
        "WRONG": field(packet, at) ^ 0x1001,
    }
    return with_field(packet, at, values[state])


def tunnelled(
    inner_state: str,
    outer_state: str,
    kind: str = "tcp",
    inner: int = 4,
    outer: int = 4,
    payload: bytes = b"payload!",
    **more: object,
) -> bytes:
    """One VXLAN packet with both layers in the states that are asked for; ABSENT and NONE are UDP and ARP."""
    whole = frame(segment(inner, kind, payload))
    asked = frame(in_state(segment(inner, kind, payload), inner, kind, inner_state))
    return encapsulate(vxlan(asked), outer_state, outer, finished=vxlan(whole), **more)  # type: ignore[arg-type]


def of_vtep(packet: bytes, number: int) -> bytes:
    """The same over IPv4, whose outer checksum is none, of another VTEP: 10.0.0.0 and `number` more."""
    changed = bytearray(packet)
    changed[12:16] = (0x0A000000 + number).to_bytes(4, "big")
    changed[10:12] = bytes(2)
    total = sum(struct.unpack(">10H", changed[:20]))
    total = (total & 0xFFFF) + (total >> 16)
    changed[10:12] = (0xFFFF - (total & 0xFFFF) - (total >> 16)).to_bytes(2, "big")
    return bytes(changed)


def talk(flags: str, back: bool, state: str, kind: str = "tcp", port: int = 4000) -> bytes:
    """One packet of a conversation through the tunnel, there or back, its inner checksum VERIFIES or PARTIAL."""
    hosts, vteps = HOSTS[4], VTEPS[4]
    if back:
        hosts, vteps = hosts[::-1], vteps[::-1]
    ports = {"sport": 80, "dport": port} if back else {"sport": port, "dport": 80}
    transport = TCP(flags=flags, **ports) if kind == "tcp" else UDP(**ports)
    # P is the same in both directions, so `in_state` will do for either.
    inner = in_state(bytes(ip(4, {4: hosts}) / transport / Raw(b"x")), 4, kind, state)
    packet = bytearray(encapsulate(vxlan(frame(inner)), "ZERO"))
    if back:
        packet[12:20] = packet[16:20] + packet[12:16]
    return bytes(packet)
