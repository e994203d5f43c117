"""What shows that something is wrong at all: packets refused for their checksum, segments sent again and again.

A NIC that is known for a fault is no fault; one beside a symptom is a suspect.
"""

from __future__ import annotations

from collections.abc import Iterator

from fixer.doctor.node import Node, Space

CHECKSUMS = ("Udp.InCsumErrors", "Udp6.InCsumErrors", "Tcp.InCsumErrors")

FEW = 10
"""Packets since the start that a healthy host may well have refused."""

SHARE = 1 / 1000
"""Of what came in: less than that is refused on healthy hosts too (a bad cable somewhere, a scanner)."""

RETRANSMITTED = 0.02
"""Of the segments that were sent: what a local network does not lose."""

SEGMENTS = 200
"""Fewer show nothing."""

RECEIVED = {
    "Udp.InCsumErrors": ("Udp.InDatagrams", "Udp.InErrors"),
    "Udp6.InCsumErrors": ("Udp6.InDatagrams", "Udp6.InErrors"),
    "Tcp.InCsumErrors": ("Tcp.InSegs",),
}
"""What all that came in is counted as: InDatagrams are only those that were delivered (RFC 4113)."""


def refused_now(node: Node, space: Space, name: str) -> int:
    """Packets refused for their checksum while the node was watched."""
    return max(node.growth(space, name) or 0, 0)


def refused_before(space: Space, name: str) -> int:
    """As many since the start, if that is more than a healthy host shows; else 0."""
    errors = space.counters.get(name, 0)
    came = sum(space.counters.get(each, 0) for each in RECEIVED[name])
    return errors if errors >= FEW and errors >= came * SHARE else 0


def seen(node: Node) -> Iterator[str]:
    """Each symptom in a few words; none on a healthy node."""
    for space in node.spaces:
        for name in CHECKSUMS:
            if count := refused_now(node, space, name):
                yield f"{name} grew by {count:,} in {node.seconds:g} s{space.where}"
            elif count := refused_before(space, name):
                yield f"{name} is {count:,}{space.where}"
        again, sent = _sent(node, space)
        if sent >= SEGMENTS and again >= sent * RETRANSMITTED:
            yield f"{again:,} of {sent:,} TCP segments were sent again{space.where}"


def _sent(node: Node, space: Space) -> tuple[int, int]:
    """Segments sent again, and all of them: while it was watched, if enough were sent then, or since the start."""
    again, sent = node.growth(space, "Tcp.RetransSegs"), node.growth(space, "Tcp.OutSegs")
    if again is not None and sent is not None and again + sent >= SEGMENTS:
        return again, again + sent
    # OutSegs leaves out the segments that were sent again (RFC 4022).
    again = space.counters.get("Tcp.RetransSegs", 0)
    return again, again + space.counters.get("Tcp.OutSegs", 0)
