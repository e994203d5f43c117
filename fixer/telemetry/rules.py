"""What became of the rule, as ECS events: who wanted it, why, until when, what it has counted; and what the guard did.

They are told where the daemon logs; without a daemon, in the journal by whoever typed the command.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from fixer.telemetry import events
from fixer.telemetry.events import Saying

Action = Literal[
    "rule-on",
    "rule-off",
    "rule-prolonged",
    "rule-ended",
    "rule-lost",
    "rule-put-back",
    "guard-stopped",
    "guard-failed",
    "outgoing-begun",
    "outgoing-ended",
    "outgoing-failed",
]


def event(action: Action, message: str, fields: dict[str, Any] | None = None) -> Saying:
    """One event. A rule is configuration, and all of these are about a change of it."""
    return events.event("fixer.rule", action, message, fields)


def who_and_why(user: str, login: str | None, sudo: str | None, reason: str) -> dict[str, Any]:
    """The fields that say it."""
    others = sorted({name for name in (user, login, sudo) if name})
    found: dict[str, Any] = {"user.name": user, "related.user": others}
    if login:
        found["fixer.rule.login"] = login
    if sudo:
        found["fixer.rule.sudo"] = sudo
    if reason:
        found["event.reason"] = reason
    return found


def how_long(since: datetime, until: datetime | None, now: datetime) -> dict[str, Any]:
    """When it was first wanted, when it ends, and for how many seconds it has been on."""
    seconds = int((now - since).total_seconds())
    found: dict[str, Any] = {"fixer.rule.since": since.isoformat(), "fixer.rule.seconds": seconds}
    if until:
        found["fixer.rule.until"] = until.isoformat()
    return found


def counted(when: Literal["before", "after"], packets: dict[str, int | None]) -> dict[str, Any]:
    """How many packets each family's rule has counted."""
    return {f"fixer.rule.packets.{when}.{family}": count for family, count in packets.items() if count is not None}


def by_process(name: str | None, pid: int | None) -> dict[str, Any]:
    """The process that changed the ruleset last, as far as the kernel says so."""
    return {"process.name": name, "process.pid": pid} if name else {}
