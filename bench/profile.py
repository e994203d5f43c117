"""``python -m bench.profile CASE RECEIVER OTHER``: where a packet costs more with one receiver than with the other.

Both have their turns on one cable, as in the benchmark, while perf samples all CPUs. A sample stands for one period of
its clock, so that what a function had of them is its time; divided by the packets that came in meanwhile, ns a packet.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from fixer.errors import FixerError, ProgramMissing
from fixer.host.machine import Host

from . import receivers
from .cable import Cable, must
from .cases import CASES, Case, turn

SAMPLES_A_SECOND = 4000
IDLE = re.compile(r"cpuidle|default_idle|acpi_idle|pv_native_safe_halt|native_safe_halt|intel_idle|do_idle")
LISTED = 25


Times = dict[str, float]
"""ns a packet of each function, by its name."""


def profiled(case: Case, names: list[str], seconds: int, rounds: int, host: Host) -> dict[str, list[Times]]:
    """What each round found, by the receiver's name."""
    chosen = [receiver for receiver in case.receivers if receiver.name in names]
    found: dict[str, list[Times]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        loop = receivers.compiled_loop(host, scratch)
        with (
            Cable(case.traffic, host) as cable,
            cable.serving(),
            receivers.listening(cable, chosen, loop, scratch) as here,
        ):
            for number in range(rounds):
                for receiver in chosen:
                    print(f"{receiver.name}, round {number + 1} of {rounds}", file=sys.stderr)
                    with turn(cable, receiver, here.get(receiver.name), scratch):
                        found[receiver.name].append(sampled(cable, seconds, scratch / "perf.data"))
    return found


def sampled(cable: Cable, seconds: int, data: Path) -> Times:
    """One stream."""
    record = ["perf", "record", "-q", "-a", "-e", "cpu-clock", "-F", str(SAMPLES_A_SECOND), "-o", str(data), "--"]
    before = cable.packets()
    process = cable.left.start(*record, "sleep", str(seconds))
    cable.stream(seconds, (), ())
    process.wait()
    packets = cable.packets() - before
    report = ["perf", "report", "-i", str(data), "--stdio", "--no-children", "-n", "-s", "symbol", "-q"]
    return times(must(cable.host.run(report, seconds=None), "perf report").out, packets)


def times(report: str, packets: int) -> Times:
    """What perf's report of samples by symbol says, without the idle loop. The columns behind a symbol vary."""
    found: Times = defaultdict(float)
    for samples, symbol in re.findall(r"^\s*[\d.]+%\s+(\d+)\s+\[.\] (\S+)", report, re.MULTILINE):
        if not IDLE.search(symbol):
            found[symbol] += int(samples) / SAMPLES_A_SECOND / packets * 1e9
    return found


def medians(rounds: list[Times]) -> Times:
    """Of each function that was seen in any of them; where it was not, it took no time."""
    seen = {symbol for each in rounds for symbol in each}
    return {symbol: statistics.median(each.get(symbol, 0.0) for each in rounds) for symbol in seen}


def main() -> int:
    host = Host()
    cases = {case.name: case for case in CASES}
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("case", choices=cases)
    parser.add_argument("names", nargs=2, metavar="RECEIVER")
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    case = cases[asked.case]
    known = [receiver.name for receiver in case.receivers]
    if unknown := set(asked.names) - set(known):
        parser.error(f"no receiver of {case.name}: {', '.join(unknown)}; there are: {', '.join(known)}")
    if os.geteuid() != 0 or host.which("perf") is None:
        raise ProgramMissing("profiling needs root and perf: apt install linux-perf")
    found = profiled(case, asked.names, asked.seconds, asked.rounds, host)
    one, other = (medians(found[name]) for name in asked.names)
    more = {symbol: one.get(symbol, 0.0) - other.get(symbol, 0.0) for symbol in {*one, *other}}
    totals = (f"{name} {sum(each.values()):.0f}" for name, each in zip(asked.names, (one, other), strict=True))
    print(f"ns a packet, the whole machine but idle: {', '.join(totals)}")
    for symbol in sorted(more, key=lambda symbol: -abs(more[symbol]))[:LISTED]:
        print(f"{more[symbol]:+7.0f}  {one.get(symbol, 0.0):6.0f} {other.get(symbol, 0.0):6.0f}  {symbol}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FixerError as error:
        sys.exit(f"bench: {error}")
