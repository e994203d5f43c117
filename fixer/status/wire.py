"""Whether the VXLAN that arrives has met the rules: a look of two seconds at the kernel's own counters."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

from msgspec import Struct

from fixer.host import tunnels
from fixer.host.arriving import Arriving
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
    came: int = 0
    """VXLAN that came in for this host, seen before any rule and before eBPF at tc; 0 too if that cannot be seen."""

    @property
    def passes_by(self) -> bool:
        """Whether VXLAN arrives, and none of it meets the rules."""
        return max(self.arrived, self.came) >= ENOUGH and self.met == 0


def look(
    host: Host,
    devices: Sequence[Tunnel],
    ports: Collection[int],
    rules: int,
    queued: Callable[[], int],
    counted: Callable[[], int],
) -> Wire | None:
    """Watch the devices whose packets arrive here; None if there are none that are up, or the kernel does not count.

    ``rules``, which take these ``ports``, have counted so much before, and ``counted`` asks them again; ``queued`` asks
    the queues, which costs nothing. Ends as soon as a packet was queued.
    """
    names = tuple(each.name for each in devices if each.is_up and each.ends_here)
    queue = queued()
    first = tunnels.received(host, names)
    if first is None:
        return None
    began = time.monotonic()
    arrived = came = 0
    with _arriving(ports) as coming:
        while time.monotonic() - began < (LOOK_SECONDS if arrived or came else IDLE_SECONDS):
            time.sleep(_STEP_SECONDS)
            arrived, came = (tunnels.received(host, names) or first) - first, coming()
            if queued() != queue:
                return Wire(names, arrived, max(queued() - queue, 1), came)
    return Wire(names, arrived, counted() - rules if arrived or came else 0, came)


@contextmanager
def _arriving(ports: Collection[int]) -> Iterator[Callable[[], int]]:
    """Counts VXLAN as it comes in, where that may be done."""
    try:
        found = Arriving(ports)
    except OSError:
        yield lambda: 0
        return
    try:
        yield found.packets
    finally:
        found.close()
