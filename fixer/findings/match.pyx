# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
import os

from libc.stdint cimport int32_t
from libc.stdlib cimport calloc, free, qsort
from libc.string cimport memcpy, memset

from fixer.datapath.diagnose cimport Judgement, conclude, judge
from fixer.datapath.pipeline cimport OUTGOING
from fixer.datapath.walk cimport MAX_PORTS, Layer, Walk, walk
from fixer.findings.identity cimport CUT, LEAVING, STREAM, TELLING, Ends, identify
from fixer.findings.table cimport table_entry, table_find, table_free, table_init

cdef enum:
    MOST_PACKETS = 1 << 21   # of a capture
    NEAR = 2000000000        # nanoseconds: one head with two payloads is one packet only if it was that quick


cdef class Match:
    """Two captures, 0 and 1: first every packet of either is noted, then they are settled. One thread at once."""

    def __cinit__(self, *, ports, bint plain=False, uint32_t most=MOST_PACKETS):
        """ports: UDP ports of VXLAN; plain: packets without a tunnel count too; most: packets of each capture that are
        remembered, further ones are not taken."""
        cdef int side
        ports = list(ports)
        if not 1 <= len(ports) <= MAX_PORTS:
            raise ValueError(f"1 to {MAX_PORTS} ports are needed, not {ports}")
        self.ports.count = <uint8_t>len(ports)
        for side, port in enumerate(ports):
            self.ports.port[side] = port
        self.plain = plain
        self.limit = most
        self.seed = int.from_bytes(os.urandom(8))
        table_init(&self.pairs, MOST_PAIRS, sizeof(PairKey), sizeof(Pair), self.seed)
        table_init(&self.flows, MOST_FLOWS, sizeof(uint64_t), sizeof(FlowEntry), self.seed)
        self.legs = <Leg *>calloc(MOST_PAIRS + 1, sizeof(Leg))       # the last one: of pairs there was no room for
        for side in range(2):
            self.packets[side] = <Packet *>calloc(most, sizeof(Packet))
            self.sorted[side] = <Sorted *>calloc(most, sizeof(Sorted))
            if self.legs == NULL or self.packets[side] == NULL or self.sorted[side] == NULL:
                raise MemoryError("no memory to compare captures")

    def __dealloc__(self):
        cdef int side
        table_free(&self.pairs)
        table_free(&self.flows)
        free(self.legs)
        for side in range(2):
            free(self.packets[side])
            free(self.sorted[side])

    cdef bint is_full(self, int side) noexcept nogil:
        return self.used[side] == self.limit

    cdef void note_other(self, int side, uint64_t when) noexcept nogil:
        """Count a frame that is not compared; it shows all the same that the capture was running."""
        if self.seen[side] == 0 or when < self.began[side]:
            self.began[side] = when
        self.ended[side] = max(self.ended[side], when)
        self.seen[side] += 1
        self.others[side] += 1

    cdef void note(self, int side, const uint8_t *packet, uint32_t captured, uint32_t length, uint64_t when,
                   Direction marked) noexcept nogil:
        """Remember one packet, from its first IP header. Only while the side is not full, and before `settle`."""
        cdef Packet *kept = &self.packets[side][self.used[side]]
        cdef Walk route
        cdef Judgement judgement
        cdef Ends answers
        cdef FlowEntry *flow
        cdef uint32_t pair
        self.note_other(side, when)
        walk(packet, captured, length, &self.ports, self.plain, &route)
        if not route.tunnel and (not self.plain or not route.inner.version):
            return
        self.others[side] -= 1
        judge(packet, &route, &self.ports, 0, False, &judgement)
        conclude(&route, 0, &judgement)
        pair = self.pair_of(packet, &route)
        if not identify(packet, &route, &judgement, self.seed, kept, &answers):
            self.legs[pair].unknowable[side] += 1
            return
        kept.when = when
        kept.number = <uint32_t>self.seen[side]
        kept.pair = pair
        if marked == OUTGOING:
            kept.traits |= LEAVING
        if answers.acknowledges:
            flow = <FlowEntry *>table_find(&self.flows, &answers.flow)
            if flow != NULL and (not flow.acknowledged or <int32_t>(answers.upto - flow.upto) > 0):
                flow.acknowledged = True
                flow.upto = answers.upto
        if kept.traits & STREAM:
            flow = <FlowEntry *>table_find(&self.flows, &kept.flow)
            if flow != NULL and not flow.begun:
                flow.begun = True
                flow.base = kept.sequence
        self.used[side] += 1

    cdef uint32_t pair_of(self, const uint8_t *packet, const Walk *route) noexcept nogil:
        cdef const Layer *layer = &route.outer if route.tunnel else &route.inner
        cdef PairKey key
        cdef Pair *found
        memset(&key, 0, sizeof(PairKey))
        key.tunnel = route.tunnel
        if layer.version:
            key.version[0] = key.version[1] = layer.version
            memcpy(key.address[0], packet + layer.source, layer.address_length)
            memcpy(key.address[1], packet + layer.destination, layer.address_length)
        found = <Pair *>table_find(&self.pairs, &key)
        if found == NULL:
            return MOST_PAIRS
        return <uint32_t>((<uint8_t *>found - self.pairs.entries) // sizeof(Pair))

    # Matching, in the order in which `settle` does it.

    cdef void list_by(self, By by) noexcept nogil:
        """Sort what is not matched yet, by content, by head or by its place in a stream (of which all are listed)."""
        cdef Packet *packet
        cdef Sorted *entry
        cdef FlowEntry *flow
        cdef uint32_t place
        cdef int side
        for side in range(2):
            self.listed[side] = 0
            for place in range(self.used[side]):
                packet = &self.packets[side][place]
                entry = &self.sorted[side][self.listed[side]]
                entry.place = place
                entry.second = 0
                if by == BY_STREAM:
                    flow = <FlowEntry *>table_find(&self.flows, &packet.flow) if packet.traits & STREAM else NULL
                    if flow == NULL:
                        continue
                    entry.key = packet.flow
                    entry.second = packet.sequence - flow.base + 0x40000000U
                elif packet.other:
                    continue
                elif by == BY_WHOLE:
                    if packet.traits & CUT:
                        continue
                    entry.key = packet.whole
                else:
                    entry.key = packet.head
                self.listed[side] += 1
            qsort(self.sorted[side], self.listed[side], sizeof(Sorted), compare_sorted)

    cdef void merge(self, Step step) noexcept nogil:
        """Call `step` for each key that both lists have, with its packets in either, in the order of the file."""
        cdef uint32_t at[2]
        cdef uint32_t end[2]
        cdef uint64_t key
        cdef int side
        at[0] = at[1] = 0
        while at[0] < self.listed[0] and at[1] < self.listed[1]:
            key = max(self.sorted[0][at[0]].key, self.sorted[1][at[1]].key)
            for side in range(2):
                while at[side] < self.listed[side] and self.sorted[side][at[side]].key < key:
                    at[side] += 1
                end[side] = at[side]
                while end[side] < self.listed[side] and self.sorted[side][end[side]].key == key:
                    end[side] += 1
            if end[0] > at[0] and end[1] > at[1]:
                step(self, &self.sorted[0][at[0]], end[0] - at[0], &self.sorted[1][at[1]], end[1] - at[1])
            at[0], at[1] = end[0], end[1]

    cdef void join(self, uint32_t here, uint32_t there, Fate fate) noexcept nogil:
        cdef Packet *one = &self.packets[0][here]
        cdef Packet *two = &self.packets[1][there]
        cdef Pair *pair
        one.other = there + 1
        two.other = here + 1
        one.fate = two.fate = <uint8_t>fate
        if two.pair < MOST_PAIRS:
            pair = <Pair *>table_entry(&self.pairs, two.pair)
            if not pair.alias:
                pair.alias = one.pair + 1

    cdef void nearest(self, const Sorted *here, uint32_t n, const Sorted *there, uint32_t m) noexcept nogil:
        """Match as many of equal packets as there can be, each with one that is near in time, none across another."""
        cdef uint32_t i = 0, j = 0, left
        cdef int64_t middle = self.legs[self.packets[0][here[0].place].pair].middle
        while i < n and j < m:
            if n - i > m - j and self.gap(&here[i + 1], &there[j], middle) < self.gap(&here[i], &there[j], middle):
                i += 1
            elif m - j > n - i and self.gap(&here[i], &there[j + 1], middle) < self.gap(&here[i], &there[j], middle):
                j += 1
            else:
                self.join(here[i].place, there[j].place, MATCHED)
                i += 1
                j += 1
        for left in range(n):
            if not self.packets[0][here[left].place].other:
                self.packets[0][here[left].place].fate = COPY
        for left in range(m):
            if not self.packets[1][there[left].place].other:
                self.packets[1][there[left].place].fate = COPY

    cdef int64_t gap(self, const Sorted *here, const Sorted *there, int64_t middle) noexcept nogil:
        """Nanoseconds between when a packet was there and when it should have been, if it was the one here."""
        cdef int64_t off = <int64_t>(self.packets[1][there.place].when - self.packets[0][here.place].when) - middle
        return off if off >= 0 else -off

    cdef void tell_time(self) noexcept nogil:
        """How much later the second capture's clock shows what is matched so far, by pair; where nothing of a pair is,
        of all pairs together."""
        cdef Sorted *list = self.sorted[0]
        cdef Packet *packet
        cdef uint32_t place, begin = 0, end, count = 0
        cdef Leg *leg
        cdef Leg whole
        memset(&whole, 0, sizeof(Leg))
        for place in range(self.used[0]):
            packet = &self.packets[0][place]
            if packet.other:
                list[count].key = later(self.packets[1][packet.other - 1].when - packet.when)
                list[count].place = packet.pair
                count += 1
        qsort(list, count, sizeof(Sorted), compare_times)
        while begin < count:
            end = begin
            while end < count and list[end].place == list[begin].place:
                end += 1
            leg = &self.legs[list[begin].place]
            leg.timed = end - begin
            leg.least = earlier(list[begin].key)
            leg.middle = earlier(list[begin + (end - begin) // 2].key)
            leg.most = earlier(list[end - 1].key)
            whole.least = min(whole.least, leg.least) if whole.timed else leg.least
            whole.most = max(whole.most, leg.most) if whole.timed else leg.most
            whole.timed += leg.timed
            begin = end
        for place in range(MOST_PAIRS + 1):
            leg = &self.legs[place]
            if not leg.timed:
                leg.least, leg.most = whole.least, whole.most
                leg.middle = whole.least + (whole.most - whole.least) // 2

    # The face to Python.

    def full(self, int side):
        """Whether no further packet of a capture is taken."""
        return self.is_full(side)

    def settle(self):
        """Match both captures. Once, when every packet is noted."""
        if self.settled:
            raise ValueError("these captures are settled")
        self.settled = True
        with nogil:
            self.list_by(BY_WHOLE)
            self.merge(match_single)
            self.tell_time()
            self.list_by(BY_WHOLE)
            self.merge(match_copies)
            self.tell_time()
            self.list_by(BY_HEAD)
            self.merge(match_head)
            self.tell_time()

    def side(self, int side):
        """Of one capture: its `frames`, how many are `compared` and how many are `others` (neither VXLAN nor, with
        `plain`, IP), when it `began` and `ended` in nanoseconds by its clock."""
        return {"frames": self.seen[side], "compared": self.used[side], "others": self.others[side],
                "began": self.began[side], "ended": self.ended[side]}


cdef inline uint64_t later(uint64_t nanoseconds) noexcept nogil:
    """A difference of times as a key in whose order it is; `earlier` takes it back."""
    return nanoseconds ^ (1ULL << 63)


cdef inline int64_t earlier(uint64_t key) noexcept nogil:
    return <int64_t>(key ^ (1ULL << 63))


cdef int compare_sorted(const void *one, const void *two) noexcept nogil:
    cdef const Sorted *a = <const Sorted *>one
    cdef const Sorted *b = <const Sorted *>two
    if a.key != b.key:
        return 1 if a.key > b.key else -1
    if a.second != b.second:
        return 1 if a.second > b.second else -1
    return (a.place > b.place) - (a.place < b.place)


cdef int compare_times(const void *one, const void *two) noexcept nogil:
    cdef const Sorted *a = <const Sorted *>one
    cdef const Sorted *b = <const Sorted *>two
    if a.place != b.place:
        return 1 if a.place > b.place else -1
    return (a.key > b.key) - (a.key < b.key)


cdef void match_single(Match self, const Sorted *here, uint32_t n, const Sorted *there, uint32_t m) noexcept nogil:
    """What there is once in either: nothing is as sure, so these tell the time."""
    if n == 1 and m == 1:
        self.join(here.place, there.place, MATCHED)


cdef void match_copies(Match self, const Sorted *here, uint32_t n, const Sorted *there, uint32_t m) noexcept nogil:
    self.nearest(here, n, there, m)


cdef void match_head(Match self, const Sorted *here, uint32_t n, const Sorted *there, uint32_t m) noexcept nogil:
    """Where a copy is cut, its head has to do. Else it is another payload, if the head is one packet's alone."""
    cdef const Packet *one = &self.packets[0][here.place]
    cdef uint32_t place
    cdef bint cut = False
    for place in range(n):
        cut |= self.packets[0][here[place].place].traits & CUT != 0
    for place in range(m):
        cut |= self.packets[1][there[place].place].traits & CUT != 0
    if cut:
        self.nearest(here, n, there, m)
    elif n == 1 and m == 1 and one.traits & TELLING \
            and (not self.legs[one.pair].timed or self.gap(here, there, self.legs[one.pair].middle) < NEAR):
        self.join(here.place, there.place, ALTERED)
