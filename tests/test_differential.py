"""The datapath against three others that were written without it: the oracle, scapy's own sums, and tshark.

On packets made for the purpose, on packets damaged at random, and on captures that other people made, which lie beside
the checkout (``support.shared``).
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import NoPayload, Packet, Padding, Raw
from support import oracle, shared
from support.captures import pcap
from support.make_swarm import SWARM
from support.oracle import PORTS
from support.packets import encapsulate, frame, in_state, ip, merged_by_lro, segment, tunnelled, vxlan, with_field
from support.quick import ADDRESSES, made

from fixer.capture.open import Capture
from fixer.datapath.pipeline import Pipeline
from fixer.datapath.repair import Action
from fixer.datapath.result import Result

# Every capture, and how often each pair of states (inner, outer) is in it; OTHER: not UDP to a VXLAN port. Found by
# those who collected them, with tshark and a parser of their own.
STATES = {
    "OISF+suricata-verify__vxlan-arp.pcap": {("NONE", "ZERO"): 2},
    "OISF+suricata-verify__vxlan-decoder-01_input.pcap": {("VERIFIES", "GOOD"): 1, "OTHER": 2},
    "OISF+suricata-verify__vxlan-decoder-03_vxlan.pcap": {("VERIFIES", "ZERO"): 100},
    "OISF+suricata-verify__vxlan-non-zero-reserved-fields_input.pcap": {
        ("VERIFIES", "ZERO"): 6,
        ("PARTIAL", "ZERO"): 4,
    },
    "deepflowio+deepflow__decapsulate_test.pcap": {("VERIFIES", "ZERO"): 1, "OTHER": 3},
    "deepflowio+deepflow__ff-vxlan.pcap": {"OTHER": 1},
    "deepflowio+deepflow__ip6-vxlan.pcap": {("UNCHECKABLE", "ZERO6"): 1},
    "seladb+PcapPlusPlus__clusterfuzz-6185045124251648.pcap": {("UNCHECKABLE", "UNCHECKABLE"): 1},
    "skydive-project+skydive__vxlan-icmpv4-truncated.pcap": {("UNCHECKABLE", "UNCHECKABLE"): 2},
    "the-tcpdump-group+tcpdump__bfd-lag.pcap": {("UNCHECKABLE", "GOOD"): 5},
    "the-tcpdump-group+tcpdump__bigtcp-ipv4-vxlan-ipv4.pcap": {("PARTIAL", "PARTIAL"): 1},
    "the-tcpdump-group+tcpdump__gso-ipv4-vxlan-ipv4.pcap": {("PARTIAL", "PARTIAL"): 1},
    "the-tcpdump-group+tcpdump__gso-ipv6-vxlan-ipv6.pcap": {("PARTIAL", "PARTIAL"): 1},
    "the-tcpdump-group+tcpdump__ipv4_tcp_http_xml_tso.pcap": {"OTHER": 1},
    "the-tcpdump-group+tcpdump__vxlan_port_8472.pcap": {("VERIFIES", "ZERO"): 8, ("NONE", "ZERO"): 2},
    "zeek+zeek__ip6-route0-tcp-bad-chksum.pcap": {"OTHER": 1},
    "zeek+zeek__ip6-route0-tcp-good-chksum.pcap": {"OTHER": 1},
    "zeek+zeek__vxlan-encapsulated-http.pcap": {("VERIFIES", "GOOD"): 12},
    "zeek+zeek__vxlan-encapsulated-igmp-v2.pcap": {("NONE", "PARTIAL"): 3},
    "zeek+zeek__vxlan-inner-tcp-bad-checksum.pcap": {("WRONG", "GOOD"): 1},
}
PLAIN_STATES = {
    "the-tcpdump-group+tcpdump__ipv4_tcp_http_xml_tso.pcap": "PARTIAL",
    "zeek+zeek__ip6-route0-tcp-bad-chksum.pcap": "WRONG",
    "zeek+zeek__ip6-route0-tcp-good-chksum.pcap": "VERIFIES",
}

# Made after field cases, with what they hold (``field/README.md``), as a memory that sees them all says it.
FIELD = {
    "answers-excuse-unanswered-syns.pcap": {"sound": 33, "inner_unfinished": 50},
    "both-unfinished-and-working.pcap": {"inner_unfinished": 5},
    "dns-masquerade-random-ports.pcap": {"sound": 5, "outer_stale": 200},
    "ffff-six-syns.pcap": {"outer_wrong": 2, "outer_stale": 4},
    "fragments-mtu.pcap": {"sound": 6, "uncheckable": 12},
    "inner-tag-9100.pcap": {"inner_unfinished": 1},
    "never-computed-0000.pcap": {"corrupt": 5},
    "one-way-on-the-sender.pcap": {"outer_unfinished": 4},
    "outer-ip-header-wrong.pcap": {"outer_ip_wrong": 3},
    "outer-zero-over-ipv6.pcap": {"outer_absent6": 3},
    "receiver-gro-and-5-broken-syns.pcap": {"sound": 27, "inner_unfinished": 5, "both_unfinished": 1},
    "receiver-gro-healthy.pcap": {"sound": 25, "inner_unfinished": 1},
    "sender-outer-only.pcap": {"sound": 2, "outer_unfinished": 3},
}
FIELD_PLAIN = {
    "loopback.pcap": {"inner_unfinished": 3},
    "merged-by-lro.pcap": {"sound": 1, "uncheckable": 1},
}

# Where tshark sees something else, and why it is not ours to follow. (file, frame, layer): why.
TSHARK_DIFFERS = {
    ("the-tcpdump-group+tcpdump__bigtcp-ipv4-vxlan-ipv4.pcap", 1, layer): (
        "tshark 4.0 gives up at the UDP length of 0 that BIG TCP writes over IPv4, and so reads no inner packet"
    )
    for layer in ("outer", "inner")
} | {
    ("deepflowio+deepflow__ip6-vxlan.pcap", 1, "inner"): (
        "the inner IPv6 length runs beyond the outer UDP length; tshark warns of it and sums what there is"
    )
}
SCAPY_DIFFERS = {
    "OISF+suricata-verify__vxlan-non-zero-reserved-fields_input.pcap": (
        "scapy takes the flags ff for VXLAN-GPE; the version bits beside its P bit are set too, so it is not"
    )
}
TSHARK_STATUS = {  # udp.checksum.status and the like: 0 bad, 1 good, 2 unverified, 3 not present, 4 illegal
    "GOOD": {"1"},
    "VERIFIES": {"1"},
    "AGREES": {"0"},
    "PARTIAL": {"0"},
    "STALE": {"0"},
    "WRONG": {"0"},
    "ZERO": {"3"},
    "ZERO6": {"4"},  # tshark calls it illegal; RFC 6935 allows it to tunnels
    "ABSENT": {"3"},
    "NONE": {"", "2"},
    "UNCHECKABLE": {"", "2"},
}

needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")


@dataclass
class Seen:
    """One packet as all of them see it: from its IP header, its length on the wire, and the datapath's result."""

    packet: bytes
    wire_length: int
    result: Result
    after: bytes


def examine(packet: bytes, wire_length: int = 0, *, plain: bool = False) -> Seen:
    """Without a memory: what a packet says by itself."""
    changed = bytearray(packet)
    result = Pipeline(ports=PORTS, plain=plain, stale="off").examine(changed, wire_length)
    return Seen(packet, wire_length, result, bytes(changed))


def read(name: str, *, plain: bool = False, folder: str = "captures") -> list[Seen]:
    with Capture(shared.path(f"{folder}/{name}")) as capture:
        return [
            examine(each.data[each.ip_at :], each.wire_length - each.ip_at, plain=plain)
            for each in capture
            if each.ip_at >= 0
        ]


def assert_oracle_agrees(seen: Seen, *, plain: bool = False) -> None:
    verdict = oracle.judge(seen.packet, seen.wire_length, plain=plain)
    result = seen.result
    for name in ("inner", "outer", "diagnosis", "action", "reason"):
        assert getattr(result, name).name == getattr(verdict, name), name
    for name in ("vxlan", "unverified", "inner_found", "outer_found"):
        assert getattr(result, name) == getattr(verdict, name), name
    if result.inner.name in ("VERIFIES", "PARTIAL", "WRONG"):
        assert result.inner_right == verdict.inner_right
    if result.outer.name in ("GOOD", "AGREES", "PARTIAL", "WRONG", "ZERO6"):
        assert result.outer_right == verdict.outer_right
    assert seen.after == verdict.mended


def tshark(path: Path) -> list[tuple[str, str]]:
    """For each frame the checksum status of the outer UDP and of the inner transport layer, '' where there is none."""
    fields = ["udp.checksum.status", "tcp.checksum.status", "icmp.checksum.status", "icmpv6.checksum.status"]
    checks = ["udp.check_checksum", "tcp.check_checksum", "udp.ignore_ipv6_zero_checksum"]
    command = ["tshark", "-n", "-r", str(path), "-d", "udp.port==8472,vxlan", "-T", "fields", "-E", "separator=|"]
    for check, value in zip(checks, ("TRUE", "TRUE", "FALSE"), strict=True):
        command += ["-o", f"{check}:{value}"]
    for field in fields:
        command += ["-e", field]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = []
    for line in done.stdout.splitlines():
        udp, *others = (part.split(",") for part in line.split("|"))
        inner = [status for part in (udp[1:], *others) for status in part if status]
        found.append((udp[0], inner[0] if inner else ""))
    return found


def scapy_right(packet: bytes) -> int | None:
    """The innermost transport checksum as scapy makes it, or None where scapy finds no whole segment.

    Padding is cut off: scapy would sum what it takes for payload.
    """
    layer: Packet = (IP if packet[0] >> 4 == 4 else IPv6)(packet)
    inner = layer
    while not isinstance(layer, NoPayload):
        if isinstance(layer, IP | IPv6):
            inner = layer
        layer = layer.payload
    inner = inner.copy()
    if Padding in inner:
        inner[Padding].underlayer.remove_payload()
    for kind, name in ((TCP, "chksum"), (UDP, "chksum"), (ICMP, "chksum"), (ICMPv6EchoRequest, "cksum")):
        if kind in inner:
            inner[kind].delfieldval(name)
            made = type(inner)(bytes(inner))
            return int(getattr(made[kind], name))
    return None


@pytest.mark.parametrize("name", STATES)
def test_captures_hold_what_is_known_of_them(name: str) -> None:
    counted: dict[object, int] = {}
    for seen in read(name):
        states = (seen.result.inner.name, seen.result.outer.name) if seen.result.vxlan else "OTHER"
        counted[states] = counted.get(states, 0) + 1
    assert counted == STATES[name]


@pytest.mark.parametrize("name", PLAIN_STATES)
def test_captures_without_a_tunnel(name: str) -> None:
    assert {seen.result.inner.name for seen in read(name, plain=True)} == {PLAIN_STATES[name]}


def test_no_capture_is_left_out() -> None:
    assert {path.name for path in shared.captures()} == set(STATES)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("name", STATES)
def test_oracle_on_captures(name: str, plain: bool) -> None:
    for seen in read(name, plain=plain):
        assert_oracle_agrees(seen, plain=plain)


@pytest.mark.parametrize("name", [*FIELD, *FIELD_PLAIN])
def test_field_captures_hold_what_is_known_of_them(name: str) -> None:
    pipeline = Pipeline(ports=PORTS, plain=name in FIELD_PLAIN)
    with Capture(shared.path(f"field/{name}")) as capture:
        for each in capture:
            if each.ip_at >= 0:
                packet = bytearray(each.data[each.ip_at :])
                pipeline.examine(packet, each.wire_length - each.ip_at, when_ns=each.when_ns)
    counted = {diagnosis: count for diagnosis, count in pipeline.counters()["diagnosis"].items() if count}
    assert counted == (FIELD | FIELD_PLAIN)[name]


@pytest.mark.parametrize("plain", [False, True])
def test_oracle_on_field_captures(plain: bool) -> None:
    for path in shared.captures("field"):
        for seen in read(path.name, plain=plain, folder="field"):
            assert_oracle_agrees(seen, plain=plain)


@needs_tshark
@pytest.mark.parametrize(
    ("folder", "name"), [("captures", name) for name in STATES] + [("field", name) for name in FIELD]
)
def test_tshark_on_captures(folder: str, name: str) -> None:
    seen = read(name, folder=folder)
    found = tshark(shared.path(f"{folder}/{name}"))
    for number, (frame_seen, statuses) in enumerate(zip(seen, found, strict=True), 1):
        if frame_seen.result.vxlan:
            for layer, status in zip(("outer", "inner"), statuses, strict=True):
                state = getattr(frame_seen.result, layer).name
                agrees = status in TSHARK_STATUS[state]
                assert agrees != ((name, number, layer) in TSHARK_DIFFERS), f"frame {number} {layer}: {state}, {status}"


@pytest.mark.parametrize("name", STATES)
def test_scapy_on_captures(name: str) -> None:
    for seen in read(name):
        if seen.result.inner.name in ("VERIFIES", "PARTIAL", "WRONG") and seen.result.length < 65536:
            agrees = scapy_right(seen.packet) == seen.result.inner_right
            assert agrees != (name in SCAPY_DIFFERS), seen.packet.hex()


GENERATED = [
    tunnelled(inner, outer, kind, version, underlay, payload)
    for payload in (b"even", b"odd", b"")
    for underlay in (4, 6)
    for version, kind in ((4, "tcp"), (4, "udp"), (6, "tcp"), (6, "udp"), (4, "icmp"), (6, "icmp6"))
    for inner in ("VERIFIES", "WRONG", *(() if kind == "icmp" else ("PARTIAL",)))
    for outer in ("GOOD", "ZERO", "PARTIAL", "WRONG", *(("AGREES",) if inner == "PARTIAL" else ()))
] + [bytes.fromhex(packet) for packet in SWARM]


# What scapy sums otherwise, or not at all: what is merged, is no IP, or was never computed.
ODD = [
    *(
        encapsulate(vxlan(frame(inner, *tags, ethertype=ethertype)), outer, underlay)
        for inner in (segment(4, "tcp"), segment(6, "udp"), in_state(segment(4, "tcp"), 4, "tcp", "ABSENT"))
        for tags, ethertype in (((), None), ((7,), 0x8847), ((), 0x8864), ((), 0x0806), ((), 38), ((), 0x9100))
        for outer in ("GOOD", "ZERO", "PARTIAL")
        for underlay in (4, 6)
    ),
    merged_by_lro(1500, 5000),
    merged_by_lro(9000, 20_000, 6),
    in_state(segment(6, "tcp", bytes(2000)), 6, "tcp", "WRONG"),
    in_state(segment(4, "tcp"), 4, "tcp", "ABSENT"),
    with_field(segment(4, "tcp"), 10, 0),
    with_field(tunnelled("PARTIAL", "AGREES"), 10, 0),
]


@pytest.mark.parametrize("plain", [False, True])
def test_oracle_on_odd_packets(plain: bool) -> None:
    for packet in ODD:
        assert_oracle_agrees(examine(packet, plain=plain), plain=plain)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 60_000), st.integers(1200, 9100), st.sampled_from([4, 6]), st.integers(0, 5))
def test_oracle_on_what_may_be_merged(payload: int, wire: int, version: int, words: int) -> None:
    """A long segment with the right checksum of its first `wire` bytes, with TCP options of any length."""
    options = b"\x01" * 4 * words
    sent = bytes(at * 7 % 251 for at in range(payload))
    bare = bytes(ip(version) / TCP(sport=1, dport=2, options=[("NOP", None)] * len(options)) / Raw(sent))
    header = len(bare) - payload
    layer = oracle.read_ip(bare, 0, len(bare))
    oracle.read_transport(bare, layer)
    first = replace(layer, stop=min(max(wire, header), len(bare)))
    packet = with_field(bare, layer.field_at, first.right(bare))
    seen = examine(packet, plain=True)
    assert_oracle_agrees(seen, plain=True)
    filled = any(least - header <= first.stop - header <= most - header for least, most in ((1300, 1500), (8800, 9000)))
    if len(bare) > 1500 and first.stop < len(bare) and filled and not first.stop % 2:
        assert seen.result.reason.name == "MERGED_BY_NIC"


def test_oracle_and_scapy_on_generated_packets() -> None:
    for packet in GENERATED:
        seen = examine(packet)
        assert_oracle_agrees(seen)
        assert scapy_right(packet) == seen.result.inner_right, packet.hex()
        assert scapy_right(seen.after) == seen.result.inner_right, packet.hex()


@needs_tshark
def test_tshark_on_generated_packets(tmp_path: Path) -> None:
    """Before: each layer as the datapath says. After: in everything that was repaired, no bad checksum is left."""
    seen = [examine(packet) for packet in GENERATED]
    for name, packets in (("before", [s.packet for s in seen]), ("after", [s.after for s in seen])):
        (tmp_path / name).write_bytes(pcap(packets, link_type=101))
    after = tshark(tmp_path / "after")
    for number, statuses in enumerate(tshark(tmp_path / "before")):
        result = seen[number].result
        assert statuses[0] in TSHARK_STATUS[result.outer.name], number
        assert statuses[1] in TSHARK_STATUS[result.inner.name], number
        if result.action is Action.REPAIR:
            assert "0" not in after[number], number
    assert sum(each.result.action is Action.REPAIR for each in seen) > 50


ANYTHING = st.binary(max_size=80).map(lambda inside: made(4, "udp", ADDRESSES[4], vxlan(inside), "VERIFIES", port=4789))
WHOLE = st.sampled_from(GENERATED + ODD) | ANYTHING


@st.composite
def damaged(draw: st.DrawFn) -> tuple[bytes, int]:
    """A packet with bytes overwritten, cut or lengthened anywhere, and the length it claims to have had on the wire."""
    packet = draw(WHOLE)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(packet) - 1))
        packet = packet[:at] + bytes([draw(st.integers(0, 255))]) + packet[at + 1 :]
    whole = len(packet)
    packet = packet[: draw(st.integers(0, whole) | st.just(whole))] + draw(st.binary(max_size=3))
    return packet, draw(st.sampled_from([0, whole, whole + 9]))


@settings(max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(damaged(), st.booleans())
@example((b"", 0), False)
@example((b"", 0), True)
def test_oracle_on_damaged_packets(case: tuple[bytes, int], plain: bool) -> None:
    packet, wire_length = case
    seen = examine(packet, wire_length, plain=plain)
    assert_oracle_agrees(seen, plain=plain)
    assert len(seen.after) == len(packet)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=300),
    st.sampled_from([(4, "tcp"), (4, "udp"), (6, "tcp"), (6, "udp"), (6, "icmp6")]),
    st.sampled_from([4, 6]),
    st.sampled_from(["GOOD", "AGREES", "ZERO", "PARTIAL"]),
    st.lists(st.integers(1, 4094), max_size=3),
    st.binary(max_size=20),
)
def test_scapy_on_what_was_mended(
    payload: bytes, inner: tuple[int, str], underlay: int, outer: str, tags: list[int], padding: bytes
) -> None:
    """An unfinished packet leaves byte for byte as scapy would have sent it."""
    version, kind = inner
    finished = segment(version, kind, payload)
    whole, unfinished = (
        vxlan(frame(packet, *tags, padding=padding))
        for packet in (finished, in_state(finished, version, kind, "PARTIAL"))
    )
    seen = examine(encapsulate(unfinished, outer, underlay, finished=whole))
    wanted = encapsulate(whole, "ZERO" if outer == "ZERO" else "GOOD", underlay)
    assert seen.after == wanted


def test_scapy_reads_the_frames_as_we_do() -> None:
    """The tests' own packets: what `packets` builds by hand dissects as what it is meant to be."""
    packet = IP(tunnelled("VERIFIES", "GOOD", "tcp", inner=6))
    assert [packet[UDP].dport, packet[VXLAN].vni, packet[Ether].type, packet[TCP].dport] == [4789, 4097, 0x86DD, 80]
