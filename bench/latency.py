"""What a packet waits: a question and its answer over UDP, without a rule and with one, alone and beside a bulk stream.

The rule is at the answering host, so each round trip passes the queue once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fixer.errors import SystemRefused
from fixer.host.machine import Host
from fixer.lab import net

from .cable import OVERLAY, Cable, Traffic, must
from .ratio import Interval, ratios
from .receivers import CFLAGS, FIXER_ALL, FIXER_SUSPECTS, HERE, LOOP, NO_RULE, compiled_loop, in_place, listening

PORT = 7007
PAUSE_US = 1000  # from an answer to the next question
RECEIVERS = (NO_RULE, FIXER_SUSPECTS, LOOP, FIXER_ALL)
MEASURED = (FIXER_SUSPECTS.name, FIXER_ALL.name)  # by MOST_RATIO; the C loop is what NFQUEUE itself costs
BESIDE = {False: "alone", True: "beside a bulk stream"}
QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
MOST_RATIO = 1.5  # of the 99th percentile without a rule, with nothing else under way

Rounds = dict[str, list[list[float]]]
"""Microseconds of each round trip, a list for each round, by the receiver's name."""


class Latency(NamedTuple):
    """``alone`` and ``busy``, beside a stream that takes all that it can get; ``unanswered`` questions of both."""

    alone: Rounds
    busy: Rounds
    unanswered: int

    def of(self, busy: bool) -> Rounds:
        return self.busy if busy else self.alone


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least so large a share of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def ratio(rounds: Rounds, receiver: str, share: float) -> Interval:
    """A quantile to that without a rule, of each round; and what can be said of the median."""
    found, base = ([quantile(one, share) for one in rounds[name]] for name in (receiver, NO_RULE.name))
    return ratios(found, base)


def waited(host: Host, rounds: int, seconds: int, build: Path, scratch: Path, tell: Callable[[str], None]) -> Latency:
    """``rounds`` of ``seconds`` for each receiver, in turns, first alone and then beside a stream."""
    build.mkdir(parents=True, exist_ok=True)
    program = build / "ask"
    must(host.run(["cc", *CFLAGS, "-o", str(program), str(HERE / "ask.c")], seconds=None), "compiling ask.c")
    found: dict[bool, Rounds] = {busy: {each.name: [] for each in RECEIVERS} for busy in BESIDE}
    unanswered = 0
    with (
        Cable(Traffic(), host) as cable,
        cable.serving(),
        answering(cable, program),
        listening(cable, RECEIVERS, compiled_loop(host, build), scratch) as standing,
    ):
        for busy, beside in BESIDE.items():
            with streaming(cable, busy):
                for number in range(rounds):
                    begin = number % len(RECEIVERS)
                    for receiver in (*RECEIVERS[begin:], *RECEIVERS[:begin]):
                        tell(f"latency {beside}: {receiver.name}, round {number + 1} of {rounds}")
                        here = standing.get(receiver.name)
                        with in_place(cable, here.table if here else None):
                            command = (str(program), OVERLAY["right"], str(PORT), str(seconds), str(PAUSE_US))
                            said = json.loads(must(cable.left.run(*command), "ask").out)
                        if not said["ns"]:
                            raise SystemRefused(f"latency: with {receiver.name} no question was answered")
                        found[busy][receiver.name].append([each / 1000 for each in said["ns"]])
                        unanswered += said["unanswered"]
    return Latency(found[False], found[True], unanswered)


@contextmanager
def answering(cable: Cable, program: Path) -> Iterator[None]:
    """Somebody answers at the right while the context lasts."""
    process = cable.right.start(str(program), "serve", str(PORT))
    try:
        if process.stdout is None or process.stdout.readline() != "ready\n":
            raise SystemRefused("latency: nobody answers: see the message above")
        yield
    finally:
        net.stop(process)


@contextmanager
def streaming(cable: Cable, on: bool) -> Iterator[None]:
    """A stream from left to right while the context lasts, if ``on``."""
    if not on:
        yield
        return
    sender = cable.left.start("iperf3", "--client", OVERLAY["right"], "--time", "86400", "--logfile", os.devnull)
    try:
        yield
        if sender.poll() is not None:
            raise SystemRefused("latency: iperf3 ended before its time")
    finally:
        net.stop(sender)
