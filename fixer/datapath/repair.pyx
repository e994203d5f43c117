# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from fixer.datapath.diagnose cimport (BOTH_UNFINISHED, IN_PARTIAL, INNER_UNFINISHED, OUT_NO_TUNNEL, OUT_ZERO,
                                      OUT_ZERO6, OUTER_ABSENT6, OUTER_STALE, OUTER_UNFINISHED, STALE_UNFINISHED)
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
