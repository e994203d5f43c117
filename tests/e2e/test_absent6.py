"""An outer checksum of zero over IPv6: whether a kernel takes it is the receiver's setting (udp6zerocsumrx).

The wire is healthy: everything inside verifies. The hosts know each other's MAC addresses from the start, as an overlay
that is managed does: neighbour discovery shows no envelope, and ARP has no checksum that vouches for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from fixer.host.machine import Host
from fixer.lab import traffic
from fixer.lab.net import Lab, Layout, Pump
from fixer.lab.pump import Fault, Finish
from fixer.lab.service import Service

from .conftest import Page

pytestmark = pytest.mark.root

FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
REPAIR = '[policy]\nouter_absent6 = "repair"\n'


@contextmanager
def _lab(machine: Host, page: type[Page], fault: Fault, *, takes_absent6: bool) -> Iterator[Lab]:
    with ExitStack() as standing:
        layout = Layout(underlay=6, takes_absent6=takes_absent6, acquainted=True)
        lab = standing.enter_context(Lab(layout, Pump(fault), machine))
        standing.enter_context(traffic.serving(lab.right, page.content))
        yield lab


@contextmanager
def _fixer(lab: Lab, settings: str = "") -> Iterator[tuple[Service, Service]]:
    with Service(lab.left, settings=settings) as left, Service(lab.right, settings=settings) as right:
        yield left, right


@pytest.mark.parametrize("settings", ["", REPAIR], ids=["pass", "repair"])
def test_a_receiver_that_was_told_to_takes_it(machine: Host, page: type[Page], settings: str) -> None:
    """Counted and named all the same: the next receiver may not have been told."""
    with _lab(machine, page, Fault(Finish.EVERYTHING), takes_absent6=True) as lab:
        assert traffic.download(lab.left, lab.right.overlay4).sha256 == page.sha256
        with _fixer(lab, settings) as (_, right):
            for address in (lab.right.overlay4, lab.right.overlay6):
                assert traffic.ping(lab.left, address)
                assert traffic.download(lab.left, address).sha256 == page.sha256
        counted = right.counters
        assert counted["outer"]["zero6"] == counted["diagnosis"]["outer_absent6"] > 0
        assert (counted["action"]["repair"] > 0) == (settings == REPAIR)
        assert counted["action"]["drop"] == 0
        assert traffic.checksum_errors(lab.right)["UdpInCsumErrors"] == 0


def test_a_receiver_that_was_not_discards_it_and_fixer_says_so(machine: Host, page: type[Page]) -> None:
    with _lab(machine, page, Fault(Finish.EVERYTHING), takes_absent6=False) as lab:
        assert not traffic.ping(lab.left, lab.right.overlay4)
        assert traffic.checksum_errors(lab.right)["UdpInCsumErrors"] >= 1
        with _fixer(lab) as (_, right):
            assert not traffic.ping(lab.left, lab.right.overlay4)
            assert traffic.connect(lab.left, lab.right.overlay6, traffic.HTTP_PORT) == "timed out"
            (event, *_) = [event for event in right.events() if event["event"]["dataset"] == "fixer.packet"]
            assert event["event"]["reason"] == "outer checksum zero over IPv6"
        counted = right.counters
        assert counted["diagnosis"]["outer_absent6"] == counted["action"]["pass"] == counted["packets"] > 1


@FAMILIES
def test_a_repair_makes_it(machine: Host, page: type[Page], family: int) -> None:
    """From the third differing packet of a pair on: of eight echo requests two are lost, and two of six replies."""
    with _lab(machine, page, Fault(Finish.EVERYTHING), takes_absent6=False) as lab:
        address = lab.right.overlay4 if family == 4 else lab.right.overlay6
        assert not traffic.ping(lab.left, address)
        with _fixer(lab, REPAIR) as (left, right):
            assert lab.left.run("ping", "-q", "-i0.2", "-c8", "-W1", address).out.count(" 4 received") == 1
            arrived = traffic.download(lab.left, address)
            assert (arrived.error, arrived.size, arrived.sha256) == ("", len(page.content), page.sha256)
            for size in (1, 32, 1001):
                assert traffic.ask(lab.left, address, traffic.ECHO_PORT, size=size) == "answered"
        for side in (left, right):
            assert side.counters["action"]["repair"] == side.counters["vouch"]["envelope"] > 100
            assert side.counters["action"]["drop"] == 0


def test_not_one_damaged_byte_is_delivered(machine: Host, page: type[Page]) -> None:
    with _lab(machine, page, Fault(Finish.EVERYTHING, corrupt=0.01), takes_absent6=False) as lab:
        with _fixer(lab, REPAIR) as (left, _):
            traffic.ping(lab.left, lab.right.overlay4, count=8, seconds=4)
            arrived = traffic.download(lab.left, lab.right.overlay4)
            assert (arrived.error, arrived.sha256) == ("", page.sha256)
            answers = [traffic.ask(lab.left, lab.right.overlay4, traffic.ECHO_PORT, seconds=0.3) for _ in range(100)]
            assert answers.count("altered") == 0
            assert answers.count("answered") > 80
        assert left.counters["diagnosis"]["corrupt"] == left.counters["action"]["drop"] > 20


def test_a_sender_that_finishes_nothing_inside_is_no_case_for_it(machine: Host, page: type[Page]) -> None:
    """Its TCP is mended inside; the outer stays zero, since nothing vouches for what it would be summed over."""
    with _lab(machine, page, Fault(Finish.NOTHING), takes_absent6=False) as lab:
        with _fixer(lab, REPAIR) as (_, right):
            assert traffic.connect(lab.left, lab.right.overlay4, traffic.HTTP_PORT) == "timed out"
        assert right.counters["diagnosis"]["inner_unfinished"] == right.counters["unverified"] > 0
