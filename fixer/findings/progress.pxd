# cython: language_level=3
"""How far one side of a TCP connection gets: what of it is acknowledged, and what is sent again in vain.

Where long segments vanish and short ones do not, the first long one is sent again and again, its number is never
acknowledged, and nothing as long ever is. So three lengths tell: of what comes again, of the longest that was
acknowledged (`through`, rather too long than too short), of the longest on its way.
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t


cdef enum:
    PAUSE = 5000000          # ns: what comes again sooner is one packet, captured on two devices


cdef struct Progress:
    uint64_t when            # of its last repetition, nanoseconds since the epoch, 0: unknown
    uint64_t frame           # number of its first repetition in the capture
    uint32_t next            # behind the last byte that was sent; valid if `sent`
    uint32_t upto            # acknowledged by the other side; valid if `acked`
    uint32_t flight          # bytes of the longest payload since everything was acknowledged
    uint32_t through         # no payload that arrived had more bytes
    uint32_t again           # where the first segment begins that came again, unacknowledged; valid if `repeats`
    uint32_t payload         # its bytes
    uint32_t repeats         # how often it came again, each time later by PAUSE
    uint32_t heard           # packets of the other side since it came again for the second time
    bint sent
    bint acked


cdef inline bint is_later(uint64_t when, uint64_t before) noexcept nogil:
    """Whether what comes again was sent again, as far as the capture knows the time."""
    return when == 0 or when >= before + PAUSE or when < before


cdef inline void progress_send(Progress *here, uint32_t begin, uint32_t payload, bint sound, uint64_t when,
                               uint64_t frame) noexcept nogil:
    """A segment with payload goes out. What is not sound proves nothing by coming again."""
    cdef uint32_t end = begin + payload
    if payload > here.flight:
        here.flight = payload
    if not here.sent or <int32_t>(begin - here.next) >= 0:
        here.sent = True
        here.next = end
        return
    if <int32_t>(end - here.next) > 0:
        here.next = end
    if not sound or (here.acked and <int32_t>(here.upto - end) >= 0):
        return
    if here.repeats and begin == here.again:
        if is_later(when, here.when):
            here.repeats += 1
            here.when = when
            here.payload = min(here.payload, payload)
    elif not here.repeats or <int32_t>(begin - here.again) < 0:
        here.again = begin
        here.payload = payload
        here.repeats = 1
        here.heard = 0
        here.when = when
        here.frame = frame


cdef inline void progress_acknowledge(Progress *here, uint32_t acknowledged) noexcept nogil:
    """The other side acknowledges all before a number."""
    cdef uint32_t most
    if here.repeats > 1:
        here.heard += 1
    if here.acked and <int32_t>(acknowledged - here.upto) <= 0:
        return
    most = acknowledged - here.upto if here.acked else here.flight
    if not here.sent or <int32_t>(acknowledged - here.next) >= 0:
        most = here.flight
    here.through = max(here.through, min(here.flight, most))
    here.upto = acknowledged
    here.acked = True
    if not here.sent or <int32_t>(acknowledged - here.next) >= 0:
        here.flight = 0
    if here.repeats and <int32_t>(acknowledged - here.again) > 0:
        here.repeats = 0


cdef inline void progress_sack(Progress *here, uint32_t bytes) noexcept nogil:
    """The other side has so many bytes behind a hole (RFC 2018)."""
    here.through = max(here.through, min(here.flight, bytes))
