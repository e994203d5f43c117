"""``make faults``: what goes wrong with the daemon and around it, under traffic over a broken wire; a table.

Not collected with the rest, for it takes minutes. Each row is written into docs/reliability.md when it has been seen;
``ARGS="-k killed"`` does some of them anew.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.load import Load, Noticed
from support.supervised import Restart, Supervisor, directive
from support.table import Table

from fixer.errors import QueueBusy
from fixer.host.machine import Host
from fixer.lab.net import Lab, Layout, Pump
from fixer.lab.service import Service

from .guard import PATIENCE_SECONDS, load

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

UNATTENDED_SECONDS = 2.0
"""The longest pause where nobody has to act."""
START_SECONDS = 1.0
"""What a start may take."""
RESTART_SECONDS = float(directive("RestartSec")) + START_SECONDS
WATCHDOG_SECONDS = 2 * float(directive("WatchdogSec")) + RESTART_SECONDS
NORMALISED = '[timestamps]\nmode = "normalise"\nsources = ["10.0.1.4/32"]\n'
TRAFFIC = {False: "as it is", True: "normalised"}
"""Each fault meets both: with shifted timestamps a connection needs the daemon and what it remembers."""

TABLE = Table(Path(__file__).parents[2] / "docs" / "reliability.md", "faults")


@dataclass
class Scene:
    """Traffic over a broken wire that is repaired on the right, by a daemon that is kept as the unit says."""

    lab: Lab
    service: Service
    supervisor: Supervisor
    traffic: Load
    room: Path

    def event(self, action: str) -> dict[str, object]:
        """The first one of this kind in the log."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            for each in self.service.events():
                if each["event"]["action"] == action:
                    return each
            assert time.monotonic() < deadline, f"no {action} in the log"
            time.sleep(0.02)


@dataclass(frozen=True)
class Fault:
    """``act`` does it, returns when all is well again, and says how that came about.

    ``most``: seconds that the path may be closed. ``settings`` are the daemon's, with {room} in them; ``through``: what
    it is started through.
    """

    name: str
    act: Callable[[Scene], str]
    most: float = UNATTENDED_SECONDS
    settings: str = ""
    through: tuple[str, ...] = ()


@contextmanager
def scene(room: Path, normalised: bool, settings: str = "", through: tuple[str, ...] = ()) -> Iterator[Scene]:
    supervisor = Supervisor(room)
    with (
        Lab(Layout(), Pump(), Host()) as lab,
        Service(lab.left),
        Service(
            lab.right,
            settings=settings.format(room=room) + NORMALISED * normalised,
            off=("--force",),
            through=(*supervisor.through, *(word.format(room=room) for word in through)),
        ) as service,
        supervisor.keeping(service),
        Load(lab.left, lab.right) as traffic,
    ):
        traffic.goes_on()
        time.sleep(1)  # of good days, so that whoever is normalised has been diagnosed and told
        yield Scene(lab, service, supervisor, traffic, room)


def endured(here: Scene, act: Callable[[Scene], str]) -> tuple[Noticed, str]:
    """Do it, see that all goes on and ends well; what was noticed, and how it came back."""
    began = time.monotonic()
    how = act(here)
    here.traffic.goes_on()
    time.sleep(1)
    here.traffic.finish()
    return here.traffic.noticed(began), how


def told(name: str, normalised: bool, noticed: Noticed, how: str) -> None:
    TABLE.put(
        name,
        TRAFFIC[normalised],
        f"{noticed.unanswered} of {noticed.asked}",
        f"{noticed.lost} of {noticed.visits + 1}",
        f"{noticed.pause:.2f} s",
        f"{noticed.stall:.1f} s",
        f"{noticed.wait:.1f} s",
        how,
    )


def by_the_unit(restart: Restart) -> str:
    why = "the watchdog ended it" if restart.bitten else f"it ended by {restart.ended}"
    return f"{why}; the unit had it back {restart.seconds:.1f} s later"


# --- what is done ----------------------------------------------------------------------------------------------------


def killed(here: Scene) -> str:
    os.kill(here.service.process.pid, signal.SIGKILL)
    return by_the_unit(here.supervisor.restarted())


def stopped(here: Scene) -> str:
    """Nobody sends SIGCONT: for 60 s or for ever is the same, for the watchdog is sooner."""
    os.kill(here.service.process.pid, signal.SIGSTOP)
    return by_the_unit(here.supervisor.restarted())


def upgraded(here: Scene) -> str:
    before = here.service.process.pid
    restart = here.supervisor.restart()
    assert here.service.process.pid != before
    return f"stopped and started: {restart.seconds:.1f} s in all"


def twice(here: Scene) -> str:
    second = here.service.ask("run")
    assert second.status == QueueBusy.exit_code
    time.sleep(1)
    return f"the second ends with {second.status}: `{second.err.strip()}`"


def misconfigured(here: Scene) -> str:
    good = here.service.config.read_text()
    here.service.config.write_text("[queue\nnumber = [")
    here.service.process.send_signal(signal.SIGHUP)
    here.event("not-reloaded")
    time.sleep(0.5)
    here.service.config.write_text(good)
    here.service.process.send_signal(signal.SIGHUP)
    here.event("reloaded")
    return "what was in force stays, and the log says why"


FAULTS = (
    Fault("kill -9", killed, RESTART_SECONDS),
    Fault("SIGSTOP", stopped, WATCHDOG_SECONDS),
    Fault("upgrade: another process", upgraded),
    Fault("a second daemon on the queue", twice),
    Fault("configuration broken at a reload", misconfigured),
)


@pytest.mark.parametrize("normalised", TRAFFIC, ids=TRAFFIC.values())
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_no_connection_is_lost_and_the_pause_is_short(fault: Fault, normalised: bool, tmp_path: Path) -> None:
    with ExitStack() as undo:
        here = undo.enter_context(scene(tmp_path, normalised, fault.settings, fault.through))
        noticed, how = endured(here, fault.act)
    told(fault.name, normalised, noticed, how)
    assert noticed.lost == 0, noticed.failures
    assert noticed.pause <= fault.most + load()
