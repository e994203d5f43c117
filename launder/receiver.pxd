# cython: language_level=3
"""What a receiver that checks everything in software sees in a packet: RFC 768, 791, 792, 1071, 4443, 7348, 8200, 9293.

Written from these, next to nothing of it shared with fixer's own walk; it need not be fast and it knows fewer formats:
those that `world` makes and what damage turns them into. Where it does not understand, it takes the packet for one
that is thrown away.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef enum InnerSum:
    IN_UNREADABLE = 0        # thrown away: a header that contradicts itself, or a wrong IPv4 header checksum
    IN_NONE                  # none to check
    IN_GOOD
    IN_PSEUDO                # the field is the pseudo-header's sum
    IN_BAD


cdef enum OuterSum:
    OUT_UNREADABLE = 0
    OUT_ZERO
    OUT_GOOD
    OUT_AGREES               # good once an unfinished inner segment is finished
    OUT_PSEUDO
    OUT_BAD


cdef struct Look:
    uint8_t outer            # OuterSum
    uint8_t inner            # InnerSum
    uint8_t version          # of the outer header
    uint8_t protocol         # of the inner packet, where it has a checksum
    uint16_t total           # the outer sum, of which ffff is right; valid if `outer` is neither unreadable nor zero …
    uint16_t finished        # … and what it is once an unfinished inner segment is finished
    uint32_t outer_field     # offsets, 0: none
    uint32_t inner_field
    uint32_t options         # of an inner TCP header …
    uint32_t options_end     # … up to here


cdef void look(const uint8_t *packet, uint32_t size, Look *out) noexcept nogil
cdef bint takes(const Look *seen, bint unfinished, bint zero6) noexcept nogil
