"""Clocks behind one address: what is one, what is none, and what all of it costs at most."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import TCP
from support.packets import HOSTS, encapsulate, frame, ip, vxlan
from support.syns import Watched

from fixer.datapath.pipeline import Pipeline
from fixer.datapath.snat import Sight

SECOND = 1_000_000_000
EPOCH = 1_700_000_000
SOURCE, SERVER = ip_address("192.0.2.7").packed, ip_address("10.0.0.5").packed
USUAL = (100, 250, 300, 1000, 1_000_000)


class Client(NamedTuple):
    """A host's clock: ticks a second, TSval at second 0 (None: another one for each connection), and its error."""

    hz: float
    offset: int | None
    ppm: float = 0

    def tsval(self, seconds: float, draw: random.Random) -> int:
        offset = draw.getrandbits(32) if self.offset is None else self.offset
        return int(offset + self.hz * (1 + self.ppm / 1e6) * seconds) % 2**32


class Syn(NamedTuple):
    seconds: float
    tsval: int
    port: int
    sequence: int


def syns(clients: Iterable[Client], rate: float, seconds: float, seed: int = 1, jitter: float = 0.005) -> Iterator[Syn]:
    """SYNs of all clients together at `rate` a second; who is next is drawn, and so is how long each is on its way."""
    draw = random.Random(seed)
    clients = list(clients)
    now, sent = 0.0, []
    while now < seconds:
        now += draw.expovariate(rate)
        tsval = draw.choice(clients).tsval(now, draw)
        sent.append(Syn(now + draw.random() * jitter, tsval, draw.randrange(1024, 65536), draw.getrandbits(32)))
    return iter(sorted(sent))


def nanoseconds(seconds: float) -> int:
    return EPOCH * SECOND + int(seconds * SECOND)


def note(path: Watched, syn: Syn, source: bytes = SOURCE, destination: bytes = SERVER, vni: int | None = None) -> None:
    path.note(source, destination, vni, syn.port, syn.sequence, syn.tsval, nanoseconds(syn.seconds))


def seen(sent: Iterable[Syn]) -> Sight:
    """The one sight after these SYNs of one source."""
    path = Watched()
    for syn in sent:
        note(path, syn)
    (sight,) = path.sights(nanoseconds(syn.seconds))
    return sight


def ticks(sight: Sight) -> list[int]:
    return sorted(round(clock.hz) for clock in sight.clocks)


THREE = [Client(1000, 7_000_000, 100), Client(1000, 3_000_000_000, -100), Client(1000, 4_294_960_000, 30)]


@pytest.mark.parametrize("rate", [0.1, 1, 10, 100])
def test_three_clients_behind_one_address_are_three_clocks(rate: float) -> None:
    sight = seen(syns(THREE, rate, 60 + 60 / rate))
    assert ticks(sight) == [1000, 1000, 1000]
    assert sight.fits == sight.syns - 3
    assert sum(clock.syns for clock in sight.clocks) == sight.syns
    assert sight.chance < 0.05
    assert sight.refused > sight.syns / 5
    assert not sight.full


@pytest.mark.parametrize("rate", [0.1, 1, 10, 100])
@pytest.mark.parametrize("hz", [*USUAL, 128, 990, 1024, 10_000, 333_333])
def test_one_client_is_one_clock_whatever_its_tick(hz: int, rate: float) -> None:
    sight = seen(syns([Client(hz, 4_294_967_000, 100)], rate, 60 + 60 / rate, jitter=0.001))
    (found,) = ticks(sight)
    assert found == pytest.approx(hz, rel=0.05)
    assert sight.fits >= sight.syns - 16
    assert sight.refused <= sight.syns / 20, "two that overtake each other"


def test_clocks_of_any_ticks_are_told_apart() -> None:
    sight = seen(syns([Client(hz, 900_000_000 * number) for number, hz in enumerate((100, 250, 1000, 1e6))], 1, 120))
    assert ticks(sight) == [100, 250, 1000, 1_000_000]


@settings(max_examples=60, deadline=None)
@given(
    hosts=st.lists(
        st.tuples(st.sampled_from([100, 200, 250, 300, 500, 1000]), st.integers(0, 2**27), st.floats(-100, 100)),
        min_size=1,
        max_size=8,
    ),
    first=st.integers(0, 2**32 - 1),
    rate=st.sampled_from([0.2, 2, 20]),
    seed=st.integers(0, 1000),
)
def test_as_many_clocks_as_clients(hosts: list[tuple[int, int, float]], first: int, rate: float, seed: int) -> None:
    """Wherever their clocks are, as long as they are hours apart."""
    clients = [Client(hz, first + number * 2**28 + more, ppm) for number, (hz, more, ppm) in enumerate(hosts)]
    sight = seen(syns(clients, rate, 20 * len(clients) / rate + 5, seed))
    assert ticks(sight) == sorted(round(client.hz) for client in clients)


def test_a_wrap_ends_no_line() -> None:
    """The TSvals of both go through 2^32 in the minute that is seen, at 1 kHz and at 1 MHz."""
    for hz, before in ((1000, 30_000), (1_000_000, 30_000_000)):
        sight = seen(syns([Client(hz, 2**32 - before)], 1, 60))
        assert [clock.syns for clock in sight.clocks] == [sight.syns]
        assert sight.refused == 0


@pytest.mark.parametrize("rate", [0.1, 1, 10, 100])
def test_offsets_drawn_for_each_connection_are_no_clocks(rate: float) -> None:
    sight = seen(syns([Client(1000, None)], rate, max(60, 300 / rate)))
    assert not sight.clocks
    assert sight.fits <= sight.chance + 5 * sight.chance**0.5 + 1
    assert 0.2 < sight.refused / sight.syns < 0.8


@pytest.mark.parametrize(("apart", "sources"), [(0.0012, 1), (0.1, 20), (2, 1000)])
def test_chance_is_counted_as_it_is(apart: float, sources: int) -> None:
    """Random TSvals for ten minutes: as many on lines as were expected, to five standard deviations."""
    draw, path = random.Random(5), Watched()
    each = int(599 / apart)
    begun = time.process_time()
    for number in range(each):
        when = nanoseconds(number * apart)
        for source in range(sources):
            path.note(source.to_bytes(4), SERVER, None, number & 0xFFFF, number, draw.getrandbits(32), when)
    assert time.process_time() - begun < 30
    sights = path.sights(nanoseconds(599))
    assert {sight.syns for sight in sights} == {each}
    chance = sum(sight.chance for sight in sights)
    assert chance > 25
    assert abs(sum(sight.fits for sight in sights) - chance) < 5 * chance**0.5


def test_a_retransmitted_syn_is_no_second_one() -> None:
    """Each connection is tried at 0, 1, 3, 7, 15, 31 and 63 s with the time of each try, as Linux does it."""
    draw = random.Random(2)
    clients = [Client(1000, draw.getrandbits(32)) for _ in range(8)]
    tries = [
        Syn(after, client.tsval(after, draw), 40_000 + number, number)
        for number, client in enumerate(clients)
        for after in (0, 1, 3, 7, 15, 31, 63)
    ]
    sight = seen(sorted(tries))
    assert sight.syns == 8
    assert sight.fits == 0
    assert not sight.clocks
    another = [Syn(80 + number, client.tsval(80 + number, draw), 50_000, 99) for number, client in enumerate(clients)]
    assert len(seen([*sorted(tries), *another[:3]]).clocks) == 1, "the same port and sequence number again"
    another = [syn._replace(port=syn.port + number) for number, syn in enumerate(another)]
    assert len(seen([*sorted(tries), *another]).clocks) == 8


def test_two_syns_too_close_to_each_other_are_no_clock_yet() -> None:
    client, draw = Client(1000, 5_000), random.Random(1)
    near = [Syn(at, client.tsval(at, draw), number, number) for number, at in enumerate((0, 0.01, 0.02, 0.8, 1.0))]
    assert [len(seen(near[:number]).clocks) for number in (2, 3, 4, 5)] == [0, 0, 0, 1]


def test_the_wider_a_tick_s_window_the_more_syns_make_a_clock() -> None:
    draw = random.Random(1)
    for hz, needed in ((1000, 2), (1_000_000, 3), (10_000, 3), (333_333, 4)):
        client = Client(hz, 5_000)
        sent = [Syn(at, client.tsval(at, draw), at, at) for at in range(1, 9, 2)]
        assert [len(seen(sent[:number]).clocks) for number in (2, 3, 4)] == [needed <= n for n in (2, 3, 4)], hz


def test_a_syn_that_was_held_up_is_no_clock_beside_its_own() -> None:
    for seed in range(60):
        for late, rate in ((0.05, 10), (0.2, 1), (0.2, 10)):
            sight = seen(syns([Client(1000, 1_234_567)], rate, 300 / rate, seed, jitter=late))
            assert len(sight.clocks) == 1


@settings(max_examples=100, deadline=None)
@given(hz=st.integers(100, 1_000_000), rate=st.sampled_from([0.5, 5, 50]), seed=st.integers(0, 10**6))
@example(hz=100, rate=50, seed=100)
def test_jitter_of_seconds_makes_no_nonsense(hz: int, rate: float, seed: int) -> None:
    """Clocks that are none may be seen then, but none that runs backwards and none less likely than impossible."""
    sight = seen(syns([Client(hz, 4_294_000_000)], rate, 500 / rate, seed, jitter=2))
    assert 0 <= sight.chance <= sight.syns
    assert all(100 <= clock.hz <= 1_000_000 for clock in sight.clocks)


def test_more_clients_than_there_is_room_for() -> None:
    draw = random.Random(4)
    sight = seen(syns([Client(1000, draw.getrandbits(32)) for _ in range(60)], 10, 300))
    assert len(sight.clocks) >= 12
    assert sight.full == (len(sight.clocks) >= 15)
    fits = seen(syns([Client(1000, number << 28) for number in range(13)], 10, 300))
    assert (len(fits.clocks), fits.full) == (13, False)


def refused_by_tw_recycle(sent: Iterable[Syn]) -> int:
    """What the kernel does (tcp_peer_is_proven, tcp_remember_stamp), plainly, for connections that close at once."""
    refused, remembered, stamped = 0, 0, None
    for syn in sent:
        ahead = (remembered - syn.tsval + 2**31) % 2**32 - 2**31
        fresh = stamped is not None and syn.seconds - stamped < 60
        if fresh and ahead > 1:
            refused += 1
        elif not fresh or ahead <= 0:
            remembered, stamped = syn.tsval, syn.seconds
    return refused


@settings(max_examples=300, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from([0.0, 1, 29.5, 59.75, 60.25]),
            st.sampled_from([-2, -1, -1, 0, 1, 1000]) | st.integers(0, 2**32 - 1),
        ),
        min_size=2,
        max_size=12,
    )
)
def test_the_refused_are_those_a_server_would_refuse(steps: list[tuple[float, int]]) -> None:
    now, value, sent = 0.0, 1, []
    for number, (passed, moved) in enumerate(steps):
        now, value = now + passed, (value + moved) % 2**32
        sent.append(Syn(now, value, number, number))
    assert seen(sent).refused == refused_by_tw_recycle(sent)


def test_each_destination_is_a_server_of_its_own() -> None:
    """Linux may draw the offset for each pair of addresses: one host, one clock towards each of three servers."""
    path, draw = Watched(), random.Random(3)
    servers = [ip_address(f"10.0.0.{number}").packed for number in (5, 6, 7)]
    host = {server: Client(1000, draw.getrandbits(32)) for server in servers}
    for at in range(60):
        server = servers[at % 3]
        note(path, Syn(at, host[server].tsval(at, draw), 1000 + at, at), destination=server)
    assert [len(sight.clocks) for sight in path.sights(nanoseconds(60))] == [1, 1, 1]
    assert {sight.destination for sight in path.sights(nanoseconds(60))} == {"10.0.0.5", "10.0.0.6", "10.0.0.7"}


def test_a_source_is_known_by_address_and_vni() -> None:
    path = Watched()
    six, other = ip_address("2001:db8::7").packed, ip_address("2001:db8::5").packed
    for number in range(2):
        syn = Syn(number, number * 1000, number, number)
        note(path, syn)
        note(path, syn, vni=7)
        note(path, syn, vni=0)
        note(path, syn, six, other, vni=0xFFFFFF)
    assert {(sight.version, sight.source, sight.destination, sight.vni) for sight in path.sights(nanoseconds(2))} == {
        (4, "192.0.2.7", "10.0.0.5", None),
        (4, "192.0.2.7", "10.0.0.5", 7),
        (4, "192.0.2.7", "10.0.0.5", 0),
        (6, "2001:db8::7", "2001:db8::5", 0xFFFFFF),
    }
    assert all(sight.syns == 2 for sight in path.sights(nanoseconds(2)))


def test_what_is_old_is_forgotten() -> None:
    path = Watched()
    for syn in syns(THREE, 1, 60):
        note(path, syn)
    assert path.sights(nanoseconds(600))
    assert not path.sights(nanoseconds(670))
    note(path, Syn(700, 1, 1, 1))
    note(path, Syn(701, 1, 2, 2))
    (sight,) = path.sights(nanoseconds(701))
    assert (sight.syns, len(sight.clocks)) == (2, 0)


def test_a_clock_that_is_gone_is_forgotten_while_another_goes_on() -> None:
    path = Watched()
    for syn in syns(THREE, 1, 60):
        note(path, syn)
    for at in range(60, 1500, 10):
        note(path, Syn(at, 3_000_000_000 + 1000 * at, at, at))
        if at == 300:
            assert len(path.sights(nanoseconds(at))[0].clocks) == 3
    (sight,) = path.sights(nanoseconds(1500))
    assert len(sight.clocks) == 1
    assert sight.syns <= 120, "counts are of the last 10 to 20 minutes"
    for at, clocks in ((1501, 1), (1502, 2)):
        note(path, Syn(at, 7_000_000 + 1000 * at, at, at))
        assert len(path.sights(nanoseconds(at))[0].clocks) == clocks, "when it comes back it is new"


@pytest.mark.parametrize("hz", [1000, 4000, 1_000_000])
def test_a_clock_that_goes_on_stays_one_clock(hz: int) -> None:
    """For three hours, in which the TSvals of 1 MHz wrap twice."""
    client, path, draw = Client(hz, 4_000_000_000, 100), Watched(), random.Random(1)
    for at in range(0, 3 * 3600, 9):
        note(path, Syn(at, client.tsval(at, draw), at, at))
        (sight,) = path.sights(nanoseconds(at)) or (None,)
        assert sight is None or len(sight.clocks) <= 1
    assert sight is not None
    assert sight.clocks[0].syns == 3 * 3600 / 9


def test_our_own_clock_set_back_or_forth_breaks_nothing() -> None:
    path = Watched()
    for step in (0, -3600, 7200, -1e9):
        for syn in syns(THREE, 1, 60):
            note(path, syn._replace(seconds=syn.seconds + step))
        (sight,) = path.sights(nanoseconds(60 + step))
        assert len(sight.clocks) == 3


def test_a_flood_of_spoofed_sources_takes_no_known_source_s_place() -> None:
    path, draw = Watched(), random.Random(6)
    for syn in syns(THREE, 1, 60):
        note(path, syn)
    begun = time.process_time()
    for number in range(200_000):
        source = draw.getrandbits(32).to_bytes(4)
        path.note(source, SERVER, None, number & 0xFFFF, number, draw.getrandbits(32), nanoseconds(60 + number * 5e-4))
    assert time.process_time() - begun < 30
    sights = {sight.source: sight for sight in path.sights(nanoseconds(160))}
    assert len(sights["192.0.2.7"].clocks) == 3
    assert len(sights) <= 1024


def test_sources_with_clocks_give_way_to_newer_ones_at_last() -> None:
    path, draw = Watched(), random.Random(8)
    client = Client(1000, 77)
    for number in range(4000):
        for at in (number / 10, number / 10 + 2):
            note(path, Syn(at, client.tsval(at, draw), number, int(at * 10)), source=number.to_bytes(4))
    sights = path.sights(nanoseconds(402))
    assert 900 < len(sights) <= 1024
    assert all(int(ip_address(sight.source)) > 1500 for sight in sights)


def test_the_pipeline_notes_the_syns_that_pass() -> None:
    """Inner SYNs with timestamps; neither SYN-ACKs, nor SYNs without, nor corrupt ones that are dropped."""
    pipeline = Pipeline(ports=[4789])
    for number, (flags, stamped) in enumerate((("S", True), ("S", True), ("SA", True), ("S", False), ("A", True))):
        options = [("Timestamp", (5000 + 1000 * number, 0))] if stamped else []
        tcp = TCP(sport=1000 + number, dport=80, seq=number, flags=flags, options=options)
        whole = vxlan(frame(bytes(ip(4) / tcp)), 7)
        pipeline.examine(bytearray(encapsulate(whole, "GOOD")), when_ns=nanoseconds(number))
        damaged = whole[:-1] + bytes([whole[-1] ^ 1])
        pipeline.examine(bytearray(encapsulate(damaged, "GOOD")), when_ns=nanoseconds(number))
    (sight,) = pipeline.snat_sights(nanoseconds(5))
    assert (sight.source, sight.destination, sight.vni) == (*HOSTS[4], 7)
    assert (sight.syns, sight.fits, [clock.hz for clock in sight.clocks]) == (2, 1, [1000])
