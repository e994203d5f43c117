"""``make cycles``: on and off a thousand times under one TCP connection over a broken wire, while others change rules.

Not collected with the rest, for it takes minutes. ``FIXER_CYCLES`` says how many. Where this kernel has no queue
statement, `python -m kernels trixie --tests FILE::TEST[native]` with the one below.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.talk import PATIENCE_SECONDS, Talk, answering

from fixer.host import queues
from fixer.host.machine import Host
from fixer.host.operator import operator
from fixer.lab import traffic
from fixer.lab.net import Lab, Layout, Namespace, Pump
from fixer.lab.service import START_SECONDS, Service
from fixer.rules import wanted
from fixer.rules.iptables import Variant
from fixer.rules.selection import Selection
from fixer.state import report

CYCLES = int(os.environ.get("FIXER_CYCLES", "1000"))
SELECTION = Selection(queue=0, ports=(4789,))
OTHERS = ("OUTPUT", "-p", "udp", "--dport", "53", "-j", "RETURN")

pytestmark = [pytest.mark.root, pytest.mark.kernels, pytest.mark.timeout(7200)]


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
        give_up = time.monotonic() + START_SECONDS
        while not right.call(is_known, host):
            assert time.monotonic() < give_up
            time.sleep(0.1)
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
        assert talk.goes_on(), talk.failure
        talk.end()
        right.call(switch_off, host)
        left = [right.run(f"iptables-{each}-save", "-t", "raw").out for each in ("nft", "legacy")]
        assert not any("FIXER" in table or "--dport 53" in table for table in left)
        assert right.run(f"iptables-{foreign}-save", "-t", "mangle").out.count("-A") == before.count("-A")
        print(f"{variant}: {CYCLES} cycles in {seconds:.0f} s, {talk.said} answers, {meddled[0]} changes by others")


def is_known(host: Host) -> bool:
    """Whether the daemon that holds the queue has said who it is: on refuses to feed a stranger."""
    return all(report.is_ours(host, each) for each in queues.listeners(host, [SELECTION.queue]))


def switch_on(host: Host, variant: Variant) -> None:
    wanted.on(host, SELECTION, by=operator(host), variant=variant)


def switch_off(host: Host) -> None:
    wanted.off(host, by=operator(host))
