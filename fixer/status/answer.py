"""``fixer status --json``: facts and what is to be said of them, as one object; :mod:`fixer.screen.status` shows it."""

from __future__ import annotations

from msgspec import Struct

from fixer.host.machine import Host
from fixer.host.queues import Listener
from fixer.host.tunnels import Tunnel
from fixer.rules.installed import Installed
from fixer.rules.selection import Scope
from fixer.rules.wanted import Intent
from fixer.state.report import Report
from fixer.status import facts, reasons, unseen
from fixer.status.facts import Facts, FlowTable, Rules
from fixer.status.reason import Reason, Severity
from fixer.status.wire import Wire

OUT_OF_ORDER = 3
"""As ``systemctl status``."""


class FlowsRule(Struct, frozen=True):
    """One family's rules that lead TCP of the configured sources, and the replies to it, to a queue of its own."""

    queue: int
    arrived: int
    """Packets from the sources."""
    left: int
    """Packets to them."""
    position: int | None
    """Where our jump stands in ``hook``, for the way back; None: it is missing."""
    of: int
    hook: str = ""


class OutgoingRule(Struct, frozen=True):
    """One family's rules that lead what this host sends to a queue in which it is completed."""

    queue: int
    packets: int
    """Before they are cut into segments."""
    position: int | None
    """Where our jump stands in ``hook``; None: it is missing."""
    of: int
    hook: str = ""


class Rule(Struct, frozen=True):
    """One family's rules. ``packets`` and ``bytes`` were sent to the queue; the others passed with a look at headers:

    ``merged`` are longer than ``longest`` bytes, ``finished`` no suspects. With scope ``all`` there are none of either.
    """

    on: bool = False
    scope: Scope = "all"
    takes: str = ""
    interface: str | None = None
    hook: str = ""
    """Where packets are led to us: by the rule at ``position`` of ``of``."""
    position: int | None = None
    of: int = 0
    packets: int = 0
    bytes: int = 0
    finished: int = 0
    merged: int = 0
    longest: int | None = None
    syns: bool = True
    """Whether every SYN is queued, suspect or not."""
    flows: FlowsRule | None = None
    """What goes to the queue where timestamps are normalised, and is in none of the figures above."""
    outgoing: OutgoingRule | None = None
    """What leaves and goes to the queue where it is completed; in none of the figures above."""
    command: str = ""
    unavailable: str | None = None

    @property
    def looked_at(self) -> float | None:
        """The share of the path that was sent to the queue, 0 to 1; None before the first packet."""
        everything = self.packets + self.finished + self.merged
        return self.packets / everything if everything else None


class Flows(Struct, frozen=True):
    """The queue where timestamps are normalised, and the flow table (its figures are None where there is no table)."""

    queue: int
    listener: Listener | None
    used: int | None = None
    capacity: int | None = None
    normalised: int | None = None
    """Live connections whose timestamps are shifted."""
    draining: bool = False


class Outgoing(Struct, frozen=True):
    """The queue in which what leaves is completed, without waiting there."""

    queue: int
    listener: Listener | None


class Status(Struct, frozen=True):
    """All there is to say."""

    queues: list[int]
    """Those the rule sends to; without a rule, those asked about."""
    on: bool
    listening: bool
    """Whether every one of the queues has a listener, and those of ``flows`` and ``outgoing``."""
    rules: dict[str, Rule]
    listeners: list[Listener]
    passed_unseen: int | None
    """Packets of all ``queues``; a lower bound unless the kernel granted GSO."""
    flows: Flows | None
    """None if no rule of ours leads packets there."""
    outgoing: Outgoing | None
    """None if what leaves is not led to a queue."""
    merging: dict[str, bool | None]
    """Whether GRO is on, for each interface that packets of the underlay arrive on; None where that cannot be told."""
    spread: dict[str, str | None]
    """With several queues: what keeps the flows of a VTEP pair in one of them, for each interface (None: nothing)."""
    daemon: Report | None
    wanted: Intent | None
    """What the operator has said last; None if nothing was said."""
    tunnels: list[Tunnel]
    """The VXLAN devices of this namespace."""
    wire: Wire | None
    """What came out of them while this was looked at, and how much of it met the rules."""
    notes: list[str]
    """``reasons``, as they are shown."""
    reasons: list[Reason]

    @property
    def exit_code(self) -> int:
        """0 if every promise holds, else 3."""
        return OUT_OF_ORDER if any(reason.severity is not Severity.NOTE for reason in self.reasons) else 0


def collect(host: Host, queue: int, count: int = 1, *, monitor: bool = False) -> Status:
    """Look, judge, and say so. Raises what :func:`fixer.status.facts.look` does."""
    return said(facts.look(host, queue, count, monitor=monitor))


def said(found: Facts) -> Status:
    """The facts as one object."""
    why = reasons.judge(found)
    flows, outgoing = found.flows, found.outgoing
    heard = found.listeners
    return Status(
        queues=list(found.queues),
        on=bool(found.on()),
        listening=len(heard) == len(found.queues)
        and all(each.listener is not None for each in (flows, outgoing) if each is not None),
        rules={key: _rule(rules) for key, rules in found.families.items()},
        listeners=list(heard),
        passed_unseen=unseen.passed(found),
        flows=_flows(flows) if flows else None,
        outgoing=Outgoing(outgoing.queue, outgoing.listener) if outgoing else None,
        merging=found.merging,
        spread={name: str(obstacle) if obstacle else None for name, obstacle in found.obstacles.items()},
        daemon=found.daemon.report,
        wanted=found.wanted,
        tunnels=list(found.tunnels),
        wire=found.wire,
        notes=list(map(str, why)),
        reasons=why,
    )


def _rule(rules: Rules) -> Rule:
    first = rules.first
    if first is None:
        return Rule(unavailable=rules.unavailable)
    return Rule(
        on=first.on,
        scope=first.scope,
        takes=first.takes,
        interface=first.interface,
        hook=first.place.hook,
        position=first.place.position,
        of=first.place.of,
        packets=first.counted.packets,
        bytes=first.counted.bytes,
        finished=first.counted.finished,
        merged=first.counted.merged,
        longest=first.longest,
        syns=first.takes_syns,
        flows=_flows_rule(first),
        outgoing=_outgoing_rule(first),
        command=first.backend,
    )


def _flows_rule(rules: Installed) -> FlowsRule | None:
    if rules.flows_queue is None:
        return None
    back = rules.way_back
    return FlowsRule(rules.flows_queue, rules.counted.arrived, rules.counted.left, back.position, back.of, back.hook)


def _outgoing_rule(rules: Installed) -> OutgoingRule | None:
    if rules.outgoing_queue is None:
        return None
    way = rules.way_back
    return OutgoingRule(rules.outgoing_queue, rules.counted.outgoing, way.position, way.of, way.hook)


def _flows(table: FlowTable) -> Flows:
    live = table.live
    if live is None:
        return Flows(table.queue, table.listener)
    return Flows(table.queue, table.listener, live.used, live.capacity, live.normalised, live.draining)
