"""Two hosts in network namespaces, a veth pair and kernel VXLAN between them; and one stream, the clocks around it."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from fixer.errors import SystemRefused
from fixer.host import queues
from fixer.host.machine import NET, Completed, Host
from fixer.host.queues import Bound
from fixer.lab import bpf, net
from fixer.lab.net import Namespace

from .packets import ACK, stamped

PORT = 4789
OVERLAY = {"left": "10.0.1.4", "right": "10.0.1.5"}
UNDERLAY = {"left": "192.168.102.4", "right": "192.168.102.5"}
CLOSED_PORT = 9
AHEAD = 1 << 30  # milliseconds: as far as a delta may be, or half of it
TIMESTAMPS = 12  # bytes of TCP option in every segment, which the MSS counts in
WAIT_SECONDS = 10.0
STREAM_SECONDS_MORE = 60.0  # what a stream may take beyond its time before it counts as stuck


@dataclass(frozen=True)
class Traffic:
    """What goes from left to right. As on a real wire, the sender's checksums are finished, unless ``broken``."""

    gro: bool = False  # whether the receiver merges before anybody has looked
    payload: int | None = None  # bytes of TCP payload in each packet; None: as many as fit, packets of 1,450 bytes
    broken: bool = False  # every inner TCP checksum left unfinished, under an outer one summed over it
    outer_checksum: bool = False
    flows: int = 1
    spread: bool = False  # RPS: the receiver's CPUs share the packets, by a hash of addresses and ports
    apart: bool = False  # what comes back to the sender is received by a kernel thread, not on the time of who sent it
    one_clock: bool = False  # the sender's TSvals are its uptime, without an offset drawn for each connection


class Run(NamedTuple):
    """One stream. Packets are those that came from the wire, as the receiving interface counts them."""

    gbit_per_second: float
    packets: int
    merged: float  # packets from the wire for one that leaves the tunnel: what GRO has made of them
    machine_us: float  # CPU time of the whole machine for each packet
    own_us: float  # of the listener: its own and what the kernel does in its name (its packets' further way included)
    queued: int  # packets the kernel gave to the queue
    unseen: int  # packets the rule matched that passed without having been in the queue


class Cable:
    """The two hosts, for as long as the context lasts."""

    def __init__(self, traffic: Traffic, host: Host) -> None:
        self.traffic = traffic
        self.host = host
        name = net.own_name()
        self.left = Namespace(f"{name}-left", host)
        self.right = Namespace(f"{name}-right", host)
        self._undo = ExitStack()

    def __enter__(self) -> Cable:
        net.sweep(self.host)
        with ExitStack() as undo:
            for namespace in (self.left, self.right):
                undo.enter_context(namespace)
            self._lay()
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._undo.close()

    def _lay(self) -> None:
        traffic = self.traffic
        self.left.configure(f"link add eth0 type veth peer name eth0 netns {self.right.name}")
        for here, there in (("left", "right"), ("right", "left")):
            end: Namespace = getattr(self, here)
            # Without TSO at the sender's end the receiver's GRO works; tx off takes TSO with it.
            gro = "on" if traffic.gro and here == "right" else "off"
            must(end.run("ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gro", gro), "ethtool")
            end.configure(
                "link set eth0 addrgenmode none",
                f"address add {UNDERLAY[here]}/24 dev eth0",
                "link set eth0 up",
                f"link add vxlan0 type vxlan id 4097 local {UNDERLAY[here]} remote {UNDERLAY[there]} dstport {PORT}"
                f" {'udpcsum' if traffic.outer_checksum else 'noudpcsum'} dev eth0",
                "link set vxlan0 addrgenmode none up",
                f"address add {OVERLAY[here]}/24 dev vxlan0",
            )
        # Inner checksums are finished before the tunnel is put around them: see bpf.leave_unfinished.
        must(self.left.run("ethtool", "-K", "vxlan0", "tx", "off"), "ethtool")
        if traffic.payload is not None:
            mss = traffic.payload + TIMESTAMPS
            self.right.configure(f"route replace {OVERLAY['left']}/32 dev vxlan0 advmss {mss}")
        if traffic.apart:
            # Or whoever gives a verdict on an acknowledgement is charged with all that another machine does next.
            must(self.left.run("ethtool", "-K", "eth0", "gro", "on"), "ethtool")  # or veth has no NAPI
            must(self.left.run("sh", "-c", "echo 1 > /sys/class/net/eth0/threaded"), "threaded NAPI")
        if traffic.one_clock:
            must(self.left.run("sysctl", "-q", "net.ipv4.tcp_timestamps=2"), "sysctl")
        if traffic.spread:
            everyone = f"{(1 << (os.cpu_count() or 1)) - 1:x}"
            write = f"echo {everyone} > /sys/class/net/eth0/queues/rx-0/rps_cpus"
            must(self.right.run("sh", "-c", write), "switching RPS on")

    def _read(self, side: str, path: str) -> str | None:
        end: Namespace = getattr(self, side)
        return end.call(self.host.read, path)

    @contextmanager
    def breaking(self, on: bool, put_back: bool = False) -> Iterator[None]:
        """Every TCP packet from the left is broken while the context lasts, if ``on``; ``put_back``: mended at once."""
        if not on:
            yield
            return
        with bpf.attached(self.left, "eth0", bpf.BPF_TCX_EGRESS, bpf.leave_unfinished(PORT, put_back)):
            yield

    @contextmanager
    def serving(self) -> Iterator[None]:
        """``right`` runs iperf3's server while the context lasts; ``stream`` needs it."""
        server = self.right.start("iperf3", "--server", "--bind", OVERLAY["right"], "--logfile", os.devnull)
        try:
            wait_until(lambda: ":1451 " in (self._read("right", f"{NET}/tcp") or ""), "iperf3 to listen")  # port 5201
            yield
        finally:
            net.stop(server)

    def put_clock_ahead(self, queue: int) -> None:
        """The receiver echoes to the sender's address a timestamp that is AHEAD of its clock, through ``queue``.

        Who normalises there must shift every connection from now on; of one clock alone there is nothing to shift. The
        segment belongs to no connection, so the sender answers with a RST.
        """
        address = {side: socket.inet_aton(OVERLAY[side]) for side in OVERLAY}
        now = time.monotonic_ns() // 1_000_000
        packet = stamped(
            (address["right"], address["left"]), (CLOSED_PORT, CLOSED_PORT), ACK, (1, 1), (1, now + AHEAD & 0xFFFFFFFF)
        )
        before = self.queues()[queue].sequence
        with self.right.call(socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            raw.sendto(packet, (OVERLAY["left"], 0))
        wait_until(lambda: self.queues()[queue].sequence >= before + 2, "a segment and its answer to be queued")

    def stream(self, seconds: int, pids: Sequence[int], queues: Sequence[int]) -> Run:
        """One stream from left to right, received by the processes ``pids`` on ``queues``; or SystemRefused."""
        before = self._clocks(pids, queues)
        sent = self.left.run(
            "timeout", str(seconds + STREAM_SECONDS_MORE), "iperf3", "--client", OVERLAY["right"],
            "--time", str(seconds), "--parallel", str(self.traffic.flows), "--json",
        )  # fmt: skip
        after = self._clocks(pids, queues)
        must(sent, "iperf3")
        packets = after.packets - before.packets
        queued = after.queued - before.queued
        return Run(
            gbit_per_second=json.loads(sent.out)["end"]["sum_received"]["bits_per_second"] / 1e9,
            packets=packets,
            merged=packets / max(1, after.delivered - before.delivered),
            machine_us=(after.machine - before.machine) / packets * 1e6,
            own_us=(after.own - before.own) / packets * 1e6,
            queued=queued,
            unseen=max(0, after.matched - before.matched - queued),  # without GSO, one matched is several queued
        )

    def _clocks(self, pids: Sequence[int], queues: Sequence[int]) -> Clocks:
        return Clocks(
            packets=self.packets(),
            delivered=received(self._read("right", f"{NET}/dev"), "vxlan0"),
            machine=busy_seconds(self.host),
            own=sum(own_seconds(self.host, pid) for pid in pids),
            queued=sum(queue.sequence for number, queue in self.queues().items() if number in queues),
            matched=matched(self.right.run("iptables-save", "-c", "-t", "raw").out) if queues else 0,
        )

    def packets(self) -> int:
        """What ``right`` has received from the wire so far."""
        return received(self._read("right", f"{NET}/dev"), "eth0")

    def queues(self) -> dict[int, Bound]:
        """The queues somebody listens to on ``right``, by number."""
        return self.right.call(queues.bound, self.host)


class Clocks(NamedTuple):
    packets: int
    delivered: int
    machine: float  # seconds
    own: float  # seconds
    queued: int
    matched: int


def received(net_dev: str | None, device: str) -> int:
    """Packets that ``device`` has received, from /proc/net/dev."""
    for line in (net_dev or "").splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == device:
            return int(counters.split()[1])
    raise SystemRefused(f"{device} has gone")


def busy_seconds(host: Host) -> float:
    """What all CPUs together have worked so far, interrupts included (proc(5): /proc/stat)."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, (host.read("/proc/stat") or "").split()[1:9])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def own_seconds(host: Host, pid: int) -> float:
    """How long a process's threads were on a CPU so far (schedstat), with what softirqs did on their time."""
    nanoseconds = 0
    for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - names, not files
        nanoseconds += int((host.read(f"/proc/{pid}/task/{task}/schedstat") or "0").split()[0])
    return nanoseconds / 1e9


def matched(saved: str) -> int:
    """Packets that rules have sent to a queue, from ``iptables-save -c``."""
    return sum(int(count) for count in re.findall(r"^\[(\d+):\d+\].* -j NFQUEUE", saved, re.MULTILINE))


def must(done: Completed, what: str) -> Completed:
    if done.status != 0:
        raise SystemRefused(f"{what} ended with status {done.status}: {(done.err or done.out).strip()[-300:]}")
    return done


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait until ``condition()`` is true; SystemRefused after WAIT_SECONDS. ``what`` was waited for, in words."""
    give_up = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > give_up:
            raise SystemRefused(f"waited {WAIT_SECONDS:g} s in vain for {what}: see above")
        time.sleep(0.05)
