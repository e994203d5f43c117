# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from fixer.datapath.diagnose cimport OUT_GOOD, OUT_NO_TUNNEL
from fixer.datapath.hash cimport hash_bytes
from fixer.datapath.walk cimport Layer
from fixer.datapath.wire cimport *

cdef uint64_t SECOND = 1000000000


cdef Ring *ring_new(uint32_t size, uint32_t per_second, uint64_t seed) except NULL:
    """A ring of `size` events (a power of two) that tells `per_second` of each diagnosis and VTEP.

    `seed` keeps a sender from choosing addresses that share a set.
    """
    cdef Ring *ring
    if size == 0 or size & (size - 1):
        raise ValueError("a ring's size is a power of two")
    ring = <Ring *>calloc(1, sizeof(Ring))
    if ring != NULL:
        ring.events = <Event *>calloc(size, sizeof(Event))
    if ring == NULL or ring.events == NULL:
        ring_free(ring)
        raise MemoryError("no memory for the event ring")
    ring.size = size
    ring.per_second = per_second
    ring.seed = seed
    return ring


cdef void ring_free(Ring *ring) noexcept:
    if ring != NULL:
        free(ring.events)
        free(ring)


cdef void describe(Event *out, const uint8_t *packet, const Walk *walk, const Judgement *judgement,
                   uint64_t when) noexcept nogil:
    """Everything about a packet that is told, copied out of it: the packet may be gone when the event is read."""
    memset(out, 0, sizeof(Event))
    out.when = when
    out.judgement = judgement[0]
    out.length = walk.length
    out.tunnel = walk.tunnel
    out.vni = walk.vni
    out.vlan = walk.vlan
    if walk.inner.field_read:
        out.transport = walk.inner.transport
        out.covered = walk.inner.covered
    copy_endpoints(&out.outer, packet, &walk.outer, walk.captured)
    copy_endpoints(&out.inner, packet, &walk.inner, walk.captured)


cdef void copy_endpoints(Endpoints *out, const uint8_t *packet, const Layer *layer, uint32_t captured) noexcept nogil:
    if not layer.version:
        return
    out.version = layer.version
    out.protocol = layer.protocol
    memcpy(out.source, packet + layer.source, layer.address_length)
    memcpy(out.destination, packet + layer.destination, layer.address_length)
    if layer.transport and layer.transport + 4 <= captured and layer.protocol in (PROTO_TCP, PROTO_UDP):
        out.source_port = be16(packet + layer.transport + UDP_SOURCE)
        out.destination_port = be16(packet + layer.transport + UDP_DESTINATION)
        if layer.protocol == PROTO_TCP and layer.transport + TCP_FLAGS < captured:
            out.tcp_flags = packet[layer.transport + TCP_FLAGS]


cdef void put(Ring *ring, const Event *event) noexcept nogil:
    if ring.written - load_acquire(&ring.taken) >= ring.size:
        ring.lost += 1
        return
    ring.events[ring.written & (ring.size - 1)] = event[0]
    store_release(&ring.written, ring.written + 1)


cdef void ring_tell(Ring *ring, const Event *event) noexcept nogil:
    """Put `event` into the ring, or count it as left out if its diagnosis and VTEP, or all, had their share of this
    second."""
    cdef uint32_t second = <uint32_t>(event.when // SECOND)
    cdef uint64_t most = <uint64_t>ring.per_second * VOICES
    cdef Bucket *bucket = bucket_of(ring, event, second)
    cdef Event copy
    if bucket.second != second:
        bucket.second = second
        bucket.told = 0
    begin(ring, second)
    if bucket.since == second:
        most = (most + 1) // 2          # the other half is for who was there before
    if bucket.told >= ring.per_second or ring.told >= most:
        bucket.left_out += 1
        ring.left_out += 1
        return
    bucket.told += 1
    ring.told += 1
    copy = event[0]
    copy.left_out = bucket.left_out
    bucket.left_out = 0
    put(ring, &copy)


cdef void begin(Ring *ring, uint32_t second) noexcept nogil:
    """What is counted over all buckets is counted for one second at a time."""
    if ring.second != second:
        ring.second = second
        ring.told = 0
        ring.summed = 0


cdef Bucket *bucket_of(Ring *ring, const Event *event, uint32_t second) noexcept nogil:
    """The bucket of the event's diagnosis and VTEP. A new one displaces one that is as new, else the longest silent
    (the younger of two): a flood takes one bucket of a set in a second, and then displaces itself."""
    cdef const Endpoints *teller = &event.outer if event.outer.version else &event.inner
    cdef uint64_t hashed = hash_bytes(ring.seed ^ event.judgement.diagnosis, teller.source, 16)
    cdef Bucket *ways = ring.buckets[hashed % SETS]
    cdef Bucket *bucket = NULL
    cdef uint64_t rank, lowest = 0
    cdef int i
    for i in range(BUCKET_WAYS):
        if ways[i].version == teller.version and ways[i].diagnosis == event.judgement.diagnosis \
                and ways[i].tunnel == event.tunnel and memcmp(ways[i].source, teller.source, 16) == 0:
            return &ways[i]
        rank = 0 if not ways[i].version else 1 if ways[i].since == second \
            else <uint64_t>ways[i].second + 1 << 32 | <uint32_t>~ways[i].since
        if bucket == NULL or rank < lowest:
            bucket = &ways[i]
            lowest = rank
    ring.others[bucket.diagnosis] += bucket.left_out
    memset(bucket, 0, sizeof(Bucket))
    bucket.version = teller.version
    bucket.tunnel = event.tunnel
    bucket.diagnosis = event.judgement.diagnosis
    bucket.since = bucket.second = second
    memcpy(bucket.source, teller.source, 16)
    return bucket


cdef void put_summary(Ring *ring, const Bucket *bucket, uint8_t diagnosis, uint64_t left_out,
                      uint64_t when) noexcept nogil:
    """Tell how many were left out of a bucket, or (NULL) of buckets that are gone."""
    cdef Event event
    memset(&event, 0, sizeof(Event))
    event.summary = True
    event.when = when
    event.judgement.diagnosis = diagnosis
    event.left_out = left_out
    if bucket != NULL:
        event.tunnel = bucket.tunnel
        event.judgement.outer = OUT_GOOD if bucket.tunnel else OUT_NO_TUNNEL
        event.outer.version = bucket.version
        memcpy(event.outer.source, bucket.source, 16)
    put(ring, &event)


cdef void ring_settle(Ring *ring, uint64_t when, bint all) noexcept nogil:
    """Tell what was left out in seconds that are over, so that no burst's end is left unsaid. `all`: at a stop."""
    cdef uint32_t second = <uint32_t>(when // SECOND)
    cdef Bucket *bucket
    cdef int i, j
    begin(ring, second)
    for i in range(SETS):
        for j in range(BUCKET_WAYS):
            bucket = &ring.buckets[i][j]
            if not bucket.left_out or not (all or bucket.second != second):
                continue
            if ring.summed < SUMMARIES:
                ring.summed += 1
                put_summary(ring, bucket, bucket.diagnosis, bucket.left_out, when)
            else:
                ring.others[bucket.diagnosis] += bucket.left_out
            bucket.left_out = 0
    for i in range(DIAGNOSES):
        if ring.others[i]:
            put_summary(ring, NULL, <uint8_t>i, ring.others[i], when)
            ring.others[i] = 0


cdef bint ring_take(Ring *ring, Event *out) noexcept nogil:
    """The oldest event, or False if there is none."""
    if load_acquire(&ring.written) == ring.taken:
        return False
    out[0] = ring.events[ring.taken & (ring.size - 1)]
    store_release(&ring.taken, ring.taken + 1)
    return True
