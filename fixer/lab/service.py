"""``fixer`` on one host of the laboratory, as its operator runs it: ``run``, ``on``, a look at the log, ``off``.

And as fate would have it: killed, and started again.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fixer import config
from fixer.errors import QueueBusy, SystemRefused
from fixer.host import queues
from fixer.host.machine import Completed
from fixer.lab.net import Namespace, own_name, stop
from fixer.state import leftovers

NOBODY_LISTENS_YET = 3
START_SECONDS = 120.0  # a start takes half a second; an emulated machine that shares its CPUs may need so long


class Service:
    """The daemon and its rules in ``here`` while the context lasts.

    ``settings`` is the text of its configuration file; ``run``, ``on`` and ``off`` are added to ``fixer run``,
    ``fixer on`` and ``fixer off`` (``on`` None: the rules are somebody else's). ``without``: capabilities that the
    daemon lacks. ``through``: the words that it is started through, as in ``env NAME=value``.
    """

    def __init__(
        self,
        here: Namespace,
        *,
        settings: str = "",
        on: tuple[str, ...] | None = (),
        run: tuple[str, ...] = (),
        off: tuple[str, ...] = (),
        without: tuple[str, ...] = (),
        through: tuple[str, ...] = (),
    ) -> None:
        self.here = here
        self._settings = settings
        self._on = on
        self._run = run
        self._off = off
        self._without = without
        self._through = through
        self._process: subprocess.Popen[str] | None = None
        self.counters: dict[str, Any] = {}  # what it counted, once it has ended

    def __enter__(self) -> Self:
        """Start it and wait until it listens; SystemRefused with its own words if it ends instead."""
        self._directory = tempfile.TemporaryDirectory(prefix=f"{own_name()}-")
        self.log = Path(self._directory.name, "log")
        self.config = Path(self._directory.name, "fixer.toml")
        self.config.write_text(self._settings, encoding="utf-8")
        try:
            self._process = self._start()
            if self._on is not None:
                self._turn_on()  # while the daemon starts: until somebody listens, packets bypass the queue
            self._wait_until_it_listens(self._process)
        except BaseException:
            self._end()
            if self._on is not None:
                self.ask("off", *self._off)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:  # whoever looks into it asks what the daemon said
            print(self.log.read_text(encoding="utf-8"), file=sys.stderr)
        try:
            if self._on is not None:
                self._must("off", *self._off)
        finally:
            status = self._end()
        if error is None and status != 0:
            raise SystemRefused(f"fixer run ended with status {status}")

    @property
    def process(self) -> subprocess.Popen[str]:
        """The daemon's, the last one that was started."""
        if self._process is None:
            raise SystemRefused("fixer run was not started")
        return self._process

    def kill(self) -> None:
        """SIGKILL: it ends without a word and without tidying up. The rules stay, and packets bypass the queue."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """SIGSTOP, and SIGCONT at the end."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def start_again(self) -> None:
        """After ``kill``: start it, and wait until it listens; SystemRefused if it ends instead."""
        self._process = self._start()
        self._wait_until_it_listens(self._process)

    def events(self) -> list[dict[str, Any]]:
        """The log so far: one ECS document for each line; a line still being written is left for the next look."""
        lines = self.log.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def ask(self, verb: str, *arguments: str) -> Completed:
        """Run another verb of ``fixer`` beside it, with the same configuration."""
        return self.here.run(*self._command(verb, *arguments))

    def _command(self, verb: str, *arguments: str) -> tuple[str, ...]:
        config = () if verb == "off" else ("--config", str(self.config))  # off removes whatever is ours
        return (sys.executable, "-m", "fixer", verb, *config, *arguments)

    def _must(self, verb: str, *arguments: str) -> None:
        done = self.ask(verb, *arguments)
        if done.status != 0:
            raise SystemRefused(f"fixer {verb} ended with status {done.status}: {done.err.strip()}")

    def _turn_on(self) -> None:
        """``fixer on``; again where it has met a daemon that has bound its queue and not said yet who it is."""
        give_up = time.monotonic() + START_SECONDS
        while True:
            done = self.ask("on", *(self._on or ()))
            if done.status in (0, NOBODY_LISTENS_YET):
                return
            if done.status != QueueBusy.exit_code or time.monotonic() > give_up:
                raise SystemRefused(f"fixer on ended with status {done.status}: {done.err.strip()}")
            time.sleep(0.1)

    def _start(self) -> subprocess.Popen[str]:
        with self.log.open("a", encoding="utf-8") as log:
            fewer = ",".join(f"-{name}" for name in self._without)
            first = ("setpriv", f"--bounding-set={fewer}", f"--inh-caps={fewer}") if fewer else ()
            return self.here.start(*first, *self._through, *self._command("run", *self._run), stdout=log)

    def _wait_until_it_listens(self, process: subprocess.Popen[str]) -> None:
        settings = config.load(self.config)
        wanted = set(settings.queue.numbers)
        if settings.timestamps.mode == "normalise":
            wanted.add(settings.timestamps_queue)
        if "--outgoing" in (self._on or ()):
            wanted.add(settings.outgoing_queue)
        give_up = time.monotonic() + START_SECONDS
        while not wanted <= self._listened_to():
            if process.poll() is not None:
                raise SystemRefused(f"fixer run ended with status {process.returncode}: see the message above")
            if time.monotonic() > give_up:
                raise SystemRefused(f"fixer run did not listen within {START_SECONDS:g} s")
            time.sleep(0.02)

    def _listened_to(self) -> set[int]:
        """The numbers of this namespace's queues that somebody serves."""
        return set(self.here.call(queues.bound, self.here.host))

    def _end(self) -> int:
        status = stop(self._process) if self._process is not None else 0
        self.here.call(leftovers.forget, self.here.host)
        for event in self.events():
            if event["event"]["action"] == "stopped":
                self.counters = event["fixer"]["counters"]
        self._directory.cleanup()
        return status
