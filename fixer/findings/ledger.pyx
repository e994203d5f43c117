# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from fixer.datapath.diagnose cimport SOUND, UNCHECKABLE
from fixer.datapath.hash cimport mix, seed_or_drawn
from fixer.datapath.pipeline cimport INCOMING, Pipeline
from fixer.datapath.repair cimport DROP, Action
from fixer.datapath.result cimport Result
from fixer.datapath.ring cimport load_acquire, store_release
from fixer.datapath.walk cimport Layer, Walk
from fixer.datapath.zeroed cimport zeroed
from fixer.findings.census cimport as_counted

cdef enum:
    MOST_SAMPLED = 10        # of one kind
    SECOND = 1000000000
    AGE = 10                 # seconds between two looks at what waits
    PERIOD = 300             # seconds that who was followed is followed at least
    STAYS = 2                # packets in a second by which a kind is more than one of a flood of spoofed senders


cdef class Ledger(Witness):
    """What one packet path tells. `watch`, and the path's thread fills it; `drain`, `take_samples` in another."""

    def __cinit__(self, *, uint32_t common_mtu, uint32_t largest_mtu, uint32_t most_kinds=1 << 11,
                  uint32_t most_conversations=1 << 12, uint32_t most_waiting=1 << 13, seed=None):
        """See `Census`."""
        self.seed = seed_or_drawn(seed)
        self.census = Census(common_mtu=common_mtu, largest_mtu=largest_mtu, most_kinds=most_kinds,
                             most_conversations=most_conversations, most_waiting=most_waiting)
        self.census.conversations.only_broken = True
        self.box = <Kind *>zeroed(most_kinds, sizeof(Kind), "what is found")
        self.sampled = <uint8_t *>zeroed(most_kinds, 1, "what is found")
        self.samples = <Sample *>zeroed(SAMPLES, sizeof(Sample), "samples")

    def __dealloc__(self):
        free(self.box)
        free(self.sampled)
        free(self.samples)

    def watch(self, Pipeline pipeline not None):
        """Be told of what passes there from its next packet on. Before its thread starts."""
        pipeline.witness = self

    # What the packet path calls.

    cdef bint wants(self, const uint8_t *packet, const Walk *route) noexcept nogil:
        """Whether a packet that is sound is of somebody who is followed."""
        if route.inner.version and is_in(&self.pairs, pair_of(self.seed, packet, &route.inner)):
            return True
        return is_in(&self.senders, sender_of(self.seed, packet, route))

    cdef void came(self, const uint8_t *packet, const Walk *route, const Event *event) noexcept nogil:
        """A packet that is not sound, or is wanted; as it came."""
        cdef uint32_t kind
        self.pending = NULL
        kind = self.census.note(packet, route.captured, event, INCOMING)
        if kind == self.census.kinds.table.most:
            self.left_out += 1
            return
        if event.judgement.diagnosis == SOUND or event.judgement.diagnosis == UNCHECKABLE:
            return
        put(&self.senders, sender_of(self.seed, packet, route))
        if route.inner.version:
            put(&self.pairs, pair_of(self.seed, packet, &route.inner))
        self.asks = 1
        self.sample(packet, route.captured, event, kind)

    cdef void left(self, const uint8_t *packet, uint32_t captured, Action action) noexcept nogil:
        """The same packet, as it leaves."""
        cdef Sample *sample = self.pending
        if sample == NULL:
            return
        self.pending = NULL
        sample.left = 0 if action == DROP else min(captured, <uint32_t>SAMPLE_BYTES)
        memcpy(sample.bytes[1], packet, sample.left)
        store_release(&sample.ready, 1)

    cdef void turn(self, uint64_t when) noexcept nogil:
        """About once a second: hand over what was counted, and forget."""
        cdef uint32_t handed
        if not self.asks:
            return
        if when - self.aged >= <uint64_t>AGE * SECOND or self.census.conversations.is_crowded():
            self.census.conversations.age(when)
            self.aged = when
        if when - self.begun >= <uint64_t>PERIOD * SECOND:
            self.begun = when
            # Both: `or` would leave the second one as it is.
            if not (next_period(&self.senders) | next_period(&self.pairs)):
                self.asks = 0
        if load_acquire(&self.boxed) == 0:
            if self.census.hand_over(self.box, STAYS, &handed):
                memset(self.sampled, 0, self.census.kinds.table.most)
            store_release(&self.boxed, handed)

    cdef void sample(self, const uint8_t *packet, uint32_t captured, const Event *event, uint32_t kind) noexcept nogil:
        """Keep a packet as it came, if there were few of its kind and there is room."""
        cdef Sample *sample
        cdef int i
        if self.sampled[kind] >= MOST_SAMPLED:
            return
        for i in range(SAMPLES):
            sample = &self.samples[i]
            if load_acquire(&sample.ready) == 0:
                self.sampled[kind] += 1
                sample.event = event[0]
                sample.came = min(captured, <uint32_t>SAMPLE_BYTES)
                memcpy(sample.bytes[0], packet, sample.came)
                self.pending = sample
                return

    def drain(self):
        """What was handed over and not yet taken out, as `Census.drain` has it; counts may be negative, for what was
        told before and has turned out to be of another kind. No frames are numbered. [] until the next turn."""
        cdef uint64_t number, boxed = load_acquire(&self.boxed)
        kinds = []
        for number in range(boxed):
            result, outgoing, fate, _, count = as_counted(&self.box[number])
            kinds.append((result, outgoing, fate, 0, count))
        if boxed:       # else the other thread may be filling it
            store_release(&self.boxed, 0)
        return kinds

    def take_samples(self):
        """The packets that were kept: the `Result` of each, its bytes as it came, and as it left (None: dropped)."""
        cdef Sample *sample
        cdef Result result
        cdef int i
        taken = []
        for i in range(SAMPLES):
            sample = &self.samples[i]
            if load_acquire(&sample.ready):
                result = Result.__new__(Result)
                result.event = sample.event
                taken.append((result, bytes(sample.bytes[0][:sample.came]),
                              bytes(sample.bytes[1][:sample.left]) if sample.left else None))
                store_release(&sample.ready, 0)
        return taken


# Who is followed.

cdef inline uint64_t sender_of(uint64_t seed, const uint8_t *packet, const Walk *route) noexcept nogil:
    cdef const Layer *layer = &route.outer if route.tunnel else &route.inner
    return mix(seed ^ folded_address(packet + layer.source, layer.address_length)) if layer.version else 0


cdef inline uint64_t pair_of(uint64_t seed, const uint8_t *packet, const Layer *layer) noexcept nogil:
    """The same in both directions."""
    return mix(seed + (folded_address(packet + layer.source, layer.address_length)
                       ^ folded_address(packet + layer.destination, layer.address_length)))


cdef inline uint64_t folded_address(const uint8_t *address, uint8_t length) noexcept nogil:
    cdef uint64_t one = 0, other = 0
    if length == 4:
        memcpy(&one, address, 4)
        return one
    memcpy(&one, address, 8)
    memcpy(&other, address + 8, 8)
    return one ^ other * 0x9e3779b97f4a7c15U


cdef inline void put(Filter *filter, uint64_t hashed) noexcept nogil:
    filter.bits[1][hashed % FILTER_WORDS] |= <uint64_t>1 << (hashed >> 58)


cdef inline bint is_in(const Filter *filter, uint64_t hashed) noexcept nogil:
    cdef uint32_t word = hashed % FILTER_WORDS
    return (filter.bits[0][word] | filter.bits[1][word]) >> (hashed >> 58) & 1


cdef bint next_period(Filter *filter) noexcept nogil:
    """Forget the last but one; whether anybody is followed still."""
    cdef uint64_t some = 0
    cdef int word
    memcpy(filter.bits[0], filter.bits[1], sizeof(filter.bits[0]))
    memset(filter.bits[1], 0, sizeof(filter.bits[1]))
    for word in range(FILTER_WORDS):
        some |= filter.bits[0][word]
    return some != 0
