"""Both ends of a real way captured at once, with real kernels at either end and a faulty wire between them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.captures import enhanced, interface, section

from fixer.compare import Comparison, compare
from fixer.config import Settings
from fixer.findings.finding import Verdict
from fixer.findings.legs import Way
from fixer.host.machine import Host
from fixer.lab import traffic
from fixer.lab.net import End, Lab, Layout, Pump
from fixer.lab.pump import Fault, Finish

from .conftest import Page

pytestmark = pytest.mark.root

MARKS = {True: 2, False: 1}  # pcapng: outbound, inbound


@contextmanager
def captured(end: End, path: Path, *, marked: bool = True) -> Iterator[None]:
    """A pcapng of what passes `end`'s eth0 while the context lasts; `marked`: with the direction of each frame."""
    blocks = [section(), interface()]
    with end.call(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as tap:
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        tap.bind(("eth0", 3))
        tap.settimeout(0.1)
        done = threading.Event()

        def take() -> None:
            while True:
                try:
                    frame, (_, _, kind, *_) = tap.recvfrom(1 << 17)
                except TimeoutError:
                    if done.is_set():
                        return
                    continue
                flags = MARKS[kind == socket.PACKET_OUTGOING] if marked else None
                blocks.append(enhanced(frame, time.time_ns(), flags))

        taking = threading.Thread(target=take)
        taking.start()
        try:
            yield
        finally:
            done.set()
            taking.join()
    path.write_bytes(b"".join(blocks))


@contextmanager
def both(machine: Host, page: type[Page], fault: Fault, scratch: Path, *, marked: bool = True) -> Iterator[Lab]:
    with (
        Lab(Layout(), Pump(fault), machine) as lab,
        traffic.serving(lab.right, page.content),
        captured(lab.left, scratch / "left", marked=marked),
        captured(lab.right, scratch / "right", marked=marked),
    ):
        yield lab


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
    assert sum(leg.arrived for leg in found.told(Way.BACK)) > 3000
    assert found.clock is not None
    assert abs(found.clock.offset) < 50_000_000  # it is one clock


def test_a_card_that_finishes_nothing_is_found_at_the_sender(machine: Host, page: type[Page], tmp_path: Path) -> None:
    with both(machine, page, Fault(Finish.NOTHING), tmp_path) as lab:
        assert traffic.ping(lab.left, lab.right.overlay4)
        assert traffic.connect(lab.left, lab.right.overlay4, traffic.HTTP_PORT, 2.5) == "timed out"
    found = compared(tmp_path)
    assert found.verdict is Verdict.FAULT
    assert [(each.what, each.verdict) for each in found.findings(Way.THERE)] == [("unfinished", Verdict.FAULT)]
    assert found.findings(Way.BACK) == []
    assert "nothing is lost on the way" in found.sentences()[2]


def test_a_wire_that_damages_payloads_is_found_between_them(machine: Host, page: type[Page], tmp_path: Path) -> None:
    with both(machine, page, Fault(Finish.EVERYTHING, corrupt=0.2), tmp_path) as lab:
        traffic.download(lab.left, lab.right.overlay4, seconds=3.0)
    found = compared(tmp_path)
    assert found.verdict is Verdict.FAULT
    damaged = {each.what: each for way in Way for each in found.findings(way)}
    assert {"payload", "inner_checksum"} <= set(damaged)
    assert "between the two points of capture" in found.sentences()[2]
    assert not {"lost", "unsent"} & set(damaged), found.sentences()
