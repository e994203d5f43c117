"""The slow, obvious twin of the datapath: what a packet's checksums say, written from the RFCs and nothing else.

It copies bytes where the datapath keeps offsets, and divides where the datapath folds, so that a mistake is not made
twice. Sums after RFC 1071, pseudo-headers after RFC 768, 9293 and 8200 §8.1, VXLAN after RFC 7348; the table of
diagnoses stands below. Names are those of the datapath's enumerations.

It remembers nothing: whether somebody vouches for a packet whose outer checksum is wrong, or absent where there has to
be one, is said by who asks.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from typing import NoReturn

PORTS = (4789, 8472, 6784)
ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58
EXTENSIONS = {0, 43, 44, 60, 135, 139, 140}  # hop-by-hop, routing, fragment, destination, mobility, HIP, shim6

# Rows: inner. Columns: outer. A plain packet counts as one with outer ZERO, so does ZERO6; ABSENT as inner NONE.
MATRIX = {
    #            GOOD             AGREES           ZERO             PARTIAL          STALE            WRONG
    "VERIFIES": "SOUND            -                SOUND            OUTER_UNFINISHED OUTER_STALE      OUTER_WRONG",
    "PARTIAL": " INNER_UNFINISHED INNER_UNFINISHED INNER_UNFINISHED BOTH_UNFINISHED  STALE_UNFINISHED CORRUPT",
    "WRONG": "   CORRUPT          -                CORRUPT          CORRUPT          CORRUPT          CORRUPT",
    "NONE": "    SOUND            -                SOUND            OUTER_UNFINISHED OUTER_STALE      OUTER_WRONG",
}
OUTERS = ("GOOD", "AGREES", "ZERO", "PARTIAL", "STALE", "WRONG")

REPAIRED = {"INNER_UNFINISHED", "OUTER_UNFINISHED", "BOTH_UNFINISHED", "OUTER_STALE", "STALE_UNFINISHED"}
ACTIONS = dict.fromkeys(REPAIRED, "REPAIR") | {"CORRUPT": "DROP"}

# What ends a layer for good though nothing is wrong with it: there is no checksum to judge.
NOTHING_TO_JUDGE = {"NO_IP", "NOT_IP", "INNER_FRAGMENT", "OTHER_PROTOCOL"}

TAGS = {"8100", "88a8", "9100"}  # 802.1Q, 802.1ad, and what was used before that had a number
WITHOUT_IP = {"0806", "8035", "88cc"}  # ARP, RARP, LLDP; and below 0600 it is no type but a length (IEEE 802.3)
# What a NIC's LRO merges were packets of one wire, filled but perhaps for a tunnel's overhead.
WIRES = (*range(1300, 1501), *range(8800, 9001))


class Stop(Exception):
    """The walk cannot go on; ``args[0]`` says why. No error of anybody: a reason is a result."""


def give_up(reason: str) -> NoReturn:
    raise Stop(reason)


@dataclass
class Layer:
    """One transport header and what it covers, as far as it could be read; `reason` says what was in the way."""

    reason: str = "NONE"
    version: int = 0
    source: bytes = b""
    destination: bytes = b""
    protocol: int = 0
    header_found: int = 0
    header_wrong: bool = False
    length_is_zero: bool = False
    in_tunnel: bool = False
    start: int = 0
    at: int = 0
    stop: int = 0
    field_at: int = 0

    def found(self, packet: bytes) -> int:
        return int.from_bytes(packet[self.field_at : self.field_at + 2], "big") if self.field_at else 0

    def pseudo(self, length: int | None = None) -> int:
        """P, the sum of the pseudo-header; ICMP over IPv4 has none (RFC 792)."""
        if self.protocol == ICMP:
            return 0
        length = self.stop - self.at if length is None else length
        return ones_sum(self.source + self.destination + struct.pack(">II", length, self.protocol))

    def verifies(self, packet: bytes) -> bool:
        segment = packet[self.at : self.stop]
        return add(self.pseudo(), ones_sum(segment)) == 0xFFFF

    def right(self, packet: bytes) -> int:
        """The field as it has to be; UDP sends a computed zero as ffff (RFC 768)."""
        blank = with_field(packet, self.field_at, 0)
        result = 0xFFFF - add(self.pseudo(), ones_sum(blank[self.at : self.stop]))
        return 0xFFFF if result == 0 and self.protocol == UDP else result


@dataclass
class Verdict:
    """What one packet is. `mended` is the packet as it leaves if its action is REPAIR, otherwise as it came."""

    inner: str = "UNCHECKABLE"
    outer: str = "NO_TUNNEL"
    diagnosis: str = "UNCHECKABLE"
    action: str = "PASS"
    reason: str = "NONE"
    vxlan: bool = False
    unverified: bool = False
    inner_found: int = 0
    inner_right: int = 0
    outer_found: int = 0
    outer_right: int = 0
    mended: bytes = b""
    layers: tuple[Layer, Layer] = field(default_factory=lambda: (Layer(), Layer()))


def ones_sum(data: bytes) -> int:
    """RFC 1071: sum of 16-bit words modulo 0xffff, of whose two zeros only nothing but zeros gives 0."""
    total = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    return (total - 1) % 0xFFFF + 1 if total else 0


def add(a: int, b: int) -> int:
    return (a + b - 1) % 0xFFFF + 1 if a + b else 0


def with_field(packet: bytes, at: int, value: int) -> bytes:
    return packet[:at] + value.to_bytes(2, "big") + packet[at + 2 :]


def judge(
    packet: bytes,
    wire_length: int = 0,
    *,
    plain: bool = False,
    ports: tuple[int, ...] = PORTS,
    vouched: bool = False,
    fill: bool = False,
) -> Verdict:
    """The verdict on `packet` (from its IP header; `wire_length` if it was longer than what is here).

    `vouched`: somebody vouches for what the outer checksum covers and no other does; `fill`: one of zero over IPv6 is
    to be computed then.
    """
    end = max(len(packet), wire_length)
    verdict = Verdict(mended=packet)
    outer = read_ip(packet, 0, end)
    inner = Layer()
    if is_udp_to(packet, outer, ports):
        verdict.vxlan = True
        inner = behind_vxlan(packet, outer)
    if plain and not inner.in_tunnel:  # whatever has no VXLAN header: BFD on port 6784 has a checksum too
        verdict.vxlan = False
        outer = read_ip(packet, 0, end)
        outer, inner = Layer(), outer
        read_transport(packet, inner)
    elif not verdict.vxlan:
        verdict.outer = "UNCHECKABLE"
        verdict.reason = outside(packet, outer)
        return verdict
    verdict.layers = (outer, inner)
    judge_layers(packet, outer, inner, verdict, vouched)
    conclude(outer, inner, verdict, vouched and fill)
    return verdict


def judge_layers(packet: bytes, outer: Layer, inner: Layer, verdict: Verdict, vouched: bool) -> None:
    """Each layer's state by itself."""
    verdict.reason = inner.reason
    verdict.inner_found = inner.found(packet)
    verdict.inner = inner_state(packet, inner)
    if inner.reason == "NONE":
        if verdict.inner == "ABSENT":
            verdict.reason = "NO_CHECKSUM"
        elif verdict.inner == "UNCHECKABLE":
            verdict.reason = "MERGED_BY_NIC"
        elif (
            (verdict.inner == "WRONG" and verdict.inner_found == 0)
            or (inner.header_wrong and inner.header_found == 0)
            or (verdict.vxlan and outer.header_wrong and outer.header_found == 0)
        ):
            verdict.reason = "NEVER_COMPUTED"
    finished = packet
    if verdict.inner in ("VERIFIES", "PARTIAL", "WRONG"):
        verdict.inner_right = verdict.inner_found if verdict.inner == "VERIFIES" else inner.right(packet)
    if verdict.inner == "PARTIAL":
        finished = with_field(packet, inner.field_at, verdict.inner_right)
    if not verdict.vxlan:
        return
    verdict.outer_found = outer.found(packet)
    if outer.field_at and verdict.outer_found == 0:
        # None over IPv4 (RFC 768); over IPv6 whoever receives it must have been told to (RFC 6935 §5).
        verdict.outer = "ZERO" if outer.version == 4 else "ZERO6"
        if verdict.outer == "ZERO6" and outer.reason == "NONE":
            verdict.outer_right = outer.right(finished)
    elif outer.reason != "NONE":
        verdict.outer = "UNCHECKABLE"
    else:
        verdict.outer_right = verdict.outer_found if outer.verifies(finished) else outer.right(finished)
        if outer.verifies(packet):
            verdict.outer = "GOOD"
        elif outer.verifies(finished):
            verdict.outer = "AGREES"
        elif verdict.outer_found == outer.pseudo():
            verdict.outer = "PARTIAL"
        else:
            verdict.outer = "STALE" if vouched and verdict.inner not in ("WRONG", "UNCHECKABLE") else "WRONG"


def inner_state(packet: bytes, inner: Layer) -> str:
    if inner.protocol == UDP and inner.field_at and inner.found(packet) == 0:
        # None over IPv4 (RFC 768); over IPv6 only a tunnel's (RFC 6935): Geneve, or VXLAN in VXLAN.
        port = int.from_bytes(packet[inner.at + 2 : inner.at + 4], "big")
        if inner.version == 4 or port in (*PORTS, 6081):
            return "ABSENT"
    if inner.reason != "NONE":
        return "NONE" if inner.reason in NOTHING_TO_JUDGE else "UNCHECKABLE"
    if inner.verifies(packet):
        return "VERIFIES"
    partial = {inner.pseudo()} | ({inner.pseudo(0)} if inner.protocol == TCP else set())
    if inner.protocol != ICMP and inner.found(packet) in partial:
        return "PARTIAL"
    return "UNCHECKABLE" if is_merged(packet, inner) else "WRONG"


def is_merged(packet: bytes, inner: Layer) -> bool:
    """Whether a plain TCP packet is longer than a wire's and has the right checksum of the first segment in it.

    No NIC merges inside a tunnel. Segments that fill a wire are of even length, headers and options being so.
    """
    header = inner.at - inner.start + (packet[inner.at + 12] >> 4) * 4 if inner.protocol == TCP else 0
    if inner.in_tunnel or header < inner.at - inner.start + 20 or inner.stop - inner.start <= max(1500, header):
        return False
    for length in WIRES:
        first = replace(inner, stop=inner.start + length - length % 2)
        if header <= first.stop - inner.start and first.stop < inner.stop and first.verifies(packet):
            return True
    return False


def conclude(outer: Layer, inner: Layer, verdict: Verdict, fill: bool) -> None:
    """Both states to one diagnosis, its action, and the packet as it leaves."""
    if verdict.reason == "TRUNCATED":
        return
    if verdict.vxlan and outer.header_wrong:
        verdict.diagnosis = "OUTER_IP_WRONG"  # a receiver must discard it without a word (RFC 1122 §3.2.1.2)
    elif inner.header_wrong:
        verdict.diagnosis = "CORRUPT"
    elif "UNCHECKABLE" not in (verdict.inner, verdict.outer):
        row = MATRIX["NONE" if verdict.inner == "ABSENT" else verdict.inner].split()
        verdict.diagnosis = row[OUTERS.index("ZERO" if verdict.outer in ("NO_TUNNEL", "ZERO6") else verdict.outer)]
        if verdict.diagnosis == "SOUND" and verdict.outer == "ZERO6":
            verdict.diagnosis = "OUTER_ABSENT6"
        elif verdict.diagnosis == "SOUND" and verdict.reason == "NOT_IP":
            verdict.diagnosis = "UNCHECKABLE"  # nobody has looked into it
    verdict.action = ACTIONS.get(verdict.diagnosis, "PASS")
    if verdict.diagnosis == "OUTER_ABSENT6" and fill and verdict.inner == "VERIFIES":
        verdict.action = "REPAIR"
        verdict.mended = with_field(verdict.mended, outer.field_at, verdict.outer_right)
    if verdict.diagnosis in REPAIRED:
        # Somebody summed the payload: the sender of a good outer, or of an inner checksum that verifies.
        verdict.unverified = not (verdict.outer == "GOOD" or verdict.inner == "VERIFIES")
        if verdict.inner == "PARTIAL":
            verdict.mended = with_field(verdict.mended, inner.field_at, verdict.inner_right)
        if verdict.outer not in ("ZERO", "ZERO6", "NO_TUNNEL"):
            verdict.mended = with_field(verdict.mended, outer.field_at, verdict.outer_right)


def is_udp_to(packet: bytes, layer: Layer, ports: tuple[int, ...]) -> bool:
    """Whether a UDP header is here (a first fragment has one) and goes to one of `ports`."""
    if layer.protocol != UDP or not layer.at or layer.at + 8 > len(packet):
        return False
    return int.from_bytes(packet[layer.at + 2 : layer.at + 4], "big") in ports


def outside(packet: bytes, layer: Layer) -> str:
    """Why a packet that is not seen to go to a VXLAN port is none of ours."""
    if is_udp_to(packet, layer, (6081,)):
        return "GENEVE"
    if layer.reason == "NONE" and layer.protocol == UDP and layer.at + 8 > min(layer.stop, len(packet)):
        return "TRUNCATED" if layer.at + 8 <= layer.stop else "OUTER_UNREADABLE"
    names = {"NONE": "OTHER_TRAFFIC", "INNER_IP": "OUTER_UNREADABLE", "INNER_FRAGMENT": "OUTER_FRAGMENT"}
    return names.get(layer.reason, layer.reason)


def behind_vxlan(packet: bytes, outer: Layer) -> Layer:
    """Read on behind the outer UDP header; the inner layer, or one that says why there is none."""
    read_transport(packet, outer)
    names = {"INNER_IP": "OUTER_UNREADABLE", "INNER_FRAGMENT": "OUTER_FRAGMENT", "INNER_TRANSPORT": "OUTER_UNREADABLE"}
    outer.reason = names.get(outer.reason, outer.reason)
    if outer.reason not in ("NONE", "TRUNCATED"):
        return Layer(reason=outer.reason)
    at, stop = outer.at + 8, outer.stop
    inner = Layer()
    try:
        need(packet, at, 8, stop, "NOT_VXLAN")
        flags = int.from_bytes(packet[at : at + 4], "big")
        if not flags & 0x08000000:
            give_up("NOT_VXLAN")
        inner.in_tunnel = True
        if flags & 0x34000000 == 0x04000000:
            give_up("GPE")
        if flags & 0x30200000 == 0x00200000:
            give_up("REMOTE_CHECKSUM")
        at += 8
        need(packet, at, 14, stop, "INNER_ETHERNET")
        ethertype = packet[at + 12 : at + 14].hex()
        at += 14
        tags = 0
        while ethertype in TAGS:
            tags += 1
            if tags > 4:
                give_up("INNER_ETHERNET")
            need(packet, at, 4, stop, "INNER_ETHERNET")
            ethertype = packet[at + 2 : at + 4].hex()
            at += 4
        if ethertype not in ("0800", "86dd"):
            give_up("NO_IP" if ethertype in WITHOUT_IP or ethertype < "0600" else "NOT_IP")
        inner = read_ip(packet, at, stop)
        inner.in_tunnel = True
        if inner.version and inner.version != {"0800": 4, "86dd": 6}[ethertype]:
            return Layer(reason="INNER_IP", header_wrong=inner.header_wrong, in_tunnel=True)
        read_transport(packet, inner)
    except Stop as stopped:
        inner.reason = stopped.args[0]
    return inner


def need(packet: bytes, at: int, length: int, end: int, reason: str) -> None:
    """`length` bytes at `at` must be in the packet (before `end`, else `reason`) and in this copy of it."""
    if at + length > end:
        give_up(reason)
    if at + length > len(packet):
        give_up("TRUNCATED")


def read_ip(packet: bytes, start: int, end: int) -> Layer:
    """The IP header at `start` with its options or extension headers: addresses, protocol, where the payload lies."""
    layer = Layer(start=start)
    try:
        need(packet, start, 1, end, "INNER_IP")
        version = packet[start] >> 4
        if version not in (4, 6):
            give_up("INNER_IP")
        (read_ip4 if version == 4 else read_ip6)(packet, start, end, layer)
    except Stop as stopped:
        layer.reason = stopped.args[0]
    return layer


def read_ip4(packet: bytes, start: int, end: int, layer: Layer) -> None:
    need(packet, start, 20, end, "INNER_IP")
    layer.version = 4
    first, _, total, _, fragment, _, layer.protocol, layer.header_found = struct.unpack_from(">BBHHHBBH", packet, start)
    layer.source, layer.destination = packet[start + 12 : start + 16], packet[start + 16 : start + 20]
    header = (first & 15) * 4
    if header < 20:
        layer.header_wrong = True
        give_up("INNER_IP")
    need(packet, start, header, end, "INNER_IP")
    layer.header_wrong = ones_sum(packet[start : start + header]) != 0xFFFF
    layer.length_is_zero = total == 0
    total = total or end - start  # BIG TCP
    if total < header or start + total > end:
        give_up("INNER_IP")
    layer.at, layer.stop = start + header, start + total
    if fragment & 0x3FFF:
        if fragment & 0x1FFF:
            layer.at = 0
        give_up("INNER_FRAGMENT")
    options = packet[start + 20 : start + header]
    while options and options[0] != 0:
        if options[0] == 1:
            options = options[1:]
        elif len(options) < 3 or options[1] < 2:
            return
        elif options[0] in (131, 137):  # loose and strict source route: hops are left while the pointer is in the list
            if options[2] <= options[1]:
                give_up("SOURCE_ROUTE")
            return
        else:
            options = options[options[1] :]


def read_ip6(packet: bytes, start: int, end: int, layer: Layer) -> None:
    need(packet, start, 40, end, "INNER_IP")
    layer.version = 6
    layer.protocol = packet[start + 6]
    layer.source, layer.destination = packet[start + 8 : start + 24], packet[start + 24 : start + 40]
    length = int.from_bytes(packet[start + 4 : start + 6], "big")
    stop = start + 40 + length if length else end  # 0: a jumbogram, BIG TCP
    if stop > end:
        give_up("INNER_IP")
    at = start + 40
    for _ in range(9):
        if layer.protocol not in EXTENSIONS:
            layer.at, layer.stop = at, stop
            return
        need(packet, at, 8, stop, "INNER_IP")
        size = 8 if layer.protocol == 44 else packet[at + 1] * 8 + 8
        need(packet, at, size, stop, "INNER_IP")
        header = packet[at : at + size]
        kind, layer.protocol = layer.protocol, header[0]
        if kind == 44 and int.from_bytes(header[2:4], "big") & 0xFFF9:
            layer.at = 0 if int.from_bytes(header[2:4], "big") & 0xFFF8 else at + 8
            give_up("INNER_FRAGMENT")
        if kind == 43 and header[3]:
            if header[2] == 4 and size >= 24:  # segments are listed last first
                layer.destination = header[8:24]
            elif header[2] in (0, 2) and size >= 24 and size % 16 == 8:
                layer.destination = header[-16:]
            else:
                give_up("SOURCE_ROUTE")
        if kind == 60 and has_home_address(header[2:]):
            give_up("SOURCE_ROUTE")
        at += size
    give_up("EXTENSION_HEADERS")


def has_home_address(options: bytes) -> bool:
    while options and options[0] != 0xC9:
        if options[0] == 0:
            options = options[1:]
        elif len(options) < 2:
            return False
        else:
            options = options[2 + options[1] :]
    return bool(options)


def read_transport(packet: bytes, layer: Layer) -> None:
    """Where the checksum stands and where what it covers ends; needs a layer that `read_ip` brought to its payload."""
    if layer.reason != "NONE":
        return
    if (layer.protocol == ICMP and layer.version == 6) or (layer.protocol == ICMP6 and layer.version == 4):
        layer.reason = "OTHER_PROTOCOL"
        return
    if layer.protocol not in (ICMP, TCP, UDP, ICMP6):
        layer.reason = "OTHER_PROTOCOL"
        return
    header, field_at = {TCP: (20, 16), UDP: (8, 6), ICMP: (4, 2), ICMP6: (4, 2)}[layer.protocol]
    try:
        need(packet, layer.at, header, layer.stop, "INNER_TRANSPORT")
        if layer.protocol == UDP:
            length = int.from_bytes(packet[layer.at + 4 : layer.at + 6], "big")
            if length == 0 and (layer.version == 6 or layer.length_is_zero):  # as Linux takes it (udp6_csum_init)
                length = layer.stop - layer.at
            if length < 8 or layer.at + length > layer.stop:
                give_up("INNER_TRANSPORT")
            layer.stop = layer.at + length
        layer.field_at = layer.at + field_at
        need(packet, layer.at, layer.stop - layer.at, layer.stop, "INNER_TRANSPORT")
    except Stop as stopped:
        layer.reason = stopped.args[0]
