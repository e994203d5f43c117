"""What the operator wants of a network namespace: one small file, until a reboot.

``fixer on`` and ``fixer off`` write it, a daemon obeys it, ``fixer status`` compares with it. It is checked when it is
read, whole or not at all, for a daemon does as root what stands in it.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from fixer.errors import SystemRefused
from fixer.host.machine import Host
from fixer.host.operator import Operator
from fixer.state import place

Moment = Annotated[datetime, Meta(tz=True)]
Wanted = TypeVar("Wanted")

REASON_MOST = 200
"""Characters of a reason."""


class Intent(Struct, Generic[Wanted], frozen=True, kw_only=True, forbid_unknown_fields=True):
    """On, and what is to be taken; or off, and then that is what was taken last, if anything was."""

    on: bool
    selection: Wanted | None = None
    variant: Literal["iptables", "nft", "legacy", "native"] | None = None
    """Which iptables was asked for, or nftables itself; None: nobody asked for any."""
    since: Moment
    """When it was first wanted on; or when it was last wanted off."""
    said: Moment | None = None
    """When that was said last; the same words said again are another moment."""
    until: Moment | None = None
    by: Operator
    reason: Annotated[str, Meta(max_length=REASON_MOST)] = ""
    started_service: bool = False
    """Whether the service did not run before, and is to be stopped with the rule."""
    netns: int | None = None
    """The cookie of the network namespace: an inode is given anew to another one, a cookie never until a reboot."""

    def __post_init__(self) -> None:
        if self.on and self.selection is None:
            raise ValueError("on, and nothing to take")

    def is_over(self, now: datetime) -> bool:
        """Whether the time until which it was wanted on has come."""
        return self.until is not None and now >= self.until

    def holds(self, now: datetime) -> bool:
        """Whether the rule is to be in place."""
        return self.on and not self.is_over(now)


def path_of(host: Host) -> Path:
    """The file of the host's network namespace."""
    return place.path_of(host, "intent")


def read(host: Host, selection: type[Wanted]) -> Intent[Wanted] | None:
    """What is wanted; None if nobody has said so in this namespace.

    ``selection``: the type that the rules keep there. Raises what :func:`place.read` does, and :class:`SystemRefused`
    if one word of the file is not understood.
    """
    path = path_of(host)
    content = place.read(path)
    if content is None:
        return None
    try:
        found = msgspec.json.decode(content, type=Intent[selection])  # type: ignore[valid-type]
    except (msgspec.DecodeError, ValueError) as error:
        raise SystemRefused(
            f"{path} is not what this version of fixer writes ({error}), so nobody obeys it: "
            "fixer on or fixer off writes it anew"
        ) from None
    return found if found.netns == host.netns_cookie() else None


def write(host: Host, wanted: Intent[Wanted]) -> None:
    """Raises :class:`SystemRefused`."""
    noted = msgspec.structs.replace(wanted, netns=host.netns_cookie())
    place.write(path_of(host), place.as_json(noted))
