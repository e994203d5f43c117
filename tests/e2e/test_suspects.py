"""``fixer on --scope suspects``: what is broken is repaired, and on a healthy path hardly a packet is queued."""

from __future__ import annotations

import json

import pytest

from fixer.host.machine import Host
from fixer.lab import traffic
from fixer.lab.net import Lab, Layout, Pump
from fixer.lab.pump import Fault, Finish
from fixer.lab.service import Service

from .conftest import Page

pytestmark = pytest.mark.root

SUSPECTS = ("--scope", "suspects")
BROKEN = {
    "swarm-outer-off": (Layout(), Finish.NOTHING),
    "swarm-outer-on": (Layout(outer_checksum=True), Finish.NOTHING),
    "only-outer-finished": (Layout(outer_checksum=True), Finish.OUTER),
    "zero-updated-by-nat": (Layout(), Finish.NAT),
    "flannel-8472-jumbo": (Layout(port=8472, mtu=9000, outer_checksum=True), Finish.NOTHING),
    "ipv6-outer-on": (Layout(underlay=6, outer_checksum=True), Finish.NOTHING),
    "ipv6-outer-off": (Layout(underlay=6), Finish.NOTHING),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_paths_work(machine: Host, page: type[Page], name: str) -> None:
    layout, finish = BROKEN[name]
    vnis = f"[vxlan]\nvnis = [{layout.vni}]\n"
    with Lab(layout, Pump(Fault(finish)), machine) as lab, traffic.serving(lab.right, page.content):
        assert traffic.connect(lab.left, lab.right.overlay4, traffic.HTTP_PORT) in ("timed out", "unreachable")
        with Service(lab.left, settings=vnis, on=SUSPECTS), Service(lab.right, settings=vnis, on=SUSPECTS) as right:
            for end in (lab.left, lab.right):
                end.configure("neighbour flush all")
            for address in (lab.right.overlay4, lab.right.overlay6):
                arrived = traffic.download(lab.left, address)
                assert (arrived.error, arrived.sha256) == ("", page.sha256)
                assert traffic.ask(lab.left, address, traffic.ECHO_PORT, size=3 * layout.overlay_mtu) == "answered"
                assert traffic.connect(lab.left, address, traffic.CLOSED_PORT) == "refused"
                assert traffic.ping(lab.left, address, seconds=20)
            status = json.loads(right.ask("status", "--json").out)
    family = status["rules"][f"ipv{layout.underlay}"]
    assert (family["scope"], family["longest"]) == ("suspects", max(1500, layout.mtu))
    assert status["passed_unseen"] == 0
    assert right.counters["action"]["repair"] > 100


@pytest.mark.parametrize("outer_checksum", [False, True], ids=["outer-off", "outer-on"])
@pytest.mark.parametrize("underlay", [4, 6], ids=["ipv4", "ipv6"])
def test_healthy_packets_pass_the_queue_by(
    machine: Host, page: type[Page], underlay: int, outer_checksum: bool
) -> None:
    layout = Layout(underlay=underlay, outer_checksum=outer_checksum)
    with Lab(layout, Pump(Fault(Finish.EVERYTHING)), machine) as lab, traffic.serving(lab.right, page.content):
        with Service(lab.left, on=SUSPECTS) as left:
            for address in (lab.right.overlay4, lab.right.overlay6):
                assert traffic.download(lab.left, address).sha256 == page.sha256
            status = json.loads(left.ask("status", "--json").out)
            shown = left.ask("status").out
        assert left.counters["action"]["repair"] == 0
    family = status["rules"][f"ipv{underlay}"]
    assert family["finished"] > 1000
    # ARP, and what GRO has merged of packets so small that together they are not too long.
    assert family["packets"] < 0.05 * family["finished"]
    assert f"{family['finished']:,} finished" in " ".join(shown.split())
    assert set(status["merging"]) == {"eth0"}
