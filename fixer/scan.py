"""``fixer scan``: a capture through the same datapath as the wire, so that a report can never disagree with it.

Every IP packet of a file goes through the file's own `Pipeline`, with the capture's clock and as if it came from a
wire; what was found is counted by a `Census`, put into words and, if asked for, written as a repaired capture.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from fixer.capture.frames import Frames
from fixer.capture.open import Capture
from fixer.capture.write import CaptureWriter, mended
from fixer.config import Settings
from fixer.datapath.diagnose import Diagnosis, InnerState, OuterState
from fixer.datapath.pipeline import Pipeline
from fixer.datapath.repair import Action
from fixer.datapath.result import Result
from fixer.datapath.walk import Reason
from fixer.errors import CaptureDamaged, FixerError
from fixer.findings.census import Census
from fixer.findings.sentences import MOST_VNIS, findings
from fixer.findings.tally import Counts, Row, Sender, Tally, new_census
from fixer.words import ACTIONS, DIAGNOSES, INNER_STATES, OUTER_STATES, REASONS

LONG_FILE = 8 << 20
"""Bytes of a file that takes long enough to show progress."""

STYLES = {Diagnosis.SOUND: "green", Diagnosis.UNCHECKABLE: "dim", Diagnosis.CORRUPT: "bold red"}
OTHER_STYLE = "yellow"


Step = Callable[[int, int], None]
"""Told how many bytes of how many have been read."""


@dataclass
class Report:
    """What one file turned out to be; `error` says why it was not read, or not to its end."""

    path: Path
    settings: Settings
    tally: Tally = field(default_factory=Tally)
    error: FixerError | None = None
    written: str = ""
    warning: str = ""

    def findings(self) -> list[str]:
        """What to say of it; nothing of a file that could not be read at all."""
        if self.error is not None and not self.tally.frames:
            return []
        return findings(self.tally, self.settings.vxlan.ports, plain=self.settings.plain)


def scan(
    files: Sequence[Path], settings: Settings, *, as_json: bool = False, write: Path | None = None, console: Console
) -> int:
    """Scan `files` in turn and print each one's report on `console`: tables and sentences, or one JSON object a line.

    write: a pcap file for the frames, with what is repairable mended. Errors go to stderr, one line a file; the exit
    code is the worst one's, 0 if every file was read to its end (whatever was found in it: a finding is no error).
    """
    if write is not None:
        refuse_to_overwrite(files, write)
    worst = 0
    for path in files:
        with progress(path) as step:
            report = scan_file(path, settings, write, step)
        if as_json:
            console.file.write(json.dumps(as_object(report)) + "\n")
        else:
            show(report, console)
        console.file.flush()  # so that an error on stderr stands behind the report it belongs to
        if report.error is not None:
            click.echo(f"fixer: error: {report.error}", err=True)
            worst = max(worst, report.error.exit_code)
    return worst


def refuse_to_overwrite(files: Sequence[Path], write: Path) -> None:
    """`write` must not be one of `files`, by whatever name; and it takes one file's frames, not several files'."""
    if len(files) > 1:
        raise click.UsageError("--write takes the frames of one FILE: scan several one at a time")
    if any(path.exists() and write.exists() and write.samefile(path) for path in files):
        raise click.UsageError(f"--write {write} is the capture that is read: choose another name")


def scan_file(path: Path, settings: Settings, write: Path | None = None, step: Step | None = None) -> Report:
    """Read one file to its end, or to where it is damaged; the report holds what was found until then."""
    # The capture itself is never changed, so monitoring means nothing here, and must not keep --write from mending. And
    # no device speaks for a packet in a file.
    pipeline = Pipeline(**(settings.datapath() | {"monitor": False, "trust_device": False, "timestamps": "off"}))
    census = new_census()
    report = Report(path, settings)

    try:
        with Capture(path) as capture, ExitStack() as outputs:
            out = None if write is None else Output(write, capture, outputs)
            try:
                for frames in capture.batches():
                    before = [frame.data for frame in frames] if out else []
                    judge(frames, pipeline, census, report.tally)
                    if out:
                        out.write(frames, before)
                    if step is not None:
                        step(capture.position, capture.size)
            except CaptureDamaged as error:
                report.error = error
            report.tally.unread, report.warning = capture.unread, capture.warning
        if write is not None:
            report.tally.take(census)
            report.written = what_was_written(write, report.tally)
    except FixerError as error:
        report.error = error
    report.tally.finish(census)
    return report


def judge(frames: Frames, pipeline: Pipeline, census: Census, tally: Tally) -> None:
    """Put each packet of `frames` through `pipeline` into `census`, and what that has no room for into `tally`."""
    done = 0
    while (done := frames.count(pipeline, census, done)) < len(frames):
        tally.take(census)


class Output:
    """Where the frames of one capture are written to, as they leave; begun when the first one is there."""

    def __init__(self, path: Path, capture: Capture, outputs: ExitStack) -> None:
        self._path = path
        self._capture = capture
        self._outputs = outputs
        self._writer: CaptureWriter | None = None
        self._link_type = 0

    def write(self, frames: Frames, before: Sequence[bytes]) -> None:
        for frame, was in zip(frames, before, strict=True):
            if self._writer is None:
                self._link_type = frame.link_type
                network = self._capture.network
                writer = CaptureWriter(self._path, frame.link_type if network is None else network)
                self._writer = self._outputs.enter_context(writer)
            elif self._link_type != frame.link_type:
                raise click.UsageError(
                    f"--write: {self._capture.path} mixes link layers, a pcap file has one: split it first"
                )
            self._writer.write(frame if frame.data == was else mended(frame, was))


def what_was_written(write: Path, tally: Tally) -> str:
    if not tally.frames:
        return f"{write}: not written, there are no frames."
    mended = sum(
        count for sender in tally.everybody() for row, count in sender.rows.items() if row.action is Action.REPAIR
    )
    words = f"{write}: {frames(tally.frames)} written, {mended} of them repaired"
    if corrupt := tally.total.corrupt:
        words += f"; {corrupt} corrupt, written as they came because nothing can repair such"
    return f"{words}."


def frames(count: int) -> str:
    return f"{count} frame{'' if count == 1 else 's'}"


def show(report: Report, console: Console) -> None:
    """A table by sender and diagnosis, and what it means in sentences."""
    # Text and not strings: rich would take `::b:` in an IPv6 address for an emoji, and `[x]` in a name for markup.
    tally = report.tally
    vxlan, plain = tally.total.vxlan, tally.plain
    parts = [frames(tally.frames), f"{vxlan} VXLAN"]
    if report.settings.plain:
        parts.append(f"{plain} plain")
    if other := tally.frames - vxlan - plain:
        parts.append(f"{other} other")
    console.print(Text.assemble((str(report.path), "bold"), f": {', '.join(parts)}"), soft_wrap=True)
    if tally.vteps or tally.senders:
        console.print(table(tally))
    for finding in report.findings():
        console.print(Padding(Text(finding), (0, 0, 0, 2), expand=False))
    if report.written:
        console.print(Padding(Text(report.written), (0, 0, 0, 2), expand=False))


def table(tally: Tally) -> Table:
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    shown.add_column("from", overflow="fold", max_width=24)
    shown.add_column("packets", justify="right", no_wrap=True)
    shown.add_column("VNI", overflow="fold")
    shown.add_column("diagnosis")
    shown.add_column("found → right", overflow="fold")
    shown.add_column("fixer run", no_wrap=True)
    for address, sender in (*sorted(tally.vteps.items()), *sorted(tally.senders.items())):
        name = address or "unknown"
        for row, count in sorted(sender.rows.items(), key=lambda item: (item[0].diagnosis, -item[1])):
            shown.add_row(
                Text(name),
                Text(str(count)),
                Text(vni_words(sender.vnis[row])),
                Text(DIAGNOSES[row.diagnosis], STYLES.get(row.diagnosis, OTHER_STYLE)),
                Text(found_words(row, sender.examples[row])),
                Text(ACTIONS[row.action]),
            )
            name = ""
    return shown


def vni_words(vnis: set[int]) -> str:
    return ", ".join(map(str, sorted(vnis))) if len(vnis) <= MOST_VNIS else f"{len(vnis)} VNIs"


def found_words(row: Row, example: Result) -> str:
    """Each layer's state on a line; where a field is not right, as it was found in one packet and as it must be."""
    inner = INNER_STATES[row.inner]
    if row.inner in (InnerState.PARTIAL, InnerState.WRONG):
        inner = f"{inner} {example.inner_found:04x} → {example.inner_right:04x}"
    elif row.reason is not Reason.NONE:
        inner = REASONS[row.reason]
    if row.outer is OuterState.NO_TUNNEL:
        return inner
    outer = OUTER_STATES[row.outer]
    if row.outer in (OuterState.PARTIAL, OuterState.STALE, OuterState.WRONG):
        outer = f"{outer} {example.outer_found:04x} → {example.outer_right:04x}"
    elif row.outer is OuterState.AGREES:
        outer = f"{outer} {example.outer_found:04x}"
    return f"inner: {inner}\nouter: {outer}"


def as_object(report: Report) -> dict[str, Any]:
    """The report as `--json` prints it; docs/scan.md describes the keys."""
    tally = report.tally
    diagnoses: Counter[str] = Counter()
    reasons: Counter[str] = Counter({reason.name.lower(): count for reason, count in tally.other.items()})
    for sender in tally.everybody():
        for row, count in sender.rows.items():
            diagnoses[row.diagnosis.name.lower()] += count
            if row.reason is not Reason.NONE:
                reasons[row.reason.name.lower()] += count
    own = {address: sender.own_capture() for address, sender in (tally.vteps | tally.senders).items()}
    found: dict[str, Any] = {
        "file": str(report.path),
        "frames": tally.frames,
        **of_counts(tally.total),
        "plain": tally.plain,
        "not_ip": tally.not_ip,
        "other": tally.other.total(),
        "diagnoses": dict(diagnoses),
        "reasons": dict(reasons),
        "vteps": {address: of_sender(sender) for address, sender in tally.vteps.items()},
        "senders": {address: of_sender(sender) for address, sender in tally.senders.items()},
        "sender_side": {address: {"packets": count, "why": why} for address, (count, why) in own.items() if count},
        "findings": report.findings(),
    }
    if report.written:
        found["written"] = report.written
    if report.error is not None:
        found["error"] = str(report.error)
    return found


def of_counts(counts: Counts) -> dict[str, Any]:
    return {
        "vxlan": counts.vxlan,
        "outer": dict(counts.outer),
        "inner": dict(counts.inner),
        "repairable": counts.repairable,
        "corrupt": counts.corrupt,
        "payload_unverified": counts.unverified,
    }


def of_sender(sender: Sender) -> dict[str, Any]:
    vnis: set[int] = set().union(*sender.vnis.values())
    return {**of_counts(sender.counts), "vnis": sorted(vnis)}


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
