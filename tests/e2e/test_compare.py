"""Both ends of a real way captured at once, with real kernels at either end and a faulty wire between them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.tap import tapped

from fixer.compare import Comparison, compare
from fixer.config import Settings
from fixer.findings.finding import Verdict
from fixer.findings.legs import Way
from fixer.host.machine import Host
from fixer.lab import traffic
from fixer.lab.net import Lab, Layout, Pump
from fixer.lab.pump import Fault, Finish

from .conftest import Page

pytestmark = pytest.mark.root


@contextmanager
def both(
    machine: Host, page: type[Page], fault: Fault, scratch: Path, *, marked: bool = True, underlay: int = 4
) -> Iterator[Lab]:
    with (
        Lab(Layout(underlay=underlay), Pump(fault), machine) as lab,
        traffic.serving(lab.right, page.content),
        tapped(lab.left) as left,
        tapped(lab.right) as right,
    ):
        yield lab
    left.write(scratch / "left", marked=marked)
    right.write(scratch / "right", marked=marked)


def compared(scratch: Path) -> Comparison:
    return compare(scratch / "left", scratch / "right", Settings())


@pytest.mark.parametrize("marked", [True, False], ids=["marked", "unmarked"])
def test_a_healthy_way_has_no_fault(machine: Host, page: type[Page], tmp_path: Path, marked: bool) -> None:
    with both(machine, page, Fault(Finish.EVERYTHING), tmp_path, marked=marked) as lab:
        assert traffic.download(lab.left, lab.right.overlay4).sha256 == page.sha256
    found = compared(tmp_path)
    assert found.verdict is Verdict.HARMLESS, found.sentences()
    assert {leg.told_by for leg in found.legs} <= {"marks" if marked else "time"}
    assert sum(leg.lost + leg.unsent for leg in found.legs) == 0
    assert sum(leg.arrived for leg in found.told(Way.BACK)) > 1000, found.sentences()
    assert found.clock is not None
    assert abs(found.clock.offset) < 50_000_000  # it is one clock


def test_over_ipv6_inside_and_outside_it_is_the_same(machine: Host, page: type[Page], tmp_path: Path) -> None:
    with both(machine, page, Fault(Finish.EVERYTHING), tmp_path, marked=False, underlay=6) as lab:
        assert traffic.ping(lab.left, lab.right.overlay6, seconds=20)  # neighbours are found in the tunnel and below it
        assert traffic.download(lab.left, lab.right.overlay6).sha256 == page.sha256
    found = compared(tmp_path)
    assert found.verdict is Verdict.HARMLESS, found.sentences()
    assert {leg.found["source"] for leg in found.legs} == {lab.left.underlay, lab.right.underlay}
    assert sum(leg.lost + leg.unsent for leg in found.legs) == 0
    assert sum(leg.arrived for leg in found.told(Way.BACK)) > 1000, found.sentences()


def test_a_card_that_finishes_nothing_is_found_at_the_sender(machine: Host, page: type[Page], tmp_path: Path) -> None:
    with both(machine, page, Fault(Finish.NOTHING), tmp_path) as lab:
        assert traffic.ping(lab.left, lab.right.overlay4, seconds=20)
        assert traffic.connect(lab.left, lab.right.overlay4, traffic.HTTP_PORT, 2.5) == "timed out"
    found = compared(tmp_path)
    assert found.verdict is Verdict.FAULT
    assert [(each.what, each.verdict) for each in found.remarks(Way.THERE)] == [("unfinished", Verdict.FAULT)]
    assert found.remarks(Way.BACK) == []
    assert "nothing is lost on the way" in found.sentences()[2]


def test_a_wire_that_damages_payloads_is_found_between_them(machine: Host, page: type[Page], tmp_path: Path) -> None:
    with both(machine, page, Fault(Finish.EVERYTHING, corrupt=0.2), tmp_path) as lab:
        traffic.download(lab.left, lab.right.overlay4, seconds=3.0)
    found = compared(tmp_path)
    assert found.verdict is Verdict.FAULT
    damaged = {each.what: each for way in Way for each in found.remarks(way)}
    assert {"payload", "inner_checksum"} <= set(damaged)
    assert "between the two points of capture" in found.sentences()[2]
    assert not {"lost", "unsent"} & set(damaged), found.sentences()
