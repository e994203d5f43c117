"""Packets made to order without scapy, many times as quick as those of `support.packets`, between any two addresses.

The right checksums are the oracle's. A layer's states are named as in the datapath, with LENGTH_0 for PARTIAL as TSO
has it, and ZERO and FFFF for fields that hold just that.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from support import oracle
from support.oracle import PORTS
from support.packets import frame, vxlan

from fixer.rules.suspects import Version

ADDRESSES: dict[int, bytes] = {  # source and destination
    4: bytes.fromhex("0a0001b00a0001c0"),
    6: bytes.fromhex("20010db80000000000000000000000b020010db80000000000000000000000c0"),
}
NUMBERS = {"tcp": 6, "udp": 17, "icmp": 1, "icmp6": 58}
KINDS = {4: ["tcp", "udp", "icmp"], 6: ["tcp", "udp", "icmp6"]}
HEADERS = {  # with a checksum of zero; UDP's ports and length are put in below
    "tcp": bytes.fromhex("931000509dedb1af000000015018020000000000"),
    "udp": bytes(8),
    "icmp": bytes.fromhex("0800000000070001"),
    "icmp6": bytes.fromhex("8000000000070001"),
}
INNER_STATES = {
    "tcp": ["VERIFIES", "PARTIAL", "LENGTH_0", "WRONG"],
    "udp": ["VERIFIES", "PARTIAL", "WRONG", "ZERO"],
    "icmp": ["VERIFIES", "WRONG"],
    "icmp6": ["VERIFIES", "PARTIAL", "WRONG"],
}
OUTER_STATES = ["VERIFIES", "ZERO", "PARTIAL", "FFFF", "WRONG"]
ADDRESSES_AT = {4: (12, 20), 6: (8, 40)}  # from and to which byte of the header


def made(
    version: int, kind: str, addresses: bytes, payload: bytes, state: str, port: int = 5300, header: bytes = b""
) -> bytes:
    """An IP packet with its transport checksum in a state."""
    header = header or HEADERS[kind]
    if kind == "udp":
        header = struct.pack(">HHHH", 60690, port, 8 + len(payload), 0)
    segment = header + payload
    if version == 4:
        start = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), 1, 0, 64, NUMBERS[kind], 0) + addresses
        start = oracle.with_field(start, 10, 0xFFFF - oracle.ones_sum(start))
    else:
        start = struct.pack(">IHBB", 6 << 28, len(segment), NUMBERS[kind], 64) + addresses
    packet = start + segment
    layer = oracle.read_ip(packet, 0, len(packet))
    oracle.read_transport(packet, layer)
    right = layer.right(packet)
    values = {"VERIFIES": right, "PARTIAL": layer.pseudo(), "LENGTH_0": layer.pseudo(0), "ZERO": 0, "FFFF": 0xFFFF}
    return oracle.with_field(packet, layer.field_at, values.get(state, right ^ 0x0110))


def tunnelled(inner: bytes, state: str = "ZERO", underlay: int = 4, *tags: int, **more: Any) -> bytes:
    """An IP packet in VXLAN, the outer checksum in a state of OUTER_STATES."""
    payload = vxlan(frame(inner, *tags, **more))
    return made(underlay, "udp", ADDRESSES[underlay], payload, state, port=4789)


def version_of(packet: bytes) -> Version:
    return 4 if packet[0] >> 4 == 4 else 6


def loopback(version: int) -> bytes:
    """Source and destination: what arrives is looked at before anybody asks whether it may come that way."""
    one = socket.inet_pton(*((socket.AF_INET, "127.0.0.1") if version == 4 else (socket.AF_INET6, "::1")))
    return one + one


def over_loopback(packet: bytes) -> bytes:
    """The packet from loopback to loopback, every other byte as it was."""
    version = version_of(packet)
    start, end = ADDRESSES_AT[version]
    return packet[:start] + loopback(version) + packet[end:]


# What hypothesis makes of it. The strategies are made once: made anew for every packet they cost more than the packet.


@dataclass
class Made:
    """A packet, and whether the datapath is to look at what is not VXLAN."""

    packet: bytes
    plain: bool


_WORDS = st.sampled_from([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\xff\xff", b"\xff\xff\0\0", b"\xff\xff\xff\xfe"])
# Any source and destination, and those whose sums carry most or not at all.
ANY_ADDRESSES = {
    version: st.binary(min_size=size, max_size=size)
    | st.lists(_WORDS, min_size=size // 4, max_size=size // 4).map(b"".join)
    for version, size in ((4, 8), (6, 32))
}
_BARE = [(version, kind, state) for version in (4, 6) for kind in KINDS[version] for state in INNER_STATES[kind]]
_TUNNELS = [(underlay, state) for underlay in (4, 6) for state in (*OUTER_STATES, "AGREES")]
_REPAIRED = {"PARTIAL", "LENGTH_0", "FFFF"}
_SHAPES = {False: [(bare, None) for bare in _BARE], True: [(bare, tunnel) for bare in _BARE for tunnel in _TUNNELS]}
_ANY = {tunnelled: st.sampled_from(shapes) for tunnelled, shapes in _SHAPES.items()}
_REPAIRABLE = {
    tunnelled: st.sampled_from(
        [
            (bare, tunnel)
            for bare, tunnel in shapes
            if {bare[-1], tunnel and tunnel[-1]} & _REPAIRED and bare[-1] != "WRONG"
        ]
    )
    for tunnelled, shapes in _SHAPES.items()
}
_PAYLOADS = st.binary(max_size=40) | st.integers(0, 1400).map(bytes)
_TAGS = st.lists(st.integers(0, 4095), max_size=2)
_PADDING = st.binary(max_size=5)
_PORTS = st.sampled_from(PORTS)
_DAMAGES = st.sampled_from([0, 0, 0, 1, 2])
_CUTS = st.sampled_from([(0, b""), (0, b""), (0, b""), (1, b""), (9, b""), (0, b"xyz"), (1, b"xyz")])


_ETHERTYPES = st.sampled_from([None] * 8 + [0x8847, 0x8864, 0x0806, 0x9100, 0x0026])  # None: that of the packet inside


@st.composite
def packets(draw: st.DrawFn, repairable: bool = False) -> Made:
    """Packets of every kind in every state, tunnelled or not; some damaged, cut or lengthened anywhere.

    ``repairable``: those that the datapath can repair as long as nothing else was done to them.
    """
    plain = draw(st.booleans())
    (version, kind, state), tunnel = draw((_REPAIRABLE if repairable else _ANY)[not plain or draw(st.booleans())])
    inner_addresses, payload = draw(ANY_ADDRESSES[version]), draw(_PAYLOADS)
    packet = made(version, kind, inner_addresses, payload, state)
    if tunnel:
        underlay, state = tunnel
        tags, padding, addresses, port = draw(_TAGS), draw(_PADDING), draw(ANY_ADDRESSES[underlay]), draw(_PORTS)
        kind_of_frame = None if repairable else draw(_ETHERTYPES)
        inner = vxlan(frame(packet, *tags, padding=padding, ethertype=kind_of_frame))
        if state == "AGREES":  # with the inner packet as it will be once it is finished
            finished = made(version, kind, inner_addresses, payload, "VERIFIES")
            whole = vxlan(frame(finished, *tags, padding=padding, ethertype=kind_of_frame))
            packet = made(underlay, "udp", addresses, whole, "VERIFIES", port)[: -len(inner)] + inner
        else:
            packet = made(underlay, "udp", addresses, inner, state, port)
    data = bytearray(packet)
    for _ in range(draw(_DAMAGES)):
        at = draw(st.integers(0, len(data) - 1))
        data[at] ^= draw(st.integers(1, 255))
    cut, behind = draw(_CUTS)
    return Made(bytes(data[: len(data) - cut] + behind), plain)
