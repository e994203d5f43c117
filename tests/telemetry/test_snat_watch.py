"""Who is behind one address: what is told of what was seen, in which words, and how often."""

from __future__ import annotations

import random
from ipaddress import ip_address

import pytest
from support import shared
from support.syns import Watched

from fixer.datapath.snat import Clock, Sight
from fixer.findings.finding import Finding, Role, Verdict
from fixer.now import Now
from fixer.telemetry.snat import LOOK_SECONDS, SnatWatch, at_once, judge

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND


def clock(first: float, last: float, hz: float = 1000) -> Clock:
    """From and until so many seconds after NOW, with a SYN a second."""
    return Clock(hz, int(last - first) + 1, NOW + int(first * SECOND), NOW + int(last * SECOND))


THREE = (clock(0, 60), clock(1, 59), clock(5, 50, 250))


def a_sight(
    *clocks: Clock, fits: int = 0, syns: int = 20, chance: float = 0.0, source: str = "192.0.2.7", **fields: object
) -> Sight:
    defaults = {"version": 4, "destination": "10.0.0.5", "vni": 7, "refused": syns // 4, "full": False}
    return Sight(
        **defaults | {"source": source, "syns": syns, "fits": fits, "chance": chance, "clocks": clocks} | fields
    )


class FakePipeline:
    """Shows the sights it is given."""

    def __init__(self, *sights: Sight) -> None:
        self.sights = list(sights)
        self.looked = 0

    def snat_sights(self, now_ns: int) -> list[Sight]:
        self.looked += 1
        return self.sights


def told(watch: SnatWatch, later: float = 0, wall_ns: int = NOW) -> list[Finding]:
    """What is found so many seconds after NOW; ``wall_ns``: what the wall clock showed at NOW."""
    return watch.findings(Now(1000 + later, wall_ns + int(later * SECOND)))


SEVERAL = a_sight(*THREE, fits=57, syns=60)
AT_RANDOM = a_sight(fits=1, syns=50, chance=0.2, source="192.0.2.9")


@pytest.mark.parametrize(
    ("sight", "several", "clocks"),
    [
        (SEVERAL, True, 3),
        (a_sight(*THREE[:2], fits=2, syns=4), True, 2),
        (AT_RANDOM, False, 0),
        (a_sight(fits=7, syns=16), False, 0),
        (a_sight(clock(0, 60), fits=60, syns=160), False, 1),
        (a_sight(clock(0, 60), fits=60, syns=100_000, chance=60), False, 0),
        (a_sight(*THREE, fits=70, syns=100_000, chance=60), False, 0),
        (a_sight(*THREE, fits=200, syns=100_000, chance=60), True, 3),
    ],
    ids=[
        "three",
        "two at least",
        "random",
        "just enough",
        "one and strays",
        "one by chance",
        "three by chance",
        "three in a flood",
    ],
)
def test_suspects(sight: Sight, several: bool, clocks: int) -> None:
    suspect = judge(sight)
    assert suspect is not None
    assert (suspect.several, suspect.clocks) == (several, clocks)


@pytest.mark.parametrize(
    "sight",
    [
        a_sight(clock(0, 600), fits=599, syns=600),
        a_sight(fits=0, syns=15),
        a_sight(fits=8, syns=16),
        a_sight(clock(0, 20), clock(30, 60), fits=48, syns=50),
        a_sight(*THREE[:2], fits=1, syns=15),
    ],
    ids=["one clock", "few SYNs", "half of them on lines", "a host that booted", "one SYN on a line"],
)
def test_no_suspects(sight: Sight) -> None:
    assert judge(sight) is None


@pytest.mark.parametrize(
    ("clocks", "number"),
    [
        ((), 0),
        (THREE[:1], 1),
        (THREE, 3),
        ((clock(0, 10), clock(10, 20), clock(10.1, 30)), 2),
        ((clock(0, 10), clock(20, 30)), 1),
        ((clock(0, 10), clock(20, 30), clock(40, 50)), 3),
        ((clock(0, 10), clock(80, 90), clock(160, 170)), 1),
        ((clock(0, 100), clock(5, 50), clock(60, 99)), 2),
    ],
    ids=["none", "one", "three", "touching", "set once", "in turn", "far apart", "one of two set once"],
)
def test_clocks_that_ran_at_once(clocks: tuple[Clock, ...], number: int) -> None:
    assert at_once(clocks) == number
    assert at_once(tuple(reversed(clocks))) == number


def test_several_clocks_in_full() -> None:
    (said,) = told(SnatWatch([FakePipeline(SEVERAL)]))
    assert (said.who, said.role, said.cause) == ("192.0.2.7", Role.HOST, "several_clocks")
    assert (said.verdict, said.packets, said.vnis) == (Verdict.UNCLEAR, 60, (7,))
    assert said.cure == "`fixer doctor timestamps` on 10.0.0.5 says whether it refuses them, and what helps"
    assert said.text == (
        "3 clocks behind 192.0.2.7 (to 10.0.0.5, VNI 7): 57 of 60 SYNs are on a line with an earlier one, 0 by chance "
        "would be; tcp_tw_recycle would refuse up to 25 % of them"
    )
    assert said.beside == {
        "fixer.snat.suspect": "several-clocks",
        "fixer.snat.clocks": 3,
        "fixer.snat.ticks_hz": [250, 1000, 1000],
        "fixer.snat.more_possible": False,
        "fixer.snat.syns": 60,
        "fixer.snat.syns_on_lines": 57,
        "fixer.snat.syns_on_lines_by_chance": 0.0,
        "fixer.snat.refused_share": 0.25,
        "fixer.vni": 7,
        "source.ip": "192.0.2.7",
        "destination.ip": "10.0.0.5",
        "network.type": "ipv4",
        "network.transport": "tcp",
    }


def test_random_offsets_in_full() -> None:
    (said,) = told(SnatWatch([FakePipeline(AT_RANDOM._replace(vni=None))]))
    assert (said.cause, said.verdict) == ("random_offsets", Verdict.HARMLESS)
    assert said.text == (
        "offsets drawn at random per connection, likely, behind 192.0.2.9 (to 10.0.0.5): only 1 of 50 SYNs are on a "
        "line with an earlier one, 0.2 by chance would be; one client may look like this, and so may very many; "
        "tcp_tw_recycle would refuse up to 24 % of them"
    )
    assert said.beside["fixer.snat.suspect"] == "random-offsets"
    assert "fixer.vni" not in said.beside


def test_words_for_what_is_beside() -> None:
    both = a_sight(clock(0, 60), fits=60, syns=160)
    assert "per connection beside 1 clock, likely" in told(SnatWatch([FakePipeline(both)]))[0].text
    full = a_sight(*(clock(0, 60) for _ in range(15)), fits=200, syns=300, full=True)
    assert told(SnatWatch([FakePipeline(full)]))[0].text.startswith("15 or more clocks behind")


def test_every_field_is_ecs_s_or_under_fixer() -> None:
    names = {name for said in told(SnatWatch([FakePipeline(AT_RANDOM, SEVERAL)])) for name in said.beside}
    assert {name for name in names if not name.startswith("fixer.")} <= shared.ecs_fields()


def test_the_clocks_are_looked_at_every_ten_seconds_whatever_the_time_is_set_to() -> None:
    pipeline = FakePipeline(SEVERAL)
    watch = SnatWatch([pipeline])
    for second in range(1300):
        assert len(told(watch, second, NOW + (second % 3 - 1) * 3600 * SECOND)) == 1
    assert pipeline.looked == 1300 // LOOK_SECONDS


def test_a_source_is_told_once_with_the_most_that_any_queue_saw_to_any_server() -> None:
    weak = a_sight(*THREE[:2], fits=40, destination="10.0.0.6")
    elsewhere = weak._replace(vni=8)
    (first, second, third) = told(SnatWatch([FakePipeline(weak), FakePipeline(AT_RANDOM, SEVERAL, elsewhere)]))
    assert (first.beside["fixer.snat.clocks"], first.beside["destination.ip"]) == (3, "10.0.0.5")
    assert (second.beside["fixer.snat.clocks"], second.beside["fixer.vni"]) == (2, 8)
    assert first.apart != second.apart, "each has a life of its own"
    assert third.beside["fixer.snat.suspect"] == "random-offsets"


def test_from_syns_to_lines() -> None:
    """Five minutes of four sources: SNAT, a host with one clock, one with random offsets, and one with few SYNs."""
    draw, path = random.Random(1), Watched()
    watch = SnatWatch([path.pipeline])
    server = ip_address("10.0.0.5").packed
    offsets = [draw.getrandbits(32) for _ in range(3)]
    for second in range(300):
        when = NOW + second * SECOND
        for last, offset in ((1, draw.choice(offsets)), (2, 5), (3, draw.getrandbits(32)), (4, draw.getrandbits(32))):
            if last != 4 or second < 10:
                tsval = (offset + second * 1000) % 2**32
                path.note(bytes([192, 0, 2, last]), server, 7, second, second, tsval, when)
        said = told(watch, second)
    found = {each.who: each for each in said}
    assert set(found) == {"192.0.2.1", "192.0.2.3"}
    assert found["192.0.2.1"].beside["fixer.snat.clocks"] == 3
    assert found["192.0.2.3"].beside["fixer.snat.suspect"] == "random-offsets"
