"""The daemon's report: a small JSON file, rewritten about once a second, that ``fixer status`` reads.

It says what only the daemon knows (packets by diagnosis and action, what the kernel granted); what the kernel shows,
``status`` asks the kernel.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from fixer import __version__
from fixer.config import Settings
from fixer.datapath.flows import Flows
from fixer.datapath.pipeline import Pipeline
from fixer.nfqueue.queue import Queue


class Report:
    """One file, there as long as its daemon serves. A report that cannot be written costs the service nothing."""

    def __init__(
        self,
        path: str,
        settings: Settings,
        lanes: Sequence[tuple[int, Queue, Pipeline]],
        rule_packets: dict[str, int | None],
        flows: Flows | None = None,
    ) -> None:
        """``rule_packets``: what our rules had matched before the queues were bound, see ``rules.rule_packets``.

        ``lanes``: each queue's number, the queue and the packet path behind it.
        """
        self.path = Path(path)
        self.lanes = lanes
        self.flows = flows
        self.constant: dict[str, Any] = {
            "pid": os.getpid(),
            "version": __version__,
            "queue": settings.queue.number,
            "started": _now(),
            "monitor": settings.monitor,
            "plain": settings.plain,
            "timestamps": settings.timestamps.mode,
            "rule_packets_at_start": rule_packets,
            "queues": settings.queue.count,
            "asked": {"fail_open": settings.queue.fail_open, "gso": settings.queue.gso},
            "flags": lanes[0][1].flags,
        }

    def write(self) -> OSError | None:
        """Replace the file, whole or not at all. Returns what was in the way, if anything."""
        report = self.constant | {
            "updated": _now(),
            "counters": total([pipeline.counters() for _, _, pipeline in self.lanes]),
            "queue_counters": total([queue.counters() for _, queue, _ in self.lanes]),
        }
        if self.flows:
            report["flows"] = self.flows.counters()
        fresh = self.path.with_suffix(".new")
        try:
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            fresh.write_bytes(msgspec.json.encode(report))
            fresh.replace(self.path)
        except OSError as error:
            return error
        return None

    def remove(self) -> None:
        """At a stop: a report of nobody would only confuse. (One left by kill -9 is told by its pid.)"""
        try:
            self.path.unlink(missing_ok=True)
        except OSError:
            return

    def counters(self) -> dict[str, Any]:
        """Everything the daemon counts, all queues together."""
        counted = total([pipeline.counters() | queue.counters() for _, queue, pipeline in self.lanes])
        return counted | {"flows": self.flows.counters()} if self.flows else counted


def total(counted: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The sum of counters of one shape: numbers, and dictionaries of numbers."""
    return {
        name: total([each[name] for each in counted])
        if isinstance(value, dict)
        else sum(each[name] for each in counted)
        for name, value in counted[0].items()
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
