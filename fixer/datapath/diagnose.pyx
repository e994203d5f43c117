# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from enum import IntEnum

from libc.string cimport memset

from fixer._csum cimport add, pseudo_header, subtract, sum_bytes
from fixer.datapath.walk cimport Layer, Reason
from fixer.datapath.wire cimport *

InnerState = IntEnum("InnerState", [(state.name.removeprefix("IN_"), state.value) for state in Inner])
OuterState = IntEnum("OuterState", [(state.name.removeprefix("OUT_"), state.value) for state in Outer])


# Rows: inner verifies, partial, wrong, none. Columns: outer good, agrees, zero, partial, stale, wrong.
cdef uint8_t[4][6] MATRIX = [
    [SOUND,            SOUND,            SOUND,            OUTER_UNFINISHED, OUTER_STALE,      OUTER_WRONG],
    [INNER_UNFINISHED, INNER_UNFINISHED, INNER_UNFINISHED, BOTH_UNFINISHED,  STALE_UNFINISHED, CORRUPT],
    [CORRUPT,          CORRUPT,          CORRUPT,          CORRUPT,          CORRUPT,          CORRUPT],
    [SOUND,            SOUND,            SOUND,            OUTER_UNFINISHED, OUTER_STALE,      OUTER_WRONG],
]


cdef void judge(const uint8_t *packet, const Walk *walk, const Ports *ports, uint32_t skb_info, bint trust_device,
                Judgement *out) noexcept nogil:
    """Both layers' states, found and right fields; `out.outer` is OUT_WRONG where it may still turn out to be stale.

    The inner segment lies inside the outer datagram, so each byte is summed once.
    """
    cdef uint16_t segment = 0           # sum of the inner segment, its field included
    memset(out, 0, sizeof(Judgement))
    out.outer = OUT_NO_TUNNEL
    if skb_info & SKB_GSO:
        out.reason = Reason.SUPER_PACKET
    elif trust_device and not skb_info & (SKB_NOT_VERIFIED | SKB_CHECKSUM_NOT_READY):
        out.reason = Reason.DEVICE_VERIFIED
    if out.reason != Reason.NONE:
        out.inner = IN_UNCHECKABLE
        if walk.tunnel:
            out.outer = OUT_UNCHECKABLE
        return
    judge_inner(packet, walk, ports, out, &segment)
    if walk.tunnel:
        judge_outer(packet, walk, segment, out)
    elif walk.outer.reason != Reason.NONE:
        out.outer = OUT_UNCHECKABLE
    if walk.inner.reason != Reason.NONE:
        out.reason = walk.inner.reason
    elif out.inner == IN_ABSENT:
        out.reason = Reason.NO_CHECKSUM


cdef void judge_inner(const uint8_t *packet, const Walk *walk, const Ports *ports, Judgement *out,
                      uint16_t *segment) noexcept nogil:
    cdef const Layer *inner = &walk.inner
    cdef uint16_t pseudo, total
    if inner.field_read:
        out.inner_found = be16(packet + inner.field)
        if inner.protocol == PROTO_UDP and out.inner_found == 0 and zero_means_none(packet, inner, ports):
            out.inner = IN_ABSENT
            return
    if inner.reason != Reason.NONE:
        out.inner = IN_NONE if inner.reason in (Reason.NO_IP, Reason.INNER_FRAGMENT, Reason.OTHER_PROTOCOL) \
            else IN_UNCHECKABLE
        return
    pseudo = pseudo_sum(packet, inner, inner.covered)
    segment[0] = sum_bytes(packet + inner.transport, inner.covered)
    total = add(pseudo, segment[0])
    out.inner_right = completed(subtract(total, out.inner_found), inner.protocol)
    out.inner_pseudo = inner.protocol != PROTO_ICMP and out.inner_found == pseudo
    if total == 0xffff:
        out.inner = IN_VERIFIES         # before partial: a right checksum may happen to equal P
        out.inner_right = out.inner_found
        return
    if inner.protocol == PROTO_TCP and out.inner_found == pseudo_sum(packet, inner, 0):
        out.inner_pseudo = True         # length 0: as TSO leaves it, for the NIC to add each segment's own
    if out.inner_pseudo:
        out.inner = IN_PARTIAL
    else:
        out.inner = IN_WRONG


cdef void judge_outer(const uint8_t *packet, const Walk *walk, uint16_t segment, Judgement *out) noexcept nogil:
    cdef const Layer *outer = &walk.outer
    cdef const Layer *inner = &walk.inner
    cdef uint32_t behind
    cdef uint16_t pseudo, total, tail
    out.outer = OUT_UNCHECKABLE
    if not outer.field_read:
        return
    out.outer_found = be16(packet + outer.field)
    if out.outer_found == 0:
        out.outer = OUT_ZERO            # whatever is missing of the packet, nothing was summed
        return
    if outer.reason != Reason.NONE:
        return
    pseudo = pseudo_sum(packet, outer, outer.covered)
    out.outer_pseudo = out.outer_found == pseudo
    if inner.reason == Reason.NONE and out.inner != IN_ABSENT:
        behind = inner.transport + inner.covered
        total = sum_bytes(packet + outer.transport, inner.transport - outer.transport)
        tail = sum_bytes(packet + behind, outer.transport + outer.covered - behind)
        if (behind - outer.transport) & 1:      # an odd segment shifts what follows by a byte (RFC 1071 §2 (B))
            tail = <uint16_t>((tail << 8) | (tail >> 8))
        total = add(add(total, segment), tail)
    else:
        total = sum_bytes(packet + outer.transport, outer.covered)
    total = add(total, pseudo)
    out.outer_right = out.outer_found
    if total == 0xffff:
        out.outer = OUT_GOOD
    if out.inner == IN_PARTIAL:                 # from here on: the sum over the packet with its inner layer finished
        total = add(subtract(total, out.inner_found), out.inner_right)
        if total == 0xffff and out.outer != OUT_GOOD:
            out.outer = OUT_AGREES
            return
    elif out.outer == OUT_GOOD:
        return
    out.outer_right = completed(subtract(total, out.outer_found), PROTO_UDP)
    if out.outer != OUT_GOOD:
        out.outer = OUT_PARTIAL if out.outer_pseudo else OUT_WRONG


cdef inline uint16_t pseudo_sum(const uint8_t *packet, const Layer *layer, uint32_t length) noexcept nogil:
    """P of a layer, with `length` in it. ICMP over IPv4 has no pseudo-header (RFC 792): 0."""
    if layer.protocol == PROTO_ICMP:
        return 0
    return pseudo_header(packet + layer.source, packet + layer.destination, layer.address_length, layer.protocol,
                         length)


cdef inline uint16_t completed(uint16_t total, uint8_t protocol) noexcept nogil:
    """The field that makes `total` (summed without it) verify; a UDP one that comes out 0 is sent as ffff (RFC 768)."""
    cdef uint16_t field = <uint16_t>~total
    return 0xffff if field == 0 and protocol == PROTO_UDP else field


cdef inline bint zero_means_none(const uint8_t *packet, const Layer *inner, const Ports *ports) noexcept nogil:
    """RFC 768: zero is none over IPv4. Over IPv6 a checksum is required (RFC 8200 §8.1) except for tunnels (RFC 6935),
    which inside this one are known by their port."""
    cdef uint16_t port = be16(packet + inner.transport + UDP_DESTINATION)
    cdef int i
    if inner.version == 4 or port == GENEVE_PORT:
        return True
    for i in range(ports.count):
        if port == ports.port[i]:
            return True
    return False


cdef void conclude(const Walk *walk, uint32_t skb_info, Judgement *judgement) noexcept nogil:
    """The diagnosis, and whether a repair would be payload-unverified, from both states."""
    cdef uint8_t inner = IN_NONE if judgement.inner == IN_ABSENT else judgement.inner
    cdef uint8_t outer = OUT_ZERO if judgement.outer == OUT_NO_TUNNEL else judgement.outer
    judgement.unverified = False
    if judgement.reason in (Reason.TRUNCATED, Reason.SUPER_PACKET, Reason.DEVICE_VERIFIED):
        judgement.diagnosis = UNCHECKABLE
        return
    if walk.inner.header_wrong:
        judgement.diagnosis = CORRUPT         # a wrong inner IPv4 header checksum, whatever the rest says
        return
    if inner == IN_UNCHECKABLE or outer == OUT_UNCHECKABLE:
        judgement.diagnosis = UNCHECKABLE
        return
    if skb_info & SKB_CHECKSUM_NOT_READY and not (judgement.inner_pseudo and judgement.outer_pseudo):
        # The kernel will finish one checksum itself: the one layer whose field is P is no fault. With both at P one of
        # them is (whether or not it happens to verify), and no telling which: both are finished, right for either.
        if outer == OUT_PARTIAL:
            outer = OUT_GOOD
        elif inner == IN_PARTIAL and (outer == OUT_AGREES or outer == OUT_ZERO or outer == OUT_WRONG):
            inner = IN_VERIFIES
    judgement.diagnosis = MATRIX[inner][outer]
    if judgement.diagnosis == INNER_UNFINISHED:
        judgement.unverified = outer != OUT_GOOD      # a good outer was summed over the payload: it vouches for it
    elif judgement.diagnosis == BOTH_UNFINISHED or judgement.diagnosis == STALE_UNFINISHED:
        judgement.unverified = True
    elif judgement.diagnosis == OUTER_UNFINISHED or judgement.diagnosis == OUTER_STALE:
        judgement.unverified = inner == IN_NONE
