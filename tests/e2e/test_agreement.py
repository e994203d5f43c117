"""One fault on a real wire, four witnesses: `fixer run`, a capture at either end, and both captures compared, agree."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.tap import tapped

from fixer.compare import compare
from fixer.config import Settings
from fixer.findings.finding import Finding, Place, Verdict
from fixer.findings.legs import Way
from fixer.host.machine import Host
from fixer.lab import traffic
from fixer.lab.net import End, Lab, Layout, Pump
from fixer.lab.pump import Fault, Finish
from fixer.lab.service import Service
from fixer.scan import scan_file

from .conftest import Page

pytestmark = pytest.mark.root


@contextmanager
def road(machine: Host, page: type[Page], fault: Fault, scratch: Path) -> Iterator[Lab]:
    """Both ends captured; the receiver's kernel merges what it can (GRO)."""
    with (
        Lab(Layout(), Pump(fault), machine) as lab,
        traffic.serving(lab.right, page.content),
        tapped(lab.left) as left,
        tapped(lab.right) as right,
    ):
        assert lab.right.run("ethtool", "-K", "eth0", "gro", "on").status == 0
        yield lab
    left.write(scratch / "left", marked=True)
    right.write(scratch / "right", marked=True)


def opened(service: Service, seconds: float) -> list[dict[str, Any]]:
    """The findings that it has opened, once there is one, or so many seconds later."""
    give_up = time.monotonic() + seconds
    while True:
        found = [
            event["fixer"]["finding"] | {"message": event["message"]}
            for event in service.events()
            if event["event"]["action"] == "finding-opened"
        ]
        if found or time.monotonic() > give_up:
            return found
        time.sleep(0.2)


def of(capture: Path, vtep: End) -> list[Finding]:
    """What `scan` says of a VTEP."""
    return [each for each in scan_file(capture, Settings()).findings() if each.who == vtep.underlay]


def test_a_sender_that_finishes_nothing_is_blamed_by_all_who_can_know_and_by_nobody_else(
    machine: Host, page: type[Page], tmp_path: Path
) -> None:
    with (
        road(machine, page, Fault(Finish.NOTHING), tmp_path) as lab,
        Service(lab.right, run=("--monitor",)) as service,
    ):
        assert traffic.connect(lab.left, lab.right.overlay4, traffic.HTTP_PORT, 3.5) == "timed out"
        [live] = opened(service, 20)
        status = json.loads(service.ask("status", "--json").out)
        [shown] = status["daemon"]["findings"]
        samples = of(Path(shown["samples"]), lab.left)
    assert (live["who"], live["cause"], live["verdict"]) == (lab.left.underlay, "unfinished", "fault")
    assert (shown["id"], shown["cause"], shown["text"]) == (live["id"], "unfinished", shown["text"])
    assert "can repair them here" in live["message"]
    assert {each.cause for each in samples} == {"unfinished"}

    [received] = of(tmp_path / "right", lab.left)
    assert (received.cause, received.verdict, received.taken) == ("unfinished", Verdict.FAULT, Place.RECEIVER)
    assert received.cure == live["cure"] == shown["cure"]
    assert received.vnis == tuple(live["vnis"])
    [sent] = of(tmp_path / "left", lab.left)
    assert (sent.cause, sent.verdict) == ("unfinished", Verdict.HARMLESS), "before its NIC"
    for capture in ("left", "right"):
        assert not [each for each in of(tmp_path / capture, lab.right) if each.verdict is Verdict.FAULT]

    both = compare(tmp_path / "left", tmp_path / "right", Settings())
    assert [(each.what, each.verdict) for each in both.remarks(Way.THERE)] == [("unfinished", Verdict.FAULT)]
    assert both.remarks(Way.BACK) == []


def test_what_is_repaired_on_the_wire_is_still_a_fault_there_and_no_fault_of_what_scan_sees_behind_it(
    machine: Host, page: type[Page], tmp_path: Path
) -> None:
    with road(machine, page, Fault(Finish.NOTHING), tmp_path) as lab, ExitStack() as services:
        right, left = (services.enter_context(Service(end)) for end in (lab.right, lab.left))
        assert traffic.download(lab.left, lab.right.overlay4).sha256 == page.sha256
        for service, sender in ((right, lab.left), (left, lab.right)):
            [live] = opened(service, 20)
            assert (live["who"], live["cause"], live["verdict"]) == (sender.underlay, "unfinished", "fault")
            assert "`fixer run` repairs them here" in live["message"]
            assert live["of"] >= live["packets"] > 0
    for each in of(tmp_path / "right", lab.left):
        assert each.verdict is Verdict.HARMLESS, each.text
        assert "repaired behind this point" in each.text


def test_of_a_healthy_way_nobody_says_anything(machine: Host, page: type[Page], tmp_path: Path) -> None:
    with road(machine, page, Fault(Finish.EVERYTHING), tmp_path) as lab, Service(lab.right) as service:
        assert traffic.download(lab.left, lab.right.overlay4).sha256 == page.sha256
        assert opened(service, 2.5) == []
    for capture in ("left", "right"):
        for vtep in (lab.left, lab.right):
            assert all(each.verdict is Verdict.HARMLESS for each in of(tmp_path / capture, vtep))
    assert compare(tmp_path / "left", tmp_path / "right", Settings()).verdict is Verdict.HARMLESS
