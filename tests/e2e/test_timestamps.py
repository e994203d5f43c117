"""Clients behind one address, and a server that would refuse them for their clocks, as ``tcp_tw_recycle`` did.

First without ``fixer``: connections fail, and the gate counts them. Then with each mode, on both variants of the
kernel's test, from the moment on for which docs/timestamps.md promises it. The kernels at both ends are Linux's own.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fixer.errors import ConnectionsLive
from fixer.host.machine import Host
from fixer.lab.net import Layout, Pump, meanwhile
from fixer.lab.service import Service
from fixer.state import flowfile

from . import gate, snat
from .gate import PAWS_MSL, Gate, Variant
from .snat import Conversation, Kind, Site, Socket

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("tcx")]

EVERY_KIND = pytest.mark.parametrize("kind", Kind)
EVERY_VARIANT = pytest.mark.parametrize("variant", Variant)


class Clock:
    """The gate's: the machine's, and what a test has skipped."""

    def __init__(self) -> None:
        self.skipped = 0

    def __call__(self) -> float:
        return time.time() + self.skipped


@pytest.fixture(scope="module", params=Kind)
def site(request: pytest.FixtureRequest, machine: Host) -> Iterator[Site]:
    """A site of each kind. What its server remembers is the gate's, and each test brings its own."""
    with snat.standing(request.param, machine) as standing:
        yield standing


@contextmanager
def fixer(site: Site, mode: str, more: str = "") -> Iterator[Service]:
    """``fixer`` with timestamps' ``mode``, and with nothing that another one has left."""
    settings = f'[timestamps]\nmode = "{mode}"\nsources = {site.sources}\n{more}'
    table = _table(site)
    table.unlink(missing_ok=True)
    try:
        with Service(site.at, settings=settings, on=site.plain, run=site.plain) as service:
            yield service
    finally:
        table.unlink(missing_ok=True)


def _table(site: Site) -> Path:
    return site.at.call(flowfile.path_of, site.at.host, 0)


def _live(site: Site) -> flowfile.Live:
    found = flowfile.look(_table(site))
    assert found is not None
    return found


def _refusals(site: Site) -> list[dict[str, int]]:
    """What both sides' kernels have refused for its timestamps, each host for itself."""
    return [snat.refusals(here) for here in (site.server, *site.clients)]


@contextmanager
def _gate(site: Site, variant: Variant, clock: Callable[[], float] = time.time) -> Iterator[Gate]:
    with gate.standing(site.server, snat.PORT, Gate(variant, clock=clock)) as standing:
        yield standing


def _poison(site: Site, here: Gate, version: int = 4) -> None:
    """Let the server remember the clock that is ahead of the three others, by a real connection."""
    ahead = site.clients[1]  # of 0 and of the one before the wrap; the fourth is ahead of this one
    assert site.visit(ahead, version) == "served"
    _eventually(lambda: gate.address(site.source[version]) in here.remembered)  # its FIN is still under way


def _visits(site: Site, rounds: int = 3, seconds: float = snat.CONNECT_SECONDS) -> dict[str, list[str]]:
    """What every client sees, and who saw it: over IPv4 and IPv6, in turns whose order favours nobody."""
    turns = [(client, version) for client in site.clients for version in (4, 6)] * rounds
    Random(4).shuffle(turns)
    seen: dict[str, list[str]] = {}
    for number, (client, version) in enumerate(turns):
        seen.setdefault(site.visit(client, version, seconds), []).append(
            f"{number}: client {client.number}, IPv{version}"
        )
    return seen


def _all_served(seen: dict[str, list[str]]) -> None:
    served = len(seen.pop("served", []))
    assert (served > 0, seen) == (True, {})


@pytest.fixture(scope="module")
def poisoned(machine: Host) -> Iterator[dict[str, tuple[Site, Gate]]]:
    """For each mode a site whose server, of the stricter kind, had remembered a clock before ``fixer`` came."""
    with ExitStack() as standing:
        found = {}
        for mode in ("strip", "normalise"):
            site = standing.enter_context(snat.standing(Kind.VXLAN, machine))
            here = standing.enter_context(_gate(site, Variant.SINCE))
            _poison(site, here)
            standing.enter_context(fixer(site, mode))
            found[mode] = site, here
        yield found


def test_what_was_remembered_before_is_refused_at_first(poisoned: dict[str, tuple[Site, Gate]]) -> None:
    for site, here in poisoned.values():
        assert site.visit(site.clients[0], seconds=snat.ONE_SYN_SECONDS) == "timed out"
        assert here.paws_passive == 1


@EVERY_VARIANT
def test_it_is_broken_without_fixer(site: Site, variant: Variant) -> None:
    with _gate(site, variant) as here:
        seen = _visits(site, rounds=1, seconds=snat.ONE_SYN_SECONDS)
        assert set(seen) == {"served", "timed out"}
        assert here.passed >= len(seen["served"])  # or it was served when its client had given up
        assert len(seen["timed out"]) >= 2
        assert here.paws_passive >= 2


def test_clients_have_the_clocks_that_they_are_to_have(site: Site) -> None:
    for client in site.clients:
        for version in (4, 6):
            with _gate(site, Variant.BEFORE) as here:
                _poison_by = site.visit(client, version)
                time.sleep(0.1)
            assert _poison_by == "served"
            shown = here.remembered[gate.address(site.source[version])].value
            # The module's site is some seconds old, or a minute.
            assert 0 <= gate.ahead(shown, client.clock) < 600_000


def test_strip_where_a_syn_without_a_timestamp_passes(site: Site) -> None:
    with _gate(site, Variant.BEFORE) as here, site.connected(site.clients[3]) as untouched:
        _poison(site, here)
        assert site.visit(site.clients[0], seconds=snat.TWO_SYN_SECONDS) == "timed out"
        with fixer(site, "strip") as service:
            refused = here.paws_passive
            with site.connected(site.clients[0]) as stripped:
                assert (untouched.seen().timestamps, stripped.seen().timestamps) == (True, False)
                at_the_server = site.sockets()
                assert sorted(socket.timestamps for socket in at_the_server.values()) == [False, True]
                assert stripped.put(1 << 20)
            _all_served(_visits(site))
            assert untouched.put(1 << 20)  # and the server remembers once more
            _all_served(_visits(site))
            assert here.paws_passive == refused
        assert service.counters["timestamps"]["stripped"] > 0


def test_strip_where_a_syn_without_a_timestamp_is_refused(site: Site) -> None:
    """From the moment on at which what timestamped connections left behind no longer counts."""
    clock = Clock()
    with _gate(site, Variant.SINCE, clock) as here, site.connected(site.clients[3]) as untouched:
        _poison(site, here)
        with fixer(site, "strip"):
            as_it_was_it_would_have_passed = site.visit(site.clients[1], seconds=snat.TWO_SYN_SECONDS)
            assert as_it_was_it_would_have_passed == "timed out"
            clock.skipped += PAWS_MSL
            _all_served(_visits(site, rounds=1))
            assert untouched.put(1 << 20)
            time.sleep(0.1)
            assert site.visit(site.clients[0], seconds=snat.TWO_SYN_SECONDS) == "timed out"
            clock.skipped += PAWS_MSL
            refused = here.paws_passive
            _all_served(_visits(site))
            assert here.paws_passive == refused


@contextmanager
def _shifted(site: Site, beside: int = 0) -> Iterator[Conversation]:
    """A normalised connection whose delta is not 0: its client is behind one that has just been there.

    ``beside``: how many there are already. (To count them would count those whose last ACK is still under way.)
    """
    assert site.visit(site.clients[1]) == "served"
    _eventually(lambda: _live(site).normalised == beside)
    with site.connected(site.clients[4]) as conversation:
        _eventually(lambda: _live(site).normalised == beside + 1)
        yield conversation


def _is_sane(seen: Socket) -> bool:
    """Whether timestamps are in use, and no round trip (ms) is one to another client's clock: ten minutes, or days."""
    return seen.timestamps and all(rtt is None or rtt < 60_000 for rtt in (seen.rtt, seen.rcv_rtt))


@EVERY_VARIANT
def test_normalise_serves_everybody(site: Site, variant: Variant) -> None:
    before = _refusals(site)
    with _gate(site, variant) as here, site.connected(site.clients[3]) as untouched:
        with fixer(site, "normalise") as service:
            _all_served(_visits(site))
            with _shifted(site) as normalised:
                assert untouched.seen().timestamps
                assert normalised.seen().timestamps
                assert [socket.timestamps for socket in site.sockets().values()] == [True, True]
                assert normalised.put(1 << 20)
            assert untouched.put(1 << 20)  # its clock becomes the source's, and is what the server remembers
            _all_served(_visits(site))
        assert here.paws_passive == 0
    assert service.counters["timestamps"]["translated"] > 0
    assert service.counters["replies"]["translated"] > 0
    assert service.counters["timestamps"]["stripped"] == 0
    assert _refusals(site) == before


@pytest.mark.parametrize("total", [1 << 27, pytest.param(1 << 30, marks=pytest.mark.long)])
def test_two_hundred_connections(site: Site, total: int) -> None:
    """Half of it each way, five at a time; the clock of one client wraps meanwhile (its fixture is young, or not)."""
    size = total // 200
    before = _refusals(site)
    seen: list[Socket] = []

    def transfer(number: int) -> bool:
        with site.connected(site.clients[number % len(site.clients)], version=4 + number // 5 % 2 * 2) as conversation:
            way = conversation.put if number % 2 else conversation.get
            seen.append(conversation.seen())
            return way(size)

    with _gate(site, Variant.SINCE) as here, fixer(site, "normalise") as service:
        # Until a reply of the source was seen no connection is shifted, and clocks like these must not meet unshifted.
        assert [site.visit(site.clients[0], version) for version in (4, 6)] == ["served"] * 2
        with ThreadPoolExecutor(5) as together, _watched(site, seen):
            arrived = list(together.map(transfer, range(200)))
        assert arrived == [True] * 200
        assert (here.passed, here.paws_passive) == (202, 0)
    assert len(seen) > 200, "each once, and whoever was open when somebody looked"
    assert [socket.text for socket in seen if not _is_sane(socket)] == []
    assert service.counters["timestamps"]["translated"] > total // 10_000
    assert _refusals(site) == before


def test_client_is_sent_what_it_sent(site: Site) -> None:
    """To the tick: Linux does not look at an echo from its own future, and takes one from the past for a slow path."""
    with fixer(site, "normalise") as service, snat.overheard(site, site.clients[4]) as echoes:
        for version in (4, 6):
            for way in (Conversation.get, Conversation.put):
                assert site.visit(site.clients[1], version) == "served"
                with site.connected(site.clients[4], version) as conversation:
                    assert way(conversation, 1 << 20)
    assert echoes.wrong == []
    assert echoes.right > 100
    assert service.counters["replies"]["translated"] > 50


@contextmanager
def _watched(site: Site, seen: list[Socket]) -> Iterator[None]:
    """Look at all connections again and again, at both ends, while the context lasts."""

    def watch(ended: threading.Event) -> None:
        while not ended.wait(0.2):
            seen.extend(site.sockets().values())
            for client in site.clients:
                seen.extend(client.sockets().values())

    with meanwhile(watch):
        yield


def test_killed_in_the_middle(site: Site) -> None:
    """What is under way stalls, for the server takes it for old, and goes on with the next daemon."""
    size = 100 << 20
    with fixer(site, "normalise") as service, _shifted(site) as up, _shifted(site, 1) as down:
        before = snat.refusals(site.server)
        with ThreadPoolExecutor(2) as together:
            sent, got = together.submit(up.put, size, pause=0.01), together.submit(down.get, size)
            time.sleep(0.5)
            service.kill()
            time.sleep(1)
            assert (sent.done(), got.done()) == (False, False)
            assert _live(site).normalised == 2
            stalled = snat.refusals(site.server)
            service.start_again()
            assert (sent.result(), got.result()) == (True, True)
        assert sum(stalled.values()) > sum(before.values()), "the gap is to be felt, or nothing is shown"
        assert site.visit(site.clients[0]) == "served"


def test_drain(site: Site) -> None:
    with fixer(site, "normalise") as service, _shifted(site) as normalised:
        refused = service.ask("off")
        assert (refused.status, "1 normalised connection" in refused.err) == (ConnectionsLive.exit_code, True)
        with ThreadPoolExecutor(1) as together:
            drained = together.submit(service.ask, "off", "--drain")
            _eventually(lambda: _live(site).draining)
            with site.connected(site.clients[4]) as left_alone:
                assert _live(site).normalised == 1
                assert left_alone.put(1 << 20)
            assert not drained.done()
            assert normalised.put(1 << 20)
            done = drained.result()
        assert (done.status, done.err) == (0, "")
        assert "FIXER" not in site.at.run("iptables-save").out
        assert site.visit(site.clients[0]) == "served"


@pytest.mark.parametrize("when_full", ["pass", "strip"])
def test_full_table(site: Site, when_full: str) -> None:
    capacity = 1024
    settings = f'flows = {capacity}\nwhen_full = "{when_full}"\n'
    with ExitStack() as standing:
        service = standing.enter_context(fixer(site, "normalise", settings))
        normalised = standing.enter_context(_shifted(site))
        standing.enter_context(site.crowd(site.clients[1], capacity))
        assert _live(site).used == capacity
        with site.connected(site.clients[4]) as late:
            assert late.seen().timestamps is (when_full == "pass")
            assert _live(site).normalised == 1
            assert late.put(1 << 20)
        assert normalised.put(1 << 20)
    outcome = "full" if when_full == "pass" else "stripped"
    assert service.counters["timestamps"][outcome] > 0


@pytest.mark.parametrize("count", [150_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_flood_of_syns(site: Site, count: int) -> None:
    """What is established goes on during the flood and after it; and after it new connections are normalised."""
    with _gate(site, Variant.SINCE) as here, fixer(site, "normalise") as service, ExitStack() as open_ones:
        established = [open_ones.enter_context(_shifted(site, number)) for number in range(10)]
        during = open_ones.enter_context(_shifted(site, len(established)))
        with ThreadPoolExecutor(1) as together:
            sent = together.submit(during.put, 50 << 20, pause=0.05)
            assert site.flood(count, site.clients[4].clock) > 0.99 * count
            assert sent.result()
        left = _live(site), service.ask("status", "--json").out  # before the rest makes it hard to tell what was wrong
        assert left[0].normalised >= len(established), left
        assert [conversation.put(1 << 20) for conversation in established] == [True] * len(established)
        _all_served(_visits(site))
        assert here.paws_passive == 0
    # What did not fit the queue has passed unseen; the table is to have felt the rest.
    assert service.counters["flows"]["evicted"] > count // 10


def _eventually(true: Callable[[], bool], seconds: float = 30.0) -> None:
    give_up = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.02)


@pytest.mark.parametrize("mode", ["strip", "normalise"])
@pytest.mark.parametrize("outer_checksum", [False, True], ids=["outer-off", "outer-on"])
def test_over_a_wire_that_finishes_no_checksum(machine: Host, mode: str, outer_checksum: bool) -> None:
    """What is unfinished is finished and its timestamps are changed, in one packet; the kernel is the judge of both."""
    with ExitStack() as standing:
        layout = Layout(outer_checksum=outer_checksum)
        site = standing.enter_context(snat.standing(Kind.VXLAN, machine, layout=layout, wire=Pump()))
        assert site.visit(site.clients[0], seconds=snat.TWO_SYN_SECONDS) == "timed out"
        standing.enter_context(Service(site.router))
        here = standing.enter_context(_gate(site, Variant.SINCE))
        service = standing.enter_context(fixer(site, mode))
        for end in (site.router, site.server):
            end.configure("neighbour flush all")  # an attempt under way asks again only after a second
        _all_served(_visits(site, rounds=1))
        assert here.paws_passive == 0
        for client in site.clients[:2]:
            with site.connected(client) as up, site.connected(client, version=6) as down:
                assert up.seen().timestamps is (mode == "normalise")
                assert up.put(2 << 20)
                assert down.get(2 << 20)
    assert service.counters["action"]["repair"] > 1000


def test_normalise_orders_clocks_all_around_the_circle(machine: Host) -> None:
    """Of these three clocks each is ahead of the next, so that "the highest of all" says nothing.

    Two clients that are ahead move the source's clock, one after the other, farther than half the circle from what the
    server remembers, which learns of a clock only when a connection closes (and the server first).
    """
    with ExitStack() as standing:
        site = standing.enter_context(snat.standing(Kind.VXLAN, machine, clocks=(0, 0x30000000, 0x90000000)))
        standing.enter_context(_gate(site, Variant.BEFORE))
        standing.enter_context(fixer(site, "normalise"))
        assert site.visit(site.clients[0]) == "served"  # and remembered
        with site.connected(site.clients[1]):  # and not remembered yet
            assert site.visit(site.clients[2]) == "served"


@pytest.mark.parametrize("at_once", [1, 16])
def test_normalise_serves_clients_that_draw_an_offset_for_each_connection(machine: Host, at_once: int) -> None:
    """As Linux 6.18 does: the timestamps of 400 connections are random, and many of them are open at once."""
    with ExitStack() as standing:
        site = standing.enter_context(snat.standing(Kind.VXLAN, machine))
        for client in site.clients:
            assert client.run("sysctl", "-qw", "net.ipv4.tcp_timestamps=1").status == 0
        here = standing.enter_context(_gate(site, Variant.SINCE))
        standing.enter_context(fixer(site, "normalise"))
        assert site.visit(site.clients[0]) == "served"  # whose replies show the way back
        with ThreadPoolExecutor(at_once) as pool:
            turns = [site.clients[number % len(site.clients)] for number in range(400)]
            seen = Counter(pool.map(site.visit, turns))
        # Where a SYN is under way while another connection moves the clock, it is refused, and served when it comes
        # again, unless the clock is ahead again by then (docs/timestamps.md).
        assert seen["served"] >= (400 if at_once == 1 else 398), seen
        assert seen.total() == 400
        assert here.paws_passive <= (0 if at_once == 1 else 40)


def test_many_clocks_behind_one_address_are_seen(machine: Host) -> None:
    """Without any mode: from the SYNs that pass. (Whoever reads them looks every ten seconds.)"""
    with snat.standing(Kind.VXLAN, machine) as site, Service(site.at) as service:

        def suspects() -> list[dict[str, Any]]:
            return [event for event in service.events() if "snat" in event["fixer"]]

        give_up = time.monotonic() + 25
        while not suspects():
            assert time.monotonic() < give_up
            for client in site.clients:
                assert site.visit(client) == "served"
            time.sleep(0.3)
        [found] = [event for event in suspects() if event["source"]["ip"] == site.source[4]]
    assert found["fixer"]["snat"]["suspect"] == "several-clocks"
    assert 2 <= found["fixer"]["snat"]["clocks"] <= len(site.clients)
    assert found["fixer"]["snat"]["refused_share"] > 0.1
    assert found["fixer"]["vni"] == Layout().vni


def test_after_sixty_seconds_everybody_is_served(poisoned: dict[str, tuple[Site, Gate]]) -> None:
    """In real time: the wait is what is left of it when all of the above is done."""
    for mode, (site, here) in poisoned.items():
        stamp = here.remembered[gate.address(site.source[4])]
        time.sleep(max(0, stamp.second + PAWS_MSL - time.time()))
        refused = here.paws_passive
        _all_served(_visits(site))
        assert here.paws_passive == refused
        with site.connected(site.clients[0]) as open_one:
            assert open_one.seen().timestamps is (mode == "normalise")


def test_replies_leave_through_output(machine: Host) -> None:
    """What the server behind the bridge answers meets raw/OUTPUT of the host, encapsulated: one packet for one."""
    with snat.standing(Kind.VXLAN, machine) as site:
        count = ("-p", "udp", "--dport", "4789")
        assert site.at.run("iptables", "-t", "raw", "-A", "OUTPUT", *count).status == 0
        assert site.visit(site.clients[0]) == "served"
        listed = site.at.run("iptables", "-t", "raw", "-nvxL", "OUTPUT").out.splitlines()[-1]
    assert 4 <= int(listed.split()[0]) < 20, "SYN-ACK, data, FIN, and ACKs"
