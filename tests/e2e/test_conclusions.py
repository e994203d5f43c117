"""Captures of real kernels, wherever they can be taken, each with the conclusion that is right; and all agree."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from support.tap import Tap, tapped

from fixer.compare import compare
from fixer.config import Settings
from fixer.findings.finding import Finding, Place, Verdict
from fixer.host.machine import Host
from fixer.lab import traffic
from fixer.lab.net import End, Lab, Layout, Namespace, Pump
from fixer.lab.pump import Fault, Finish
from fixer.lab.service import Service
from fixer.scan import scan_file

pytestmark = pytest.mark.root

FAULT, UNCLEAR, HARMLESS = Verdict
PAGE = bytes(range(256)) * 2048  # half a megabyte: enough to be merged
LEFT, RIGHT = "192.168.102.4", "192.168.102.5"
COMMON_FRAME = 1514


class Bridge:
    """A ``fixer.lab.net.Wire``: both hosts on one bridge of one kernel, as kind's and Docker's on one machine."""

    @contextmanager
    def join(self, namespace: Namespace, port: int) -> Iterator[None]:
        namespace.configure(
            "link add both type bridge",
            "link set both addrgenmode none",
            "link set left master both",
            "link set right master both",
            "link set both up",
        )
        yield


def concluded(path: Path, told: str = "") -> tuple[dict[str, set[Verdict]], list[Finding]]:
    """By VTEP, the verdicts of unfinished checksums; and all findings."""
    taken_on = bytes(int(part) for part in told.split(".")) if told else b""
    found = scan_file(path, Settings(), taken_on=taken_on).findings()
    by_vtep: dict[str, set[Verdict]] = {}
    for one in found:
        if one.cause == "unfinished":
            by_vtep.setdefault(one.who, set()).add(one.verdict)
    return by_vtep, found


def longest(tap: Tap) -> int:
    return max(len(heard.frame) for heard in tap.heard)


def told(service: Service) -> set[str]:
    """The diagnoses that `fixer run` has logged, once it has logged one."""
    give_up = time.monotonic() + 5
    while True:
        found = {each["fixer"]["diagnosis"] for each in service.events() if "diagnosis" in each.get("fixer", {})}
        if found or time.monotonic() > give_up:
            return found
        time.sleep(0.05)


@contextmanager
def taps(*ends: tuple[End, str | None]) -> Iterator[list[Tap]]:
    with ExitStack() as stack:
        yield [stack.enter_context(tapped(end, device)) for end, device in ends]


def test_over_a_healthy_wire_nobody_is_accused_wherever_it_is_captured(machine: Host, tmp_path: Path) -> None:
    with (
        Lab(Layout(), Pump(Fault(Finish.EVERYTHING)), machine) as lab,
        traffic.serving(lab.right, PAGE),
        traffic.serving(lab.left, PAGE),
    ):
        for leg, end in (("left", lab.left), ("right", lab.right)):
            assert end.run("ethtool", "-K", "eth0", "gro", "on").status == 0
            # A veth feeds its peer's GRO only where its own TSO is off.
            assert lab.between.run("ethtool", "-K", leg, "tso", "off").status == 0
            # The pump hands over frame by frame: wait for the next one, as an interrupt that is held back does.
            hold = "echo 2000000 > gro_flush_timeout && echo 2 > napi_defer_hard_irqs"
            assert end.run("sh", "-c", f"cd /sys/class/net/eth0 && {hold}").status == 0
        with taps((lab.left, "eth0"), (lab.left, None), (lab.right, "eth0")) as (sender, anywhere, receiver):
            assert traffic.ping(lab.left, lab.right.overlay4, seconds=20)
            assert len(PAGE) == traffic.download(lab.left, lab.right.overlay4).size
            assert len(PAGE) == traffic.download(lab.right, lab.left.overlay4).size
    assert longest(receiver) > COMMON_FRAME, "the receiver's GRO has merged some"
    for name, tap, told in (("sender", sender, LEFT), ("any", anywhere, LEFT), ("receiver", receiver, RIGHT)):
        for marked in (True, False):
            verdicts, found = concluded(tap.write(tmp_path / f"{name}-{marked}", marked=marked))
            assert {verdict for each in verdicts.values() for verdict in each} <= {HARMLESS}, (name, marked, found)
            assert not [one for one in found if one.verdict is FAULT], (name, marked)
        assert HARMLESS in verdicts[told], "what its own kernel left to the NIC"
    one_way = sender.write(tmp_path / "one-way", marked=False, direction=True)
    verdicts, found = concluded(one_way)
    assert FAULT not in verdicts[LEFT], found
    verdicts, _ = concluded(one_way, told=LEFT)
    assert verdicts[LEFT] == {HARMLESS}
    both = compare(sender.write(tmp_path / "left"), receiver.write(tmp_path / "right"), Settings())
    assert both.verdict is not FAULT, both.sentences()


def test_a_card_that_finishes_nothing_is_found_from_both_ends_and_a_repair_behind_it_too(
    machine: Host, tmp_path: Path
) -> None:
    with (
        Lab(Layout(acquainted=True), Pump(Fault(Finish.NOTHING)), machine) as lab,
        traffic.serving(lab.right, b"page"),
        traffic.serving(lab.left, b"page"),
    ):
        assert lab.right.run("ethtool", "-K", "eth0", "gro", "on").status == 0
        with taps((lab.left, "eth0"), (lab.right, "eth0"), (lab.right, None)) as (sender, receiver, anywhere):
            assert traffic.ping(lab.left, lab.right.overlay4, seconds=20)
            assert traffic.connect(lab.left, lab.right.overlay4, traffic.HTTP_PORT, 4.0) == "timed out"
            assert traffic.connect(lab.right, lab.left.overlay4, traffic.HTTP_PORT, 4.0) == "timed out"
        with taps((lab.right, "eth0")) as (repaired,), Service(lab.left), Service(lab.right) as service:
            assert traffic.download(lab.left, lab.right.overlay4).size == len(b"page")
            assert traffic.download(lab.right, lab.left.overlay4).size == len(b"page")
            events = told(service)
    # On the receiver: who sends to it is accused, and its own packets are not.
    for tap in (receiver, anywhere):
        verdicts, found = concluded(tap.write(tmp_path / "receiver"))
        assert verdicts == {LEFT: {FAULT}, RIGHT: {HARMLESS}}, found
        assert {one.taken for one in found if one.who == LEFT} == {Place.RECEIVER}
    verdicts, found = concluded(sender.write(tmp_path / "sender"))
    assert verdicts == {LEFT: {HARMLESS}, RIGHT: {FAULT}}, found
    # Without marks both readings, until somebody says where it was taken.
    unmarked = receiver.write(tmp_path / "unmarked", marked=False)
    assert concluded(unmarked)[0] == {LEFT: {UNCLEAR}, RIGHT: {UNCLEAR}}
    assert concluded(unmarked, told=RIGHT)[0] == {LEFT: {FAULT}, RIGHT: {HARMLESS}}
    # What fixer repairs behind the point of capture is accepted, and so no fault there.
    verdicts, found = concluded(repaired.write(tmp_path / "repaired"))
    assert verdicts[LEFT] == {HARMLESS}, found
    # And the wire, and both captures together, say the same.
    assert "inner_unfinished" in events
    both = compare(sender.write(tmp_path / "left"), receiver.write(tmp_path / "right"), Settings())
    assert both.verdict is FAULT
    assert "checksums leave the host" in both.sentences()[2]


def test_between_two_hosts_of_one_kernel_nobody_finishes_and_nobody_is_accused(machine: Host, tmp_path: Path) -> None:
    with (
        Lab(Layout(), Bridge(), machine) as lab,
        traffic.serving(lab.right, PAGE),
        taps((lab.right, "eth0")) as (tap,),
    ):
        assert traffic.download(lab.left, lab.right.overlay4).size == len(PAGE)
    for marked in (True, False):
        verdicts, found = concluded(tap.write(tmp_path / "one-host", marked=marked))
        assert verdicts == {LEFT: {HARMLESS}, RIGHT: {HARMLESS}}, found
        assert {one.taken for one in found} == {Place.ONE_HOST}, [one.text for one in found]
