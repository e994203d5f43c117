"""A tally of more senders than it has room for counts every packet, keeps the worst, and stays as small as it is."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.packets import of_vtep, tunnelled

from fixer.datapath.pipeline import Pipeline
from fixer.datapath.result import Result
from fixer.findings.conversations import Fate
from fixer.findings.sender import Door
from fixer.findings.tally import Room, Tally

STATES = ("VERIFIES", "PARTIAL", "WRONG")


@cache
def judged(number: int, state: str = "PARTIAL", vni: int = 7) -> Result:
    packet = bytearray(of_vtep(tunnelled(state, "ZERO"), number))
    packet[32:35] = vni.to_bytes(3, "big")
    return Pipeline(ports=[4789]).examine(packet)


def tally_of(results: list[tuple[Result, int]], room: Room) -> Tally:
    tally = Tally(Door.CAPTURE, room)
    for frame, (result, count) in enumerate(results, 1):
        fate = Fate.NONE if result.diagnosis.name == "SOUND" else Fate.UNKNOWN
        tally.add([(result, None, fate, frame, count)])
    return tally


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from(STATES), st.integers(1, 5)), max_size=80))
def test_every_packet_is_counted_and_no_more_senders_are_kept_than_there_is_room_for(
    sent: list[tuple[int, str, int]],
) -> None:
    room = Room(senders=2, gone=100, vnis=100)
    tally = tally_of([(judged(number, state), count) for number, state, count in sent], room)
    assert len(tally.vteps) <= 4 * room.senders
    assert tally.total.vxlan == sum(count for *_, count in sent)
    assert tally.total.inner["wrong"] == sum(count for _, state, count in sent if state == "WRONG")
    worst, others = tally.worst(room.senders)
    senders = len({number for number, *_ in sent})
    assert others.words == (f"{senders - len(worst)} others" if senders > len(worst) else "")
    assert sum(sender.packets for *_, sender in worst) + others.sender.packets == sum(count for *_, count in sent)
    broken = sum(count for _, state, count in sent if state != "VERIFIES")
    assert others.harm == broken - sum(
        packets.count for *_, sender in worst for row, packets in sender.rows.items() if row.is_broken
    )


def test_who_harms_most_stays_however_many_come_after() -> None:
    flood = [(judged(number, "PARTIAL"), 1) for number in range(100)]
    busy = [(judged(1000 + number, "VERIFIES"), 10_000) for number in range(3)]
    tally = tally_of([(judged(5000), 9), *busy, *flood], Room(2, 1000, 100))
    [(_, _, worst)], others = tally.worst(1)
    assert (worst.packets, others.words, others.harm) == (9, "103 others", 100)


@pytest.mark.parametrize(("gone", "words"), [(1000, "99 others"), (50, "over ")])
def test_who_is_not_kept_apart_is_counted_as_long_as_there_is_room(gone: int, words: str) -> None:
    tally = tally_of([(judged(number), 1) for number in range(100)], Room(2, gone, 100))
    _, others = tally.worst(1)
    assert others.words.startswith(words)
    assert others.sender.packets == 99


def test_vnis_are_told_apart_as_long_as_there_is_room_for_them() -> None:
    tally = tally_of([(judged(1, vni=vni), 1) for vni in range(10)], Room(2, 10, 4))
    [sender] = tally.vteps.values()
    assert (sender.vnis(sender.rows), sender.more_vnis) == ([0, 1, 2, 3], True)
