"""What this host sends and wants completed: its queue is open for as long as that is wanted."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress

from fixer.config import Settings
from fixer.errors import FixerError
from fixer.host import queues
from fixer.host.machine import Host
from fixer.nfqueue.finishing import Finishing
from fixer.rules.wanted import Intent
from fixer.telemetry import rules as told
from fixer.telemetry.events import Saying


class Outgoing:
    """The queue of one daemon for what leaves. The kernel does the work; open it costs nothing, whoever is stopped."""

    def __init__(self, settings: Settings, host: Host, say: Callable[[Saying], None]) -> None:
        """``say`` takes a line for the log and does not wait."""
        self._settings = settings
        self._host = host
        self._say = say
        self._open: Finishing | None = None
        self._complained = ""

    def serve_by(self, settings: Settings) -> None:
        """A reload: from the next ``follow`` on."""
        self._settings = settings

    def follow(self, wanted: Intent | None) -> None:
        """Open or close it, by what is wanted now."""
        number = self._number(wanted)
        if number == (self._open.number if self._open else None):
            return
        if self._open:
            left = self._open.number
            self.close()
            self._say(told.event("outgoing-ended", f"queue {left} is closed: what leaves is not completed any more"))
        if number is not None:
            self._begin(number)

    def close(self) -> None:
        """From now on, what is sent to it passes as it is."""
        if self._open:
            self._open.close()
            self._open = None

    def _number(self, wanted: Intent | None) -> int | None:
        """The queue that is to be open: none in monitor mode, which changes nothing."""
        selection = wanted.selection if wanted and wanted.holds(self._host.now()) else None
        if selection is None or selection.queue != self._settings.queue.number or self._settings.monitor:
            return None
        return selection.outgoing_queue

    def _begin(self, number: int) -> None:
        try:
            self._open = Finishing(number)
        except OSError as error:
            held = error.errno == errno.EPERM
            with suppress(FixerError):  # who is nobody cannot see them
                held = number in queues.bound(self._host)
            why = (
                f"queue {number} is held by another process" if held else f"the kernel refused queue {number}: {error}"
            )
            if why != self._complained:
                self._complained = why
                self._say(told.event("outgoing-failed", f"what leaves is not completed: {why}"))
        else:
            self._complained = ""
            self._say(told.event("outgoing-begun", f"queue {number} is open: what leaves is completed"))
