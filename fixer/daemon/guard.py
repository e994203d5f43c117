"""What the operator wants, obeyed: the rule is put in place when a daemon starts that serves its queue."""

from __future__ import annotations

from collections.abc import Callable

from fixer.config import Settings
from fixer.errors import FixerError
from fixer.host.machine import Host
from fixer.host.operator import operator
from fixer.rules import wanted
from fixer.rules.selection import Selection
from fixer.telemetry.log import Saying, state_change


class Guard:
    """One daemon's, for the rule that leads to its queues."""

    def __init__(self, settings: Settings, host: Host, say: Callable[[Saying], None]) -> None:
        """``say`` takes a line for the log and does not wait."""
        self._settings = settings
        self._host = host
        self._say = say

    def begin(self) -> None:
        """Once the queues are bound: do what is wanted. Whatever is in the way, packets are served."""
        try:
            found = wanted.read(self._host)
            if found is None and self._settings.rule.at_boot:
                selection = Selection.of(self._settings)
                wanted.on(self._host, selection, by=operator(self._host), reason="rule.at_boot")
            elif found and found.selection and found.selection.queue == self._settings.queue.number:
                wanted.obey(self._host)
        except FixerError as error:
            self._say(state_change("degraded", f"the rule that is wanted is not in place: {error}"))
