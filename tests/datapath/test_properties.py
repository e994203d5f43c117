"""What holds for every packet, whatever it is; the oracle in tests/support/oracle.py says what is right."""

from collections import defaultdict

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from support import oracle
from support.packets import encapsulate, frame, segment, tunnelled, vxlan
from support.quick import PORTS, Made, packets

from fixer.datapath.diagnose import Diagnosis, InnerState, OuterState
from fixer.datapath.pipeline import Pipeline
from fixer.datapath.repair import Action

SOUND_AS = defaultdict(lambda: "SOUND", NOT_IP="UNCHECKABLE")  # by reason: what was not looked into stays so


@settings(max_examples=1500, deadline=None)
@given(packets())
def test_the_datapath_agrees_with_the_oracle(made: Made) -> None:
    packet = bytearray(made.packet)
    result = Pipeline(ports=PORTS, plain=made.plain).examine(packet)
    expected = oracle.judge(made.packet, plain=made.plain)
    assert (result.inner.name, result.outer.name, result.diagnosis.name, result.reason.name) == (
        expected.inner,
        expected.outer,
        expected.diagnosis,
        expected.reason,
    )
    assert result.action.name == expected.action
    assert packet == expected.mended
    assert result.unverified == expected.unverified
    if result.inner in (InnerState.VERIFIES, InnerState.PARTIAL, InnerState.WRONG):
        assert (result.inner_found, result.inner_right) == (expected.inner_found, expected.inner_right)
    if result.outer in (OuterState.GOOD, OuterState.AGREES, OuterState.PARTIAL, OuterState.WRONG, OuterState.ZERO6):
        assert (result.outer_found, result.outer_right) == (expected.outer_found, expected.outer_right)


@settings(max_examples=500, deadline=None)
@given(packets(repairable=True))
def test_a_repaired_packet_verifies_on_both_layers_and_needs_no_second_repair(made: Made) -> None:
    packet = bytearray(made.packet)
    assume(Pipeline(ports=PORTS, plain=made.plain).examine(packet).action is Action.REPAIR)
    repaired = bytes(packet)
    after = oracle.judge(repaired, plain=made.plain)
    assert after.diagnosis == ("OUTER_ABSENT6" if after.outer == "ZERO6" else SOUND_AS[after.reason])
    assert after.inner in ("VERIFIES", "NONE", "ABSENT")
    assert after.outer in ("GOOD", "ZERO", "ZERO6", "NO_TUNNEL")
    again = Pipeline(ports=PORTS, plain=made.plain).examine(packet)
    assert (again.diagnosis.name, again.action) == (after.diagnosis, Action.PASS)
    assert packet == repaired


@settings(max_examples=500, deadline=None)
@given(packets())
def test_nothing_outside_the_two_checksum_fields_ever_changes(made: Made) -> None:
    packet = bytearray(made.packet)
    Pipeline(ports=PORTS, plain=made.plain).examine(packet)
    outer, inner = oracle.judge(made.packet, plain=made.plain).layers
    fields = {layer.field_at + byte for layer in (outer, inner) if layer.field_at for byte in (0, 1)}
    assert {at for at in range(len(packet)) if packet[at] != made.packet[at]} <= fields


@settings(max_examples=500, deadline=None)
@given(packets())
def test_a_packet_that_is_not_repaired_is_not_changed(made: Made) -> None:
    """Good ones and corrupt ones above all, and whatever is only looked at."""
    for monitor in (False, True):
        packet = bytearray(made.packet)
        result = Pipeline(ports=PORTS, plain=made.plain, monitor=monitor).examine(packet)
        assert result.diagnosis is not Diagnosis.CORRUPT or result.action is not Action.REPAIR
        assert result.diagnosis is not Diagnosis.SOUND or result.action is Action.PASS
        if result.action is not Action.REPAIR:
            assert packet == made.packet
        assert not monitor or result.action is Action.PASS


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["GOOD", "ZERO", "AGREES"]), st.integers(1, 0xFFFF))
def test_a_payload_damaged_under_a_complete_inner_checksum_is_never_repaired(outer: str, damage: int) -> None:
    """Whatever the outer says: recomputed after the damage, absent, or as it was."""
    whole = segment(4, "tcp", b"0123456789")
    damaged = bytearray(whole)
    damaged[-2:] = (int.from_bytes(damaged[-2:], "big") ^ damage).to_bytes(2, "big")
    assume(oracle.ones_sum(bytes(damaged)) != oracle.ones_sum(whole))
    packet = bytearray(encapsulate(vxlan(frame(bytes(damaged))), outer, finished=vxlan(frame(whole))))
    before = bytes(packet)
    result = Pipeline(ports=PORTS).examine(packet)
    assert result.diagnosis is Diagnosis.CORRUPT
    assert result.action is Action.DROP
    assert packet == before


OUTER, INNER = 0, 40 + 8 + 8 + 14  # where the two IPv6 headers begin
# Where damage is nobody's: the UDP source port, which nobody reads, and the checksum; traffic class, flow label and hop
# limit of both IPv6 headers, which everybody may change.
NOBODY_S = {40, 41, 46, 47, *(ip + at for ip in (OUTER, INNER) for at in (1, 2, 3, 7))}


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 142), st.integers(1, 255))
@example(5, 143 - 40)
@example(45, 143 - 40)
@example(INNER + 5, 143 - INNER - 40)
def test_an_absent_outer_over_a_damaged_byte_is_not_filled(at: int, damage: int) -> None:
    """Over IPv6 no checksum covers the addresses and the envelope then; from 3 packets it is known what they should be.

    The examples make a length 0, which is taken for that of what is there.
    """
    pipeline = Pipeline(ports=PORTS, actions={"outer_absent6": "repair"})
    for number in range(3):
        packet = bytearray(tunnelled("VERIFIES", "ZERO", inner=6, outer=6, payload=b"number %d!" % number))
        result = pipeline.examine(packet)
    assert result.action is Action.REPAIR
    packet = bytearray(tunnelled("VERIFIES", "ZERO", inner=6, outer=6, payload=b"number 4!"))
    packet[at] ^= damage
    before = bytes(packet)
    result = pipeline.examine(packet)
    nobody_s = at in NOBODY_S or (at in (OUTER, INNER) and damage < 16)  # beside the version there is class
    assert (packet != before) == (result.action is Action.REPAIR) == nobody_s
