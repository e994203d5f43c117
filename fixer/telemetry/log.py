"""The log: JSON lines in ECS, one thread that writes them, and the fields that all of them have.

Field names are those of the Elastic Common Schema; what it has no field for lives under ``fixer.*``.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TextIO, cast

from fixer import __version__

if TYPE_CHECKING:
    import structlog

DRAIN_SECONDS = 0.1
"""How long an event may wait for the log. At most ``Pipeline.drain``'s default are told in that time."""


Level = Literal["info", "warning", "error"]


class Saying(NamedTuple):
    """A line for the log."""

    level: Level
    message: str
    fields: dict[str, Any]


def header(
    dataset: str,
    action: str,
    *,
    kind: str = "event",
    category: str = "network",
    types: Sequence[str] = ("info",),
    when_ns: int | None = None,
) -> dict[str, Any]:
    """The fields by which ECS tells events apart. Without ``when_ns`` (since the epoch) it is told when it happens."""
    return ({} if when_ns is None else {"@timestamp": timestamp(when_ns)}) | {
        "event.dataset": dataset,
        "event.kind": kind,
        "event.category": [category],
        "event.type": list(types),
        "event.action": action,
    }


def timestamp(nanoseconds: int) -> str:
    """Nanoseconds since the epoch as ECS writes a time, to the millisecond."""
    moment = datetime.fromtimestamp(nanoseconds // 1_000_000 / 1000, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Change(NamedTuple):
    level: Level
    type: str
    outcome: str


_CHANGES = {
    "started": _Change("info", "start", "success"),
    "stopped": _Change("info", "end", "success"),
    "reloaded": _Change("info", "change", "success"),
    "degraded": _Change("warning", "info", "failure"),
    "not-reloaded": _Change("warning", "info", "failure"),
    "failed": _Change("error", "end", "failure"),
}


def state_change(action: str, message: str, fields: dict[str, Any] | None = None) -> Saying:
    """A line about fixer itself; ``action``: a key of ``_CHANGES``."""
    change = _CHANGES[action]
    head = header("fixer.daemon", action, category="process", types=[change.type])
    return Saying(change.level, message, head | {"event.outcome": change.outcome} | (fields or {}))


@contextmanager
def taken_for_missing(package: str) -> Iterator[None]:
    """While it lasts, whoever imports the package for the first time finds what he finds where it is not installed."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # "ModuleNotFoundError is raised": the language reference
    try:
        yield
    finally:
        del sys.modules[package]


def logger(stream: TextIO) -> structlog.typing.FilteringBoundLogger:
    """A logger that writes ECS JSON lines to ``stream``, one write and one flush each."""
    # structlog draws tracebacks with rich where there is one. We draw none: that would be a sixth of a daemon's memory.
    with taken_for_missing("rich"):
        import structlog
    import ecs_logging

    formatter = cast("structlog.typing.Processor", ecs_logging.StructlogFormatter(ensure_ascii=False))
    bare: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(stream),
        processors=[formatter],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
    )
    return bare.bind(**{"service.name": "fixer", "service.version": __version__, "event.module": "fixer"})


class Teller(threading.Thread):
    """The only thread that writes the log: what happened to packets, and what the daemon says of itself.

    If whoever reads the log is slow, this thread waits, the ring fills and counts what it lost; no packet waits. A line
    that cannot be written (a closed pipe, a full disk) is given up: traffic is worth more than its description.
    """

    def __init__(self, happened: Callable[[], Iterable[Saying]], stream: TextIO) -> None:
        """``happened`` takes what the rings hold out of them."""
        super().__init__(name="teller", daemon=True)
        self.failed = False
        """Whether a line could not be written."""
        self._happened = happened
        self._log = logger(stream)
        self._said: SimpleQueue[Saying] = SimpleQueue()
        self._over = threading.Event()

    def say(self, saying: Saying) -> None:
        """A line of the daemon's own, from any thread; does not wait."""
        self._said.put(saying)

    def run(self) -> None:
        while not self._over.wait(DRAIN_SECONDS):
            self._tell_said()
            self.tell()
        while self.tell():
            pass
        self._tell_said()

    def tell(self) -> int:
        """Write what has happened; how many lines that were."""
        count = 0
        for saying in self._happened():
            self._write(saying)
            count += 1
        return count

    def finish(self, seconds: float, last: Saying) -> bool:
        """Let the rest and this last line be written, for at most ``seconds``; False if the log is stuck or broken."""
        self._over.set()
        self.say(last)
        self.join(seconds)
        return not (self.is_alive() or self.failed)

    def _tell_said(self) -> None:
        while not self._said.empty():
            self._write(self._said.get())

    def _write(self, saying: Saying) -> None:
        try:
            getattr(self._log, saying.level)(saying.message, **saying.fields)
        except OSError:
            self.failed = True
