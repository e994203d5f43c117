"""Damage on the way never reaches an application, not even behind a device that claims to have verified everything.

The claim (CHECKSUM_UNNECESSARY on both layers, as an old veth or a wrong driver makes it) comes from a TCX program on
the receiver's underlay interface. It makes the kernel believe what it would otherwise refuse: without ``fixer`` the
damage is delivered, and that is shown first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from fixer.host.machine import Host
from fixer.lab import bpf, traffic
from fixer.lab.net import Lab, Layout, Pump
from fixer.lab.pump import Damage, Fault, Finish
from fixer.lab.service import Service

from .conftest import Page

pytestmark = pytest.mark.root

ONE_PERCENT = 0.01
CORRUPTING = {
    "outer-off": (Layout(), Fault(Finish.EVERYTHING, ONE_PERCENT)),
    "outer-on": (Layout(outer_checksum=True), Fault(Finish.EVERYTHING, ONE_PERCENT)),
    "outer-on-over-the-damage": (
        Layout(outer_checksum=True),
        Fault(Finish.EVERYTHING, ONE_PERCENT, Damage.BEFORE),
    ),
    "ipv6-outer-on": (Layout(underlay=6, outer_checksum=True), Fault(Finish.EVERYTHING, ONE_PERCENT)),
    "outer-over-unfinished": (
        Layout(outer_checksum=True),
        Fault(Finish.OUTER_OVER_UNFINISHED, ONE_PERCENT),
    ),
}


@contextmanager
def _lying(lab: Lab) -> Iterator[None]:
    """Both hosts' underlay interfaces claim that all is verified."""
    with ExitStack() as standing:
        for end in (lab.left, lab.right):
            standing.enter_context(bpf.attached(end, "eth0", bpf.BPF_TCX_INGRESS, bpf.claim_verified()))
        yield


@contextmanager
def _fixer(lab: Lab, settings: str = "") -> Iterator[tuple[Service, Service]]:
    with Service(lab.left, settings=settings) as left, Service(lab.right, settings=settings) as right:
        yield left, right


@pytest.mark.parametrize("outer_checksum", [False, True], ids=["outer-zero", "outer-good"])
@pytest.mark.usefixtures("tcx")
def test_corrupt_segment_behind_a_device_that_lies(machine: Host, page: type[Page], outer_checksum: bool) -> None:
    fault = Fault(Finish.EVERYTHING, corrupt=1.0, damage=Damage.BEFORE)
    layout = Layout(outer_checksum=outer_checksum)
    with Lab(layout, Pump(fault), machine) as lab, traffic.serving(lab.right, page.content):
        question = lab.left, lab.right.overlay4, traffic.ECHO_PORT
        assert traffic.ask(*question) == "lost"  # an honest kernel refuses it ...
        with _lying(lab):
            assert traffic.ask(*question) == "altered"  # ... and one that was lied to delivers it
            with _fixer(lab) as (_, right):
                assert traffic.ask(*question) == "lost"
        assert right.counters["action"]["drop"] == 1


@pytest.mark.parametrize("lying", [False, True], ids=["honest", "lying"])
@pytest.mark.parametrize("corrupting", CORRUPTING)
def test_one_percent_corrupted_is_never_delivered(
    request: pytest.FixtureRequest, machine: Host, page: type[Page], corrupting: str, lying: bool
) -> None:
    layout, fault = CORRUPTING[corrupting]
    if lying:
        request.getfixturevalue("tcx")
    with ExitStack() as standing:
        lab = standing.enter_context(Lab(layout, Pump(fault), machine))
        standing.enter_context(traffic.serving(lab.right, page.content))
        if lying:
            standing.enter_context(_lying(lab))
            without = traffic.download(lab.left, lab.right.overlay4)
            assert len(page.content) == without.size
            assert without.sha256 != page.sha256, "the wrong bytes are to be delivered without fixer"
        with _fixer(lab) as (left, _):
            arrived = traffic.download(lab.left, lab.right.overlay4)
            assert (arrived.error, arrived.size, arrived.sha256) == ("", len(page.content), page.sha256)
            answers = [traffic.ask(lab.left, lab.right.overlay4, traffic.ECHO_PORT, seconds=0.3) for _ in range(100)]
            assert answers.count("altered") == 0
            assert answers.count("answered") > 80
            assert sum(traffic.checksum_errors(lab.left).values()) == 0, "what is corrupt is not to reach the kernel"
    # 5 MB are some 3,700 segments, 1 % of which were damaged, and some of them again.
    assert left.counters["diagnosis"]["corrupt"] == left.counters["action"]["drop"] > 20


def test_corrupt_passes_where_the_operator_says_so(machine: Host, page: type[Page]) -> None:
    fault = Fault(Finish.EVERYTHING, corrupt=1.0)
    with Lab(Layout(), Pump(fault), machine) as lab, traffic.serving(lab.right, page.content):
        with _fixer(lab, settings='[policy]\ncorrupt = "pass"\n') as (_, right):
            assert traffic.ask(lab.left, lab.right.overlay4, traffic.ECHO_PORT) == "lost"
            assert traffic.checksum_errors(lab.right)["UdpInCsumErrors"] == 1
        assert (right.counters["diagnosis"]["corrupt"], right.counters["action"]["drop"]) == (1, 0)
