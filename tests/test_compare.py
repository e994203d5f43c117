"""Two captures of one way: whatever became of a packet between them is told, and nobody is accused of what a capture
cannot have seen."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.crossings import LEFT, MS, NOON, RIGHT, SECOND, Sight, around, inner, tcp, write

from fixer.compare import Comparison, ComparisonObject, as_object, compare
from fixer.config import Settings
from fixer.findings.finding import Verdict
from fixer.findings.legs import Way
from fixer.findings.match import Field, Match

DELAY = 1 * MS
SCHEMA = Path(__file__).parents[1] / "docs" / "compare.schema.json"


def between(left: list[Sight], right: list[Sight], **more: Any) -> Comparison:
    """What is said of two captures, sorted by when their packets came."""
    with TemporaryDirectory() as scratch:
        files = [
            write(Path(scratch) / name, sorted(sights, key=lambda sight: sight.when))
            for name, sights in (("left.pcap", left), ("right.pcap", right))
        ]
        return compare(*files, Settings().overridden(**more))


def crossed(left: list[Sight], right: list[Sight], number: int, when: int, offset: int = 0) -> None:
    """One sound packet there and one back, a delay each."""
    for back in (False, True):
        packet = around(inner(number, b"sound", back=back), back=back)
        here, there = (right, left) if back else (left, right)
        later = when + (offset if back else 0)
        here.append(Sight(later, packet))
        there.append(Sight(when + DELAY + (0 if back else offset), packet))


def framed(offset: int = 0) -> tuple[list[Sight], list[Sight]]:
    """Captures that reach a minute beyond noon on either side, for what happens in between."""
    left: list[Sight] = []
    right: list[Sight] = []
    for number, when in enumerate((NOON - 60 * SECOND, NOON + 60 * SECOND)):
        crossed(left, right, 60000 + number, when, offset)
    return left, right


def counts(comparison: Comparison, way: Way) -> dict[str, int]:
    """What is told of a way, without what is 0; the frame's own packets are not counted."""
    names = ("sent", "arrived", "lost", "unsent", "duplicated", "reordered")
    found = {name: sum(getattr(leg, name) for leg in comparison.told(way)) for name in names}
    found["sent"] -= 2
    found["arrived"] -= 2
    for leg in comparison.told(way):
        found |= {field.name: count for field, count in leg.found["changed"].items()}
        found |= leg.uncounted
    return {name: count for name, count in found.items() if count}


WHAT = ["kept", "kept", "dropped", "damaged", "vni", "ttl", "nat", "twice", "injected"]


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(st.sampled_from(WHAT), st.booleans(), st.booleans()), max_size=40),
    st.integers(-1000 * SECOND, 1000 * SECOND),
)
def test_whatever_happens_to_packets_is_told_exactly(events: list[tuple[str, bool, bool]], offset: int) -> None:
    left, right = framed(offset)
    expected: dict[bool, dict[str, int]] = {False: {}, True: {}}
    for number, (what, back, stream) in enumerate(events, 1):
        header = tcp(sequence=1000 * number, acknowledged=0, flags=0x08) if stream else b""
        payload = b"payload %d" % number
        content = inner(number, payload, back=back, header=header)
        sent = came = around(content, back=back)
        if what == "damaged":
            came = around(inner(number, payload[::-1], back=back, header=header), back=back)
        elif what == "vni":
            came = around(content, back=back, vni=77)
        elif what == "ttl":
            came = around(content, back=back, ttl=63)
        elif what == "nat":
            came = around(content, back=back, vteps=bytes([198, 51, 100, 1]) + (LEFT if back else RIGHT))
        here, there = (right, left) if back else (left, right)
        when = NOON + number * 10 * MS
        sent_at, came_at = when + (offset if back else 0), when + DELAY + (0 if back else offset)
        tally = expected[back]
        if what != "injected":
            here.append(Sight(sent_at, sent))
            tally["sent"] = tally.get("sent", 0) + 1
        if what != "dropped":
            there.append(Sight(came_at, came))
        if what == "twice":
            there.append(Sight(came_at + 1000, came))
        told = {"dropped": ["lost"], "twice": ["arrived", "duplicated"], "injected": ["unsent"]}.get(what, ["arrived"])
        told += {
            "damaged": ["PAYLOAD", "INNER_CHECKSUM"],
            "vni": ["VNI"],
            "ttl": ["OUTER_TTL"],
            "nat": ["OUTER_ADDRESSES"],
        }.get(what, [])
        for name in told:
            tally[name] = tally.get(name, 0) + 1
    comparison = between(left, right)
    for back, way in ((False, Way.THERE), (True, Way.BACK)):
        found = counts(comparison, way)
        for unsure in (found, expected[back]):
            unsure.pop("INNER_CHECKSUM", None)  # two payloads may have one sum
        assert found == expected[back]
    assert comparison.clock is not None
    assert (comparison.clock.offset, comparison.clock.delay) == (offset, DELAY)
    harm = {"dropped", "damaged"} & {what for what, _, _ in events}
    assert (comparison.verdict is Verdict.FAULT) == bool(harm)


@given(st.permutations(range(8)))
@settings(deadline=None, max_examples=40)
def test_who_was_overtaken_is_counted(order: list[int]) -> None:
    left, right = framed()
    for number in range(8):
        packet = around(inner(number + 1, b"x"))
        left.append(Sight(NOON + number, packet))
        right.append(Sight(NOON + DELAY + order.index(number), packet))
    overtaken = sum(any(before > number for before in order[: order.index(number)]) for number in order)
    assert counts(between(left, right), Way.THERE).get("reordered", 0) == overtaken


@given(st.lists(st.booleans(), min_size=1, max_size=30))
@settings(deadline=None, max_examples=60)
def test_of_equal_packets_as_many_are_lost_as_were_dropped(arrives: list[bool]) -> None:
    """Nothing tells them apart: neither an identification nor a number."""
    left, right = framed()
    packet = around(inner(0, b"again"))
    for number, does in enumerate(arrives):
        left.append(Sight(NOON + number * 100 * MS, packet))
        if does:
            right.append(Sight(NOON + number * 100 * MS + DELAY, packet))
    found = counts(between(left, right), Way.THERE)
    assert found.get("arrived", 0) == sum(arrives)
    if any(arrives):
        assert found.get("lost", 0) == arrives.count(False)


def test_a_copy_of_a_capture_has_no_fault(tmp_path: Path) -> None:
    left, _ = framed()
    one = write(tmp_path / "one.pcap", left)
    two = Path(shutil.copy(one, tmp_path / "two.pcap"))
    comparison = compare(one, two, Settings())
    assert comparison.verdict is Verdict.HARMLESS
    assert (comparison.arrived, comparison.uncounted.total()) == (4, 0)


def test_captures_that_have_nothing_in_common_prove_nothing() -> None:
    left = [Sight(NOON + number * MS, around(inner(number, b"one"))) for number in range(9)]
    right = [Sight(NOON + number * MS, around(inner(100 + number, b"two"))) for number in range(9)]
    comparison = between(left, right)
    assert comparison.verdict is Verdict.UNCLEAR
    assert "no packet is in both captures" in comparison.sentences()[2]
    assert not [each for way in Way for each in comparison.remarks(way) if each.verdict is Verdict.FAULT]


def test_an_empty_capture_proves_nothing() -> None:
    left, _ = framed()
    comparison = between(left, [])
    assert comparison.verdict is Verdict.UNCLEAR


def test_what_was_there_outside_of_the_other_captures_time_is_not_lost() -> None:
    left, right = framed()
    for number, when in enumerate((NOON - 61 * SECOND, NOON, NOON + 61 * SECOND), 1):
        left.append(Sight(when, around(inner(number, b"x"))))
    found = counts(between(left, right), Way.THERE)
    assert found == {"sent": 1, "lost": 1, "outside": 2}


def test_a_direction_of_which_nothing_arrives_may_be_filtered() -> None:
    left, right = framed()
    right = [sight for sight in right if sight.packet[26:30] == RIGHT]  # tcpdump src host
    comparison = between(left, right)
    assert comparison.verdict is Verdict.UNCLEAR
    assert [(each.what, each.verdict) for each in comparison.remarks(Way.THERE)] in (
        [("lost", Verdict.UNCLEAR)],
        [],
    )


def test_cut_copies_are_matched_by_their_headers_and_are_not_changed() -> None:
    left, right = framed()
    for number in range(1, 20):
        packet = around(inner(number, bytes(400), header=tcp(number * 400)))
        left.append(Sight(NOON + number * MS, packet))
        right.append(Sight(NOON + number * MS + DELAY, packet, 120))
    comparison = between(left, right)
    assert counts(comparison, Way.THERE) == {"sent": 19, "arrived": 19}
    assert any("19 matched by their headers alone" in note for note in comparison.notes())


def test_captures_of_headers_alone_tell_the_time_as_well() -> None:
    left, right = framed(100 * SECOND)
    left, right = ([sight._replace(cut=90) for sight in side] for side in (left, right))
    comparison = between(left, right)
    assert comparison.clock is not None
    assert (comparison.clock.offset, comparison.clock.delay) == (100 * SECOND, DELAY)
    assert (comparison.arrived, comparison.uncounted.total()) == (4, 0)


def busy_one_way(first: int) -> Comparison:
    """Twenty packets each way, those back behind a full queue, and one back that took only `first` ns."""
    left, right = framed()
    for number in range(20):
        when = NOON + number * SECOND // 10
        left.append(Sight(when, there := around(inner(number, b"asks"))))
        right.append(Sight(when + DELAY, there))
        right.append(Sight(when, back := around(inner(number, b"downloads", back=True), back=True)))
        left.append(Sight(when + (first if number == 10 else 200 * DELAY), back))
    return between(left, right)


def test_a_queue_on_one_way_says_nothing_about_the_clocks() -> None:
    clock = busy_one_way(DELAY).clock
    assert clock is not None
    assert (clock.offset, clock.delay) == (0, DELAY)


def test_a_packet_that_arrived_before_it_was_sent_says_nothing_about_the_clocks() -> None:
    clock = busy_one_way(-50 * DELAY).clock
    assert clock is not None
    assert (clock.offset, clock.delay) == ((DELAY - 200 * DELAY) // 2, (DELAY + 200 * DELAY) // 2)


def test_copies_too_short_to_be_known_again_excuse_as_many() -> None:
    left, right = framed()
    for number in range(1, 20):
        packet = around(inner(number, bytes(400), header=tcp(number * 400)))
        left.append(Sight(NOON + number * MS, packet))
        right.append(Sight(NOON + number * MS + DELAY, packet, 54))
    comparison = between(left, right)
    assert "lost" not in counts(comparison, Way.THERE)
    assert comparison.verdict is not Verdict.FAULT


def merged(state: str = "VERIFIES") -> tuple[list[Sight], list[Sight]]:
    """Ten segments on the left, which are one on the right; and ten the other way round."""
    left, right = framed()
    for back, one, ten in ((False, right, left), (True, left, right)):
        for number in range(10):
            segment = inner(number + 1, b"y" * 100, back=back, header=tcp(1 + 100 * number))
            ten.append(Sight(NOON + number, around(segment, back=back)))
        whole = inner(1, b"y" * 1000, back=back, header=tcp(1), state=state)
        one.append(Sight(NOON + DELAY, around(whole, back=back)))
    return left, right


def test_what_gro_merged_is_neither_lost_nor_sent_by_nobody() -> None:
    comparison = between(*merged("PARTIAL"))
    assert comparison.verdict is Verdict.HARMLESS
    assert "lost" not in counts(comparison, Way.THERE)
    assert any("in other segments" in note for note in comparison.notes())


def test_a_segment_that_is_not_among_what_gro_merged_is_lost() -> None:
    left, right = framed()
    for number in range(10):
        left.append(Sight(NOON + number, around(inner(number + 1, b"y" * 100, header=tcp(1 + 100 * number)))))
    for first, size in ((0, 5), (6, 4)):
        segment = inner(first + 1, b"y" * 100 * size, header=tcp(1 + 100 * first))
        right.append(Sight(NOON + DELAY + first, around(segment)))
    assert counts(between(left, right), Way.THERE) == {"sent": 10, "arrived": 9, "lost": 1}


def test_what_was_acknowledged_was_not_lost_but_missed_by_the_capture() -> None:
    left, right = framed()
    answer = around(inner(9, b"", back=True, header=tcp(1, 101, 0x10, (80, 4000))), back=True)
    left.append(Sight(NOON, around(inner(1, b"y" * 100, header=tcp(1)))))
    right.append(Sight(NOON + DELAY, answer))
    left.append(Sight(NOON + 2 * DELAY, answer))
    found = counts(between(left, right), Way.THERE)
    assert found == {"missed": 1}


def test_what_was_sent_again_and_then_acknowledged_was_lost_once() -> None:
    left, right = framed()
    answer = around(inner(9, b"", back=True, header=tcp(1, 101, 0x10, (80, 4000))), back=True)
    for number in (1, 2):
        packet = around(inner(number, b"y" * 100, header=tcp(1)))
        left.append(Sight(NOON + number, packet))
    right.append(Sight(NOON + DELAY, packet))
    right.append(Sight(NOON + 2 * DELAY, answer))
    left.append(Sight(NOON + 3 * DELAY, answer))
    comparison = between(left, right)
    assert counts(comparison, Way.THERE) == {"sent": 2, "arrived": 1, "lost": 1}
    assert comparison.verdict is Verdict.FAULT


@pytest.mark.parametrize(("shown", "verdict"), [(False, Verdict.UNCLEAR), (True, Verdict.FAULT)])
def test_a_pause_of_the_capture_is_no_loss_but_what_is_missing_between_other_packets_is(
    shown: bool, verdict: Verdict
) -> None:
    left, right = framed()
    for number in range(1, 200):
        packet = around(inner(number, b"x"))
        left.append(Sight(NOON + number * 10 * MS, packet))
        if not 50 < number < 150 or (shown and number % 5 == 0):
            right.append(Sight(NOON + number * 10 * MS + DELAY, packet))
    comparison = between(left, right)
    assert (comparison.verdict is Verdict.FAULT) is shown
    assert counts(comparison, Way.THERE).get("silent", 0) == (0 if shown else 99)


def syns(*, again: bool, answered: bool, state: str = "PARTIAL") -> Comparison:
    left, right = framed()
    for number in range(1 + again):
        packet = around(inner(number + 1, b"", header=tcp(7, 0, 2), state=state))
        left.append(Sight(NOON + number * SECOND, packet))
        right.append(Sight(NOON + number * SECOND + DELAY, packet))
    if answered:
        answer = around(inner(9, b"", back=True, header=tcp(1, 8, 0x12, (80, 4000))), back=True)
        right.append(Sight(NOON + 2 * SECOND, answer))
        left.append(Sight(NOON + 2 * SECOND + DELAY, answer))
    return between(left, right)


@pytest.mark.parametrize(
    ("how", "verdict"),
    [
        ({"again": True, "answered": False}, Verdict.FAULT),
        ({"again": False, "answered": False}, Verdict.UNCLEAR),
        ({"again": False, "answered": True}, Verdict.HARMLESS),
        ({"again": True, "answered": False, "state": "VERIFIES"}, Verdict.HARMLESS),
    ],
)
def test_unfinished_checksums_are_a_fault_if_the_receiver_never_answers(how: dict[str, Any], verdict: Verdict) -> None:
    comparison = syns(**how)
    assert comparison.verdict is verdict
    assert ("ethtool" in comparison.sentences()[2]) is (verdict is Verdict.FAULT)


def test_what_the_nic_finished_on_the_way_is_no_fault() -> None:
    left, right = framed()
    left.append(Sight(NOON, around(inner(1, b"x", state="PARTIAL"))))
    right.append(Sight(NOON + DELAY, around(inner(1, b"x"))))
    comparison = between(left, right)
    assert comparison.verdict is Verdict.HARMLESS
    assert counts(comparison, Way.THERE) == {"sent": 1, "arrived": 1, "INNER_CHECKSUM": 1}


def test_an_outer_checksum_that_went_wrong_behind_a_nat_is_a_fault_of_the_way() -> None:
    left, right = framed()
    before = around(inner(1, b"x"), state="VERIFIES")
    after = bytearray(around(inner(1, b"x"), state="VERIFIES", vteps=bytes([198, 51, 100, 1]) + RIGHT))
    after[40:42] = before[40:42]
    left.append(Sight(NOON, before))
    right.append(Sight(NOON + DELAY, bytes(after)))
    comparison = between(left, right)
    assert comparison.verdict is Verdict.FAULT
    assert [each.what for each in comparison.remarks(Way.THERE)] == ["outer_checksum"]
    assert comparison.told(Way.THERE)[0].found["changed"] == {Field.OUTER_ADDRESSES: 1}


def test_long_packets_that_never_arrive_are_told_by_their_length() -> None:
    left, right = framed()
    for number in range(1, 40):
        packet = around(inner(number, bytes(1400 if number % 2 else 100)))
        left.append(Sight(NOON + number * MS, packet))
        if not number % 2:
            right.append(Sight(NOON + number * MS + DELAY, packet))
    assert "look at the MTU" in between(left, right).sentences()[0]


def test_the_order_of_the_files_does_not_matter_to_who_sent() -> None:
    left, right = framed(5 * SECOND)
    left.append(Sight(NOON, around(inner(1, b"x"))))
    assert counts(between(left, right), Way.THERE) == {"sent": 1, "lost": 1}
    assert counts(between(right, left), Way.BACK) == {"sent": 1, "lost": 1}


def test_a_packet_in_and_out_of_its_tunnel_is_one() -> None:
    left, right = framed()
    content = inner(1, b"x")
    left.append(Sight(NOON, around(content)))
    right.append(Sight(NOON + DELAY, around(content)[:12] + b"\x08\x00" + content))
    comparison = between(left, right, plain=True)
    assert comparison.told(Way.THERE)[0].found["changed"][Field.TUNNEL] == 1


def test_more_packets_than_are_remembered_are_said(tmp_path: Path) -> None:
    match = Match(ports=[4789], most=4)
    assert not match.full(0)
    with pytest.raises(ValueError, match="ports"):
        Match(ports=[])


def test_the_schema_in_the_tree_is_that_of_what_is_printed() -> None:
    assert msgspec.json.decode(SCHEMA.read_bytes()) == msgspec.json.schema(ComparisonObject), (
        "write it again: msgspec.json.format(msgspec.json.encode(msgspec.json.schema(ComparisonObject)))"
    )


@pytest.mark.parametrize("sights", [framed(), merged(), ([], [])], ids=["sound", "merged", "empty"])
def test_what_is_printed_keeps_to_the_schema(sights: tuple[list[Sight], list[Sight]]) -> None:
    printed = msgspec.json.encode(as_object(between(*sights)))
    assert msgspec.json.decode(printed, type=ComparisonObject)
    assert set(msgspec.json.decode(printed)) == set(ComparisonObject.__struct_fields__)
