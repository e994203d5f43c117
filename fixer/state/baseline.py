"""What whoever writes a rule remembers: how the kernel spells it, and where counting begins.

A rule that is written begins at 0, and a queue's sequence does not: both are noted then, and ``fixer status`` counts
from there what passed unseen. And what the kernel says of a rule when it is right tells later whether it still is,
whatever its words are.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from fixer.host.machine import Host
from fixer.host.queues import Handed
from fixer.state import place


class Written(Struct, frozen=True):
    """One family's rules, as they were read back once they were written."""

    backend: str
    said: tuple[str, ...]
    """:attr:`fixer.rules.installed.Installed.said`"""
    selection: msgspec.Raw
    """The :class:`fixer.rules.selection.Selection` that was wanted, which is the rules' own to read."""


class Baseline(Struct, frozen=True):
    """One moment: ``rule_packets`` by family, and ``handed`` by the inode of a queue's socket.

    A socket that is not among them was bound later, and counts from 0.
    """

    rule_packets: dict[str, int | None] = {}
    handed: dict[int, Handed] = {}
    written: dict[str, Written] = {}
    """By family; one that is not among them has no rules of ours, or nobody remembers."""


def not_handed(since: Baseline, matched: int, heard: Iterable[tuple[int | None, Handed]]) -> int:
    """Of the packets that rules ``matched`` since then, those that no queue was given: they passed unseen.

    ``heard``: by their sockets' inodes, what the queues have handed over. A full queue with fail-open, and one nobody
    listens on, let packets pass that show in no drop counter: only the rule has counted them. A queue's sequence (32
    bits, it wraps) numbers what was handed to the socket, what did not fit there included. A lower bound, unless
    super-packets come whole (GSO): if not, the kernel numbers each of their segments, while the rule has counted one
    packet.
    """
    sequence, drops = 0, 0
    for inode, now in heard:
        before = since.handed.get(inode or 0, Handed(0, 0))
        sequence += now.sequence - before.sequence
        drops += now.drops - before.drops
    missing = matched - sequence
    return (missing % (1 << 32) if missing > 0 else 0) + drops


def path_of(host: Host) -> Path:
    """The file of the host's network namespace, which has one set of rules of ours."""
    return place.path_of(host, "baseline")


def read(host: Host) -> Baseline | None:
    """What was noted; None if nothing was, or it cannot be understood. Raises what :func:`place.read` does."""
    content = place.read(path_of(host))
    try:
        return None if content is None else msgspec.json.decode(content, type=Baseline)
    except msgspec.DecodeError:
        return None


def write(host: Host, noted: Baseline) -> None:
    """Raises :class:`fixer.errors.SystemRefused`."""
    place.write(path_of(host), msgspec.json.encode(noted))


def remove(host: Host) -> None:
    """To be called when the rules are gone."""
    place.remove(path_of(host))
