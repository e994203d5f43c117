"""Whether the flows of one VTEP pair reach more than one queue.

``--queue-cpu-fanout`` takes the queue of the CPU that a packet is received on, the CPU's number modulo the number of
queues (linux/net/netfilter/xt_NFQUEUE.c). Between two VTEPs only the UDP source port tells flows apart, so something
has to hash ports before: the device over its receive queues (RSS), or the kernel over CPUs (RPS, which hashes ports by
itself). ``--queue-balance`` alone hashes addresses only.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

from fixer.errors import FixerError
from fixer.host import links
from fixer.host.links import Link
from fixer.host.machine import Host

# /sys/class/net shows the network namespace that mounted it, whatever ours is: so it is mounted anew, where nobody else
# sees it. Whoever may not mount has not entered a namespace either, and the /sys that is there is the right one.
_ANEW = "mount --make-rprivate / && mount -t sysfs sysfs /sys 2>/dev/null; "
_MASKS = "cd /sys/class/net && grep -H '' */queues/rx-*/rps_cpus"
_MASK = re.compile(r"^([^/\n]+)/queues/rx-\d+/rps_cpus:([0-9a-f,]+)$", re.MULTILINE)

_SOURCE_PORT = "L4 bytes 0 & 1"  # as ethtool says it
_GROUP = 8  # hexadecimal digits between two commas of a CPU mask


class Obstacle(NamedTuple):
    """What keeps the flows of a VTEP pair in one queue, and what to type; '' if nothing is known to help."""

    what: str
    cure: str = ""

    def __str__(self) -> str:
        return f"{self.what}. Next: {self.cure}" if self.cure else self.what


def obstacles(host: Host, among: Iterable[Link], queues: int, versions: Collection[int]) -> dict[str, Obstacle | None]:
    """What keeps the flows of a VTEP pair in one of ``queues``, for each interface; None: nothing does.

    ``versions`` are those of IP on the underlay. RSS is asked of devices only: a virtual one (veth, bridge) has none.
    """
    masks = _masks(host)
    online = _numbers(host.read("/sys/devices/system/cpu/online") or "") or list(range(queues))
    return {link.name: _obstacle(host, link, masks.get(link.name, []), queues, versions, online) for link in among}


def met(host: Host, interface: str | None, queues: int, versions: Collection[int]) -> list[Obstacle]:
    """The obstacles to what arrives on ``interface``, each once; none, if the interfaces cannot be told."""
    if queues < 2 or not versions:
        return []
    try:
        carriers = links.carriers(links.every(host), interface)
    except FixerError:
        return []
    return list(dict.fromkeys(filter(None, obstacles(host, carriers, queues, versions).values())))


def _obstacle(
    host: Host, link: Link, masks: list[int], queues: int, versions: Collection[int], online: list[int]
) -> Obstacle | None:
    """``masks`` are the CPUs that RPS may choose, one bit each, for each of the device's receive queues."""
    name = link.name
    if not masks:
        return Obstacle(
            f"whether {name} spreads the flows of one VTEP pair over CPUs cannot be told: it shows no receive queues"
        )
    if all(len(_reached(_cpus(mask), queues)) > 1 for mask in masks):
        return None
    if len(masks) > 1 and not link.kind:
        hashed = {version: _hashed(host, name, version) for version in sorted(versions)}
        if all(_SOURCE_PORT in fields for fields in hashed.values()):
            return None
        if all("IP SA" in fields for fields in hashed.values()):
            cures = [f"ethtool -N {name} rx-flow-hash udp{at} sdfn" for at in hashed if _SOURCE_PORT not in hashed[at]]
            what = f"{name} hashes UDP by addresses only, so the flows of one VTEP pair all come to one queue"
            return Obstacle(what, " && ".join(cures))
    if len(_reached(online, queues)) < 2:
        which = "the CPU" if len(online) == 1 else "the CPUs"
        numbers = ", ".join(map(str, online))
        return Obstacle(f"{which} online ({numbers}) can fill one queue only", "queue.count = 1, fixer run, fixer on")
    paths = f"/sys/class/net/{name}/queues/rx-{'0' if len(masks) == 1 else '*'}/rps_cpus"
    write = f"echo {_mask(online, queues)} {'>' if len(masks) == 1 else '| tee'} {paths}"
    return Obstacle(f"{name} does not spread the flows of one VTEP pair over CPUs, so all come to one queue", write)


def _masks(host: Host) -> dict[str, list[int]]:
    """The RPS mask of each receive queue of each interface in the namespace of this thread; empty if not to be had."""
    for command in (["unshare", "--mount", "sh", "-c", _ANEW + _MASKS], ["sh", "-c", _MASKS]):
        found: dict[str, list[int]] = {}
        try:
            said = host.run(command).out
        except FixerError:
            continue
        for name, mask in _MASK.findall(said):
            found.setdefault(name, []).append(int(mask.replace(",", ""), 16))
        if found:
            return found
    return {}


def _hashed(host: Host, name: str, version: int) -> str:
    """The fields by which a device chooses the receive queue of a UDP packet, as ethtool tells; '' if it cannot."""
    try:
        return host.run(["ethtool", "-n", name, "rx-flow-hash", f"udp{version}"]).out
    except FixerError:
        return ""


def _reached(cpus: Iterable[int], queues: int) -> set[int]:
    """The queues, counted from 0, of packets that are received on these CPUs."""
    return {cpu % queues for cpu in cpus}


def _cpus(mask: int) -> list[int]:
    return [cpu for cpu in range(mask.bit_length()) if mask >> cpu & 1]


def _mask(online: Iterable[int], queues: int) -> str:
    """A CPU for each of the queues, as far as there are any, as rps_cpus takes them."""
    first: dict[int, int] = {}
    for cpu in online:
        first.setdefault(cpu % queues, cpu)
    digits = f"{sum(1 << cpu for cpu in first.values()):x}"
    head = len(digits) % _GROUP
    groups = [digits[:head], *(digits[at : at + _GROUP] for at in range(head, len(digits), _GROUP))]
    return ",".join(group for group in groups if group)


def _numbers(ranges: str) -> list[int]:
    """``0-3,8`` as numbers."""
    found: list[int] = []
    for part in filter(None, ranges.strip().split(",")):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found
