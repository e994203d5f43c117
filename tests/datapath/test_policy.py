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
from fixer.datapath.pipeline import ALLOWED_ACTIONS, Pipeline
from fixer.datapath.repair import Action
from fixer.datapath.result import Result
from fixer.datapath.walk import Reason

NOT_READY, GSO, NOT_VERIFIED = 1, 2, 4

MADE = {
    Diagnosis.SOUND: ("VERIFIES", "GOOD"),
    Diagnosis.INNER_UNFINISHED: ("PARTIAL", "AGREES"),
    Diagnosis.OUTER_UNFINISHED: ("VERIFIES", "PARTIAL"),
    Diagnosis.BOTH_UNFINISHED: ("PARTIAL", "PARTIAL"),
    Diagnosis.OUTER_WRONG: ("VERIFIES", "WRONG"),
    Diagnosis.CORRUPT: ("WRONG", "GOOD"),
}


def examine(states: tuple[str, str], skb_info: int = 0, **settings: object) -> tuple[Result, bool]:
    """The result, and whether the packet was changed."""
    before = tunnelled(*states)
    packet = bytearray(before)
    result = Pipeline(ports=[4789], **settings).examine(packet, skb_info=skb_info)
    return result, packet != before


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
    result, changed = examine(states, NOT_READY)
    assert result.diagnosis is diagnosis
    assert changed == (diagnosis is Diagnosis.BOTH_UNFINISHED)


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


@pytest.mark.parametrize("states", MADE.values())
def test_a_super_packet_is_never_judged_nor_changed(states: tuple[str, str]) -> None:
    for info in (GSO, GSO | NOT_READY):
        result, changed = examine(states, info)
        assert (result.inner, result.outer) == (InnerState.UNCHECKABLE, OuterState.UNCHECKABLE)
        assert (result.diagnosis, result.reason, changed) == (Diagnosis.UNCHECKABLE, Reason.SUPER_PACKET, False)


@pytest.mark.parametrize("states", MADE.values())
def test_not_verified_is_no_news(states: tuple[str, str]) -> None:
    assert examine(states, NOT_VERIFIED)[0].diagnosis is examine(states)[0].diagnosis


@pytest.mark.parametrize("name", ["nonsense", "sound_", ""])
def test_unknown_diagnoses_and_actions_are_refused(name: str) -> None:
    with pytest.raises(KeyError):
        Pipeline(ports=[4789], actions={name: "pass"})
    with pytest.raises(KeyError):
        Pipeline(ports=[4789], actions={"corrupt": name})
    with pytest.raises(KeyError):
        Pipeline(ports=[4789], stale=name)


@pytest.mark.parametrize("states", MADE.values())
def test_a_device_is_believed_only_where_the_policy_says_so(states: tuple[str, str]) -> None:
    result, changed = examine(states, 0, trust_device=True)
    assert (result.diagnosis, result.reason, changed) == (Diagnosis.UNCHECKABLE, Reason.DEVICE_VERIFIED, False)
    for info in (NOT_VERIFIED, NOT_READY):
        assert examine(states, info, trust_device=True)[0].diagnosis is examine(states, info)[0].diagnosis
