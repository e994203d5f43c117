"""Clients behind one address, and a server that would refuse them for their clocks, as ``tcp_tw_recycle`` did.

First without ``fixer``: connections fail, and the gate counts them. Then with each mode, on both variants of the
kernel's test, from the moment on for which docs/timestamps.md promises it. The kernels at both ends are Linux's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

import pytest

from fixer.lab.service import Service
from fixer.node.host import Host

from . import gate, snat
from .gate import PAWS_MSL, Gate, Variant
from .snat import Kind, Site

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


def fixer(site: Site, mode: str, more: str = "") -> Service:
    settings = f'[timestamps]\nmode = "{mode}"\nsources = {site.sources}\n{more}'
    return Service(site.at, settings=settings, on=site.plain, run=site.plain)


@contextmanager
def _gate(site: Site, variant: Variant, clock: Callable[[], float] = time.time) -> Iterator[Gate]:
    with gate.standing(site.server, snat.PORT, Gate(variant, clock=clock)) as standing:
        yield standing


def _poison(site: Site, here: Gate, version: int = 4) -> None:
    """Let the server remember the clock that is ahead of the three others, by a real connection."""
    ahead = site.clients[1]  # of 0 and of the one before the wrap; the fourth is ahead of this one
    assert site.visit(ahead, version) == "served"
    give_up = time.monotonic() + 1
    while gate.address(site.source[version]) not in here.remembered:  # its FIN is still under way
        assert time.monotonic() < give_up
        time.sleep(0.01)


def _visits(site: Site, rounds: int = 3) -> dict[str, list[str]]:
    """What every client sees, and who saw it: over IPv4 and IPv6, in turns whose order favours nobody."""
    turns = [(client, version) for client in site.clients for version in (4, 6)] * rounds
    Random(4).shuffle(turns)
    seen: dict[str, list[str]] = {}
    for number, (client, version) in enumerate(turns):
        seen.setdefault(site.visit(client, version), []).append(f"{number}: client {client.number}, IPv{version}")
    return seen


def _all_served(seen: dict[str, list[str]]) -> None:
    served = len(seen.pop("served", []))
    assert (served > 0, seen) == (True, {})


@EVERY_VARIANT
def test_it_is_broken_without_fixer(site: Site, variant: Variant) -> None:
    with _gate(site, variant) as here:
        seen = _visits(site, rounds=1)
        assert set(seen) == {"served", "timed out"}
        assert here.passed == len(seen["served"])
        assert here.paws_passive >= len(seen["timed out"]) >= 2


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
        assert site.visit(site.clients[0]) == "timed out"
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
            assert site.visit(site.clients[1]) == "timed out"  # this one would have passed as it was
            clock.skipped += PAWS_MSL
            _all_served(_visits(site, rounds=1))
            assert untouched.put(1 << 20)
            time.sleep(0.1)
            assert site.visit(site.clients[0]) == "timed out"
            clock.skipped += PAWS_MSL
            refused = here.paws_passive
            _all_served(_visits(site))
            assert here.paws_passive == refused


def test_replies_leave_through_output(machine: Host) -> None:
    """What the server behind the bridge answers meets raw/OUTPUT of the host, encapsulated: one packet for one."""
    with snat.standing(Kind.VXLAN, machine) as site:
        count = ("-p", "udp", "--dport", "4789")
        assert site.at.run("iptables", "-t", "raw", "-A", "OUTPUT", *count).status == 0
        assert site.visit(site.clients[0]) == "served"
        listed = site.at.run("iptables", "-t", "raw", "-nvxL", "OUTPUT").out.splitlines()[-1]
    assert 4 <= int(listed.split()[0]) < 20, "SYN-ACK, data, FIN, and ACKs"
