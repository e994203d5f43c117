"""``fixer doctor timestamps``: does this server refuse clients behind SNAT, which mode helps it, and what cures it.

A kernel before 4.12 with ``tcp_tw_recycle`` remembers, for each source address and 60 s, the timestamp of the last
connection that went to TIME_WAIT, and refuses SYNs with an older one (``tcp_peer_is_proven``); each counts as
``PAWSPassive`` and as ``ListenDrops``. 4396e46187ca removed the test, the setting and ``PAWSPassive`` in 4.12. Since
a26552afe894 (3.17) SYNs *without* a timestamp are refused during those 60 s as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from fixer.doctor.kernels import NONE, PASSES, PER_NAMESPACE, REMOVED, UNKNOWN, Mode, Variant
from fixer.doctor.server import Drops, Server

EXAMPLE_SOURCE = "192.0.2.7/32"

_CURE = ("sysctl -w net.ipv4.tcp_tw_recycle=0", "grep -rs tcp_tw_recycle /etc/sysctl.conf /etc/sysctl.d")
"""What stops it now, and what finds the file that would turn it on again."""

Answer = Literal["affected", "unaffected", "unknown"]


class Verdict(Struct, frozen=True):
    """All there is to say; ``fixer doctor timestamps --json`` is this."""

    verdict: Answer
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


def diagnose(server: Server, sources: Sequence[str] = (), where: str = "") -> Verdict:
    """What follows from what is known. ``where``: arguments that verbs need to work in the server's namespace."""
    verdict, because = _judge(server)
    variant = _variant(server, verdict)
    affected = verdict != "unaffected"
    return Verdict(
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


def _judge(server: Server) -> tuple[Answer, str]:
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


def _variant(server: Server, verdict: Answer) -> Variant:
    if verdict == "unaffected":
        return NONE
    variant = server.kernel.variant if server.kernel else UNKNOWN
    # A release of 4.12 or newer that counts PAWSPassive is not what it says it is.
    return UNKNOWN if variant is NONE else variant


def _notes(server: Server, variant: Variant, verdict: Answer) -> list[str]:
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


def _drops(counted: Drops | None, verdict: Answer) -> list[str]:
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
