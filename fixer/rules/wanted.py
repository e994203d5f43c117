"""What the operator wants and the rules for it, changed together: one at a time, and by one who knows who listens."""

from __future__ import annotations

import time

import msgspec

from fixer.errors import FixerError, KernelLacks, NotPermitted, QueueBusy
from fixer.host import queues
from fixer.host.machine import Host
from fixer.host.operator import Operator
from fixer.host.queues import Listener
from fixer.rules import switch
from fixer.rules.installed import Change
from fixer.rules.iptables import Variant
from fixer.rules.selection import Selection
from fixer.rules.switch import Switched
from fixer.state import intent, place, report

Intent = intent.Intent[Selection]

_REPORT_SECONDS = 2.0
"""How long a daemon that has just bound its queue may take to say that it is one."""
_LOOK_SECONDS = 0.1


def read(host: Host) -> Intent | None:
    """What is wanted of this network namespace; None if nobody has said. Raises what :func:`intent.read` does."""
    return intent.read(host, Selection)


def on(
    host: Host,
    selection: Selection,
    *,
    by: Operator,
    variant: Variant | None = None,
    reason: str = "",
) -> Switched:
    """Put the rules in place, and have it known that they are wanted.

    Raises :class:`QueueBusy` if another program than ours holds one of the queues, and what :func:`switch.on` does:
    then what was wanted before still is.
    """
    with place.locked(host):
        earlier = before(host)
        require_no_other(host, selection)
        switched = _switched(host, selection, variant)
        now = host.now()
        goes_on = earlier is not None and earlier.holds(now) and _endless(earlier.selection) == _endless(selection)
        wanted = Intent(
            on=True,
            selection=selection,
            variant=variant,
            since=earlier.since if goes_on and earlier else now,
            said=now,
            until=selection.until,
            by=by,
            reason=reason or (earlier.reason if goes_on and earlier else ""),
            started_service=earlier is not None and earlier.on and earlier.started_service,
        )
        intent.write(host, wanted)
    return switched


def off(host: Host, *, by: Operator, reason: str = "") -> tuple[list[Change], Intent | None]:
    """Take the rules away, and have it known that they are not wanted; what was done, and what was wanted earlier.

    Raises what :func:`switch.off` does. What it could not remove is not wanted all the same.
    """
    with place.locked(host):
        earlier = before(host)
        last = earlier.selection if earlier else None
        now = host.now()
        intent.write(host, Intent(on=False, selection=last, since=now, said=now, by=by, reason=reason))
        return switch.off(host), earlier


def end(host: Host) -> list[Change]:
    """Take the rules away if the time is over until which they are wanted. Raises what `read` and `switch.off` do."""
    with place.locked(host):
        wanted = read(host)
        return switch.off(host) if wanted is not None and wanted.is_over(host.now()) else []


def obey(host: Host) -> Switched:
    """Put in place what is wanted, if that is not so; nothing, if nothing is. Raises what `read` and `switch.on` do."""
    with place.locked(host):
        wanted = read(host)
        return Switched([]) if wanted is None or not wanted.holds(host.now()) else put(host, wanted)


def put(host: Host, intent: Intent) -> Switched:
    """Put in place what is wanted; for who has locked it. Raises what :func:`switch.on` does."""
    return _switched(host, intent.selection, intent.variant) if intent.selection else Switched([])


def _switched(host: Host, selection: Selection, variant: Variant | None) -> Switched:
    """Switched on, with an end of the rules' own where the kernel has that."""
    try:
        return switch.on(host, selection, variant)
    except KernelLacks:
        if selection.until is None:
            raise
        return switch.on(host, msgspec.structs.replace(selection, until=None), variant)


def _endless(selection: Selection | None) -> Selection | None:
    return selection and msgspec.structs.replace(selection, until=None)


def note_started_service(host: Host) -> None:
    """The service did not run before ``on``: ``off`` is to stop it."""
    with place.locked(host):
        wanted = read(host)
        if wanted is not None:
            intent.write(host, msgspec.structs.replace(wanted, started_service=True))


def require_no_other(host: Host, selection: Selection) -> None:
    """Raises :class:`QueueBusy` if another program than ours holds a queue of these: it would be fed all VXLAN."""
    wanted = selection.every_queue()
    deadline = time.monotonic() + _REPORT_SECONDS
    while others := [each for each in _listeners(host, wanted) if not report.is_ours(host, each)]:
        if time.monotonic() >= deadline:
            first = others[0]
            raise QueueBusy(
                f"queue {first.queue} is held by {first}, which is no fixer and would be fed what is to be repaired: "
                "choose another with --queue N, for fixer run too"
            )
        time.sleep(_LOOK_SECONDS)


def _listeners(host: Host, wanted: list[int]) -> list[Listener]:
    try:
        return queues.listeners(host, dict.fromkeys(wanted))
    except NotPermitted:  # with CAP_NET_ADMIN alone nobody can see them
        return []


def before(host: Host) -> Intent | None:
    """What was wanted before; nothing, if that cannot be understood: it is about to be written anew."""
    try:
        return read(host)
    except FixerError:
        return None
