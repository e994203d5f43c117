"""What the program in the kernel makes of packets, in the kernel: right, or as they were."""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import finishing, oracle, quick
from support.bpf_interpreter import run
from support.packets import encapsulate, frame, in_state, segment, tunnelled, vxlan
from support.quick import Made, packets

from fixer.datapath.pipeline import Pipeline
from fixer.kernel import bpf
from fixer.kernel.finisher import AGREES, ENTRIES, OUTCOMES, PSEUDO, ZERO, Finisher
from fixer.rules import suspects

pytestmark = [pytest.mark.root, pytest.mark.kernels]

KIND = {"ZERO": ZERO, "PARTIAL": PSEUDO, "AGREES": AGREES}
INNER_STATES = ("VERIFIES", "PARTIAL", "LENGTH_0", "WRONG")
OUTER_STATES = ("GOOD", "AGREES", "ZERO", "PARTIAL", "WRONG")


@pytest.fixture
def finisher() -> Iterator[Finisher]:
    if why := finishing.missing():
        pytest.skip(why)
    with Finisher() as found:
        yield found


@pytest.fixture(scope="module")
def shared() -> Iterator[Finisher]:
    """One for many packets, which have no entries in common."""
    if why := finishing.missing():
        pytest.skip(why)
    with Finisher() as found:
        yield found


def left(finisher: Finisher) -> dict[str, int]:
    return {name: count.packets for name, count in finisher.left().items() if count.packets}


def built(kind: str, inner: int, inner_state: str, outer: int, outer_state: str, payload: bytes) -> bytes:
    """As `tunnelled`, many times as quick."""
    packet = quick.made(inner, kind, quick.ADDRESSES[inner], payload, inner_state)
    if outer_state != "AGREES":
        return quick.tunnelled(packet, "VERIFIES" if outer_state == "GOOD" else outer_state, outer)
    whole = quick.tunnelled(quick.made(inner, kind, quick.ADDRESSES[inner], payload, "VERIFIES"), "VERIFIES", outer)
    return whole[: -len(packet)] + packet


@pytest.mark.parametrize("complete", [False, True], ids=["none", "complete"])
@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("inner", [4, 6])
@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_the_matrix(shared: Finisher, kind: str, inner: int, outer: int, complete: bool) -> None:
    """Each inner state under each outer one: what headers alone can tell from damage is finished as the oracle does."""
    if complete and not finishing.knows_complete():
        pytest.skip("this kernel cannot try out a program with CHECKSUM_COMPLETE (6.11)")
    for inner_state, outer_state, size in itertools.product(INNER_STATES, OUTER_STATES, (0, 1, 256, 1237)):
        if kind == "udp" and inner_state == "LENGTH_0":
            continue
        packet = built(kind, inner, inner_state, outer, outer_state, bytes(at * 7 % 251 for at in range(size)))
        finishing.put(shared, finishing.key_of(packet))
        made = finishing.ran(shared, packet, complete=complete)
        if inner_state == "PARTIAL" and outer_state in KIND:
            assert made != packet
            assert made == oracle.judge(packet).mended, (inner_state, outer_state, size)
        else:
            assert made == packet, (inner_state, outer_state, size)


@pytest.mark.parametrize("complete", [False, True], ids=["none", "complete"])
@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("inner", [4, 6])
@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_the_matrix_of_marks(shared: Finisher, kind: str, inner: int, outer: int, complete: bool) -> None:
    """Only over an outer field that is zero or agrees, and on no packet that the device has summed; else as ever."""
    if complete and not finishing.knows_complete():
        pytest.skip("this kernel cannot try out a program with CHECKSUM_COMPLETE (6.11)")
    for inner_state, outer_state, size in itertools.product(INNER_STATES, OUTER_STATES, (0, 1, 256, 1237)):
        if kind == "udp" and inner_state == "LENGTH_0":
            continue
        packet = built(kind, inner, inner_state, outer, outer_state, bytes(at * 7 % 251 for at in range(size)))
        finishing.put(shared, finishing.key_of(packet), marks=True)
        made = finishing.ran(shared, packet, complete=complete)
        if inner_state != "PARTIAL" or outer_state not in KIND:
            assert made == packet, (inner_state, outer_state, size)
        elif complete or outer_state == "PARTIAL":
            assert made == oracle.judge(packet).mended, (inner_state, outer_state, size)
        else:
            assert made == finishing.marked(packet), (inner_state, outer_state, size)


def test_over_an_outer_ffff_it_sums(finisher: Finisher) -> None:
    """The rules look at every ffff: the queue would meet an inner field that is neither right nor unfinished."""
    packet = built("tcp", 4, "PARTIAL", 4, "AGREES", b"payload!")
    source = oracle.add(int.from_bytes(packet[20:22], "big"), int.from_bytes(packet[26:28], "big"))
    packet = oracle.with_field(oracle.with_field(packet, 20, source), 26, 0xFFFF)
    assert oracle.judge(packet).outer == "AGREES"
    finishing.put(finisher, finishing.key_of(packet), marks=True)
    assert finishing.ran(finisher, packet) == oracle.judge(packet).mended


def is_suspect(packet: bytes) -> bool:
    """Whether the rules of ``--scope suspects`` queue it."""
    exemptions = suspects.tunnelled(quick.version_of(packet), 9000, syns=False)
    return not any(all(run(program, packet) for program in each.programs) for each in exemptions)


@settings(max_examples=400, deadline=None)
@given(packets())
def test_any_packet_is_marked_only_where_it_would_be_mended_and_is_no_suspect_then(
    shared: Finisher, made: Made
) -> None:
    packet = made.packet
    if len(packet) < 68:
        return
    key = finishing.key_of(packet)
    finishing.put(shared, key, marks=True)
    after = finishing.ran(shared, packet)
    finishing.put(shared, key, marks=False)
    summed = finishing.ran(shared, packet)
    shared.drop(key)
    if after == packet:
        # Nobody reads the payload, so what happens to be right is not seen.
        assert summed == packet
        return
    expected = oracle.judge(packet)
    if after == summed:
        assert after == expected.mended
        return
    assert after == finishing.marked(packet)
    assert summed == (packet if expected.inner == "VERIFIES" else expected.mended)
    assert not is_suspect(after)


@pytest.mark.parametrize("total", [0xFFDE, 0xFFDF, 0xFFE0, 0xFFFE, 0xFFFF, 1, 32])
@pytest.mark.parametrize("inner", [4, 6])
@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_whatever_the_pseudo_header_sums_to_no_mark_is_a_suspect(
    finisher: Finisher, kind: str, inner: int, total: int
) -> None:
    """Where complements and carries would lie nearest."""
    packet = quick.made(inner, kind, quick.ADDRESSES[inner], b"x", "PARTIAL")
    start, end = quick.ADDRESSES_AT[inner]
    field_at = end + {"tcp": 16, "udp": 6}[kind]
    sum_now = int.from_bytes(packet[field_at : field_at + 2], "big")
    last = int.from_bytes(packet[end - 2 : end], "big")
    addresses = packet[start : end - 2] + oracle.add(last, oracle.add(total, 0xFFFF ^ sum_now)).to_bytes(2, "big")
    packet = quick.made(inner, kind, addresses, b"x", "PARTIAL")
    assert int.from_bytes(packet[field_at : field_at + 2], "big") % 0xFFFF == total % 0xFFFF
    whole = quick.tunnelled(packet)
    assert is_suspect(whole)
    finishing.put(finisher, finishing.key_of(whole), marks=True)
    made = finishing.ran(finisher, whole)
    assert made == finishing.marked(whole) != whole
    assert not is_suspect(made)
    assert finisher.finished(finishing.key_of(whole)) == (1, len(whole))


@pytest.mark.parametrize("outer_state", KIND)
@pytest.mark.parametrize("allowed", [0, ZERO, PSEUDO, AGREES])
def test_only_the_outer_that_was_diagnosed_is_taken(finisher: Finisher, outer_state: str, allowed: int) -> None:
    packet = tunnelled("PARTIAL", outer_state)
    finishing.put(finisher, finishing.key_of(packet), allowed)
    assert (finishing.ran(finisher, packet) != packet) == (allowed == KIND[outer_state])
    assert left(finisher) == ({} if allowed == KIND[outer_state] else {"outer_open": 1})


def test_without_an_entry_nothing_is_touched_and_at_its_deadline_it_is_none(finisher: Finisher) -> None:
    packet = tunnelled("PARTIAL", "ZERO")
    key = finishing.key_of(packet)
    assert finishing.ran(finisher, packet) == packet
    finishing.put(finisher, key, lives=-1)
    assert finishing.ran(finisher, packet) == packet
    assert left(finisher) == {"unknown": 2}
    finishing.put(finisher, key)
    assert finishing.ran(finisher, packet) != packet
    assert finisher.finished(key) == (1, len(packet))
    assert finisher.drop(key) == (1, len(packet))
    assert finishing.ran(finisher, packet) == packet
    finishing.put(finisher, key)
    assert finisher.finished(key) == (0, 0)


@pytest.mark.parametrize("at", [0, 12, 15, 16, 17, 18, 25, 26, 31, 32, 37, 38])
def test_one_bit_of_the_key_is_another_envelope(finisher: Finisher, at: int) -> None:
    packet = tunnelled("PARTIAL", "ZERO")
    key = bytearray(finishing.key_of(packet))
    key[at] ^= 1
    finishing.put(finisher, bytes(key))
    assert finishing.ran(finisher, packet) == packet


def test_one_packet_in_an_interval_is_the_judges(finisher: Finisher) -> None:
    packet = tunnelled("PARTIAL", "ZERO")
    key = finishing.key_of(packet)
    now = time.monotonic_ns()
    finisher.put(key, ZERO, deadline=now + finishing.HOUR, sample=now, interval=10**8)
    made = [finishing.ran(finisher, packet) != packet for _ in range(5)]
    assert made[0] is False
    time.sleep(0.11)
    made += [finishing.ran(finisher, packet) != packet for _ in range(3)]
    assert left(finisher)["sampled"] == made.count(False) >= 2


def test_entries_have_an_end_and_room_is_found_again(finisher: Finisher) -> None:
    keys = [bytes(12) + number.to_bytes(4, "big") + bytes(24) for number in range(ENTRIES + 1)]
    for key in keys[:ENTRIES]:
        finishing.put(finisher, key)
    now = time.monotonic_ns()
    assert not finisher.put(keys[ENTRIES], ZERO, deadline=now, sample=now, interval=1)
    assert len(finisher) == ENTRIES
    finisher.drop(keys[7])
    finishing.put(finisher, keys[ENTRIES])
    assert keys[7] not in finisher
    assert keys[ENTRIES] in finisher


def test_what_somebody_merged_is_left(finisher: Finisher) -> None:
    packet = tunnelled("PARTIAL", "ZERO", payload=bytes(2000))
    finishing.put(finisher, finishing.key_of(packet))
    assert finishing.ran(finisher, packet, gso_size=1000) == packet
    assert left(finisher) == {"merged": 1}


def test_a_checksum_that_happens_to_be_right_stays(finisher: Finisher) -> None:
    """One in 65,536 carries its pseudo-header's sum and is right: here by what its payload lacks."""
    packet = quick.made(4, "tcp", quick.ADDRESSES[4], bytes(2), "PARTIAL")
    layer = oracle.read_ip(packet, 0, len(packet))
    oracle.read_transport(packet, layer)
    lacking = 0xFFFF - oracle.add(layer.pseudo(), oracle.ones_sum(packet[layer.at :]))
    packet = packet[:-2] + struct.pack(">H", lacking)
    assert layer.verifies(packet)
    whole = quick.tunnelled(packet)
    finishing.put(finisher, finishing.key_of(whole))
    assert finishing.ran(finisher, whole) == whole
    assert left(finisher) == {"verifies": 1}


def untouched() -> dict[str, bytes]:
    """Packets that look alike and are not the program's to finish."""
    unfinished = in_state(segment(4, "tcp"), 4, "tcp", "PARTIAL")
    damaged = bytearray(unfinished)
    damaged[8] ^= 1  # the inner header's TTL
    outer = bytearray(tunnelled("PARTIAL", "ZERO"))
    outer[8] ^= 1
    whole = tunnelled("PARTIAL", "ZERO")
    fragment = bytearray(unfinished)
    fragment[6] |= 0x20
    return {
        "inner VLAN": encapsulate(vxlan(frame(unfinished, 7)), "ZERO"),
        "inner padding": encapsulate(vxlan(frame(unfinished, padding=b"123")), "ZERO"),
        "inner header wrong": encapsulate(vxlan(frame(bytes(damaged))), "ZERO"),
        "outer header wrong": bytes(outer),
        "inner fragment": encapsulate(vxlan(frame(bytes(fragment))), "ZERO"),
        "no I flag": encapsulate(vxlan(frame(unfinished), flags=0), "ZERO"),
        "EtherType that contradicts": encapsulate(vxlan(frame(unfinished, ethertype=0x86DD)), "ZERO"),
        "ICMPv6": tunnelled("PARTIAL", "ZERO", "icmp6", 6),
        "outer fragment": bytes([*whole[:6], 0x20, *whole[7:]]),
        "cut short": whole[:-1],
        "UDP length that lies": bytes([*whole[:25], whole[25] - 1, *whole[26:]]),
    }


@pytest.mark.parametrize("name", untouched())
def test_what_is_not_plain_is_left_to_the_queue(finisher: Finisher, name: str) -> None:
    packet = untouched()[name]
    finishing.put(finisher, finishing.key_of(packet))
    assert finishing.ran(finisher, packet) == packet


def test_padding_of_the_underlay_stays(finisher: Finisher) -> None:
    for complete in (False, finishing.knows_complete()):
        packet = tunnelled("PARTIAL", "PARTIAL")
        finishing.put(finisher, finishing.key_of(packet))
        padded = packet + b"\x01\x02\x03"
        assert finishing.ran(finisher, padded, complete=complete) == oracle.judge(packet).mended + b"\x01\x02\x03"


@settings(max_examples=400, deadline=None)
@given(packets(), st.sampled_from([False, False, True]))
def test_any_packet_is_mended_as_the_oracle_does_or_left(shared: Finisher, made: Made, complete: bool) -> None:
    """Whatever it is, cut, padded, damaged: with an entry for just its envelope."""
    packet = made.packet
    if len(packet) < 68:
        return
    key = finishing.key_of(packet)
    finishing.put(shared, key)
    after = finishing.ran(shared, packet, complete=complete and finishing.knows_complete())
    shared.drop(key)
    expected = oracle.judge(packet)
    if after != packet:
        assert expected.action == "REPAIR"
        assert expected.inner == "PARTIAL"
        assert expected.outer in ("ZERO", "ZERO6", "AGREES", "PARTIAL", "GOOD")
        assert after == expected.mended
    if expected.inner in ("VERIFIES", "WRONG") or expected.diagnosis == "CORRUPT":
        assert after == packet


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=14, max_size=200), st.booleans())
def test_any_bytes_are_left(shared: Finisher, frame_of_any: bytes, is_ip: bool) -> None:
    whole = frame_of_any[:12] + b"\x08\x00" + frame_of_any[14:] if is_ip else frame_of_any
    try:
        found = bpf.try_out(shared.program, whole)
    except OSError:  # this kernel does not try out frames so short, or of no protocol
        return
    assert found.packet == whole


def test_the_pipeline_tells_of_an_envelope_what_the_program_wants(finisher: Finisher) -> None:
    """From the third packet on, four times a second, with the outer that it showed; and the program takes it so."""
    path = Pipeline(ports=[4789])
    path.want_unfinished(True)
    for outer, outer_state in itertools.product((4, 6), KIND):
        packet = tunnelled("PARTIAL", outer_state, outer=outer)
        told = []
        for number in range(12):
            path.examine(bytearray(packet), when_ns=10**18 + number * 10**8)
            told += path.take_unfinished()
        assert 3 <= len(told) <= 5
        assert set(told) == {(finishing.key_of(packet), KIND[outer_state])}
        finishing.put(finisher, *told[0])
        assert finishing.ran(finisher, packet) == oracle.judge(packet).mended
        finisher.drop(told[0][0])


@pytest.mark.parametrize(
    ("inner_state", "outer_state", "skb_info", "more"),
    [
        ("VERIFIES", "ZERO", 0, {}),
        ("PARTIAL", "GOOD", 0, {}),
        ("PARTIAL", "WRONG", 0, {}),
        ("WRONG", "ZERO", 0, {}),
        ("PARTIAL", "ZERO", 1, {}),
        ("PARTIAL", "ZERO", 0, {"monitor": True}),
        ("PARTIAL", "ZERO", 0, {"actions": {"inner_unfinished": "pass"}}),
    ],
)
def test_the_pipeline_tells_of_nothing_else(
    inner_state: str, outer_state: str, skb_info: int, more: dict[str, object]
) -> None:
    path = Pipeline(ports=[4789], **more)  # type: ignore[arg-type]
    path.want_unfinished(True)
    for number in range(20):
        path.examine(bytearray(tunnelled(inner_state, outer_state)), skb_info=skb_info, when_ns=number * 10**9)
    assert path.take_unfinished() == []


def test_nobody_is_told_who_did_not_ask() -> None:
    path = Pipeline(ports=[4789])
    for number in range(20):
        path.examine(bytearray(tunnelled("PARTIAL", "ZERO")), when_ns=number * 10**9)
    assert path.take_unfinished() == []


def test_every_outcome_is_counted_with_its_name(finisher: Finisher) -> None:
    assert tuple(finisher.left()) == OUTCOMES
    assert set(left(finisher)) == set()
