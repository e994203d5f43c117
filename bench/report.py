"""What was measured, as tables, as JSON and as a plot.

CPU times (µs) are for each packet from the wire, of the whole machine and of the listener alone.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.table import Table

from fixer import __version__
from fixer.host.machine import Host

from .cable import Run
from .cases import CASES, Case, Runs, judgements
from .compare import MOST_MIB as COMPARE_MIB
from .compare import MOST_SECONDS, Compared
from .datapath import MOST_LOOKUP_NS, Normalising, Pace, Watching
from .latency import BESIDE, MEASURED, MOST_RATIO, QUANTILES, Latency, quantile
from .latency import ratio as waits_ratio
from .memory import FLAT_MIB, MOST_MIB, Memory
from .ratio import Interval, interval, ratios
from .receivers import NO_RULE
from .scan import LEAST_RATIO, Scanned

UNSEEN_SHARE = 0.001  # of a receiver's packets: more than that and its figures are not of this receiver alone


@dataclass
class Results:
    """Everything of one run of the benchmark; what was not measured is empty."""

    rounds: int
    seconds: int
    machine: dict[str, Any]
    began: str
    took_seconds: float = 0.0
    cases: dict[str, Runs] = field(default_factory=dict)
    latency: Latency | None = None
    paces: list[Pace] = field(default_factory=list)
    normalising: Normalising | None = None
    watching: list[Watching] = field(default_factory=list)
    scan: Scanned | None = None
    compare: Compared | None = None
    memory: Memory | None = None


def machine(host: Host) -> dict[str, Any]:
    """What the figures depend on."""
    models = [line.partition(":")[2].strip() for line in (host.read("/proc/cpuinfo") or "").splitlines()
              if line.startswith("model name")]  # fmt: skip
    return {
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "cpu": models[0] if models else platform.machine(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


# --- tables -----------------------------------------------------------------------------------------------------------


def tables(results: Results) -> Iterator[Table]:
    for case in CASES:
        if case.name in results.cases:
            yield streams(case, results.cases[case.name])
    if results.latency:
        yield latency(results.latency)
    if results.paces:
        yield paces(results.paces)
    if results.normalising:
        yield normalising(results.normalising)
    if results.watching:
        yield watching(results.watching)
    if results.scan:
        yield scan(results.scan)
    if results.memory:
        yield memory(results.memory)
    if any(verdicts(results)):
        yield bounds(results)


def streams(case: Case, runs: Runs) -> Table:
    table = table_of(
        f"{case.name}: {case.title}", "", "Gbit/s", "of no rule", "machine µs", "listener µs", "merged", "notes"
    )
    for name, some in runs.items():
        to_none = ratios(rates(some), rates(runs[NO_RULE.name]))
        table.add_row(
            name,
            f"{interval(rates(some)).median:.2f}",
            shown(to_none) if name != NO_RULE.name else "1",
            f"{interval([run.machine_us for run in some]).median:.2f}",
            f"{interval([run.own_us for run in some]).median:.2f}" if name != NO_RULE.name else "",
            f"{interval([run.merged for run in some]).median:.1f}",
            notes(some),
        )
    return table


def notes(some: Sequence[Run]) -> str:
    """What a reader must know of a receiver's streams."""
    share = sum(run.unseen for run in some) / sum(run.packets for run in some)
    return f"{share:.1%} passed unseen: the queue was full" if share > UNSEEN_SHARE else ""


def rates(some: Sequence[Run]) -> list[float]:
    return [run.gbit_per_second for run in some]


def latency(found: Latency) -> Table:
    table = table_of("A question and its answer, µs", "", "", *QUANTILES, "p99 of no rule", "answers")
    for busy, beside in BESIDE.items():
        for name, rounds in found.of(busy).items():
            waits = [wait for one in rounds for wait in one]
            to_none = shown(waits_ratio(found.of(busy), name, QUANTILES["p99"])) if name != NO_RULE.name else "1"
            figures = (f"{quantile(waits, share):.0f}" for share in QUANTILES.values())
            table.add_row(beside, name, *figures, to_none, f"{len(waits):,}")
    if found.unanswered:
        table.caption = f"{found.unanswered} questions had no answer within a second."
    return table


def paces(found: Sequence[Pace]) -> Table:
    table = table_of("The packet path alone, one core", "inner packet", "", "ns/packet", "GB/s", "of it summing")
    for pace in found:
        table.add_row(
            f"{pace.inner:,} bytes",
            pace.kind,
            shown(pace.ns, 0),
            f"{pace.gigabytes_per_second:.1f}",
            f"{pace.sum_ns.median:.0f} ns",
        )
    return table


def normalising(found: Normalising) -> Table:
    table = table_of("Normalised timestamps alone, one core", "", "ns")
    table.add_row(f"a lookup among {found.connections:,} connections", shown(found.lookup, 0))
    table.add_row("a packet of 1,450 bytes, timestamps left alone", shown(found.off, 0))
    table.add_row("the same, normalised", shown(found.there, 0))
    table.add_row("an acknowledgement, normalised", shown(found.back, 0))
    return table


def watching(found: Sequence[Watching]) -> Table:
    title = "What findings cost sound packets, ns more for each"
    table = table_of(title, "inner packet", "nobody is told", "all were sound", "others are broken", "its sender is")
    for one in found:
        more = (f"{each.median:+.1f} ({each.low:+.1f} to {each.high:+.1f})" for each in one[2:])
        table.add_row(f"{one.inner:,} bytes", shown(one.off, 0), *more)
    return table


def scan(found: Scanned) -> Table:
    title = f"A capture of {found.frames:,} packets, {found.capture_bytes / 1e6:,.0f} MB"
    table = table_of(title, "", "packets/s", "of tshark", "by CPU time")
    table.add_row("tshark, checksum validation on", f"{found.tshark_per_second.median:,.0f}", "1", "1")
    table.add_row(
        "fixer scan", f"{found.fixer_per_second.median:,.0f}", shown(found.ratio, 1), shown(found.cpu_ratio, 1)
    )
    return table


def memory(found: Memory) -> Table:
    table = table_of("Memory of the daemon, every packet broken", "packets", "VmRSS")
    last = found.samples[-1].packets
    for tenths in range(1, 11):
        sample = next(sample for sample in found.samples if sample.packets * 10 >= last * tenths)
        table.add_row(f"{sample.packets:,}", f"{sample.mib:.2f} MiB")
    return table


def bounds(results: Results) -> Table:
    table = table_of("What must be reached", "", "must be", "is", "reached")
    for what, says, is_, reached in verdicts(results):
        table.add_row(what, says, is_, "[green]yes" if reached else "[bold red]no")
    return table


def verdicts(results: Results) -> Iterator[tuple[str, str, str, bool]]:
    """Each bound in words, what is asked, what was found, and whether that reaches it."""
    names = {"gbit_per_second": "Gbit/s", "own_us": "listener's CPU", "machine_us": "machine's CPU"}
    for bound, ratio, reached in judgements(results.cases):
        what = f"{bound.case}: {bound.receiver.name} to {bound.to.name}, {names[bound.of]}"
        yield what, bound.says, shown(ratio), reached
    if results.latency:
        for receiver in MEASURED:
            waits = waits_ratio(results.latency.alone, receiver, QUANTILES["p99"])
            what = f"alone, 99 of 100 questions: {receiver} to no rule"
            yield what, f"at most {MOST_RATIO:g}", shown(waits), waits.low <= MOST_RATIO
    if results.normalising:
        what = f"a lookup among {results.normalising.connections:,} connections"
        is_ = f"{shown(results.normalising.lookup, 0)} ns"
        yield what, f"under {MOST_LOOKUP_NS:g} ns", is_, results.normalising.reached
    if results.scan:
        found, asked = results.scan.ratio, f"at least {LEAST_RATIO:g}"
        yield "scan to tshark, packets a second", asked, shown(found, 1), found.high >= LEAST_RATIO
    if results.compare:
        each = results.compare
        asked = f"under {MOST_SECONDS:g} s and {COMPARE_MIB:.0f} MiB"
        yield (
            f"compare of two captures of {each.frames:,}",
            asked,
            f"{each.seconds:.1f} s ({each.cpu_seconds:.1f} s of CPU), {each.mib:.0f} MiB",
            each.reached,
        )
    if results.memory:
        asked = f"under {MOST_MIB:g} MiB, flat (less than {FLAT_MIB:g} MiB more after the first tenth)"
        is_ = f"{results.memory.last:.1f} MiB, {results.memory.growth:+.2f} MiB"
        yield f"memory after {results.memory.samples[-1].packets:,} packets", asked, is_, results.memory.reached


def table_of(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number == 0 or heading in ("", "notes", "must be") else "right")
    return table


def shown(found: Interval, digits: int = 2) -> str:
    digits = 4 if found.high < 0.01 else digits
    return f"{found.median:.{digits}f} ({found.low:.{digits}f}–{found.high:.{digits}f})"


# --- JSON -------------------------------------------------------------------------------------------------------------


def document(results: Results) -> dict[str, Any]:
    """Every run, and what was made of them, of plain types."""
    made: dict[str, Any] = {
        "fixer": __version__,
        "began": results.began,
        "took_seconds": round(results.took_seconds, 1),
        "machine": results.machine,
        "rounds": results.rounds,
        "seconds": results.seconds,
        "cases": {
            name: {receiver: [run._asdict() for run in some] for receiver, some in runs.items()}
            for name, runs in results.cases.items()
        },
        "latency": results.latency and results.latency._asdict(),
        "datapath": [plain(pace) for pace in results.paces],
        "normalising": results.normalising and plain(results.normalising),
        "watching": [plain(one) for one in results.watching],
        "scan": results.scan
        and results.scan._asdict()
        | {"ratio": results.scan.ratio._asdict(), "cpu_ratio": results.scan.cpu_ratio._asdict()},
        "compare": results.compare and results.compare._asdict(),
        "memory": results.memory and {"samples": [sample._asdict() for sample in results.memory.samples]},
        "bounds": [
            {"what": what, "must_be": says, "is": is_, "reached": reached}
            for what, says, is_, reached in verdicts(results)
        ],
    }
    return made


def plain(found: Pace | Normalising | Watching) -> dict[str, Any]:
    """A tuple of numbers and intervals by their names."""
    named = found._asdict()
    return {name: each._asdict() if isinstance(each, Interval) else each for name, each in named.items()}


def save(results: Results, directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{results.began.replace(':', '').replace('-', '')}.json"
    path.write_text(json.dumps(document(results), indent=1) + "\n", encoding="utf-8")
    return path


# --- plot -------------------------------------------------------------------------------------------------------------

SHADES = {
    "no rule": "#9a9a9a",
    "sound": "#c4c4c4",
    "fixer": "#0b6e4f",
    "C loop": "#4a7fb5",
    "callback": "#d08c34",
    "scapy": "#b5433a",
}


def can_plot() -> bool:
    return find_spec("matplotlib") is not None


def plot(results: Results, path: Path) -> None:
    """Throughput of each receiver as a share of what no rule reaches, with the interval; one panel for each case."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    cases = [case for case in CASES if case.name in results.cases]
    counts = [len(case.receivers) for case in cases]
    size = (7.5, 0.31 * sum(counts) + 0.62 * len(cases) + 0.4)
    figure, axes = pyplot.subplots(
        len(cases), sharex=True, squeeze=False, figsize=size, height_ratios=counts, layout="constrained"
    )
    for case, axis in zip(cases, axes[:, 0], strict=True):
        runs = results.cases[case.name]
        names = list(reversed(runs))
        found = [ratios(rates(runs[name]), rates(runs[NO_RULE.name])) for name in names]
        away = [[one.median - one.low for one in found], [one.high - one.median for one in found]]
        colours = [next(shade for key, shade in SHADES.items() if name.startswith(key)) for name in names]
        axis.barh(names, [one.median for one in found], xerr=away, color=colours, height=0.72, ecolor="#333333")
        for name, one in zip(names, found, strict=True):
            axis.text(0.008, name, f"{one.median:.2f}" if one.median >= 0.01 else f"{one.median:.3f}",
                      va="center", color="white" if one.median > 0.07 else "black", size=8)  # fmt: skip
        axis.axvline(1, color="#333333", linewidth=0.8, linestyle=":")
        axis.set_title(case.title, loc="left", size=9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1, 0].set_xlabel("throughput, as a share of the throughput without any rule", size=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
