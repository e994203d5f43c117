"""Each kind of traffic, who receives it, and what the ratios between them must reach."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from fixer.host.machine import Host

from .cable import Cable, Run, Traffic
from .ratio import Interval, ratios
from .receivers import (
    AS_BUSY,
    CALLBACK,
    FIXER_ALL,
    FIXER_KERNEL,
    FIXER_MARKS,
    FIXER_NORMALISES,
    FIXER_OTHERS,
    FIXER_SUSPECTS,
    FIXER_TWICE,
    FIXER_UNSHIFTED,
    GATE,
    LOOP,
    LOOP_GSO,
    LOOP_REPAIRS,
    LOOP_TWICE,
    NO_RULE,
    SCAPY,
    Receiver,
    Standing,
    gate,
    in_place,
    listening,
    must_have_translated,
    wanted,
)

DIAGNOSED_SECONDS = 2
"""A stream that is not measured, for a daemon to see who is broken."""

Runs = dict[str, list[Run]]  # by the receiver's name, one a round


@dataclass(frozen=True)
class Case:
    name: str
    title: str
    traffic: Traffic
    receivers: tuple[Receiver, ...]


CASES = (
    Case(
        "clean",
        "Clean TCP, packets of 1,450 bytes, GRO off",
        Traffic(),
        (NO_RULE, SCAPY, CALLBACK, LOOP, FIXER_ALL, FIXER_SUSPECTS),
    ),
    Case(
        "gro",
        "Clean TCP, packets of 1,450 bytes, GRO on",
        Traffic(gro=True),
        (NO_RULE, CALLBACK, LOOP, LOOP_GSO, FIXER_ALL, FIXER_SUSPECTS),
    ),
    Case(
        "small",
        "Clean TCP, 64 bytes of payload in each packet, GRO off",
        Traffic(payload=64),
        (NO_RULE, CALLBACK, LOOP, FIXER_ALL, FIXER_SUSPECTS),
    ),
    Case(
        "broken",
        "100 % broken TCP, packets of 1,450 bytes, every one repaired",
        Traffic(broken=True, outer_checksum=True),
        (NO_RULE, LOOP_REPAIRS, FIXER_ALL, FIXER_SUSPECTS),
    ),
    Case(
        "finished",
        "100 % broken TCP, no outer checksum, GRO off",
        Traffic(broken=True),
        (NO_RULE, GATE, AS_BUSY, FIXER_ALL, FIXER_SUSPECTS, FIXER_KERNEL, FIXER_MARKS),
    ),
    Case(
        "finished-gro",
        "100 % broken TCP, no outer checksum, GRO on",
        Traffic(broken=True, gro=True),
        (NO_RULE, GATE, AS_BUSY, FIXER_ALL, FIXER_SUSPECTS, FIXER_KERNEL, FIXER_MARKS),
    ),
    Case(
        "queues",
        "8 flows of clean TCP, RPS, GRO off, two queues on two CPUs",
        Traffic(flows=8, spread=True),
        (NO_RULE, LOOP_TWICE, FIXER_TWICE, FIXER_ALL),
    ),
    Case(
        "normalise",
        "Clean TCP, packets of 1,450 bytes, GRO off, timestamps normalised",
        Traffic(one_clock=True, apart=True),
        (NO_RULE, FIXER_ALL, FIXER_NORMALISES, FIXER_UNSHIFTED, FIXER_OTHERS),
    ),
    Case(
        "normalise-gro",
        "Clean TCP, packets of 1,450 bytes, GRO on, timestamps normalised",
        Traffic(one_clock=True, apart=True, gro=True),
        (NO_RULE, FIXER_ALL, FIXER_NORMALISES, FIXER_UNSHIFTED, FIXER_OTHERS),
    ),
)


def measured(
    case: Case, rounds: int, seconds: int, host: Host, loop: Path, scratch: Path, tell: Callable[[str], None]
) -> Runs:
    """``rounds`` streams for each receiver, in turns; who begins changes from round to round. ``tell`` before each."""
    runs: Runs = {receiver.name: [] for receiver in case.receivers}
    with (
        Cable(case.traffic, host) as cable,
        cable.serving(),
        listening(cable, case.receivers, loop, scratch) as standing,
    ):
        for number in range(rounds):
            begin = number % len(case.receivers)
            for receiver in (*case.receivers[begin:], *case.receivers[:begin]):
                tell(f"{case.title}: {receiver.name}, round {number + 1} of {rounds}")
                here = standing.get(receiver.name)
                with turn(cable, receiver, here, scratch):
                    runs[receiver.name].append(cable.stream(seconds, *((here.pids, here.queues) if here else ((), ()))))
        for receiver in case.receivers:
            if receiver.translates:
                must_have_translated(cable, standing[receiver.name], runs[receiver.name])
    return runs


@contextmanager
def turn(cable: Cable, receiver: Receiver, here: Standing | None, scratch: Path) -> Iterator[None]:
    """It is ``receiver``'s turn while the context lasts: its rule, its sender, and what a stream needs before it."""
    # Without anybody who repairs, what is broken would not arrive: a healthy sender is the comparison.
    table = in_place(cable, here.table if here else None)
    with (
        cable.breaking(cable.traffic.broken and (here is not None or receiver.as_busy), receiver.as_busy),
        wanted(cable, receiver, here, scratch) if here and receiver.acts else table,
        gate(cable, receiver),
    ):
        if receiver.acts:
            cable.stream(DIAGNOSED_SECONDS, (), ())
        if here and receiver.translates:
            cable.put_clock_ahead(here.queues[-1])
        yield


class Bound(NamedTuple):
    """What a ratio must reach. ``own_us`` is the listener's CPU time a packet, ``machine_us`` the whole machine's."""

    case: str
    receiver: Receiver
    to: Receiver
    of: Literal["gbit_per_second", "own_us", "machine_us"]
    least: float | None = None
    most: float | None = None

    @property
    def says(self) -> str:
        return f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"


BOUNDS = (
    Bound("clean", FIXER_SUSPECTS, NO_RULE, "gbit_per_second", least=0.97),
    Bound("gro", FIXER_SUSPECTS, NO_RULE, "gbit_per_second", least=0.97),
    Bound("gro", FIXER_ALL, LOOP_GSO, "gbit_per_second", least=0.97),
    Bound("clean", FIXER_ALL, LOOP, "gbit_per_second", least=0.97),
    Bound("clean", FIXER_ALL, LOOP, "own_us", most=1.05),
    Bound("finished", FIXER_KERNEL, AS_BUSY, "gbit_per_second", least=0.8),
    Bound("finished-gro", FIXER_KERNEL, AS_BUSY, "gbit_per_second", least=0.6),
    Bound("finished", FIXER_MARKS, AS_BUSY, "gbit_per_second", least=0.95),
    Bound("finished", GATE, NO_RULE, "gbit_per_second", least=0.98),
    Bound("finished-gro", GATE, NO_RULE, "gbit_per_second", least=0.98),
    Bound("broken", FIXER_ALL, LOOP_REPAIRS, "gbit_per_second", least=0.97),
    Bound("clean", FIXER_ALL, CALLBACK, "gbit_per_second", least=1.35),
    Bound("clean", FIXER_ALL, CALLBACK, "own_us", most=0.5),
    Bound("normalise", FIXER_NORMALISES, FIXER_ALL, "gbit_per_second", least=0.95),
    Bound("normalise", FIXER_OTHERS, FIXER_ALL, "gbit_per_second", least=0.97),
    Bound("normalise-gro", FIXER_OTHERS, FIXER_ALL, "gbit_per_second", least=0.97),
)


class Judgement(NamedTuple):
    bound: Bound
    ratio: Interval
    reached: bool


def judged(bound: Bound, runs: Runs) -> Judgement:
    """A bound counts as reached when the figure lies inside the interval, or the whole interval is on its good side."""
    of = operator.attrgetter(bound.of)
    found = ratios(*(list(map(of, runs[receiver.name])) for receiver in (bound.receiver, bound.to)))
    reached = found.high >= bound.least if bound.least is not None else found.low <= (bound.most or 0)
    return Judgement(bound, found, reached)


def judgements(cases: dict[str, Runs]) -> Sequence[Judgement]:
    """Every bound whose case and receivers were measured."""
    return [
        judged(bound, cases[bound.case])
        for bound in BOUNDS
        if bound.case in cases and {bound.receiver.name, bound.to.name} <= cases[bound.case].keys()
    ]
