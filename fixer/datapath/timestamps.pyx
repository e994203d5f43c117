# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from libc.string cimport memcmp, memset

from fixer._csum cimport sum_bytes, updated
from fixer.datapath.walk cimport Reason
from fixer.datapath.wire cimport *


cdef bint concerns(const Timestamps *policy, const uint8_t *packet, const Walk *walk) noexcept nogil:
    """Whether this is the SYN of a configured source, or a SYN-ACK to one where those are asked for."""
    cdef uint8_t flags
    if not policy.strip or walk.inner.reason != Reason.NONE or walk.inner.protocol != PROTO_TCP:
        return False
    flags = packet[walk.inner.transport + TCP_FLAGS] & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)
    if flags == TCP_SYN:
        return matches(policy, packet + walk.inner.source, walk.inner.version)
    if flags == (TCP_SYN | TCP_ACK) and policy.syn_ack:
        return matches(policy, packet + walk.inner.destination, walk.inner.version)
    return False


cdef bint matches(const Timestamps *policy, const uint8_t *address, uint8_t version) noexcept nogil:
    cdef const Prefix *prefix
    cdef uint8_t i, whole, rest
    for i in range(policy.count):
        prefix = &policy.sources[i]
        whole = prefix.bits >> 3
        rest = prefix.bits & 7
        if prefix.version == version and memcmp(prefix.address, address, whole) == 0 \
                and (rest == 0 or (prefix.address[whole] ^ address[whole]) >> (8 - rest) == 0):
            return True
    return False


cdef Stripped look(const uint8_t *packet, const Walk *walk, uint32_t *option) noexcept nogil:
    """Walk the options to their end (RFC 9293 §3.1); `option` becomes the timestamps' offset if it is STRIPPED.

    `walk` must have `concerns`.
    """
    cdef uint32_t at = walk.inner.transport + TCP_HEADER
    cdef uint32_t end = walk.inner.transport + (packet[walk.inner.transport + TCP_OFFSET] >> 4) * 4
    cdef uint8_t kind, length
    cdef bint authenticated = False
    option[0] = 0
    if end < at or end > walk.inner.transport + walk.inner.covered:
        return Stripped.MALFORMED
    while at < end and packet[at] != TCP_OPTION_END:
        kind = packet[at]
        if kind == TCP_OPTION_NOP:
            at += 1
            continue
        if at + 2 > end:
            return Stripped.MALFORMED
        length = packet[at + 1]
        if length < 2 or at + length > end:
            return Stripped.MALFORMED
        if kind == TCP_OPTION_AO:
            authenticated = True
        elif kind == TCP_OPTION_TIMESTAMPS:
            if length != TCP_TIMESTAMPS_LENGTH or option[0]:
                return Stripped.MALFORMED
            option[0] = at
        at += length
    if not option[0]:
        return Stripped.WITHOUT
    return Stripped.AUTHENTICATED if authenticated else Stripped.STRIPPED


cdef void strip(uint8_t *packet, const Walk *walk, uint32_t option) noexcept nogil:
    """NOPs for the timestamps at `option`; both layers' checksums follow, whether they were right or wrong."""
    cdef uint32_t start = walk.inner.transport + TCP_HEADER
    cdef uint32_t length = (packet[walk.inner.transport + TCP_OFFSET] >> 4) * 4 - TCP_HEADER
    cdef uint16_t before = sum_bytes(packet + start, length), after
    cdef uint16_t inner = be16(packet + walk.inner.field), outer
    memset(packet + option, TCP_OPTION_NOP, TCP_TIMESTAMPS_LENGTH)
    after = sum_bytes(packet + start, length)
    put_be16(packet + walk.inner.field, updated(inner, before, after))
    if not walk.tunnel:
        return
    outer = be16(packet + walk.outer.field)
    if outer:                               # zero is none, and stays
        outer = updated(updated(outer, before, after), inner, be16(packet + walk.inner.field))
        put_be16(packet + walk.outer.field, outer if outer else 0xffff)
