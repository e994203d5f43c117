# cython: language_level=3
"""One clock for each source: how far its timestamps have come, and what brings the next connection up to that.

A source's clock is the highest TSval that a server has shown to have seen of it, by echoing it or by a handshake that
acknowledges its SYN-ACK, and the delta of a new connection what its SYN is behind that. Whoever sends a stray segment,
without seeing what is answered, moves no clock and makes none.

TSvals lie on a circle, and offsets drawn at random for each connection lie all around it: the clock may then be more
than half of the circle ahead of what the server remembers, and what is further ahead than that is *behind* to the
server. So what each server remembers is followed too (it does so when a connection that it closed first comes to its
end), and has the last word.

Only a connection whose replies pass us may be shifted, and that is a matter of its server: so of the last servers of
each source it is known when they replied.

The clocks lie in memory that is handed in, as part of the flow table (flows.pxd); what identifies one is covered by a
check, and one store makes it valid.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

cdef extern from *:
    """
    /* What is written before it is in memory before what is written behind it: we may be killed in between. */
    #define publish() __asm__ __volatile__("" ::: "memory")
    """
    void publish() noexcept nogil


cdef enum:
    CLOCK = 648             # bytes
    CLOCK_WAYS = 4          # places where a source's clock may be
    MEMORIES = 8            # servers of one source whose memory is followed
    REPLIERS = 64           # servers of one source of which it is known when they replied
    REPLIER_WAYS = 8        # places where one of them may be: a cache line

    HALF_CIRCLE = 0x80000000U   # half of the numbers that a TSval may be

    # Seconds.
    CLOCK_SECONDS = 300     # how long a source is kept that nobody hears of
    MEMORY_SECONDS = 60     # TCP_PAWS_MSL: how long a server remembers a source
    REPLY_SECONDS = 120     # how old a server's last reply may be for its replies to pass us; it remembers half as long


cdef struct Memory:
    # What one server remembers of a source, if it does as tcp_remember_stamp did.
    uint32_t server         # of its address, 32 bits of a hash
    uint32_t value          # TSval
    uint32_t since          # uptime + 1; 0: nothing


cdef struct Replier:
    uint32_t server         # of its address, 32 bits of a hash; 0: nobody
    uint32_t replied        # uptime of its last reply to the source + 1; 0: replies are known not to pass us


cdef struct Clock:
    # One source.
    uint8_t address[16]     # network order; IPv4 in the first four bytes
    uint32_t where          # as in flows.Key
    uint32_t check          # of the two above
    uint32_t value          # the highest TSval that a server is known to have seen of the source
    uint32_t seen           # uptime, seconds
    uint32_t reserved       # so that a set fills whole cache lines
    uint32_t used           # 0 or 1
    Memory memories[MEMORIES]
    Replier repliers[REPLIERS]


cdef struct Clocks:
    Clock *all              # `most` of them
    uint32_t most           # in whole sets of CLOCK_WAYS
    uint64_t seed           # of the hashes
    uint64_t server_seed    # of those by which servers are known, which whoever adopts a table takes over


cdef Clock *find_clock(const Clocks *clocks, const uint8_t *address, uint32_t where) noexcept nogil
cdef Clock *room_for_clock(const Clocks *clocks, const uint8_t *address, uint32_t where, uint32_t now) noexcept nogil
cdef Clock *add_clock(const Clocks *clocks, const uint8_t *address, uint32_t where, uint32_t value,
                      uint32_t now) noexcept nogil
cdef uint32_t server_of(const Clocks *clocks, const uint8_t *address) noexcept nogil
cdef bint bring_up(const Clock *clock, uint32_t server, uint32_t value, uint32_t now, uint32_t *delta) noexcept nogil
cdef void remember(Clock *clock, uint32_t server, uint32_t value, uint32_t now) noexcept nogil
cdef void replied(Clock *clock, uint32_t server, uint32_t now) noexcept nogil
cdef void not_replied(Clock *clock, uint32_t server, uint32_t since) noexcept nogil
cdef void adopt_clocks(const Clocks *clocks, const Clocks *others, uint32_t now, uint32_t *damaged,
                       uint32_t *left) noexcept nogil


cdef inline bint is_behind(uint32_t value, uint32_t other) noexcept nogil:
    """RFC 7323 §5.2: `value` is 1 to 2^31 − 1 before `other`, where numbers lie on a circle."""
    return 0 < other - value < HALF_CIRCLE


cdef inline Clock *clock_at(const Clocks *clocks, const uint8_t *address, uint32_t where,
                            uint32_t *number) noexcept nogil:
    """A source's clock, or NULL: at `number` if that is still its place, or else searched for and the number set."""
    cdef Clock *clock
    if number[0] < clocks.most:
        clock = &clocks.all[number[0]]
        if clock.used == 1 and clock.where == where and memcmp(clock.address, address, 16) == 0:
            return clock
    clock = find_clock(clocks, address, where)
    if clock != NULL:
        number[0] = <uint32_t>(clock - clocks.all)
    return clock


cdef inline void move_clock(Clock *clock, uint32_t value, uint32_t now) noexcept nogil:
    """The server saw `value`: the source's clock is that, unless it was ahead already."""
    if is_behind(clock.value, value):
        clock.value = value
    clock.seen = now
