"""What came of a kernel: told on a terminal, and as its row in the table of docs/compatibility.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .debian import Kernel, packages
from .guest import Outcome
from .probes import PROBES

DOCUMENT = Path(__file__).parents[1] / "docs" / "compatibility.md"
BEGIN, END = "<!-- kernels: written by make kernels -->", "<!-- kernels: end -->"
TITLES = ("kernel", "Debian's version", "how we know", *(probe.title for probe in PROBES))


def story(name: str, kernel: Kernel, outcome: Outcome) -> Iterator[str]:
    """For people: what the kernel is, what it lacks, and which tests failed."""
    yield f"{name}: Linux {outcome.release} ({kernel.version}): {tried(outcome)}; {outcome.seconds:.0f} s"
    for title, lacking in outcome.probes.items():
        if lacking is not None:
            yield f"  no {title}: {lacking}"
    for reason, count in Counter(came for came in outcome.tests.values() if came.startswith("skipped")).items():
        yield f"  {count} {reason}"
    for test, came in outcome.tests.items():
        if came == "failed":
            yield f"  failed: {test}"


def tried(outcome: Outcome) -> str:
    counts = Counter(came.partition(":")[0] for came in outcome.tests.values())
    told = ", ".join(f"{counts[what]} {what}" for what in ("passed", "skipped", "failed") if counts[what])
    return f"{told or 'no test ran'}{'' if outcome.finished else ', and it did not come to an end'}"


def row(name: str, kernel: Kernel, outcome: Outcome) -> str:
    """Tried in a guest where that came up, else read from the kernel's configuration."""
    if outcome.probes:
        cells = ["yes" if outcome.probes.get(probe.title, "") is None else "no" for probe in PROBES]
        how = f"run: {tried(outcome)}"
    else:
        cells = ["(yes)" if all(option in kernel.config for option in probe.options) else "(no)" for probe in PROBES]
        how = "read: its configuration"
    return f"| {' | '.join([name, kernel.version, how, *cells])} |"


def note(document: Path, name: str, kernel: Kernel, outcome: Outcome) -> None:
    """Put the row into the document's table, where kernels.txt has it; what was run is not replaced by what is read."""
    before, _, rest = document.read_text(encoding="utf-8").partition(f"{BEGIN}\n")
    table, _, after = rest.partition(END)
    rows = {line.split(" | ")[0].strip("| "): line for line in table.splitlines()[2:]}
    if outcome.probes or " | run: " not in rows.get(name, ""):
        rows[name] = row(name, kernel, outcome)
    listed = [rows[package.name] for package in packages() if package.name in rows]
    lines = [f"| {' | '.join(TITLES)} |", "|---" * len(TITLES) + "|", *listed]
    document.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}", encoding="utf-8")
