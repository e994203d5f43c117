# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from libc.stdint cimport int32_t
from libc.string cimport memcpy, memset

from fixer.datapath.hash cimport hash_bytes, mix


cdef inline uint64_t hash_of(const Clocks *clocks, const uint8_t *address, uint32_t where) noexcept nogil:
    return mix(hash_bytes(clocks.seed, address, 16) ^ where)


cdef inline uint32_t check_of(uint64_t hashed) noexcept nogil:
    return <uint32_t>(hashed >> 32)


cdef inline Clock *set_of(const Clocks *clocks, uint64_t hashed) noexcept nogil:
    """The first of the CLOCK_WAYS places of one hash."""
    return clocks.all + <size_t>(<uint32_t>hashed % (clocks.most // CLOCK_WAYS)) * CLOCK_WAYS


cdef inline bint is_whole(const Clocks *clocks, const Clock *clock) noexcept nogil:
    return clock.used == 1 and clock.check == check_of(hash_of(clocks, clock.address, clock.where))


cdef Clock *find_clock(const Clocks *clocks, const uint8_t *address, uint32_t where) noexcept nogil:
    """The clock of a source, or NULL."""
    cdef uint64_t hashed = hash_of(clocks, address, where)
    cdef Clock *ways = set_of(clocks, hashed)
    cdef int i
    for i in range(CLOCK_WAYS):
        if ways[i].used == 1 and ways[i].where == where and memcmp(ways[i].address, address, 16) == 0 \
                and ways[i].check == check_of(hashed):
            return &ways[i]
    return NULL


cdef Clock *room_for_clock(const Clocks *clocks, const uint8_t *address, uint32_t where,
                           uint32_t now) noexcept nogil:
    """A free place for a source's clock, or one that every server has forgotten; NULL if there is none."""
    cdef Clock *ways = set_of(clocks, hash_of(clocks, address, where))
    cdef Clock *oldest = NULL
    cdef int i
    for i in range(CLOCK_WAYS):
        if not is_whole(clocks, &ways[i]):
            return &ways[i]
        if <int32_t>(now - ways[i].seen) > CLOCK_SECONDS and (oldest == NULL or ways[i].seen < oldest.seen):
            oldest = &ways[i]
    return oldest


cdef Clock *add_clock(const Clocks *clocks, const uint8_t *address, uint32_t where, uint32_t value,
                      uint32_t now) noexcept nogil:
    """A clock for a source that has none, which begins at `value`; NULL if there is no room."""
    cdef Clock *clock = room_for_clock(clocks, address, where, now)
    if clock == NULL:
        return NULL
    clock.used = 0
    publish()
    memcpy(clock.address, address, 16)
    clock.where = where
    clock.check = check_of(hash_of(clocks, address, where))
    clock.replied = 0
    memset(clock.memories, 0, sizeof(clock.memories))
    clock.value = value
    clock.seen = now
    publish()
    clock.used = 1
    return clock


cdef bint bring_up(Clock *clock, const uint8_t *server, uint32_t value, uint32_t now, uint32_t *delta) noexcept nogil:
    """What brings a SYN with the TSval `value` up to its source's clock: 0 for one that is ahead.

    False if it would need one, and gets 0, because its source has no way back. A SYN does not move the clock by itself:
    the server remembers of connections that were established. So a flood of SYNs with any TSvals cannot turn the clock
    round.
    """
    cdef const Memory *memory = memory_of(clock, server_of(server))
    cdef uint32_t base = clock.value
    delta[0] = 0
    if is_remembered(memory, now) and (is_behind(base, memory.value) or not is_behind(value, base)
                                       and is_behind(value, memory.value)):
        base = memory.value                 # the clock, or this client, is more than half of the circle ahead of it
    if not is_behind(value, base):
        return True
    if clock.replied == 0 or now - (clock.replied - 1) > REPLY_SECONDS:
        # Without a segment for so long the server has forgotten it, and nothing is missing.
        return now - clock.seen > REPLY_SECONDS
    delta[0] = base - value
    return True


cdef void remember(Clock *clock, const uint8_t *server, uint32_t value, uint32_t now) noexcept nogil:
    """The server goes to TIME_WAIT, or may: tcp_remember_stamp (linux 4.11, net/ipv4/tcp_metrics.c)."""
    cdef uint32_t hashed = server_of(server), i
    cdef Memory *memory = memory_of(clock, hashed)
    if is_remembered(memory, now) and is_behind(value, memory.value):
        return
    if memory == NULL:
        memory = &clock.memories[0]
        for i in range(1, MEMORIES):
            if clock.memories[i].since < memory.since:
                memory = &clock.memories[i]
    memory.since = 0
    publish()
    memory.server = hashed
    memory.value = value
    publish()
    memory.since = now + 1


cdef void adopt_clocks(const Clocks *clocks, const Clocks *others, uint32_t now, uint32_t *damaged,
                       uint32_t *left) noexcept nogil:
    """Take over what others hold, whatever their number and seed; what is damaged, and what has no room, is counted."""
    cdef const Clock *clock
    cdef Clock *room
    cdef uint32_t i
    for i in range(others.most):
        clock = &others.all[i]
        if clock.used == 0:
            continue
        if not is_whole(others, clock) or clock.seen > now:
            damaged[0] += 1
            continue
        room = room_for_clock(clocks, clock.address, clock.where, now)
        if room == NULL:
            left[0] += 1
            continue
        room[0] = clock[0]
        room.check = check_of(hash_of(clocks, room.address, room.where))


cdef inline uint32_t server_of(const uint8_t *address) noexcept nogil:
    return <uint32_t>hash_bytes(0, address, 16)


cdef inline Memory *memory_of(Clock *clock, uint32_t server) noexcept nogil:
    """What is known of this server's memory, or NULL."""
    cdef int i
    for i in range(MEMORIES):
        if clock.memories[i].since and clock.memories[i].server == server:
            return &clock.memories[i]
    return NULL


cdef inline bint is_remembered(const Memory *memory, uint32_t now) noexcept nogil:
    return memory != NULL and memory.since != 0 and now - (memory.since - 1) <= MEMORY_SECONDS
