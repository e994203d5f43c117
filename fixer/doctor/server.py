"""What can be known of a server that may refuse clients for their timestamps: this host, or one that is told of."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from fixer.doctor.kernels import REMOVED, Kernel
from fixer.errors import FileUnreadable
from fixer.host.counters import group
from fixer.host.machine import NET, Host

RELEASE = "/proc/sys/kernel/osrelease"
NETSTAT = f"{NET}/netstat"
TW_RECYCLE = "/proc/sys/net/ipv4/tcp_tw_recycle"
TIMESTAMPS = "/proc/sys/net/ipv4/tcp_timestamps"


class Drops(Struct, frozen=True):
    """SYNs (and last ACKs) that listening sockets dropped, by why; None: this kernel does not count that."""

    paws_passive: int | None = None
    """By the timestamps' test. Absent since 4.12."""
    listen_drops: int | None = None
    """For any reason: those above and below are among them."""
    listen_overflows: int | None = None
    """The accept queue was full."""
    syn_queue_full: int | None = None
    """The queue of half-open connections was full, and SYN cookies off."""

    @classmethod
    def read(cls, netstat: str) -> Drops | None:
        """From the text of ``/proc/net/netstat``: for each group a line of names and one of values. None: is none."""
        values = group(netstat, "TcpExt")
        names = ("PAWSPassive", "ListenDrops", "ListenOverflows", "TCPReqQFullDrop")
        return cls(*(values.get(name) for name in names)) if values else None

    def since(self, earlier: Drops) -> Drops:
        """By how much each has grown."""
        pairs = ((getattr(self, name), getattr(earlier, name)) for name in self.__struct_fields__)
        return Drops(*(None if now is None or then is None else now - then for now, then in pairs))


class Server(Struct, frozen=True):
    """What is known of a server; None: unknown."""

    release: str | None = None
    tw_recycle: int | None = None
    timestamps: int | None = None
    counters: Drops | None = None
    growth: Drops | None = None
    """What the counters have grown by between two looks."""

    @property
    def kernel(self) -> Kernel | None:
        return Kernel.read(self.release) if self.release else None

    def grown_since(self, earlier: Drops | None) -> Server:
        """The same server, with what its counters have grown by since an earlier look."""
        if earlier is None or self.counters is None:
            return self
        return msgspec.structs.replace(self, growth=self.counters.since(earlier))

    @property
    def has_test(self) -> bool | None:
        """Whether its kernel can refuse SYNs for their timestamps: it then counts them, whatever its release says."""
        if self.counters:
            return self.counters.paws_passive is not None
        return self.kernel.version < REMOVED if self.kernel else None


def knobs(host: Host) -> tuple[int | None, int | None]:
    """tcp_tw_recycle and tcp_timestamps, as the namespace of the thread shows them."""
    return _number(host.read(TW_RECYCLE)), _number(host.read(TIMESTAMPS))


def look(host: Host, outside: tuple[int | None, int | None] = (None, None)) -> Server:
    """This host, in the network namespace that was entered; ``outside``: the :func:`knobs` before entering it.

    Kernels before 4.11 show the settings that hold for all namespaces in the first one alone.
    """
    inside = knobs(host)
    recycle, stamps = (there if here is None else here for here, there in zip(inside, outside, strict=True))
    release = host.read(RELEASE)
    netstat = host.read(NETSTAT)
    return Server(
        release=release.strip() if release else None,
        tw_recycle=recycle,
        timestamps=stamps,
        counters=Drops.read(netstat) if netstat else None,
    )


def look_again(host: Host, outside: tuple[int | None, int | None], before: Server, seconds: float) -> Server:
    """The server as :func:`look` finds it after so long, with what its counters have grown by meanwhile."""
    time.sleep(seconds)
    return look(host, outside).grown_since(before.counters)


def told(host: Host, release: str | None, tw_recycle: int | None, netstats: Sequence[str]) -> Server:
    """Another server, of which somebody says this: ``netstats`` are copies of its netstat, the earliest first."""
    counted = [drops_in(host, path) for path in netstats]
    server = Server(release, tw_recycle, counters=counted[-1] if counted else None)
    return server.grown_since(counted[0] if len(counted) > 1 else None)


def drops_in(host: Host, path: str) -> Drops:
    """From a copy of another server's ``/proc/net/netstat``. Raises :class:`FileUnreadable` if it is none."""
    text = host.read(path)
    if text is None:
        raise FileUnreadable(f"{path}: no such file; on the server: cat /proc/net/netstat > netstat.txt")
    counters = Drops.read(text)
    if counters is None:
        raise FileUnreadable(f"{path}: not a copy of /proc/net/netstat (no two lines TcpExt:); copy the file as it is")
    return counters


def _number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"\s*[0-9]+\s*", text) else None
