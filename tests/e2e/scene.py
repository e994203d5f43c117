"""Traffic over a broken wire that is repaired on the right, by a daemon that is kept as its unit says."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import flood
from support.commands import wait_for
from support.eventlog import EventLog
from support.load import Load
from support.supervised import Supervisor
from support.wire import Wire

from fixer.host.machine import Host
from fixer.lab.net import Lab, Layout, Pump, stop
from fixer.lab.service import Service
from fixer.state import report

NORMALISED = '[timestamps]\nmode = "normalise"\nsources = ["10.0.1.4/32"]\n'


@dataclass
class Scene:
    """``room`` is a directory of its own; ``beside``: what a fault has laid out before the daemon started."""

    lab: Lab
    service: Service
    supervisor: Supervisor
    traffic: Load
    room: Path
    beside: Any = None
    log: EventLog = field(init=False)

    def __post_init__(self) -> None:
        self.log = EventLog(self.service)

    @property
    def pid(self) -> int:
        return self.service.process.pid

    def report(self) -> report.Report:
        """What the daemon says of itself; it is a second old at the most."""
        right = self.lab.right
        found = report.read(right.call(report.path_of, right.host, 0))
        assert found, "the daemon does not report"
        return found

    def flows(self) -> dict[str, int | bool]:
        """The figures of the table of normalised connections."""
        found = self.report().flows
        assert isinstance(found, dict)
        return found

    def counts(self, name: str) -> None:
        """Wait until a counter of the daemon's packet path is no longer zero."""
        wait_for(lambda: self.report().numbers()[name] > 0, 60)

    def counts_of_queue(self, name: str) -> int:
        """A counter of the daemon's queue, once it is no longer zero."""
        wait_for(lambda: self.report().queue_counters[name] > 0, 60)
        return self.report().queue_counters[name]

    def scrape(self) -> bool:
        """Ask once for the metrics, which the daemon has on {room}/metrics; whether they came."""
        with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
            client.settimeout(10)
            client.connect(str(self.room / "metrics"))
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            return b" 200 " in client.recv(1 << 20)
        return False

    def flood(self, seconds: float) -> int:
        """Somebody else's packets, whole ones, to the right as fast as one process sends them; how many."""
        right = self.lab.right
        mac = right.run("cat", "/sys/class/net/eth0/address").out.strip()
        frame = bytes.fromhex(mac.replace(":", "")) + bytes(6) + b"\x08\x00"
        frame += Wire(vteps=(self.lab.left.underlay, right.underlay), vni=99).bytes()
        process = self.lab.between.start(sys.executable, flood.__file__, "right", str(seconds), frame.hex())
        assert process.stdout is not None
        sent = int(process.stdout.readline())
        stop(process)
        return sent


@contextmanager
def scene(
    room: Path,
    *,
    normalised: bool = False,
    settings: str = "",
    through: tuple[str, ...] = (),
    on: tuple[str, ...] = (),
    beside: Any = None,
) -> Iterator[Scene]:
    """``settings`` of the daemon, and what it is started ``through``, with {room} in them; ``fixer on``'s words."""
    supervisor = Supervisor(room)
    with (
        Lab(Layout(), Pump(), Host()) as lab,
        Service(lab.left),
        Service(
            lab.right,
            settings=settings.format(room=room) + NORMALISED * normalised,
            on=on,
            off=("--force",),
            through=(*supervisor.through, *(word.format(room=room) for word in through)),
        ) as service,
        supervisor.keeping(service),
        Load(lab.left, lab.right) as traffic,
    ):
        traffic.goes_on()
        here = Scene(lab, service, supervisor, traffic, room, beside)
        if normalised:
            has_shifted_transfer(here)
        yield here


def has_shifted_transfer(here: Scene) -> None:
    """Begin others until its clock is one that is shifted; every second one is."""
    for _ in range(20):
        found = []
        for _look in range(3):
            time.sleep(1.1)  # the report is rewritten each second, and all but the transfer are over in no time
            found.append(here.flows()["normalised"])
        if min(found) > 0:
            return
        here.traffic.another_transfer()
        here.traffic.goes_on()
    raise AssertionError("no connection is shifted")
