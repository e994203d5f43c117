# cython: language_level=3
"""Inner state × outer state → Diagnosis. Reads only.

Three steps, because a wrong outer checksum may have an explanation that only `history` knows: `judge` each layer by
itself; the caller turns WRONG into STALE where there is an explanation; `conclude` looks both states up in the matrix.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from fixer.datapath.walk cimport Ports, Walk


# Python sees the two as InnerState.VERIFIES … and OuterState.GOOD …; C has one name space for all enumerators.

cpdef enum Inner:
    IN_VERIFIES = 0
    IN_PARTIAL = 1          # the field is the pseudo-header sum: CHECKSUM_PARTIAL that nobody finished
    IN_WRONG = 2
    IN_NONE = 3             # nothing to judge: ARP, IGMP, a fragment, an unknown protocol
    IN_ABSENT = 4           # UDP zero over IPv4: the sender made none
    IN_UNCHECKABLE = 5      # see the reason


cpdef enum Outer:
    OUT_GOOD = 0
    OUT_AGREES = 1          # over a partial inner only: verifies once the inner is finished (local checksum offload)
    OUT_ZERO = 2
    OUT_PARTIAL = 3
    OUT_STALE = 4           # wrong, and explained
    OUT_WRONG = 5
    OUT_UNCHECKABLE = 6     # see the reason
    OUT_NO_TUNNEL = 7       # a plain packet


cpdef enum Diagnosis:
    SOUND = 0
    INNER_UNFINISHED
    OUTER_UNFINISHED
    BOTH_UNFINISHED
    OUTER_STALE
    STALE_UNFINISHED        # a stale outer over an unfinished inner
    OUTER_WRONG             # unexplained, over an inner layer that is not wrong
    CORRUPT
    UNCHECKABLE


cdef enum:
    DIAGNOSES = 9

    # NFQA_SKB_INFO (linux/netfilter/nfnetlink_queue.h)
    SKB_CHECKSUM_NOT_READY = 1
    SKB_GSO = 2
    SKB_NOT_VERIFIED = 4


cdef struct Judgement:
    uint8_t inner            # InnerState
    uint8_t outer            # OuterState
    uint8_t diagnosis        # Diagnosis
    uint8_t reason           # walk.Reason of the layer that could not be judged, inner first
    uint8_t explanation      # history.Explanation
    bint unverified          # "payload-unverified": repaired, but no sum vouches for the payload
    bint inner_pseudo        # the field is the layer's pseudo-header sum, whether or not that happens to verify
    bint outer_pseudo
    uint16_t inner_found     # the fields as they stand in the packet (0 where there is none to read) …
    uint16_t outer_found
    uint16_t inner_right     # … and as they must be. The outer one is right once the inner one is.
    uint16_t outer_right


cdef void judge(const uint8_t *packet, const Walk *walk, const Ports *ports, uint32_t skb_info, bint trust_device,
                Judgement *out) noexcept nogil
cdef void conclude(const Walk *walk, uint32_t skb_info, Judgement *judgement) noexcept nogil
