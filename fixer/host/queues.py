"""Who listens on which queue: ``nfnetlink_queue`` and ``netlink`` below ``/proc``, of this network namespace."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from msgspec import Struct

from fixer.host.machine import NET, Host

NETLINK_NETFILTER = 12
"""linux/netlink.h"""

_QUEUES = f"{NET}/netfilter/nfnetlink_queue"
_SOCKETS = f"{NET}/netlink"
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


class Bound(NamedTuple):
    """A queue that somebody is bound to: its line of ``nfnetlink_queue``, the number left out."""

    portid: int
    waiting: int
    mode: int
    copy_range: int
    queue_dropped: int
    user_dropped: int
    sequence: int


class _Socket(NamedTuple):
    """A netlink socket. ``NETLINK_NO_ENOBUFS`` hides from its owner what did not fit it."""

    drops: int
    inode: int | None


def are_there(host: Host) -> bool:
    """Whether this kernel has NFQUEUE, and its module is loaded."""
    return host.exists(_QUEUES)


def bound(host: Host) -> dict[int, Bound]:
    """Each queue of this namespace that somebody is bound to. Raises :class:`fixer.errors.NotPermitted`."""
    lines = (host.read(_QUEUES) or "").splitlines()
    return {number: Bound(*figures[:7]) for number, *figures in (map(int, line.split()) for line in lines)}


def listeners(host: Host, queues: Iterable[int]) -> list[Listener]:
    """Who listens on these queues; those that nobody listens on (or that the kernel does not have) are left out."""
    found = bound(host)
    sockets = _sockets(host)
    return [_listener(host, queue, found[queue], sockets) for queue in queues if queue in found]


def _listener(host: Host, queue: int, line: Bound, sockets: dict[int, _Socket]) -> Listener:
    drops, inode = sockets.get(line.portid, _UNSEEN)
    owner = None if inode is None else host.socket_owner(inode)
    return Listener(
        queue=queue,
        portid=line.portid,
        pid=owner.pid if owner else None,
        process=owner.name if owner else None,
        waiting=line.waiting,
        copies=_COPY_MODES[line.mode],
        copy_range=line.copy_range,
        queue_dropped=line.queue_dropped,
        user_dropped=line.user_dropped,
        id_sequence=line.sequence,
        socket_drops=drops,
        socket=inode,
    )


def handed(host: Host, queues: Iterable[int]) -> dict[int, Handed]:
    """What each queue that somebody listens on has handed over, by its socket's inode."""
    found = bound(host)
    sockets = _sockets(host)
    lines = [found[queue] for queue in queues if queue in found]
    ours = [(line, *sockets.get(line.portid, _UNSEEN)) for line in lines]
    return {inode: Handed(line.sequence, drops) for line, drops, inode in ours if inode is not None}


def _sockets(host: Host) -> dict[int, _Socket]:
    """The netfilter sockets of this namespace by their port, as ``/proc/net/netlink`` has them."""
    lines = (line.split() for line in (host.read(_SOCKETS) or "").splitlines()[1:])
    return {
        int(portid): _Socket(int(drops), int(inode))
        for _, protocol, portid, *_, drops, inode in lines
        if int(protocol) == NETLINK_NETFILTER
    }


_UNSEEN = _Socket(0, None)
