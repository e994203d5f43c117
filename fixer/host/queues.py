"""Who listens on which queue: ``nfnetlink_queue`` and ``netlink`` below ``/proc``, of this network namespace."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from msgspec import Struct

from fixer.host.machine import NET, Host

NETLINK_NETFILTER = 12
"""linux/netlink.h"""

_COPY_MODES = ("nothing", "metadata", "packets")


class Listener(Struct, frozen=True):
    """The socket bound to a queue: a line of ``nfnetlink_queue``, and that socket's line in ``netlink``."""

    queue: int
    portid: int
    pid: int | None
    process: str | None
    waiting: int
    copies: str
    copy_range: int
    queue_dropped: int
    user_dropped: int
    id_sequence: int
    socket_drops: int
    socket: int | None = None
    """Its inode, which tells it from one that is bound later; None if it is not in ``netlink``."""

    @property
    def lost(self) -> int:
        return self.queue_dropped + self.user_dropped + self.socket_drops

    def __str__(self) -> str:
        """Whose it is, for people."""
        return f"{self.process} (pid {self.pid})" if self.pid else f"netlink port {self.portid}, process not visible"


class Handed(NamedTuple):
    """What a queue's socket was given so far: the queue's id sequence, and what of it did not fit the socket."""

    sequence: int
    drops: int


def listeners(host: Host, queues: Iterable[int]) -> list[Listener]:
    """Who listens on these queues; those that nobody listens on (or that the kernel does not have) are left out."""
    figures = bound(host)
    return [_listener(host, queue, *figures[queue]) for queue in queues if queue in figures]


def _listener(
    host: Host,
    queue: int,
    portid: int,
    waiting: int,
    mode: int,
    copy_range: int,
    queue_dropped: int,
    user_dropped: int,
    sequence: int,
    *_: int,
) -> Listener:
    drops, inode = _socket(host, portid)
    owner = None if inode is None else host.socket_owner(inode)
    return Listener(
        queue=queue,
        portid=portid,
        pid=owner.pid if owner else None,
        process=owner.name if owner else None,
        waiting=waiting,
        copies=_COPY_MODES[mode],
        copy_range=copy_range,
        queue_dropped=queue_dropped,
        user_dropped=user_dropped,
        id_sequence=sequence,
        socket_drops=drops,
        socket=inode,
    )


def handed(host: Host, queues: Iterable[int]) -> dict[int, Handed]:
    """What each queue that somebody listens on has handed over, by its socket's inode."""
    figures = bound(host)
    found: dict[int, Handed] = {}
    for queue in queues:
        if queue in figures:
            portid, *_, sequence, _ = figures[queue]
            drops, inode = _socket(host, portid)
            if inode is not None:
                found[inode] = Handed(sequence, drops)
    return found


def bound(host: Host) -> dict[int, list[int]]:
    """Queue number to the figures behind it, for each queue that is bound in this namespace."""
    lines = (host.read(f"{NET}/netfilter/nfnetlink_queue") or "").splitlines()
    return {number: figures for number, *figures in (map(int, line.split()) for line in lines)}


def _socket(host: Host, portid: int) -> tuple[int, int | None]:
    """What did not fit the listener's socket, and its inode. ``NETLINK_NO_ENOBUFS`` hides it from the listener."""
    for line in (host.read(f"{NET}/netlink") or "").splitlines()[1:]:
        _, protocol, owner_portid, *_, drops, inode = line.split()
        if int(protocol) == NETLINK_NETFILTER and int(owner_portid) == portid:
            return int(drops), int(inode)
    return 0, None
