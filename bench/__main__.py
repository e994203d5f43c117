"""``python -m bench``, as root: measure everything, print tables, write JSON and a plot below bench/results."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from fixer.errors import FixerError
from fixer.host.machine import Host
from fixer.lab import bpf, net

from . import cases, compare, datapath, latency, memory, receivers, report, scan

HERE = Path(__file__).parent
BUILD = HERE.parent / "build" / "bench"
PARTS = (*(case.name for case in cases.CASES), "latency", "datapath", "watching", "scan", "compare", "memory")


def main() -> int:
    asked = arguments()
    host, console = Host(), Console(width=None if sys.stdout.isatty() else 120)
    parts = set(asked.only or PARTS) - set(asked.without)
    for part, lacking in lacks(host, parts).items():
        console.print(f"bench: {part} is left out: {lacking}", highlight=False)
        parts.discard(part)
    results = report.Results(
        rounds=asked.rounds,
        seconds=asked.seconds,
        machine=report.machine(host),
        began=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"{net.own_name()}-") as scratch, console.status("") as status:
        measure(results, parts, asked, host, Path(scratch), status.update)
    results.took_seconds = time.monotonic() - begun
    for table in report.tables(results):
        console.print(table)
    console.print(f"Measured in {results.took_seconds / 60:.1f} minutes. "
                  f"All of it: {report.save(results, HERE / 'results')}", highlight=False)  # fmt: skip
    if results.cases and report.can_plot():
        picture = asked.plot or HERE / "results" / "throughput.png"
        report.plot(results, picture)
        console.print(f"The plot: {picture}", highlight=False)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds and packets: a look, not a figure")
    parser.add_argument("--rounds", type=int, help="streams for each receiver (15; quick: 3)")
    parser.add_argument("--seconds", type=int, help="length of one stream (2; quick: 1)")
    parser.add_argument(
        "--frames", type=int, help="packets in a capture for scan and compare (1,000,000; quick: 100,000)"
    )
    parser.add_argument("--pairs", type=int, help="how often scan and tshark have their turn (15; quick: 2)")
    parser.add_argument("--packets", type=int, help="packets for the daemon's memory (10,000,000; quick: 500,000)")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"of: {' '.join(PARTS)}")
    parser.add_argument("--without", nargs="+", choices=PARTS, metavar="PART", default=[])
    parser.add_argument("--plot", type=Path, metavar="FILE", help="where to draw (bench/results/throughput.png)")
    asked = parser.parse_args()
    quick = {"rounds": 3, "seconds": 1, "frames": 100_000, "pairs": 2, "packets": 500_000}
    full = {"rounds": 15, "seconds": 2, "frames": scan.FRAMES, "pairs": 15, "packets": memory.PACKETS}
    for name, value in (quick if asked.quick else full).items():
        if getattr(asked, name) is None:
            setattr(asked, name, value)
    return asked


def lacks(host: Host, parts: set[str]) -> dict[str, str]:
    """Which parts cannot be measured here, and why."""
    streams = {case.name for case in cases.CASES} | {"latency", "memory"}
    found: dict[str, str] = {}
    if parts & streams:
        no = net.missing(host) or (host.which("iperf3") is None and "no program iperf3: apt install iperf3") or None
        found |= dict.fromkeys(parts & streams, no) if no else {}
        if not no and (no := bpf.missing(host)):
            found |= dict.fromkeys(parts & {"broken", "memory"}, no)
    if "scan" in parts and host.which("tshark") is None:
        found["scan"] = "no program tshark: apt install tshark"
    return found


def measure(
    results: report.Results,
    parts: set[str],
    asked: argparse.Namespace,
    host: Host,
    scratch: Path,
    tell: Callable[[str], None],
) -> None:
    """Fill ``results`` with the ``parts`` that are wanted."""
    if parts & {case.name for case in cases.CASES}:
        loop = receivers.compiled_loop(host, BUILD)
    for case in cases.CASES:
        if case.name in parts:
            results.cases[case.name] = cases.measured(case, asked.rounds, asked.seconds, host, loop, scratch, tell)
    if "latency" in parts:
        results.latency = latency.waited(host, asked.rounds, asked.seconds, BUILD, scratch, tell)
    if parts & {"datapath", "watching"}:
        spin = datapath.compiled(BUILD)
    if "watching" in parts:
        results.watching = datapath.watching(spin, tell)
    if "datapath" in parts:
        results.paces = datapath.paces(spin, tell)
        results.normalising = datapath.normalising(spin, tell)
    if "scan" in parts:
        results.scan = scan.scanned(host, scratch, asked.frames, asked.pairs, tell)
    if "compare" in parts:
        results.compare = compare.compared(scratch, asked.frames, tell)
    if "memory" in parts:
        results.memory = memory.watched(host, asked.packets, scratch, tell)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FixerError as error:
        sys.exit(f"bench: {error}")
