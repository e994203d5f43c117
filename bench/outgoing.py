"""``python -m bench.outgoing``, as root: what each way costs to have a sender's VXLAN packets complete when they leave.

Each way is right for TCP, UDP and segments that are cut later (tests/e2e/test_outgoing.py), but for the one that only
fills: it stands here for what its rule costs. All have their turn in every round; the ratios are to `ethtool -K eth0 tx
off` in the same round. CPU time is the sending host's for each packet on the wire: of the program that sends, of the
kernel thread that takes the acknowledgements, and of who listens on a queue. What the receiver does is on its own time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from fixer.errors import FixerError
from fixer.host.machine import Host
from fixer.lab import net

from .cable import OVERLAY, PORT, STREAM_SECONDS_MORE, UNDERLAY, Cable, Traffic, must, own_seconds, wait_until
from .ratio import interval, ratios
from .receivers import compiled_loop

BUILD = Path(__file__).parent.parent / "build" / "bench"
QUEUE = 7
STREAMS = {"TCP": (), "UDP, 200 bytes": ("--udp", "--bitrate", "0", "--length", "200")}
FINISHING = f"from fixer.nfqueue.finishing import Finishing; f = Finishing({QUEUE}); import time; time.sleep(1e6)"


class Way(NamedTuple):
    """How what leaves is made complete: a rule, who listens on its queue, and what ethtool is told."""

    rule: str = ""
    listener: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


VXLAN = f"-p udp --dport {PORT}"
TO_QUEUE = f"-t raw -A OUTPUT {VXLAN} -j NFQUEUE --queue-bypass --queue-num {QUEUE}"
FILL = f"-t mangle -A POSTROUTING {VXLAN} -j CHECKSUM --checksum-fill"
BASE = "ethtool -K eth0 tx off"
WAYS = {
    BASE: Way(settings=("eth0 tx off",)),
    "fixer on --outgoing (the kernel finishes at enqueue)": Way(TO_QUEUE, (sys.executable, "-c", FINISHING)),
    "CHECKSUM --checksum-fill, ethtool -K vxlan0 gso off tso off": Way(FILL, settings=("vxlan0 tso off gso off",)),
    "CHECKSUM --checksum-fill alone: wrong for TCP": Way(FILL),
    "a queue without GSO, C loop": Way(TO_QUEUE, ("{loop}", "--queue", str(QUEUE))),
    "nothing: what leaves is unfinished": Way(),
}


class Sent(NamedTuple):
    gbit_per_second: float
    sender_us: float  # CPU time for each packet on the wire


@contextmanager
def standing(cable: Cable, way: Way, loop: Path) -> Iterator[list[int]]:
    """``cable.left`` leaves checksums to its NIC, and ``way`` is what is done about that; who works for that."""
    for device in ("vxlan0 tx on tso on gso on", "eth0 tx on tso off gso off", *way.settings):
        must(cable.left.run("ethtool", "-K", *device.split()), "ethtool")
    with ExitStack() as undo:
        if way.rule:
            must(cable.left.run("iptables", *way.rule.split()), "iptables")
            undo.callback(cable.left.run, "iptables", *way.rule.replace("-A", "-D", 1).split())
        pids = []
        if way.listener:
            listener = cable.left.start(*(word.format(loop=loop) for word in way.listener))
            undo.callback(net.stop, listener)
            wait_until(lambda: cable.left.call(bound, cable.host), "the listener")
            pids.append(listener.pid)
        yield pids


def bound(host: Host) -> bool:
    return any(line.split()[0] == str(QUEUE) for line in
               (host.read("/proc/thread-self/net/netfilter/nfnetlink_queue") or "").splitlines())  # fmt: skip


def threads() -> set[int]:
    """The kernel's threads that receive for an eth0, of any host."""
    names = (path for path in Path("/proc").glob("[0-9]*/comm"))
    return {int(path.parent.name) for path in names if path.read_text().startswith("napi/eth0-")}


def received_apart(end: net.Namespace) -> set[int]:
    """What ``end`` receives is from now on work of a thread of its own, or who sends is charged with it."""
    before = threads()
    must(end.run("ethtool", "-K", "eth0", "gro", "on"), "ethtool")  # or veth has no NAPI
    must(end.run("sh", "-c", "echo 1 > /sys/class/net/eth0/threaded"), "threaded NAPI")
    return threads() - before


def sent(cable: Cable, seconds: int, stream: tuple[str, ...], pids: Sequence[int]) -> Sent:
    packets, busy = cable.packets(), sum(own_seconds(cable.host, pid) for pid in pids)
    done = cable.left.run("timeout", str(seconds + STREAM_SECONDS_MORE), "iperf3", "--client", OVERLAY["right"],
                          "--time", str(seconds), "--json", *stream)  # fmt: skip
    packets, busy = cable.packets() - packets, sum(own_seconds(cable.host, pid) for pid in pids) - busy
    end = json.loads(must(done, "iperf3").out)["end"]
    found = end.get("sum_received") or end["sum"]
    busy += end["cpu_utilization_percent"]["host_total"] / 100 * seconds
    return Sent(found["bits_per_second"] / 1e9, busy / packets * 1e6)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.outgoing", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=2)
    asked = parser.parse_args()
    host, console = Host(), Console(width=None if sys.stdout.isatty() else 120)
    begun, loop = time.monotonic(), compiled_loop(host, BUILD)
    found: dict[tuple[str, str], list[Sent]] = {}
    # GRO at the receiver, whose work is then less of the whole, needs TSO off at the sender's end.
    with Cable(Traffic(gro=True), host) as cable, cable.serving():
        ours = received_apart(cable.left)
        received_apart(cable.right)
        must(cable.left.run("ping", "-c1", "-w5", UNDERLAY["right"]), "ping")
        for _ in range(asked.rounds):
            for name, way in WAYS.items():
                with standing(cable, way, loop) as pids:
                    for stream, options in STREAMS.items():
                        one = sent(cable, asked.seconds, options, [*ours, *pids])
                        found.setdefault((stream, name), []).append(one)
    for stream in STREAMS:
        base = found[stream, BASE]
        table = Table("way", "Gbit/s", "of tx off", "CPU µs/packet", "of tx off", title=stream)
        for name in WAYS:
            runs = found[stream, name]
            rate = ratios([run.gbit_per_second for run in runs], [run.gbit_per_second for run in base])
            cost = ratios([run.sender_us for run in runs], [run.sender_us for run in base])
            table.add_row(
                name,
                f"{interval([run.gbit_per_second for run in runs]).median:.2f}",
                f"{rate.median:.2f} ({rate.low:.2f}-{rate.high:.2f})",
                f"{interval([run.sender_us for run in runs]).median:.2f}",
                f"{cost.median:.2f} ({cost.low:.2f}-{cost.high:.2f})",
            )
        console.print(table)
    console.print(f"{asked.rounds} rounds of {asked.seconds} s in {(time.monotonic() - begun) / 60:.1f} minutes.")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FixerError as error:
        sys.exit(f"bench: {error}")
