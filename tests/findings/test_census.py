"""A census says what looking at each packet would say, however little it can hold at once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.packets import HOSTS, in_state, segment, talk, tunnelled

from fixer.datapath.pipeline import Pipeline
from fixer.datapath.result import Result
from fixer.findings.census import Census
from fixer.findings.conversations import Fate

COMMON, LARGEST = 1500, 9216
PACKETS = [
    *(tunnelled(inner, outer) for inner in ("VERIFIES", "PARTIAL", "WRONG") for outer in ("GOOD", "ZERO", "WRONG")),
    tunnelled("PARTIAL", "AGREES", inner=6, outer=6),
    tunnelled("ABSENT", "GOOD", "udp"),
    tunnelled("PARTIAL", "PARTIAL", payload=bytes(3000)),
    tunnelled("PARTIAL", "PARTIAL", payload=bytes(10000)),
    tunnelled("VERIFIES", "GOOD", port=53),
    tunnelled("VERIFIES", "GOOD", port=6081),
    tunnelled("VERIFIES", "GOOD")[:40],
    in_state(segment(4, "tcp"), 4, "tcp", "PARTIAL"),
    b"",
    b"\x99",
]
SPOKEN = [
    talk(flags, back, state, kind, port)
    for flags in ("S", "A")
    for back in (False, True)
    for state in ("VERIFIES", "PARTIAL")
    for kind in ("tcp", "udp")
    for port in (4000, 80)  # from port 80 to port 80: only the addresses tell the ends apart
]


def pipeline() -> Pipeline:
    return Pipeline(ports=[4789, 8472, 6784], plain=True, stale="off", events_per_second=0)


def judged(packet: bytes) -> Result:
    return pipeline().examine(bytearray(packet))


def census(**more: int) -> Census:
    return Census(common_mtu=COMMON, largest_mtu=LARGEST, **more)


def kind_of(result: Result, outgoing: bool | None) -> tuple[Any, ...]:
    """Everything that a report tells packets apart by."""
    verdict = (result.diagnosis, result.inner, result.outer, result.reason, result.explanation, result.would)
    if result.outer.name != "NO_TUNNEL" and not result.vxlan:
        return (*verdict, result.unverified)
    source = result.outer_source if result.vxlan else result.inner_source
    return (*verdict, result.unverified, result.vxlan, source, result.vni, outgoing)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(PACKETS + SPOKEN), st.sampled_from([None, False, True])), max_size=80),
    st.sampled_from([1, 2, 16, 1024]),
)
def test_kinds_are_those_of_each_packet(seen: list[tuple[bytes, bool | None]], room: int) -> None:
    expected: Counter[tuple[Any, ...]] = Counter()
    examples: dict[tuple[Any, ...], Result] = {}
    each = pipeline()
    counted: Counter[tuple[Any, ...]] = Counter()
    first: dict[tuple[Any, ...], tuple[int, Result]] = {}
    taken = census(most_kinds=room)

    def drain() -> None:
        for result, outgoing, _, frame, count in taken.drain():
            kind = kind_of(result, outgoing)
            counted[kind] += count
            first[kind] = min(first.get(kind, (frame, result)), (frame, result), key=lambda one: one[0])

    for packet, outgoing in seen:
        result = each.examine(bytearray(packet))
        expected[kind_of(result, outgoing)] += 1
        examples.setdefault(kind_of(result, outgoing), result)
        taken.add(result, outgoing, packet)
        if taken.full:
            drain()
    taken.end()
    drain()
    assert counted == expected
    for kind, result in examples.items():
        for name in ("length", "inner_found", "inner_right", "outer_found", "outer_right", "inner_destination"):
            assert getattr(first[kind][1], name) == getattr(result, name)
    assert (taken.frames, taken.not_ip) == (len(seen), 0)


def test_a_full_census_takes_no_more_until_it_is_drained() -> None:
    taken = census(most_kinds=1)
    result = judged(segment(4, "tcp"))
    assert not taken.full
    taken.add(result, None)
    assert taken.full
    with pytest.raises(BufferError, match="drain"):
        taken.add(result, None)
    (counted,) = taken.drain()
    assert (counted[0].inner_source, counted[1:]) == (HOSTS[4][0], (None, Fate.NONE, 1, 1))
    assert taken.drain() == []
    taken.add(result, None)
    assert (taken.full, taken.frames) == (True, 2)


def test_frames_without_ip_are_only_counted() -> None:
    taken = census()
    taken.add_other()
    assert (taken.frames, taken.not_ip, taken.drain()) == (1, 1, [])


@pytest.mark.parametrize("size", [0, 3, 1 << 31])
def test_a_size_that_is_no_power_of_two(size: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        census(most_kinds=size)
