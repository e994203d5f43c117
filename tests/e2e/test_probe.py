"""Weave's probe for the path MTU: 60,000 bytes of UDP to port 6784, fragmented, no VXLAN inside: not to be touched."""

from __future__ import annotations

import pytest

from fixer.lab import traffic
from fixer.lab.net import Lab, Layout, Pump
from fixer.lab.service import Service
from fixer.node.host import Host

pytestmark = pytest.mark.root

PORT, SIZE = 6784, 60_000


@pytest.mark.parametrize("defragmented", [False, True], ids=["in-fragments", "put-together-by-conntrack"])
def test_large_probe_arrives_as_it_was_sent(machine: Host, defragmented: bool) -> None:
    with Lab(Layout(), Pump(), machine) as lab, traffic.echoing(lab.right, PORT):
        probe = lab.left, lab.right.underlay, PORT
        for end in (lab.left, lab.right) if defragmented else ():
            assert end.run("iptables", "-A", "INPUT", "-m", "conntrack", "--ctstate", "INVALID").status == 0
        assert traffic.ask(*probe, size=SIZE) == "answered"
        with Service(lab.left) as left, Service(lab.right) as right:
            for _ in range(5):
                assert traffic.ask(*probe, size=SIZE) == "answered"
    # The question goes to a VXLAN port and is seen (its first fragment at least), the answer goes to another one.
    assert right.counters["packets"] >= 5
    assert right.counters["action"] == {"pass": right.counters["packets"], "repair": 0, "drop": 0}
    assert left.counters["packets"] == 0
