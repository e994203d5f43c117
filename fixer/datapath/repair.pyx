# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from fixer.datapath.diagnose cimport (BOTH_UNFINISHED, IN_PARTIAL, INNER_UNFINISHED, OUT_NO_TUNNEL, OUT_ZERO,
                                      OUT_ZERO6, OUTER_ABSENT6, OUTER_STALE, OUTER_UNFINISHED, STALE_UNFINISHED)
from fixer.datapath.diagnose import Diagnosis
from fixer.datapath.wire cimport put_be16


cdef Action decide(const Policy *policy, const Judgement *judgement) noexcept nogil:
    """What the policy says of a diagnosis. A repair that the matrix does not know passes, whatever the policy says."""
    cdef Action action = <Action>policy.action[judgement.diagnosis]
    if judgement.diagnosis == OUTER_ABSENT6:
        return action if action != Action.REPAIR or judgement.outer_filled else Action.PASS
    if action == Action.REPAIR and judgement.diagnosis not in (INNER_UNFINISHED, OUTER_UNFINISHED, BOTH_UNFINISHED,
                                                               OUTER_STALE, STALE_UNFINISHED):
        return Action.PASS
    return action


cdef void mend(uint8_t *packet, const Walk *walk, const Judgement *judgement) noexcept nogil:
    """Write the right fields: the inner first, which makes an agreeing outer right by itself; a zero outer stays zero.

    Afterwards every checksum is complete, as the kernel demands of a payload given back with a verdict.
    """
    if judgement.inner == IN_PARTIAL:
        put_be16(packet + walk.inner.field, judgement.inner_right)
    if judgement.outer != OUT_NO_TUNNEL and judgement.outer != OUT_ZERO \
            and (judgement.outer != OUT_ZERO6 or judgement.outer_filled):
        put_be16(packet + walk.outer.field, judgement.outer_right)


# What to do by default, and what may be asked for.
DEFAULT_ACTIONS = {
    Diagnosis.SOUND: Action.PASS,
    Diagnosis.INNER_UNFINISHED: Action.REPAIR,
    Diagnosis.OUTER_UNFINISHED: Action.REPAIR,
    Diagnosis.BOTH_UNFINISHED: Action.REPAIR,
    Diagnosis.OUTER_STALE: Action.REPAIR,
    Diagnosis.STALE_UNFINISHED: Action.REPAIR,
    Diagnosis.OUTER_WRONG: Action.PASS,
    Diagnosis.CORRUPT: Action.DROP,
    Diagnosis.UNCHECKABLE: Action.PASS,
    Diagnosis.OUTER_IP_WRONG: Action.PASS,
    Diagnosis.OUTER_ABSENT6: Action.PASS,
}
ALLOWED_ACTIONS = {
    diagnosis: frozenset({Action.PASS, Action.REPAIR, Action.DROP}) if default is Action.REPAIR
    else frozenset({Action.PASS, Action.REPAIR}) if diagnosis is Diagnosis.OUTER_ABSENT6
    else frozenset({Action.PASS}) if diagnosis in (Diagnosis.SOUND, Diagnosis.UNCHECKABLE)
    else frozenset({Action.PASS, Action.DROP})
    for diagnosis, default in DEFAULT_ACTIONS.items()
}
