"""``make cycles``: on and off a thousand times under one TCP connection over a broken wire, while others change rules.

Not collected with the rest, for it takes minutes. ``FIXER_CYCLES`` says how many.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fixer.host import queues
from fixer.host.machine import Host
from fixer.host.operator import operator
from fixer.lab import traffic
from fixer.lab.net import Lab, Layout, Namespace, Pump
from fixer.lab.service import Service
from fixer.rules import wanted
from fixer.rules.iptables import Variant
from fixer.rules.selection import Selection

CYCLES = int(os.environ.get("FIXER_CYCLES", "1000"))
SELECTION = Selection(queue=0, ports=(4789,))
PATIENCE_SECONDS = 20.0
"""How long a connection may stand still: its sender has waited for longer and longer while the rule was off."""
OTHERS = ("OUTPUT", "-p", "udp", "--dport", "53", "-j", "RETURN")

pytestmark = [pytest.mark.root, pytest.mark.timeout(7200)]


@contextmanager
def meddling(there: Namespace, variant: str) -> Iterator[list[int]]:
    """Another program adds a rule to the raw table and takes it away, all the time; how often."""
    over = threading.Event()
    done = [0]

    def meddle() -> None:
        there.host.enter_netns(there.name)
        command = [f"iptables-{variant}", "-w", "-t", "raw"]
        while not over.is_set():
            for verb in ("-A", "-D"):
                assert there.host.run([*command, verb, *OTHERS]).status == 0
            done[0] += 1
            over.wait(0.05)

    thread = threading.Thread(target=meddle, daemon=True)
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join()


@contextmanager
def answering(there: Namespace, port: int) -> Iterator[None]:
    """A server that says again what it is told."""

    def listener() -> socket.socket:
        return socket.create_server(("", port))

    def answer() -> None:
        conversation, _ = server.accept()
        with conversation:
            while some := conversation.recv(65536):
                conversation.sendall(some)

    server = there.call(listener)
    with server:
        threading.Thread(target=answer, daemon=True).start()
        yield


class Talk:
    """One connection, over which a line goes there and comes back, again and again."""

    def __init__(self, here: Namespace, address: str, port: int) -> None:
        self._socket: socket.socket = here.call(socket.create_connection, (address, port), PATIENCE_SECONDS)
        self._socket.settimeout(PATIENCE_SECONDS)
        self._over = threading.Event()
        self.said = 0
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._talk, daemon=True)
        self._thread.start()

    def _talk(self) -> None:
        try:
            while not self._over.is_set():
                line = f"{self.said:09}\n".encode() * 50
                self._socket.sendall(line)
                back = b""
                while len(back) < len(line):
                    some = self._socket.recv(65536)
                    assert some, "the connection is closed"
                    back += some
                assert back == line
                self.said += 1
        except BaseException as failure:
            self.failure = failure

    def end(self) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()


@pytest.mark.parametrize("variant", ["nft", "legacy", "native"])
def test_a_connection_outlives_a_thousand_cycles(variant: Variant) -> None:
    host = Host()
    if variant == "native":
        trial = host.run(["unshare", "-n", "nft", "-f", "-"], input="table ip t { chain c { queue num 0 bypass; }; }\n")
        if trial.status != 0:
            pytest.skip("no queue statement of nftables in this kernel")
    with (
        Lab(Layout(), Pump(), host) as lab,
        Service(lab.left),
        Service(lab.right, on=None, run=("--no-guard",)),
        answering(lab.right, traffic.ECHO_PORT),
    ):
        right = lab.right
        foreign = "nft" if variant == "native" else variant
        right.call(switch_on, host, variant)
        talk = Talk(lab.left, right.overlay4, traffic.ECHO_PORT)
        before = right.run(f"iptables-{foreign}-save", "-t", "mangle").out
        began = time.monotonic()
        with meddling(right, foreign) as meddled:
            for cycle in range(CYCLES):
                right.call(switch_off, host)
                sequence = right.call(queues.bound, host)[0].sequence
                right.call(switch_on, host, variant)
                deadline = time.monotonic() + PATIENCE_SECONDS
                while right.call(queues.bound, host)[0].sequence <= sequence:
                    assert talk.failure is None, (cycle, talk.failure)
                    assert time.monotonic() < deadline, f"nothing was queued in cycle {cycle}"
                    time.sleep(0.005)
        right.call(switch_off, host)
        seconds = time.monotonic() - began
        right.call(switch_on, host, variant)
        said = talk.said
        deadline = time.monotonic() + PATIENCE_SECONDS
        while talk.said == said and time.monotonic() < deadline:
            time.sleep(0.05)
        talk.end()
        assert talk.failure is None
        right.call(switch_off, host)
        assert talk.said > said
        left = [right.run(f"iptables-{each}-save", "-t", "raw").out for each in ("nft", "legacy")]
        assert not any("FIXER" in table or "--dport 53" in table for table in left)
        assert right.run(f"iptables-{foreign}-save", "-t", "mangle").out.count("-A") == before.count("-A")
        print(f"{variant}: {CYCLES} cycles in {seconds:.0f} s, {talk.said} answers, {meddled[0]} changes by others")


def switch_on(host: Host, variant: Variant) -> None:
    wanted.on(host, SELECTION, by=operator(host), variant=variant)


def switch_off(host: Host) -> None:
    wanted.off(host, by=operator(host))
