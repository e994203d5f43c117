"""What systemd is told: that the queues are served, what is done with packets, and that no queue's thread is stuck.

The protocol is a datagram of ``NAME=value`` lines (sd_notify(3)). Where nobody asked for it, nobody is told.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from fixer.daemon.lanes import Lane

SEND_SECONDS = 1.0
"""How long a message may wait for room: the service manager has other services."""

LOOKS = 6
"""At the queues in the time after which the watchdog bites: an idle one turns once a second."""


def notify(*lines: str) -> None:
    """Send the lines to whoever started us with ``NOTIFY_SOCKET``. A message that cannot be sent is given up."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(SEND_SECONDS)
        manager.connect("\0" + address[1:] if address.startswith("@") else address)
        manager.send("\n".join(lines).encode())


def ready() -> None:
    """The queues are bound and what is wanted is done; or a reload is over."""
    notify("READY=1")


def status(line: str) -> None:
    notify(f"STATUS={line}")


def reloading() -> None:
    """A reload begins. systemd tells it from an earlier one by the time."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping() -> None:
    notify("STOPPING=1")


def watchdog_seconds() -> float | None:
    """After how long without a word systemd kills us; None if it does not (sd_watchdog_enabled(3))."""
    microseconds, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not microseconds.isdecimal() or (pid and pid != str(os.getpid())):
        return None
    return int(microseconds) / 1e6 or None


class Watchdog(threading.Thread):
    """Says that all is well as often as every queue's loop has turned since it last said so.

    An idle queue's loop turns, one whose thread is stuck does not. A thread of its own, because what the main thread
    does beside the packets (iptables waits for its lock) may take longer and harms none.
    """

    def __init__(self, lanes: Sequence[Lane], seconds: float) -> None:
        """``seconds``: after which the watchdog bites."""
        super().__init__(name="watchdog", daemon=True)
        self._lanes = lanes
        self._pause = seconds / LOOKS
        self._over = threading.Event()

    def run(self) -> None:
        before = self._turns()
        while not self._over.wait(self._pause):
            turns = self._turns()
            if all(now != then for now, then in zip(turns, before, strict=True)):
                notify("WATCHDOG=1")
                before = turns

    def stop(self) -> None:
        self._over.set()

    def _turns(self) -> list[int]:
        return [lane.queue.turns for lane in self._lanes]
