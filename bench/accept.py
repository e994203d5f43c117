"""What one writes first, and what ``fixer`` is measured against: a netfilterqueue callback that accepts all."""

from __future__ import annotations

from netfilterqueue import NetfilterQueue, Packet


def accept(packet: Packet) -> None:
    packet.accept()


queue = NetfilterQueue()
queue.bind(0, accept, max_len=4096)  # as long as fixer's
queue.run()
