"""The daemon's report: a small JSON file, rewritten about once a second, that ``fixer status`` reads.

It says what only the daemon knows (packets by diagnosis and action, what the kernel granted); what the kernel shows,
``status`` asks the kernel.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from fixer import __version__
from fixer.config import Settings
from fixer.datapath.pipeline import Pipeline
from fixer.nfqueue.queue import Queue


class Report:
    """One file, there as long as its daemon serves. A report that cannot be written costs the service nothing."""

    def __init__(
        self, path: str, settings: Settings, pipeline: Pipeline, queue: Queue, rule_packets: dict[str, int | None]
    ) -> None:
        """``rule_packets``: what our rules had matched before the queue was bound, see ``rules.rule_packets``."""
        self.path = Path(path)
        self.pipeline = pipeline
        self.queue = queue
        self.constant: dict[str, Any] = {
            "pid": os.getpid(),
            "version": __version__,
            "queue": settings.queue.number,
            "started": _now(),
            "monitor": settings.monitor,
            "plain": settings.plain,
            "rule_packets_at_start": rule_packets,
            "flags": queue.flags,
        }

    def write(self) -> OSError | None:
        """Replace the file, whole or not at all. Returns what was in the way, if anything."""
        report = self.constant | {
            "updated": _now(),
            "counters": self.pipeline.counters(),
            "queue_counters": self.queue.counters(),
        }
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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
