"""Events of nf_tables: that somebody has changed the ruleset of this network namespace, and which process it was.

``linux/netfilter/nfnetlink.h`` and ``nf_tables.h``. iptables-nft is seen too, iptables-legacy is not: it has no events.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from typing import NamedTuple

from fixer.kernel.netlink import attributes, messages

NETLINK_NETFILTER = 12
_NFNLGRP_NFTABLES = 7
_NEW_GENERATION = 10 << 8 | 15  # NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWGEN: ends each transaction
_PROC_PID, _PROC_NAME = 2, 3  # NFTA_GEN_*, Linux 4.14
_FAMILY_BYTES = 4  # nfgenmsg


class Process(NamedTuple):
    """Who committed a transaction."""

    pid: int
    name: str


class Events:
    """The transactions since the last look. Raises :class:`OSError` where the kernel has no such events."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        try:
            self._socket.bind((0, 1 << (_NFNLGRP_NFTABLES - 1)))
        except BaseException:
            self._socket.close()
            raise
        self._socket.setblocking(False)

    def close(self) -> None:
        self._socket.close()

    def wait(self, seconds: float) -> None:
        """Until there is one, or so long."""
        select.select([self._socket], [], [], seconds)

    def news(self) -> list[Process] | None:
        """Who has changed the ruleset since the last time, the last one last; None: too many at once to know."""
        found: list[Process] | None = []
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return found
            except OSError:  # ENOBUFS: some were lost
                found = None
                continue
            if found is not None:
                found += processes(data)


def processes(data: bytes) -> Iterator[Process]:
    """Who committed, of each new generation among the messages."""
    for kind, body in messages(data):
        if kind == _NEW_GENERATION:
            said = dict(attributes(body[_FAMILY_BYTES:]))
            pid = int.from_bytes(said.get(_PROC_PID, b""), "big")
            yield Process(pid, said.get(_PROC_NAME, b"").rstrip(b"\0").decode(errors="replace"))
