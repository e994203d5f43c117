"""What one writes first, and what fixer is measured against: a netfilterqueue callback that accepts everything."""

from __future__ import annotations

import sys

from netfilterqueue import NetfilterQueue, Packet


def accept(packet: Packet) -> None:
    packet.accept()


queue = NetfilterQueue()
queue.bind(int(sys.argv[1]), accept, max_len=4096)  # as long as fixer's
queue.run()
