"""The status as ``fixer status`` prints it; ``--json`` prints :class:`fixer.status.answer.Status` itself."""

from __future__ import annotations

from collections.abc import Iterator

from rich.filesize import decimal

from fixer.host.queues import Listener
from fixer.rules.selection import FAMILIES
from fixer.rules.wanted import Intent
from fixer.screen import findings
from fixer.screen.changes import moment
from fixer.screen.console import Console, Part, Text, rows, say, text
from fixer.state.report import Flags, InKernel, Report
from fixer.status.answer import Flows, FlowsRule, OutgoingRule, Rule, Status

Row = tuple[str, Part]

_VTEPS = 5
"""Of whose packets it is said how many the kernel has finished."""


def show(status: Status, console: Console) -> None:
    """The status for people."""
    console.print(rows(_rows(status)))
    for note in status.notes:
        say(console, ("!", "yellow"), f" {note}")
    if status.daemon:
        findings.show(status.daemon.findings, console)


def _rows(status: Status) -> Iterator[Row]:
    for family in FAMILIES:
        rule = status.rules[family.key]
        yield family.name, _shown_rule(rule)
        if rule.on:
            yield "", f"{rule.packets:,} packets, {decimal(rule.bytes)}{_shown_share(rule)}"
        if rule.on and rule.flows:
            yield "", _shown_flows_rule(rule.flows)
        if rule.on and rule.outgoing:
            yield "", _shown_outgoing_rule(rule.outgoing)
    if status.wanted:
        yield "Wanted", _wanted(status.wanted)
    yield from _listeners(status)
    if status.flows:
        yield from _flows(status.flows)
    if status.outgoing:
        what = "; the kernel completes what leaves, nothing waits" if status.outgoing.listener else ""
        yield "Outgoing", text(_who(status.outgoing.listener), f" on queue {status.outgoing.queue}{what}")
    if status.on:
        yield "GRO", _shown_merging(status.merging)
    if spreading := [name for name, obstacle in status.spread.items() if obstacle is None]:
        yield "Spread", f"{', '.join(spreading)}: the flows of one VTEP pair reach several queues"
    if status.daemon:
        if isinstance(status.daemon.kernel, InKernel):
            yield from _kernel(status.daemon.kernel)
        yield from _daemon(status.daemon)


def _shown_rule(rule: Rule) -> Part:
    if rule.unavailable:
        return f"not available: {rule.unavailable}"
    if not rule.on:
        return "off", "red"
    where = text(f"rule {rule.position} of {rule.of} in {rule.hook}, ", _last(rule), f" ({rule.command})")
    return text(("on", "green"), f": {rule.takes}; ", where)


def _wanted(wanted: Intent) -> str:
    """What the operator has said last."""
    until = f" until {moment(wanted.until)}" if wanted.until else ""
    why = f" ({wanted.reason})" if wanted.reason else ""
    return f"{'on' if wanted.on else 'off'} since {moment(wanted.since)}{until}, by {wanted.by}{why}"


def _last(place: Rule | FlowsRule | OutgoingRule) -> Part:
    return "last" if place.position == place.of else ("not last", "red")


def _shown_share(rule: Rule) -> str:
    if rule.scope == "all":
        return ""
    share = "" if rule.looked_at is None else f" ({rule.looked_at:.2%} of the path)"
    merged = f"{rule.merged:,} merged ones" + ("" if rule.longest is None else f" (longer than {rule.longest:,} bytes)")
    return f"{share}; not looked at: {rule.finished:,} finished, {merged}"


def _shown_flows_rule(flows: FlowsRule) -> Text:
    """Both directions of what is normalised, and whether the way back is there."""
    return text(
        f"normalising: {flows.arrived:,} packets from the sources, {flows.left:,} replies to queue {flows.queue}; ",
        _way_back(flows),
    )


def _shown_outgoing_rule(outgoing: OutgoingRule) -> Text:
    return text(f"completing: {outgoing.packets:,} packets that left, to queue {outgoing.queue}; ", _way_back(outgoing))


def _way_back(place: FlowsRule | OutgoingRule) -> Text:
    if place.position is None:
        return text(("no way back", "red"), f": no jump in {place.hook}")
    return text(f"rule {place.position} of {place.of} in {place.hook}, ", _last(place))


def _listeners(status: Status) -> Iterator[Row]:
    """Each queue's listener, and what the queues have seen and lost together."""
    by_queue = {each.queue: each for each in status.listeners}
    for number in status.queues:
        heard = by_queue.get(number)
        figures = _figures(heard) if len(status.queues) > 1 else ""
        yield "Listener" if number == status.queues[0] else "", text(_who(heard), f" on queue {number}{figures}")
    if not status.listeners:
        return
    queued, waiting, full, undelivered, unfitting = (
        sum(getattr(each, name) for each in status.listeners)
        for name in ("id_sequence", "waiting", "queue_dropped", "user_dropped", "socket_drops")
    )
    first = status.listeners[0]
    yield "", f"copies {first.copies} up to {first.copy_range:,} bytes; {waiting:,} waiting"
    exactly = status.daemon is not None and status.daemon.flags.gso
    unseen = "unknown" if status.passed_unseen is None else f"{'' if exactly else 'at least '}{status.passed_unseen:,}"
    yield "Queued", f"{queued:,} packets; passed unseen {unseen}"
    yield "Lost", f"queue full {full:,}, not delivered {undelivered:,}, did not fit the socket {unfitting:,}"


def _who(heard: Listener | None) -> Part:
    return (str(heard), "green") if heard else ("none", "red")


def _figures(heard: Listener | None) -> str:
    """What one of several queues has seen and lost."""
    if heard is None:
        return ""
    return f": {heard.id_sequence:,} packets, {heard.waiting:,} waiting, {heard.lost:,} lost"


def _flows(flows: Flows) -> Iterator[Row]:
    """The queue where timestamps are normalised, what it lost, and how full the flow table is."""
    yield "Normalising", text(_who(flows.listener), f" on queue {flows.queue}{_figures(flows.listener)}")
    if flows.used is not None and flows.capacity:
        draining = ", draining" if flows.draining else ""
        share = f"{flows.used:,} of {flows.capacity:,} ({flows.used / flows.capacity:.1%})"
        yield "", f"flow table: {share}, {flows.normalised:,} normalised{draining}"


def _shown_merging(merging: dict[str, bool | None]) -> str:
    """Which of the two holds: GRO merges packets, which nobody can verify any more, or each arrives as it was sent."""
    by_state = {state: [name for name, on in merging.items() if on is state] for state in (True, False, None)}
    parts = []
    if names := by_state[True]:
        cure = f"ethtool -K {names[0] if len(names) == 1 else 'DEV'} gro off"
        parts.append(f"on: {', '.join(names)}; what it merges nobody can verify; to have every packet verified: {cure}")
    if names := by_state[False]:
        parts.append(f"off: {', '.join(names)}; every packet can be verified in software")
    if names := by_state[None]:
        parts.append(f"unknown: {', '.join(names)}")
    return " / ".join(parts) or "unknown: no interface to ask about"


def _kernel(found: InKernel) -> Iterator[Row]:
    """What is finished before it reaches the rules, and of whom."""
    if found.interfaces:
        where = ", ".join(f"{name} ({how})" for name, how in sorted(found.interfaces.items()))
        envelopes = f"{found.envelopes:,} envelope{'' if found.envelopes == 1 else 's'}"
        now = f"finishes {envelopes} now, on {where}"
    elif found.wanted:
        now = "finishes nothing yet: nobody was diagnosed" if not found.packets else "finishes nothing now"
    else:
        now = "not wanted any more"
    yield "In kernel", f"{now}; {found.packets:,} packets repaired"
    if found.overlay_ends_here:
        yield "", "--overlay-ends-here: marked as verified and not summed; what is forwarded leaves wrong"
    if found.vteps:
        yield "", ", ".join(f"VTEP {source} {count:,}" for source, count in list(found.vteps.items())[:_VTEPS])
    if left := [f"{name.replace('_', ' ')} {count:,}" for name, count in found.left.items() if count]:
        yield "", f"left to the queue: {', '.join(left)}"


def _daemon(report: Report) -> Iterator[Row]:
    """What the daemon says of itself: since when, what the kernel granted it, and what it has counted."""
    modes = [name for name in ("monitor", "plain") if getattr(report, name)]
    yield "Findings", findings.summary(report.findings)
    yield "Daemon", f"fixer {report.version} since {report.started.isoformat()} {' '.join(modes)}".rstrip()
    yield "", ", ".join(f"{name.replace('_', '-')} {_granted(report, name)}" for name in Flags.__struct_fields__)
    tables = {
        "Diagnosis": report.table("diagnosis"),
        "Cause": report.table("explanation"),
        "Action": report.table("action"),
        "Would do": report.table("would") if report.monitor else {},
        "Not judged": report.table("reason"),
        "Timestamps": report.table("timestamps"),
        "Replies": report.table("replies"),
        "Flow table": {
            name: count for name, count in (report.flows or {}).items() if name not in Flows.__struct_fields__
        },
        "Counters": report.numbers() | report.queue_counters,
    }
    for title, table in tables.items():
        shown = [
            f"{name.replace('_', ' ')} {count:,}"
            for name, count in table.items()
            if count and name not in ("none", "not_concerned", "unexplained")
        ]
        if shown:
            yield title, ", ".join(shown)


def _granted(report: Report, flag: str) -> str:
    if getattr(report.flags, flag):
        return "granted"
    return "refused" if getattr(report.asked, flag) else "off"
