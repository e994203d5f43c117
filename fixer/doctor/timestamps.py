"""``fixer doctor timestamps``: does this server refuse clients behind SNAT, which mode helps it, and what cures it.

A kernel before 4.12 with ``tcp_tw_recycle`` remembers, for each source address and 60 s, the timestamp of the last
connection that went to TIME_WAIT, and refuses SYNs with an older one (``tcp_peer_is_proven``); each counts as
``PAWSPassive`` and as ``ListenDrops``. 4396e46187ca removed the test, the setting and ``PAWSPassive`` in 4.12. Since
a26552afe894 (3.17) SYNs *without* a timestamp are refused during those 60 s as well.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from fixer.errors import FileUnreadable
from fixer.host.machine import NET, Host

RELEASE = "/proc/sys/kernel/osrelease"
NETSTAT = f"{NET}/netstat"
TW_RECYCLE = "/proc/sys/net/ipv4/tcp_tw_recycle"
TIMESTAMPS = "/proc/sys/net/ipv4/tcp_timestamps"

REMOVED = (4, 12)
"""The first kernel without the test: 4396e46187ca."""

PER_NAMESPACE = (4, 11)
"""The first kernel with a tcp_tw_recycle for each network namespace; before, one holds for all, and only the first
namespace shows it."""

EXAMPLE_SOURCE = "192.0.2.7/32"

_CURE = ("sysctl -w net.ipv4.tcp_tw_recycle=0", "grep -rs tcp_tw_recycle /etc/sysctl.conf /etc/sysctl.d")
"""What stops it now, and what finds the file that would turn it on again."""

Verdict = Literal["affected", "unaffected", "unknown"]
Mode = Literal["strip", "normalise"]


class Variant(NamedTuple):
    """What one kind of kernel does with SYNs, and so what each mode brings: a row of the table in README.md."""

    kernels: str
    without_timestamp: str
    """What becomes of a SYN without a timestamp in the 60 s."""
    strip: str
    normalise: str
    mode: Mode | None
    """The one to use."""


_NORMALISE = "works once what the server remembered before is 60 s old"
PASSES = Variant(
    kernels="up to 3.16; RHEL and CentOS 7 up to 3.10.0-229",
    without_timestamp="passes",
    strip="works at once",
    normalise=_NORMALISE,
    mode="strip",
)
REFUSES = Variant(
    kernels="3.17 to 4.11; RHEL and CentOS 7 from 3.10.0-957",
    without_timestamp="is refused",
    strip="works 60 s after the source's last connection with timestamps closed, until the next such one closes",
    normalise=_NORMALISE,
    mode="normalise",
)
UNKNOWN = Variant(
    kernels="RHEL and CentOS 7 between those two; any other kernel with backports",
    without_timestamp="passes or is refused: unknown",
    strip="works at once, or no better than with 3.17 to 4.11",
    normalise=_NORMALISE,
    mode="normalise",
)
NONE = Variant(
    kernels="4.12 and newer, or any with tcp_tw_recycle = 0",
    without_timestamp="passes",
    strip="no use",
    normalise="no use",
    mode=None,
)
VARIANTS = (PASSES, REFUSES, UNKNOWN, NONE)


class Kernel(NamedTuple):
    """A release as far as it matters here: ``3.10.0-1160.el7.x86_64`` is version (3, 10), patch 0, build 1160."""

    version: tuple[int, int]
    patch: int
    build: int | None

    @classmethod
    def read(cls, release: str) -> Kernel | None:
        """What ``uname -r`` says, of whatever distribution; None where it begins with no version."""
        found = re.match(r"\s*([0-9]{1,4})\.([0-9]{1,4})(?:\.([0-9]{1,6}))?(?:-([0-9]{1,6})(?![0-9]))?", release)
        if found is None:
            return None
        major, minor, patch, build = found.groups()
        return cls((int(major), int(minor)), int(patch or 0), int(build) if build else None)

    @property
    def variant(self) -> Variant:
        """The kind of kernel. docs/timestamps.md says which sources were read, and what is not known."""
        if self.version >= REMOVED:
            return NONE
        # Only RHEL 7 and its kin count builds of 3.10.0; 229 is without a26552afe894, 957 and 1160 are with it.
        if self.version == (3, 10) and self.patch == 0 and self.build is not None and self.build > 229:
            return REFUSES if self.build >= 957 else UNKNOWN
        return REFUSES if self.version >= (3, 17) else PASSES


class Counters(Struct, frozen=True):
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
    def read(cls, netstat: str) -> Counters | None:
        """From the text of ``/proc/net/netstat``: for each group a line of names and one of values. None: is none."""
        lines = [line.split() for line in netstat.splitlines() if line.startswith("TcpExt:")]
        if len(lines) != 2 or len(lines[0]) != len(lines[1]):
            return None
        values = {name: int(value) for name, value in zip(*lines, strict=True) if re.fullmatch(r"-?[0-9]+", value)}
        names = ("PAWSPassive", "ListenDrops", "ListenOverflows", "TCPReqQFullDrop")
        return cls(*(values.get(name) for name in names)) if values else None

    def since(self, earlier: Counters) -> Counters:
        """By how much each has grown."""
        pairs = ((getattr(self, name), getattr(earlier, name)) for name in self.__struct_fields__)
        return Counters(*(None if now is None or then is None else now - then for now, then in pairs))


class Server(Struct, frozen=True):
    """What is known of a server; None: unknown."""

    release: str | None = None
    tw_recycle: int | None = None
    timestamps: int | None = None
    counters: Counters | None = None
    growth: Counters | None = None
    """What the counters have grown by between two looks."""

    @property
    def kernel(self) -> Kernel | None:
        return Kernel.read(self.release) if self.release else None

    def grown_since(self, earlier: Counters | None) -> Server:
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


class Diagnosis(Struct, frozen=True):
    """All there is to say; ``fixer doctor timestamps --json`` is this."""

    verdict: Verdict
    because: str
    """The verdict in one sentence."""
    server: Server
    notes: list[str]
    cure: list[str]
    """Commands, on the server."""
    strip: str
    normalise: str
    mode: Mode | None
    configuration: str | None
    """The part of fixer.toml for ``mode``."""
    then: list[str]
    """What makes it work, after the configuration is in place."""

    @property
    def exit_code(self) -> int:
        """0: not affected; 3: affected, or not known."""
        return 0 if self.verdict == "unaffected" else 3


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
        counters=Counters.read(netstat) if netstat else None,
    )


def look_again(host: Host, outside: tuple[int | None, int | None], before: Server, seconds: float) -> Server:
    """The server as :func:`look` finds it after so long, with what its counters have grown by meanwhile."""
    time.sleep(seconds)
    return look(host, outside).grown_since(before.counters)


def told(host: Host, release: str | None, tw_recycle: int | None, netstats: Sequence[str]) -> Server:
    """Another server, of which somebody says this: ``netstats`` are copies of its netstat, the earliest first."""
    counted = [counters_in(host, path) for path in netstats]
    server = Server(release, tw_recycle, counters=counted[-1] if counted else None)
    return server.grown_since(counted[0] if len(counted) > 1 else None)


def counters_in(host: Host, path: str) -> Counters:
    """From a copy of another server's ``/proc/net/netstat``. Raises :class:`FileUnreadable` if it is none."""
    text = host.read(path)
    if text is None:
        raise FileUnreadable(f"{path}: no such file; on the server: cat /proc/net/netstat > netstat.txt")
    counters = Counters.read(text)
    if counters is None:
        raise FileUnreadable(f"{path}: not a copy of /proc/net/netstat (no two lines TcpExt:); copy the file as it is")
    return counters


def diagnose(server: Server, sources: Sequence[str] = (), where: str = "") -> Diagnosis:
    """What follows from what is known. ``where``: arguments that verbs need to work in the server's namespace."""
    verdict, because = _judge(server)
    variant = _variant(server, verdict)
    affected = verdict != "unaffected"
    return Diagnosis(
        verdict=verdict,
        because=because,
        server=server,
        notes=_notes(server, variant, verdict),
        cure=list(_CURE) if affected else [],
        strip=variant.strip,
        normalise=variant.normalise,
        mode=variant.mode if affected else None,
        configuration=_configuration(variant.mode, sources) if affected and variant.mode else None,
        then=[f"fixer on{where}", f"fixer run{where}"] if affected else [],
    )


def _judge(server: Server) -> tuple[Verdict, str]:
    refused = server.counters.paws_passive if server.counters else None
    growth = server.growth.paws_passive if server.growth else None
    if growth is not None and growth > 0:
        return "affected", f"it is refusing clients for their timestamps now: PAWSPassive grew by {growth:,}."
    if server.has_test is False:
        return "unaffected", "its kernel cannot refuse a client for its timestamps (the test was removed in 4.12)."
    if server.tw_recycle == 0:
        ever = f" It refused {refused:,} SYNs while it was on." if refused else ""
        return "unaffected", f"tcp_tw_recycle is 0, so no client is refused for its timestamps.{ever}"
    if server.timestamps == 0:
        return "unaffected", "tcp_timestamps is 0, so it remembers none and refuses no client for them."
    if server.tw_recycle is None:
        hint = f" It has refused {refused:,} SYNs for their timestamps so far." if refused else ""
        return "unknown", f"it depends on tcp_tw_recycle, which is not known.{hint}"
    if refused is None:
        return "affected", "tcp_tw_recycle is on: it refuses clients that share a source address (SNAT)."
    if refused == 0:
        return "affected", "tcp_tw_recycle is on: it refuses clients that share a source address; none so far."
    if growth == 0:
        ago = "none of them while it was watched"
        return "affected", f"tcp_tw_recycle is on: it has refused {refused:,} SYNs for their timestamps, {ago}."
    return "affected", f"tcp_tw_recycle is on: it has refused {refused:,} SYNs for their timestamps so far."


def _variant(server: Server, verdict: Verdict) -> Variant:
    if verdict == "unaffected":
        return NONE
    variant = server.kernel.variant if server.kernel else UNKNOWN
    # A release of 4.12 or newer that counts PAWSPassive is not what it says it is.
    return UNKNOWN if variant is NONE else variant


def _notes(server: Server, variant: Variant, verdict: Verdict) -> list[str]:
    kernel, notes = server.kernel, []
    if server.release and kernel is None:
        notes.append(f'"{server.release}" begins with no version: nothing is concluded from it.')
    if kernel and server.counters and server.has_test is not (kernel.version < REMOVED):
        has = "counts" if server.has_test else "does not count"
        notes.append(f"{server.release} {has} PAWSPassive, other than the mainline kernel: the counters are believed.")
    if server.growth and any(value < 0 for value in msgspec.structs.astuple(server.growth) if value is not None):
        notes.append("Counters went down between the two looks: the server was started again, or their order is wrong.")
    if verdict == "unknown":
        notes.append("Say it with --tw-recycle 0 or 1; on the server: cat /proc/sys/net/ipv4/tcp_tw_recycle.")
        if kernel and kernel.version < PER_NAMESPACE:
            notes.append("Before 4.11 it holds for all namespaces of the host, and only the host itself shows it.")
    if verdict != "unaffected":
        notes.append(
            f"While it remembers a source's timestamp (60 s), a SYN without one {variant.without_timestamp}"
            + (", as far as mainline goes; backports are not known." if variant is PASSES else ".")
        )
    return notes + _drops(server.growth or server.counters, verdict)


def _drops(counted: Counters | None, verdict: Verdict) -> list[str]:
    """What else ListenDrops means."""
    if counted is None or not counted.listen_drops:
        return []
    known = {
        "for their timestamps": counted.paws_passive,
        "accept queue full (ListenOverflows)": counted.listen_overflows,
        "SYN queue full (TCPReqQFullDrop)": counted.syn_queue_full,
    }
    rest = counted.listen_drops - sum(filter(None, known.values()))
    parts = [f"{count:,} {why}" for why, count in known.items() if count]
    parts += [f"{rest:,} for another reason (memory, route, SYN backlog)"] if rest > 0 else []
    notes = [f"Of {counted.listen_drops:,} ListenDrops: {', '.join(parts)}."]
    if counted.listen_overflows:
        notes.append(
            "Accept queue full: the application accepts too slowly, or its backlog is too short. `ss -lnt` shows its "
            "fill (Recv-Q) and size (Send-Q), which net.core.somaxconn limits. No mode of fixer helps against that."
        )
    if verdict == "unaffected":
        notes.append("None of these goes away with [timestamps]: leave it off.")
    return notes


def _configuration(mode: Mode, sources: Sequence[str]) -> str:
    shown = ", ".join(f'"{source}"' for source in sources or [EXAMPLE_SOURCE])
    hint = "" if sources else "  # replace it: the addresses the server sees, of clients behind SNAT"
    return f'[timestamps]\nmode = "{mode}"\nsources = [{shown}]{hint}\n'


def _number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"\s*[0-9]+\s*", text) else None
