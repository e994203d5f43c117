"""Write the folders of tests/cases: packets in, what they must be found to be, packets out, and why.

What is expected is stated here by hand, case by case, and agreed with the oracle before anything is written; the
datapath has no say in it. Run it after a change here, with ``PYTHONPATH=tests python -m support.make_cases``; the
folders are what is tested.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from socket import AF_INET6, inet_aton, inet_pton

from scapy.utils import checksum
from support import oracle
from support.make_swarm import SWARM
from support.packets import (
    HOSTS,
    VNI,
    encapsulate,
    field,
    frame,
    in_state,
    ip,
    merged_by_lro,
    pseudo_sum,
    segment,
    tunnelled,
    vxlan,
    with_field,
)

FOLDER = Path(__file__).parents[1] / "cases"

FILL: dict[str, object] = {"policy": {"outer_absent6": "repair"}}

MEANING = {
    ("VERIFIES", "GOOD"): "A healthy packet. Nothing is touched.",
    ("VERIFIES", "ZERO"): "A healthy packet whose outer checksum was never made, as RFC 7348 recommends.",
    ("VERIFIES", "PARTIAL"): "The kernel left the outer sum to a NIC that did not do it. The inner layer vouches.",
    ("VERIFIES", "ZERO6"): "Zero over IPv6, inside all is well: a VXLAN device without udp6zerocsumrx discards it.",
    ("VERIFIES", "STALE"): "nf_nat updated an outer checksum of zero: ffff where the address stayed. The VNI is ours.",
    ("VERIFIES", "WRONG"): "A wrong outer checksum, and nobody who vouches for what only it covers. Passed.",
    ("PARTIAL", "GOOD"): "The outer was summed over the unfinished packet, so it vouches for the payload; both change.",
    ("PARTIAL", "AGREES"): "Local checksum offload: finishing the inner checksum makes the outer one right by itself.",
    ("PARTIAL", "ZERO"): "Only the inner checksum is there to finish. The outer stays zero.",
    ("PARTIAL", "ZERO6"): "The inner checksum is finished. That the outer is zero over IPv6 is its sender's setting.",
    ("PARTIAL", "PARTIAL"): "Nothing was finished: inner first, then the outer over the finished packet.",
    ("PARTIAL", "STALE"): "An unfinished packet behind nf_nat that updated its outer zero: both are righted.",
    ("PARTIAL", "WRONG"): "An outer sum was made over other bytes than these: damage. Recomputing it would launder it.",
    ("WRONG", "GOOD"): "Damaged before encapsulation; the outer is right over the damage.",
    ("WRONG", "ZERO"): "Damaged, and no outer checksum to say where.",
    ("WRONG", "ZERO6"): "Damaged, and no outer checksum over IPv6 either.",
    ("WRONG", "PARTIAL"): "Damaged; that the outer was left unfinished changes nothing about it.",
    ("WRONG", "WRONG"): "Damaged on the way: both layers say so.",
    ("NONE", "GOOD"): "ARP: no inner checksum to judge, the outer one is right.",
    ("NONE", "ZERO"): "ARP without an outer checksum.",
    ("NONE", "ZERO6"): "ARP without an outer checksum over IPv6. No setting fills it in: nothing vouches for the ARP.",
    ("NONE", "PARTIAL"): "ARP with the outer sum left to a NIC: without this repair nothing finds its neighbour.",
    (
        "NONE",
        "STALE",
    ): "ARP behind nf_nat that updated the outer zero. No outer of its VTEP pair verifies, each is ffff, "
    "and all that is inside verifies: nothing vouches for the ARP but that.",
    ("NONE", "WRONG"): "ARP under a wrong outer checksum, and nobody who vouches for it. Passed.",
}

PASSED, RIGHTED = "VERIFIES WRONG OUTER_WRONG PASS", "VERIFIES STALE OUTER_STALE REPAIR ENVELOPE"
PASSED_ARP = "NONE WRONG OUTER_WRONG PASS NO_IP"
ARP = bytes.fromhex("000108000604000102420a0001b00a0001b00000000000000a0001c0")


@dataclass
class Packet:
    """One packet of a case: ``says`` is "INNER OUTER DIAGNOSIS ACTION", then in any order, if they apply, the reason,
    who vouches for it, and "unverified"."""

    data: bytes
    says: str
    wire_length: int = 0
    skb_info: int = 0


@dataclass
class Case:
    name: str
    why: str
    packets: list[Packet]
    settings: dict[str, object]


def one(
    name: str, why: str, data: bytes, says: str, wire_length: int = 0, skb_info: int = 0, **settings: object
) -> Case:
    return Case(name, why, [Packet(data, says, wire_length, skb_info)], settings)


ZERO6_DIAGNOSES = {
    "VERIFIES": "OUTER_ABSENT6",
    "PARTIAL": "INNER_UNFINISHED",
    "WRONG": "CORRUPT",
    "NONE": "OUTER_ABSENT6",
}
REGIME = 64  # packets that show a regime, with room for the digests of some of them to fall together


def matrix() -> list[Case]:
    """Every cell of the oracle's table of diagnoses, over IPv4 and over IPv6."""
    made = []
    for (inner, outer), why in MEANING.items():
        for version, kind in ((4, "tcp"), (6, "udp")):
            if outer == ("ZERO6" if version == 4 else "ZERO"):
                continue
            as_built = "ZERO" if outer in ("STALE", "ZERO6") else outer
            if inner == "NONE":
                data = encapsulate(vxlan(frame(ARP, ethertype=0x0806)), as_built, version)
            else:
                data = tunnelled(inner, as_built, kind, version, version)
            packets = [Packet(data, cell(inner, outer))]
            settings: dict[str, object] = {}
            if outer == "STALE":
                packets[0].data = stale(data, version)
                settings = {"vxlan": {"vnis": [VNI]}}
                if inner == "NONE":
                    packets, settings = [*regime(version, kind), *packets], {}
            made.append(
                Case(
                    f"{inner}-under-{as_built if outer == 'ZERO6' else outer}-ip{version}".lower(),
                    why,
                    packets,
                    settings,
                )
            )
    return made


def cell(inner: str, outer: str) -> str:
    """What is said of a packet with these states."""
    diagnosis = ZERO6_DIAGNOSES[inner] if outer == "ZERO6" else oracle.MATRIX[inner].split()[oracle.OUTERS.index(outer)]
    action = "REPAIR" if diagnosis in oracle.REPAIRED else "DROP" if diagnosis == "CORRUPT" else "PASS"
    says = f"{inner} {outer} {diagnosis} {action}"
    if inner == "NONE":
        says += " NO_IP"
    if outer == "STALE":
        says += " REGIME" if inner == "NONE" else " OPERATOR"
    if action == "REPAIR" and (inner != "VERIFIES" and outer != "GOOD"):
        says += " unverified"
    return says


def stale(packet: bytes, version: int = 4) -> bytes:
    """A packet whose outer checksum of zero was "updated" by nf_nat."""
    return with_field(packet, 26 if version == 4 else 46, 0xFFFF)


def regime(version: int, kind: str) -> list[Packet]:
    """Packets of a VTEP pair behind nf_nat: the third shows an envelope, the rest that no outer verifies.

    Of many lengths: those of one length in a connection have one right outer field, and with it one error.
    """
    packets = [tunnelled("VERIFIES", "ZERO", kind, version, version, bytes(range(n + 2))) for n in range(REGIME)]
    return [Packet(stale(packet, version), RIGHTED if n > 1 else PASSED) for n, packet in enumerate(packets)]


def origins() -> list[Case]:
    """Packets from reports, and what a receiver sees of them."""
    agrees = "PARTIAL AGREES INNER_UNFINISHED REPAIR unverified"
    return [
        Case(
            "swarm",
            "Docker Swarm, captured on the receiving host (VNI 4097, 192.168.102.4 to 192.168.102.5): ping works, TCP "
            "does not. tcpdump says `bad udp cksum 0x9c61 -> 0xccff` and `cksum 0x179e (incorrect -> 0x483c)`; "
            "finishing the inner checksum makes the outer 9c61 right by itself.",
            [Packet(bytes.fromhex(data), agrees) for data in SWARM],
            {},
        ),
        one(
            "not-vxlan-bfd-6784",
            "BFD on UDP 6784 (RFC 7130), which is also Weave's VXLAN port: no VXLAN header behind a right checksum.",
            encapsulate(bytes.fromhex("2060031800000e371a2b3c4d000f4240000493e0000493e000"), port=6784),
            "UNCHECKABLE GOOD UNCHECKABLE PASS NOT_VXLAN",
        ),
    ]


def with_options(packet: bytes, options: bytes) -> bytes:
    """An IPv4 packet with options (a multiple of 4 bytes) behind its header, whose checksum is made anew."""
    total = field(packet, 2) + len(options)
    header = bytes([0x45 + len(options) // 4]) + packet[1:2] + total.to_bytes(2, "big") + packet[4:10] + b"\0\0"
    header += packet[12:20] + options
    return with_field(header, 10, checksum(header)) + packet[20:]


def with_extensions(packet: bytes, *extensions: tuple[int, bytes], hop: bytes = b"") -> bytes:
    """An IPv6 packet with extension headers (kind, bytes behind the next-header byte); `hop` replaces the destination
    in the IPv6 header, as a routing header with segments left has it."""
    kinds = [kind for kind, _ in extensions] + [packet[6]]
    chain = b"".join(bytes([then]) + data for (_, data), then in zip(extensions, kinds[1:], strict=True))
    length = field(packet, 4) + len(chain)
    header = with_field(packet[:40], 4, length)
    header = header[:6] + bytes([kinds[0]]) + header[7:24] + (hop or header[24:])
    return header + chain + packet[40:]


def changed(packet: bytes, at: int, mask: int) -> bytes:
    return packet[:at] + bytes([packet[at] ^ mask]) + packet[at + 1 :]


def tag(vlan: int, ethertype: int = 0x0800) -> bytes:
    """A VLAN tag behind its own EtherType."""
    return vlan.to_bytes(2, "big") + ethertype.to_bytes(2, "big")


def routing(kind: int, left: int, final: bytes, others: int = 1) -> bytes:
    """A routing header behind its next-header byte: `final` last in types 0 and 2, first in type 4 (RFC 8754)."""
    hops = [bytes(15) + bytes([n + 1]) for n in range(others)]
    addresses = [final, *hops] if kind == 4 else [*hops, final]
    reserved = bytes([len(addresses) - 1, 0, 0, 0]) if kind == 4 else bytes(4)  # type 4: last entry, flags, tag
    return bytes([2 * len(addresses), kind, left]) + reserved + b"".join(addresses)


def headers() -> list[Case]:
    """Everything that may stand between the first byte and the checksum."""
    partial4 = in_state(segment(4, "tcp"), 4, "tcp", "PARTIAL")
    partial6 = in_state(segment(6, "tcp"), 6, "tcp", "PARTIAL")
    zero = "PARTIAL ZERO INNER_UNFINISHED REPAIR unverified"
    record_route = bytes.fromhex("0107270400000000" + "00" * 32)
    final = inet_pton(AF_INET6, HOSTS[6][1])
    hop_by_hop, destination = (0, bytes.fromhex("00010400000000")), (60, bytes.fromhex("00010400000000"))
    made = [
        one("vlan", "802.1Q inside.", encapsulate(vxlan(frame(partial4, 7)), "ZERO"), zero),
        one("vlan-twice", "802.1ad and 802.1Q inside.", encapsulate(vxlan(frame(partial6, 7, 9)), "ZERO"), zero),
        one(
            "vlan-9100",
            "EtherType 9100, which stood for a VLAN tag before 802.1ad had a number.",
            encapsulate(vxlan(frame(tag(42) + partial4, ethertype=0x9100)), "ZERO"),
            zero,
        ),
        one(
            "ip4-options-inside",
            "Record route behind the inner IPv4 header: options move the segment and are in no pseudo-header.",
            encapsulate(vxlan(frame(with_options(partial4, record_route))), "ZERO"),
            zero,
        ),
        one(
            "ip4-options-outside",
            "The same behind the underlay's header.",
            with_options(tunnelled("PARTIAL", "AGREES"), record_route),
            "PARTIAL AGREES INNER_UNFINISHED REPAIR unverified",
        ),
        one(
            "ip6-extensions-inside",
            "Hop-by-hop and destination options inside; their lengths are in no pseudo-header.",
            encapsulate(vxlan(frame(with_extensions(partial6, hop_by_hop, destination))), "ZERO"),
            zero,
        ),
        one(
            "ip6-extensions-outside",
            "Hop-by-hop and destination options in the underlay.",
            with_extensions(tunnelled("PARTIAL", "PARTIAL", outer=6), hop_by_hop, destination),
            "PARTIAL PARTIAL BOTH_UNFINISHED REPAIR unverified",
        ),
        one(
            "ip6-atomic-fragment",
            "A fragment header with offset 0 and no more fragments (RFC 6946) is the whole packet.",
            encapsulate(vxlan(frame(with_extensions(partial6, (44, bytes.fromhex("00000000000001"))))), "ZERO"),
            zero,
        ),
        one(
            "segment-routing",
            "A segment routing header with a segment left: the first in its list, the last to visit, is the final one.",
            encapsulate(
                vxlan(frame(with_extensions(partial6, (43, routing(4, 1, final)), hop=bytes(15) + b"\1"))), "ZERO"
            ),
            zero,
        ),
        one(
            "gbp",
            "Group Policy: the G and A bits and a group ID stand in reserved bits, and are let through.",
            encapsulate(vxlan(frame(partial4), flags=0x88081234), "ZERO"),
            zero,
        ),
        one(
            "reserved-bits",
            "Flags ff01, as a capture of a cloud's traffic mirror has them: reserved bits are ignored (RFC 7348 §5).",
            encapsulate(vxlan(frame(partial4), flags=0xFF01D1F2, low=0xFF), "ZERO"),
            zero,
        ),
        one(
            "ethernet-padding",
            "Padding behind an odd inner segment is in the outer checksum and in no inner one.",
            encapsulate(
                vxlan(
                    frame(in_state(segment(4, "udp", b"odd"), 4, "udp", "PARTIAL"), padding=b"not zeros, so it counts")
                ),
            ),
            "PARTIAL GOOD INNER_UNFINISHED REPAIR",
        ),
        one(
            "underlay-padding",
            "Ethernet padding of the underlay is in no checksum at all.",
            tunnelled("VERIFIES", "PARTIAL", "udp", payload=b"") + bytes(range(1, 9)),
            "VERIFIES PARTIAL OUTER_UNFINISHED REPAIR",
        ),
        one(
            "port-8472",
            "flannel and Cilium.",
            tunnelled("PARTIAL", "AGREES", port=8472),
            zero.replace("ZERO", "AGREES"),
        ),
        one("port-6784", "Weave.", tunnelled("PARTIAL", "AGREES", port=6784), zero.replace("ZERO", "AGREES")),
    ]
    for kind in (0, 2):
        others = 1 if kind == 0 else 0
        hop = bytes(15) + b"\1" if kind == 0 else bytes.fromhex("20010db80000000000000000000000aa")
        made.append(
            one(
                f"routing-header-{kind}",
                "A routing header with segments left: the pseudo-header takes the final address (RFC 8200 §8.1).",
                encapsulate(
                    vxlan(frame(with_extensions(partial6, (43, routing(kind, 1, final, others)), hop=hop))), "ZERO"
                ),
                zero,
            )
        )
    return made


def sums() -> list[Case]:
    """Corners of the arithmetic."""
    made = []
    for kind in ("tcp", "udp"):
        # Two payload bytes make the right checksum anything: choose them so that it is P itself.
        packet = segment(4, kind, b"\0\0")
        at = 20 + (16 if kind == "tcp" else 6)
        partial = pseudo_sum(4, 6 if kind == "tcp" else 17, len(packet) - 20)
        word = oracle.add(field(packet, at), 0xFFFF - partial)
        packet = with_field(with_field(packet, len(packet) - 2, word), at, partial)
        made.append(
            one(
                f"verifies-and-partial-{kind}",
                "The right checksum happens to be the pseudo-header sum, as in one packet of 65,536: it is right.",
                encapsulate(vxlan(frame(packet)), "ZERO"),
                "VERIFIES ZERO SOUND PASS",
            )
        )
    packet = segment(4, "tcp", b"\0\0")
    # Two bytes take over the field's part of the sum.
    summing_to_zero = with_field(with_field(packet, len(packet) - 2, field(packet, 36)), 36, 0)
    packet = segment(4, "udp", b"\0\0")
    packet = with_field(packet, len(packet) - 2, field(packet, 26))
    made += [
        one(
            "udp-computed-zero",
            "The inner UDP sum comes out zero and is sent as ffff (RFC 768).",
            encapsulate(vxlan(frame(in_state(packet, 4, "udp", "PARTIAL"))), "ZERO"),
            "PARTIAL ZERO INNER_UNFINISHED REPAIR unverified",
        ),
        one(
            "tso-length-0",
            "TSO writes the pseudo-header sum with length 0, for the NIC to add each segment's own.",
            tunnelled("LENGTH_0", "AGREES"),
            "PARTIAL AGREES INNER_UNFINISHED REPAIR unverified",
        ),
        one(
            "icmp6-partial",
            "ICMPv6 has a pseudo-header (RFC 4443 §2.3), so it can be left unfinished.",
            tunnelled("PARTIAL", "ZERO", "icmp6", inner=6),
            "PARTIAL ZERO INNER_UNFINISHED REPAIR unverified",
        ),
        one(
            "icmp",
            "ICMP has none (RFC 792): right or wrong.",
            tunnelled("VERIFIES", "GOOD", "icmp"),
            "VERIFIES GOOD SOUND PASS",
        ),
        one("icmp-wrong", "Damaged ICMP.", tunnelled("WRONG", "GOOD", "icmp"), "WRONG GOOD CORRUPT DROP"),
        one(
            "udp-zero-ip4",
            "UDP zero over IPv4 means none (RFC 768).",
            tunnelled("ABSENT", "PARTIAL", "udp"),
            "ABSENT PARTIAL OUTER_UNFINISHED REPAIR NO_CHECKSUM unverified",
        ),
        one(
            "udp-zero-ip6",
            "UDP zero over IPv6 is not allowed (RFC 8200 §8.1); a receiver discards it.",
            tunnelled("ABSENT", "GOOD", "udp", inner=6),
            "WRONG GOOD CORRUPT DROP NEVER_COMPUTED",
        ),
        one(
            "tunnel-in-tunnel-zero-ip6",
            "An inner VXLAN packet over IPv6 may have zero (RFC 6935).",
            encapsulate(vxlan(frame(tunnelled("VERIFIES", "ZERO", outer=6)))),
            "ABSENT GOOD SOUND PASS NO_CHECKSUM",
        ),
        one(
            "never-computed-tcp",
            "A wrong TCP checksum of 0000. No damage on the way makes it so in packet after packet: a generator wrote "
            "it, or an offload that did not happen.",
            encapsulate(vxlan(frame(in_state(segment(4, "tcp"), 4, "tcp", "ABSENT")))),
            "WRONG GOOD CORRUPT DROP NEVER_COMPUTED",
        ),
        one(
            "never-computed-icmp",
            "ICMP of 0000.",
            encapsulate(vxlan(frame(in_state(segment(4, "icmp"), 4, "icmp", "ABSENT"))), "ZERO"),
            "WRONG ZERO CORRUPT DROP NEVER_COMPUTED",
        ),
        one(
            "never-computed-inner-header",
            "0000 in the inner IPv4 header, whose segment verifies.",
            encapsulate(vxlan(frame(with_field(segment(4, "tcp"), 10, 0)))),
            "VERIFIES GOOD CORRUPT DROP NEVER_COMPUTED",
        ),
        one(
            "computed-zero-tcp",
            "A TCP checksum of 0000 that is right, as one in 65,536 is.",
            encapsulate(vxlan(frame(summing_to_zero))),
            "VERIFIES GOOD SOUND PASS",
        ),
    ]
    damaged = with_field(in_state(segment(4, "tcp"), 4, "tcp", "PARTIAL"), 10, 0xBAD)
    made.append(
        one(
            "inner-header-wrong",
            "A wrong inner IPv4 header checksum: no address in it can be trusted, so no pseudo-header either.",
            encapsulate(
                vxlan(frame(damaged)), "AGREES", finished=vxlan(frame(with_field(segment(4, "tcp"), 10, 0xBAD)))
            ),
            "PARTIAL AGREES CORRUPT DROP",
        )
    )
    no_length = with_field(segment(4, "tcp"), 2, 0)
    no_length = with_field(with_field(no_length, 10, 0), 10, checksum(with_field(no_length, 10, 0)[:20]))
    whole = encapsulate(vxlan(frame(no_length)), "PARTIAL")
    whole = with_field(with_field(with_field(whole, 2, 0), 24, 0), 10, 0)
    whole = with_field(whole, 10, checksum(whole[:20]))
    made.append(
        one(
            "big-tcp-ip4",
            "BIG TCP writes 0 for lengths over 65,535: outer IP, outer UDP, inner IP. The length on the wire counts.",
            whole,
            "VERIFIES PARTIAL OUTER_UNFINISHED REPAIR",
        )
    )
    whole = encapsulate(vxlan(frame(with_field(in_state(segment(6, "tcp"), 6, "tcp", "PARTIAL"), 4, 0))), "PARTIAL", 6)
    made.append(
        one(
            "big-tcp-ip6",
            "The same over IPv6, inside and outside.",
            with_field(with_field(whole, 4, 0), 44, 0),
            "PARTIAL PARTIAL BOTH_UNFINISHED REPAIR unverified",
        )
    )
    return made


def reasons() -> list[Case]:
    """Each reason why there is nothing to judge, on packets where something would have been repaired otherwise."""
    partial4 = in_state(segment(4, "tcp"), 4, "tcp", "PARTIAL")
    partial6 = in_state(segment(6, "tcp"), 6, "tcp", "PARTIAL")
    unfinished = tunnelled("PARTIAL", "AGREES")
    passed = "UNCHECKABLE PASS"

    def ip4(**fields: object) -> bytes:
        """The unfinished inner packet with other header fields; its header checksum is right."""
        return bytes(ip(4, proto=6, **fields)) + partial4[20:]

    def inside(packet: bytes, outer: str = "GOOD") -> bytes:
        return encapsulate(vxlan(frame(packet)), outer)

    many = [(60, bytes.fromhex("00010400000000"))] * 9
    home = (60, bytes.fromhex("02c910") + bytes(16) + bytes.fromhex("010000"))
    source_route = bytes.fromhex("830704c000020100")
    return [
        one(
            "truncated",
            "The copy is cut in the inner payload.",
            unfinished[:-3],
            f"UNCHECKABLE UNCHECKABLE {passed} TRUNCATED",
            wire_length=len(unfinished),
        ),
        one(
            "truncated-outer-zero",
            "Cut, but that there is no outer checksum can still be seen.",
            tunnelled("PARTIAL", "ZERO")[:-3],
            f"UNCHECKABLE ZERO {passed} TRUNCATED",
            wire_length=len(unfinished),
        ),
        one(
            "truncated-padding",
            "Only underlay padding is missing: everything that counts is here.",
            unfinished,
            "PARTIAL AGREES INNER_UNFINISHED REPAIR unverified",
            wire_length=len(unfinished) + 6,
        ),
        one(
            "super-packet",
            "The kernel merged packets (skbinfo 2): none of their checksums is left to verify.",
            unfinished,
            f"UNCHECKABLE UNCHECKABLE {passed} SUPER_PACKET",
            skb_info=2,
        ),
        one(
            "other-traffic",
            "UDP to another port.",
            tunnelled("PARTIAL", "AGREES", port=5300),
            f"UNCHECKABLE UNCHECKABLE {passed} OTHER_TRAFFIC",
        ),
        one("other-traffic-tcp", "TCP.", partial4, f"UNCHECKABLE UNCHECKABLE {passed} OTHER_TRAFFIC"),
        one(
            "geneve",
            "Geneve, UDP 6081: recognised and named.",
            tunnelled("PARTIAL", "AGREES", port=6081),
            f"UNCHECKABLE UNCHECKABLE {passed} GENEVE",
        ),
        one(
            "outer-unreadable",
            "The underlay's UDP length is longer than its packet.",
            with_field(unfinished, 24, 4000),
            f"UNCHECKABLE UNCHECKABLE {passed} OUTER_UNREADABLE",
        ),
        one(
            "outer-fragment-first",
            "The first fragment of a packet to a VXLAN port.",
            encapsulate(vxlan(frame(partial4)), flags="MF"),
            f"UNCHECKABLE UNCHECKABLE {passed} OUTER_FRAGMENT",
        ),
        one(
            "outer-fragment-later",
            "A later fragment: whose it is cannot be seen.",
            encapsulate(vxlan(frame(partial4)), frag=5),
            f"UNCHECKABLE UNCHECKABLE {passed} OUTER_FRAGMENT",
        ),
        one(
            "not-vxlan",
            "A VXLAN port, and no I flag.",
            encapsulate(vxlan(frame(partial4), flags=0)),
            f"UNCHECKABLE GOOD {passed} NOT_VXLAN",
        ),
        one(
            "gpe",
            "VXLAN-GPE with a next protocol.",
            encapsulate(vxlan(frame(partial4), flags=0x0C000003)),
            f"UNCHECKABLE GOOD {passed} GPE",
        ),
        one(
            "remote-checksum",
            "Remote Checksum Offload: the inner checksum is incomplete on purpose.",
            encapsulate(vxlan(frame(partial4), flags=0x08200000, low=0x12)),
            f"UNCHECKABLE GOOD {passed} REMOTE_CHECKSUM",
        ),
        one(
            "no-ip",
            "LLDP inside.",
            encapsulate(vxlan(frame(bytes(40), ethertype=0x88CC))),
            "NONE GOOD SOUND PASS NO_IP",
        ),
        one(
            "spanning-tree",
            "802.3 with a length where a type would be, and LLC behind it.",
            encapsulate(vxlan(frame(bytes.fromhex("424203") + bytes(35), ethertype=38))),
            "NONE GOOD SOUND PASS NO_IP",
        ),
        one(
            "not-ip-mpls",
            "MPLS with an unfinished IPv4 packet in it. It is not looked into, so it is not called sound.",
            encapsulate(vxlan(frame(bytes.fromhex("0001013f") + partial4, ethertype=0x8847))),
            f"NONE GOOD {passed} NOT_IP",
        ),
        one(
            "not-ip-pppoe",
            "A PPPoE session, the same.",
            encapsulate(
                vxlan(frame(bytes.fromhex("11000001") + tag(len(partial4) + 2, 0x0021) + partial4, ethertype=0x8864)),
                "ZERO",
            ),
            f"NONE ZERO {passed} NOT_IP",
        ),
        one(
            "not-ip-tagged",
            "An EtherType that means nothing here, behind a VLAN tag.",
            encapsulate(vxlan(frame(bytes(46), 7, ethertype=0x88B5))),
            f"NONE GOOD {passed} NOT_IP",
        ),
        one(
            "not-ip-under-partial",
            "MPLS under an outer checksum that was left to a NIC: as with ARP, whoever wrote P there is to be helped.",
            encapsulate(vxlan(frame(bytes.fromhex("0001013f") + partial4, ethertype=0x8847)), "PARTIAL"),
            "NONE PARTIAL OUTER_UNFINISHED REPAIR NOT_IP unverified",
        ),
        one(
            "not-ip-under-wrong",
            "MPLS under a wrong outer checksum.",
            encapsulate(vxlan(frame(bytes.fromhex("0001013f") + partial4, ethertype=0x8847)), "WRONG"),
            "NONE WRONG OUTER_WRONG PASS NOT_IP",
        ),
        one(
            "inner-fragment-first",
            "A first inner fragment: its checksum covers what is not here.",
            inside(ip4(flags="MF")),
            "NONE GOOD SOUND PASS INNER_FRAGMENT",
        ),
        one(
            "inner-fragment-later",
            "A later inner fragment under an outer checksum that was never finished.",
            inside(ip4(frag=3), "PARTIAL"),
            "NONE PARTIAL OUTER_UNFINISHED REPAIR INNER_FRAGMENT unverified",
        ),
        one(
            "inner-fragment-ip6",
            "An inner IPv6 fragment.",
            inside(with_extensions(partial6, (44, bytes.fromhex("00000100000001")))),
            "NONE GOOD SOUND PASS INNER_FRAGMENT",
        ),
        one(
            "other-protocol",
            "SCTP, which has a CRC.",
            inside(bytes(ip(4, proto=132)) + bytes(20)),
            "NONE GOOD SOUND PASS OTHER_PROTOCOL",
        ),
        one(
            "igmp-with-options",
            "IGMP behind router alert under an unfinished outer checksum.",
            inside(
                with_options(bytes(ip(4, proto=2)) + bytes.fromhex("1164ee9b00000000"), bytes.fromhex("94040000")),
                "PARTIAL",
            ),
            "NONE PARTIAL OUTER_UNFINISHED REPAIR OTHER_PROTOCOL unverified",
        ),
        one(
            "inner-ethernet",
            "An inner frame shorter than its header.",
            encapsulate(vxlan(bytes(10))),
            f"UNCHECKABLE GOOD {passed} INNER_ETHERNET",
        ),
        one(
            "inner-ethernet-tags",
            "Five VLAN tags.",
            encapsulate(vxlan(frame(partial4, 1, 2, 3, 4, 5))),
            f"UNCHECKABLE GOOD {passed} INNER_ETHERNET",
        ),
        one(
            "inner-ip",
            "An inner IP length longer than the frame.",
            inside(ip4(len=4000)),
            f"UNCHECKABLE GOOD {passed} INNER_IP",
        ),
        one(
            "inner-ip-version",
            "An Ethertype of IPv4 before a packet of IPv6.",
            encapsulate(vxlan(frame(partial6, ethertype=0x0800))),
            f"UNCHECKABLE GOOD {passed} INNER_IP",
        ),
        one(
            "inner-transport",
            "An inner UDP length longer than its packet.",
            inside(with_field(segment(6, "udp"), 44, 4000)),
            f"UNCHECKABLE GOOD {passed} INNER_TRANSPORT",
        ),
        one(
            "inner-transport-short",
            "TCP cut to ten bytes by its own IP length.",
            inside(ip4(len=30)[:30]),
            f"UNCHECKABLE GOOD {passed} INNER_TRANSPORT",
        ),
        one(
            "source-route",
            "A loose source route with a hop left: its last one would be in the pseudo-header.",
            inside(with_options(partial4, source_route)),
            f"UNCHECKABLE GOOD {passed} SOURCE_ROUTE",
        ),
        one(
            "source-route-done",
            "The same with its last hop reached: the header's address is the final one.",
            inside(with_options(partial4, bytes.fromhex("830708c000020100"))),
            "PARTIAL GOOD INNER_UNFINISHED REPAIR",
        ),
        one(
            "home-address",
            "Mobile IPv6: the pseudo-header's source is in a Home Address option (RFC 6275 §6.3).",
            inside(with_extensions(partial6, home)),
            f"UNCHECKABLE GOOD {passed} SOURCE_ROUTE",
        ),
        one(
            "routing-unknown",
            "A routing header of an unknown type with segments left.",
            inside(with_extensions(partial6, (43, routing(9, 1, bytes(16))), hop=bytes(15) + b"\1")),
            f"UNCHECKABLE GOOD {passed} SOURCE_ROUTE",
        ),
        one(
            "extension-headers",
            "Nine extension headers.",
            inside(with_extensions(partial6, *many)),
            f"UNCHECKABLE GOOD {passed} EXTENSION_HEADERS",
        ),
    ]


def claims() -> list[Case]:
    """What NFQA_SKB_INFO claims. CSUMNOTREADY (1): the kernel finishes one checksum itself; that P is no fault."""
    return [
        one(
            "not-ready-outer",
            "The outer P is the kernel's own to finish.",
            tunnelled("VERIFIES", "PARTIAL"),
            "VERIFIES PARTIAL SOUND PASS",
            skb_info=1,
        ),
        one(
            "not-ready-inner",
            "The inner P is the kernel's own to finish, and the outer will agree.",
            tunnelled("PARTIAL", "AGREES"),
            "PARTIAL AGREES SOUND PASS",
            skb_info=1,
        ),
        one(
            "not-ready-wrong-inside",
            "A wrong inner checksum under an outer P is corrupt all the same.",
            tunnelled("WRONG", "PARTIAL"),
            "WRONG PARTIAL CORRUPT DROP",
            skb_info=1,
        ),
        one(
            "device-verified",
            "A device says it has verified the packet (skbinfo 0), and the operator chose to believe that: not judged.",
            tunnelled("WRONG", "GOOD"),
            "UNCHECKABLE UNCHECKABLE UNCHECKABLE PASS DEVICE_VERIFIED",
            policy={"trust_device": True},
        ),
    ]


def plain() -> list[Case]:
    """Packets without a tunnel: the walk begins at the inner layer."""
    made = []
    says = {
        "VERIFIES": "VERIFIES NO_TUNNEL SOUND PASS",
        "PARTIAL": "PARTIAL NO_TUNNEL INNER_UNFINISHED REPAIR unverified",
        "LENGTH_0": "PARTIAL NO_TUNNEL INNER_UNFINISHED REPAIR unverified",
        "WRONG": "WRONG NO_TUNNEL CORRUPT DROP",
    }
    for state, words in says.items():
        for version in (4, 6):
            packet = in_state(segment(version, "tcp"), version, "tcp", state)
            why = "A container's TCP without a tunnel, as behind a switch in userspace that finishes nothing."
            made.append(one(f"plain-{state}-ip{version}".lower().replace("_", "-"), why, packet, words, plain=True))
    merged, jumbo = merged_by_lro(1500, 5 * 1448), merged_by_lro(9000, 3 * 8948)
    long = segment(4, "tcp", bytes(range(256)) * 12)
    made += [
        one(
            "plain-merged-by-nic",
            "Five segments that a NIC's LRO made into one, with the checksum of the first: nobody can verify it.",
            merged,
            "UNCHECKABLE NO_TUNNEL UNCHECKABLE PASS MERGED_BY_NIC",
            plain=True,
        ),
        one(
            "plain-merged-by-nic-jumbo",
            "The same of three jumbo frames.",
            jumbo,
            "UNCHECKABLE NO_TUNNEL UNCHECKABLE PASS MERGED_BY_NIC",
            plain=True,
        ),
        one(
            "plain-merged-by-nic-ip6",
            "The same over IPv6, from a path with room for a tunnel (1,450 bytes).",
            merged_by_lro(1450, 5000, 6),
            "UNCHECKABLE NO_TUNNEL UNCHECKABLE PASS MERGED_BY_NIC",
            plain=True,
        ),
        one(
            "plain-merged-by-nic-damaged",
            "A bit of the first segment damaged: then its checksum is right for nothing at all.",
            changed(merged, 90, 4),
            "WRONG NO_TUNNEL CORRUPT DROP",
            plain=True,
        ),
        one(
            "merged-by-nic-inside",
            "No NIC merges what is inside a tunnel: there it is damage.",
            encapsulate(vxlan(frame(merged))),
            "WRONG GOOD CORRUPT DROP",
        ),
        one(
            "plain-long-wrong",
            "As long as something merged, and wrong.",
            in_state(long, 4, "tcp", "WRONG"),
            "WRONG NO_TUNNEL CORRUPT DROP",
            plain=True,
        ),
        one(
            "plain-never-computed",
            "TCP of 0000.",
            in_state(segment(4, "tcp"), 4, "tcp", "ABSENT"),
            "WRONG NO_TUNNEL CORRUPT DROP NEVER_COMPUTED",
            plain=True,
        ),
        one(
            "plain-absent",
            "UDP zero over IPv4.",
            in_state(segment(4, "udp"), 4, "udp", "ABSENT"),
            "ABSENT NO_TUNNEL SOUND PASS NO_CHECKSUM",
            plain=True,
        ),
        one(
            "plain-none",
            "IGMP.",
            bytes(ip(4, proto=2)) + bytes.fromhex("1164ee9b00000000"),
            "NONE NO_TUNNEL SOUND PASS OTHER_PROTOCOL",
            plain=True,
        ),
        one(
            "plain-vxlan",
            "With plain set, VXLAN is still VXLAN.",
            tunnelled("PARTIAL", "AGREES"),
            "PARTIAL AGREES INNER_UNFINISHED REPAIR unverified",
            plain=True,
        ),
        one(
            "plain-weave-probe",
            "Weave's probe for the largest packet: UDP to 6784 without VXLAN in it, sound as it is.",
            encapsulate(bytes(1400), port=6784),
            "VERIFIES NO_TUNNEL SOUND PASS",
            plain=True,
        ),
    ]
    return made


def outer_headers() -> list[Case]:
    """The outer IPv4 header's own checksum. Where it is wrong a receiver discards the packet before any hook of
    netfilter (RFC 1122 §3.2.1.2); a mended inner layer helps nobody, and the addresses may be the damage."""

    def wrong(inner: str, outer: str, header: int | None = None) -> bytes:
        packet = tunnelled(inner, outer)
        return with_field(packet, 10, field(packet, 10) ^ 0x0110 if header is None else header)

    made = [
        one(
            f"outer-header-wrong-{inner}-{outer}".lower(),
            why,
            wrong(inner, outer),
            f"{inner} {outer} OUTER_IP_WRONG PASS",
        )
        for inner, outer, why in (
            ("VERIFIES", "GOOD", "Only the outer IPv4 header's checksum is wrong."),
            ("VERIFIES", "ZERO", "The same without an outer UDP checksum, which would vouch for the addresses."),
            ("VERIFIES", "WRONG", "An address rewritten and folded into neither checksum looks like this."),
            ("PARTIAL", "AGREES", "An unfinished packet is not mended under a wrong outer IPv4 header."),
            ("WRONG", "GOOD", "Damaged inside as well: the receiver's kernel sees the outermost first."),
        )
    ]
    return [
        *made,
        one(
            "outer-header-never-computed",
            "0000 in the outer IPv4 header.",
            wrong("VERIFIES", "GOOD", 0),
            "VERIFIES GOOD OUTER_IP_WRONG PASS NEVER_COMPUTED",
        ),
        Case(
            "outer-header-wrong-teaches-nothing",
            "Three packets under a wrong outer IPv4 header: whose they are cannot be told, nor whose envelope it is.",
            [
                *(
                    Packet(
                        with_field(tunnelled("VERIFIES", "GOOD", payload=f"packet {n}".encode()), 10, 1),
                        "VERIFIES GOOD OUTER_IP_WRONG PASS",
                    )
                    for n in range(3)
                ),
                Packet(tunnelled("VERIFIES", "WRONG"), PASSED),
            ],
            {},
        ),
    ]


def zero6() -> list[Case]:
    """Outer zero over IPv6, which RFC 6935 allows to a tunnel whose receiver has been told so."""
    absent, filled = "VERIFIES ZERO6 OUTER_ABSENT6 PASS", "VERIFIES ZERO6 OUTER_ABSENT6 REPAIR ENVELOPE"

    def packet(number: int, inner: str = "VERIFIES") -> bytes:
        return tunnelled(inner, "ZERO", outer=6, payload=f"packet {number}".encode())

    damaged = changed(packet(4), 40 + 8 + 6, 2)
    return [
        Case(
            "zero6-pass",
            "By default they are counted, named, and passed as they are.",
            [Packet(packet(n), absent if n < 2 else f"{absent} ENVELOPE") for n in range(4)],
            {},
        ),
        Case(
            "zero6-repair",
            'With outer_absent6 = "repair" the checksum is made once the envelope is known: from the third on. A bit '
            "of the VNI damaged is another envelope, which nobody knows.",
            [
                *(Packet(packet(n), absent if n < 2 else filled) for n in range(4)),
                Packet(damaged, absent),
            ],
            FILL,
        ),
        Case(
            "zero6-repair-same-packet",
            "The same packet again and again shows no more than once.",
            [Packet(packet(1), absent) for _ in range(6)],
            FILL,
        ),
        Case(
            "zero6-repair-unfinished",
            "An unfinished inner layer is finished, and the outer stays zero: nothing vouches for the payload that it "
            "would be summed over. A damaged one is dropped.",
            [
                *(Packet(packet(n), absent if n < 2 else filled) for n in range(3)),
                Packet(packet(3, "PARTIAL"), "PARTIAL ZERO6 INNER_UNFINISHED REPAIR unverified"),
                Packet(packet(4, "WRONG"), "WRONG ZERO6 CORRUPT DROP"),
            ],
            FILL,
        ),
        Case(
            "zero6-repair-arp",
            "Nor does anything vouch for ARP.",
            [
                *(Packet(packet(n), absent if n < 2 else filled) for n in range(3)),
                Packet(
                    encapsulate(vxlan(frame(ARP, ethertype=0x0806)), "ZERO", 6),
                    "NONE ZERO6 OUTER_ABSENT6 PASS NO_IP",
                ),
            ],
            FILL,
        ),
        one(
            "zero6-truncated",
            "Cut, but that there is no outer checksum can still be seen.",
            packet(1)[:-3],
            "UNCHECKABLE ZERO6 UNCHECKABLE PASS TRUNCATED",
            wire_length=len(packet(1)),
        ),
        one(
            "zero6-not-ip",
            "MPLS: not looked into, and its receiver discards it all the same.",
            encapsulate(vxlan(frame(bytes(46), ethertype=0x8847)), "ZERO", 6),
            "NONE ZERO6 OUTER_ABSENT6 PASS NOT_IP",
        ),
    ]


VNI_AT, MAC_AT = 20 + 8 + 6, 20 + 8 + 8 + 3


def numbered(number: int, inner: str = "VERIFIES", outer: str = "GOOD") -> bytes:
    return tunnelled(inner, outer, payload=f"packet {number}".encode())


def nat() -> list[Case]:
    """What only several packets can show: who vouches for what a wrong outer checksum covers."""
    old, new = 60690, 61000
    assert field(numbered(0), 20) == old

    def behind_nat(number: int, inner: str = "VERIFIES", port: int = new) -> bytes:
        """A packet whose outer source port was rewritten and the checksum, that of an offload, was not."""
        return with_field(numbered(number, inner, "AGREES" if inner == "PARTIAL" else "GOOD"), 20, port)

    def ffff(number: int) -> bytes:
        return stale(numbered(number, outer="ZERO"))

    healthy = "VERIFIES GOOD SOUND PASS"
    unfinished = "PARTIAL STALE STALE_UNFINISHED REPAIR REGIME unverified"
    return [
        Case(
            "nat-same-error",
            "nf_nat changed the source port and did not fold it into the outer checksum (>= 4.6). No outer of the pair "
            "verifies; three differing packets whose inner does show the envelope, and from there on they are righted.",
            [Packet(behind_nat(n), PASSED if n < 2 else RIGHTED) for n in range(4)],
            {},
        ),
        Case(
            "nat-random-ports",
            "MASQUERADE --random-fully: every packet from another port, and so with another error. The same.",
            [Packet(behind_nat(n, port=33000 + 977 * n), PASSED if n < 2 else RIGHTED) for n in range(4)],
            {},
        ),
        Case(
            "nat-same-error-off",
            'The same with stale = "off": passed for good.',
            [Packet(behind_nat(n), PASSED) for n in range(4)],
            {"policy": {"stale": "off"}},
        ),
        Case(
            "nat-inner-verifies",
            'The same with stale = "inner-verifies": the first packet is righted, and so would damage be in the bytes '
            "that only the outer covers.",
            [Packet(behind_nat(n), "VERIFIES STALE OUTER_STALE REPAIR OPERATOR") for n in range(2)],
            {"policy": {"stale": "inner-verifies"}},
        ),
        Case(
            "nat-unfinished",
            "Unfinished packets under an outer that NAT made wrong. One error in three differing packets of the pair, "
            "whatever they carry, is how this pair is wrong; the first two stay corrupt.",
            [
                *(Packet(behind_nat(n), PASSED if n < 2 else RIGHTED) for n in range(3)),
                *(Packet(behind_nat(n, "PARTIAL"), unfinished) for n in range(3, 5)),
                Packet(changed(behind_nat(5, "PARTIAL"), VNI_AT, 2), "PARTIAL WRONG CORRUPT DROP"),
            ],
            {},
        ),
        Case(
            "envelope-known",
            "Three packets that verify show the envelope of a pair. A wrong outer over a verifying inner is righted at "
            "once: what only the outer covers is as it was.",
            [*(Packet(numbered(n), healthy) for n in range(3)), Packet(behind_nat(3), RIGHTED)],
            {},
        ),
        Case(
            "envelope-known-by-zero",
            "Outers of zero show it as well, where the inner verifies.",
            [
                *(Packet(numbered(n, outer="ZERO"), "VERIFIES ZERO SOUND PASS") for n in range(3)),
                Packet(behind_nat(3), RIGHTED),
            ],
            {},
        ),
        Case(
            "envelope-twice-is-not-enough",
            "Two differing packets, however often.",
            [*(Packet(numbered(n % 2), healthy) for n in range(6)), Packet(behind_nat(3), PASSED)],
            {},
        ),
        Case(
            "envelope-of-another-pair",
            "The same envelope from another VTEP: what verified there says nothing of here.",
            [
                *(Packet(numbered(n), healthy) for n in range(3)),
                Packet(from_vtep(behind_nat(3), "192.0.2.6"), PASSED),
            ],
            {},
        ),
        Case(
            "damage-is-not-nat",
            "One bit of the inner MAC addresses damaged, another one three times in the same packet: envelopes that "
            "nobody knows, and no repair launders them.",
            [Packet(changed(tunnelled("VERIFIES", "GOOD"), at, 1), PASSED) for at in (28 + 8, 28 + 9, 28 + 10)],
            {"vxlan": {"vnis": [VNI]}},
        ),
        Case(
            "damage-beside-good",
            "The same in differing packets beside others that verify.",
            [
                *(Packet(numbered(n), healthy) for n in range(3)),
                *(Packet(changed(numbered(n), MAC_AT, 1 << n), PASSED) for n in range(8)),
            ],
            {"vxlan": {"vnis": [VNI]}},
        ),
        Case(
            "damage-that-repeats",
            "A memory cell that flips the same bit of the VNI in every other packet of a healthy pair: often seen, and "
            "never under an outer that verifies.",
            [
                packet
                for n in range(12)
                for packet in (
                    Packet(numbered(n), healthy),
                    Packet(changed(numbered(n), VNI_AT, 2), PASSED),
                )
            ],
            {},
        ),
        Case(
            "none-under-wrong-beside-good",
            "ARP under a wrong outer of a pair whose outers verify now and then: damage on the way.",
            [
                *regime(4, "tcp"),
                Packet(numbered(0), healthy),
                Packet(stale(encapsulate(vxlan(frame(ARP, ethertype=0x0806)), "ZERO")), PASSED_ARP),
            ],
            {},
        ),
        Case(
            "none-under-wrong-unlike-the-others",
            "Every outer of the pair is ffff, but not this one.",
            [
                *regime(4, "tcp"),
                Packet(encapsulate(vxlan(frame(ARP, ethertype=0x0806)), "WRONG"), PASSED_ARP),
            ],
            {},
        ),
        Case(
            "absent-under-wrong",
            "UDP without a checksum under a wrong outer, in the regime of its pair.",
            [
                *regime(4, "tcp"),
                Packet(
                    stale(tunnelled("ABSENT", "ZERO", "udp")),
                    "ABSENT STALE OUTER_STALE REPAIR NO_CHECKSUM REGIME unverified",
                ),
            ],
            {},
        ),
        Case(
            "nat-ffff",
            "An outer of ffff into a VNI that nobody has named: the first two packets of an envelope are passed.",
            [Packet(ffff(n), PASSED if n < 2 else RIGHTED) for n in range(3)],
            {},
        ),
        Case(
            "nat-unknown-vni",
            "One packet with an outer of ffff into a VNI that nobody has named.",
            [Packet(stale(tunnelled("VERIFIES", "ZERO")), PASSED)],
            {},
        ),
        Case(
            "nat-learnt-vni",
            "That a packet of the VNI was seen before says nothing: one packet shows no envelope.",
            [
                Packet(tunnelled("VERIFIES", "ZERO", payload=b"first"), "VERIFIES ZERO SOUND PASS"),
                Packet(stale(tunnelled("VERIFIES", "ZERO")), PASSED),
            ],
            {},
        ),
        Case(
            "none-under-ffff",
            "ARP under ffff into a VNI that the operator named, of a pair none of whose outers verifies: without it "
            "no neighbour is found, and nothing else ever shows an envelope. Where outers verify it is passed.",
            [
                Packet(
                    stale(encapsulate(vxlan(frame(ARP, ethertype=0x0806)), "ZERO")),
                    "NONE STALE OUTER_STALE REPAIR NO_IP OPERATOR unverified",
                ),
                Packet(numbered(0), healthy),
                Packet(stale(encapsulate(vxlan(frame(ARP, ethertype=0x0806)), "ZERO")), PASSED_ARP),
            ],
            {"vxlan": {"vnis": [VNI]}},
        ),
    ]


def from_vtep(packet: bytes, address: str) -> bytes:
    """The same from another outer source, its IPv4 header's checksum made anew."""
    packet = with_field(packet[:12] + inet_aton(address) + packet[16:], 10, 0)
    return with_field(packet, 10, checksum(packet[:20]))


VOUCHES = ("ENVELOPE", "REGIME", "OPERATOR")


def expected(packet: Packet) -> dict[str, object]:
    inner, outer, diagnosis, action, *more = packet.says.split()
    vouch = next((word for word in more if word in VOUCHES), "NOBODY")
    reason = next((word for word in more if word not in (vouch, "unverified")), "NONE")
    said: dict[str, object] = {
        "inner": inner,
        "outer": outer,
        "diagnosis": diagnosis,
        "action": action,
        "reason": reason,
        "vouch": vouch,
        "unverified": "unverified" in more,
    }
    if packet.wire_length:
        said["wire_length"] = packet.wire_length
    if packet.skb_info:
        said["skb_info"] = packet.skb_info
    return said


def leaves(case: Case, packet: Packet) -> str:
    """The packet as it leaves in hex, "dropped", or an AssertionError where hand and oracle disagree."""
    said = expected(packet)
    if packet.skb_info == 0 and said["reason"] != "DEVICE_VERIFIED":
        verdict = oracle.judge(
            packet.data,
            packet.wire_length,
            plain=bool(case.settings.get("plain")),
            vouched=said["vouch"] != "NOBODY",
            fill=FILL.items() <= case.settings.items(),
        )
        for key in ("inner", "outer", "diagnosis", "action", "reason", "unverified"):
            assert getattr(verdict, key) == said[key], f"{case.name}: {key}: {getattr(verdict, key)} is not {said[key]}"
        mended = verdict.mended
    else:
        assert said["action"] != "REPAIR", f"{case.name}: the oracle knows no claims"
        mended = packet.data
    return "dropped" if said["action"] == "DROP" else mended.hex()


def write(case: Case) -> None:
    folder = FOLDER / case.name
    folder.mkdir(parents=True)
    (folder / "in.hex").write_text("".join(f"{packet.data.hex()}\n" for packet in case.packets))
    (folder / "out.hex").write_text("".join(f"{leaves(case, packet)}\n" for packet in case.packets))
    (folder / "README.md").write_text(f"# {case.name}\n\n{case.why}\n")
    document = {"settings": case.settings, "packets": [expected(packet) for packet in case.packets]}
    (folder / "expected.json").write_text(json.dumps(document, indent=2) + "\n")


def main() -> None:
    cases = [
        *origins(),
        *matrix(),
        *headers(),
        *sums(),
        *reasons(),
        *claims(),
        *plain(),
        *outer_headers(),
        *zero6(),
        *nat(),
    ]
    names = [case.name for case in cases]
    assert len(set(names)) == len(names), "two cases have one name"
    if FOLDER.exists():
        shutil.rmtree(FOLDER)
    for case in cases:
        write(case)
    print(f"{len(cases)} cases in {FOLDER}")


if __name__ == "__main__":
    main()
