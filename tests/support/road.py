"""``fixer run`` as a process, and numbered packets that look unfinished on their way through its queue."""

from __future__ import annotations

import json
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.commands import wait_for
from support.packets import tunnelled

from fixer.lab import net

QUEUE = 9
UNFINISHED, FINISHED = (tunnelled(state, "ZERO")[28:] for state in ("PARTIAL", "VERIFIES"))
"""A VXLAN header and its frame, as a UDP payload."""


class Road:
    """Two namespaces and a veth pair; what arrives at the second on UDP 4789 is queued."""

    def __init__(self, sender: net.Namespace, receiver: net.Namespace) -> None:
        self.sender = sender
        self.receiver = receiver
        self.host = sender.host
        self.sender.configure(f"link add eth0 mtu 9018 type veth peer name eth0 mtu 9018 netns {self.receiver.name}")
        for number, namespace in enumerate((self.sender, self.receiver), 1):
            namespace.configure("link set lo up", f"address add 192.0.2.{number}/24 dev eth0", "link set eth0 up")
        rule = "-t raw -A PREROUTING -p udp --dport 4789 -j NFQUEUE --queue-bypass --queue-num"
        assert self.receiver.run("iptables", *rule.split(), str(QUEUE)).status == 0
        self.inlet: socket.socket = self.sender.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
        self.inlet.connect(("192.0.2.2", 4789))
        self.outlet: socket.socket = self.receiver.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
        self.outlet.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        self.outlet.bind(("192.0.2.2", 4789))
        self.outlet.setblocking(False)

    def send(self, first: int, count: int) -> None:
        """Numbered datagrams that look unfinished. (The number is behind what the inner checksum covers.)"""
        for number in range(first, first + count):
            self.inlet.send(UNFINISHED + number.to_bytes(4, "big"))

    def received(self, seconds: float = 0.5, most: int = 1 << 20) -> dict[int, bool]:
        """The numbers that arrived until there were ``most`` or nothing came for a while; whether each was repaired."""
        found: dict[int, bool] = {}
        while len(found) < most and select.select([self.outlet], [], [], seconds)[0]:
            data = self.outlet.recv(65535)
            assert data[:-4] in (UNFINISHED, FINISHED)
            found[int.from_bytes(data[-4:], "big")] = data[:-4] == FINISHED
        return found

    def held(self) -> int:
        """Packets that wait for a verdict."""
        table = self.receiver.call(self.host.read, "/proc/thread-self/net/netfilter/nfnetlink_queue") or ""
        return sum(int(line.split()[2]) for line in table.splitlines())

    def start(self, *options: str, **settings: Any) -> subprocess.Popen[str]:
        return self.receiver.start(sys.executable, "-m", "fixer", "run", f"--queue={QUEUE}", *options, **settings)

    @contextmanager
    def daemon(self, *options: str) -> Iterator[subprocess.Popen[str]]:
        process = self.start(*options)
        try:
            assert process.stdout is not None
            line = json.loads(process.stdout.readline())
            assert line["event"]["action"] == "started"
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            net.stop(process)


def pause(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGSTOP)
    wait_for(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
