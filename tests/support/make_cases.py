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
from socket import AF_INET6, inet_pton

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
    pseudo_sum,
    segment,
    tunnelled,
    vxlan,
    with_field,
)

FOLDER = Path(__file__).parents[1] / "cases"

MEANING = {
    ("VERIFIES", "GOOD"): "A healthy packet. Nothing is touched.",
    ("VERIFIES", "ZERO"): "A healthy packet whose outer checksum was never made, as RFC 7348 recommends.",
    ("VERIFIES", "PARTIAL"): "The kernel left the outer sum to a NIC that did not do it. The inner layer vouches.",
    ("VERIFIES", "STALE"): "nf_nat updated an outer checksum of zero: ffff where the address stayed. The VNI is ours.",
    ("VERIFIES", "WRONG"): "A wrong outer checksum that nothing explains: bytes only it covers may be damaged. Passed.",
    ("PARTIAL", "GOOD"): "The outer was summed over the unfinished packet, so it vouches for the payload; both change.",
    ("PARTIAL", "AGREES"): "Local checksum offload: finishing the inner checksum makes the outer one right by itself.",
    ("PARTIAL", "ZERO"): "Only the inner checksum is there to finish. The outer stays zero.",
    ("PARTIAL", "PARTIAL"): "Nothing was finished: inner first, then the outer over the finished packet.",
    ("PARTIAL", "STALE"): "An unfinished packet behind nf_nat that updated its outer zero: both are righted.",
    ("PARTIAL", "WRONG"): "An outer sum was made over other bytes than these: damage. Recomputing it would launder it.",
    ("WRONG", "GOOD"): "Damaged before encapsulation; the outer is right over the damage.",
    ("WRONG", "ZERO"): "Damaged, and no outer checksum to say where.",
    ("WRONG", "PARTIAL"): "Damaged; that the outer was left unfinished changes nothing about it.",
    ("WRONG", "WRONG"): "Damaged on the way: both layers say so.",
    ("NONE", "GOOD"): "ARP: no inner checksum to judge, the outer one is right.",
    ("NONE", "ZERO"): "ARP without an outer checksum.",
    ("NONE", "PARTIAL"): "ARP with the outer sum left to a NIC: without this repair nothing finds its neighbour.",
    ("NONE", "STALE"): "ARP behind nf_nat that updated the outer zero. Nothing vouches for it but the explanation.",
    ("NONE", "WRONG"): "ARP under a wrong outer checksum that nothing explains. Passed.",
}

ARP = bytes.fromhex("000108000604000102420a0001b00a0001b00000000000000a0001c0")


@dataclass
class Packet:
    """One packet of a case: ``says`` is "INNER OUTER DIAGNOSIS ACTION", then reason and "unverified" if they apply."""

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


def matrix() -> list[Case]:
    """Every cell of the oracle's table of diagnoses, over IPv4 and over IPv6."""
    made = []
    for (inner, outer), why in MEANING.items():
        for version, kind in ((4, "tcp"), (6, "udp")):
            diagnosis = oracle.MATRIX[inner].split()[oracle.OUTERS.index(outer)]
            action = "REPAIR" if diagnosis in oracle.REPAIRED else "DROP" if diagnosis == "CORRUPT" else "PASS"
            says = f"{inner} {outer} {diagnosis} {action}"
            if inner == "NONE":
                says += " NO_IP"
            if action == "REPAIR" and (inner != "VERIFIES" and outer != "GOOD"):
                says += " unverified"
            as_built = "ZERO" if outer == "STALE" else outer
            if inner == "NONE":
                data = encapsulate(vxlan(frame(ARP, ethertype=0x0806)), as_built, version)
            else:
                data = tunnelled(inner, as_built, kind, version, version)
            if outer == "STALE":
                data = with_field(data, 26 if version == 4 else 46, 0xFFFF)
            settings = {"vxlan": {"vnis": [VNI]}} if outer == "STALE" else {}
            made.append(one(f"{inner}-under-{outer}-ip{version}".lower(), why, data, says, **settings))
    return made


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
            "WRONG GOOD CORRUPT DROP",
        ),
        one(
            "tunnel-in-tunnel-zero-ip6",
            "An inner VXLAN packet over IPv6 may have zero (RFC 6935).",
            encapsulate(vxlan(frame(tunnelled("VERIFIES", "ZERO", outer=6)))),
            "ABSENT GOOD SOUND PASS NO_CHECKSUM",
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
    made += [
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


def nat() -> list[Case]:
    """What only several packets can show."""
    old, new = 60690, 61000

    def behind_nat(number: int, inner: str) -> bytes:
        """A packet whose outer source port was rewritten and the checksum, that of an offload, was not."""
        packet = tunnelled(inner, "AGREES" if inner == "PARTIAL" else "GOOD", payload=f"packet {number}".encode())
        return with_field(packet, 20, new)

    wrong = "VERIFIES WRONG OUTER_WRONG PASS"
    damaged = []
    for at in (28 + 8, 28 + 9, 28 + 10):
        packet = tunnelled("VERIFIES", "GOOD")
        damaged.append(packet[:at] + bytes([packet[at] ^ 1]) + packet[at + 1 :])
    assert field(tunnelled("VERIFIES", "GOOD"), 20) == old
    return [
        Case(
            "nat-same-error",
            "nf_nat changed the source port and did not fold it into an LCO outer (>= 4.6). The error is the same in "
            "every packet of the flow: three differing ones explain it, and vouch for the VNI.",
            [
                Packet(behind_nat(n, "VERIFIES"), wrong if n < 2 else "VERIFIES STALE OUTER_STALE REPAIR")
                for n in range(4)
            ],
            {},
        ),
        Case(
            "nat-same-error-off",
            'The same with stale = "off": passed for good.',
            [Packet(behind_nat(n, "VERIFIES"), wrong) for n in range(4)],
            {"policy": {"stale": "off"}},
        ),
        Case(
            "nat-inner-verifies",
            'The same with stale = "inner-verifies": the first packet is righted, and so would damage be in the bytes '
            "that only the outer covers.",
            [Packet(behind_nat(n, "VERIFIES"), "VERIFIES STALE OUTER_STALE REPAIR") for n in range(2)],
            {"policy": {"stale": "inner-verifies"}},
        ),
        Case(
            "damage-is-not-nat",
            "One bit of the inner MAC addresses damaged, three times in the same packet: no two errors are alike, and "
            "no repair launders them.",
            [Packet(data, wrong) for data in damaged],
            {"vxlan": {"vnis": [VNI]}},
        ),
        Case(
            "nat-unknown-vni",
            "An outer ffff into a VNI that nobody knows explains nothing.",
            [Packet(with_field(tunnelled("VERIFIES", "ZERO"), 26, 0xFFFF), wrong)],
            {},
        ),
        Case(
            "nat-learnt-vni",
            "The same once a packet that verifies has shown that the VNI is ours.",
            [
                Packet(tunnelled("VERIFIES", "ZERO", payload=b"first"), "VERIFIES ZERO SOUND PASS"),
                Packet(with_field(tunnelled("VERIFIES", "ZERO"), 26, 0xFFFF), "VERIFIES STALE OUTER_STALE REPAIR"),
            ],
            {},
        ),
    ]


def expected(packet: Packet) -> dict[str, object]:
    inner, outer, diagnosis, action, *more = packet.says.split()
    reason = next((word for word in more if word != "unverified"), "NONE")
    said: dict[str, object] = {
        "inner": inner,
        "outer": outer,
        "diagnosis": diagnosis,
        "action": action,
        "reason": reason,
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
            packet.data, packet.wire_length, plain=bool(case.settings.get("plain")), stale=said["outer"] == "STALE"
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
    cases = [*origins(), *matrix(), *headers(), *sums(), *reasons(), *claims(), *plain(), *nat()]
    names = [case.name for case in cases]
    assert len(set(names)) == len(names), "two cases have one name"
    if FOLDER.exists():
        shutil.rmtree(FOLDER)
    for case in cases:
        write(case)
    print(f"{len(cases)} cases in {FOLDER}")


if __name__ == "__main__":
    main()
