"""What the kernel finishes at the daemon's word, as ECS events: for whom it began and ended, what was in the way."""

from __future__ import annotations

from typing import Any, Literal

from fixer.telemetry import events
from fixer.telemetry.events import Saying

Action = Literal["kernel-began", "kernel-ended", "kernel-lost", "kernel-failed"]


def event(action: Action, message: str, fields: dict[str, Any] | None = None) -> Saying:
    """One event. A program in the kernel is configuration, and all of these are about a change of it."""
    return events.event("fixer.kernel", action, message, fields)


def of_vtep(source: str, packets: int | None = None) -> dict[str, Any]:
    """Whose packets, and how many were finished."""
    counted = {} if packets is None else {"fixer.kernel.packets": packets}
    return {"fixer.vtep.source.ip": source} | counted


def at(*interfaces: str) -> dict[str, Any]:
    """Where the program stands, or should."""
    return {"fixer.kernel.interfaces": sorted(interfaces)}
