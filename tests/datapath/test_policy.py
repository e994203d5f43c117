"""Diagnosis to action, and what the kernel says about a packet."""

import pytest
from support.packets import (
    VTEPS,
    encapsulate,
    field,
    frame,
    in_state,
    pseudo_sum,
    segment,
    tunnelled,
    vxlan,
    with_field,
)

from fixer.datapath.diagnose import Diagnosis, InnerState, OuterState
from fixer.datapath.pipeline import Pipeline
from fixer.datapath.repair import ALLOWED_ACTIONS, Action
from fixer.datapath.result import Result
from fixer.datapath.walk import Reason

NOT_READY, GSO, NOT_VERIFIED = 1, 2, 4

PAIR_WRONG = [with_field(tunnelled("VERIFIES", "GOOD", payload=bytes([n])), 20, 61000) for n in range(3)]
# What it takes: the packet is the last one, behind those that say something of its pair of VTEPs.
MADE = {
    Diagnosis.SOUND: [tunnelled("VERIFIES", "GOOD")],
    Diagnosis.INNER_UNFINISHED: [tunnelled("PARTIAL", "AGREES")],
    Diagnosis.OUTER_UNFINISHED: [tunnelled("VERIFIES", "PARTIAL")],
    Diagnosis.BOTH_UNFINISHED: [tunnelled("PARTIAL", "PARTIAL")],
    Diagnosis.OUTER_STALE: PAIR_WRONG,
    Diagnosis.STALE_UNFINISHED: [*PAIR_WRONG, with_field(tunnelled("PARTIAL", "AGREES"), 20, 61000)],
    Diagnosis.OUTER_WRONG: [tunnelled("VERIFIES", "WRONG")],
    Diagnosis.CORRUPT: [tunnelled("WRONG", "GOOD")],
    Diagnosis.UNCHECKABLE: [encapsulate(vxlan(frame(bytes(46), ethertype=0x8847)))],
    Diagnosis.OUTER_IP_WRONG: [with_field(tunnelled("PARTIAL", "AGREES"), 10, 1)],
    Diagnosis.OUTER_ABSENT6: [tunnelled("VERIFIES", "ZERO", outer=6, payload=bytes([n])) for n in range(3)],
}


def examine(packets: list[bytes], skb_info: int = 0, **settings: object) -> tuple[Result, bool]:
    """The last one's result, and whether it was changed."""
    pipeline = Pipeline(ports=[4789], **settings)
    for each in packets:
        packet = bytearray(each)
        result = pipeline.examine(packet, skb_info=skb_info)
    return result, packet != packets[-1]


def test_every_diagnosis_is_made_here() -> None:
    assert set(MADE) == set(Diagnosis)


@pytest.mark.parametrize("diagnosis", MADE)
@pytest.mark.parametrize("action", Action)
def test_every_diagnosis_takes_the_actions_it_may(diagnosis: Diagnosis, action: Action) -> None:
    settings = {"actions": {diagnosis.name.lower(): action.name.lower()}}
    if action not in ALLOWED_ACTIONS[diagnosis]:
        with pytest.raises(ValueError, match="cannot be"):
            examine(MADE[diagnosis], **settings)
        return
    result, changed = examine(MADE[diagnosis], **settings)
    assert result.diagnosis is diagnosis
    assert result.action is action
    assert changed == (action is Action.REPAIR)


def test_corrupt_can_never_be_repaired_and_is_dropped_by_default() -> None:
    assert ALLOWED_ACTIONS[Diagnosis.CORRUPT] == {Action.PASS, Action.DROP}
    assert examine(MADE[Diagnosis.CORRUPT])[0].action is Action.DROP


def test_what_a_receiver_discards_anyway_is_passed_by_default() -> None:
    for diagnosis in (Diagnosis.OUTER_IP_WRONG, Diagnosis.OUTER_ABSENT6):
        assert examine(MADE[diagnosis])[0].action is Action.PASS
    assert ALLOWED_ACTIONS[Diagnosis.OUTER_IP_WRONG] == {Action.PASS, Action.DROP}
    assert ALLOWED_ACTIONS[Diagnosis.OUTER_ABSENT6] == {Action.PASS, Action.REPAIR}


def test_an_absent_outer_is_not_filled_before_its_envelope_is_known() -> None:
    result, changed = examine(MADE[Diagnosis.OUTER_ABSENT6][:2], actions={"outer_absent6": "repair"})
    assert (result.diagnosis, result.action, changed) == (Diagnosis.OUTER_ABSENT6, Action.PASS, False)


@pytest.mark.parametrize("diagnosis", MADE)
def test_a_monitor_changes_nothing_and_says_what_it_would_do(diagnosis: Diagnosis) -> None:
    acting, _ = examine(MADE[diagnosis])
    result, changed = examine(MADE[diagnosis], monitor=True)
    assert (result.action, result.would, changed) == (Action.PASS, acting.action, False)


@pytest.mark.parametrize(
    ("states", "diagnosis"),
    [
        (("PARTIAL", "AGREES"), Diagnosis.SOUND),
        (("PARTIAL", "ZERO"), Diagnosis.SOUND),
        (("VERIFIES", "PARTIAL"), Diagnosis.SOUND),
        (("WRONG", "PARTIAL"), Diagnosis.CORRUPT),
        (("WRONG", "GOOD"), Diagnosis.CORRUPT),
        (("PARTIAL", "PARTIAL"), Diagnosis.BOTH_UNFINISHED),
        (("PARTIAL", "WRONG"), Diagnosis.OUTER_WRONG),
        (("VERIFIES", "WRONG"), Diagnosis.OUTER_WRONG),
        (("VERIFIES", "GOOD"), Diagnosis.SOUND),
    ],
)
def test_not_ready_excuses_the_one_layer_whose_field_is_p(states: tuple[str, str], diagnosis: Diagnosis) -> None:
    result, changed = examine([tunnelled(*states)], NOT_READY)
    assert result.diagnosis is diagnosis
    assert changed == (diagnosis is Diagnosis.BOTH_UNFINISHED)


def test_not_ready_does_not_excuse_an_absent_outer_over_ipv6() -> None:
    result, changed = examine([tunnelled("PARTIAL", "ZERO", outer=6)], NOT_READY)
    assert (result.diagnosis, changed) == (Diagnosis.OUTER_ABSENT6, False)


@pytest.mark.parametrize("verifying", ["GOOD", "AGREES"])
def test_not_ready_excuses_neither_where_both_fields_are_p(verifying: str) -> None:
    """One outer field in 65,536 is P and verifies all the same; it must not pass for the layer that is ready."""
    whole, asked = (frame(in_state(segment(4, "tcp"), 4, "tcp", state)) for state in ("VERIFIES", "PARTIAL"))
    made = encapsulate(vxlan(asked + bytes(2)), verifying, finished=vxlan(whole + bytes(2)))
    pseudo = pseudo_sum(4, 17, len(made) - 20, VTEPS)
    # Two bytes of padding, which only the outer covers, make up for what the field changes by.
    candidate = bytearray(with_field(made, 26, pseudo))
    candidate[-2:] = ((field(made, 26) - pseudo) % 0xFFFF).to_bytes(2, "big")
    result = Pipeline(ports=[4789]).examine(candidate, skb_info=NOT_READY)
    assert result.outer.name == verifying
    assert (result.diagnosis, result.action) == (Diagnosis.INNER_UNFINISHED, Action.REPAIR)
    assert Pipeline(ports=[4789]).examine(candidate).diagnosis is Diagnosis.SOUND


@pytest.mark.parametrize("packets", MADE.values(), ids=[diagnosis.name for diagnosis in MADE])
def test_a_super_packet_is_never_judged_nor_changed(packets: list[bytes]) -> None:
    for info in (GSO, GSO | NOT_READY):
        result, changed = examine(packets, info)
        assert (result.inner, result.outer) == (InnerState.UNCHECKABLE, OuterState.UNCHECKABLE)
        assert (result.diagnosis, result.reason, changed) == (Diagnosis.UNCHECKABLE, Reason.SUPER_PACKET, False)


@pytest.mark.parametrize("packets", MADE.values(), ids=[diagnosis.name for diagnosis in MADE])
def test_not_verified_is_no_news(packets: list[bytes]) -> None:
    assert examine(packets, NOT_VERIFIED)[0].diagnosis is examine(packets)[0].diagnosis


@pytest.mark.parametrize("name", ["nonsense", "sound_", ""])
def test_unknown_diagnoses_and_actions_are_refused(name: str) -> None:
    with pytest.raises(KeyError):
        Pipeline(ports=[4789], actions={name: "pass"})
    with pytest.raises(KeyError):
        Pipeline(ports=[4789], actions={"corrupt": name})
    with pytest.raises(KeyError):
        Pipeline(ports=[4789], stale=name)


@pytest.mark.parametrize("packets", MADE.values(), ids=[diagnosis.name for diagnosis in MADE])
def test_a_device_is_believed_only_where_the_policy_says_so(packets: list[bytes]) -> None:
    result, changed = examine(packets, 0, trust_device=True)
    assert (result.diagnosis, result.reason, changed) == (Diagnosis.UNCHECKABLE, Reason.DEVICE_VERIFIED, False)
    for info in (NOT_VERIFIED, NOT_READY):
        assert examine(packets, info, trust_device=True)[0].diagnosis is examine(packets, info)[0].diagnosis
