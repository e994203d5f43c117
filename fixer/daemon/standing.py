"""What the daemon is at, in one line for ``systemctl status``."""

from __future__ import annotations

from typing import Any

from fixer.now import Now
from fixer.telemetry.events import Saying

LATELY_SECONDS = 60.0
"""How long after the last repair the daemon is said to be repairing."""
NAMED = 3
"""VTEPs that are named; of more it is said that there are."""
_REMEMBERED = 16


class Standing:
    """Counters say whether packets are repaired, the log's lines whose they are. (Plain packets have no VTEP.)"""

    def __init__(self, monitor: bool) -> None:
        self.monitor = monitor
        """Whether all of it is only what would be done."""
        self._senders: dict[str, float] = {}
        """By VTEP, the latest last: steady seconds of its last packet that was told."""
        self.refused = ""
        """Why the configuration is not the one that is on disk."""
        self._repaired = 0
        self._when = float("-inf")
        """Steady seconds of the last time that ``_repaired`` had grown."""

    def note(self, saying: Saying, now: Now) -> None:
        """A line that was logged; from another thread than :meth:`words`."""
        sender = saying.fields.get("fixer.vtep.source.ip")
        if sender and saying.fields.get("fixer.policy") == "repair":
            self._senders.pop(sender, None)
            self._senders[sender] = now.steady
            if len(self._senders) > _REMEMBERED:
                del self._senders[next(iter(self._senders))]

    def words(self, counters: dict[str, Any], now: Now, in_kernel: int = 0) -> str:
        """The line. ``counters``: of all pipelines together, as :meth:`Pipeline.counters` has them; ``in_kernel``:
        packets that the kernel has finished, and no pipeline saw."""
        packets, repaired = counters["packets"] + in_kernel, counters["would"]["repair"] + in_kernel
        dropped = counters["would"]["drop"]
        if repaired != self._repaired:
            self._repaired, self._when = repaired, now.steady
        if not packets:
            line = "listening; no packet has come yet"
        elif not repaired:
            line = f"listening; {_packets(packets)}, none to repair"
        elif now.steady - self._when < LATELY_SECONDS:
            line = f"{'would repair' if self.monitor else 'repairing'}{self._for_whom(now)}; {_packets(repaired)}"
        else:
            done = "to repair" if self.monitor else "repaired"
            line = f"listening; {_packets(repaired)} {done}, none in the last minute"
        if dropped:
            line += f", {dropped:,} {'to drop' if self.monitor else 'dropped'}"
        if in_kernel:
            line += f" ({_packets(in_kernel)} in the kernel)"
        return line + (f"; not reloaded: {self.refused}" if self.refused else "")

    def _for_whom(self, now: Now) -> str:
        lately = [sender for sender, when in list(self._senders.items()) if now.steady - when < LATELY_SECONDS]
        if not lately:
            return ""
        named = ", ".join(lately[: -NAMED - 1 : -1]) + (" and others" if len(lately) > NAMED else "")
        return f" for VTEP {named}" if len(lately) == 1 else f" for VTEPs {named}"


def _packets(count: int) -> str:
    return f"{count:,} packet{'' if count == 1 else 's'}"
