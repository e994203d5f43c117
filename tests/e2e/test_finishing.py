"""``fixer on --scope kernel``: what was diagnosed is finished by the kernel, and passes the queue by."""

from __future__ import annotations

import itertools
import json
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from fixer.host import interfaces
from fixer.host.machine import Host
from fixer.kernel import bpf as calls
from fixer.kernel import clsact
from fixer.lab import bpf, traffic
from fixer.lab.net import Lab, Layout, Namespace, Pump
from fixer.lab.pump import Fault, Finish
from fixer.lab.service import Service

from .conftest import Page

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("programs")]

KERNEL = ("--scope", "kernel")
MARKS = (*KERNEL, "--overlay-ends-here")
PATIENCE = 15.0  # seconds for an answer, which only a loaded machine needs
LIVES = 5.0  # seconds that an entry lives without being confirmed
BROKEN = {
    "swarm-outer-off": (Layout(), Finish.NOTHING),
    "swarm-outer-on": (Layout(outer_checksum=True), Finish.NOTHING),
    "flannel-8472-jumbo": (Layout(port=8472, mtu=9000, outer_checksum=True), Finish.NOTHING),
    "ipv6-outer-on": (Layout(underlay=6, outer_checksum=True), Finish.NOTHING),
    "ipv6-outer-off": (Layout(underlay=6), Finish.NOTHING),
}

FIRST = [("swarm-outer-on", KERNEL), ("swarm-outer-off", MARKS)]
REST = [each for each in itertools.product(BROKEN, (KERNEL, MARKS)) if each not in FIRST]


@pytest.fixture(scope="module")
def programs(machine: Host) -> None:
    """Skips where the kernel takes no such program."""
    from support import finishing

    if why := finishing.missing():
        pytest.skip(why)


def until(holds: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What holds once it does; fails if it does not for so long, which only a loaded machine needs."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.1)
    return found


def report_of(service: Service) -> dict[str, Any]:
    """What the daemon last told of the kernel's program; nothing before its first report of the queue."""
    found: dict[str, Any] = json.loads(service.ask("status", "--json").out)["daemon"].get("kernel", {})
    return found


def attached(here: Namespace) -> list[int]:
    """The ids of the programs at the entry of the underlay's interface, as the kernel tells."""

    def look() -> list[int]:
        index = socket.if_nametoindex("eth0")
        return calls.attached_tcx(index, calls.TCX_INGRESS) + [each.program for each in clsact.filters(index)]

    return here.call(look)


def work(lab: Lab, page: type[Page], times: int = 1) -> None:
    """Both overlay families carry a download and a question."""
    for _ in range(times):
        for address in (lab.right.overlay4, lab.right.overlay6):
            arrived = traffic.download(lab.left, address, seconds=60, connecting=PATIENCE)
            assert (arrived.error, arrived.sha256) == ("", page.sha256)
            assert traffic.ask(lab.left, address, traffic.ECHO_PORT, seconds=PATIENCE) == "answered"


@pytest.mark.parametrize(("name", "on"), [*FIRST, *(pytest.param(*each, marks=pytest.mark.long) for each in REST)])
def test_broken_paths_work_and_the_kernel_repairs_them(
    machine: Host, page: type[Page], name: str, on: tuple[str, ...]
) -> None:
    layout, finish = BROKEN[name]
    with Lab(layout, Pump(Fault(finish)), machine) as lab, traffic.serving(lab.right, page.content):
        assert traffic.connect(lab.left, lab.right.overlay4, traffic.HTTP_PORT) in ("timed out", "unreachable")
        with Service(lab.left, on=on) as left, Service(lab.right, on=on):
            assert attached(lab.left) == []  # nothing was diagnosed yet
            for end in (lab.left, lab.right):
                end.configure("neighbour flush all")
            # On a loaded machine a download is over before the daemon has had its turn: until one comes behind it.
            until(lambda: work(lab, page) or report_of(left).get("packets", 0) > 2000, 60)
            assert attached(lab.left)
            status = report_of(left)
            queued = json.loads(left.ask("status", "--json").out)["listeners"][0]["id_sequence"]
            # What is finished passes the queue by, whoever was slow: of all that came, nothing is counted twice.
            assert status["packets"] + queued <= lab.left.call(interfaces.received, machine)["eth0"]
            assert status["interfaces"] == {"eth0": "TCX"}
            assert status["vteps"].keys() == {lab.right.underlay}
            assert (status["trouble"], status["left"]["refused"]) == ("", 0)
            assert status["overlay_ends_here"] == (on == MARKS)
            shown = " ".join(left.ask("status").out.split())
            assert "on eth0 (TCX); " in shown
            assert f"VTEP {lab.right.underlay} " in shown
            assert " more were finished in the kernel." in shown  # the finding counts what the queue saw
            began = [event for event in left.events() if event["event"]["action"] == "kernel-began"]
    assert [event["fixer"]["vtep"]["source"]["ip"] for event in began] == [lab.right.underlay]


@pytest.mark.long
def test_off_leaves_nothing_and_an_idle_sender_is_confirmed_anew(machine: Host, page: type[Page]) -> None:
    with Lab(Layout(), Pump(Fault(Finish.NOTHING)), machine) as lab, traffic.serving(lab.right, page.content):
        with Service(lab.left, on=KERNEL) as left, Service(lab.right, on=KERNEL):
            until(lambda: work(lab, page) or attached(lab.left), 60)
            until(lambda: report_of(left).get("envelopes") == 0)  # nobody confirms while nothing comes
            before = report_of(left)["packets"]
            until(lambda: work(lab, page) or report_of(left)["packets"] > before, 60)
            assert left.ask("off").status == 0
            until(lambda: not attached(lab.left))
            assert traffic.connect(lab.left, lab.right.overlay4, traffic.HTTP_PORT) == "timed out"
            assert left.ask("on", *KERNEL).status == 0
            until(lambda: work(lab, page) or attached(lab.left), 60)
        assert attached(lab.left) == []


def test_a_killed_daemon_leaves_nothing_and_the_next_one_goes_on(machine: Host, page: type[Page]) -> None:
    with (
        Lab(Layout(), Pump(Fault(Finish.NOTHING)), machine) as lab,
        traffic.serving(lab.right, page.content),
        Service(lab.left, on=KERNEL) as left,
        Service(lab.right, on=KERNEL),
    ):
        until(lambda: work(lab, page) or attached(lab.left), 60)
        left.kill()
        until(lambda: not attached(lab.left), LIVES)
        left.start_again()
        until(lambda: work(lab, page) or attached(lab.left))


@pytest.mark.long
def test_beside_programs_of_others(machine: Host, page: type[Page]) -> None:
    """Ours is the first, and ends nobody's way; one that comes before it later is said, and not fought for."""
    with (
        Lab(Layout(), Pump(Fault(Finish.NOTHING)), machine) as lab,
        traffic.serving(lab.right, page.content),
        bpf.attached(lab.left, "eth0", bpf.BPF_TCX_INGRESS, bpf.leave(bpf.TCX_PASS)),
        Service(lab.left, on=KERNEL) as left,
        Service(lab.right, on=KERNEL),
    ):
        (other,) = attached(lab.left)
        until(lambda: work(lab, page) or len(attached(lab.left)) == 2, 60)
        assert attached(lab.left)[1] == other
        until(lambda: report_of(left).get("packets", 0) > 1000 or work(lab, page))


@pytest.mark.long
def test_a_daemon_without_the_right_repairs_in_the_queue(machine: Host, page: type[Page]) -> None:
    """As the unit starts it: CAP_NET_ADMIN alone, without CAP_BPF."""
    with (
        Lab(Layout(), Pump(Fault(Finish.NOTHING)), machine) as lab,
        traffic.serving(lab.right, page.content),
        Service(lab.left, on=KERNEL, without=("bpf", "sys_admin")) as left,
        Service(lab.right, on=KERNEL),
    ):
        found = until(lambda: work(lab, page) or report_of(left).get("trouble"), 60)
        assert "this kernel does not take the program" in found
        assert attached(lab.left) == []
        assert found in " ".join(left.ask("status").out.split())
        work(lab, page)
    assert left.counters["action"]["repair"] > 5000
