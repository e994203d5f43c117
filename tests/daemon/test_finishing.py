"""Which entries the daemon gives the program in the kernel, and when it takes everything back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from support import finishing, oracle
from support.netns import Namespace
from support.packets import tunnelled

from fixer.config import Settings
from fixer.daemon.finishing import IDLE_SECONDS, LIVES, RETRY_SECONDS, Finishing
from fixer.datapath.pipeline import Pipeline
from fixer.host.machine import Host
from fixer.host.operator import Operator
from fixer.kernel import finisher
from fixer.now import Now
from fixer.rules.selection import Selection
from fixer.rules.wanted import Intent
from fixer.state import intent

pytestmark = pytest.mark.root

UNFINISHED = tunnelled("PARTIAL", "ZERO")
OTHER = tunnelled("PARTIAL", "AGREES", outer=6)
VTEP, OTHER_VTEP = "192.0.2.4", "2001:db8:ffff::4"


class Daemon:
    """The thread's work done by hand, at a clock that is moved by hand."""

    def __init__(self, here: Namespace) -> None:
        self.here = here
        self.settings = Settings()
        self.path = Pipeline(ports=[4789])
        self.said: list[str] = []
        self.finishing = Finishing(self.settings, Host(), [self.path], lambda saying: self.said.append(saying.message))
        self.begun = Now.read()
        self.later = 0.0

    def want(
        self,
        on: bool = True,
        *,
        in_kernel: bool = True,
        here: bool = False,
        queue: int = 0,
        until: datetime | None = None,
    ) -> None:
        selection = Selection(
            queue=queue, ports=(4789,), suspects_up_to=1500, in_kernel=in_kernel, overlay_ends_here=here, until=until
        )
        said = Intent(on=on, selection=selection, since=datetime.now(UTC), until=until, by=Operator(user="root"))
        self.here.call(intent.write, Host(), said)

    def look(self, seconds: float = 1.0) -> None:
        self.later += seconds
        self.here.call(self.finishing.look, self.begun._replace(steady=self.begun.steady + self.later))

    def diagnose(self, packet: bytes = UNFINISHED, times: int = 4) -> None:
        for number in range(times):
            self.path.examine(bytearray(packet), when_ns=time.time_ns() + number)

    def is_finished(self, packet: bytes = UNFINISHED) -> bool:
        """Whether the program in the kernel would finish it."""
        found = self.finishing._finisher
        if found is None or finishing.key_of(packet) not in found:
            return False
        made = finishing.ran(found, packet)
        as_wanted = finishing.marked(packet) if self.report.overlay_ends_here else oracle.judge(packet).mended
        assert made in (packet, as_wanted)
        return made != packet

    @property
    def report(self) -> Any:
        return self.finishing.report()


@pytest.fixture
def daemon(netns: Namespace) -> Iterator[Daemon]:
    if why := finishing.missing():
        pytest.skip(why)
    netns.configure("link add eth0 type veth peer name wire0", "link set eth0 up", "link set wire0 up")
    netns.configure("address add 192.0.2.1/24 dev eth0")
    found = Daemon(netns)
    yield found
    found.want(False)
    found.look(2.0)


def test_nothing_is_loaded_before_something_is_diagnosed(daemon: Daemon) -> None:
    daemon.want()
    daemon.look()
    daemon.diagnose(tunnelled("VERIFIES", "ZERO"))
    daemon.diagnose(times=2)  # one packet too few
    daemon.look()
    assert daemon.finishing._finisher is None
    assert (daemon.report.wanted, daemon.report.interfaces, daemon.said) == (True, {}, [])
    daemon.diagnose(times=1)
    daemon.look()
    assert daemon.is_finished()
    assert not daemon.is_finished(OTHER)
    assert set(daemon.report.interfaces) == {"eth0"}
    assert len(daemon.said) == 1
    assert f"the kernel finishes the packets of VTEP {VTEP}, on eth0" in daemon.said[0]


def test_nobody_wants_it(daemon: Daemon) -> None:
    for wanted in ({"in_kernel": False}, {"queue": 3}, {"on": False}, {"until": datetime.now(UTC) - timedelta(1)}):
        daemon.want(**wanted)  # type: ignore[arg-type]
        daemon.look()
        daemon.diagnose()
        daemon.look()
        assert daemon.finishing._finisher is None
        assert daemon.report is None


def test_what_is_not_confirmed_ends_and_what_is_lives_on(daemon: Daemon) -> None:
    daemon.want()
    daemon.look()
    daemon.diagnose()
    daemon.diagnose(OTHER)
    daemon.look()
    assert (daemon.is_finished(), daemon.is_finished(OTHER)) == (True, True)
    daemon.look(LIVES - 1)
    time.sleep(0.3)  # it is told of four times a second
    daemon.diagnose(OTHER)
    daemon.look(0.5)
    assert daemon.report.envelopes == 2
    daemon.look(1)
    assert daemon.report.envelopes == 1
    assert (daemon.is_finished(), daemon.is_finished(OTHER)) == (False, True)
    daemon.look(0)
    assert daemon.report.vteps == {VTEP: 1, OTHER_VTEP: 2}
    assert daemon.report.packets == 3


def test_a_way_of_the_outer_field_that_is_seen_no_more_is_finished_no_more(daemon: Daemon) -> None:
    """Though another one keeps the entry alive: what was right once may be over something else by now."""
    once = tunnelled("PARTIAL", "AGREES")
    assert finishing.key_of(once) == finishing.key_of(UNFINISHED)
    daemon.want()
    daemon.look()
    daemon.diagnose()
    daemon.diagnose(once)
    daemon.look()
    assert (daemon.is_finished(), daemon.is_finished(once)) == (True, True)
    for _ in range(2):
        time.sleep(0.3)  # it is told of four times a second
        daemon.diagnose()
        daemon.look(LIVES - 1)
    assert (daemon.is_finished(), daemon.is_finished(once)) == (True, False)


def test_packets_are_marked_for_as_long_as_the_overlay_is_said_to_end_here(daemon: Daemon) -> None:
    """And what was marked until now is not for a moment more."""
    for here in (True, False, True):
        daemon.want(here=here)
        daemon.look()
        assert daemon.finishing._finisher is None
        time.sleep(0.3)  # it is told of four times a second
        daemon.diagnose()
        daemon.look()
        assert daemon.is_finished()
        assert daemon.report.overlay_ends_here == here
        assert ("marking them as verified" in daemon.said[-1]) == here


def test_packets_are_counted_by_name_for_so_many_vteps_and_none_is_lost(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fixer.daemon.finishing._NAMED", 1)
    daemon.want()
    daemon.look()
    daemon.diagnose()
    daemon.diagnose(OTHER)
    daemon.look(0)
    assert [daemon.is_finished(each) for each in (UNFINISHED, OTHER, OTHER)] == [True] * 3
    daemon.look(LIVES + 1)
    assert (daemon.report.vteps, daemon.report.packets) == ({OTHER_VTEP: 2}, 3)


def test_an_end_by_the_clock_is_the_entries_end(daemon: Daemon) -> None:
    daemon.want(until=datetime.now(UTC) + timedelta(seconds=3))
    daemon.look()
    daemon.diagnose()
    daemon.look(0)
    assert daemon.is_finished()
    time.sleep(4.5)
    assert not daemon.is_finished()  # and nobody has looked


@pytest.mark.parametrize("how", ["off", "suspects", "monitor", "reload"])
def test_it_is_taken_back(daemon: Daemon, how: str) -> None:
    daemon.want()
    daemon.look()
    daemon.diagnose()
    daemon.look()
    assert daemon.is_finished()
    if how == "off":
        daemon.want(False)
    elif how == "suspects":
        daemon.want(in_kernel=False)
    else:
        daemon.finishing.serve_by(msgspec.structs.replace(daemon.settings, monitor=how == "monitor"))
    daemon.look()
    assert daemon.finishing._finisher is None
    assert (daemon.report.interfaces, daemon.report.wanted) == ({}, how == "reload")
    assert daemon.report.packets == 1
    assert "finishes nothing of VTEP 192.0.2.4 any more (1 packets)" in daemon.said[-1]
    daemon.diagnose()
    time.sleep(0.3)
    daemon.diagnose()
    daemon.look()
    assert daemon.is_finished() == (how == "reload")


def test_nobody_to_finish_for_means_no_program(daemon: Daemon) -> None:
    daemon.want()
    daemon.look()
    daemon.diagnose()
    daemon.look()
    daemon.look(LIVES + 1)
    assert daemon.finishing._finisher is not None
    daemon.look(IDLE_SECONDS)
    assert daemon.finishing._finisher is None


def test_a_kernel_that_takes_no_program_is_said_once_and_asked_again(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the daemon lacks CAP_BPF."""

    class Refused:
        asked = 0

        def __init__(self) -> None:
            Refused.asked += 1
            raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(finisher, "Finisher", Refused)
        daemon.want()
        daemon.look()
        for _ in range(3):
            daemon.diagnose()
            daemon.look()
            time.sleep(0.3)
        assert Refused.asked == 1
        assert len(daemon.said) == 1
        assert "this kernel does not take the program" in daemon.report.trouble
        assert "CAP_BPF" in daemon.report.trouble
        assert "goes through the queue" in daemon.said[0]
    daemon.diagnose()
    daemon.look(RETRY_SECONDS)
    assert daemon.is_finished()
    assert daemon.report.trouble == ""
