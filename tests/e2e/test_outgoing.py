"""``fixer on --outgoing``: a path that eats what is unfinished lets nothing through but what leaves complete.

The wire of these tests loses every packet one of whose checksums is not right, so that nothing of the broken sender
(left) reaches anybody who could mend it. The receiver has no ``fixer``, and finishes what it sends itself.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import pytest

from fixer.host.machine import Host
from fixer.lab import traffic
from fixer.lab.net import Lab, Layout, Pump
from fixer.lab.pump import Fault
from fixer.lab.service import Service

pytestmark = pytest.mark.root

CONTENT = Random(4097).randbytes(1 << 20)
EATS = Fault(eats=True)
LAYOUTS = {
    "ipv4": Layout(),
    "ipv4-udpcsum": Layout(outer_checksum=True),
    "ipv6": Layout(underlay=6, outer_checksum=True),
    "ipv6-zero": Layout(underlay=6),
}
OFTEN = {("ipv4-udpcsum", True), ("ipv6-zero", False)}  # the other ones take a minute
EACH = pytest.mark.parametrize(
    ("layout", "cuts"),
    [
        pytest.param(layout, cuts, id=f"{name}-{who}", marks=[] if (name, cuts) in OFTEN else pytest.mark.long)
        for name, layout in LAYOUTS.items()
        for cuts, who in ((False, "cut-by-the-kernel"), (True, "cut-by-the-nic"))
    ],
)
TSO = ("tso", "on", "gso", "on", "tx-udp_tnl-segmentation", "on", "tx-udp_tnl-csum-segmentation", "on")


@contextmanager
def _lab(machine: Host, layout: Layout, *, cuts: bool = False) -> Iterator[Lab]:
    """``cuts``: the sender's NIC says that it cuts segments too, so that they leave longer than a wire's frames."""
    with Lab(layout, Pump(EATS), machine) as lab:
        assert lab.right.run("ethtool", "-K", "eth0", "tx", "off").status == 0
        if cuts:
            assert lab.left.run("ethtool", "-K", "eth0", *TSO).status == 0
        with traffic.serving(lab.left, CONTENT):
            yield lab


def _works(lab: Lab, address: str) -> None:
    """Ping, TCP in segments as large as the kernel makes them, and UDP, in fragments too."""
    assert traffic.ping(lab.right, address, count=3, seconds=20)
    arrived = traffic.download(lab.right, address)
    assert (arrived.error, arrived.size, arrived.sha256) == ("", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    for size in (1, 32, 1001, 5000):
        assert traffic.ask(lab.right, address, traffic.ECHO_PORT, size=size) == "answered"


def _arrives(lab: Lab) -> bool:
    """Whether anything at all comes through that the sender has left unfinished."""
    address = lab.left.overlay4
    asked = traffic.ask(lab.right, address, traffic.ECHO_PORT, seconds=0.5)
    return "answered" in asked or traffic.connect(lab.right, address, traffic.HTTP_PORT, 0.5) == "connected"


@EACH
def test_what_leaves_is_complete(machine: Host, layout: Layout, cuts: bool) -> None:
    with _lab(machine, layout, cuts=cuts) as lab:
        assert not _arrives(lab)
        with Service(lab.left, on=("--outgoing",)):
            for address in (lab.left.overlay4, lab.left.overlay6):
                _works(lab, address)
        assert not _arrives(lab)


def test_off_leaves_nothing_and_status_says_what_there_is(machine: Host) -> None:
    with _lab(machine, LAYOUTS["ipv4"]) as lab:
        before = lab.left.run("iptables-save").out
        with Service(lab.left, on=("--outgoing",)) as left:
            assert left.ask("on", "--outgoing").status == 0, "already on, and somebody listens on both queues"
            assert traffic.ask(lab.right, lab.left.overlay4, traffic.ECHO_PORT) == "answered"
            said = left.ask("status", "--json")
            status = json.loads(said.out)
            assert said.status == 0, status["notes"]
            assert status["outgoing"]["queue"] == 1
            assert status["outgoing"]["listener"]["pid"] == status["daemon"]["pid"]
            assert status["outgoing"]["listener"]["id_sequence"] == 0, "nothing of it comes to user space"
            assert status["rules"]["ipv4"]["outgoing"]["packets"] > 0
            assert left.ask("on").status == 0
            assert json.loads(left.ask("status", "--json").out)["outgoing"] is None
            assert not _arrives(lab)
        after = lab.left.run("iptables-save").out
        assert "FIXER" not in after
        assert "FIXER" not in before
        assert lab.left.run("cat", "/proc/net/netfilter/nfnetlink_queue").out == ""


def test_without_its_daemon_status_says_that_nothing_is_completed(machine: Host) -> None:
    with _lab(machine, LAYOUTS["ipv4"]) as lab, Service(lab.left, on=("--outgoing",)) as left:
        left.kill()
        said = left.ask("status")
        assert said.status == 3
        assert "nobody has queue 1 open: what leaves is not completed" in said.out
        assert not _arrives(lab)
        left.start_again()
        _works(lab, lab.left.overlay4)


def test_a_daemon_that_stands_still_holds_nothing_up(machine: Host) -> None:
    """The kernel completes what leaves by itself; what arrives waits for the daemon, so the left is asked nothing."""
    with (
        _lab(machine, LAYOUTS["ipv4"]) as lab,
        Service(lab.left, on=("--outgoing",)) as left,
        lab.right.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as ear,
        lab.left.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as mouth,
    ):
        assert traffic.ping(lab.right, lab.left.overlay4, count=2, seconds=20), (
            "or nobody knows the other's MAC address"
        )
        ear.bind(("", 9999))
        ear.settimeout(2)
        with left.paused():
            for number in range(200):
                mouth.sendto(b"%d" % number, (lab.right.overlay4, 9999))
                assert ear.recv(100) == b"%d" % number
