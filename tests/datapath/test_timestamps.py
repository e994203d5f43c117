"""Timestamps taken out of SYNs: only those, only there, and no checksum made right that was not."""

from __future__ import annotations

import ipaddress
import itertools
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw
from support import oracle
from support.packets import encapsulate, frame, in_state, ip, tunnelled, vxlan

from fixer.datapath.pipeline import Pipeline
from fixer.datapath.repair import Action
from fixer.datapath.result import Result

SYN, ACK, RST, FIN = 2, 16, 4, 1
START = {4: 20, 6: 40}
TIMESTAMPS = bytes([8, 10]) + struct.pack("!II", 0x01020304, 0)
OTHERS = {  # one of each that a SYN carries
    "mss": bytes([2, 4, 5, 180]),
    "sack": bytes([4, 2]),
    "scale": bytes([3, 3, 7]),
    "nop": bytes([1]),
    "md5": bytes([19, 18]) + bytes(16),
    "unknown": bytes([253, 4, 1, 2]),
}
AO = bytes([29, 16]) + bytes(14)
NOPS = bytes([1]) * 10


def sources(*networks: str) -> list[tuple[bytes, int]]:
    return [(each.network_address.packed, each.prefixlen) for each in map(ipaddress.ip_network, networks)]


def stripping(*networks: str, **settings: object) -> Pipeline:
    networks = networks or ("10.0.1.0/24", "2001:db8::/64")
    return Pipeline(ports=[4789], plain=True, timestamps="strip", sources=sources(*networks), **settings)


def syn(options: bytes, flags: int = SYN, version: int = 4, payload: bytes = b"") -> bytes:
    """A finished IP packet with these bytes for its TCP options (padded with zeros, which end them)."""
    options += bytes(-len(options) % 4)
    header = struct.pack("!HHIIBBHHH", 1234, 80, 7, 0, (5 + len(options) // 4) << 4, flags, 65535, 0, 0)
    bare = bytes(ip(version, **({"proto": 6} if version == 4 else {"nh": 6})) / Raw(header + options + payload))
    layer = oracle.read_ip(bare, 0, len(bare))
    oracle.read_transport(bare, layer)
    return oracle.with_field(bare, layer.field_at, layer.right(bare))


def outcome(pipeline: Pipeline) -> str:
    counted = {name: count for name, count in pipeline.counters()["timestamps"].items() if count}
    assert sum(counted.values()) <= 1
    return next(iter(counted), "not_concerned")


def through(packet: bytes, pipeline: Pipeline, skb_info: int = 0) -> tuple[bytes, Result]:
    data = bytearray(packet)
    result = pipeline.examine(data, skb_info=skb_info)
    return bytes(data), result


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("order", list(itertools.permutations(["mss", "sack", "scale", "timestamps"])))
def test_every_order_and_alignment(order: tuple[str, ...], version: int) -> None:
    for nops in range(4):
        parts = [OTHERS["nop"]] * nops + [TIMESTAMPS if name == "timestamps" else OTHERS[name] for name in order]
        packet = syn(b"".join(parts), version=version, payload=b"odd")
        pipeline = stripping()
        found, _ = through(packet, pipeline)
        assert outcome(pipeline) == "stripped"
        expected = syn(
            b"".join(NOPS if part == TIMESTAMPS else part for part in parts), version=version, payload=b"odd"
        )
        assert found == expected
        again = IP(found) if version == 4 else IPv6(found)
        assert "Timestamp" not in dict(again[TCP].options)


@pytest.mark.parametrize("cut", range(1, 11))
@pytest.mark.parametrize("behind", [b"", OTHERS["mss"]])
def test_every_truncation(cut: int, behind: bytes) -> None:
    """A timestamps option that claims more than there is, and one whose length is not ten."""
    pipeline = stripping()
    packet = syn(behind + b"\x01" * (-(len(behind) + cut) % 4) + TIMESTAMPS[:cut])
    found, _ = through(packet, pipeline)
    assert found == packet if cut < 10 else found != packet
    assert outcome(pipeline) == ("malformed" if cut < 10 else "stripped")


@pytest.mark.parametrize("length", [0, 1, 2, 9, 11, 40, 255])
def test_lengths_that_are_not_a_timestamp_s(length: int) -> None:
    pipeline = stripping()
    packet = syn(bytes([8, length]) + bytes(14))
    assert through(packet, pipeline)[0] == packet
    assert outcome(pipeline) == "malformed"


@pytest.mark.parametrize("offset", [0, 1, 4, 15])
def test_a_header_length_that_lies(offset: int) -> None:
    packet = bytearray(syn(TIMESTAMPS))
    packet[20 + 12] = offset << 4
    pipeline = stripping(actions={"corrupt": "pass"})
    assert through(bytes(packet), pipeline)[0] == packet
    assert outcome(pipeline) == "malformed"


def test_two_of_them_are_left_alone() -> None:
    pipeline = stripping()
    packet = syn(TIMESTAMPS * 2)
    assert through(packet, pipeline)[0] == packet
    assert outcome(pipeline) == "malformed"


def test_what_is_behind_the_end_of_options_is_none() -> None:
    pipeline = stripping()
    packet = syn(OTHERS["mss"] + b"\0" + TIMESTAMPS)
    assert through(packet, pipeline)[0] == packet
    assert outcome(pipeline) == "without"


@pytest.mark.parametrize("options", [TIMESTAMPS + AO, AO + TIMESTAMPS])
def test_an_authenticated_segment_is_never_edited(options: bytes) -> None:
    pipeline = stripping()
    packet = syn(options)
    assert through(packet, pipeline)[0] == packet
    assert outcome(pipeline) == "authenticated"


def test_md5_leaves_options_out_of_its_digest() -> None:
    pipeline = stripping()
    through(syn(OTHERS["md5"] + TIMESTAMPS), pipeline)
    assert outcome(pipeline) == "stripped"


@pytest.mark.parametrize("flags", [ACK, ACK | 8, SYN | RST, SYN | FIN, RST, FIN | ACK, SYN | ACK, 0])
def test_a_connection_that_exists_is_never_touched(flags: int) -> None:
    pipeline = stripping()
    packet = syn(TIMESTAMPS, flags)
    assert through(packet, pipeline)[0] == packet
    assert outcome(pipeline) == "not_concerned"


@pytest.mark.parametrize("ecn", [0x40, 0x80, 0xC0])
def test_a_syn_that_asks_for_ecn_is_a_syn(ecn: int) -> None:
    pipeline = stripping()
    through(syn(TIMESTAMPS, SYN | ecn), pipeline)
    assert outcome(pipeline) == "stripped"


def test_the_syn_ack_to_a_source_where_it_is_asked_for() -> None:
    packet = syn(TIMESTAMPS, SYN | ACK)
    for networks, asked, expected in (
        (["10.0.1.192/32"], True, "stripped"),
        (["10.0.1.192/32"], False, "not_concerned"),
        (["10.0.1.176/32"], True, "not_concerned"),
    ):
        pipeline = stripping(*networks, syn_ack=asked)
        through(packet, pipeline)
        assert outcome(pipeline) == expected


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6), st.data())
def test_sources_match_as_networks_do(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, data: st.DataObject
) -> None:
    other = data.draw(st.integers(0, 2**address.max_prefixlen - 1))
    bits = data.draw(st.integers(0, address.max_prefixlen))
    near = int(address) ^ (other >> data.draw(st.integers(0, address.max_prefixlen)))
    network = ipaddress.ip_network((near, bits), strict=False)
    if network.version != address.version:
        network = ipaddress.ip_network((ipaddress.IPv6Address(near), bits), strict=False)
    packet = bytearray(syn(TIMESTAMPS, version=address.version))
    at = 12 if address.version == 4 else 8
    packet[at : at + len(address.packed)] = address.packed
    pipeline = stripping(str(network), actions={"corrupt": "pass"})
    pipeline.examine(packet)
    assert (outcome(pipeline) == "stripped") == (address in network)


@pytest.mark.parametrize("outer_version", [4, 6])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("outer", ["GOOD", "AGREES", "ZERO", "PARTIAL"])
@pytest.mark.parametrize("inner", ["VERIFIES", "PARTIAL"])
def test_unfinished_and_stripped_comes_out_right_in_both(
    inner: str, outer: str, version: int, outer_version: int
) -> None:
    whole = syn(OTHERS["mss"] + b"\x01" + TIMESTAMPS, version=version)
    asked = in_state(whole, version, "tcp", inner)
    packet = encapsulate(vxlan(frame(asked)), outer, outer_version, finished=vxlan(frame(whole)))
    found, result = through(packet, stripping())
    after = oracle.judge(found, plain=True)
    absent = "ZERO" if outer_version == 4 else "ZERO6"
    assert (after.inner, after.outer) == ("VERIFIES", absent if outer == "ZERO" else "GOOD")
    assert after.diagnosis == ("OUTER_ABSENT6" if after.outer == "ZERO6" else "SOUND")
    assert TIMESTAMPS not in found
    assert result.action is (Action.PASS if (inner, outer) in SOUND else Action.REPAIR)


SOUND = {("VERIFIES", "GOOD"), ("VERIFIES", "AGREES"), ("VERIFIES", "ZERO")}


def test_a_wrong_checksum_stays_wrong_by_the_same_amount() -> None:
    whole = syn(TIMESTAMPS)
    for inner, outer in (("WRONG", "GOOD"), ("WRONG", "ZERO"), ("VERIFIES", "WRONG")):
        asked = in_state(whole, 4, "tcp", inner)
        packet = encapsulate(vxlan(frame(asked)), outer, finished=vxlan(frame(whole)))
        before = oracle.judge(packet, plain=True)
        found, _ = through(packet, stripping(actions={"corrupt": "pass"}))
        after = oracle.judge(found, plain=True)
        assert (after.inner, after.outer, after.diagnosis) == (before.inner, before.outer, before.diagnosis)
        for right, wrong in (("inner_right", "inner_found"), ("outer_right", "outer_found")):
            assert (getattr(after, right) - getattr(after, wrong)) % 0xFFFF == (
                getattr(before, right) - getattr(before, wrong)
            ) % 0xFFFF
        assert TIMESTAMPS not in found


def test_a_corrupt_syn_is_dropped_not_edited() -> None:
    packet = encapsulate(vxlan(frame(in_state(syn(TIMESTAMPS), 4, "tcp", "WRONG"))))
    found, result = through(packet, stripping())
    assert found == packet
    assert result.action is Action.DROP


def test_a_monitor_strips_nothing() -> None:
    packet = syn(TIMESTAMPS)
    pipeline = stripping(monitor=True)
    assert through(packet, pipeline)[0] == packet
    assert outcome(pipeline) == "stripped"


def test_what_the_kernel_would_finish_is_complete_once_it_is_changed() -> None:
    not_ready, gso = 1, 2
    packet = in_state(syn(TIMESTAMPS), 4, "tcp", "PARTIAL")
    found, _ = through(packet, stripping(), not_ready)
    assert found == syn(NOPS)
    assert through(packet, stripping(), gso)[0] == packet


@pytest.mark.parametrize(
    ("inner", "outer"),
    [("VERIFIES", "WRONG"), ("PARTIAL", "WRONG"), ("WRONG", "PARTIAL"), ("WRONG", "GOOD"), ("WRONG", "ZERO")],
)
def test_nothing_is_mended_on_the_way(inner: str, outer: str) -> None:
    """The kernel would have finished one checksum of this packet itself. Finished it would be, and so it would leave
    with checksums that verify over whatever damage made the other one wrong."""
    whole = syn(TIMESTAMPS)
    asked = in_state(whole, 4, "tcp", inner)
    packet = encapsulate(vxlan(frame(asked)), outer, finished=vxlan(frame(whole)))
    pipeline = stripping(actions={"corrupt": "pass"})
    found, result = through(packet, pipeline, skb_info=1)
    assert (found, result.action) == (packet, Action.PASS)
    assert outcome(pipeline) == "incomplete"


def test_damage_that_only_the_outer_covers_is_not_finished_over() -> None:
    """Of a packet of which the kernel says that it is not ready: a bit of the inner MACs, of the VNI, of a sequence
    number in an unfinished segment."""
    whole = syn(TIMESTAMPS)
    for inner, at in (("VERIFIES", 39), ("VERIFIES", 34), ("PARTIAL", 74)):
        intact = encapsulate(vxlan(frame(in_state(whole, 4, "tcp", inner))))
        packet = oracle.with_field(intact, at, int.from_bytes(intact[at : at + 2], "big") ^ 0x0400)
        pipeline = stripping()
        assert through(packet, pipeline, skb_info=1)[0] == packet
        assert outcome(pipeline) == "incomplete"
        assert oracle.judge(through(intact, stripping(), skb_info=1)[0]).diagnosis == "SOUND"


def test_an_unfinished_syn_that_a_device_calls_verified_is_left_alone() -> None:
    """Stripped, its field would be neither the pseudo-header's sum nor right, and no kernel behind could finish it."""
    for length in ("PARTIAL", "LENGTH_0"):
        asked = in_state(syn(TIMESTAMPS), 4, "tcp", length)
        for packet in (asked, encapsulate(vxlan(frame(asked)))):
            pipeline = stripping(trust_device=True)
            found, result = through(packet, pipeline)
            assert (found, result.action) == (packet, Action.PASS)
            assert outcome(pipeline) == "incomplete"
    pipeline = stripping(trust_device=True)
    assert through(syn(TIMESTAMPS), pipeline)[0] == syn(NOPS), "one that is finished is stripped"
    assert outcome(pipeline) == "stripped"


def test_what_the_policy_leaves_unfinished_is_left_alone() -> None:
    packet = in_state(syn(TIMESTAMPS), 4, "tcp", "PARTIAL")
    assert through(packet, stripping(actions={"inner_unfinished": "pass"}))[0] == packet


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=40), st.sampled_from([4, 6]))
def test_any_options_at_all(options: bytes, version: int) -> None:
    """What is changed is one whole timestamps option, NOPs afterwards; the packet is sound before and after."""
    packet = syn(options, version=version)
    pipeline = stripping()
    found, _ = through(packet, pipeline)
    assert oracle.judge(found, plain=True).diagnosis == "SOUND"
    start = START[version] + 20
    changed = [at for at in range(start, len(packet)) if packet[at] != found[at]]
    if outcome(pipeline) != "stripped":
        assert found == packet
        return
    first = next(
        at
        for at in range(start, len(packet) - 9)
        if found[at : at + 10] == NOPS
        and packet[at : at + 2] == b"\x08\x0a"
        and set(changed) <= set(range(at, at + 10))
    )
    assert packet[first : first + 2] == b"\x08\x0a"
    pipeline = stripping()
    assert through(found, pipeline)[0] == found
    assert outcome(pipeline) == "without"


def test_off_by_default() -> None:
    packet = syn(TIMESTAMPS)
    assert through(packet, Pipeline(ports=[4789], plain=True))[0] == packet
    assert Pipeline(ports=[4789]).examine(bytearray(tunnelled("VERIFIES", "GOOD"))).action is Action.PASS


def test_sources_that_are_none() -> None:
    for wrong in ([(b"123", 8)], [(b"1234", 33)], [(b"1234", 8)] * 65):
        with pytest.raises(ValueError, match="source"):
            Pipeline(ports=[4789], sources=wrong)
