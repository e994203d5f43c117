"""The queue's parsing and verdicts without root: a datagram socketpair stands in for the kernel's nfnetlink socket."""

import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.netlink import (
    ERROR,
    NFGEN_HEADER,
    NLMSG_HEADER,
    NUMBER,
    PACKET,
    Verdict,
    arrival,
    attribute,
    message,
    sequence_of,
    verdicts,
)
from support.packets import tunnelled

from fixer.datapath.pipeline import Pipeline
from fixer.nfqueue.queue import Queue

DROP, ACCEPT = 0, 1
GSO = 2
CFG_MASK, CFG_FLAGS, GSO_FLAG = 4, 5, 4

GOOD = tunnelled("VERIFIES", "GOOD")
BROKEN = tunnelled("PARTIAL", "AGREES")
CORRUPT = tunnelled("WRONG", "GOOD")


class Kernel:
    """A mock of the kernel's end: what it sends is queued before the reader starts, so that batches are full."""

    def __init__(self, **settings: object) -> None:
        self.end, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            for each in (self.end, ours):
                each.setsockopt(socket.SOL_SOCKET, option, 8 << 20)
        self.ours = ours
        self.pipeline = Pipeline(ports=[4789], **settings)
        self.queue = Queue(self.pipeline, NUMBER, fd=ours.fileno())

    def __enter__(self) -> "Kernel":
        return self

    def __exit__(self, *_: object) -> None:
        self.end.close()
        self.ours.close()

    def answers(self, *messages: bytes) -> list[Verdict]:
        """Send, let the queue run until it has stopped, and return its verdicts in order. (Such a socket holds few.)"""
        self.end.setblocking(False)
        self.datagrams: list[bytes] = []
        server = threading.Thread(target=self.queue.run)
        pending = list(messages)
        for _ in range(min(len(pending), self.backlog())):
            self.end.send(pending.pop(0))
        server.start()
        deadline = time.monotonic() + 10
        while pending or self.waiting():
            assert time.monotonic() < deadline, "the queue stopped reading"
            self.collect()
            try:
                while pending:
                    self.end.send(pending[0])
                    pending.pop(0)
            except BlockingIOError:
                time.sleep(0.001)
        self.queue.stop()
        server.join(10)
        assert not server.is_alive()
        self.collect()
        return [verdict for datagram in self.datagrams for verdict in verdicts(datagram)]

    def backlog(self) -> int:
        return int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())

    def waiting(self) -> bool:
        """Whether the queue still has something to read."""
        try:
            self.ours.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        return True

    def collect(self) -> None:
        while True:
            try:
                self.datagrams.append(self.end.recv(1 << 20))
            except BlockingIOError:
                return


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel() as made:
        yield made


def test_untouched_packets_of_a_batch_are_one_verdict(kernel: Kernel) -> None:
    found = kernel.answers(*(arrival(number, GOOD) for number in range(1, 9)))
    assert all(each.batch and each.verdict == ACCEPT and each.payload is None for each in found)
    assert found[-1].packet == 8
    assert len(found) < 8
    assert kernel.queue.counters()["received"] == 8


def test_a_changed_packet_goes_alone_and_behind_what_came_before_it(kernel: Kernel) -> None:
    sent = [GOOD, GOOD, BROKEN, GOOD, BROKEN, BROKEN, GOOD]
    found = kernel.answers(*(arrival(number, packet) for number, packet in enumerate(sent, 1)))
    assert [each.packet for each in found] == sorted(each.packet for each in found)
    changed = {each.packet: each for each in found if not each.batch}
    assert set(changed) == {3, 5, 6}
    for each in changed.values():
        assert each.verdict == ACCEPT
        assert each.payload == tunnelled("VERIFIES", "GOOD")
    assert found[-1] == Verdict(True, ACCEPT, 7, None)


def test_a_corrupt_packet_is_dropped_and_takes_nothing_with_it(kernel: Kernel) -> None:
    found = kernel.answers(arrival(1, GOOD), arrival(2, CORRUPT), arrival(3, GOOD))
    assert Verdict(False, DROP, 2, None) in found
    assert [each.packet for each in found] == [1, 2, 3]
    assert [each.batch for each in found] == [True, False, True]


def test_a_batch_verdict_never_covers_a_packet_that_is_to_be_dropped_or_changed(kernel: Kernel) -> None:
    rng = random.Random(1)
    sent = [rng.choice([GOOD, BROKEN, CORRUPT]) for _ in range(400)]
    found = kernel.answers(*(arrival(number, packet) for number, packet in enumerate(sent, 1)))
    decided: dict[int, Verdict] = {}
    for each in found:
        covered = range(max(decided, default=0) + 1, each.packet + 1) if each.batch else [each.packet]
        for number in covered:
            assert number not in decided
            decided[number] = each
    assert sorted(decided) == list(range(1, 401))
    for number, packet in enumerate(sent, 1):
        each = decided[number]
        assert (each.verdict == DROP) == (packet is CORRUPT)
        assert (each.payload is not None) == (packet is BROKEN)


def test_a_batch_of_changed_jumbo_packets_is_split_below_the_send_buffer(kernel: Kernel) -> None:
    """64 of 9,018 bytes are more than one send may carry: EMSGSIZE would lose the verdicts of all."""
    jumbo = tunnelled("PARTIAL", "AGREES", payload=bytes(8_900))
    found = kernel.answers(*(arrival(number, jumbo) for number in range(1, 65)))
    assert [each.packet for each in found] == list(range(1, 65))
    assert all(each.payload and len(each.payload) == len(jumbo) for each in found)
    assert max(map(len, kernel.datagrams)) <= 65_536
    assert kernel.queue.counters()["unsent"] == 0


@pytest.mark.parametrize("missing", [1, 1000])
def test_a_truncated_copy_is_never_given_back(kernel: Kernel, missing: int) -> None:
    found = kernel.answers(arrival(1, BROKEN, len(BROKEN) + missing), arrival(2, BROKEN[:60], len(BROKEN)))
    assert {each.payload for each in found} == {None}
    assert {each.verdict for each in found} == {ACCEPT}
    assert kernel.queue.counters()["truncated"] == 2


def test_a_packet_without_a_payload_passes(kernel: Kernel) -> None:
    assert kernel.answers(arrival(1, None)) == [Verdict(True, ACCEPT, 1, None)]


def test_the_longest_copy_there_is(kernel: Kernel) -> None:
    packet = tunnelled("PARTIAL", "AGREES", payload=bytes(65_350))
    (only,) = kernel.answers(arrival(1, packet))
    assert only.payload is not None
    assert len(only.payload) == len(packet)


def test_the_kernel_s_word_on_a_packet_is_heard(kernel: Kernel) -> None:
    (only,) = kernel.answers(arrival(1, BROKEN, info=GSO))
    assert only == Verdict(True, ACCEPT, 1, None)
    assert kernel.pipeline.counters()["reason"]["super_packet"] == 1


@pytest.mark.parametrize("error", [-(2**31), 2**31 - 1, -4096, 1])
def test_an_answer_that_is_no_error_number_harms_nothing(kernel: Kernel, error: int) -> None:
    """Found by the fuzzer: the smallest of all has no positive counterpart."""
    answer = message(ERROR, struct.pack("=i", error) + bytes(16), sequence=7)
    assert [each.packet for each in kernel.answers(answer, arrival(1, GOOD))] == [1]
    assert kernel.queue.counters()["refused"] == 0


def test_a_refused_verdict_is_counted(kernel: Kernel) -> None:
    refusal = message(ERROR, struct.pack("=i", -2) + bytes(16))
    assert [each.packet for each in kernel.answers(refusal, arrival(1, GOOD), refusal)] == [1]
    assert kernel.queue.counters()["refused"] == 2


@pytest.mark.parametrize(
    "garbage", [b"", b"x", bytes(15), bytes(19), message(0x0999, bytes(4)), message(PACKET, bytes(4)), b"\xff" * 64]
)
def test_garbage_is_counted_and_answered_with_nothing(kernel: Kernel, garbage: bytes) -> None:
    found = kernel.answers(garbage, arrival(1, GOOD))
    assert [each.packet for each in found] == [1]
    assert kernel.queue.counters()["unreadable"] == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=120), max_size=8))
def test_no_bytes_make_it_stop(garbage: list[bytes]) -> None:
    with Kernel() as kernel:
        body = [message(PACKET, each) for each in garbage]
        found = kernel.answers(*garbage, *body, arrival(99, GOOD))
        assert found[-1].packet == 99


def test_a_verdict_that_could_not_be_sent_is_owed_and_no_packet_waits_for_ever(kernel: Kernel) -> None:
    """The kernel takes nothing for a while; then even who was to be mended passes, as it was."""
    kernel.ours.setblocking(False)  # sendmsg is refused with EAGAIN where it would wait
    kernel.end.setblocking(False)
    serving = threading.Thread(target=kernel.queue.run)
    serving.start()
    try:
        last, deadline = 0, time.monotonic() + 60
        while kernel.queue.counters()["unsent"] < 3:
            assert time.monotonic() < deadline
            last += 1
            kernel.end.send(arrival(last, BROKEN))
            while kernel.queue.counters()["received"] < last:
                time.sleep(0.001)
        kernel.datagrams = []
        owed = Verdict(True, ACCEPT, last, None)
        while owed not in [each for datagram in kernel.datagrams for each in verdicts(datagram)]:
            assert time.monotonic() < deadline, "the last packet waits still"
            kernel.collect()
            time.sleep(0.01)
    finally:
        kernel.queue.stop()
        serving.join()


def test_a_stop_answers_what_is_held() -> None:
    with Kernel() as kernel:
        for number in range(1, kernel.backlog() + 1):
            kernel.end.send(arrival(number, BROKEN if number % 2 else GOOD))
        kernel.queue.stop()
        assert {each.packet for each in kernel.answers()} >= set(range(1, kernel.backlog(), 2))
        assert kernel.queue.counters()["received"] == kernel.backlog()


def test_counters_can_be_read_while_it_runs(kernel: Kernel) -> None:
    seen: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            seen.append(kernel.queue.counters()["received"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    kernel.answers(*(arrival(number, GOOD) for number in range(1, 500)))
    over.set()
    watcher.join()
    assert seen == sorted(seen)
    assert kernel.queue.counters()["received"] == 499


@pytest.mark.parametrize(("errno", "granted"), [(0, True), (95, False)])
def test_a_flag_that_the_kernel_refuses_is_done_without(kernel: Kernel, errno: int, granted: bool) -> None:
    """EOPNOTSUPP, from a kernel before 3.10 for GSO; a packet that comes in before the answer is served."""
    asked: list[bytes] = []

    def answer() -> None:
        asked.append(kernel.end.recv(1 << 16))
        kernel.end.send(arrival(1, GOOD))
        kernel.end.send(message(ERROR, struct.pack("=i", -errno) + asked[0][:NLMSG_HEADER], sequence_of(asked[0])))

    answering = threading.Thread(target=answer)
    answering.start()
    assert kernel.queue.configure_flag(GSO_FLAG) is granted
    answering.join()
    flags, mask = struct.pack("!I", GSO_FLAG), struct.pack("!I", GSO_FLAG)
    assert asked[0][NLMSG_HEADER + NFGEN_HEADER :] == attribute(CFG_FLAGS, flags) + attribute(CFG_MASK, mask)
    assert [each.packet for each in verdicts(kernel.end.recv(1 << 16))] == [1]
    assert kernel.queue.counters()["refused"] == 0


@pytest.mark.parametrize("number", [-1, 65536])
def test_a_queue_number_has_sixteen_bits(number: int) -> None:
    with pytest.raises(ValueError, match=r"0\.\.65535"):
        Queue(Pipeline(ports=[4789]), number)
