"""The status as ``fixer status`` prints it; ``--json`` prints :class:`fixer.status.facts.Status` itself."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from fixer.rules.rawtable import FAMILIES, HOOK, OUTPUT
from fixer.status.facts import Flows, FlowsRule, Rule, Status


def show(status: Status, console: Console) -> None:
    """The status for people."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column()
    for family in FAMILIES:
        rule = status.rules[family.key]
        grid.add_row(family.name, _shown_rule(rule))
        if rule.on:
            grid.add_row("", f"{rule.packets:,} packets, {decimal(rule.bytes)}{_shown_share(rule)}")
        if rule.on and rule.flows:
            grid.add_row("", _shown_flows_rule(rule.flows))
    _show_listeners(status, grid)
    if status.flows:
        _show_flows(status.flows, grid)
    if status.on:
        grid.add_row("GRO", _plain(_shown_merging(status.merging)))
    if spreading := [name for name, obstacle in status.spread.items() if obstacle is None]:
        grid.add_row("Spread", f"{', '.join(spreading)}: the flows of one VTEP pair reach several queues")
    if status.daemon:
        _show_daemon(status.daemon, grid)
    console.print(grid)
    for note in status.notes:
        console.print(f"[yellow]![/] {_plain(note)}", highlight=False)


def _show_listeners(status: Status, grid: Table) -> None:
    """Each queue's listener, and what the queues have seen and lost together."""
    by_queue = {each.queue: each for each in status.listeners}
    for number in status.queues:
        heard = by_queue.get(number)
        who = f"[green]{heard}[/]" if heard else "[red]none[/]"
        figures = ""
        if heard and len(status.queues) > 1:
            figures = f": {heard.id_sequence:,} packets, {heard.waiting:,} waiting, {heard.lost:,} lost"
        grid.add_row("Listener" if number == status.queues[0] else "", f"{who} on queue {number}{figures}")
    if not status.listeners:
        return
    queued, waiting, full, undelivered, unfitting = (
        sum(getattr(each, name) for each in status.listeners)
        for name in ("id_sequence", "waiting", "queue_dropped", "user_dropped", "socket_drops")
    )
    first = status.listeners[0]
    grid.add_row("", f"copies {first.copies} up to {first.copy_range:,} bytes; {waiting:,} waiting")
    exactly = ((status.daemon or {}).get("flags") or {}).get("gso")
    unseen = "unknown" if status.passed_unseen is None else f"{'' if exactly else 'at least '}{status.passed_unseen:,}"
    grid.add_row("Queued", f"{queued:,} packets; passed unseen {unseen}")
    grid.add_row("Lost", f"queue full {full:,}, not delivered {undelivered:,}, did not fit the socket {unfitting:,}")


def _shown_rule(rule: Rule) -> str:
    if rule.unavailable:
        return _plain(f"not available: {rule.unavailable}")
    if not rule.on:
        return "[red]off[/]"
    last = "last" if rule.position == rule.of else "[red]not last[/]"
    where = f"rule {rule.position} of {rule.of} in raw/{HOOK}, {last} ({rule.command})"
    return f"[green]on[/]: {_plain(rule.takes)}; {where}"


def _shown_flows_rule(flows: FlowsRule) -> str:
    """Both directions of what is normalised, and whether the way back is there."""
    if flows.position is None:
        way_back = f"[red]no way back[/]: no jump in raw/{OUTPUT}"
    else:
        last = "last" if flows.position == flows.of else "[red]not last[/]"
        way_back = f"rule {flows.position} of {flows.of} in raw/{OUTPUT}, {last}"
    return (
        f"normalising: {flows.arrived:,} packets from the sources, {flows.left:,} replies to queue {flows.queue}; "
        f"{way_back}"
    )


def _show_flows(flows: Flows, grid: Table) -> None:
    """The queue where timestamps are normalised, what it lost, and how full the flow table is."""
    heard = flows.listener
    who = f"[green]{heard}[/]" if heard else "[red]none[/]"
    figures = f": {heard.id_sequence:,} packets, {heard.waiting:,} waiting, {heard.lost:,} lost" if heard else ""
    grid.add_row("Normalising", f"{who} on queue {flows.queue}{figures}")
    if flows.used is not None and flows.capacity:
        draining = ", draining" if flows.draining else ""
        share = f"{flows.used:,} of {flows.capacity:,} ({flows.used / flows.capacity:.1%})"
        grid.add_row("", f"flow table: {share}, {flows.normalised:,} normalised{draining}")


def _shown_share(rule: Rule) -> str:
    if rule.scope == "all":
        return ""
    share = "" if rule.looked_at is None else f" ({rule.looked_at:.2%} of the path)"
    merged = f"{rule.merged:,} merged ones" + ("" if rule.longest is None else f" (longer than {rule.longest:,} bytes)")
    return f"{share}; not looked at: {rule.finished:,} finished, {merged}"


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


def _show_daemon(report: dict[str, Any], grid: Table) -> None:
    modes = [name for name in ("monitor", "plain") if report.get(name)]
    grid.add_row(
        "Daemon", _plain(f"fixer {report.get('version')} since {report.get('started')} {' '.join(modes)}".rstrip())
    )
    asked = report.get("asked") or {}
    flags = [
        f"{name.replace('_', '-')} {'granted' if granted else 'refused' if asked.get(name) else 'off'}"
        for name, granted in (report.get("flags") or {}).items()
    ]
    if flags:
        grid.add_row("", ", ".join(flags))
    counters = report.get("counters") or {}
    everything = {name: value for name, value in counters.items() if not isinstance(value, dict)}
    tables = {
        "Diagnosis": counters.get("diagnosis"),
        "Action": counters.get("action"),
        "Would do": counters.get("would") if report.get("monitor") else None,
        "Not judged": counters.get("reason"),
        "Timestamps": counters.get("timestamps"),
        "Replies": counters.get("replies"),
        "Flow table": {
            name: count for name, count in (report.get("flows") or {}).items() if name not in Flows.__struct_fields__
        },
        "Counters": everything | (report.get("queue_counters") or {}),
    }
    for title, table in tables.items():
        shown = [
            f"{name.replace('_', ' ')} {count:,}"
            for name, count in (table or {}).items()
            if count and name not in ("none", "not_concerned")
        ]
        if shown:
            grid.add_row(title, _plain(", ".join(shown)))


def _plain(text: str) -> str:
    """Text with brackets, as rules have, that rich shall not read as markup."""
    return text.replace("[", r"\[")
