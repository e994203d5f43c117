"""``fixer status``: rule, listener, losses, and what the daemon says of itself. ``status_table`` shows it to people.

The kernel shows the first three, whoever listens. The daemon's own figures come from the report that it writes about
once a second, while it lives.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from fixer.errors import FixerError, NotPermitted
from fixer.host import links, spread
from fixer.host.links import Link
from fixer.host.machine import Host
from fixer.host.queues import Handed, Listener, bound, listeners
from fixer.rules import switch as rules
from fixer.rules.rawtable import CHAIN_OUTPUT, FAMILIES, HOOK, OUTPUT, RawTable, Scope, shown_queues
from fixer.rules.suspects import longest_looked_at, queues_syns
from fixer.state import baseline, flowfile
from fixer.state import report as reports
from fixer.state.baseline import Baseline
from fixer.state.report import Report

_STALE_SECONDS = 10


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
    """All there is to say; ``fixer status --json`` is this."""

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

    @property
    def exit_code(self) -> int:
        """0 when the rule is there and every queue has a listener, else 3, as ``systemctl status``."""
        return 0 if self.on and self.listening else 3


def collect(host: Host, queue: int, count: int = 1) -> Status:
    """Ask the kernel and the daemon about the queues the rule sends to, or without one ``count`` from ``queue`` on.

    Raises :class:`NotPermitted` without root: half a status would look like a whole one.
    """
    if not host.has_net_admin():
        raise NotPermitted("the rules and the queue can only be seen by root (CAP_NET_ADMIN): sudo fixer status")
    notes: list[str] = []
    families, led, plain = _rules(host, notes)
    queues = next(iter(led), range(queue, queue + count))
    # The rule is read before the queue: what comes in between must not look like a loss.
    heard = listeners(host, queues)
    daemon = _report(host, queues[0], heard, notes)
    on = any(rule.on for rule in families.values())
    if on and not heard:
        notes.append(
            f"nobody listens on {shown_queues(queues)}: packets pass as if fixer were not there. Next: fixer run"
        )
    if heard and (deserted := set(queues) - {each.queue for each in heard}):
        numbers = ", ".join(map(str, sorted(deserted)))
        notes.append(
            f"nobody listens on queue {numbers}: those packets pass as if fixer were not there. "
            f"Next: fixer run with queue.count = {len(queues)}"
        )
    flows = _flows(host, families, queues[0], daemon, notes)
    others = sorted(bound(host).keys() - set(queues) - ({flows.queue} if flows else set()))
    if not heard and others:
        notes.append(f"somebody listens on queue {', '.join(map(str, others))}. See: fixer status --queue {others[0]}")
    if not on and not heard and not others:
        notes.append("nothing is set up here. Next: fixer on, then fixer run")
    if heard and not on:
        notes.append("no rule sends packets to the queue. Next: fixer on")
    if len(led) > 1:
        notes.append(f"the two families send to different queues ({', '.join(map(shown_queues, led))}). Next: fixer on")
    if on and daemon and daemon.queues > len(queues):
        notes.append(
            f"the daemon serves {shown_queues(range(queues[0], queues[0] + daemon.queues))}, the rule sends to "
            f"{shown_queues(queues)}. Next: fixer on"
        )
    if daemon and plain and not daemon.plain:
        notes.append("the rule takes plain packets, the daemon judges VXLAN only. Next: fixer run --plain")
    strips = daemon is not None and daemon.timestamps == "strip"
    if strips and not all(rule.syns for rule in families.values() if rule.on):
        notes.append("the daemon strips timestamps, the rule lets SYNs pass. Next: fixer on --scope suspects")
    if daemon and daemon.monitor:
        notes.append("monitor mode: the daemon reports and changes nothing")
    notes += _refused(daemon) if daemon else []
    carriers = _carriers(host, families, notes)
    versions = {family.version for family in FAMILIES if families[family.key].on}
    obstacles = spread.obstacles(host, carriers, len(queues), versions) if len(queues) > 1 else {}
    notes += dict.fromkeys(filter(None, obstacles.values()))
    return Status(
        queues=list(queues),
        on=on,
        listening=len(heard) == len(queues) and (flows is None or flows.listener is not None),
        rules=families,
        listeners=heard,
        passed_unseen=_passed_unseen(families, heard, _baseline(host, heard, daemon)),
        flows=flows,
        merging=links.merging(host, carriers),
        spread=obstacles,
        daemon=daemon,
        notes=notes,
    )


def _rules(host: Host, notes: list[str]) -> tuple[dict[str, Rule], list[range], bool]:
    """Each family's rule, the queues they send to, and whether they take plain packets."""
    found: dict[str, Rule] = {}
    queues: dict[range, None] = {}
    plain = False
    for family in FAMILIES:
        try:
            (tool, table), *others = rules.tables(host, family)
        except NotPermitted:
            raise
        except FixerError as error:
            found[family.key] = Rule(unavailable=str(error))
            continue
        on = table.is_on
        position, count = table.position(), len(table.hook())
        longest, merged, finished = _exempted(table)
        found[family.key] = Rule(
            on=on,
            scope=table.scope,
            takes=str(table) if on else "",
            interface=table.traffic().interface,
            position=position,
            of=count,
            packets=table.packets,
            bytes=table.bytes,
            finished=finished,
            merged=merged,
            longest=longest,
            syns=table.scope == "all" or any(queues_syns(word) for rule in table.exempting() for word in rule.words),
            flows=_flows_rule(table),
            command=tool.command,
        )
        if on:
            queues[table.queues] = None
            plain = plain or "tcp" in table.option("-p")
        if table.has_ours and not on:
            notes.append(f"{family.name}: a chain or a jump of ours is left over. Next: fixer on, or fixer off")
        if on and table.has_surplus_jumps():
            notes.append(f"{family.name}: more than one jump leads to our chain. Next: fixer on")
        if on and position != count:
            notes.append(
                f"{family.name}: our jump is not last in raw/{HOOK}, what we take never meets the rules behind it. "
                "Next: fixer on"
            )
        if on and table.flows_queue is not None:
            notes += [f"{family.name}: {trouble}. Next: fixer on" for trouble in _way_back(table)]
        if on:
            notes += [f"{family.name}: {end}" for end in rules.ends(host, tool, table)]
        notes += [
            f"{family.name}: our rules are in {other.command} too, so packets are queued twice. Next: fixer on"
            for other, leftover in others
            if leftover.has_ours
        ]
    return found, list(queues), plain


def _way_back(table: RawTable) -> list[str]:
    """What is wrong with the jump that replies to normalised connections take."""
    if table.position(OUTPUT) is None:
        return [f"the way back is missing: no jump to {CHAIN_OUTPUT} in raw/{OUTPUT}, so no timestamps are normalised"]
    if not table.is_last(OUTPUT):
        return [f"our jump is not last in raw/{OUTPUT}, what we take never meets the rules behind it"]
    return []


def _flows_rule(table: RawTable) -> FlowsRule | None:
    if table.flows_queue is None:
        return None
    arrived, left = (sum(rule.packets for rule in table.normalising(hook)) for hook in (HOOK, OUTPUT))
    return FlowsRule(table.flows_queue, arrived, left, table.position(OUTPUT), len(table.hook(OUTPUT)))


def _flows(host: Host, families: dict[str, Rule], first: int, daemon: Report | None, notes: list[str]) -> Flows | None:
    """The queue that rules lead to where timestamps are normalised, its listener, and the table of the daemon whose
    first queue is ``first``."""
    on = [rule for rule in families.values() if rule.on]
    led = [rule.flows.queue for rule in on if rule.flows]
    mode = daemon.timestamps if daemon else None
    if mode == "normalise" and len(led) < len(on):
        notes.append("the daemon normalises timestamps, but not all rules lead them to it. Next: fixer on")
    if not led:
        return None
    heard = listeners(host, led[:1])
    path = flowfile.path_of(host, first)
    try:
        live = flowfile.look(path)
    except (OSError, ValueError) as error:
        notes.append(f"{path} cannot be read: {error}")
        live = None
    if not heard:
        stalling = f", and {live.normalised:,} connections stall" if live and live.normalised else ""
        cure = "fixer run" if daemon is None else 'start fixer run again, with timestamps.mode = "normalise"'
        cure += ", or fixer on if the mode is another now" if mode in ("off", "strip") else ""
        notes.append(f"nobody listens on queue {led[0]}: no timestamps are normalised{stalling}. Next: {cure}")
    if live and live.draining:
        notes.append(
            f"draining: {live.normalised:,} normalised connections left, new ones are left alone. "
            "Next: fixer off --drain waits for them, fixer on ends it"
        )
    return Flows(led[0], heard[0] if heard else None, *_figures(live))


def _figures(live: flowfile.Live | None) -> tuple[int | None, int | None, int | None, bool]:
    return (live.used, live.capacity, live.normalised, live.draining) if live else (None, None, None, False)


def _exempted(table: RawTable) -> tuple[int | None, int, int]:
    """The length above which a packet is taken for merged, how many were, and how many were found to be finished."""
    longest, merged, finished = None, 0, 0
    for rule in table.exempting():
        above = [above for word in rule.words if (above := longest_looked_at(word)) is not None]
        longest = above[0] if above else longest
        merged += rule.packets if above else 0
        finished += 0 if above else rule.packets
    return longest, merged, finished


def _carriers(host: Host, families: dict[str, Rule], notes: list[str]) -> list[Link]:
    """Where our packets are received; notes packets that are too long for our rule, and yet not merged."""
    if not any(rule.on for rule in families.values()):
        return []
    try:
        every = links.every(host)
    except FixerError:
        return []
    found: dict[str, Link] = {}
    for interface, longest in {(rule.interface, rule.longest) for rule in families.values() if rule.on}:
        found |= {link.name: link for link in links.carriers(every, interface)}
        longer = [link for link in links.named(every, interface) if longest is not None and link.mtu > longest]
        notes += [
            f"packets longer than {longest:,} bytes are not looked at, but {link.name} may bring some of "
            f"{link.mtu:,}. Next, unless no VXLAN comes that way: fixer on --scope suspects --mtu {link.mtu}"
            for link in longer
        ]
    return list(found.values())


def _report(host: Host, queue: int, heard: Sequence[Listener], notes: list[str]) -> Report | None:
    """The daemon's report, if the process that wrote it is the one that listens; ``queue`` is its first."""
    if not heard:
        return None
    path = reports.path_of(host, queue)
    try:
        report = reports.read(path)
    except ValueError:
        notes.append(f"{path} is not a report of a fixer daemon; it is ignored")
        return None
    if report is None:
        return None
    if not host.exists(f"/proc/{report.pid}") or not {None, report.pid} & {each.pid for each in heard}:
        return None
    age = (host.now() - report.updated).total_seconds()
    if age > _STALE_SECONDS:
        notes.append(
            f"the daemon (pid {report.pid}) has not reported for {age:.0f} s: its figures are old, it may hang"
        )
    return report


def _refused(report: Report) -> list[str]:
    """What the daemon asked the kernel for in vain, and what that means."""
    consequences = {
        "fail_open": "a full queue loses packets, for this kernel cannot let them pass",
        "gso": "this kernel hands merged packets over in segments, with checksums of its own: that costs more, and "
        "they count as sound though nobody verified what came",
    }
    return [
        f"{meaning} (queue.{flag} is refused)"
        for flag, meaning in consequences.items()
        if getattr(report.asked, flag) and not getattr(report.flags, flag)
    ]


def _baseline(host: Host, heard: Sequence[Listener], daemon: Report | None) -> Baseline | None:
    """Where counting begins: a rule was written since one of the queues was bound, or else the daemon's own start."""
    noted = baseline.read(host)
    if noted and any(each.socket in noted.handed for each in heard):
        return noted
    return Baseline(daemon.rule_packets_at_start) if daemon else None


def _passed_unseen(families: dict[str, Rule], heard: Sequence[Listener], since: Baseline | None) -> int | None:
    """Packets the rule queued ``since`` then, less those the queues were given; None if that cannot be known.

    A full queue with fail-open, and one nobody listens on, let packets pass that show in no drop counter: only the rule
    has counted them. A queue's sequence (32 bits, it wraps) numbers what was handed to the socket, what did not fit
    there included. A lower bound, unless super-packets come whole (GSO): if not, the kernel numbers each of their
    segments, while the rule has counted one packet.
    """
    if not heard or since is None:
        return None
    matched = 0
    for key, rule in families.items():
        before = since.rule_packets.get(key)
        more = rule.packets - (before or 0)
        if more < 0 or (rule.unavailable and before is not None):  # somebody else put it there anew, or it is not seen
            return None
        matched += more if rule.on else 0
    sequence, drops = 0, 0
    for each in heard:
        handed = since.handed.get(each.socket or 0, Handed(0, 0))
        sequence += each.id_sequence - handed.sequence
        drops += each.socket_drops - handed.drops
    missing = matched - sequence
    return (missing % (1 << 32) if missing > 0 else 0) + drops
