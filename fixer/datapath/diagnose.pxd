# cython: language_level=3
"""Inner state × outer state → Diagnosis. Reads only.

Three steps, since whether a wrong outer checksum may be righted is known from other packets: `judge` each layer by
itself; `evidence` turns WRONG into STALE where somebody vouches; `conclude` looks both states up in the matrix.
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
    OUT_STALE = 4           # wrong, and `evidence` vouches for what it covers
    OUT_WRONG = 5
    OUT_UNCHECKABLE = 6     # see the reason
    OUT_NO_TUNNEL = 7       # a plain packet
    OUT_ZERO6 = 8           # zero over IPv6: kernels drop it unless the VXLAN device has udp6zerocsumrx (RFC 6935)


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
    OUTER_IP_WRONG          # the outer IPv4 header's own checksum: a receiver's kernel drops it before any hook
    OUTER_ABSENT6           # OUT_ZERO6 over an inner layer that is not wrong


cpdef enum Vouch:
    """Who vouches for what a wrong outer checksum covers and no other does."""
    NOBODY = 0
    ENVELOPE                # a verifying inner, and an envelope that the pair is known to use
    REGIME                  # what the pair's other packets show; the payload stays unverified
    OPERATOR                # policy.stale = "inner-verifies", or vxlan.vnis over a field of ffff


cpdef enum Explanation:
    """What a wrong outer checksum comes from, as far as is known when the packet passes. A name; it decides nothing."""
    UNEXPLAINED = 0
    FIELD_FFFF              # nf_nat "updated" a zero checksum, address kept (fixed by linux ea64d8d6c675)
    SAME_FIELD              # one field over differing right ones: a middlebox "updated" a zero checksum
    SAME_ERROR              # one error whatever the port: addresses rewritten and not folded in
    FLOW_ERROR              # one error for an outer five-tuple: its port was rewritten and not folded in
    IMPLIED_PORTS           # every packet another error, and all of them imply an old port of one range
    SYSTEMATIC              # none of these, and no outer of the pair verifies: computed wrongly
    SINGLE_DAMAGE           # other outers of the pair verify: damage on the way


cdef enum:
    DIAGNOSES = 11
    EXPLANATIONS = 8
    VOUCHES = 4

    # NFQA_SKB_INFO (linux/netfilter/nfnetlink_queue.h)
    SKB_CHECKSUM_NOT_READY = 1
    SKB_GSO = 2
    SKB_NOT_VERIFIED = 4


cdef struct Judgement:
    uint8_t inner            # InnerState
    uint8_t outer            # OuterState
    uint8_t diagnosis        # Diagnosis
    uint8_t reason           # walk.Reason of the layer that could not be judged, inner first
    uint8_t explanation      # Explanation
    uint8_t vouch            # Vouch
    bint outer_filled        # a zero outer is to be computed
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
cdef bint is_right_once_finished(const Walk *walk, const Judgement *judgement) noexcept nogil
cdef bint is_unfinished(const uint8_t *packet, const Walk *walk, const Judgement *judgement) noexcept nogil
