# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from enum import IntEnum

from libc.string cimport memset

from fixer._csum cimport add, pseudo_header, subtract, sum_bytes
from fixer.datapath.walk cimport Layer, Reason
from fixer.datapath.wire cimport *

cdef enum:
    COMMON_MTU = 1500           # bytes, from the IP header; what is longer did not come from a common wire
    JUMBO_MTU = 9000
    MTU_RANGE = 200             # bytes that a wire may be short of it, for tunnels around

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
    elif out.reason == Reason.NONE and (has_no_header_sum(packet, &walk.outer)
                                        or has_no_header_sum(packet, &walk.inner)):
        out.reason = Reason.NEVER_COMPUTED


cdef inline bint has_no_header_sum(const uint8_t *packet, const Layer *layer) noexcept nogil:
    """Whether an IPv4 header's checksum was never computed."""
    return layer.header_wrong and be16(packet + layer.start + IP4_CHECKSUM) == 0


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
        out.inner = IN_NONE if inner.reason in (Reason.NO_IP, Reason.NOT_IP, Reason.INNER_FRAGMENT,
                                                Reason.OTHER_PROTOCOL) else IN_UNCHECKABLE
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
    elif not walk.tunnel and inner.protocol == PROTO_TCP and is_merged(packet, inner):
        out.inner = IN_UNCHECKABLE
        out.reason = Reason.MERGED_BY_NIC
    else:
        out.inner = IN_WRONG
        if out.inner_found == 0:
            out.reason = Reason.NEVER_COMPUTED


cdef bint is_merged(const uint8_t *packet, const Layer *inner) noexcept nogil:
    """Whether a NIC's LRO merged this segment: longer than a wire's, under the right checksum of the first of them.

    That one filled a wire of 1,300 to 1,500 bytes or of 8,800 to 9,000; a wrong checksum looks like that 3 times in a
    thousand.
    """
    cdef uint32_t header = <uint32_t>(packet[inner.transport + TCP_OFFSET] >> 4) * 4
    cdef uint32_t first = inner.transport - inner.start + header     # bytes of the IP and TCP header
    cdef uint16_t total
    cdef uint32_t size, end
    cdef int jumbo
    if first + inner.covered - header <= COMMON_MTU or header < TCP_HEADER or header > inner.covered \
            or first > COMMON_MTU - MTU_RANGE:
        return False
    for jumbo in range(2):
        end = (JUMBO_MTU if jumbo else COMMON_MTU) - first      # bytes of payload that fill such a wire
        size = end - MTU_RANGE & ~1U
        if header + size >= inner.covered:
            return False
        total = add(sum_bytes(packet + inner.transport, header + size), pseudo_sum(packet, inner, header + size))
        while total != 0xffff and size < end and header + size + 2 < inner.covered:
            # two bytes more, in the sum and in the length of its pseudo-header
            total = add(add(total, be16(packet + inner.transport + header + size)), 2)
            size += 2
        if total == 0xffff:
            return True
    return False


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
        out.outer = OUT_ZERO if outer.version == 4 else OUT_ZERO6   # whatever is missing of the packet
    if outer.reason != Reason.NONE or out.outer == OUT_ZERO:
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
    if out.outer == OUT_ZERO6:                  # what it would be, should it be filled in
        if out.inner == IN_PARTIAL:
            total = add(subtract(total, out.inner_found), out.inner_right)
        out.outer_right = completed(total, PROTO_UDP)
        return
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
    cdef uint8_t outer = OUT_ZERO if judgement.outer in (OUT_NO_TUNNEL, OUT_ZERO6) else judgement.outer
    judgement.unverified = False
    if judgement.reason in (Reason.TRUNCATED, Reason.SUPER_PACKET, Reason.DEVICE_VERIFIED):
        judgement.diagnosis = UNCHECKABLE
        return
    if walk.tunnel and walk.outer.header_wrong:
        judgement.diagnosis = OUTER_IP_WRONG
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
    if judgement.diagnosis == SOUND:
        if judgement.outer == OUT_ZERO6:
            judgement.diagnosis = OUTER_ABSENT6
        elif judgement.reason == Reason.NOT_IP:
            judgement.diagnosis = UNCHECKABLE       # not looked into, so not called sound
    elif judgement.diagnosis == INNER_UNFINISHED:
        judgement.unverified = outer != OUT_GOOD      # a good outer was summed over the payload: it vouches for it
    elif judgement.diagnosis == BOTH_UNFINISHED or judgement.diagnosis == STALE_UNFINISHED:
        judgement.unverified = True
    elif judgement.diagnosis == OUTER_UNFINISHED or judgement.diagnosis == OUTER_STALE:
        judgement.unverified = inner == IN_NONE


cdef bint is_right_once_finished(const Walk *walk, const Judgement *judgement) noexcept nogil:
    """Whether nothing is wrong with a packet but that fields are their pseudo-header's sums."""
    return (judgement.inner in (IN_VERIFIES, IN_PARTIAL) and not walk.inner.header_wrong and not walk.outer.header_wrong
            and judgement.outer in (OUT_GOOD, OUT_AGREES, OUT_ZERO, OUT_ZERO6, OUT_PARTIAL, OUT_NO_TUNNEL))


cdef bint is_unfinished(const uint8_t *packet, const Walk *walk, const Judgement *judgement) noexcept nogil:
    """Whether the inner field is its pseudo-header's sum and not right, also where a device was believed unseen."""
    cdef const Layer *inner = &walk.inner
    cdef uint16_t found
    if judgement.reason != Reason.DEVICE_VERIFIED:
        return judgement.inner == IN_PARTIAL
    if inner.reason != Reason.NONE:
        return False
    found = be16(packet + inner.field)
    return found == pseudo_sum(packet, inner, inner.covered) or found == pseudo_sum(packet, inner, 0)
