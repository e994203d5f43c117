"""``fixer off`` and normalised connections: refused, forced, drained; on files of ours, with a host that is made up."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fakehost import FakeHost
from support.flowtable import header

from fixer.errors import ConnectionsLive, NotPermitted, SystemRefused
from fixer.host.machine import NET, Completed
from fixer.rules import drain
from fixer.state import flowfile

BOUND = "7 4242 0 2 65531 0 0 0 1\n8 4243 0 2 65531 0 0 0 1\n"
QUEUES = f"{NET}/netfilter/nfnetlink_queue"
ON = """\
[0:0] -A PREROUTING -j FIXER
[0:0] -A OUTPUT -j FIXER-OUTPUT
[9:900] -A FIXER -p tcp -g FIXER-FLOWS
[4:40] -A FIXER -p udp -m multiport --dports 4789 -j NFQUEUE --queue-num 7 --queue-bypass
[8:800] -A FIXER-OUTPUT -p tcp -g FIXER-FLOWS
[17:1700] -A FIXER-FLOWS -j NFQUEUE --queue-num 8 --queue-bypass
"""


class Table:
    """A flow table's file: the header that `flowfile` reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write(normalised=2)

    def write(self, normalised: int, draining: int = 0) -> None:
        self.path.write_bytes(header(normalised=normalised, draining=draining, used=5) + bytes(100))

    @property
    def draining(self) -> bool:
        live = flowfile.look(self.path)
        assert live is not None
        return live.draining

    def left(self, normalised: int) -> None:
        """As the daemon counts them down."""
        self.write(normalised, int(self.draining))


@pytest.fixture
def host() -> FakeHost:
    """Rules of both kinds for IPv4, and somebody who listens on both queues."""
    made = FakeHost()
    made.answers["iptables-save"] = Completed(0, ON, "")
    made.files[QUEUES] = BOUND
    return made


@pytest.fixture
def table(host: FakeHost) -> Table:
    return Table(flowfile.path_of(host, 7))


class Script:
    """A clock, and what happens in each of its seconds; warnings and lines as they are said."""

    def __init__(self, *steps: Callable[[], Any]) -> None:
        self.steps = iter(steps)
        self.seconds = 0.0
        self.said: list[str] = []
        self.warned: list[str] = []

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        next(self.steps, lambda: None)()

    def wait(self, host: FakeHost, timeout: float | None = None) -> None:
        drain.wait(host, timeout, self.said.append, self.warned.append, self.sleep, lambda: self.seconds)


def unwanted(_: str) -> None:
    raise AssertionError("nothing to warn of")


# off, and on


def test_live_connections_refuse_and_say_how_many(host: FakeHost, table: Table) -> None:
    with pytest.raises(ConnectionsLive) as caught:
        drain.check(host, "fixer off", {}, False, unwanted)
    assert str(caught.value) == (
        "2 normalised connections would stall without the rule of queue 8: let them end with fixer off --drain, "
        "or cut them off with fixer off --force"
    )
    table.write(1)
    with pytest.raises(ConnectionsLive, match=r"^1 normalised connection would stall"):
        drain.check(host, "fixer off", {}, False, unwanted)


def test_force_warns_with_the_number(host: FakeHost, table: Table) -> None:
    warned: list[str] = []
    drain.check(host, "fixer off", {}, True, warned.append)
    assert warned == [
        "2 normalised connections will stall: the server takes what they send from now on for old, and drops it"
    ]


def test_who_keeps_the_rules_cuts_nobody_off(host: FakeHost, table: Table) -> None:
    drain.check(host, "fixer on", {"ipv4": 8, "ipv6": 8}, False, unwanted)
    for wanted in ({}, {"ipv6": 8}, {"ipv4": 9}):
        with pytest.raises(ConnectionsLive, match=r"fixer on --force$"):
            drain.check(host, "fixer on", wanted, False, unwanted)


def no_rules(host: FakeHost, table: Table) -> None:
    host.answers["iptables-save"] = Completed(0, "", "")


def nobody_left(host: FakeHost, table: Table) -> None:
    table.write(0)


def no_file(host: FakeHost, table: Table) -> None:
    table.path.unlink()


@pytest.mark.parametrize("change", [no_rules, nobody_left, no_file])
def test_without_rules_or_connections_there_is_nothing_to_refuse(host: FakeHost, table: Table, change: Any) -> None:
    change(host, table)
    drain.check(host, "fixer off", {}, False, unwanted)
    script = Script()
    script.wait(host)
    assert script.seconds <= drain.LOOK_SECONDS


def test_where_nobody_listens_nothing_is_translated_anyway(host: FakeHost, table: Table) -> None:
    host.files[QUEUES] = BOUND.splitlines()[0]
    warned: list[str] = []
    drain.check(host, "fixer off", {}, False, warned.append)
    assert warned == [
        "nobody listens on queue 8: 2 normalised connections are not translated now, so nothing is lost with the rule"
    ]


def test_who_cannot_be_asked_may_be_listening(host: FakeHost, table: Table) -> None:
    """With CAP_NET_ADMIN alone the file cannot be read: rather ask for --force than cut off."""
    host.files[QUEUES] = NotPermitted("cannot be read")
    with pytest.raises(ConnectionsLive):
        drain.check(host, "fixer off", {}, False, unwanted)


def test_only_the_tables_of_daemons_that_live_count(host: FakeHost, table: Table) -> None:
    """One that was left by a daemon of another queue would never be counted down."""
    dead = Table(flowfile.path_of(host, 70))
    dead.write(1000)
    assert drain.look(host, unwanted).count == 2
    second = Table(flowfile.path_of(host, 8))
    assert drain.look(host, unwanted).count == 4, "of all daemons of this namespace"
    second.path.unlink()
    elsewhere = Table(table.path.with_name("1-7.flows"))
    elsewhere.write(1000)
    assert drain.look(host, unwanted).count == 2, "and of no other"


@pytest.mark.parametrize(
    "content", [b"", b"FIX", bytes(4096), b"FIXFLOWS" + struct.pack("=8s", b"\xff" * 8) + bytes(99)]
)
def test_a_foreign_file_is_warned_of_and_off_goes_on(host: FakeHost, table: Table, content: bytes) -> None:
    table.path.write_bytes(content)
    warned: list[str] = []
    drain.check(host, "fixer off", {}, False, warned.append)
    assert len(warned) == 1
    assert re.match(rf"{table.path} cannot be read, so connections in it are not counted: it is ", warned[0])
    script = Script()
    script.wait(host)
    assert script.warned == warned
    assert table.path.read_bytes() == content


# Draining


def test_a_drain_says_how_many_are_left_until_none_is(host: FakeHost, table: Table) -> None:
    seen: list[bool] = []
    script = Script(lambda: seen.append(table.draining), lambda: table.left(1), lambda: None, lambda: table.left(0))
    script.wait(host)
    assert seen == [True]
    assert script.said == [
        "draining: 2 normalised connections left, new ones are left alone",
        "draining: 1 normalised connection left, new ones are left alone",
        "drained: no normalised connection is left",
    ]
    assert (script.seconds, table.draining) == (5, True)


def test_a_handshake_that_was_under_way_is_waited_for(host: FakeHost, table: Table) -> None:
    table.write(0)
    script = Script(lambda: table.left(1), lambda: table.left(0))
    script.wait(host)
    assert script.said == [
        "draining: 1 normalised connection left, new ones are left alone",
        "drained: no normalised connection is left",
    ]


def test_a_drain_survives_a_service_that_is_restarted(host: FakeHost, table: Table) -> None:
    """Its `fixer on` ends the drain, which whoever waits for it does not mean."""
    seen: list[bool] = []
    restarted = [lambda: drain.end(host), lambda: seen.append(table.draining)]
    script = Script(*restarted, lambda: table.left(0))
    script.wait(host)
    assert seen == [True]


def test_a_timeout_is_a_refusal_and_draining_goes_on(host: FakeHost, table: Table) -> None:
    script = Script()
    with pytest.raises(ConnectionsLive, match=r"^2 normalised connections left after 5 s; the rules stay .*--force"):
        script.wait(host, timeout=5)
    assert (script.seconds, table.draining) == (5, True)


def test_an_interrupt_says_how_to_go_on(host: FakeHost, table: Table) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    script = Script(lambda: table.left(1), interrupt)
    with pytest.raises(KeyboardInterrupt):
        script.wait(host)
    assert script.said[-1] == (
        "1 normalised connection left; the rules stay and new connections are left alone. To go on waiting: "
        "fixer off --drain; to cut them off: fixer off --force; to normalise new ones again: fixer on"
    )
    assert table.draining


def test_a_dead_daemon_is_not_waited_for_for_ever(host: FakeHost, table: Table) -> None:
    host.files[QUEUES] = ""
    script = Script()
    with pytest.raises(ConnectionsLive, match=r"^nobody listens on queue 8, so none of the 2 .* start fixer run"):
        script.wait(host)
    assert script.seconds == drain.ABSENT_SECONDS
    assert script.said == [
        "draining: 2 normalised connections left, new ones are left alone; "
        "nobody listens on queue 8, so they stall: fixer run"
    ]


def test_a_daemon_that_is_started_again_is_waited_for(host: FakeHost, table: Table) -> None:
    def listens(text: str) -> Callable[[], None]:
        return lambda: host.files.__setitem__(QUEUES, text)

    away = [listens(""), *[lambda: None] * 8, listens(BOUND)]
    script = Script(*away, *away, lambda: table.left(0))
    script.wait(host)
    assert script.said[-1] == "drained: no normalised connection is left"
    assert script.seconds == 22


def test_rules_that_are_taken_away_meanwhile_end_a_drain(host: FakeHost, table: Table) -> None:
    """By another `fixer off --force`: nothing is translated any more, and nothing would ever change."""
    script = Script(lambda: host.answers.__setitem__("iptables-save", Completed(0, "", "")))
    script.wait(host)
    assert script.said[-1] == "the rule of queue 8 is gone: 2 normalised connections are not translated any more"
    assert script.seconds == drain.RULES_SECONDS
    asked = sum("-save" in line for line in host.ran)
    assert asked == 4, "two families, twice"


def test_rules_that_cannot_be_read_are_not_taken_for_gone(host: FakeHost, table: Table) -> None:
    refused = Completed(4, "", "Another app is currently holding the xtables lock")
    script = Script(lambda: host.answers.__setitem__("iptables-save", refused))
    with pytest.raises(SystemRefused, match="another program holds the xtables lock"):
        script.wait(host)
    with pytest.raises(SystemRefused):
        drain.check(host, "fixer off", {}, False, unwanted)
    table.write(0)
    drain.check(host, "fixer off", {}, False, unwanted)


def test_a_drain_is_ended_once(host: FakeHost, table: Table) -> None:
    assert not drain.end(host)
    drain.switch([table.path], True)
    table.path.with_name(f"{host.netns_inode()}-9.flows").write_bytes(b"foreign")
    assert drain.end(host)
    assert not table.draining
    assert not drain.end(host)
    drain.switch([Path("/nowhere/at/all.flows")], True)


@pytest.fixture
def unwritable(table: Table, monkeypatch: pytest.MonkeyPatch) -> Iterator[Table]:
    def refuse(path: Path, draining: bool) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(flowfile, "set_draining", refuse)
    return table


def test_a_table_that_cannot_be_written_is_an_error(host: FakeHost, unwritable: Table) -> None:
    with pytest.raises(SystemRefused, match="cannot be written, so draining is as it was: Permission denied"):
        Script().wait(host)
