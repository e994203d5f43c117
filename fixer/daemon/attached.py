"""Where the program stands that finishes packets in the kernel: kept at the entry of every underlay's interface."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from fixer.errors import FixerError
from fixer.host import links
from fixer.host.machine import Host
from fixer.now import Now
from fixer.telemetry import kernel as told
from fixer.telemetry.events import Saying

if TYPE_CHECKING:
    from fixer.kernel.attachment import Attachment
    from fixer.kernel.finisher import Finisher

ANYWAY_SECONDS = 10.0
"""Between two looks at which interfaces there are, if none of ours is gone."""
MOST, MOST_SECONDS = 5, 60.0
"""So often in so many seconds it is put back on interfaces that lost it; then somebody else is as stubborn."""


class Attached:
    """The attachments of one program; interfaces come and go, and others take programs away."""

    def __init__(self, host: Host, say: Callable[[Saying], None]) -> None:
        """``say`` takes a line for the log and does not wait."""
        self._host = host
        self._say = say
        self._there: dict[str, Attachment] = {}
        self._looked = float("-inf")
        self._put_back: deque[float] = deque()
        self._said_ahead: set[str] = set()
        self.trouble = ""
        """Why it is not everywhere where it should be; '' if it is."""

    def __bool__(self) -> bool:
        return bool(self._there)

    def interfaces(self) -> dict[str, str]:
        """How it is attached, by interface."""
        return {name: each.how for name, each in self._there.items()}

    def ahead(self) -> dict[str, int]:
        """How many programs a packet meets before it, by interface, where there are any."""
        return {name: count for name, each in self._there.items() if (count := each.ahead())}

    def close(self) -> None:
        """Take it away from everywhere."""
        for each in self._there.values():
            each.close()
        self._there.clear()
        self._said_ahead.clear()
        self._looked = float("-inf")
        self.trouble = ""

    def look(self, finisher: Finisher, interface: str | None, now: Now) -> None:
        """Put it where it is missing: on what carries ``interface``, or on all that packets arrive on."""
        gone = [name for name, each in self._there.items() if not each.is_there() or index_of(name) != each.interface]
        for name in gone:
            self._there.pop(name).close()
            message = f"the program on {name} is gone: somebody took it away, or the device is another one"
            self._say(told.event("kernel-lost", message, told.at(name)))
        if not gone and now.steady - self._looked < ANYWAY_SECONDS:
            return
        self._looked = now.steady
        try:
            carriers = links.carriers(links.every(self._host), interface)
        except FixerError as error:
            self.trouble = str(error)
            return
        names = [link.name for link in carriers if link.is_ethernet]
        for name in set(self._there) - set(names):
            self._there.pop(name).close()
        self.trouble = "" if names else "no interface here brings Ethernet frames"
        for name in names:
            if name not in self._there:
                self._attach(finisher, name, name in gone, now)
        self._tell_ahead()

    def _attach(self, finisher: Finisher, name: str, again: bool, now: Now) -> None:
        from fixer.kernel.attachment import Attachment  # only here: whoever does not want it does not pay for it

        while self._put_back and now.steady - self._put_back[0] >= MOST_SECONDS:
            self._put_back.popleft()
        if len(self._put_back) >= MOST:
            self.trouble = f"{name}: somebody takes the program away again and again"
            return
        index = index_of(name)
        if index is None:
            return
        try:
            self._there[name] = Attachment(finisher, index)
        except OSError as error:
            trouble = f"{name}: the kernel takes no tc program there: {error.strerror or error}"
            if trouble != self.trouble:
                self.trouble = trouble
                self._say(told.event("kernel-failed", f"{trouble}; what is unfinished goes through the queue"))
            return
        if again:
            self._put_back.append(now.steady)

    def _tell_ahead(self) -> None:
        """Who has come before us since: not fought for, since a CNI may want to be first."""
        for name, count in self.ahead().items():
            if name not in self._said_ahead:
                self._said_ahead.add(name)
                message = f"{count} tc program{'s' * (count > 1)} of others came before ours on {name}"
                self._say(told.event("kernel-lost", f"{message}: what they end does not reach it", told.at(name)))


def index_of(name: str) -> int | None:
    """The number of an interface of this network namespace; None if there is none of that name."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None
