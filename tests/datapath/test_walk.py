"""The walk: whatever the bytes are, a named reason and an untouched packet."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import TCP, UDP, IPOption_LSRR
from scapy.layers.inet6 import (
    HAO,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    IPv6ExtHdrSegmentRouting,
)
from scapy.packet import Raw
from support.oracle import PORTS
from support.packets import TRANSPORTS, encapsulate, frame, in_state, ip, segment, tunnelled, vxlan

from fixer.datapath.diagnose import Diagnosis, InnerState, OuterState
from fixer.datapath.pipeline import Pipeline
from fixer.datapath.repair import Action
from fixer.datapath.result import Result
from fixer.datapath.walk import Reason


def examine(packet: bytes, wire_length: int = 0, **settings: object) -> Result:
    return Pipeline(ports=PORTS, **settings).examine(bytearray(packet), wire_length)


@given(st.binary(max_size=300), st.booleans())
def test_arbitrary_bytes_pass_unchanged(data: bytes, plain: bool) -> None:
    pipeline = Pipeline(ports=PORTS, plain=plain)
    packet = bytearray(data)
    result = pipeline.examine(packet)
    if result.action is not Action.REPAIR:
        assert packet == data
    assert result.reason in Reason


@settings(max_examples=300)
@given(
    st.sampled_from(["tcp", "udp", "icmp6"]),
    st.sampled_from([4, 6]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_mangled_headers_never_end_in_an_exception(kind: str, outer: int, changes: list[tuple[int, int]]) -> None:
    packet = bytearray(tunnelled("PARTIAL", "GOOD", kind, inner=6, outer=outer))
    for at, value in changes:
        packet[at % len(packet)] = value
    before = bytes(packet)
    result = Pipeline(ports=PORTS, plain=True).examine(packet)
    assert len(packet) == len(before)
    assert (packet != before) <= (result.action is Action.REPAIR)


@pytest.mark.parametrize("inner", [4, 6])
@pytest.mark.parametrize("outer", [4, 6])
def test_a_copy_cut_anywhere_is_never_judged_nor_changed(inner: int, outer: int) -> None:
    packet = tunnelled("PARTIAL", "GOOD", inner=inner, outer=outer)
    assert examine(packet).diagnosis is Diagnosis.INNER_UNFINISHED
    for length in range(len(packet)):
        cut = bytearray(packet[:length])
        result = Pipeline(ports=PORTS).examine(cut, len(packet))
        assert result.reason is Reason.TRUNCATED, length
        assert result.diagnosis is Diagnosis.UNCHECKABLE
        assert cut == packet[:length]


def test_a_packet_shorter_than_it_says_is_unreadable_rather_than_truncated() -> None:
    packet = tunnelled("PARTIAL", "GOOD")
    assert examine(packet[:-1]).reason is Reason.OUTER_UNREADABLE


@pytest.mark.parametrize("tags", [0, 1, 2, 3, 4, 5])
def test_vlan_tags(tags: int) -> None:
    inner = frame(in_state(segment(4, "tcp"), 4, "tcp", "PARTIAL"), *range(100, 100 + tags))
    result = examine(encapsulate(vxlan(inner)))
    if tags <= 4:
        assert result.diagnosis is Diagnosis.INNER_UNFINISHED
        assert result.vlan == (100 if tags else None)
    else:
        assert result.reason is Reason.INNER_ETHERNET


@pytest.mark.parametrize("ethertype", [0x8100, 0x88A8, 0x9100])
def test_three_ethertypes_are_tags(ethertype: int) -> None:
    inner = in_state(segment(4, "tcp"), 4, "tcp", "PARTIAL")
    result = examine(encapsulate(vxlan(frame(bytes.fromhex("00c80800") + inner, ethertype=ethertype))))
    assert (result.diagnosis, result.vlan) == (Diagnosis.INNER_UNFINISHED, 200)


@pytest.mark.parametrize("ethertype", [0x0806, 0x8035, 0x88CC, 0x0000, 0x0026, 0x05FF])
def test_what_carries_no_ip_has_nothing_to_check(ethertype: int) -> None:
    result = examine(encapsulate(vxlan(frame(bytes(46), ethertype=ethertype))))
    assert (result.inner, result.reason, result.diagnosis) == (InnerState.NONE, Reason.NO_IP, Diagnosis.SOUND)


@pytest.mark.parametrize("ethertype", [0x0600, 0x6558, 0x8137, 0x8847, 0x8848, 0x8863, 0x8864, 0x9101, 0xFFFF])
def test_what_may_carry_ip_and_is_not_looked_into_is_not_called_sound(ethertype: int) -> None:
    inner = in_state(segment(4, "tcp"), 4, "tcp", "PARTIAL")
    result = examine(encapsulate(vxlan(frame(inner, ethertype=ethertype))))
    assert (result.inner, result.reason, result.diagnosis) == (InnerState.NONE, Reason.NOT_IP, Diagnosis.UNCHECKABLE)


@pytest.mark.parametrize("options", range(0, 44, 4))
def test_ipv4_options_on_both_layers(options: int) -> None:
    nops = [Raw(b"\x01" * options)] if options else []
    inner = bytes(ip(4, options=nops) / TRANSPORTS["tcp"] / Raw(b"data"))
    result = examine(encapsulate(vxlan(frame(inner)), options=nops))
    assert (result.inner, result.outer) == (InnerState.VERIFIES, OuterState.GOOD)


def test_a_source_route_with_hops_left_is_not_guessed_at() -> None:
    # The route's last hop is the destination itself, since scapy sums over that one whatever the pointer says.
    def routed(pointer: int) -> Result:
        option = IPOption_LSRR(pointer=pointer, routers=["10.0.1.192"])
        return examine(encapsulate(vxlan(frame(bytes(ip(4, options=[option]) / TRANSPORTS["tcp"])))))

    assert routed(4).reason is Reason.SOURCE_ROUTE
    assert routed(8).inner is InnerState.VERIFIES


HOP = IPv6ExtHdrHopByHop()


@pytest.mark.parametrize("count", [1, 8, 9])
def test_extension_headers_are_bounded(count: int) -> None:
    chain = ip(6)
    for _ in range(count):
        chain /= IPv6ExtHdrDestOpt()
    result = examine(encapsulate(vxlan(frame(bytes(chain / TRANSPORTS["tcp"])))))
    if count <= 8:
        assert result.inner is InnerState.VERIFIES
    else:
        assert result.reason is Reason.EXTENSION_HEADERS


@pytest.mark.parametrize(
    "header",
    [
        IPv6ExtHdrRouting(addresses=["2001:db8::1:1", "2001:db8::1:2"], segleft=2),
        IPv6ExtHdrRouting(addresses=["2001:db8::1:1", "2001:db8::1:2"], segleft=1),
        IPv6ExtHdrRouting(type=2, addresses=["2001:db8::1:1"], segleft=1),
        IPv6ExtHdrRouting(addresses=["2001:db8::1:1"], segleft=0),
        IPv6ExtHdrSegmentRouting(addresses=["2001:db8::1:1", "2001:db8::1:2"], segleft=1, lastentry=1),
    ],
    ids=["type 0", "type 0, one left", "type 2", "none left", "segment routing"],
)
def test_a_routing_header_moves_the_pseudo_header_s_destination(header: Raw) -> None:
    """scapy computes the sum; the final address is a different one from the header's, so a wrong choice shows."""
    result = examine(encapsulate(vxlan(frame(bytes(ip(6) / HOP / header / TRANSPORTS["tcp"])))))
    assert result.inner is InnerState.VERIFIES


def test_a_routing_header_that_cannot_be_followed() -> None:
    header = IPv6ExtHdrRouting(type=3, addresses=["2001:db8::1:1"], segleft=1)
    assert examine(encapsulate(vxlan(frame(bytes(ip(6) / header / TCP()))))).reason is Reason.SOURCE_ROUTE


def test_a_home_address_moves_the_source() -> None:
    header = IPv6ExtHdrDestOpt(options=[HAO(hoa="2001:db8::99")])
    assert examine(encapsulate(vxlan(frame(bytes(ip(6) / header / TCP()))))).reason is Reason.SOURCE_ROUTE


def test_the_last_of_sixteen_ports_that_are_not_configured() -> None:
    assert examine(tunnelled("PARTIAL", "GOOD", port=4790)).reason is Reason.OTHER_TRAFFIC
    assert examine(tunnelled("PARTIAL", "GOOD", port=8472)).diagnosis is Diagnosis.INNER_UNFINISHED
    fifteen = Pipeline(ports=range(5000, 5015))
    assert fifteen.examine(bytearray(tunnelled("PARTIAL", "GOOD", port=5014))).vxlan
    for ports in ([], range(5000, 5016), [0], [65536]):
        with pytest.raises(ValueError, match="ports"):
            Pipeline(ports=ports)


def test_padding_is_outside_the_inner_sum_and_inside_the_outer_one() -> None:
    inner = in_state(segment(4, "tcp", b""), 4, "tcp", "PARTIAL")
    for padding in range(12):
        packet = bytearray(encapsulate(vxlan(frame(inner, padding=random.Random(padding).randbytes(padding)))))
        result = Pipeline(ports=PORTS).examine(packet)
        assert result.diagnosis is Diagnosis.INNER_UNFINISHED
        assert not result.unverified
        assert Pipeline(ports=PORTS).examine(packet).diagnosis is Diagnosis.SOUND


def test_lengths_of_zero() -> None:
    """BIG TCP: total length 0 over IPv4, payload length 0 over IPv6, UDP length 0: the frame's length counts."""
    packet = bytearray(tunnelled("VERIFIES", "ZERO"))
    packet[2:4] = b"\0\0"
    packet[24:26] = b"\0\0"
    assert examine(packet).inner is InnerState.VERIFIES
    packet = bytearray(tunnelled("VERIFIES", "ZERO", inner=6, outer=6))
    packet[4:6] = b"\0\0"
    packet[44:46] = b"\0\0"
    assert examine(packet).inner is InnerState.VERIFIES
    lying = bytearray(tunnelled("VERIFIES", "ZERO"))
    lying[24:26] = b"\0\0"
    assert examine(lying).reason is Reason.OUTER_UNREADABLE


def test_a_tunnel_inside_may_go_without_a_checksum_over_ipv6_and_nothing_else_may() -> None:
    def zero(port: int) -> Result:
        packet = bytearray(bytes(ip(6) / UDP(sport=9, dport=port) / Raw(b"x" * 60)))
        packet[46:48] = b"\0\0"
        return examine(encapsulate(vxlan(frame(bytes(packet)))))

    assert zero(4789).inner is InnerState.ABSENT
    assert zero(6081).inner is InnerState.ABSENT
    assert zero(5000).diagnosis is Diagnosis.CORRUPT


def test_plain_packets() -> None:
    packet = in_state(segment(4, "tcp"), 4, "tcp", "PARTIAL")
    assert examine(packet).reason is Reason.OTHER_TRAFFIC
    result = examine(packet, plain=True)
    assert (result.diagnosis, result.outer, result.unverified) == (
        Diagnosis.INNER_UNFINISHED,
        OuterState.NO_TUNNEL,
        True,
    )
    assert examine(tunnelled("PARTIAL", "GOOD"), plain=True).vxlan
