"""What ``fixer on`` and ``fixer off`` have done, a line each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from fixer.rules.installed import Change, Installed
from fixer.rules.switch import Switched
from fixer.rules.wanted import Intent
from fixer.status import reasons


def turned_on(switched: Switched) -> list[str]:
    """What was done and what to know, for each family; then what went wrong beside it."""
    lines = [f"{change.family.name}: {line}" for change in switched.changes for line in _on(change)]
    if switched.trouble:
        lines.append(f"fixer status cannot tell what passes unseen: {switched.trouble}")
    return lines


def turned_off(changes: Iterable[Change]) -> list[str]:
    """What was removed."""
    return [f"{change.family.name}: {_off(change)}" for change in changes]


def wanted_off(intent: Intent) -> str:
    """Why a daemon that starts puts nothing in place."""
    said = f"off, as {intent.by} wanted it at {moment(intent.since)}{_because(intent)}: fixer on"
    if intent.until is not None and intent.on:
        said = f"off: {intent.by} wanted it until {moment(intent.until)}{_because(intent)}: fixer on"
    return said


def _because(intent: Intent) -> str:
    return f" ({intent.reason})" if intent.reason else ""


def moment(when: datetime) -> str:
    """In the time of this host, as its operator reads it."""
    return when.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def _on(change: Change) -> Iterator[str]:
    before, after = change.before, change.after
    if change.did == "uncovered":
        yield f"not covered: {change.why}"
    elif change.did == "cleared" and before:
        yield f"removed what we had left in {before.backend}"
    elif change.did in ("removed", "nothing"):
        was_on = " (was on)" if before and before.on else ""
        yield f"off: no {change.family.name} source is given{was_on}"
    elif before and after:
        yield f"{'on' if change.is_one else 'already on'}: {after.takes}; {after.place}"
        yield from _more(before, after)


def _more(before: Installed, after: Installed) -> Iterator[str]:
    if after.flows_queue is not None:
        yield (
            "normalising: TCP of the configured sources, and the replies to it, "
            f"to queue {after.flows_queue}; {after.way_back}"
        )
    if after.outgoing_queue is not None:
        yield f"completing: what leaves, in queue {after.outgoing_queue}; {after.way_back}"
    if before.on and not before.in_place:
        yield f"our jump was not the only one or not the last in {' and '.join(before.hooks)}: put right"
    for reason in reasons.ahead(after):
        yield str(reason)


def _off(change: Change) -> str:
    if change.did == "uncovered":
        return f"not covered: {change.why}"
    if change.did == "removed" and change.before:
        return f"off: removed {change.before.parts} ({change.before.backend})"
    return "nothing of ours was there"
