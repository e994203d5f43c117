"""What is none of our business passes as it was sent: sound packets, and what goes to a VXLAN port and is no VXLAN."""

from __future__ import annotations

import pytest

from fixer.host.machine import Host
from fixer.lab import traffic
from fixer.lab.net import Lab, Layout, Pump
from fixer.lab.pump import Fault, Finish
from fixer.lab.service import Service

from .conftest import Page

pytestmark = pytest.mark.root

PROBE_PORT, PROBE_SIZE = 6784, 60_000  # Weave's probe for the path MTU: UDP, fragmented, no VXLAN in it


@pytest.mark.parametrize("defragmented", [False, True], ids=["in-fragments", "put-together-by-conntrack"])
def test_large_probe_arrives_as_it_was_sent(machine: Host, defragmented: bool) -> None:
    with Lab(Layout(), Pump(), machine) as lab, traffic.echoing(lab.right, PROBE_PORT):
        probe = lab.left, lab.right.underlay, PROBE_PORT
        for end in (lab.left, lab.right) if defragmented else ():
            # Any rule that asks conntrack makes it put fragments together, before the raw table sees them.
            assert end.run("iptables", "-A", "INPUT", "-m", "conntrack", "--ctstate", "INVALID").status == 0
        assert traffic.ask(*probe, size=PROBE_SIZE) == "answered"
        with Service(lab.left), Service(lab.right) as right:
            for _ in range(5):
                assert traffic.ask(*probe, size=PROBE_SIZE) == "answered"
    # One for each question: whole, or its first fragment (the others carry no port).
    assert right.counters["packets"] == 5
    assert right.counters["action"] == {"pass": 5, "repair": 0, "drop": 0}


@pytest.mark.parametrize("outer_checksum", [False, True], ids=["outer-off", "outer-on"])
def test_sound_packets_pass_unchanged(machine: Host, page: type[Page], outer_checksum: bool) -> None:
    wire = Pump(Fault(Finish.EVERYTHING))
    with Lab(Layout(outer_checksum=outer_checksum), wire, machine) as lab, traffic.serving(lab.right, page.content):
        with Service(lab.left) as left, Service(lab.right) as right:
            for address in (lab.right.overlay4, lab.right.overlay6):
                assert traffic.download(lab.left, address).sha256 == page.sha256
                assert traffic.ask(lab.left, address, traffic.ECHO_PORT, size=4000) == "answered"
        for counted in (left.counters, right.counters):
            assert counted["diagnosis"]["sound"] > 100
            assert counted["action"] == {"pass": counted["packets"], "repair": 0, "drop": 0}
