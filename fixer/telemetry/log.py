"""The log: JSON lines in ECS, one thread that writes them, and the fields that all of them have.

Field names are those of the Elastic Common Schema; what it has no field for lives under ``fixer.*``
(:mod:`fixer.telemetry.fields`).
"""

from __future__ import annotations

import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING, Any, Protocol, cast

from fixer import __version__
from fixer.telemetry.events import Saying, state_change
from fixer.telemetry.metrics import Delay

if TYPE_CHECKING:
    import structlog

DRAIN_SECONDS = 0.1
"""How long an event may wait for the log. At most ``Pipeline.drain``'s default are told in that time."""
SAID_MOST = 1024
"""Lines of the daemon's own that may wait for the log."""
LOST = "fixer.log.lost"


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


class Output(Protocol):
    """Where lines go. Both raise :class:`OSError` where the line is not written, and may wait for its reader."""

    def write(self, line: str, /) -> object: ...
    def flush(self) -> object: ...


class Origin:
    """What all lines of one process have in common, and what tells each of them from all other lines there are."""

    def __init__(
        self, namespace: str = "default", labels: Mapping[str, str] | None = None, tags: Sequence[str] = ()
    ) -> None:
        self._common: dict[str, Any] = {
            "service.name": "fixer",
            "service.version": __version__,
            "event.module": "fixer",
            "host.name": socket.gethostname(),
            "data_stream.type": "logs",
            "data_stream.namespace": namespace,
        }
        if labels:
            self._common["labels"] = dict(labels)
        if tags:
            self._common["tags"] = list(tags)
        self._process = secrets.token_hex(8)
        self._sequence = 0

    def mark(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The document of one more line."""
        self._sequence += 1
        return {
            **self._common,
            "data_stream.dataset": fields["event.dataset"],
            "event.id": f"{self._process}-{self._sequence}",
            "event.sequence": self._sequence,
            **fields,
        }


def logger(stream: Output) -> structlog.typing.FilteringBoundLogger:
    """A logger that writes ECS JSON lines to ``stream``, one write and one flush each."""
    # structlog draws tracebacks with rich where there is one. We draw none: that would be a sixth of a daemon's memory.
    with taken_for_missing("rich"):
        import structlog
    import ecs_logging

    formatter = cast("structlog.typing.Processor", ecs_logging.StructlogFormatter(ensure_ascii=False))
    bare: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(cast("Any", stream)),
        processors=[formatter],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
    )
    return bare


class Teller(threading.Thread):
    """The only thread that writes the log: what happened to packets, and what the daemon says of itself.

    If whoever reads the log is slow, this thread waits, the ring fills and counts what it lost; no packet waits. A line
    that cannot be written (a closed pipe, a full disk) is given up and counted: traffic is worth more than its
    description. Once lines can be written again, one says how many were lost.
    """

    def __init__(
        self,
        happened: Callable[[], Iterable[Saying]],
        stream: Output | None,
        origin: Origin | None = None,
        show: Callable[[Saying], None] | None = None,
    ) -> None:
        """``happened`` takes what the rings hold out of them. ``stream`` takes the lines, ``show`` shows them: one of
        the two, or both. Whoever is shown nothing any more (a terminal that is closed) has lost no line."""
        super().__init__(name="teller", daemon=True)
        self.delay = Delay()
        self.written = 0
        self.lost = 0
        """Lines that could not be written, or that the daemon said while there was no room for what it says."""
        self._happened = happened
        self._log = logger(stream) if stream else None
        self._show = show
        self._origin = origin or Origin()
        self._said: Queue[Saying] = Queue(SAID_MOST)
        self._unsaid = 0
        self._lost_since = 0
        self._over = threading.Event()

    @property
    def failed(self) -> bool:
        """Whether the last line could not be written."""
        return self._lost_since > 0

    def say(self, saying: Saying) -> None:
        """A line of the daemon's own, from any thread; does not wait."""
        try:
            self._said.put_nowait(saying)
        except Full:
            self._unsaid += 1

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

    def counters(self) -> dict[str, int]:
        return {"written": self.written, "lost": self.lost + self._unsaid}

    def finish(self, seconds: float, last: Saying) -> bool:
        """Let the rest and this last line be written, for at most ``seconds``; False if the log is stuck or broken."""
        self._over.set()
        self.say(last)
        self.join(seconds)
        return not (self.is_alive() or self.failed)

    def _tell_said(self) -> None:
        while True:
            try:
                self._write(self._said.get_nowait())
            except Empty:
                return

    def _write(self, saying: Saying) -> None:
        if not self._put(saying):
            self._lost_since += 1
            self.lost += 1
        elif lost := self._lost_since:
            told = state_change("log-lost", f"{lost} lines before this one could not be written", {LOST: lost})
            if self._put(told):
                self._lost_since = 0

    def _put(self, saying: Saying) -> bool:
        if self._show:
            with suppress(OSError):
                self._show(saying)
        if self._log:
            try:
                getattr(self._log, saying.level)(saying.message, **self._origin.mark(saying.fields))
            except OSError:
                return False
        self.written += 1
        if saying.when_ns is not None:
            self.delay.note((time.time_ns() - saying.when_ns) / 1e9)
        return True
