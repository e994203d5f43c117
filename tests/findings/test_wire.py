"""On the wire: what the packet path tells, what is concluded of it, and what is forgotten."""

from __future__ import annotations

import gc
import sys
from collections import Counter

import pytest
from support.packets import encapsulate, frame, in_state, of_vtep, segment, tunnelled, vxlan

from fixer.datapath.pipeline import Pipeline
from fixer.findings.finding import Finding, Place, Role, Verdict
from fixer.findings.ledger import Ledger
from fixer.findings.lifecycle import CLOSE_SECONDS
from fixer.findings.wire import Wire, watch
from fixer.now import Now

SECOND = 1_000_000_000
BEGAN = 1_700_000_000 * SECOND
UNFINISHED = tunnelled("PARTIAL", "AGREES")
SOUND = tunnelled("VERIFIES", "GOOD")
CORRUPT = tunnelled("WRONG", "GOOD")


class Site:
    """A packet path that is watched, and its clock."""

    def __init__(self, *, monitor: bool = False, plain: bool = False) -> None:
        self.pipeline = Pipeline(ports=[4789], monitor=monitor, plain=plain, seed=1)
        [self.ledger] = watch([self.pipeline])
        self.wire = Wire([self.ledger], monitor=monitor)
        self.second = 0.0

    def put(self, *packets: bytes) -> list[bytes]:
        """Each through the packet path; as they leave."""
        left = [bytearray(packet) for packet in packets]
        for packet in left:
            self.pipeline.examine(packet, when_ns=self.now)
        return [bytes(packet) for packet in left]

    @property
    def now(self) -> int:
        return BEGAN + int(self.second * SECOND)

    def later(self, seconds: float = 1) -> list[Finding]:
        self.second += seconds
        self.pipeline.settle(self.now, 0, False)
        return self.found()

    def found(self) -> list[Finding]:
        return self.wire.findings(Now(self.second, self.now))


def test_nothing_is_found_in_what_is_sound() -> None:
    site = Site()
    site.put(*[SOUND] * 100)
    assert site.later() == []
    assert site.ledger.drain() == []


def test_what_is_unfinished_is_a_fault_of_its_vtep_which_is_repaired_here() -> None:
    site = Site()
    site.put(SOUND, UNFINISHED, UNFINISHED, SOUND)
    [found] = site.later()
    assert (found.who, found.role, found.cause, found.verdict) == (
        "192.0.2.4",
        Role.VTEP,
        "unfinished",
        Verdict.FAULT,
    )
    assert (found.packets, found.of, found.vnis, found.taken) == (2, 3, (4097,), Place.RECEIVER)
    assert found.text == (
        "VTEP 192.0.2.4 sends unfinished inner checksums (VNI 4097) in 2 of 3 packets; receivers discard such. Cure, "
        "on its host: `ethtool -K DEV tx-checksum-ip-generic off` for its NIC. Until then, `fixer run` repairs them "
        "here."
    )


def test_what_is_found_stays_found_and_grows() -> None:
    site = Site()
    site.put(UNFINISHED)
    assert [each.packets for each in site.later()] == [1]
    assert [each.packets for each in site.later()] == [1]
    site.put(UNFINISHED, UNFINISHED)
    assert [each.packets for each in site.later()] == [3]


def test_who_only_watches_says_so() -> None:
    site = Site(monitor=True)
    site.put(UNFINISHED)
    [found] = site.later()
    assert found.verdict is Verdict.FAULT
    assert found.text.endswith("Until then `fixer run` can repair them here; as it is set up, it only watches.")


def test_what_is_sent_again_is_said_and_that_nobody_answered_is_not() -> None:
    """Answers leave this host, and do not pass the queue."""
    for monitor, words in ((False, "sent again though repaired (is the way back broken, too?)"), (True, "sent again")):
        site = Site(monitor=monitor)
        for _ in range(4):
            site.put(UNFINISHED)
            site.later(3)
        [found] = site.later(60)
        assert f", 4 of them {words}; " in found.text
        assert "answered" not in found.text
        assert ("sent again", 4, 0) in found.evidence


def test_that_it_was_accepted_excuses_what_passed_as_it_came_and_not_what_was_repaired() -> None:
    asked = in_state(segment(4, "udp"), 4, "udp", "PARTIAL")
    sound = segment(4, "udp")
    answer = sound[:12] + sound[16:20] + sound[12:16] + sound[22:24] + sound[20:22] + sound[24:]
    for monitor in (False, True):
        site = Site(plain=True, monitor=monitor)
        site.put(asked)
        assert [each.verdict for each in site.later()] == [Verdict.FAULT]
        site.put(answer)
        found = site.later()
        if monitor:
            assert found == [], "this host takes it as it comes"
        else:
            assert [each.verdict for each in found] == [Verdict.FAULT]
            assert ("acknowledged or answered by the other side", 1, 0) in found[0].evidence


def test_corrupt_and_plain_packets_have_the_words_of_scan() -> None:
    site = Site(plain=True)
    site.put(CORRUPT, in_state(segment(4, "tcp"), 4, "tcp", "PARTIAL"))
    corrupt, plain = sorted(site.later(), key=lambda each: each.cause)
    assert corrupt.text.startswith("VTEP 192.0.2.4: the one packet corrupt: `fixer run` drops such.")
    assert (plain.role, plain.cause) == (Role.HOST, "unfinished")
    assert " sends unfinished checksums in the one packet;" in plain.text


def test_two_paths_are_one_wire() -> None:
    pipelines = [Pipeline(ports=[4789]) for _ in range(2)]
    wire = Wire(watch(pipelines), monitor=False)
    for pipeline in pipelines:
        pipeline.examine(bytearray(UNFINISHED), when_ns=BEGAN)
        pipeline.settle(BEGAN + SECOND, 0, False)
    assert [each.packets for each in wire.findings(Now(1, BEGAN))] == [2]


def test_what_is_forgotten_is_counted_anew_and_the_rest_stays() -> None:
    site = Site()
    site.put(UNFINISHED, UNFINISHED, CORRUPT)
    found = {each.cause: each for each in site.later()}
    site.wire.forget(found["unfinished"])
    assert [each.cause for each in site.later()] == ["corrupt"]
    site.put(UNFINISHED)
    assert {each.cause: each.packets for each in site.later()} == {"corrupt": 1, "unfinished": 1}
    site.wire.forget(site.later()[0])
    site.wire.forget(site.later()[0])
    assert site.later(60) == []


def test_a_sender_is_forgotten_five_minutes_after_its_last_whether_it_was_told_or_not() -> None:
    """Or else what a flood left behind would be opened, a screenful at a time, long after it."""
    site = Site()
    for number in range(100):
        site.put(of_vtep(CORRUPT, number))
    site.later()
    assert {each.cause for each in site.later()} == {"corrupt", "others"}
    site.later(200)
    site.put(UNFINISHED)
    assert len(site.later()) > 60
    assert [each.cause for each in site.later(CLOSE_SECONDS - 150)] == ["unfinished"]


def test_another_mode_begins_anew() -> None:
    site = Site()
    site.put(UNFINISHED)
    assert site.later()
    site.wire.monitor = False
    assert site.found()
    site.wire.monitor = True
    site.put(UNFINISHED)
    [found] = site.later()
    assert found.packets == 1


def test_samples_are_the_packets_as_they_came_and_as_they_left() -> None:
    site = Site()
    mended = site.put(UNFINISHED, CORRUPT)[0]
    taken = {result.diagnosis.name: (came, left) for result, came, left in site.ledger.take_samples()}
    assert taken == {"INNER_UNFINISHED": (UNFINISHED, mended), "CORRUPT": (CORRUPT, None)}
    assert mended != UNFINISHED
    assert site.ledger.take_samples() == []


def test_samples_wait_for_who_takes_them_and_of_each_kind_there_are_ten() -> None:
    site = Site()
    site.put(*[UNFINISHED] * 50)
    assert len(site.ledger.take_samples()) == 8, "as many as there is room for"
    site.put(*[UNFINISHED] * 50)
    assert len(site.ledger.take_samples()) == 2
    site.put(*[UNFINISHED] * 50, CORRUPT)
    assert [result.diagnosis.name for result, _, _ in site.ledger.take_samples()] == ["CORRUPT"]


def test_a_packet_longer_than_a_jumbo_frame_is_cut() -> None:
    long = encapsulate(vxlan(frame(in_state(segment(4, "tcp", payload=bytes(20_000)), 4, "tcp", "WRONG"))))
    site = Site()
    site.put(long)
    [(result, came, _left)] = site.ledger.take_samples()
    assert came == long[:9216]
    assert result.length == len(long)


def test_a_flood_of_spoofed_senders_does_not_hide_who_is_there_all_the_time() -> None:
    site = Site()
    for second in range(3):
        for number in range(3000):
            site.put(of_vtep(CORRUPT, second * 3000 + number))
            if number % 1000 == 500:
                site.put(UNFINISHED)
        found = site.later()
    [ours] = [each for each in found if each.who == "192.0.2.4"]
    assert ours.packets == 9
    assert len(found) <= 65
    assert site.ledger.left_out > 0
    [others] = [each for each in found if each.cause == "others"]
    assert others.who.endswith(" others")


def test_an_hour_of_one_broken_sender_takes_no_more_room_than_ten_minutes() -> None:
    site = Site()

    def seconds(number: int) -> int:
        for _ in range(number):
            site.put(UNFINISHED, CORRUPT)
            site.later()
        gc.collect()
        return sys.getallocatedblocks()

    first = seconds(600)
    assert seconds(3000) - first < 100


def test_the_table_of_kinds_has_room_again_after_a_turn() -> None:
    ledger = Ledger(common_mtu=1500, largest_mtu=9216, most_kinds=64, most_conversations=64, most_waiting=64)
    pipeline = Pipeline(ports=[4789], seed=1)
    ledger.watch(pipeline)
    told: Counter[str] = Counter()
    for second in range(20):
        for number in range(30):
            pipeline.examine(bytearray(of_vtep(CORRUPT, number * 7 + second)), when_ns=BEGAN + second * SECOND)
        pipeline.settle(BEGAN + second * SECOND, 0, False)
        for result, outgoing, _fate, frame_number, count in ledger.drain():
            assert outgoing is False
            assert frame_number == 0
            told[result.outer_source] += count
    assert told.total() + ledger.left_out == 600
    assert told.total() > 300, "64 at the most, were there no room again"


def test_what_is_not_drained_is_not_lost() -> None:
    site = Site()
    for _ in range(5):
        site.put(UNFINISHED)
        site.second += 1
        site.pipeline.settle(site.now, 0, False)
    first = sum(count for *_, count in site.ledger.drain())
    site.pipeline.settle(site.now, 0, False)
    assert first + sum(count for *_, count in site.ledger.drain()) == 5


@pytest.mark.parametrize(("quiet", "told"), [(30, 1), (1300, 0)])
def test_who_was_followed_is_followed_for_some_minutes_and_then_left_alone(quiet: int, told: int) -> None:
    site = Site()
    site.put(UNFINISHED)
    site.later()
    for _ in range(quiet // 10):
        site.later(10)
    site.put(SOUND)
    site.second += 1
    site.pipeline.settle(site.now, 0, False)
    assert sum(count for *_, count in site.ledger.drain()) == told
    site.put(UNFINISHED)
    before = site.later()[0].of
    site.put(SOUND)
    assert site.later()[0].of == before + 1, "as soon as it has sent something again"
