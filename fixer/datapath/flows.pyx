# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from libc.stdint cimport int32_t
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy, memset

from fixer.datapath.clocks cimport (
    CLOCK, CLOCK_WAYS, HALF_CIRCLE, add_clock, adopt_clocks, bring_up, clock_at, find_clock, move_clock, not_replied,
    publish, remember, replied, room_for_clock, server_of,
)
from fixer.datapath.hash cimport hash_bytes, mix, seed_or_drawn
from fixer.datapath.wire cimport TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, address_text
from fixer.datapath.zeroed cimport zeroed

cdef extern from *:
    void __builtin_prefetch(const void *) noexcept nogil
    int __builtin_ctz(unsigned int) noexcept nogil

cdef const char *MAGIC = b"FIXFLOWS"


cdef uint64_t announce(const FlowTable *table, const Key *key) noexcept nogil:
    """A segment with this key is going to be asked about: memory is told to bring its entry. Returns the key's hash."""
    cdef uint64_t hashed = hash_of(table, key)
    cdef uint16_t tag = tag_of(hashed)
    cdef uint32_t first, found
    cdef int which
    for which in range(2):
        first = bucket(table, hashed, which)
        found = tagged(table, tag, first)
        if found:
            __builtin_prefetch(&table.flows[first + __builtin_ctz(found)])
    return hashed


cdef Verdict forward(FlowTable *table, const Segment *segment, uint64_t hashed, uint32_t now,
                     uint32_t *delta) noexcept nogil:
    """A segment of a client, whose key was `announce`d: what is to be added to its TSval."""
    cdef Flow *flow = find(table, &segment.key, hashed, now)
    cdef Attempt *attempt
    cdef Clock *clock
    cdef uint32_t seen
    delta[0] = 0
    if segment.flags & (TCP_SYN | TCP_ACK | TCP_RST) == TCP_SYN:
        return open_(table, segment, hashed, flow, now, delta)
    if flow == NULL:
        return Verdict.UNTRACKED
    seen = flow.seen
    if flow.state != State.CLOSED:
        flow.seen = now
    if flow.life & WAITING and segment.sequence == other_of(table, flow).sequence + 1:
        one_way(table, flow, other_life(flow), seen)
    elif flow.state == State.SYN_SENT and 0 < segment.sequence - current_of(table, flow).sequence < FIRST_WINDOW:
        one_way(table, flow, flow.life, seen)
    attempt = current_of(table, flow)
    if segment.flags & TCP_RST:
        if flow.state != State.CLOSED:
            flow.was = flow.state
            change(table, flow, State.CLOSED, flow.life)
    elif segment.flags & TCP_ACK and not flow.life & WAITING:
        if flow.state == State.SYN_RECEIVED and segment.acknowledged - awaited(table, flow)[0] < FIRST_WINDOW:
            change(table, flow, State.ESTABLISHED, flow.life)
            if segment.stamped:
                clock = saw(table, &segment.key, flow, segment.value + attempt.delta, now)
                if clock != NULL:
                    replied(clock, server_of(&table.clocks, segment.key.server), now)
        elif segment.stamped and flow.fins & SERVER_FIRST and segment.acknowledged == awaited(table, flow)[0]:
            clock = saw(table, &segment.key, flow, segment.value + attempt.delta, now)
            if clock != NULL:
                remember(clock, server_of(&table.clocks, segment.key.server), segment.value + attempt.delta, now)
    if segment.flags & TCP_FIN:
        closing(table, flow, CLIENT_FIN)
    delta[0] = attempt.delta
    return Verdict.TRACKED


cdef Verdict reply(FlowTable *table, const Segment *segment, uint64_t hashed, uint32_t now,
                   uint32_t *delta) noexcept nogil:
    """A segment to a client, whose key was `announce`d: what is to be taken off its TSecr."""
    cdef Flow *flow = find(table, &segment.key, hashed, now)
    cdef uint32_t server = server_of(&table.clocks, segment.key.server)
    # Some send TSecr 0 with an ACK: that is no timestamp of the client's.
    cdef bint believed = segment.echoed != 0 and segment.flags & (TCP_SYN | TCP_ACK | TCP_RST) == TCP_ACK
    cdef Clock *clock
    cdef Attempt *attempt
    delta[0] = 0
    if believed:
        clock = saw(table, &segment.key, flow, segment.echoed, now)
    else:
        clock = clock_of(table, &segment.key, flow)
    if clock != NULL:
        replied(clock, server, now)
    if flow == NULL and clock != NULL and believed:
        remember(clock, server, segment.echoed, now)    # it may be past its end, which we have not seen
        flow = enter(table, segment, hashed, now)
    if flow == NULL:
        return Verdict.UNTRACKED
    if flow.state != State.CLOSED:
        flow.seen = now
    if flow.life & WAITING:
        attempt = other_of(table, flow)
        if segment.flags & TCP_ACK and 0 < segment.acknowledged - attempt.sequence < FIRST_WINDOW:
            if segment.flags & TCP_SYN:
                flow.fins = 0
                flow.seen = now
                change(table, flow, State.SYN_RECEIVED, other_life(flow))
                awaited(table, flow)[0] = segment.sequence + 1
            elif segment.flags & TCP_RST:
                flow.life &= SECOND     # refused
                return Verdict.TRACKED
    attempt = current_of(table, flow)
    if segment.flags & TCP_RST:
        flow.was = State.CLOSED     # the server itself has given it up
        change(table, flow, State.CLOSED, flow.life)
    elif segment.flags & TCP_SYN:
        if flow.state == State.SYN_SENT:
            change(table, flow, State.SYN_RECEIVED, flow.life)
            awaited(table, flow)[0] = segment.sequence + 1
    elif flow.state == State.SYN_RECEIVED:
        change(table, flow, State.ESTABLISHED, flow.life)   # it has believed what we could not tell to be right
    elif flow.state == State.CLOSED and flow.was != State.CLOSED and now - flow.seen >= DISBELIEF_SECONDS:
        flow.seen = now
        change(table, flow, flow.was, flow.life)    # the server did not believe the client's RST (RFC 5961 §3.2)
    if segment.flags & TCP_FIN:
        if flow.fins == 0 and not flow.life & WAITING:
            # With the acknowledgement of this FIN the server goes to TIME_WAIT.
            awaited(table, flow)[0] = segment.sequence + segment.length + 1
            flow.fins = SERVER_FIRST
        closing(table, flow, SERVER_FIN)
    delta[0] = attempt.delta
    return Verdict.TRACKED


cdef void sweep(FlowTable *table, uint32_t now) noexcept nogil:
    """To be called about once a second: a SWEEPS-th of the entries is looked at, and those whose time is over go."""
    cdef uint32_t _entry
    for _entry in range(table.slots // SWEEPS + 1):
        step(table, now)


cdef Verdict open_(FlowTable *table, const Segment *segment, uint64_t hashed, Flow *flow, uint32_t now,
                   uint32_t *delta) noexcept nogil:
    """A SYN: one that was seen before keeps its delta, another one is an attempt of its own."""
    cdef Verdict verdict = Verdict.OPENED
    cdef Attempt *attempt
    cdef uint32_t chosen
    cdef uint8_t i
    if not segment.stamped:
        return Verdict.UNTRACKED
    if flow != NULL:
        for i in range(2 if flow.life & WAITING else 1):
            attempt = attempt_of(table, flow, flow.life ^ i)
            if attempt.sequence == segment.sequence:
                # Of the same five-tuple the server still had a connection in TIME_WAIT, or half open, and challenged:
                # the client has answered with a RST, and sends the same SYN again (RFC 9293 §3.10.7.3; RFC 5961 §4).
                if i == 0 and flow.state == State.CLOSED and flow.was in (State.SYN_SENT, State.SYN_RECEIVED):
                    # A server that has never answered it has nothing of it, and may remember a later clock than when
                    # it first came: it is brought up to that. But a drain shifts nothing anew.
                    if flow.was == State.SYN_SENT and not table.header.draining:
                        break
                    flow.was = 0
                    change(table, flow, State.SYN_SENT, flow.life)
                delta[0] = attempt.delta
                flow.seen = now
                return Verdict.TRACKED
    if table.header.draining:
        if flow == NULL:
            return Verdict.DRAINING
        verdict = Verdict.DRAINING
        chosen = 0
    else:
        verdict = choose(table, segment, now, &chosen)
        if verdict == Verdict.FULL and flow == NULL:
            return verdict
    if flow == NULL:
        flow = take(table, hashed, now)
        if flow == NULL:
            return Verdict.FULL
        flow.key = segment.key
        flow.life = flow.fins = flow.was = 0
        set_attempt(&flow.attempt, segment, hashed, chosen)
    elif flow.state in (State.SYN_SENT, State.TIME_WAIT, State.CLOSED):     # nothing lives that this could harm
        flow.state = State.FREE
        publish()
        set_attempt(&flow.attempt, segment, hashed, chosen)
        flow.life = flow.fins = flow.was = 0
    else:
        flow.life &= SECOND
        publish()
        set_attempt(other_of(table, flow), segment, hashed, chosen)
        publish()
        flow.life |= WAITING
        flow.seen = now
        delta[0] = chosen
        return verdict
    flow.seen = now
    publish()
    flow.state = State.SYN_SENT
    delta[0] = chosen
    return verdict


cdef Flow *enter(FlowTable *table, const Segment *segment, uint64_t hashed, uint32_t now) noexcept nogil:
    """A connection that was there before, by a reply of its server: with delta 0, so that its end is seen. Or NULL."""
    cdef Flow *flow = take(table, hashed, now)
    if flow == NULL:
        return NULL
    flow.key = segment.key
    flow.life = flow.fins = flow.was = 0
    flow.attempt.sequence = segment.acknowledged - 1
    flow.attempt.delta = 0
    flow.attempt.check = check_of(hashed, &flow.attempt)
    flow.seen = now
    publish()
    flow.state = State.ESTABLISHED
    return flow


cdef inline void set_attempt(Attempt *attempt, const Segment *segment, uint64_t hashed, uint32_t delta) noexcept nogil:
    attempt.sequence = segment.sequence
    attempt.delta = delta
    attempt.check = check_of(hashed, attempt)


cdef Verdict choose(FlowTable *table, const Segment *segment, uint32_t now, uint32_t *delta) noexcept nogil:
    """What brings this SYN up to its source's clock: 0 for a source that is new, or whose replies do not pass us."""
    cdef Clock *clock = find_clock(&table.clocks, segment.key.client, segment.key.where)
    delta[0] = 0
    if clock == NULL:
        if room_for_clock(&table.clocks, segment.key.client, segment.key.where, now) == NULL:
            return Verdict.FULL
    elif not bring_up(clock, server_of(&table.clocks, segment.key.server), segment.value, now, delta):
        return Verdict.NO_WAY_BACK
    return Verdict.OPENED


cdef inline bint is_live(FlowTable *table, Flow *flow) noexcept nogil:
    return (State.SYN_RECEIVED <= flow.state <= State.HALF_CLOSED) and current_of(table, flow).delta != 0


cdef inline void change(FlowTable *table, Flow *flow, uint8_t state, uint8_t life) noexcept nogil:
    """To another state; with another life the connection begins anew."""
    cdef uint32_t live = table.header.normalised - is_live(table, flow)
    flow.life = life
    flow.state = state
    live += is_live(table, flow)
    if live != table.header.normalised and live != 0xffffffffU:
        table.header.normalised = live      # one store: who drains must not read less in between


cdef inline void closing(FlowTable *table, Flow *flow, uint8_t side) noexcept nogil:
    flow.fins |= side
    if flow.state != State.CLOSED:
        change(table, flow, State.TIME_WAIT if flow.fins & BOTH_FINS == BOTH_FINS else State.HALF_CLOSED, flow.life)


# Entries

cdef inline uint64_t hash_of(const FlowTable *table, const Key *key) noexcept nogil:
    return hash_bytes(table.seed, <const uint8_t *>key, KEY)


cdef inline uint32_t check_of(uint64_t hashed, const Attempt *attempt) noexcept nogil:
    return <uint32_t>mix(hashed ^ (<uint64_t>attempt.sequence << 32 | attempt.delta))


cdef inline Attempt *attempt_of(FlowTable *table, Flow *flow, uint8_t number) noexcept nogil:
    """Attempt 0 or 1, by the number's lowest bit."""
    return &table.others[flow - table.flows] if number & 1 else &flow.attempt


cdef inline Attempt *current_of(FlowTable *table, Flow *flow) noexcept nogil:
    """The attempt that is the connection's."""
    return attempt_of(table, flow, flow.life)


cdef inline Attempt *other_of(FlowTable *table, Flow *flow) noexcept nogil:
    return attempt_of(table, flow, ~flow.life)


cdef inline uint8_t other_life(const Flow *flow) noexcept nogil:
    """`Flow.life` once the other attempt is the connection's."""
    return ~flow.life & SECOND


cdef inline uint32_t *awaited(FlowTable *table, Flow *flow) noexcept nogil:
    """The sequence number behind the server's SYN, and later its FIN: who acknowledges that has seen it.

    It has a place in the other attempt as long as none is WAITING.
    """
    return &other_of(table, flow).sequence


cdef inline bint is_right(const Attempt *attempt, uint64_t hashed) noexcept nogil:
    return attempt.check == check_of(hashed, attempt) and attempt.delta < HALF_CIRCLE


cdef inline bint is_whole(const Flow *flow, const Attempt *other, uint64_t hashed) noexcept nogil:
    """Whether everything that is valid in an entry passes its check. `other` is its attempt 1."""
    return (State.SYN_SENT <= flow.state <= State.CLOSED and flow.life <= (SECOND | WAITING)
            and flow.fins <= (BOTH_FINS | SERVER_FIRST)
            and flow.was <= State.CLOSED and (flow.life == SECOND or is_right(&flow.attempt, hashed))
            and (flow.life == 0 or is_right(other, hashed)))


cdef inline uint32_t lifetime(uint8_t state) noexcept nogil:
    if state == State.ESTABLISHED:
        return ESTABLISHED_SECONDS
    if state == State.HALF_CLOSED:
        return HALF_CLOSED_SECONDS
    return SYN_SECONDS if state <= State.SYN_RECEIVED else CLOSING_SECONDS


cdef inline bint is_over(const Flow *flow, uint32_t now) noexcept nogil:
    return <int32_t>(now - flow.seen) > <int32_t>lifetime(flow.state)


cdef inline uint32_t bucket(const FlowTable *table, uint64_t hashed, int which) noexcept nogil:
    """The first entry of one of the two buckets where a key may be: of bits 16…31 or 32…63 a share of all buckets."""
    cdef uint64_t bits = hashed >> 32 if which else hashed & 0xffffffffU
    return <uint32_t>(bits * table.buckets >> 32) * BUCKET


cdef inline uint16_t tag_of(uint64_t hashed) noexcept nogil:
    """The lowest bits, which tell the entries of a bucket apart since they hardly say which bucket it is."""
    cdef uint16_t tag = <uint16_t>hashed
    return tag if tag else 1


cdef inline uint32_t tagged(const FlowTable *table, uint16_t tag, uint32_t first) noexcept nogil:
    """One bit for each entry of the bucket that has this tag."""
    cdef const uint16_t *tags = table.tags + first
    cdef uint32_t found = 0, i
    for i in range(BUCKET):                 # no way out, so that all are compared at once
        found |= <uint32_t>(tags[i] == tag) << i
    return found


cdef inline Flow *in_bucket(const FlowTable *table, const Key *key, uint16_t tag, uint32_t first) noexcept nogil:
    cdef uint32_t found = tagged(table, tag, first)
    cdef Flow *flow
    while found:
        flow = &table.flows[first + __builtin_ctz(found)]
        if memcmp(&flow.key, key, KEY) == 0:
            return flow
        found &= found - 1
    return NULL


cdef Flow *find(FlowTable *table, const Key *key, uint64_t hashed, uint32_t now) noexcept nogil:
    """The connection's entry, or NULL. One that is over, or damaged, is removed."""
    cdef uint16_t tag = tag_of(hashed)
    cdef Flow *flow = in_bucket(table, key, tag, bucket(table, hashed, 0))
    if flow == NULL:
        flow = in_bucket(table, key, tag, bucket(table, hashed, 1))
        if flow == NULL:
            return NULL
    if not is_whole(flow, &table.others[flow - table.flows], hashed):
        table.counted.damaged += 1
    elif is_over(flow, now):
        table.counted.expired += 1
    else:
        return flow
    drop(table, flow)
    return NULL


cdef Flow *take(FlowTable *table, uint64_t hashed, uint32_t now) noexcept nogil:
    """A free entry where a key may be, for the caller to fill; NULL if there is no room."""
    cdef uint32_t entry = 0, oldest, slot, first, i
    cdef int which, _entry, room, most = 0
    slot = table.births % table.half_open_most
    oldest = table.half_open[slot]
    if table.births >= table.half_open_most and table.born[oldest] == table.births - table.half_open_most \
            and State.SYN_SENT <= table.flows[oldest].state <= State.SYN_RECEIVED:
        table.counted.evicted += 1
        drop(table, &table.flows[oldest])
    if table.header.used >= table.capacity:
        for _entry in range(SWEEPS):
            step(table, now)
        if table.header.used >= table.capacity:
            return NULL
    for which in range(2):
        first = bucket(table, hashed, which)
        room = 0
        for i in range(first, first + BUCKET):
            room += table.tags[i] == 0
        if room > most:                     # of two, the emptier: so none is ever full while a third of all are free
            most = room
            entry = first
    if most == 0:
        return NULL
    while table.tags[entry]:
        entry += 1
    table.tags[entry] = tag_of(hashed)
    table.half_open[slot] = entry
    table.born[entry] = table.births
    table.births += 1
    if table.births == 0:                   # after 2^32 connections: the ring counts as empty for one turn
        table.births = table.half_open_most
    table.header.used += 1
    return &table.flows[entry]


cdef void drop(FlowTable *table, Flow *flow) noexcept nogil:
    """Free an entry that is in use."""
    if State.SYN_SENT <= flow.state <= State.CLOSED:
        change(table, flow, State.FREE, flow.life & SECOND)
    flow.state = State.FREE
    table.tags[flow - table.flows] = 0
    table.header.used -= 1


cdef inline void step(FlowTable *table, uint32_t now) noexcept nogil:
    """The sweep's next entry."""
    cdef Flow *flow = &table.flows[table.hand]
    if table.tags[table.hand] and is_over(flow, now):
        table.counted.expired += 1
        drop(table, flow)
    table.hand += 1
    if table.hand == table.slots:
        table.hand = 0


# Sources

cdef inline Clock *clock_of(const FlowTable *table, const Key *key, Flow *flow) noexcept nogil:
    """The clock of a key's source, or NULL; where `flow`, if there is one, found it before, or else searched for."""
    cdef uint32_t nowhere = table.clocks.most
    return clock_at(&table.clocks, key.client, key.where, &nowhere if flow == NULL else &flow.clock)


cdef Clock *saw(FlowTable *table, const Key *key, Flow *flow, uint32_t value, uint32_t now) noexcept nogil:
    """The server saw `value`, which moves the source's clock. `flow`: the connection, or NULL. NULL if no room."""
    cdef Clock *clock = clock_of(table, key, flow)
    if clock == NULL:
        return add_clock(&table.clocks, key.client, key.where, value, now)
    move_clock(clock, value, now)
    return clock


cdef void one_way(FlowTable *table, Flow *flow, uint8_t life, uint32_t since) noexcept nogil:
    """The client goes on with, or refuses, what we have not seen to be answered: replies do not pass us.

    (A client that is told a wrong TSecr refuses the SYN-ACK with a RST, whose sequence number is SEG.ACK: RFC 9293
    §3.10.7.3.) Or somebody who cannot see them only says so: neither moves a clock.

    since: uptime of the SYN.
    """
    cdef Clock *clock = find_clock(&table.clocks, flow.key.client, flow.key.where)
    table.counted.one_way += 1
    if clock != NULL:
        not_replied(clock, server_of(&table.clocks, flow.key.server), since)
    table.one_way_turn += 1
    publish()
    memcpy(table.one_way.address, flow.key.client, 16)
    table.one_way.where = flow.key.where
    publish()
    table.one_way_turn += 1
    flow.fins = 0
    change(table, flow, State.ESTABLISHED, life)


cdef uint32_t header_check(const Header *header) noexcept nogil:
    return <uint32_t>mix(hash_bytes(header.seed, <const uint8_t *>header, HEADER_CHECKED))


cdef class Flows:
    """A flow table in the memory that is handed in. One thread at once; `counters` from any."""

    def __cinit__(self, unsigned char[::1] memory not None, int flows, *, seed=None):
        """memory: `size(flows)` bytes, which are formatted; seed: of the hashes, random if None."""
        cdef FlowTable *table = &self.table
        memset(table, 0, sizeof(FlowTable))
        if memory.shape[0] < self.size(flows):
            raise ValueError(f"{flows} flows need {self.size(flows)} bytes, not {memory.shape[0]}")
        self.memory = memory
        table.capacity = flows
        table.slots = slots_for(flows)
        table.buckets = table.slots // BUCKET
        table.clocks.most = clocks_for(flows)
        table.seed = seed_or_drawn(seed)
        table.clocks.seed = table.clocks.server_seed = table.seed
        table.clocks.all = <Clock *>(&memory[0] + HEADER)
        table.header = <Header *>&memory[0]
        table.flows = <Flow *>(&memory[0] + HEADER + <size_t>table.clocks.most * CLOCK)
        table.others = <Attempt *>(table.flows + table.slots)
        memset(&memory[0], 0, self.size(flows))
        table.header.version = VERSION
        table.header.flows = flows
        table.header.clocks = table.clocks.most
        table.header.seed = table.header.server_seed = table.seed
        memcpy(table.header.magic, MAGIC, 8)
        table.header.check = header_check(table.header)
        table.half_open_most = table.capacity // 4
        table.tags = <uint16_t *>zeroed(table.slots, sizeof(uint16_t), "the flow table's index")
        table.born = <uint32_t *>zeroed(table.slots, sizeof(uint32_t), "the flow table's index")
        table.half_open = <uint32_t *>zeroed(table.half_open_most, sizeof(uint32_t), "the flow table's index")

    def __dealloc__(self):
        free(self.table.tags)
        free(self.table.born)
        free(self.table.half_open)

    @staticmethod
    def size(int flows):
        """Bytes of memory that a table of so many flows takes; ValueError if it cannot have so many."""
        if not LEAST_FLOWS <= flows <= MOST_FLOWS:
            raise ValueError(f"{LEAST_FLOWS} to {MOST_FLOWS} flows, not {flows}")
        return HEADER + <size_t>clocks_for(flows) * CLOCK + <size_t>slots_for(flows) * (FLOW + ATTEMPT)

    def adopt(self, const unsigned char[::1] memory not None, uint32_t uptime):
        """Take over what another table, of this layout but any size and seed, holds: its connections and clocks.

        Returns (taken, damaged, left): left are those there was no room for. ValueError says why it is no such table.
        """
        cdef FlowTable *table = &self.table
        cdef const Header *header
        cdef const Flow *old
        cdef const Attempt *other
        cdef Clocks others
        cdef Flow *flow
        cdef uint64_t hashed
        cdef uint32_t i, flows, damaged = 0, left = 0, taken = 0
        cdef int turn
        cdef uint8_t number
        if memory.shape[0] < HEADER or memcmp(&memory[0], MAGIC, 8) != 0:
            raise ValueError("it is no flow table")
        header = <const Header *>&memory[0]
        flows = header.flows
        if header.version != VERSION:
            raise ValueError(f"it is a flow table of version {header.version}, not {VERSION}")
        if header.check != header_check(header) or not LEAST_FLOWS <= flows <= MOST_FLOWS \
                or header.clocks != clocks_for(flows) or <size_t>memory.shape[0] < self.size(flows):
            raise ValueError("the flow table's header is damaged")
        table.header.draining = header.draining == 1
        others.all = <Clock *>(&memory[0] + HEADER)
        others.most = header.clocks
        others.seed = header.seed
        table.header.server_seed = table.clocks.server_seed = header.server_seed
        adopt_clocks(&table.clocks, &others, uptime, &damaged, &left)
        for turn in range(2):           # who is established comes first, if it should not be room for all
            for i in range(slots_for(flows)):
                old = <const Flow *>(&memory[0] + HEADER + <size_t>header.clocks * CLOCK) + i
                other = <const Attempt *>(old - i + slots_for(flows)) + i
                if old.state == State.FREE or (old.state == State.ESTABLISHED) == turn:
                    continue
                hashed = hash_bytes(header.seed, <const uint8_t *>&old.key, KEY)
                if not is_whole(old, other, hashed) or old.seen > uptime:
                    damaged += 1
                    continue
                if is_over(old, uptime):
                    continue
                hashed = hash_of(table, &old.key)
                if find(table, &old.key, hashed, uptime) != NULL:
                    damaged += 1
                    continue
                flow = take(table, hashed, uptime)
                if flow == NULL:
                    left += 1
                    continue
                flow[0] = old[0]
                table.others[flow - table.flows] = other[0]
                for number in range(2):
                    attempt_of(table, flow, number).check = check_of(hashed, attempt_of(table, flow, number))
                table.header.normalised += is_live(table, flow)
                taken += 1
        return taken, damaged, left

    def counters(self):
        """What the table holds and has counted, by name."""
        return {
            "capacity": self.table.capacity,
            "used": self.table.header.used,
            "normalised": self.table.header.normalised,
            "draining": bool(self.table.header.draining),
            **dict(self.table.counted),
        }

    def one_way_source(self):
        """The last source with a connection whose SYN-ACK we did not see, as text; '' if there is none."""
        cdef Clock found
        cdef uint32_t turn, _attempt
        for _attempt in range(100):
            turn = self.table.one_way_turn
            found = self.table.one_way
            if turn % 2 == 0 and turn == self.table.one_way_turn:
                break
        return address_text(version_at(found.where), found.address)


cdef inline uint32_t slots_for(uint32_t flows) noexcept nogil:
    """How many entries it takes for so many flows: a third of them stays free."""
    return (flows + flows // 2 + BUCKET - 1) & ~(BUCKET - 1U)


cdef inline uint32_t clocks_for(uint32_t flows) noexcept nogil:
    """How many sources there may be, at most, for so many flows; in whole sets, and whole cache lines."""
    return (flows // 16) & ~(2 * CLOCK_WAYS - 1U)
