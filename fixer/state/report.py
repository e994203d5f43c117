"""The daemon's report: a small file, rewritten about once a second, that ``fixer status`` reads.

It says what only the daemon knows (packets by diagnosis and action, what the kernel granted); what the kernel shows,
``status`` asks the kernel.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from fixer.config import TimestampMode
from fixer.errors import FixerError
from fixer.host.machine import Host
from fixer.host.queues import Listener
from fixer.state import place

Moment = Annotated[datetime, Meta(tz=True)]
Counters = dict[str, int | dict[str, int]]
"""By name: a number, or the numbers of a table by what it tells apart."""


class Flags(Struct, frozen=True):
    """What the kernel's queue can be asked for."""

    fail_open: bool = False
    gso: bool = False


class InKernel(Struct, frozen=True, kw_only=True):
    """What the kernel finishes at the daemon's word (docs/kernel.md)."""

    wanted: bool
    overlay_ends_here: bool = False
    """Whether packets are marked as verified where they can be, and not summed."""
    interfaces: dict[str, str] = {}
    """Where the program stands, and how it is attached there: "TCX" or "clsact"."""
    ahead: dict[str, int] = {}
    """How many programs of others a packet meets before it, by interface, where there are any."""
    envelopes: int = 0
    """Those that it finishes now."""
    packets: int = 0
    """Finished since the daemon started."""
    vteps: dict[str, int] = {}
    """Of whom: the busiest first."""
    left: dict[str, int] = {}
    """What looked unfinished to the program and was left to the queue, by why."""
    trouble: str = ""
    """Why it is not everywhere where it should be."""


class Evidence(Struct, frozen=True):
    """A fact that shows it."""

    what: str
    packets: int
    frame: int = 0


class LogLines(Struct, frozen=True):
    """What became of the lines of the log."""

    written: int = 0
    lost: int = 0
    """No reader, a full disk, or more than could be written in time."""


class OpenFinding(Struct, frozen=True, kw_only=True):
    """A conclusion that holds now, as `fixer/data/finding.schema.json` describes it; and its life so far."""

    id: str
    since: Moment
    last: Moment
    """When its last packet came."""
    who: str
    role: str
    cause: str
    verdict: str
    text: str
    packets: int
    of: int
    vnis: tuple[int, ...]
    taken: str
    evidence: tuple[Evidence, ...]
    cure: str
    kernel: str
    samples: str = ""
    """The file that holds some of its packets, see :mod:`fixer.state.samples`."""


class Report(Struct, frozen=True, kw_only=True):
    """One daemon, as it was at ``updated``."""

    pid: int
    version: str
    queue: int
    """The first of ``queues`` that it serves."""
    queues: int = 1
    started: Moment
    updated: Moment
    monitor: bool
    plain: bool
    ports: tuple[int, ...] = ()
    """What it reads as VXLAN."""
    timestamps: TimestampMode = "off"
    rule_packets_at_start: dict[str, int | None] = {}
    """What our rules had sent to its queues when it had bound them, by family."""
    asked: Flags
    flags: Flags
    """Which of them the kernel granted."""
    counters: Counters
    """All packet paths together."""
    queue_counters: dict[str, int]
    flows: dict[str, int | bool] | UnsetType = UNSET
    """The flow table's figures, where timestamps are normalised."""
    kernel: InKernel | UnsetType = UNSET
    """Where the scope is or was ``kernel``."""
    findings: tuple[OpenFinding, ...] = ()
    """The worst first."""
    log: LogLines = LogLines()
    confined: tuple[str, ...] = ()
    """What holds each thread that handles packets, see :mod:`fixer.kernel.confined`."""

    def table(self, name: str) -> dict[str, int]:
        """One table of the ``counters``; empty if there is none of that name."""
        found = self.counters.get(name)
        return found if isinstance(found, dict) else {}

    def numbers(self) -> dict[str, int]:
        """Those of the ``counters`` that are no tables."""
        return {name: value for name, value in self.counters.items() if isinstance(value, int)}


def path_of(host: Host, queue: int) -> Path:
    """The file of the daemon whose first queue this is, in the host's network namespace."""
    return place.path_of(host, "json", queue)


def read(path: Path) -> Report | None:
    """The report; None if there is none. Raises :class:`ValueError` if it is no report of a daemon of ours."""
    content = place.read(path)
    if content is None:
        return None
    try:
        return msgspec.json.decode(content, type=Report)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None


def write(path: Path, report: Report) -> None:
    """Raises :class:`fixer.errors.SystemRefused`."""
    place.write(path, place.as_json(report))


def every(host: Host) -> list[Report]:
    """Those of all daemons of this network namespace that live."""
    found = []
    for path in place.every(host, "json"):
        with suppress(ValueError, FixerError):
            each = read(path)
            if each and host.exists(f"/proc/{each.pid}"):
                found.append(each)
    return found


def is_ours(host: Host, listener: Listener) -> bool:
    """Whether a daemon of ours is bound there: the process that reports, or is called so; one that reports, where
    nobody can see the process."""
    if listener.process == "fixer":
        return True
    return any(each.pid == listener.pid or listener.pid is None for each in every(host))


def remove_unused(host: Host) -> None:
    """Remove the reports of this network namespace that a daemon left which was killed."""
    for path in place.every(host, "json"):
        try:
            report = read(path)
        except ValueError:
            report = None
        if report is None or not host.exists(f"/proc/{report.pid}"):
            place.remove(path)
