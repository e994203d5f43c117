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
    memset(clock.memories, 0, sizeof(clock.memories))
    memset(clock.repliers, 0, sizeof(clock.repliers))
    clock.value = value
    clock.seen = now
    publish()
    clock.used = 1
    return clock


cdef uint32_t server_of(const Clocks *clocks, const uint8_t *address) noexcept nogil:
    """By what a server is known to the clocks of its sources: not 0."""
    return <uint32_t>hash_bytes(clocks.server_seed, address, 16) | 1


cdef bint bring_up(const Clock *clock, uint32_t server, uint32_t value, uint32_t now, uint32_t *delta) noexcept nogil:
    """What brings a SYN with the TSval `value` up to its source's clock: 0 for one that is ahead, or whose server has
    not replied to the source lately, since that one remembers nothing of it.

    False if it would need one, and gets 0, because the server's replies are known not to pass us. A SYN does not move
    the clock by itself: the server remembers of connections that were established. So a flood of SYNs with any TSvals
    cannot turn the clock round.
    """
    cdef const Memory *memory = memory_of(clock, server)
    cdef const Replier *replier = replier_of(clock, server)
    cdef uint32_t base = clock.value
    delta[0] = 0
    if is_remembered(memory, now) and (is_behind(base, memory.value) or not is_behind(value, base)
                                       and is_behind(value, memory.value)):
        base = memory.value                 # the clock, or this client, is more than half of the circle ahead of it
    if not is_behind(value, base) or replier == NULL:
        return True
    if replier.replied == 0:
        return False
    if now - (replier.replied - 1) <= REPLY_SECONDS:
        delta[0] = base - value
    return True


cdef void remember(Clock *clock, uint32_t server, uint32_t value, uint32_t now) noexcept nogil:
    """The server goes to TIME_WAIT, or may: tcp_remember_stamp (linux 4.11, net/ipv4/tcp_metrics.c)."""
    cdef uint32_t i
    cdef Memory *memory = memory_of(clock, server)
    if is_remembered(memory, now) and is_behind(value, memory.value):
        return
    if memory == NULL:
        memory = &clock.memories[0]
        for i in range(1, MEMORIES):
            if clock.memories[i].since < memory.since:
                memory = &clock.memories[i]
    memory.since = 0
    publish()
    memory.server = server
    memory.value = value
    publish()
    memory.since = now + 1


cdef void replied(Clock *clock, uint32_t server, uint32_t now) noexcept nogil:
    """A reply of this server to the source passes us. Who has not replied for longest gives way."""
    cdef Replier *replier = replier_of(clock, server)
    cdef Replier *ways = repliers_of(clock, server)
    cdef int i
    if replier == NULL:
        replier = ways
        for i in range(1, REPLIER_WAYS):
            if ways[i].replied < replier.replied:
                replier = &ways[i]
        replier.replied = 0
        publish()
        replier.server = server
        publish()
    replier.replied = now + 1


cdef void not_replied(Clock *clock, uint32_t server, uint32_t since) noexcept nogil:
    """The client goes on with what this server has not answered here: its replies to the source do not pass us.

    since: uptime of what was not answered. If the server has replied to another connection of the source since, its
    replies do pass, and this one was refused without a word, or never came from who it says.
    """
    cdef Replier *replier = replier_of(clock, server)
    if replier == NULL:
        replied(clock, server, since)
        replier = replier_of(clock, server)
    elif replier.replied and <int32_t>(replier.replied - 1 - since) > 0:
        return
    replier.replied = 0


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


cdef inline Memory *memory_of(const Clock *clock, uint32_t server) noexcept nogil:
    """What is known of this server's memory, or NULL."""
    cdef int i
    for i in range(MEMORIES):
        if clock.memories[i].since and clock.memories[i].server == server:
            return <Memory *>&clock.memories[i]
    return NULL


cdef inline Replier *repliers_of(const Clock *clock, uint32_t server) noexcept nogil:
    """The first of the REPLIER_WAYS places of one server."""
    return <Replier *>&clock.repliers[(server >> 1) % (REPLIERS // REPLIER_WAYS) * REPLIER_WAYS]


cdef inline Replier *replier_of(const Clock *clock, uint32_t server) noexcept nogil:
    """What is known of this server's replies, or NULL."""
    cdef Replier *ways = repliers_of(clock, server)
    cdef int i
    for i in range(REPLIER_WAYS):
        if ways[i].server == server:
            return &ways[i]
    return NULL


cdef inline bint is_remembered(const Memory *memory, uint32_t now) noexcept nogil:
    return memory != NULL and memory.since != 0 and now - (memory.since - 1) <= MEMORY_SECONDS
