"""Where counting begins: what our rules had matched, and the queues handed over, when a rule was last written.

A rule that is written begins at 0, and a queue's sequence does not: whoever writes a rule notes both then, in
/run/fixer/NETNS-QUEUE.baseline, and ``fixer status`` counts from there what passed unseen.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from fixer.host.machine import Host
from fixer.host.queues import Handed


class Baseline(Struct, frozen=True):
    """One moment: ``rule_packets`` by family, and ``handed`` by the inode of a queue's socket.

    A socket that is not among them was bound later, and counts from 0.
    """

    rule_packets: dict[str, int | None]
    handed: dict[int, Handed] = {}


def path_of(host: Host, queue: int) -> str:
    """The file for the rules whose first queue this is, in the host's network namespace."""
    return f"/run/fixer/{host.netns_inode()}-{queue}.baseline"


def read(host: Host, queue: int) -> Baseline | None:
    """What was noted; None if nothing was, or it cannot be understood. Raises what :meth:`Host.read` does."""
    text = host.read(path_of(host, queue))
    try:
        return None if text is None else msgspec.json.decode(text, type=Baseline)
    except msgspec.DecodeError:
        return None


def write(host: Host, queue: int, noted: Baseline) -> None:
    """Raises what :meth:`Host.write` does."""
    host.write(path_of(host, queue), msgspec.json.encode(noted).decode())
