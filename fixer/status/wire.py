"""Whether what comes out of the VXLAN devices has met the rules: a look of two seconds at the kernel's own counters."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from msgspec import Struct

from fixer.host import tunnels
from fixer.host.machine import Host
from fixer.host.tunnels import Tunnel

LOOK_SECONDS = 2.0
IDLE_SECONDS = 0.3
"""When nothing at all has arrived after so long, there is nothing to wait for."""
_STEP_SECONDS = 0.1

ENOUGH = 3
"""So many packets are no accident: one that was on its way when the rule was read may be among them."""


class Wire(Struct, frozen=True):
    """What a look has seen."""

    devices: tuple[str, ...]
    arrived: int
    """Packets that the devices handed out."""
    met: int
    """Packets that the rules counted meanwhile."""

    @property
    def passes_by(self) -> bool:
        """Whether VXLAN arrives, and none of it meets the rules."""
        return self.arrived >= ENOUGH and self.met == 0


def look(
    host: Host, devices: Sequence[Tunnel], rules: int, queued: Callable[[], int], counted: Callable[[], int]
) -> Wire | None:
    """Watch the devices whose packets arrive here; None if there are none that are up, or the kernel does not count.

    ``rules`` have counted so much before, and ``counted`` asks them again; ``queued`` asks the queues, which costs
    nothing. Ends as soon as a packet was queued.
    """
    names = tuple(each.name for each in devices if each.is_up and each.ends_here)
    queue = queued()
    first = tunnels.received(host, names)
    if first is None:
        return None
    began = time.monotonic()
    arrived = 0
    while time.monotonic() - began < (LOOK_SECONDS if arrived else IDLE_SECONDS):
        time.sleep(_STEP_SECONDS)
        arrived = (tunnels.received(host, names) or first) - first
        if queued() != queue:
            return Wire(names, arrived, max(queued() - queue, 1))
    return Wire(names, arrived, counted() - rules if arrived else 0)
