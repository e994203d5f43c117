"""Events: bounded, limited for each diagnosis and VTEP, and nothing that was left out goes unsaid."""

import threading

import pytest
from scapy.utils import checksum
from support.packets import tunnelled

from fixer.datapath.diagnose import Diagnosis
from fixer.datapath.pipeline import Pipeline
from fixer.datapath.repair import Action
from fixer.datapath.result import Result

SECOND = 1_000_000_000


MADE = {inner: tunnelled(inner, "ZERO") for inner in ("PARTIAL", "WRONG")}


def from_vtep(number: int, inner: str = "PARTIAL") -> bytearray:
    """Of 198.18.x.y."""
    return from_address((0xC6120000 + number).to_bytes(4, "big"), inner)


def from_address(address: bytes, inner: str = "PARTIAL") -> bytearray:
    packet = bytearray(MADE[inner])
    packet[10:16] = bytes(2) + address
    packet[10:12] = checksum(bytes(packet[:20])).to_bytes(2, "big")
    return packet


def test_an_event_has_everything_that_is_told() -> None:
    pipeline = Pipeline(ports=[4789])
    pipeline.examine(bytearray(tunnelled("PARTIAL", "AGREES")), when_ns=5 * SECOND)
    (event,) = pipeline.drain()
    assert event.when_ns == 5 * SECOND
    assert (event.diagnosis, event.action, event.unverified) == (Diagnosis.INNER_UNFINISHED, Action.REPAIR, True)
    assert (event.outer_source, event.outer_destination, event.vni) == ("192.0.2.4", "192.0.2.5", 4097)
    assert (event.outer_source_port, event.outer_destination_port) == (60690, 4789)
    assert (event.inner_source, event.inner_source_port) == ("10.0.1.176", 37648)
    assert (event.inner_destination, event.inner_destination_port) == ("10.0.1.192", 80)
    assert event.inner_found != event.inner_right
    assert event.outer_found == event.outer_right != 0
    assert not event.summary
    assert pipeline.drain() == []


@pytest.mark.parametrize("states", [("VERIFIES", "GOOD"), ("ABSENT", "ZERO")])
def test_a_sound_packet_is_no_event(states: tuple[str, str]) -> None:
    pipeline = Pipeline(ports=[4789])
    pipeline.examine(bytearray(tunnelled(*states, kind="udp")))
    assert pipeline.drain() == []


def test_a_few_a_second_for_each_diagnosis_and_vtep() -> None:
    pipeline = Pipeline(ports=[4789], events_per_second=3)
    for vtep in (1, 2):
        for inner in MADE:
            for _ in range(10):
                pipeline.examine(from_vtep(vtep, inner), when_ns=SECOND)
    events = pipeline.drain()
    assert len(events) == 12
    assert {event.left_out for event in events} == {0}
    pipeline.examine(from_vtep(1), when_ns=2 * SECOND)
    (event,) = pipeline.drain()
    assert (event.left_out, event.outer_source) == (7, "198.18.0.1")
    assert pipeline.counters()["events_left_out"] == 28


def test_what_was_left_out_at_the_end_is_told_at_a_stop() -> None:
    pipeline = Pipeline(ports=[4789], events_per_second=1)
    for _ in range(5):
        pipeline.examine(from_vtep(7), when_ns=SECOND)
    pipeline.drain()
    pipeline.finish(2 * SECOND)
    (event,) = pipeline.drain()
    assert event.summary
    assert (event.left_out, event.diagnosis, event.outer_source) == (4, Diagnosis.INNER_UNFINISHED, "198.18.0.7")


def test_more_vteps_than_there_are_buckets_lose_no_count() -> None:
    pipeline = Pipeline(ports=[4789], events_per_second=1, ring_size=8192)
    for vtep in range(2000):
        for _ in range(3):
            pipeline.examine(from_vtep(vtep), when_ns=SECOND)
    pipeline.finish(2 * SECOND)
    events = pipeline.drain(100_000)
    packets = [event for event in events if not event.summary]
    assert len(packets) + sum(event.left_out for event in events) == 6000


def told_of(events: list[Result]) -> int:
    return sum(not event.summary for event in events)


def test_two_vteps_in_turns_are_told_no_more_than_apart() -> None:
    """With an unseeded FNV 10.9.9.1 and 10.9.8.237 fell into one bucket, and each cleared the other's count."""
    pipeline = Pipeline(ports=[4789], events_per_second=5)
    for _ in range(1000):
        for source in (b"\x0a\x09\x09\x01", b"\x0a\x09\x08\xed"):
            pipeline.examine(from_address(source), when_ns=SECOND)
    assert told_of(pipeline.drain(100_000)) == 10


def test_a_flood_of_spoofed_vteps_is_told_like_twenty_of_them_and_loses_no_count() -> None:
    pipeline = Pipeline(ports=[4789], events_per_second=5, ring_size=8192)
    for second in range(1, 5):
        for vtep in range(5000):
            pipeline.examine(from_vtep(second * 5000 + vtep), when_ns=second * SECOND)
        pipeline.settle(when_ns=second * SECOND + SECOND // 2, uptime=second, all=False)
    pipeline.finish(6 * SECOND)
    events = pipeline.drain(100_000)
    assert 4 * 50 <= told_of(events) <= 4 * 100
    assert len(events) - told_of(events) <= 5 * (20 + 1), "summaries are bounded too"
    assert told_of(events) + sum(event.left_out for event in events) == 20_000


def test_a_rate_of_zero_under_a_flood_is_a_few_counts_a_second() -> None:
    pipeline = Pipeline(ports=[4789], events_per_second=0, ring_size=8192)
    for vtep in range(5000):
        pipeline.examine(from_vtep(vtep), when_ns=SECOND)
    pipeline.finish(2 * SECOND)
    events = pipeline.drain(100_000)
    assert told_of(events) == 0
    assert len(events) <= 21
    assert sum(event.left_out for event in events) == 5000


def test_who_spoke_before_a_flood_is_heard_through_it() -> None:
    pipeline = Pipeline(ports=[4789], events_per_second=5, ring_size=8192)
    for second in range(1, 6):
        for vtep in range(4000 if second > 1 else 0):
            pipeline.examine(from_vtep(second * 4000 + vtep), when_ns=second * SECOND)
        for _ in range(10):
            pipeline.examine(from_vtep(1), when_ns=second * SECOND)
        told = [event for event in pipeline.drain(100_000) if not event.summary and event.outer_source == "198.18.0.1"]
        assert len(told) == 5, f"in second {second}"


def test_a_full_ring_counts_what_it_lost() -> None:
    pipeline = Pipeline(ports=[4789], ring_size=16, events_per_second=1000)
    for _ in range(20):
        pipeline.examine(from_vtep(1), when_ns=SECOND)
    assert pipeline.counters()["events_lost"] == 4
    assert len(pipeline.drain()) == 16
    pipeline.examine(from_vtep(1), when_ns=SECOND)
    assert len(pipeline.drain()) == 1


def test_a_rate_of_zero_tells_nothing() -> None:
    pipeline = Pipeline(ports=[4789], events_per_second=0)
    pipeline.examine(from_vtep(1))
    assert pipeline.drain() == []
    assert pipeline.counters()["events_left_out"] == 1


def test_a_reader_beside_the_writer_sees_every_event_once_and_in_order() -> None:
    pipeline = Pipeline(ports=[4789], ring_size=64, events_per_second=1_000_000)
    seen: list[int] = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            seen.extend(event.when_ns for event in pipeline.drain())

    reader = threading.Thread(target=read)
    reader.start()
    for when in range(20_000):
        pipeline.examine(from_vtep(1), when_ns=when)
    over.set()
    reader.join()
    seen.extend(event.when_ns for event in pipeline.drain())
    assert seen == sorted(set(seen))
    assert len(seen) + pipeline.counters()["events_lost"] == 20_000


def test_the_ring_s_size_is_a_power_of_two() -> None:
    with pytest.raises(ValueError, match="power of two"):
        Pipeline(ports=[4789], ring_size=1000)
