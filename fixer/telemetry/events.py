"""Every kind of event that the log can tell: one table, by data set and action.

An event is told through :func:`header` or :func:`event`, which look it up here: one that is not in the table cannot be
told. Kinds, categories and types are those that the Elastic Common Schema allows.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

Level = Literal["info", "warning", "error"]


class Saying(NamedTuple):
    """A line for the log."""

    level: Level
    message: str
    fields: dict[str, Any]
    when_ns: int | None = None
    """When the packet arrived that it is about, nanoseconds since the epoch."""


class Event(NamedTuple):
    """A kind of event; ``words`` says in a manual what it tells."""

    level: Level
    types: tuple[str, ...]
    words: str
    kind: Literal["event", "alert"] = "event"
    outcome: Literal["success", "failure", ""] = ""


CATEGORIES = {
    "fixer.daemon": "process",
    "fixer.finding": "network",
    "fixer.kernel": "configuration",
    "fixer.packet": "network",
    "fixer.rule": "configuration",
    "fixer.timestamps": "network",
}
"""Each data set, and what ECS files its events under."""

EVENTS = {
    "fixer.daemon": {
        "started": Event("info", ("start",), "the queues are served from now on", outcome="success"),
        "stopped": Event("info", ("end",), "a signal ended it; what was held is answered", outcome="success"),
        "reloaded": Event("info", ("change",), "another configuration is in force", outcome="success"),
        "not-reloaded": Event("warning", ("info",), "the new configuration was refused", outcome="failure"),
        "degraded": Event("warning", ("info",), "it serves, and something beside that fails", outcome="failure"),
        "failed": Event("error", ("end",), "what ended it, or kept it from serving", outcome="failure"),
        "log-lost": Event("warning", ("info",), "lines of the log that could not be written", outcome="failure"),
    },
    "fixer.finding": {
        "finding-opened": Event("warning", ("start",), "something is concluded from packets", kind="alert"),
        "finding-updated": Event("warning", ("info",), "it goes on, told at most once a minute", kind="alert"),
        "finding-closed": Event("info", ("end",), "it is over, or not followed any more"),
        "findings-left-out": Event("info", ("info",), "how many findings were not told"),
    },
    "fixer.kernel": {
        "kernel-began": Event("info", ("change",), "the kernel finishes packets of a VTEP", outcome="success"),
        "kernel-ended": Event("info", ("change",), "it finishes none of it any more", outcome="success"),
        "kernel-lost": Event("warning", ("change",), "the program was taken away or preceded", outcome="failure"),
        "kernel-failed": Event(
            "warning", ("change",), "the kernel does not take it: the queue goes on", outcome="failure"
        ),
    },
    "fixer.packet": {
        "pass": Event("info", ("allowed",), "a packet that is not sound went on as it came"),
        "repair": Event("info", ("allowed", "info"), "a packet was repaired"),
        "drop": Event("info", ("denied",), "a packet was dropped"),
        "left-out": Event("info", ("info",), "how many packets of a kind were not told"),
    },
    "fixer.rule": {
        "rule-on": Event("info", ("change",), "somebody wants the rule", outcome="success"),
        "rule-off": Event("info", ("change",), "somebody wants no rule any more", outcome="success"),
        "rule-prolonged": Event("info", ("change",), "somebody wants another end of it", outcome="success"),
        "rule-ended": Event("info", ("change",), "its time is over, it is removed", outcome="success"),
        "rule-lost": Event("warning", ("change",), "somebody else removed or changed it", outcome="success"),
        "rule-put-back": Event("info", ("change",), "the guard put it right", outcome="success"),
        "guard-stopped": Event("error", ("change",), "it was put back too often, and is not again", outcome="failure"),
        "guard-failed": Event("error", ("change",), "the rules cannot be guarded", outcome="failure"),
        "outgoing-begun": Event("info", ("change",), "what leaves is completed from now on", outcome="success"),
        "outgoing-ended": Event("info", ("change",), "what leaves is not completed any more", outcome="success"),
        "outgoing-failed": Event("error", ("change",), "what leaves cannot be completed", outcome="failure"),
    },
    "fixer.timestamps": {
        "flows-found": Event("info", ("info",), "connections of the daemon before this one"),
        "flows-left": Event("warning", ("info",), "connections that stall until fixer runs again", kind="alert"),
        "flows-damaged": Event("warning", ("info",), "entries of the flow table fail their check", kind="alert"),
        "draining": Event("info", ("info",), "new connections are left alone, for `fixer off --drain`"),
    },
}


def header(
    dataset: str,
    action: str,
    *,
    kind: Literal["event", "alert", ""] = "",
    when_ns: int | None = None,
) -> dict[str, Any]:
    """The fields by which ECS tells events apart. Without ``when_ns`` (since the epoch) it is told when it happens.

    ``kind``: another one than the table has. Raises :class:`KeyError` for an event that is not in it.
    """
    found = EVENTS[dataset][action]
    fields: dict[str, Any] = {} if when_ns is None else {"@timestamp": timestamp(when_ns)}
    fields |= {
        "event.dataset": dataset,
        "event.kind": kind or found.kind,
        "event.category": [CATEGORIES[dataset]],
        "event.type": list(found.types),
        "event.action": action,
    }
    if found.outcome:
        fields["event.outcome"] = found.outcome
    return fields


def event(dataset: str, action: str, message: str, fields: dict[str, Any] | None = None) -> Saying:
    """A line about it. Raises :class:`KeyError` as :func:`header` does."""
    return Saying(EVENTS[dataset][action].level, message, header(dataset, action) | (fields or {}))


def state_change(action: str, message: str, fields: dict[str, Any] | None = None) -> Saying:
    """A line about fixer itself; ``action``: one of ``fixer.daemon``."""
    return event("fixer.daemon", action, message, fields)


def timestamp(nanoseconds: int) -> str:
    """Nanoseconds since the epoch as ECS writes a time, to the millisecond."""
    moment = datetime.fromtimestamp(nanoseconds // 1_000_000 / 1000, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
