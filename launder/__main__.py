"""``python -m launder``: damage packets, put them through the packet path, say what was laundered (exit code 1)."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from fixer.datapath.flows import Flows
from fixer.datapath.pipeline import Pipeline

from .build import compiled
from .kernel import Node
from .report import Outcome, examples, faults, line, write
from .runs import PORT, Run, all_runs, kernel

BUILD = Path(__file__).parents[1] / "build" / "launder"
QUICK = 30  # one packet of so many
LEAST = 20_000


def main() -> int:
    asked = arguments()
    runs = [
        run
        for run in (kernel() if asked.kernel or asked.marks else all_runs())
        if not asked.only or any(part in f"{run.group}: {run.name}" for part in asked.only)
    ]
    if asked.list:
        print(*(f"{run.packets:>11,}  {run.group}: {run.name}" for run in runs), sep="\n")
        return 0
    if not runs:
        sys.exit("launder: no run has such a name; --list shows them")
    trial = compiled(BUILD).Trial
    begun = time.monotonic()
    outcomes, group = [], ""
    for run in runs:
        if run.group != group:
            group = run.group
            print(f"\n{group}", flush=True)
        share = QUICK if asked.quick else 1
        outcomes.append(ran(run, trial, asked.seed, share, kernel=asked.kernel or asked.marks, marks=asked.marks))
        print(line(outcomes[-1]), flush=True)
        if asked.show:
            print(*examples(outcomes[-1]), sep="\n", flush=True)
    found = [fault for outcome in outcomes for fault in faults(outcome)]
    packets, damaged = (sum(outcome.found[what] for outcome in outcomes) for what in ("packets", "damaged"))
    print(
        f"\n{packets:,} packets, {damaged:,} of them damaged, in {time.monotonic() - begun:,.0f} s, seed {asked.seed}"
    )
    if asked.write:
        write(asked.write, outcomes)
    print(*found or ["Nothing was laundered, and nothing else was made worse."], sep="\n")
    return 1 if found else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m launder", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"one packet of {QUICK}: about a minute")
    parser.add_argument("--kernel", action="store_true", help="with the program that finishes packets before it (root)")
    parser.add_argument("--marks", action="store_true", help="that program, where the overlay ends on the host (root)")
    parser.add_argument("--only", nargs="+", metavar="PART", help="runs with PART in their group or name")
    parser.add_argument("--list", action="store_true", help="the runs and their packets, and nothing else")
    parser.add_argument("--seed", type=int, default=1, help="of everything that is random (1)")
    parser.add_argument("--show", action="store_true", help="a few packets of each fate, in hexadecimal")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables into this Markdown file")
    return parser.parse_args()


def ran(run: Run, trial: Any, seed: int, share: int, *, kernel: bool = False, marks: bool = False) -> Outcome:
    """One run of one packet in ``share``, with the program in the ``kernel``, which ``marks`` or sums, or without."""
    subject = trial(seed=seed, **run.traffic)
    packets = max(run.packets // share, min(run.packets, LEAST))
    begun = time.monotonic()
    if kernel:
        with Node(path(run, seed), marks=marks) as node:
            subject.put_by(node.examine, packets)
    elif run.memory:
        for _ in range(packets // run.memory):
            subject.put(path(run, seed), run.memory)
    else:
        pipeline = path(run, seed)
        if run.flows:
            subject.connect(pipeline)
        subject.put(pipeline, packets)
    return Outcome(run, subject.found(), subject.shown(), time.monotonic() - begun)


def path(run: Run, seed: int) -> Pipeline:
    flows = Flows(bytearray(Flows.size(run.flows)), run.flows) if run.flows else None
    return Pipeline(ports=[PORT], seed=seed, flows=flows, **run.path)


if __name__ == "__main__":
    sys.exit(main())
