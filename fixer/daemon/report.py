"""What the daemon says of itself about once a second: fills :class:`fixer.state.report.Report` for ``fixer status``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from fixer import __version__
from fixer.config import Settings
from fixer.daemon.lanes import Lane
from fixer.datapath.flows import Flows
from fixer.errors import SystemRefused
from fixer.findings.lifecycle import Case
from fixer.state import place, report
from fixer.state.report import Flags, InKernel, LogLines, OpenFinding, Report


class Reporter:
    """One report, there as long as its daemon serves. One that cannot be written costs the service nothing."""

    def __init__(
        self,
        path: Path,
        settings: Settings,
        lanes: Sequence[Lane],
        flows: Flows | None = None,
        in_kernel: Callable[[], InKernel | None] = lambda: None,
        lines: Callable[[], dict[str, int]] = dict,
    ) -> None:
        """``in_kernel``: what the kernel finishes; ``lines``: ``written`` and ``lost`` of the log."""
        self.path = path
        self.rule_packets_at_start: dict[str, int | None] = {}
        self.lanes = lanes
        self.flows = flows
        self.in_kernel = in_kernel
        self._lines = lines
        now = _now()
        self._first = Report(
            pid=os.getpid(),
            version=__version__,
            queue=settings.queue.number,
            queues=settings.queue.count,
            started=now,
            updated=now,
            monitor=settings.monitor,
            plain=settings.plain,
            ports=settings.vxlan.ports,
            timestamps=settings.timestamps.mode,
            asked=Flags(fail_open=settings.queue.fail_open, gso=settings.queue.gso),
            flags=msgspec.convert(lanes[0].queue.flags, Flags),
            counters={},
            queue_counters={},
        )

    def count_from(self, rule_packets: dict[str, int | None]) -> None:
        """What our rules have matched so far (``switch.rule_packets``): of later ones, those in no queue passed unseen.

        To be asked once the queues are bound: what passed just before did so since nobody listened.
        """
        self.rule_packets_at_start = rule_packets
        self._first = msgspec.structs.replace(self._first, rule_packets_at_start=rule_packets)

    def serve_by(self, settings: Settings) -> None:
        """A reload: what it says of the settings is said of these from now on."""
        self._first = msgspec.structs.replace(
            self._first, monitor=settings.monitor, plain=settings.plain, timestamps=settings.timestamps.mode
        )

    def write(self, cases: Iterable[Case] = ()) -> SystemRefused | None:
        """Replace the report; ``cases``: what is open. Returns what was in the way, if anything."""
        current = msgspec.structs.replace(
            self._first,
            updated=_now(),
            counters=self.packets(),
            queue_counters=total([lane.queue.counters() for lane in self.lanes]),
            flows=self.flows.counters() if self.flows else msgspec.UNSET,
            kernel=self.in_kernel() or msgspec.UNSET,
            findings=tuple(map(_finding, cases)),
            log=self._log(),
            confined=tuple(sorted(set.intersection(*(set(lane.confined) for lane in self.lanes)))),
        )
        try:
            report.write(self.path, current)
        except SystemRefused as error:
            return error
        return None

    def _log(self) -> LogLines:
        lines = self._lines()
        # What a ring had no room for, because whoever reads the log is slow, was never a line.
        unsaid = int(self.packets().get("events_lost", 0))
        return LogLines(lines.get("written", 0), lines.get("lost", 0) + unsaid)

    def remove(self) -> None:
        """At a stop: a report of nobody would only confuse. (One left by kill -9 is told by its pid.)"""
        place.remove(self.path)

    def packets(self) -> dict[str, Any]:
        """What the packet paths count, all together."""
        return total([lane.pipeline.counters() for lane in self.lanes])

    def counters(self) -> dict[str, Any]:
        """Everything the daemon counts, all queues together."""
        counted = total([lane.pipeline.counters() | lane.queue.counters() for lane in self.lanes])
        if self.flows:
            counted["flows"] = self.flows.counters()
        if found := self.in_kernel():
            counted["kernel"] = {"packets": found.packets, **found.left}
        return counted


def total(counted: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The sum of counters of one shape: numbers, and dictionaries of numbers."""
    return {
        name: total([each[name] for each in counted])
        if isinstance(value, dict)
        else sum(each[name] for each in counted)
        for name, value in counted[0].items()
    }


def _finding(case: Case) -> OpenFinding:
    life = {"id": case.id, "since": _moment(case.since_ns), "last": _moment(case.last_ns), "samples": case.samples}
    return msgspec.convert(case.finding.as_object() | life, OpenFinding)


def _moment(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds // 1_000_000_000, tz=UTC)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
