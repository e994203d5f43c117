# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from launder.receiver cimport (IN_BAD, IN_GOOD, IN_NONE, IN_PSEUDO, OUT_AGREES, OUT_GOOD, OUT_PSEUDO, OUT_ZERO, look)
from launder.sums cimport fold, get16, words
from launder.world cimport COMPLETE, MOST, NO_SUM, PORT, PSEUDO, STRAIGHT, UNFINISHED, ZERO, seal


cdef uint32_t regions(const Packet *packet, const uint8_t *meant, const uint8_t *came, uint32_t size) noexcept nogil:
    """In which protected regions the two differ."""
    cdef uint32_t i, found = PADDING if size != packet.length else 0
    if size < packet.end:
        found |= INNER
    for i in range(min(size, packet.length)):
        if meant[i] != came[i]:
            found |= region(packet, i, meant[i] ^ came[i])
    return found


cdef inline uint32_t region(const Packet *packet, uint32_t at, uint8_t changed) noexcept nogil:
    """Of the byte `at`, or 0 if it is not protected."""
    cdef uint32_t inside
    if at < packet.udp:
        if packet.underlay == 4:
            return 0 if at == 1 or at == 8 or at == 10 or at == 11 else OUTER
        return 0 if at in (1, 2, 3, 7) or (at == 0 and changed < 16) else OUTER
    if at < packet.vxlan:
        inside = at - packet.udp
        return 0 if inside < 2 or inside > 5 else OUTER
    if at < packet.ip:
        return ENVELOPE
    if at >= packet.end:
        return PADDING
    if at >= packet.covered:
        return INSIDE
    if at >= packet.transport:
        if packet.field and (at == packet.field or at == packet.field + 1):
            return 0
        return INNER if packet.field else INSIDE
    inside = at - packet.ip
    if packet.version == 4:
        return 0 if inside == 10 or inside == 11 else INNER
    if inside in (1, 2, 3, 7) or (inside == 0 and changed < 16):
        return 0
    # Of the fixed header the pseudo-header has the addresses. The length is checked by the transport's where that has
    # none of its own; what is next, where that is the transport.
    if inside >= 40 or (inside == 6 and packet.transport > packet.ip + 40) \
            or ((inside == 4 or inside == 5) and packet.protocol == 17):
        return INSIDE
    return INNER


cdef bint meddled(const Case *case, const Look *came, bint stamps) noexcept nogil:
    """Whether other bytes were changed than checksums (and, with `stamps`, TCP options)."""
    cdef uint32_t i
    for i in range(case.size):
        if case.came[i] != case.left[i] and not (
                (came.outer_field and (i == came.outer_field or i == came.outer_field + 1))
                or (came.inner_field and (i == came.inner_field or i == came.inner_field + 1))
                or (stamps and came.options <= i < came.options_end)):
            return True
    return False


cdef bint only_lengths(const Case *case) noexcept nogil:
    """Whether the damage, in the outer headers alone, is that of another packet: an IPv4 header whose own checksum is
    right with another length and identification, and UDP's length with it. What is behind them may be padded less."""
    cdef const Packet *packet = case.packet
    cdef uint32_t i
    if packet.underlay != 4 or fold(words(case.came, packet.udp)) != 0xffff:
        return False
    for i in range(packet.vxlan):
        if case.meant[i] != case.came[i] and i not in (1, 2, 3, 4, 5, 8, 10, 11) \
                and not packet.udp <= i < packet.udp + 2 and not packet.udp + 4 <= i < packet.vxlan:
            return False
    return True


cdef Fate righted(const Case *case, const Look *came) noexcept nogil:
    """Of a damaged packet that its receiver takes as it left and not as it came."""
    cdef const Packet *packet = case.packet
    cdef uint32_t where = regions(packet, case.meant, case.came, case.size)
    cdef bint covered                   # all damage is in what the inner checksum covers
    cdef bint same                      # as the sender left it, nothing would have been against the damage
    cdef Look sent, damaged, meant
    if where == 0:
        return WHOLE
    if where == PADDING or (where == OUTER and only_lengths(case)):
        return PADDED
    covered = not where & (OUTER | ENVELOPE | INSIDE)
    if came.outer == OUT_ZERO and get16(case.meant + packet.udp + 6) != 0:
        return WIPED
    if came.inner == IN_NONE and packet.field and came.inner_field and get16(case.came + came.inner_field) == 0:
        return WIPED
    if came.outer == OUT_PSEUDO and packet.sent != PSEUDO:
        return CHANCE
    as_sent(case, &sent, &damaged)
    if (packet.sent == PSEUDO and came.outer == OUT_PSEUDO and sent.outer in (OUT_GOOD, OUT_AGREES)) \
            or (packet.inner == UNFINISHED and came.inner == IN_PSEUDO and sent.inner == IN_GOOD):
        return CHANCE                   # what the sender never computed was right all the same
    if came.outer == OUT_GOOD and sent.outer != OUT_GOOD:
        return CHANCE
    if case.before:
        if packet.inner == COMPLETE and came.inner == IN_PSEUDO:
            return CHANCE
        return LAUNDERED if damaged.inner == IN_BAD else BEFORE
    if came.outer == OUT_AGREES and sent.outer != OUT_AGREES:
        return CHANCE
    same = sent.outer == damaged.outer and sent.inner == damaged.inner
    # A sum that the sender made over what is damaged is off by what it would be off by anyway: it sees nothing.
    look(case.meant, packet.length, &meant)
    if sent.outer == OUT_GOOD and came.total == meant.total and came.inner != IN_BAD:
        return NEUTRAL
    if sent.outer == OUT_AGREES and came.finished == meant.finished and where & (OUTER | ENVELOPE):
        return NEUTRAL
    if packet.underlay == 6 and where & OUTER and where & ENVELOPE and came.inner == IN_GOOD:
        return STRANGER
    # Where NAT or a NIC has made a wrong field of none, or of no sum, righting it vouches for the envelope.
    if packet.cause != STRAIGHT and where & (OUTER | ENVELOPE):
        return LAUNDERED
    if packet.inner != NO_SUM and came.inner == IN_GOOD and covered:
        return NEUTRAL
    if packet.inner == COMPLETE and came.inner == IN_PSEUDO \
            and (covered or (sent.outer == OUT_ZERO and damaged.outer == OUT_ZERO)):
        return CHANCE
    if packet.sent == PSEUDO and came.outer == OUT_PSEUDO and came.inner == IN_NONE:
        return UNVOUCHED
    if same and packet.cause == STRAIGHT and (packet.sent == ZERO or packet.sent == PSEUDO):
        return UNVOUCHED
    if same and packet.inner != COMPLETE:
        return UNVOUCHED
    if packet.inner == NO_SUM and packet.cause == PORT and came.inner == IN_NONE:
        return REGIME
    return LAUNDERED


cdef void as_sent(const Case *case, Look *sent, Look *damaged) noexcept nogil:
    """What a receiver next to the sender would have seen, without the damage and with it."""
    cdef uint8_t[MOST] bytes
    cdef uint32_t i
    memcpy(bytes, case.meant, case.packet.length)
    seal(case.packet, bytes, False)
    look(bytes, case.packet.length, sent)
    if case.before:
        memcpy(bytes, case.came, case.packet.length)
        seal(case.packet, bytes, False)
    else:
        for i in range(min(case.size, case.packet.length)):
            bytes[i] ^= case.meant[i] ^ case.came[i]
    look(bytes, case.packet.length, damaged)
