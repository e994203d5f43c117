"""What made outer checksums wrong, with hindsight; and what looks the same and has another cause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

import pytest
from support import shared
from support.wire import Wire, from_port, off_by

from fixer.datapath.diagnose import Diagnosis, Explanation
from fixer.datapath.pipeline import Pipeline
from fixer.findings.causes import WRONG_OUTER, in_hindsight
from fixer.findings.conversations import Fate
from fixer.findings.sender import Sender, row_of


def sent(packets: Iterable[bytes], sources: Container[str] = ("192.0.2.4",)) -> Sender:
    """These packets of theirs, as one sender's."""
    path = Pipeline(ports=[4789, 8472], seed=1)
    sender = Sender()
    for number, packet in enumerate(packets, 1):
        one = path.examine(bytearray(packet), when_ns=10**18)
        if one.outer_source in sources:
            sender.add(row_of(one), one, None, Fate.NONE, number, 1)
    return sender


def causes(wires: list[Wire]) -> Counter[Explanation]:
    """Packets by their cause; 5 healthy ones of the same sender are put before where ``healthy``."""
    sender = sent(wire.bytes() for wire in wires)
    found: Counter[Explanation] = Counter()
    for row, cause in in_hindsight(sender).items():
        found[cause] += sender.rows[row].count
    return found


def masqueraded(count: int, **fields: object) -> list[Wire]:
    ports = [(number * 7919 + 1024) % 64000 + 1024 for number in range(count)]
    return [
        from_port(Wire(number=number, port=port).but(**fields), 33000 + number * 101)
        for number, port in enumerate(ports)
    ]


def test_every_name_has_its_words_and_its_cure() -> None:
    assert set(WRONG_OUTER) == set(Explanation)


@pytest.mark.parametrize("inner", ["verifies", "partial"])
def test_one_cause_is_given_to_the_packets_before_it_was_seen(inner: str) -> None:
    assert causes(masqueraded(40, inner=inner)) == {Explanation.IMPLIED_PORTS: 40}
    same = [off_by(Wire(number=number, port=41000 + number, inner=inner), 0x97CC) for number in range(6)]
    assert causes(same) == {Explanation.SAME_ERROR: 6}


def test_beside_healthy_ones_a_cause_that_explains_most_explains_the_first_ones_too() -> None:
    healthy = [Wire(number=1000 + number) for number in range(20)]
    assert causes(healthy + masqueraded(40)) == {Explanation.IMPLIED_PORTS: 40}


def test_damage_beside_healthy_ones_stays_damage() -> None:
    healthy = [Wire(number=1000 + number) for number in range(20)]
    damaged = [wire.but(outer=wire.field ^ 1 << wire.number) for wire in (Wire(number=number) for number in range(9))]
    assert causes(healthy + damaged) == {Explanation.SINGLE_DAMAGE: 9}


def test_an_unfinished_inner_under_a_damaged_outer_is_corrupt_and_not_behind_nat() -> None:
    healthy = [Wire(number=1000 + number) for number in range(20)]
    broken = [off_by(Wire(number=number, inner="partial"), 3 * number + 5) for number in range(5)]
    assert causes(healthy + broken) == {}
    assert {row.diagnosis for row in sent(wire.bytes() for wire in broken).rows} == {Diagnosis.CORRUPT}


def test_a_nic_that_adds_a_little_is_no_nat_though_every_old_port_would_fit() -> None:
    """Its errors are small, so what they imply lies where the source port lies anyway."""
    wires = [off_by(Wire(number=number, port=34000 + number * 601), 3 + number * 41) for number in range(40)]
    assert causes(wires) == {Explanation.SYSTEMATIC: 40}


def frames_of(path: Path) -> Iterator[bytes]:
    """From the IP header on; of a little-endian pcap file of Ethernet frames."""
    data, at = path.read_bytes(), 24
    while at < len(data):
        size = int.from_bytes(data[at + 8 : at + 12], "little")
        yield data[at + 16 + 14 : at + 16 + size]
        at += 16 + size


FIELD = {
    "ffff-six-syns.pcap": {Explanation.FIELD_FFFF: 6},
    "dns-masquerade-random-ports.pcap": {Explanation.IMPLIED_PORTS: 200},
    "outer-computed-wrong-by-nic.pcap": {Explanation.SYSTEMATIC: 400},
}


@pytest.mark.parametrize("name", FIELD)
def test_field_captures_have_one_cause(name: str) -> None:
    path = shared.path(f"field/{name}")
    sender = sent(frames_of(path), ("192.0.2.12", "192.0.2.14", "192.168.77.1"))
    found: Counter[Explanation] = Counter()
    righted = 0
    for row, cause in in_hindsight(sender).items():
        found[cause] += sender.rows[row].count
        righted += sender.rows[row].count * (row.action.name == "REPAIR")
    assert found == FIELD[name]
    assert righted >= found.total() - 2, "all but the first ones"
