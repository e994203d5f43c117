"""A census says what looking at each packet would say, however little it can hold at once.

The twin here looks at each packet and keeps everything, in plain Python.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import UDP
from scapy.packet import Raw
from support.packets import HOSTS, in_state, ip, pseudo_sum, segment, talk, tunnelled, with_field

from fixer.datapath.pipeline import Pipeline
from fixer.datapath.result import Result
from fixer.findings.census import Census

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
    lengths = (result.length > COMMON, result.length > LARGEST)
    return (*verdict, result.unverified, result.vxlan, source, result.vni, outgoing, lengths)


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
    first: dict[tuple[Any, ...], Result] = {}
    taken = census(most_kinds=room)

    def drain() -> None:
        for result, outgoing, count in taken.drain():
            kind = kind_of(result, outgoing)
            counted[kind] += count
            first.setdefault(kind, result)

    for packet, outgoing in seen:
        result = each.examine(bytearray(packet))
        expected[kind_of(result, outgoing)] += 1
        examples.setdefault(kind_of(result, outgoing), result)
        taken.add(result, outgoing)
        if taken.full:
            drain()
    drain()
    assert list(counted.items()) == list(expected.items())  # in the order in which they came
    for kind, result in examples.items():
        for name in ("length", "inner_found", "inner_right", "outer_found", "outer_right", "inner_destination"):
            assert getattr(first[kind], name) == getattr(result, name)
    assert (taken.frames, taken.not_ip) == (len(seen), 0)


class Twin:
    """Who of a conversation sends unfinished segments, and who answers them: everything kept, nothing clever."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.conversations: dict[Any, list[tuple[Any, Any, str, bool]]] = {}

    def add(self, result: Result) -> None:
        if result.inner.name not in ("PARTIAL", "VERIFIES") or result.inner_protocol not in (6, 17):
            return
        here = (result.inner_source, result.inner_source_port)
        there = (result.inner_destination, result.inner_destination_port)
        key = frozenset([here, there]), result.inner_protocol
        if key not in self.conversations and len(self.conversations) == self.most:
            return
        sender = (result.vxlan, result.outer_source if result.vxlan else result.inner_source)
        spoken = self.conversations.setdefault(key, [])
        spoken.append((here, sender, result.inner.name, bool(result.inner_tcp_flags & 0x10)))

    def answers(self) -> dict[Any, tuple[int, int]]:
        found: dict[Any, tuple[int, int]] = {}
        for (ends, protocol), spoken in self.conversations.items():
            for end in ends:
                mine = [state for here, _, state, _ in spoken if here == end]
                others = [state for here, _, state, _ in spoken if here != end]
                unfinished = mine.count("PARTIAL")
                if not unfinished:
                    continue
                asked = next(n for n, (here, _, state, _) in enumerate(spoken) if (here, state) == (end, "PARTIAL"))
                began = spoken[0][0] == end
                is_answered = any(
                    here != end and state == "VERIFIES" and (acknowledges if protocol == 6 else began)
                    for here, _, state, acknowledges in spoken[asked:]
                )
                good = is_answered and "PARTIAL" not in others and unfinished > mine.count("VERIFIES")
                sender = next(sender for here, sender, *_ in spoken if here == end)
                answered, unanswered = found.get(sender, (0, 0))
                found[sender] = (answered + unfinished, unanswered) if good else (answered, unanswered + unfinished)
        return found


@settings(deadline=None)
@given(st.lists(st.sampled_from(SPOKEN + PACKETS), max_size=60), st.sampled_from([1, 2, 64]))
def test_answers_are_those_of_whole_conversations(seen: list[bytes], most: int) -> None:
    each, twin, taken = pipeline(), Twin(most), census(most_conversations=most)
    for packet in seen:
        result = each.examine(bytearray(packet))
        twin.add(result)
        taken.add(result, None)
    assert taken.answers() == twin.answers()


def test_only_unmarked_packets_are_followed() -> None:
    for outgoing, followed in ((None, True), (False, False), (True, False)):
        taken = census()
        taken.add(judged(talk("A", False, "PARTIAL")), outgoing)
        assert bool(taken.answers()) is followed


def test_who_talks_to_itself_does_not_answer_itself() -> None:
    taken = census()
    myself = {4: (HOSTS[4][0], HOSTS[4][0])}
    finished = bytes(ip(4, myself) / UDP(sport=7, dport=7) / Raw(b"x"))
    unfinished = with_field(finished, 26, pseudo_sum(4, 17, len(finished) - 20, myself))
    for packet in (unfinished, unfinished, finished):
        taken.add(judged(packet), None)
    assert taken.answers() == {(False, HOSTS[4][0]): (0, 2)}


def test_a_full_census_takes_no_more_until_it_is_drained() -> None:
    taken = census(most_kinds=1)
    result = judged(segment(4, "tcp"))
    assert not taken.full
    taken.add(result, None)
    assert taken.full
    with pytest.raises(BufferError, match="drain"):
        taken.add(result, None)
    (counted,) = taken.drain()
    assert (counted[0].inner_source, counted[1:]) == (HOSTS[4][0], (None, 1))
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
