"""What a daemon finds, from packets to the log, the report and the samples: its own pieces, without a kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.fakehost import FakeHost
from support.packets import in_state, segment, tunnelled

from fixer.config import Settings
from fixer.daemon.findings import Findings
from fixer.datapath.pipeline import Pipeline
from fixer.findings.finding import Fact
from fixer.findings.wire import Wire, watch
from fixer.now import Now
from fixer.scan import scan_file
from fixer.state import place
from fixer.state.samples import Samples
from fixer.telemetry.snat import SnatWatch

SECOND = 1_000_000_000
BEGAN = 1_700_000_000 * SECOND
UNFINISHED = tunnelled("PARTIAL", "AGREES")


class Daemon:
    """All that finds something, a second at a time."""

    def __init__(self, *, plain: bool = False) -> None:
        self.in_kernel: dict[str, int] = {}
        self.host = FakeHost()
        self.pipeline = Pipeline(ports=[4789], plain=plain)
        wire = Wire(watch([self.pipeline]), monitor=False)
        self.findings = Findings(None, SnatWatch([self.pipeline]), wire, Samples(self.host, 7), lambda: self.in_kernel)
        self.second = 0

    def put(self, packet: bytes, count: int = 1) -> None:
        for _ in range(count):
            self.pipeline.examine(bytearray(packet), when_ns=BEGAN + self.second * SECOND)

    def turn(self, seconds: int = 1) -> list[dict[str, Any]]:
        """What is told in so many seconds."""
        told = []
        for _ in range(seconds):
            self.second += 1
            now = BEGAN + self.second * SECOND
            self.pipeline.settle(now, 0, False)
            told += [said.fields | {"message": said.message} for said in self.findings.news(Now(self.second, now))]
        return told


def test_a_finding_from_its_first_packet_to_its_end() -> None:
    daemon = Daemon()
    daemon.put(UNFINISHED)
    [opened] = daemon.turn()
    assert opened["event.action"] == "finding-opened"
    assert (opened["fixer.finding.who"], opened["fixer.finding.cause"]) == ("192.0.2.4", "unfinished")
    daemon.put(UNFINISHED, 5)
    assert daemon.turn(30) == []
    [updated] = daemon.turn(40)
    assert (updated["event.action"], updated["fixer.finding.packets"]) == ("finding-updated", 6)
    [closed] = daemon.turn(400)
    assert (closed["event.action"], closed["fixer.finding.packets"]) == ("finding-closed", 6)
    assert opened["fixer.finding.id"] == updated["fixer.finding.id"] == closed["fixer.finding.id"]
    assert daemon.findings.open == []
    daemon.put(UNFINISHED)
    [again] = daemon.turn()
    assert again["fixer.finding.packets"] == 1
    assert again["fixer.finding.id"] != opened["fixer.finding.id"]


def test_what_the_kernel_finished_is_told_of_its_sender_and_of_no_other_cause() -> None:
    daemon = Daemon()
    daemon.in_kernel = {"192.0.2.4": 12_345, "192.0.2.9": 7}
    daemon.put(UNFINISHED, 3)
    daemon.put(tunnelled("WRONG", "ZERO"), 3)
    daemon.turn()
    found = {finding.cause: finding for finding in daemon.findings.open}
    assert found["unfinished"].text.endswith(" 12,345 more were finished in the kernel.")
    assert found["unfinished"].evidence[-1] == Fact("finished in the kernel, beside those counted here", 12_345, 0)
    assert found["unfinished"].packets == 3
    assert found.keys() == {"unfinished", "corrupt"}
    assert "in the kernel" not in found["corrupt"].text


def test_samples_are_kept_of_each_finding_and_named_with_it() -> None:
    daemon = Daemon(plain=True)
    daemon.put(UNFINISHED, 3)
    daemon.put(in_state(segment(4, "udp"), 4, "udp", "WRONG"))
    daemon.turn(2)
    by_cause = {case.finding.cause: case for case in daemon.findings.cases}
    assert set(by_cause) == {"unfinished", "corrupt"}
    frames = {cause: scan_file(Path(case.samples), Settings()).tally.frames for cause, case in by_cause.items()}
    assert frames == {"unfinished": 6, "corrupt": 1}
    assert len(place.every(daemon.host, "pcapng")) == 2
    daemon.put(UNFINISHED)
    told = daemon.turn(70)
    assert {each["fixer.finding.samples"] for each in told} == {by_cause["unfinished"].samples}


def test_a_stop_closes_what_is_open() -> None:
    daemon = Daemon()
    daemon.put(UNFINISHED)
    daemon.turn()
    [closed] = daemon.findings.at_stop()
    assert closed.fields["event.action"] == "finding-closed"
    assert closed.message.startswith("not followed any more, fixer stops: VTEP 192.0.2.4")
