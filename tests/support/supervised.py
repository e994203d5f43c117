"""What systemd does to a daemon at the word of fixer.service, where systemd itself is not process 1.

It is no systemd: the directives that decide when a daemon ends and comes back are read from the unit and followed, as
systemd.service(5) says, and nothing else.
"""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from support.commands import wait_for
from support.made import ROOT

from fixer.errors import SystemRefused
from fixer.lab.service import Service

UNIT = ROOT / "systemd" / "fixer.service"


def directive(name: str) -> str:
    """The value of a directive that the unit has once."""
    values = [line.partition("=")[2] for line in UNIT.read_text().splitlines() if line.startswith(f"{name}=")]
    assert len(values) == 1, (name, values)
    return values[0]


class Restart(NamedTuple):
    """``seconds`` from the end of one process to the next one's ready; ``bitten``: by the watchdog, not by itself;
    ``attempts``: those that have ended before they served."""

    ended: str
    bitten: bool
    attempts: int
    seconds: float


class Supervisor:
    """Watchdog, restarts, and what is run after a start and after a stop."""

    def __init__(self, room: Path) -> None:
        self._watchdog = float(directive("WatchdogSec"))
        self._pause = float(directive("RestartSec"))
        self._hopeless = set(map(int, directive("RestartPreventExitStatus").split()))
        self._stop = float(directive("TimeoutStopSec"))
        assert (directive("Type"), directive("Restart")) == ("notify", "on-failure")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(room / "notify"))
        self._socket.settimeout(0.02)
        self.through = ("env", f"NOTIFY_SOCKET={room}/notify", f"WATCHDOG_USEC={self._watchdog * 1e6:.0f}")
        """What the daemon is started through."""
        self.restarts: list[Restart] = []
        self.attempts = 0
        """Starts in vain, since the daemon has ended."""
        self._over = threading.Event()
        self._asked = threading.Event()

    @contextmanager
    def keeping(self, service: Service) -> Iterator[None]:
        """Keep it alive while the context lasts."""
        self._service = service
        self._fed = time.monotonic()
        # To the kernel this thread is the parent of what it starts (PDEATHSIG): it stays until that has ended.
        threading.Thread(target=self._keep, daemon=True).start()
        try:
            yield
        finally:
            self._over.set()

    def restarted(self, seconds: float = 30.0) -> Restart:
        """The next restart, once it is done."""
        before = len(self.restarts)
        wait_for(lambda: len(self.restarts) > before, seconds)
        return self.restarts[-1]

    def restart(self) -> Restart:
        """``systemctl restart``: a stop on purpose, and a start."""
        self._asked.set()
        return self.restarted()

    def _keep(self) -> None:
        while not self._over.is_set():
            self._hear()
            process = self._service.process
            if self._asked.is_set():
                self._begin_again(stopped=True)
            elif time.monotonic() - self._fed > self._watchdog:
                process.send_signal(signal.SIGABRT)
                process.send_signal(signal.SIGCONT)  # what is stopped would take no notice
                self._wait()
                self._begin_again(bitten=True)
            elif process.poll() is not None:
                assert process.returncode not in self._hopeless, process.returncode
                self._begin_again()
        self._service.process.wait()
        self._socket.close()

    def _hear(self) -> None:
        with suppress(TimeoutError):
            if {"WATCHDOG=1", "READY=1"} & set(self._socket.recv(4096).decode().splitlines()):
                self._fed = time.monotonic()

    def _wait(self) -> None:
        process = self._service.process
        deadline = time.monotonic() + self._stop
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        process.wait()

    def _begin_again(self, *, stopped: bool = False, bitten: bool = False) -> None:
        """Over and over, until one starts (the unit's StartLimitBurst is not asked for)."""
        began = time.monotonic()
        if stopped:
            self._service.process.terminate()
            self._wait()
            # ExecStopPost: only after a stop on purpose; it refuses while normalised connections are alive.
            self._service.ask("off", "--service")
        status = self._service.process.returncode
        while not self._over.is_set():
            if not stopped or self.attempts:
                time.sleep(self._pause)
            try:
                self._service.start_again()
            except SystemRefused:
                assert self._service.process.returncode not in self._hopeless, self._service.process.returncode
                self.attempts += 1
            else:
                self._service.ask("on", "--service")  # ExecStartPost
                break
        self._fed = time.monotonic()
        ended = f"status {status}" if status >= 0 else signal.Signals(-status).name
        self.restarts.append(Restart(ended, bitten, self.attempts, time.monotonic() - began))
        self.attempts = 0
        self._asked.clear()
