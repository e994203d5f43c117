"""``fixer off`` and the connections whose timestamps are normalised: they need rules and daemon until they end.

Without either, the server takes their segments for old ones and drops them (PAWSEstab): such a connection stalls, and
goes on if translation does. So they are not cut off unasked; draining lets them end while new ones are left alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fixer.errors import ConnectionsLive, NotPermitted, SystemRefused
from fixer.host import queues
from fixer.host.machine import Host
from fixer.rules import switch as rules
from fixer.rules.selection import shown_queues
from fixer.state import flowfile

Say = Callable[[str], None]

LOOK_SECONDS = 1.0
RULES_SECONDS = 15.0
"""How often a drain asks whether the rules are still there: that takes two processes or more."""
ABSENT_SECONDS = 10.0
"""How long a drain waits for a daemon that is being started again."""


@dataclass(frozen=True)
class Normalised:
    """The live connections of this network namespace that are normalised."""

    count: int
    files: tuple[Path, ...]  # the flow tables
    bound: frozenset[int] | None  # the queues that somebody listens on; None if that cannot be told

    def are_served(self, led: Mapping[str, int]) -> bool:
        """Whether somebody listens on one of the queues that rules lead them to."""
        return self.bound is None or not self.bound.isdisjoint(led.values())

    def __str__(self) -> str:
        return f"{self.count:,} normalised connection{'' if self.count == 1 else 's'}"


def look(host: Host, warn: Say) -> Normalised:
    """Ask the flow tables. A file that cannot be read, or is none of ours, is warned of and left out.

    So is one whose daemon is gone, if another one is here: nobody will ever count its connections down.
    """
    found: dict[Path, int] = {}
    for path in flowfile.paths(host):
        try:
            live = flowfile.look(path)
        except (OSError, ValueError) as error:
            warn(f"{path} cannot be read, so connections in it are not counted: {_cause(error)}")
            continue
        if live:
            found[path] = live.normalised
    bound = _bound(host)
    served = {flowfile.path_of(host, queue) for queue in bound or ()} & found.keys()
    files = tuple(path for path in found if path in (served or found))
    return Normalised(sum(found[path] for path in files), files, bound)


def check(host: Host, command: str, wanted: Mapping[str, int], force: bool, warn: Say) -> None:
    """To be called before ``command`` changes rules, which then lead to the queues ``wanted``, by family.

    Raises :class:`ConnectionsLive` if that would cut normalised connections off; with ``force``, only warns. Raises
    what :func:`fixer.rules.switch.tables` does, if there are such connections.
    """
    found = look(host, warn)
    led = rules.flows_queues(host) if found.count else {}
    if all(wanted.get(key) == queue for key, queue in led.items()):
        return
    if not found.are_served(led):
        warn(f"nobody listens on {_shown(led)}: {found} are not translated now, so nothing is lost with the rule")
    elif force:
        warn(f"{found} will stall: the server takes what they send from now on for old, and drops it")
    else:
        raise ConnectionsLive(
            f"{found} would stall without the rule of {_shown(led)}: let them end with fixer off --drain, "
            f"or cut them off with {command} --force"
        )


def wait(
    host: Host,
    timeout: float | None,
    say: Say,
    warn: Say,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Have new connections left alone, and return once no normalised one is left; says how many whenever that changes.

    Raises :class:`ConnectionsLive` after ``timeout`` seconds, or if nobody serves them for ABSENT_SECONDS;
    KeyboardInterrupt after saying how to go on. Draining goes on in each case.
    """
    started = asked = present = clock()
    led = rules.flows_queues(host)
    if not led:
        return
    found = look(host, warn)
    switch(found.files, True)
    said = None
    empty = 0
    try:
        # Once more after none is left: a handshake that was under way counts as soon as it is answered.
        while (empty := 0 if found.count else empty + 1) < 2:
            now = clock()
            if now - asked >= RULES_SECONDS:
                asked, gone = now, not rules.flows_queues(host)
                if gone:
                    say(f"the rule of {_shown(led)} is gone: {found} are not translated any more")
                    return
            served = found.are_served(led)
            present = now if served else present
            if found.count and said != (found.count, served):
                said = (found.count, served)
                absence = "" if served else f"; nobody listens on {_shown(led)}, so they stall: fixer run"
                say(f"draining: {found} left, new ones are left alone{absence}")
            if found.count and now - present >= ABSENT_SECONDS:
                raise ConnectionsLive(
                    f"nobody listens on {_shown(led)}, so none of the {found} can end: start fixer run, which finds "
                    "them again, then fixer off --drain; or fixer off"
                )
            if found.count and timeout is not None and now - started >= timeout:
                raise ConnectionsLive(f"{found} left after {timeout:g} s; {_NEXT}")
            sleep(LOOK_SECONDS)
            switch(found.files, True)  # a service that is restarted meanwhile says fixer on, which ends a drain
            found = look(host, lambda _: None)
    except KeyboardInterrupt:
        say(f"{found} left; {_NEXT}")
        raise
    say("drained: no normalised connection is left")


_NEXT = (
    "the rules stay and new connections are left alone. To go on waiting: fixer off --drain; to cut them off: "
    "fixer off --force; to normalise new ones again: fixer on"
)


def end(host: Host) -> bool:
    """End a drain, so that new connections are normalised again; whether there was one."""
    draining = []
    for path in flowfile.paths(host):
        try:
            live = flowfile.look(path)
        except (OSError, ValueError):
            continue
        if live and live.draining:
            draining.append(path)
    switch(draining, False)
    return bool(draining)


def switch(files: Iterable[Path], draining: bool) -> None:
    """Switch draining on or off in these flow tables; :class:`SystemRefused` if one cannot be written."""
    for path in files:
        try:
            flowfile.set_draining(path, draining)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise SystemRefused(f"{path} cannot be written, so draining is as it was: {_cause(error)}") from error


def _bound(host: Host) -> frozenset[int] | None:
    """The queues that somebody listens on; None if that cannot be told: with CAP_NET_ADMIN alone."""
    try:
        return frozenset(queues.bound(host))
    except NotPermitted:
        return None


def _shown(led: Mapping[str, int]) -> str:
    return shown_queues(sorted(set(led.values())))


def _cause(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
