"""``python -m bench.hostile``: the worst packets that anybody can send, beside an ordinary load; no root.

Each load comes at 20,000 packets a second of the packet path's own clock, for three of its seconds; what it costs is
measured apart, a batch at a time, with nothing else in the loop. An innocent packet waits for the batch before it.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

import bench
from fixer._csum import checksum_sum
from fixer.datapath.flows import Flows
from fixer.datapath.pipeline import Pipeline
from fixer.findings import wire
from fixer.findings.lifecycle import LifeCycle
from fixer.now import Now

from .build import compiled
from .packets import ACK, AROUND, IP, SYN, complement, flow, stamped, tunnelled

HERE = Path(__file__).parent
A_SECOND, SECONDS = 20_000, 3
BATCH = 128  # as the queue reads them
BATCHES = 60
FLOWS = 65_536


def ordinary(unfinished: bool) -> Iterator[bytes]:
    """64 flows between eight pairs of hosts."""
    flows = [flow(100, number, unfinished) for number in range(64)]
    while True:
        yield from map(next, flows)


def strangers() -> Iterator[bytes]:
    """Each from another VTEP, with another VNI, envelope and flow; and damaged, so that each is diagnosed."""
    for number, packet in enumerate(flow(100, 1)):
        told = bytearray(packet)
        told[12:16] = struct.pack("!I", 0x0B000000 + number)
        told[32:35] = (number & 0xFFFFFF).to_bytes(3)
        told[36:42] = number.to_bytes(6)
        told[62:66] = struct.pack("!I", 0x0A000000 + number)
        told[-1] ^= 0x55
        for at in (0, AROUND):  # a wrong IPv4 header would end the look at the packet early
            told[at + 10 : at + 12] = b"\0\0"
            told[at + 10 : at + 12] = complement(checksum_sum(bytes(told[at : at + IP]))).to_bytes(2)
        yield bytes(told)


def segments(flags: int) -> Iterator[bytes]:
    """Of a source whose timestamps are normalised: each of another connection, which nobody has ever answered."""
    vteps, hosts = (bytes([192, 0, 2, 1]), bytes([192, 0, 2, 9])), (bytes([10, 0, 0, 1]), bytes([10, 1, 0, 1]))
    for number in count():
        ports = 1024 + number % 64000, 1 + number // 64000
        numbers, stamps = (number * 7919, number), (number * 13, number)
        yield tunnelled(vteps, stamped(hosts, ports, flags, numbers, stamps))


LOADS: dict[str, Callable[[], Iterator[bytes]]] = {
    "64 flows, sound": lambda: ordinary(False),
    "64 flows, every packet to be repaired": lambda: ordinary(True),
    "every packet corrupt, of another VTEP, VNI, envelope and flow": strangers,
    "SYNs of a source that is normalised, without end": lambda: segments(SYN),
    "single ACKs of that source, of no connection": lambda: segments(ACK),
}


def main() -> int:
    spin = compiled(bench, ("spin",), HERE.parent / "build" / "bench")
    table = Table("load", "memory", "log lines a second", "findings open", "CPU a packet", "an innocent packet waits")
    for name, load in LOADS.items():
        table.add_row(name, *measured(spin, load))
    Console(width=None if sys.stdout.isatty() else 150).print(table)
    return 0


def measured(spin: object, load: Callable[[], Iterator[bytes]]) -> tuple[str, ...]:
    flows = Flows(bytearray(Flows.size(FLOWS)), FLOWS)
    settings = {"timestamps": "normalise", "sources": [(bytes([10, 0, 0, 0]), 8)], "flows": flows}
    pipeline = Pipeline(ports=[4789], **settings)
    watched = wire.Wire(wire.watch([pipeline]), monitor=False)
    lives = LifeCycle()
    packets = load()
    for packet in islice(packets, 1000):
        pipeline.examine(bytearray(packet), when_ns=10**18)
    before, told, open_ = resident(), 0, 0
    for second in range(SECONDS):
        for number, packet in enumerate(islice(packets, A_SECOND)):
            when = 10**18 + second * 10**9 + number * (10**9 // A_SECOND)
            pipeline.examine(bytearray(packet), when_ns=when, uptime=1000 + second)
        pipeline.settle(10**18 + (second + 1) * 10**9, 1000 + second, all=False)
        told += len(pipeline.drain(1 << 20))
        now = Now(1000.0 + second, 10**18 + (second + 1) * 10**9)
        told += len(list(lives.look(watched.findings(now), now)))
        open_ = len(lives.open)
    grown = resident() - before
    times = []
    for _ in range(BATCHES):
        seconds, _ = spin.process(pipeline, list(islice(packets, BATCH)), 1)  # type: ignore[attr-defined]
        times.append(seconds / BATCH * 1e9)
    each = median(times)
    return (
        f"{grown / 1e6:+.0f} MB",
        f"{told / SECONDS:.0f}",
        str(open_),
        f"{each:.0f} ns",
        f"{each * BATCH / 1000:.0f} µs",
    )


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


if __name__ == "__main__":
    sys.exit(main())
