"""``fixer scan``: a capture through the same datapath as the wire, so that a report can never disagree with it.

Every IP packet of a file goes through the file's own `Pipeline`, with the capture's clock and as if it came from a
wire; what was found is counted by a `Census`, put into words and, if asked for, written as a repaired capture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fixer.capture.frames import Frame, Frames
from fixer.capture.link import NOT_IP
from fixer.capture.open import READ, Capture, link_words
from fixer.capture.source import STDIN
from fixer.capture.write import CaptureWriter, mended
from fixer.config import Settings
from fixer.datapath.pipeline import Pipeline
from fixer.datapath.repair import Action
from fixer.datapath.result import Result
from fixer.datapath.walk import Reason
from fixer.errors import CaptureDamaged, CommandWrong, FixerError
from fixer.findings.census import Census
from fixer.findings.finding import Finding
from fixer.findings.names import named
from fixer.findings.sender import Counts, Door, Sender
from fixer.findings.sentences import findings
from fixer.findings.tally import Tally, new_census
from fixer.findings.words import some_of

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
    warnings: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return "standard input" if self.path == STDIN else str(self.path)

    @property
    def readable(self) -> bool:
        """Whether there is anything to say of it but its error."""
        return self.error is None or (isinstance(self.error, CaptureDamaged) and self.tally.frames > 0)

    def findings(self) -> list[Finding]:
        """What to say of what is in it."""
        return findings(self.tally, self.settings.vxlan.ports, plain=self.settings.plain)


def scan_file(
    path: Path, settings: Settings, write: Path | None = None, step: Step | None = None, taken_on: bytes = b""
) -> Report:
    """Read one file to its end, or to where it is damaged; the report holds what was found until then.

    taken_on: an address of the host that captured it, 6 bytes of Ethernet or 4 or 16 of IP, where the user says so.

    Raises CommandWrong if `write` cannot hold its frames.
    """
    pipeline = pipeline_for(settings)
    census = new_census()
    report = Report(path, settings, Tally(Door.TOLD if taken_on else Door.CAPTURE))

    try:
        with Capture(path, taken_on) as capture, ExitStack() as outputs:
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
            report.tally.unread = capture.unread
            report.warnings = warnings_of(capture)
        if write is not None:
            report.tally.take(census)
            report.written = what_was_written(write, report.tally)
    except CommandWrong:
        raise  # not the file's fault
    except FixerError as error:
        report.error = error
    report.tally.finish(census)
    return report


def frame_of(path: Path, number: int, settings: Settings) -> tuple[Frame, Result | None]:
    """Frame `number` (from 1 on) of a capture, and what the datapath says of it after all those before; None where it
    has no IP packet. Raises CommandWrong if there are not so many."""
    pipeline, census, unused = pipeline_for(settings), new_census(), Tally()
    with Capture(path) as capture:
        for frames in capture.batches():
            if number > capture.frames:
                judge(frames, pipeline, census, unused)
                continue
            for at in range(len(frames) - (capture.frames - number)):
                frame = frames[at]
                result = None
                if frame.ip_at != NOT_IP:
                    packet = bytearray(frame.data[frame.ip_at :])
                    result = pipeline.examine(packet, frame.wire_length - frame.ip_at, when_ns=frame.when_ns)
            return frame, result
        raise CommandWrong(f"--show {number}: {path} has {frames_words(capture.frames)}")


def pipeline_for(settings: Settings) -> Pipeline:
    """The wire's datapath for a capture. It is never changed, so monitoring means nothing, and must not keep --write
    from mending; and no device speaks for a packet in a file."""
    return Pipeline(**(settings.datapath() | {"monitor": False, "trust_device": False, "timestamps": "off"}))


def warnings_of(capture: Capture) -> list[str]:
    """What a capture holds that was not read."""
    said = [
        f"{frames_words(count)} of {link_words(kind)} not read: fixer reads {READ}"
        for kind, count in capture.unread.items()
    ]
    return [*said, capture.warning] if capture.warning else said


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
                raise CommandWrong(
                    f"--write: {self._capture.path} mixes link layers, a pcap file has one: split it first"
                )
            self._writer.write(frame if frame.data == was else mended(frame, was))


def what_was_written(write: Path, tally: Tally) -> str:
    if not tally.frames:
        return f"{write}: not written, there are no frames."
    mended = sum(
        packets.count
        for sender in tally.everybody()
        for row, packets in sender.rows.items()
        if row.action is Action.REPAIR
    )
    words = f"{write}: {frames_words(tally.frames)} written, {mended:,} of them repaired"
    if corrupt := tally.total.corrupt:
        words += f"; {corrupt:,} corrupt, written as they came because nothing can repair such"
    return f"{words}."


def others_of(report: Report) -> Counter[str]:
    """What is neither VXLAN nor judged without a tunnel, by what it is."""
    found = named(report.tally.strangers, ip=not report.settings.plain)
    if unread := report.tally.unread.total():
        found["of a link type that is not read"] = unread
    return found


def frames_words(count: int) -> str:
    return some_of(count, "frame")


def as_object(report: Report) -> dict[str, Any]:
    """The report as `--json` prints it; docs/scan.md describes the keys."""
    tally = report.tally
    diagnoses: Counter[str] = Counter()
    reasons: Counter[str] = Counter({reason.name.lower(): count for reason, count in tally.other.items()})
    for sender in tally.everybody():
        for row, packets in sender.rows.items():
            diagnoses[row.diagnosis.name.lower()] += packets.count
            if row.reason is not Reason.NONE:
                reasons[row.reason.name.lower()] += packets.count
    said = report.findings()
    if not report.readable:
        return {"file": str(report.path), "error": str(report.error)}
    found: dict[str, Any] = {
        "file": str(report.path),
        "frames": tally.frames,
        **of_counts(tally.total),
        "plain": tally.plain,
        "not_ip": tally.not_ip,
        "other": tally.other.total(),
        "others_by_name": dict(others_of(report)),
        "diagnoses": dict(diagnoses),
        "reasons": dict(reasons),
        "vteps": {address: of_sender(sender) for address, sender in tally.vteps.items()},
        "senders": {address: of_sender(sender) for address, sender in tally.senders.items()},
        "findings": [finding.as_object() for finding in said],
    }
    if any(sender.packets for sender in tally.others.values()):
        found["others"] = {name: of_counts(tally.others[name == "vteps"].counts) for name in ("vteps", "senders")}
    if tally.unread:
        found["not_read"] = dict(tally.unread)
    if report.warnings:
        found["warnings"] = report.warnings
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
    return {**of_counts(sender.counts), "vnis": sender.vnis(sender.rows)}
