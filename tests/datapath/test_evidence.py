"""A stale outer checksum: what explains it, and what never may."""

from collections.abc import Iterator

import pytest
from scapy.packet import Raw
from support.packets import TRANSPORTS, encapsulate, field, frame, in_state, ip, vxlan, with_field

from fixer.datapath.diagnose import Diagnosis, InnerState, OuterState
from fixer.datapath.evidence import Explanation
from fixer.datapath.pipeline import Pipeline
from fixer.datapath.repair import Action
from fixer.datapath.result import Result

SECOND = 1_000_000_000
UDP_FIELD = 26  # of the outer layer, over IPv4 without options
VNI_KNOWN = [(4097, 4097)]


def pipeline(**settings: object) -> Pipeline:
    return Pipeline(ports=[4789], seed=1, **settings)


def flow(
    count: int, state: str = "VERIFIES", outer: str = "GOOD", vni: int = 4097, different_lengths: bool = False
) -> Iterator[bytes]:
    """Differing packets of one inner connection in one outer five-tuple, as a stack sends them.

    A complete segment sums to the same whatever is in it, so packets of one length all have the same outer field.
    """
    for sequence in range(count):
        tcp = TRANSPORTS["tcp"].copy()
        tcp.seq = 1000 + sequence * 10
        whole = bytes(ip(4) / tcp / Raw(b"%010d" % sequence + b"." * (sequence % 7) * different_lengths))
        asked = in_state(whole, 4, "tcp", state)
        yield encapsulate(vxlan(frame(asked), vni), outer, finished=vxlan(frame(whole), vni))


def with_error(packet: bytes, error: int) -> bytes:
    """The outer field off by `error` from what it was: a port rewritten and not folded in."""
    return with_field(packet, UDP_FIELD, (field(packet, UDP_FIELD) + error) % 0xFFFF)


def results(pipeline: Pipeline, packets: Iterator[bytes], when: int = SECOND) -> list[Result]:
    return [pipeline.examine(bytearray(packet), when_ns=when) for packet in packets]


@pytest.mark.parametrize("inner", ["VERIFIES", "PARTIAL"])
def test_ffff_into_a_known_vni_is_explained_at_once(inner: str) -> None:
    """(A) nf_nat updated a zero checksum and the address stayed."""
    packet = bytearray(with_field(next(flow(1, inner)), UDP_FIELD, 0xFFFF))
    result = pipeline(vnis=VNI_KNOWN).examine(packet)
    assert result.explanation is Explanation.FIELD_FFFF
    assert result.diagnosis is (Diagnosis.OUTER_STALE if inner == "VERIFIES" else Diagnosis.STALE_UNFINISHED)
    assert result.unverified == (inner == "PARTIAL")
    assert pipeline().examine(packet).outer is OuterState.GOOD


def test_ffff_into_an_unknown_vni_is_not() -> None:
    packet = with_field(next(flow(1)), UDP_FIELD, 0xFFFF)
    assert pipeline().examine(bytearray(packet)).diagnosis is Diagnosis.OUTER_WRONG
    assert pipeline(vnis=[(1, 4096)]).examine(bytearray(packet)).diagnosis is Diagnosis.OUTER_WRONG


def test_a_vni_is_learnt_from_a_packet_that_verifies() -> None:
    learning = pipeline()
    icmp = bytes(ip(4) / TRANSPORTS["icmp"])
    assert learning.examine(bytearray(encapsulate(vxlan(frame(icmp)), "ZERO"))).diagnosis is Diagnosis.SOUND
    packet = with_field(next(flow(1, "PARTIAL")), UDP_FIELD, 0xFFFF)
    assert learning.examine(bytearray(packet)).diagnosis is Diagnosis.STALE_UNFINISHED


@pytest.mark.parametrize("inner", ["VERIFIES", "PARTIAL"])
def test_the_same_field_on_three_differing_packets_of_a_vtep_pair(inner: str) -> None:
    """(C) a middlebox updated a zero checksum: the field is constant whatever is in the packet."""
    packets = [with_field(packet, UDP_FIELD, 0x1234) for packet in flow(5, inner, different_lengths=True)]
    seen = results(pipeline(vnis=VNI_KNOWN), iter(packets))
    unexplained = Diagnosis.OUTER_WRONG if inner == "VERIFIES" else Diagnosis.CORRUPT
    explained = Diagnosis.OUTER_STALE if inner == "VERIFIES" else Diagnosis.STALE_UNFINISHED
    assert [result.diagnosis for result in seen] == [unexplained] * 2 + [explained] * 3
    assert seen[-1].explanation is Explanation.SAME_FIELD
    assert {result.action for result in results(pipeline(), iter(packets))} == {seen[0].action}, "an unknown VNI"


def test_the_same_error_on_three_differing_packets_of_a_flow_vouches_for_the_vni_too() -> None:
    """(B) nf_nat changed the port of an outer that LCO had made, and did not fold it in."""
    packets = (with_error(packet, 0x1A2B) for packet in flow(5, different_lengths=True))
    seen = results(pipeline(), packets)
    assert [result.diagnosis for result in seen] == [Diagnosis.OUTER_WRONG] * 2 + [Diagnosis.OUTER_STALE] * 3
    assert seen[-1].explanation is Explanation.SAME_ERROR


def test_a_repaired_stale_packet_is_right() -> None:
    seeing = pipeline()
    for packet in flow(4):
        broken = bytearray(with_error(packet, 0x0B0B))
        result = seeing.examine(broken, when_ns=SECOND)
        assert (bytes(broken) == packet) == (result.action is Action.REPAIR)
    assert result.action is Action.REPAIR


def test_one_packet_again_and_again_is_no_evidence() -> None:
    packet = with_error(next(flow(1)), 0x1A2B)
    seen = results(pipeline(vnis=VNI_KNOWN), iter([packet] * 10))
    assert {result.diagnosis for result in seen} == {Diagnosis.OUTER_WRONG}


def every_bit(packet: bytes, start: int) -> Iterator[bytes]:
    for bit in range(start * 8, len(packet) * 8):
        damaged = bytearray(packet)
        damaged[bit // 8] ^= 0x80 >> bit % 8
        yield bytes(damaged)


@pytest.mark.parametrize("after_a_good_one", [True, False])
def test_no_single_bit_damage_of_a_healthy_packet_is_ever_laundered(after_a_good_one: bool) -> None:
    """All of them into one memory, which by then knows the VNI: every one keeps its damage."""
    healthy = next(flow(1))
    remembering = pipeline(vnis=VNI_KNOWN)
    if after_a_good_one:
        assert remembering.examine(bytearray(healthy), when_ns=SECOND).diagnosis is Diagnosis.SOUND
    laundered = 0
    for damaged in every_bit(healthy, 20):
        packet = bytearray(damaged)
        laundered += remembering.examine(packet, when_ns=SECOND).action is Action.REPAIR
        assert packet == damaged
    assert laundered == 0


def test_inner_verifies_trades_that_safety_for_the_first_two_packets() -> None:
    """DOMAIN's figure: 135 of 560 single-bit damages of a healthy packet would be laundered on sight."""
    healthy = next(flow(1))
    trusting = pipeline(stale="inner-verifies")
    damages = list(every_bit(healthy, 20))
    laundered = sum(trusting.examine(bytearray(damaged)).action is Action.REPAIR for damaged in damages)
    assert 100 < laundered < len(damages) // 3
    packet = bytearray(with_error(healthy, 0x0101))
    assert trusting.examine(packet).explanation is Explanation.INNER_VERIFIES
    assert packet == healthy


def test_off_explains_nothing() -> None:
    seen = results(pipeline(stale="off", vnis=VNI_KNOWN), (with_field(packet, UDP_FIELD, 0xFFFF) for packet in flow(5)))
    assert {result.diagnosis for result in seen} == {Diagnosis.OUTER_WRONG}


def test_damage_that_repeats_in_a_healthy_flow_stays_unexplained() -> None:
    """A bad memory cell flips the same VNI bit in every tenth packet: the same error each time, and the same field."""
    remembering = pipeline(vnis=VNI_KNOWN)
    for number, packet in enumerate(flow(400)):
        data = bytearray(packet)
        if number % 10 == 9:
            data[32 + 2] ^= 0x40
        result = remembering.examine(data, when_ns=SECOND)
        assert result.diagnosis is (Diagnosis.OUTER_WRONG if number % 10 == 9 else Diagnosis.SOUND)


def test_a_flow_that_nat_begins_to_break_is_explained_in_the_end() -> None:
    remembering = pipeline()
    assert {result.diagnosis for result in results(remembering, flow(1000))} == {Diagnosis.SOUND}
    seen = results(remembering, (with_error(packet, 0x1A2B) for packet in flow(300)))
    assert seen[255].diagnosis is Diagnosis.OUTER_WRONG
    assert {result.diagnosis for result in seen[257:]} == {Diagnosis.OUTER_STALE}


def test_an_accident_that_verifies_costs_a_stale_flow_only_a_few_packets() -> None:
    """One stale packet in 65,536 happens to be right."""
    remembering = pipeline()
    broken = [with_error(packet, 0x1A2B) for packet in flow(30)]
    assert results(remembering, iter(broken[:5]))[-1].diagnosis is Diagnosis.OUTER_STALE
    results(remembering, flow(1))
    assert [result.diagnosis for result in results(remembering, iter(broken[5:15]))] == (
        [Diagnosis.OUTER_WRONG] * 8 + [Diagnosis.OUTER_STALE] * 2
    )


def test_evidence_is_forgotten() -> None:
    remembering = pipeline()
    broken = [with_error(packet, 0x1A2B) for packet in flow(8)]
    assert results(remembering, iter(broken[:3]))[-1].diagnosis is Diagnosis.OUTER_STALE
    later = SECOND * 1000
    assert results(remembering, iter(broken[3:4]), later)[0].diagnosis is Diagnosis.OUTER_WRONG


def test_stale_over_what_has_no_checksum() -> None:
    arp = bytes.fromhex("0001080006040001") + bytes(20)
    packet = encapsulate(vxlan(frame(arp, ethertype=0x0806)))
    result = pipeline(vnis=VNI_KNOWN).examine(bytearray(with_field(packet, UDP_FIELD, 0xFFFF)))
    assert (result.inner, result.diagnosis, result.unverified) == (InnerState.NONE, Diagnosis.OUTER_STALE, True)


def test_a_wrong_inner_is_corrupt_under_any_outer_and_no_evidence() -> None:
    remembering = pipeline(vnis=VNI_KNOWN)
    seen = results(remembering, (with_field(packet, UDP_FIELD, 0xFFFF) for packet in flow(5, "WRONG")))
    assert {result.diagnosis for result in seen} == {Diagnosis.CORRUPT}


def test_many_flows_do_not_displace_each_other_s_evidence() -> None:
    """More VTEP pairs than the table has sets, one behind the other: the oldest evidence makes room."""
    remembering = pipeline()
    three = [with_error(packet, 0x1A2B) for packet in flow(3)]
    for host in range(3000):
        for number, packet in enumerate(three):
            data = bytearray(packet)
            data[14:16] = host.to_bytes(2, "big")  # another VTEP; the error changes with it, by the same amount
            result = remembering.examine(data, when_ns=SECOND)
            assert (result.diagnosis is Diagnosis.OUTER_STALE) == (number == 2), host
