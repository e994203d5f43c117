"""A queue in which nothing waits, as the kernel has it. What it does to packets, tests/e2e/test_outgoing.py shows."""

from __future__ import annotations

import pytest
from support.netns import Namespace

from fixer.host import queues
from fixer.host.machine import Host
from fixer.nfqueue.finishing import Finishing

pytestmark = pytest.mark.root

QUEUE = 9


def test_it_copies_a_byte_and_holds_none(netns: Namespace) -> None:
    rule = f"-t raw -A OUTPUT -p udp --dport 4789 -j NFQUEUE --queue-num {QUEUE}"
    with netns.call(Finishing, QUEUE), netns.receiving():
        netns.run("iptables", *rule.split())
        netns.run("iptables", *["-A", "INPUT", "-p", "udp", "--dport", "4789"])
        netns.send(100)
        found = netns.call(queues.bound, Host())[QUEUE]
        assert (found.mode, found.copy_range) == (2, 1)
        assert (found.sequence, found.waiting, found.queue_dropped, found.user_dropped) == (0, 0, 0, 0)
        assert "[100:2900] -A INPUT -p udp" in netns.run("iptables-save", "-c").out, "each went on"
    assert netns.call(queues.bound, Host()) == {}


def test_one_that_somebody_holds_is_refused_and_left_alone(netns: Namespace) -> None:
    with netns.call(Finishing, QUEUE):
        with pytest.raises(PermissionError):
            netns.call(Finishing, QUEUE)
        assert QUEUE in netns.call(queues.bound, Host())
    with netns.call(Finishing, QUEUE) as again:
        assert again.number == QUEUE
