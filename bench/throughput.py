"""One TCP stream through a kernel VXLAN to a receiver with no rule, with fixer, and with a callback that only accepts.

Two namespaces and one veth pair; the sender's checksums are finished, as on a real wire (tx off), and nothing merges
the packets before they are judged (GRO off). The three take turns, so that a machine that grows slower does so for all
of them; what is shown is the median of the rounds. Needs root and iperf3; takes about a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fixer import __version__
from fixer.errors import FixerError, SystemRefused
from fixer.lab import net
from fixer.lab.net import Namespace
from fixer.node.host import NET, Completed, Host

HERE = Path(__file__).parent
OVERLAY = {"left": "10.0.1.4", "right": "10.0.1.5"}
UNDERLAY = {"left": "192.168.102.4", "right": "192.168.102.5"}
ACCEPT_RULE = ("raw", "PREROUTING", "-p", "udp", "--dport", "4789", "-j", "NFQUEUE", "--queue-num", "0")
RECEIVERS = ("no rule", "fixer", "callback")
WAIT_SECONDS = 10.0


@dataclass(frozen=True)
class Run:
    """One stream: ``cpu_us`` is the whole machine's time for each packet received, ``own_us`` the listener's part."""

    gbit_per_second: float
    packets: int
    cpu_us: float
    own_us: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each of the three has its turn (default 5)")
    parser.add_argument("--seconds", type=int, default=3, help="length of one stream (default 3)")
    asked = parser.parse_args()
    host, console = Host(), Console()
    lacking = net.missing(host) or (host.which("iperf3") is None and "no program iperf3: apt install iperf3")
    if lacking:
        console.print(f"bench: {lacking}", highlight=False)
        return 1
    runs: dict[str, list[Run]] = {receiver: [] for receiver in RECEIVERS}
    with cable(host) as (left, right), console.status("") as status:
        for number in range(asked.rounds):
            for receiver in RECEIVERS:
                status.update(f"round {number + 1} of {asked.rounds}: {receiver}")
                with listening(right, receiver) as pid:
                    runs[receiver].append(stream(left, right, asked.seconds, pid))
    console.print(table(runs))
    console.print(f"All measured: {save(runs, asked.seconds)}", highlight=False)
    return 0


@contextmanager
def cable(host: Host) -> Iterator[tuple[Namespace, Namespace]]:
    """Two hosts joined by a veth pair, a VXLAN with Linux's defaults between them; removed at the end."""
    net.sweep(host)
    with ExitStack() as undo:
        sides = ("left", "right")
        ends = {side: undo.enter_context(Namespace(f"{net.own_name()}-{side}", host)) for side in sides}
        ends["left"].configure(f"link add eth0 type veth peer name eth0 netns {ends['right'].name}")
        for here, there in (("left", "right"), ("right", "left")):
            must(ends[here].run("ethtool", "-K", "eth0", "tx", "off", "gro", "off"), "ethtool")
            ends[here].configure(
                f"address add {UNDERLAY[here]}/24 dev eth0",
                "link set eth0 up",
                f"link add vxlan0 type vxlan id 4097 local {UNDERLAY[here]} remote {UNDERLAY[there]}"
                " dstport 4789 dev eth0",
                f"address add {OVERLAY[here]}/24 dev vxlan0",
                "link set vxlan0 up",
            )
        server = ends["right"].start("iperf3", "--server", "--bind", OVERLAY["right"], "--logfile", os.devnull)
        undo.callback(net.stop, server)
        wait_until(lambda: ":1451 " in (ends["right"].call(host.read, f"{NET}/tcp") or ""), "iperf3")  # 5201
        yield ends["left"], ends["right"]


@contextmanager
def listening(right: Namespace, receiver: str) -> Iterator[int | None]:
    """``receiver`` and its rule on ``right`` while the context lasts; the pid of its process, if it has one."""
    if receiver == "no rule":
        yield None
        return
    fixer = (sys.executable, "-m", "fixer")
    process, on, off = {
        "fixer": ((*fixer, "run"), (*fixer, "on"), (*fixer, "off")),
        "callback": (
            (sys.executable, str(HERE / "accept.py")),
            ("iptables", "-t", ACCEPT_RULE[0], "-A", *ACCEPT_RULE[1:]),
            ("iptables", "-t", ACCEPT_RULE[0], "-D", *ACCEPT_RULE[1:]),
        ),
    }[receiver]
    with ExitStack() as undo:
        log = undo.enter_context(Path(os.devnull).open("w"))
        running = right.start(*process, stdout=log)
        undo.callback(net.stop, running)
        wait_until(lambda: right.call(right.host.read, f"{NET}/netfilter/nfnetlink_queue"), receiver)
        must(right.run(*on), " ".join(on))
        undo.callback(right.run, *off)
        yield running.pid


def stream(left: Namespace, right: Namespace, seconds: int, pid: int | None) -> Run:
    """Send one TCP stream from ``left`` to ``right`` and read the clocks around it."""
    packets, busy, own = received(right), busy_seconds(right.host), own_seconds(right.host, pid)
    done = left.run("iperf3", "--client", OVERLAY["right"], "--time", str(seconds), "--json")
    must(done, "iperf3")
    packets = received(right) - packets
    return Run(
        gbit_per_second=json.loads(done.out)["end"]["sum_received"]["bits_per_second"] / 1e9,
        packets=packets,
        cpu_us=(busy_seconds(right.host) - busy) / packets * 1e6,
        own_us=(own_seconds(right.host, pid) - own) / packets * 1e6,
    )


def received(here: Namespace) -> int:
    """Packets that came in from the wire so far."""
    for line in (here.call(here.host.read, f"{NET}/dev") or "").splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == "eth0":
            return int(counters.split()[1])
    raise SystemRefused("eth0 has gone")


def busy_seconds(host: Host) -> float:
    """What all CPUs together have worked so far, interrupts included (proc(5): /proc/stat)."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, (host.read("/proc/stat") or "").split()[1:9])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def own_seconds(host: Host, pid: int | None) -> float:
    """What a process has worked so far, in user and kernel mode (proc(5): /proc/pid/stat, utime and stime)."""
    if pid is None:
        return 0.0
    fields = (host.read(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def table(runs: dict[str, list[Run]]) -> Table:
    shown = Table(title="One TCP stream through VXLAN, medians", title_justify="left")
    shown.add_column("receiver")
    for heading in ("Gbit/s", "of no rule", "CPU µs/packet", "of no rule", "its own µs/packet"):
        shown.add_column(heading, justify="right")

    def median(of: Callable[[Run], float]) -> dict[str, float]:
        return {name: statistics.median(map(of, some)) for name, some in runs.items()}

    rate, cpu, own = median(lambda r: r.gbit_per_second), median(lambda r: r.cpu_us), median(lambda r: r.own_us)
    for name in RECEIVERS:
        values = rate[name], rate[name] / rate["no rule"], cpu[name], cpu[name] / cpu["no rule"], own[name]
        shown.add_row(name, *(f"{value:.2f}" for value in values))
    return shown


def save(runs: dict[str, list[Run]], seconds: int) -> Path:
    """Write every run as JSON below bench/results; the file's path."""
    path = HERE / "results" / f"{time.strftime('%Y%m%dT%H%M%S')}.json"
    path.parent.mkdir(exist_ok=True)
    machine = {"kernel": platform.release(), "python": platform.python_version(), "cpus": os.cpu_count()}
    everything = {
        "fixer": __version__,
        "machine": machine,
        "seconds": seconds,
        "runs": {name: [asdict(run) for run in some] for name, some in runs.items()},
    }
    path.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    return path


def must(done: Completed, what: str) -> None:
    if done.status != 0:
        raise SystemRefused(f"{what} ended with status {done.status}: {(done.err or done.out).strip()[-300:]}")


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait until ``condition()`` is true; SystemRefused after WAIT_SECONDS."""
    give_up = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > give_up:
            raise SystemRefused(f"{what} did not start within {WAIT_SECONDS:g} s: see above")
        time.sleep(0.05)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FixerError as error:
        sys.exit(f"bench: {error}")
