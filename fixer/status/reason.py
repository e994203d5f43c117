"""One thing to know about the state of the repair: how bad, what, and what to type."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct


class Severity(Enum):
    """How bad it is. ``down``: packets that are to be looked at are not. ``warning``: another promise does not hold.

    With a ``note`` they all do.
    """

    DOWN = "down"
    WARNING = "warning"
    NOTE = "note"


class Reason(Struct, frozen=True):
    """One thing to know."""

    severity: Severity
    what: str
    command: str = ""
    """What to type; or the choice there is, in words."""
    by: str = "Next"
    """What leads to the command; with nothing, the sentence does."""

    def __str__(self) -> str:
        if not self.command:
            return self.what
        return f"{self.what}. {self.by}: {self.command}" if self.by else f"{self.what}: {self.command}"
