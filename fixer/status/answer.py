"""``fixer status --json``: facts and what is to be said of them, as one object; :mod:`fixer.screen.status` shows it."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from fixer.host.machine import Host
from fixer.host.queues import Handed, Listener
from fixer.rules.installed import Installed
from fixer.rules.selection import Scope
from fixer.state.baseline import Baseline
from fixer.state.report import Report
from fixer.status import facts, reasons
from fixer.status.facts import Facts, FlowTable, Rules
from fixer.status.reasons import Reason


class FlowsRule(Struct, frozen=True):
    """One family's rules that lead TCP of the configured sources, and the replies to it, to a queue of its own."""

    queue: int
    arrived: int
    """Packets from the sources."""
    left: int
    """Packets to them."""
    position: int | None
    """Where our jump stands in raw/OUTPUT, for the way back; None: it is missing."""
    of: int


class Rule(Struct, frozen=True):
    """One family's rules. ``packets`` and ``bytes`` were sent to the queue; the others passed with a look at headers:

    ``merged`` are longer than ``longest`` bytes, ``finished`` no suspects. With scope ``all`` there are none of either.
    """

    on: bool = False
    scope: Scope = "all"
    takes: str = ""
    interface: str | None = None
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


class Status(Struct, frozen=True):
    """All there is to say."""

    queues: list[int]
    """Those the rule sends to; without a rule, those asked about."""
    on: bool
    listening: bool
    """Whether every one of the queues has a listener, and the one of ``flows``."""
    rules: dict[str, Rule]
    listeners: list[Listener]
    passed_unseen: int | None
    """Packets of all ``queues``; a lower bound unless the kernel granted GSO."""
    flows: Flows | None
    """None if no rule of ours leads packets there."""
    merging: dict[str, bool | None]
    """Whether GRO is on, for each interface that packets of the underlay arrive on; None where that cannot be told."""
    spread: dict[str, str | None]
    """With several queues: what keeps the flows of a VTEP pair in one of them, for each interface (None: nothing)."""
    daemon: Report | None
    notes: list[str]
    """``reasons``, as they are shown."""
    reasons: list[Reason]

    @property
    def exit_code(self) -> int:
        """0 when the rule is there and every queue has a listener, else 3."""
        return reasons.exit_code(self.reasons)


def collect(host: Host, queue: int, count: int = 1) -> Status:
    """Look, judge, and say so. Raises what :func:`fixer.status.facts.look` does."""
    return said(facts.look(host, queue, count))


def said(found: Facts) -> Status:
    """The facts as one object."""
    why = reasons.judge(found)
    flows = found.flows
    heard = found.listeners
    return Status(
        queues=list(found.queues),
        on=bool(found.on()),
        listening=len(heard) == len(found.queues) and (flows is None or flows.listener is not None),
        rules={key: _rule(rules) for key, rules in found.families.items()},
        listeners=list(heard),
        passed_unseen=_passed_unseen(found.families, heard, _since(found)),
        flows=_flows(flows) if flows else None,
        merging=found.merging,
        spread={name: str(obstacle) if obstacle else None for name, obstacle in found.obstacles.items()},
        daemon=found.daemon.report,
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
        position=first.place.position,
        of=first.place.of,
        packets=first.counted.packets,
        bytes=first.counted.bytes,
        finished=first.counted.finished,
        merged=first.counted.merged,
        longest=first.longest,
        syns=first.takes_syns,
        flows=_flows_rule(first),
        command=first.backend,
    )


def _flows_rule(rules: Installed) -> FlowsRule | None:
    if rules.flows_queue is None:
        return None
    back = rules.way_back
    return FlowsRule(rules.flows_queue, rules.counted.arrived, rules.counted.left, back.position, back.of)


def _flows(table: FlowTable) -> Flows:
    live = table.live
    if live is None:
        return Flows(table.queue, table.listener)
    return Flows(table.queue, table.listener, live.used, live.capacity, live.normalised, live.draining)


def _since(found: Facts) -> Baseline | None:
    """Where counting begins: a rule was written since one of the queues was bound, or else the daemon's own start."""
    if found.noted and any(each.socket in found.noted.handed for each in found.listeners):
        return found.noted
    report = found.daemon.report
    return Baseline(report.rule_packets_at_start) if report else None


def _passed_unseen(families: dict[str, Rules], heard: Sequence[Listener], since: Baseline | None) -> int | None:
    """Packets the rule queued ``since`` then, less those the queues were given; None if that cannot be known.

    A full queue with fail-open, and one nobody listens on, let packets pass that show in no drop counter: only the rule
    has counted them. A queue's sequence (32 bits, it wraps) numbers what was handed to the socket, what did not fit
    there included. A lower bound, unless super-packets come whole (GSO): if not, the kernel numbers each of their
    segments, while the rule has counted one packet.
    """
    if not heard or since is None:
        return None
    matched = 0
    for key, rules in families.items():
        before = since.rule_packets.get(key)
        counted = rules.first.counted.packets if rules.first else 0
        more = counted - (before or 0)
        if more < 0 or (rules.unavailable and before is not None):  # somebody else put it there anew, or it is not seen
            return None
        matched += more if rules.first and rules.first.on else 0
    sequence, drops = 0, 0
    for each in heard:
        handed = since.handed.get(each.socket or 0, Handed(0, 0))
        sequence += each.id_sequence - handed.sequence
        drops += each.socket_drops - handed.drops
    missing = matched - sequence
    return (missing % (1 << 32) if missing > 0 else 0) + drops
