# cython: language_level=3
"""What became of a packet: whether it was laundered, and where a wrong one was righted, why nobody could have told.

Laundered is a packet that a receiver would have thrown away, that left with checksums which all verify, and that
differs from what was sent in a protected byte: any but the outer UDP source port, checksum fields, the outer header's
TTL and class of service (over IPv6 its flow label too), and an inner IPv6 header's class, flow label and hop limit.
"""

from libc.stdint cimport uint8_t, uint32_t

from launder.receiver cimport Look
from launder.world cimport Packet


cdef enum:
    FATES = 16


cdef enum Fate:
    # it came damaged
    DROPPED = 0
    PASSED                   # as it came: its receiver throws it away
    INVISIBLE                # its receiver takes it, with or without fixer
    WHOLE                    # righted, and nothing protected was damaged
    PADDED                   # righted, and only the padding behind the inner packet was damaged
    NEUTRAL                  # righted: the inner checksum, which is there, verifies in spite of the damage
    CHANCE                   # righted: by chance a field was the pseudo-header's sum, or an outer one agreed
    WIPED                    # righted: the damage made a checksum field 0000, which means none
    UNVOUCHED                # righted: no sum ever covered what was damaged
    REGIME                   # righted: no inner checksum, and NAT has spoilt the outer one that covered it
    STRANGER                 # righted: over IPv6 an address and the envelope are damaged, and it is a pair of its own
    BEFORE                   # righted: damaged before the sender summed it
    LAUNDERED
    # whether it came damaged or not
    MEDDLED                  # other bytes than checksums and timestamps were changed
    SPOILT                   # an undamaged one was given back changed, with a checksum that is wrong
    LOST                     # an undamaged one, or one that only has no checksum yet, was dropped


cdef enum Region:            # where a damaged packet differs
    OUTER = 1
    ENVELOPE = 2
    INNER = 4                # bytes that an inner checksum covers
    INSIDE = 8               # bytes inside the inner packet that none covers
    PADDING = 16


cdef struct Case:
    const Packet *packet
    const uint8_t *meant     # as it would have arrived undamaged
    const uint8_t *came
    const uint8_t *left
    uint32_t size            # of what came and left
    bint before              # damaged before encapsulation
    bint unfinished          # the kernel says CSUMNOTREADY
    bint zero6               # an outer zero over IPv6 is taken


cdef uint32_t regions(const Packet *packet, const uint8_t *meant, const uint8_t *came, uint32_t size) noexcept nogil
cdef bint meddled(const Case *case, const Look *came, bint stamps) noexcept nogil
cdef Fate righted(const Case *case, const Look *came) noexcept nogil
