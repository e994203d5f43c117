"""A wrong outer checksum: what vouches for the packet under it, and what looks the same and does not."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest
from support.wire import EPHEMERAL, Wire, from_port, off_by

from fixer.datapath.diagnose import Diagnosis, Explanation, OuterState, Vouch
from fixer.datapath.pipeline import Pipeline
from fixer.datapath.repair import Action
from fixer.datapath.result import Result
from fixer.datapath.walk import Reason

SECOND = 1_000_000_000
V6 = ("2001:db8:ffff::4", "2001:db8:ffff::5")
VNI_AT, MAC_AT = 28 + 4, 28 + 8  # over IPv4 without options


class Memory:
    """A packet path, and the second it lives in."""

    def __init__(self, **settings: object) -> None:
        self.path = Pipeline(ports=[4789], seed=1, **settings)
        self.now = 1000

    def see(self, wire: Wire, *flips: tuple[int, int]) -> Result:
        """Put it through, damaged where ``flips`` say (offset, mask). What is righted must come out as it was sent."""
        packet = wire.bytes()
        for at, mask in flips:
            packet[at] ^= mask
        before = bytes(packet)
        result = self.path.examine(packet, when_ns=self.now * SECOND)
        if result.action is not Action.REPAIR:
            assert packet == before
        elif not flips:
            assert packet == wire.mended()
        return result

    def all(self, wires: Iterable[Wire]) -> list[Result]:
        return [self.see(wire) for wire in wires]


def numbered(count: int, wire: Wire = Wire(), first: int = 0) -> list[Wire]:  # noqa: B008 - it is frozen
    return [wire.but(number=first + number) for number in range(count)]


def masqueraded(count: int, wire: Wire = Wire(), first: int = 0, seed: int = 1) -> list[Wire]:  # noqa: B008
    """Behind MASQUERADE --random-fully: each packet with another old port, another new one, another error."""
    random = Random(seed)
    return [
        from_port(one.but(port=random.randrange(1024, 65536)), random.choice(EPHEMERAL))
        for one in numbered(count, wire, first)
    ]


def actions(results: Iterable[Result]) -> list[str]:
    return [result.action.name for result in results]


# An envelope that verified


def test_an_envelope_that_verified_three_times_vouches_for_any_wrong_outer() -> None:
    memory = Memory()
    assert actions(memory.all(numbered(3))) == ["PASS"] * 3
    for wire in masqueraded(20, first=3):
        result = memory.see(wire)
        assert (result.diagnosis, result.action, result.vouch) == (
            Diagnosis.OUTER_STALE,
            Action.REPAIR,
            Vouch.ENVELOPE,
        )
        assert not result.unverified


def test_two_are_not_enough_and_the_same_one_again_is_not_another() -> None:
    memory = Memory()
    memory.all(numbered(2) + numbered(2) + [Wire(number=1, port=50000)])
    assert memory.see(off_by(Wire(number=9), 0x1A2B)).diagnosis is Diagnosis.OUTER_WRONG
    memory.see(Wire(number=2))
    assert memory.see(off_by(Wire(number=9), 0x1A2B)).diagnosis is Diagnosis.OUTER_STALE


def test_content_that_no_inner_checksum_vouches_for_makes_no_two_packets_differ() -> None:
    memory = Memory()
    memory.all(numbered(50, Wire(inner="none", protocol=17)))
    assert memory.see(off_by(Wire(number=60), 5)).action is Action.PASS


@pytest.mark.parametrize("outer", ["good", "zero", "partial", "agrees"])
@pytest.mark.parametrize("vteps", [("192.0.2.4", "192.0.2.5"), V6])
def test_known_by_each_outer_that_is_not_wrong(outer: str, vteps: tuple[str, str]) -> None:
    memory = Memory()
    memory.all(numbered(3, Wire(outer=outer, vteps=vteps, inner="partial" if outer == "agrees" else "verifies")))
    assert memory.see(off_by(Wire(number=9, vteps=vteps), 0x1A2B)).vouch is Vouch.ENVELOPE


def test_what_is_righted_of_every_single_bit_damage_is_what_nobody_reads() -> None:
    """Everything known of the pair, every bit of a healthy packet flipped: only the source port and the field itself
    are righted (and over IPv6 inside, class, flow label and hop limit)."""
    for hosts, unread in ((Wire().hosts, set()), (("2001:db8::b0", "2001:db8::c0"), {51, 52, 53, 57})):
        memory = Memory()
        wire = Wire(hosts=hosts, number=500)
        memory.all(numbered(100, wire))
        righted = set()
        for bit in range(20 * 8, len(wire.bytes()) * 8):
            result = memory.see(wire, (bit // 8, 0x80 >> bit % 8))
            if result.action is Action.REPAIR:
                righted.add(bit // 8)
        assert {20, 21, 26, 27} <= righted <= {20, 21, 26, 27, 50} | unread
        assert (50 in righted) == (len(unread) > 0), "the lower half of version and class"


# A pair that is broken


def test_masqueraded_dns_is_righted_from_the_third_query_on() -> None:
    results = Memory().all(masqueraded(20, Wire(protocol=17)))
    assert actions(results) == ["PASS"] * 2 + ["REPAIR"] * 18
    assert {result.explanation for result in results[-3:]} == {Explanation.IMPLIED_PORTS}


def test_a_known_envelope_is_righted_whatever_its_inner_addresses_are() -> None:
    """flannel and Calico have one envelope for each pair of nodes: the price is paid once."""
    memory = Memory()
    memory.all(masqueraded(3))
    other = Wire(hosts=("10.0.7.1", "10.0.9.9"), number=77)
    assert memory.see(masqueraded(1, other)[0]).action is Action.REPAIR


def test_one_that_verifies_by_chance_does_not_end_the_repair_of_a_broken_pair() -> None:
    memory = Memory()
    memory.all(masqueraded(1200))
    memory.see(Wire(number=5000))
    assert actions(memory.all(masqueraded(5, first=6000, seed=2))) == ["REPAIR"] * 5
    new = Wire(macs=bytes(12), hosts=("10.1.0.1", "10.1.0.2"))
    assert actions(memory.all(masqueraded(4, new)))[-1] == "REPAIR"


def test_a_pair_whose_outers_verify_now_and_then_teaches_no_new_envelope() -> None:
    memory = Memory()
    for number in range(200):
        memory.see(Wire(number=number))
        strange = off_by(Wire(number=number, macs=bytes.fromhex("0242ac11000202420a0001b0")), 0x1234)
        assert memory.see(strange).diagnosis is Diagnosis.OUTER_WRONG


def test_a_pair_that_nat_begins_to_break_is_believed_after_a_minute_without_one_that_verifies() -> None:
    memory = Memory()
    memory.all(numbered(5000))
    fresh = Wire(macs=bytes.fromhex("0242ac11000202420a0001b0"), hosts=("10.9.0.1", "10.9.0.2"))
    assert set(actions(memory.all(masqueraded(30, fresh)))) == {"PASS"}
    memory.now += 61
    assert actions(memory.all(masqueraded(5, fresh, first=100, seed=3))) == ["PASS"] * 2 + ["REPAIR"] * 3


def test_evidence_is_forgotten() -> None:
    memory = Memory()
    memory.all(masqueraded(3))
    memory.now += 601
    assert memory.see(masqueraded(1, first=9)[0]).action is Action.PASS


# What looks the same and is damage


@pytest.mark.parametrize("at", [VNI_AT + 2, MAC_AT + 5])
@pytest.mark.parametrize("every", [2, 10, 100])
def test_a_memory_cell_of_a_healthy_pair_is_never_believed(at: int, every: int) -> None:
    memory = Memory()
    for number in range(3000):
        flips = [(at, 0x40)] if number % every == every - 1 else []
        result = memory.see(Wire(number=number), *flips)
        assert result.action is Action.PASS


@pytest.mark.parametrize("at", [VNI_AT + 2, MAC_AT + 5])
@pytest.mark.parametrize("several", [False, True])
def test_a_memory_cell_of_a_broken_pair_is_not_believed_beside_what_is_more_common(at: int, several: bool) -> None:
    memory = Memory()
    others = [Wire(macs=bytes([2, 0, 0, 0, 0, n, 2, 0, 0, 0, 1, n]), hosts=(f"10.2.0.{n}", "10.2.1.1")) for n in (1, 2)]
    righted = 0
    for number, wire in enumerate(masqueraded(2000)):
        damaged = number % 50 == 49
        action = memory.see(wire, *[(at, 0x40)] if damaged else []).action
        assert not damaged or action is Action.PASS
        righted += action is Action.REPAIR
        if several and number < 10:
            memory.all(masqueraded(1, others[number % 2], first=number * 10, seed=number))
    assert righted > 1950, "of 1,960 that are not damaged"


def test_an_envelope_that_another_vtep_uses_is_not_believed() -> None:
    """Somebody spoofs one; or its address is damaged."""
    memory = Memory()
    memory.all(numbered(20))
    spoofed = Wire(vteps=("192.0.2.99", "192.0.2.5"))
    assert set(actions(memory.all(masqueraded(10, spoofed)))) == {"PASS"}
    memory.now += 601
    assert actions(memory.all(masqueraded(5, spoofed, first=50, seed=2))) == ["PASS"] * 2 + ["REPAIR"] * 3


@pytest.mark.parametrize("healthy", [True, False])
def test_the_same_damage_in_an_outer_ipv6_address_is_never_believed(healthy: bool) -> None:
    memory = Memory()
    wires = numbered(300, Wire(vteps=V6)) if healthy else masqueraded(300, Wire(vteps=V6))
    memory.all(wires[:10])
    for wire in wires[10:]:
        assert memory.see(wire, (23, 0x10)).action is Action.PASS
        memory.see(wire)


def test_addresses_whose_words_change_places_are_damage_that_no_header_checksum_sees() -> None:
    memory = Memory()
    swapped = Wire(vteps=("192.0.0.5", "192.0.2.4"))  # the last words of 192.0.2.4 and 192.0.0.5
    for number, wire in enumerate(masqueraded(200, Wire(vteps=("192.0.2.4", "192.0.0.5")))):
        result = memory.see(wire)
        assert number < 2 or result.action is Action.REPAIR
        result = memory.see(masqueraded(1, swapped, first=1000 + number, seed=number)[0])
        assert number < 2 or result.action is Action.PASS


def test_damage_never_turns_one_container_s_envelope_into_its_neighbour_s() -> None:
    """Docker numbers MACs one after the other: a bit makes a packet for .192 one for .193, which the pair uses too."""
    memory = Memory()
    first = Wire()
    second = Wire(macs=bytes.fromhex("02420a0001c102420a0001b0"), hosts=("10.0.1.176", "10.0.1.193"))
    for number in range(20):
        memory.all([first.but(number=number), second.but(number=number)])
    assert memory.see(first.but(number=50), (MAC_AT + 5, 0x01)).action is Action.PASS
    assert memory.see(off_by(first.but(number=51), 77)).action is Action.REPAIR
    assert memory.see(off_by(second.but(number=51), 77)).action is Action.REPAIR


@pytest.mark.parametrize("padding", [bytes(6), b"\0\0\0\x01\0\0"])
def test_padding_that_is_not_zero_is_vouched_for_by_nobody(padding: bytes) -> None:
    memory = Memory()
    memory.all(numbered(9, Wire(padding=padding)))
    expected = Action.PASS if any(padding) else Action.REPAIR
    assert memory.see(off_by(Wire(number=20, padding=padding), 5)).action is expected


def test_a_udp_length_that_is_not_the_ip_packet_s_is_vouched_for_by_nobody() -> None:
    memory = Memory()
    memory.all(numbered(9, Wire(padding=bytes(4))))
    assert memory.see(Wire(number=20, padding=bytes(4)), (25, 0x01)).action is Action.PASS
    assert memory.see(Wire(number=20, padding=bytes(4), vteps=V6), (44, 0xFF), (45, 0xFF)).action is Action.PASS


# Where no inner checksum vouches


def test_an_unfinished_inner_is_righted_by_one_error_of_the_pair() -> None:
    """Addresses were rewritten behind the checksum (moby#37115): one error in every flow."""
    wires = [off_by(wire.but(port=41000 + wire.number), 0x97CC) for wire in numbered(6, Wire(inner="partial"))]
    results = Memory().all(wires)
    assert actions(results) == ["DROP"] * 2 + ["REPAIR"] * 4
    assert {(result.vouch, result.explanation, result.unverified) for result in results[3:]} == {
        (Vouch.REGIME, Explanation.SAME_ERROR, True)
    }


@pytest.mark.parametrize("field", [0xFFFF, 0x1234])
def test_an_unfinished_inner_is_righted_by_one_field_of_the_pair(field: int) -> None:
    wires = [
        Wire(number=number, inner="partial", outer=field, port=41000 + number, payload=b"x" * (10 + number))
        for number in range(6)
    ]
    results = Memory().all(wires)
    assert actions(results) == ["DROP"] * 2 + ["REPAIR"] * 4
    assert results[-1].explanation is (Explanation.FIELD_FFFF if field == 0xFFFF else Explanation.SAME_FIELD)


def test_an_unfinished_inner_is_righted_by_old_ports_of_one_range_and_each_is_held_to_it() -> None:
    memory = Memory()
    results = memory.all(masqueraded(25, Wire(inner="partial")))
    assert actions(results) == ["DROP"] * 16 + ["REPAIR"] * 9
    assert memory.see(from_port(Wire(inner="partial", number=99, port=5), 1024)).action is Action.DROP


def test_an_unfinished_inner_under_a_wrong_outer_is_corrupt_where_outers_verify_now_and_then() -> None:
    memory = Memory()
    for number in range(60):
        memory.see(Wire(number=number))
        assert memory.see(off_by(Wire(number=number, inner="partial"), 0x97CC)).diagnosis is Diagnosis.CORRUPT


def test_a_field_one_bit_away_from_the_zeros_of_its_pair_is_no_regime() -> None:
    memory = Memory()
    memory.all(numbered(50, Wire(inner="partial", outer="zero")))
    for number in range(20):
        wire = Wire(number=100 + number, inner="partial", outer=0x0100, payload=b"x" * (10 + number))
        assert memory.see(wire).action is Action.DROP


def unsummed(number: int) -> Wire:
    return masqueraded(1, Wire(number=0, inner="none", protocol=17), first=number, seed=number)[0]


def test_without_an_inner_checksum_the_regime_of_the_pair_vouches_and_nothing_for_the_payload() -> None:
    memory = Memory()
    memory.all(masqueraded(15))
    assert memory.see(unsummed(200)).action is Action.PASS, "fifteen differing packets are no regime"
    memory.all(masqueraded(5, first=30, seed=2))
    result = memory.see(unsummed(201))
    assert (result.action, result.vouch, result.unverified) == (Action.REPAIR, Vouch.REGIME, True)


def test_the_regime_ends_for_a_minute_with_one_outer_that_verifies_or_one_inner_that_does_not() -> None:
    for against in (Wire(number=900), Wire(number=901, outer="zero")):
        memory = Memory()
        memory.all(masqueraded(1100))
        flips = [] if against.outer == "good" else [(len(against.bytes()) - 1, 1)]
        memory.see(against, *flips)
        memory.all(masqueraded(40, first=2000, seed=2))
        assert memory.see(unsummed(200)).action is Action.PASS
        memory.now += 61
        assert memory.see(unsummed(201)).action is Action.REPAIR


def test_a_packet_without_inner_checksum_is_held_to_the_error_of_its_pair() -> None:
    memory = Memory()
    memory.all([off_by(wire.but(port=41000 + wire.number), 0x97CC) for wire in numbered(40)])
    plain = Wire(inner="none", protocol=17, number=500)
    assert memory.see(off_by(plain, 0x97CC)).action is Action.REPAIR
    assert memory.see(off_by(plain, 0x97CC), (len(plain.bytes()) - 1, 1)).action is Action.PASS
    assert memory.see(off_by(plain, 0x97CD)).action is Action.PASS


# Policy


def test_inner_verifies_skips_the_first_packets_and_off_rights_none() -> None:
    first = off_by(Wire(), 5)
    assert Memory(stale="inner-verifies").see(first).vouch is Vouch.OPERATOR
    off = Memory(stale="off")
    assert set(actions(off.all(numbered(5) + masqueraded(9, first=9)))) == {"PASS"}


@pytest.mark.parametrize("inner", ["verifies", "partial"])
def test_ffff_into_a_configured_vni_is_righted_at_once(inner: str) -> None:
    wire = Wire(inner=inner, outer=0xFFFF)
    result = Memory(vnis=[(4097, 4097)]).see(wire)
    assert (result.action, result.vouch, result.explanation) == (
        Action.REPAIR,
        Vouch.OPERATOR,
        Explanation.FIELD_FFFF if inner == "verifies" or result.explanation else Explanation.UNEXPLAINED,
    )
    assert Memory(vnis=[(1, 4096)]).see(wire).action is not Action.REPAIR


@pytest.mark.parametrize("policy", ["pass", "repair"])
def test_zero_over_ipv6_is_computed_where_that_is_asked_for_and_the_envelope_is_known(policy: str) -> None:
    memory = Memory(actions={"outer_absent6": policy})
    results = [memory.path.examine(wire.bytes()) for wire in numbered(4, Wire(vteps=V6, outer="zero"))]
    assert {(result.outer, result.diagnosis) for result in results} == {(OuterState.ZERO6, Diagnosis.OUTER_ABSENT6)}
    assert actions(results) == ["PASS"] * 2 + (["REPAIR"] if policy == "repair" else ["PASS"]) * 2
    packet = Wire(vteps=V6, outer="zero", number=9).bytes()
    memory.path.examine(packet)
    assert packet == Wire(vteps=V6, outer="good" if policy == "repair" else "zero", number=9).bytes()


# Names


def named(wires: Iterable[Wire], first: int = 0) -> Explanation:
    memory = Memory()
    memory.all(numbered(first, Wire(), first=10_000))
    return memory.all(wires)[-1].explanation


def test_each_cause_has_its_name() -> None:
    wires = numbered(20)
    random = Random(7)
    assert named([Wire(outer=0xFFFF)]) is Explanation.FIELD_FFFF
    lengths = [wire.but(outer=0x1234, payload=b"y" * (1 + wire.number)) for wire in wires]
    assert named(lengths) is Explanation.SAME_FIELD
    assert named(off_by(wire.but(port=41000 + wire.number), 0x97CC) for wire in wires) is Explanation.SAME_ERROR
    assert named(off_by(wire, 0x1A2B) for wire in wires) is Explanation.FLOW_ERROR
    assert named(masqueraded(20)) is Explanation.IMPLIED_PORTS
    garbled = [wire.but(outer=random.randrange(1, 0xFFFF), port=random.randrange(1024, 65536)) for wire in wires]
    assert named(garbled) is Explanation.SYSTEMATIC
    assert named([wires[0].but(outer=wires[0].field ^ 0x0400)], first=40) is Explanation.SINGLE_DAMAGE


# Tables at their limits


def test_a_flood_of_pairs_and_envelopes_evicts_nothing_that_a_busy_pair_uses() -> None:
    memory = Memory()
    memory.all(masqueraded(40))
    for number in range(6000):
        vteps = (f"198.18.{number >> 8 & 255}.{number & 255}", "192.0.2.5")
        macs = number.to_bytes(4, "big") * 3
        memory.see(off_by(Wire(vteps=vteps, macs=macs, number=number), 3))
        if number % 100 == 0:
            assert memory.see(masqueraded(1, first=100 + number, seed=number)[0]).action is Action.REPAIR


def test_a_pair_that_had_to_go_comes_back_as_one_that_verifies() -> None:
    """What speaks against is never forgotten before what speaks for it: a healthy pair is displaced by a flood; when it
    comes back damaged it is not broken only because nobody remembers its healthy packets."""
    memory = Memory()
    memory.all(numbered(5))
    for number in range(6000):
        vteps = (f"198.18.{number >> 8 & 255}.{number & 255}", "192.0.2.5")
        memory.see(Wire(vteps=vteps, macs=number.to_bytes(4, "big") * 3, number=number))
    for number in range(12):
        assert memory.see(Wire(number=100 + number), (VNI_AT + 2, 0x40)).action is Action.PASS


# Another configuration


def test_what_was_learnt_outlives_a_configuration_and_what_the_operator_said_does_not() -> None:
    memory = Memory(vnis=[(4097, 4097)])
    unknown = Wire(inner="partial", outer=0xFFFF, number=99)
    assert memory.see(unknown).vouch is Vouch.OPERATOR
    memory.all(numbered(3))
    memory.path.adopt(Pipeline(ports=[4789], seed=2, monitor=True, vnis=[(9, 9)]))
    [wire] = masqueraded(1, first=3)
    watched = memory.see(wire)
    assert (watched.action, watched.would, watched.vouch) == (Action.PASS, Action.REPAIR, Vouch.ENVELOPE)
    assert memory.path.counters()["packets"] == 5
    assert memory.see(unknown).vouch is not Vouch.OPERATOR
    memory.path.adopt(Pipeline(ports=[4789], seed=3, stale="off"))
    assert memory.see(wire.but(number=9)).action is Action.PASS
    memory.path.adopt(Pipeline(ports=[4790], seed=3))
    assert memory.see(wire.but(number=10)).reason is Reason.OTHER_TRAFFIC, "its port is no VXLAN port any more"
