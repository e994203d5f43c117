"""What ``fixer status`` finds: rules, listeners, the daemon's report, the flow table, interfaces. Looks and judges not.

The kernel shows the first two, whoever listens. The daemon's own figures come from the report that it writes about once
a second, while it lives.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from fixer.errors import FixerError, NotPermitted
from fixer.host import links, queues, spread, tunnels
from fixer.host.links import Link
from fixer.host.machine import Host
from fixer.host.queues import Listener
from fixer.host.spread import Obstacle
from fixer.host.tunnels import Tunnel
from fixer.rules import switch, wanted
from fixer.rules.installed import Installed
from fixer.rules.selection import FAMILIES, Family
from fixer.rules.wanted import Intent
from fixer.state import baseline, flowfile, report
from fixer.state.baseline import Baseline
from fixer.state.report import Report
from fixer.status import wire
from fixer.status.wire import Wire


@dataclass(frozen=True)
class Rules:
    """One family: what is ours in each backend, the one that is on first; or why that cannot be told."""

    found: tuple[Installed, ...] = ()
    unavailable: str | None = None

    @property
    def first(self) -> Installed | None:
        return self.found[0] if self.found else None


@dataclass(frozen=True)
class Daemon:
    """What the daemon says of itself in the file ``path``."""

    path: Path
    report: Report | None = None
    """None if there is none, or its daemon is not the one that listens."""
    is_foreign: bool = False
    """What is there is no report of ours."""
    silent: float = 0.0
    """Seconds since it was written."""


@dataclass(frozen=True)
class FlowTable:
    """The queue that rules lead to where timestamps are normalised, and the table's file."""

    queue: int
    listener: Listener | None
    path: Path
    live: flowfile.Live | None = None
    trouble: str | None = None
    """Why the file cannot be read."""


@dataclass(frozen=True)
class Outgoing:
    """The queue that rules lead what leaves to, to be completed."""

    queue: int
    listener: Listener | None
    is_strange: bool
    """Whether the listener is no daemon of ours."""


@dataclass(frozen=True)
class Facts:
    """All there is to know."""

    families: dict[str, Rules]
    led: tuple[range, ...]
    """The queues that rules lead to; different ones, if the families do not agree."""
    queues: range
    """The first of them; without a rule, those asked about."""
    listeners: tuple[Listener, ...]
    """Of ``queues``."""
    bound: frozenset[int]
    """Every queue that somebody listens on."""
    daemon: Daemon
    flows: FlowTable | None
    """None if no rule of ours leads packets there."""
    outgoing: Outgoing | None
    """None if no rule of ours leads packets there."""
    noted: Baseline | None
    links: tuple[Link, ...]
    """Every interface that may belong to an underlay; none if no rule is on, or that cannot be told."""
    carriers: tuple[Link, ...]
    """Those on which our packets are received."""
    merging: dict[str, bool | None]
    obstacles: dict[str, Obstacle | None]
    """With several queues: what keeps the flows of a VTEP pair in one of them, by interface (None: nothing)."""
    now: datetime
    monitor: bool
    """Whether the configuration asks for monitor mode."""
    strangers: tuple[Listener, ...] = ()
    """Those of ``listeners`` that are no daemons of ours."""
    wanted: Intent | None = None
    misunderstood: str | None = None
    """Why it is not known what is wanted."""
    tunnels: tuple[Tunnel, ...] = ()
    """The VXLAN devices of this namespace."""
    ports: dict[int, frozenset[int]] | None = None
    """The UDP ports that are open here, by IP version."""
    is_unvisited: bool = False
    """Whether nothing has met the rules, and no socket here takes what they are for."""
    elsewhere: str | None = None
    """A namespace that has the rules' ports open, where ours has not; as a command line names it."""
    wire: Wire | None = None
    programs: dict[str, list[str]] = field(default_factory=dict)
    """eBPF programs on ``carriers``, looked for if no VXLAN has met our rules while it was watched."""

    def on(self) -> list[tuple[Family, Installed]]:
        """The families whose rules are on."""
        return [(family, first) for family in FAMILIES if (first := self.families[family.key].first) and first.on]


def look(host: Host, queue: int, count: int = 1, *, monitor: bool = False) -> Facts:
    """Ask the kernel and the daemon about the queues the rule sends to, or without one ``count`` from ``queue`` on.

    Where VXLAN devices are, that takes until a packet was queued: two seconds at the most.

    Raises :class:`NotPermitted` without root: half a status would look like a whole one.
    """
    if not host.has_net_admin():
        raise NotPermitted("the rules and the queue can only be seen by root (CAP_NET_ADMIN): sudo fixer status")
    families = {family.key: _rules(host, family) for family in FAMILIES}
    on = [each.first for each in families.values() if each.first and each.first.on]
    led = tuple(dict.fromkeys(each.queues for each in on))
    asked = led[0] if led else range(queue, queue + count)
    # The rule is read before the queue: what comes in between must not look like a loss.
    heard = tuple(queues.listeners(host, asked))
    every, ends = _links(host) if on else ((), ())
    carriers = _carriers(every, on)
    versions = {each.family.version for each in on}
    said, trouble = _wanted(host)
    open_ports = tunnels.ports(host)
    taken = frozenset(port for each in on for port in each.ports or ())
    unvisited = _is_unvisited(on, taken, open_ports)
    seen = None
    if on:
        seen = wire.look(
            host,
            ends,
            taken,
            _met(families),
            queued=lambda: _sequences(host, asked),
            counted=lambda: _met({family.key: _rules(host, family) for family in FAMILIES}),
        )
    return Facts(
        families=families,
        led=led,
        queues=asked,
        listeners=heard,
        bound=frozenset(queues.bound(host)),
        daemon=_daemon(host, asked[0], heard),
        flows=_flows(host, on, asked[0]),
        outgoing=_outgoing(host, on),
        noted=baseline.read(host),
        links=every,
        carriers=carriers,
        merging=links.merging(host, carriers),
        obstacles=spread.obstacles(host, carriers, len(asked), versions) if len(asked) > 1 else {},
        now=host.now(),
        monitor=monitor,
        strangers=tuple(each for each in heard if not report.is_ours(host, each)),
        wanted=said,
        misunderstood=trouble,
        tunnels=ends,
        ports=open_ports,
        is_unvisited=unvisited,
        elsewhere=tunnels.elsewhere(host, taken) if unvisited else None,
        wire=seen,
        programs={link.name: tunnels.programs(host, link.name) for link in carriers} if seen and not seen.met else {},
    )


def _met(families: dict[str, Rules]) -> int:
    """How many packets have met our rules so far, whatever became of them."""
    counted = [each.counted for rules in families.values() for each in rules.found]
    return sum(each.packets + each.finished + each.merged + each.arrived for each in counted)


def _is_unvisited(on: Sequence[Installed], taken: Collection[int], here: dict[int, frozenset[int]] | None) -> bool:
    """Whether nothing has met the rules, and no socket of this namespace takes what they are for."""
    if not on or not taken or here is None or any(each.counted.packets or each.counted.finished for each in on):
        return False
    return not any(ports & set(taken) for ports in here.values())


def _wanted(host: Host) -> tuple[Intent | None, str | None]:
    try:
        return wanted.read(host), None
    except NotPermitted:
        raise
    except FixerError as error:
        return None, str(error)


def _rules(host: Host, family: Family) -> Rules:
    try:
        return Rules(tuple(switch.look(host, family)))
    except NotPermitted:
        raise
    except FixerError as error:
        return Rules(unavailable=str(error))


def _daemon(host: Host, queue: int, heard: Sequence[Listener]) -> Daemon:
    """The report, if the process that wrote it is the one that listens; ``queue`` is its first."""
    path = report.path_of(host, queue)
    if not heard:
        return Daemon(path)
    try:
        found = report.read(path)
    except ValueError:
        return Daemon(path, is_foreign=True)
    if found is None or not host.exists(f"/proc/{found.pid}") or not {None, found.pid} & {each.pid for each in heard}:
        return Daemon(path)
    return Daemon(path, found, silent=(host.now() - found.updated).total_seconds())


def _flows(host: Host, on: Iterable[Installed], first: int) -> FlowTable | None:
    """``first`` is the first queue of the daemon whose table it is."""
    led = [each.flows_queue for each in on if each.flows_queue is not None]
    if not led:
        return None
    heard = queues.listeners(host, led[:1])
    listener = heard[0] if heard else None
    path = flowfile.path_of(host, first)
    try:
        return FlowTable(led[0], listener, path, flowfile.look(path))
    except (OSError, ValueError) as error:
        return FlowTable(led[0], listener, path, trouble=str(error))


def _outgoing(host: Host, on: Iterable[Installed]) -> Outgoing | None:
    led = [each.outgoing_queue for each in on if each.outgoing_queue is not None]
    if not led:
        return None
    heard = queues.listeners(host, led[:1])
    listener = heard[0] if heard else None
    return Outgoing(led[0], listener, listener is not None and not report.is_ours(host, listener))


def _sequences(host: Host, asked: range) -> int:
    """How many packets the queues have handed over."""
    found = queues.bound(host)
    return sum(found[number].sequence for number in asked if number in found)


def _links(host: Host) -> tuple[tuple[Link, ...], tuple[Tunnel, ...]]:
    try:
        found, ends = links.look(host)
    except FixerError:
        return (), ()
    return tuple(found), tuple(ends)


def _carriers(every: Sequence[Link], on: Iterable[Installed]) -> tuple[Link, ...]:
    found: dict[str, Link] = {}
    for interface in {each.interface for each in on}:
        found |= {link.name: link for link in links.carriers(every, interface)}
    return tuple(found.values())
