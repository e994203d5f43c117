"""The packet path alone: nanoseconds a packet and gigabytes a second, of packets that lie ready in the queue's buffers.

64 packets of one length are put through the pipeline again and again, as after one recvmmsg; nothing else is in the
loop. Their payloads are in the caches as far as they fit: at 64,000 bytes (4 MB for all) they come from further away.
Outer and inner checksum are both there. *sum* is the time that one sum over the same bytes takes and nothing else.
What normalised timestamps cost stands beside it: the flow table alone, and the path with it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any, NamedTuple

import bench
from fixer.datapath.flows import Flows
from fixer.datapath.pipeline import Pipeline
from fixer.findings.wire import watch

from .build import compiled as compiled_of
from .packets import ACK, AROUND, RST, SYN, flow, stamped, tunnelled, wrong_outer
from .ratio import Interval, interval

SIZES = (64, 1450, 9000, 64000)  # bytes of the inner packet, from its IP header
BATCH = 64
REPETITIONS = 15
BYTES_A_REPETITION = 300_000_000
CONNECTIONS = 100_000
FLOWS = 131_072  # timestamps.flows
MOST_LOOKUP_NS = 100.0


KINDS = ("sound", "unfinished", "outer wrong")


class Pace(NamedTuple):
    inner: int  # bytes
    packet: int  # bytes, from the outer IP header
    kind: str  # of KINDS
    ns: Interval  # a packet
    sum_ns: Interval

    @property
    def gigabytes_per_second(self) -> float:
        return self.packet / self.ns.median


class Normalising(NamedTuple):
    """ns; of a segment (lookup) or a packet of 1,450 bytes (off, there) or an acknowledgement (back)."""

    connections: int
    lookup: Interval  # of one of so many connections, in random order of them and of directions
    off: Interval  # a packet with timestamps, where they are left alone
    there: Interval  # its TSval is translated
    back: Interval  # TSecr is, of one that leaves through OUTPUT

    @property
    def reached(self) -> bool:
        return self.lookup.low < MOST_LOOKUP_NS


class Watching(NamedTuple):
    """Of one size of sound packets: ns each where nobody is told of them, and how many more in each other case."""

    inner: int  # bytes
    off: Interval
    asleep: Interval  # a ledger is told, and everybody was sound so far: as a healthy node is
    beside: Interval  # somebody else's packets are broken
    followed: Interval  # the same sender's, between the same inner hosts: every packet is noted


def paces(spin: Any, tell: Callable[[str], None], repetitions: int = REPETITIONS) -> list[Pace]:
    """Every size and kind. ``spin``: the `compiled` module."""
    found = []
    for inner in SIZES:
        for kind in KINDS:
            tell(f"the packet path alone: {inner} bytes, {kind}")
            found.append(pace(spin, inner, kind, repetitions))
    return found


def pace(spin: Any, inner: int, kind: str, repetitions: int) -> Pace:
    """One size and kind; an outer is wrong as behind a NAT that does not fold in a port, and its envelope is known."""
    packets = list(islice(flow(inner, 1, kind == "unfinished"), BATCH))
    if kind == "outer wrong":
        packets = [wrong_outer(packet) for packet in packets]
    length = inner + AROUND
    turns = max(20, min(BYTES_A_REPETITION // 10 // length, 200_000) // BATCH)
    pipeline = Pipeline(ports=[4789])
    for packet in packets:  # the first ones of an envelope are not righted
        pipeline.examine(bytearray(packet))
    times, sums = [], []
    for _ in range(repetitions):
        seconds, repaired = spin.process(pipeline, packets, turns)
        if repaired != (0 if kind == "sound" else turns * BATCH):
            raise RuntimeError(f"{repaired} of {turns * BATCH} packets were repaired")
        times.append(seconds / turns / BATCH * 1e9)
        seconds, _ = spin.sums(packets, turns)
        sums.append(seconds / turns / BATCH * 1e9)
    return Pace(inner, length, kind, interval(times), interval(sums))


def normalising(
    spin: Any, tell: Callable[[str], None], repetitions: int = REPETITIONS, connections: int = CONNECTIONS
) -> Normalising:
    """What normalised timestamps cost, in the flow table and in the packet path around it."""
    tell(f"the flow table alone: {connections:,} connections")
    lookups = [lookup(spin, connections) for _ in range(repetitions)]
    tell("the packet path alone: timestamps normalised")
    path, there, back = normalised_connection()
    off = Pipeline(ports=[4789])
    turns = BYTES_A_REPETITION // 10 // len(there[0]) // BATCH
    times: dict[str, list[float]] = {"off": [], "there": [], "back": []}
    for _ in range(repetitions):
        for name, pipeline, packets in (("off", off, there), ("there", path, there), ("back", path, back)):
            seconds, changed = spin.process(pipeline, packets, turns, packets is back)
            if changed != (0 if pipeline is off else turns * BATCH):
                raise RuntimeError(f"{changed} of {turns * BATCH} packets were translated")
            times[name].append(seconds / turns / BATCH * 1e9)
    return Normalising(connections, interval(lookups), *map(interval, times.values()))


def watching(
    spin: Any, tell: Callable[[str], None], repetitions: int = REPETITIONS, sizes: Sequence[int] = SIZES[:2]
) -> list[Watching]:
    """What clean traffic pays for findings: the four in turns, in each repetition another one first."""
    found = []
    for inner in sizes:
        tell(f"the packet path alone: {inner} bytes, watched")
        packets = list(islice(flow(inner, 1), BATCH))
        paths = {
            "off": Pipeline(ports=[4789]),
            "asleep": watched(None),
            "beside": watched(next(flow(inner, 2, unfinished=True))),
            "followed": watched(next(flow(inner, 1, unfinished=True))),
        }
        turns = max(20, min(BYTES_A_REPETITION // 10 // len(packets[0]), 200_000) // BATCH)
        times: dict[str, list[float]] = {name: [] for name in paths}
        for repetition in range(repetitions):
            names = list(paths)
            for name in names[repetition % 4 :] + names[: repetition % 4]:
                seconds, repaired = spin.process(paths[name], packets, turns)
                if repaired:
                    raise RuntimeError(f"{repaired} packets were not sound")
                times[name].append(seconds / turns / BATCH * 1e9)
        more = {name: interval([a - b for a, b in zip(times[name], times["off"], strict=True)]) for name in names[1:]}
        found.append(Watching(inner, interval(times["off"]), **more))
    return found


def watched(broken: bytes | None) -> Pipeline:
    """A packet path that tells a ledger, to which this one has come."""
    pipeline = Pipeline(ports=[4789])
    watch([pipeline])
    if broken is not None:
        pipeline.examine(bytearray(broken))
    return pipeline


def lookup(spin: Any, connections: int) -> float:
    """Nanoseconds a segment, in a table of its own."""
    order = list(product(range(connections), (False, True)))
    random.Random(connections).shuffle(order)  # noqa: S311 - any order will do
    turns = max(1, 2_000_000 // len(order))
    flows = Flows(bytearray(Flows.size(FLOWS)), FLOWS)
    seconds, shifted = spin.lookups(flows, connections, order, turns)
    if shifted != turns * len(order):
        raise RuntimeError(f"{shifted} of {turns * len(order)} segments were to be shifted")
    return float(seconds / shifted * 1e9)


def normalised_connection() -> tuple[Pipeline, list[bytes], list[bytes]]:
    """A packet path that knows an established connection with a delta, BATCH packets of its client, BATCH of replies.

    The client's have 1,450 bytes inside, the server's are acknowledgements.
    """
    client, server, vteps = bytes([10, 0, 0, 1]), bytes([10, 1, 0, 1]), (bytes([192, 0, 2, 1]), bytes([192, 0, 2, 9]))
    flows = Flows(bytearray(Flows.size(FLOWS)), FLOWS)
    path = Pipeline(ports=[4789], timestamps="normalise", sources=[(client, 32)], flows=flows)

    def forth(port: int, flags: int, sequence: int, value: int, payload: bytes = b"") -> bytes:
        numbers = sequence, 1 if flags & ACK else 0
        return tunnelled(vteps, stamped((client, server), (port, 80), flags, numbers, (value, 1), payload))

    def answer(port: int, flags: int, acknowledged: int, echoed: int) -> bytes:
        numbers = 0 if flags & (SYN | RST) else 1, acknowledged
        return tunnelled(vteps[::-1], stamped((server, client), (80, port), flags, numbers, (1, echoed)))

    ahead = 1 << 30
    for outgoing, packet in (  # an echo moves the clock, and shows that replies pass; then a connection that is behind
        (False, forth(40000, ACK, 1, ahead)),
        (True, answer(40000, ACK, 1, ahead)),
        (False, forth(40001, SYN, 0, 1000)),
        (True, answer(40001, SYN | ACK, 1, ahead)),
        (False, forth(40001, ACK, 1, 1001)),
    ):
        path.examine(bytearray(packet), outgoing=outgoing)
    payload = random.Random(1).randbytes(1450 - 52)  # noqa: S311 - bytes to be summed, not secrets
    there = [forth(40001, ACK, 1 + number * len(payload), 1001, payload) for number in range(BATCH)]
    back = [answer(40001, ACK, 1 + number * len(payload), ahead + 1) for number in range(BATCH)]
    return path, there, back


def compiled(build: Path) -> Any:
    """The module ``spin.pyx``, compiled below ``build``."""
    return compiled_of(bench, ("spin",), build)
