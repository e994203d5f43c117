"""What ``fixer scan`` shows of a capture; ``--json`` prints :func:`fixer.scan.as_object` itself."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from fixer.datapath.diagnose import Diagnosis, InnerState, OuterState
from fixer.datapath.result import Result
from fixer.datapath.walk import Reason
from fixer.findings.finding import Verdict
from fixer.findings.sender import Row, Sender
from fixer.findings.sentences import MOST_SAID, MOST_VNIS
from fixer.findings.tally import Tally
from fixer.findings.verdicts import row_verdicts
from fixer.findings.words import list_words
from fixer.scan import Report, Step, frames_words, others_of
from fixer.screen.console import Console, Table, Text, exactly, say, text
from fixer.words import ACTIONS, INNER_STATES, OUTER_STATES, diagnosis_words, reason_words

LONG_FILE = 8 << 20
"""Bytes of a file that takes long enough to show progress."""

BESIDE_ADDRESS = 60
"""Columns that the others need; an IPv6 address is whole where there are more."""

STYLES = {Diagnosis.SOUND: "green", Diagnosis.UNCHECKABLE: "dim", Diagnosis.CORRUPT: "bold red"}
OTHER_STYLE = "yellow"


def show(report: Report, console: Console) -> None:
    """A table by sender and diagnosis, and what it means in sentences."""
    if not report.readable:
        return
    tally = report.tally
    vxlan, plain = tally.total.vxlan, tally.plain
    parts = [frames_words(tally.frames), f"{vxlan:,} VXLAN"]
    if report.settings.plain:
        parts.append(f"{plain:,} plain")
    if other := tally.frames - vxlan - plain:
        named = list_words(others_of(report))
        parts.append(f"{other:,} other ({named})" if named else f"{other:,} other")
    exactly(console, text((report.name, "bold"), f": {', '.join(parts)}"))
    for warning in report.warnings:
        say(console, ("!", "yellow"), f" {warning}.", indent=2)
    if tally.vteps or tally.senders:
        console.print(table(tally, console.width))
    for finding in report.findings():
        say(console, finding.text, indent=2)
    if report.written:
        say(console, report.written, indent=2)


def table(tally: Tally, width: int) -> Table:
    """The worst senders one by one, and the others together."""
    worst, others = tally.worst(MOST_SAID)
    named = [(address or "unknown", sender, row_verdicts(sender, address)) for _, address, sender in worst]
    if others.words:
        named.append((others.words, others.sender, {}))
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    longest = max(len(name) for name, *_ in named)
    whole = longest if longest <= width - BESIDE_ADDRESS else None
    shown.add_column("from", overflow="fold", min_width=whole, max_width=whole or 24)
    shown.add_column("packets", justify="right", no_wrap=True)
    shown.add_column("VNI", overflow="fold")
    shown.add_column("diagnosis")
    shown.add_column("found → right", overflow="fold")
    shown.add_column("fixer run", no_wrap=True)
    for name, sender, verdicts in named:
        for row, verdict, count in rows_of(sender, verdicts):
            shown.add_row(
                text(name),
                text(f"{count:,}"),
                text(vni_words(sender.rows[row].vnis, sender.more_vnis)),
                text((diagnosis_words(row.diagnosis, row.outer), STYLES.get(row.diagnosis, OTHER_STYLE))),
                Text("\n").join(map(text, found_words(row, sender.rows[row].example))),
                text(fate_words(row, verdict)),
            )
            name = ""
    return shown


def rows_of(sender: Sender, verdicts: dict[Row, Counter[Verdict]]) -> Iterator[tuple[Row, Verdict | None, int]]:
    """The kinds of a sender's packets, those of different verdicts apart; None where there is none."""
    for row, packets in sorted(sender.rows.items(), key=lambda item: (item[0].diagnosis, -item[1].count)):
        if row not in verdicts:
            yield row, None, packets.count
        for verdict in Verdict:
            if part := verdicts.get(row, Counter())[verdict]:
                yield row, verdict, part


def fate_words(row: Row, verdict: Verdict | None) -> str:
    """What `fixer run` does with such a packet, if it is sound or at fault; else its verdict, as the sentences say."""
    if verdict not in (None, Verdict.FAULT):
        return str(verdict)
    if row.diagnosis is Diagnosis.OUTER_IP_WRONG:
        return "never seen"  # the kernel before it drops them
    return ACTIONS[row.action]


def vni_words(vnis: set[int], more: bool) -> str:
    if more:
        return f"over {len(vnis)} VNIs"
    return ", ".join(map(str, sorted(vnis))) if len(vnis) <= MOST_VNIS else f"{len(vnis)} VNIs"


def found_words(row: Row, example: Result) -> list[str]:
    """Each layer's state, a line each; where a field is not right, as it was found in one packet and as it must be."""
    inner = INNER_STATES[row.inner]
    if row.inner in (InnerState.PARTIAL, InnerState.WRONG):
        inner = f"{inner} {example.inner_found:04x} → {example.inner_right:04x}"
    elif row.reason is not Reason.NONE:
        inner = reason_words(row.reason, row.outer)
    if row.outer is OuterState.NO_TUNNEL:
        return [inner]
    outer = OUTER_STATES[row.outer]
    if row.outer in (OuterState.PARTIAL, OuterState.STALE, OuterState.WRONG):
        outer = f"{outer} {example.outer_found:04x} → {example.outer_right:04x}"
    elif row.outer is OuterState.AGREES:
        outer = f"{outer} {example.outer_found:04x}"
    return [f"inner: {inner}", f"outer: {outer}"]


@contextmanager
def progress(path: Path) -> Iterator[Step | None]:
    """A bar on stderr while a file is read, if somebody is looking at it and the file is long enough to wait for."""
    if not sys.stderr.isatty() or not path.is_file() or path.stat().st_size < LONG_FILE:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(path.name, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
