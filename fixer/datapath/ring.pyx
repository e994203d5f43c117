# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from fixer.datapath.walk cimport Layer
from fixer.datapath.wire cimport *

cdef extern from *:
    """
    #define load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    """
    uint64_t load_acquire(const uint64_t *p) nogil
    void store_release(uint64_t *p, uint64_t value) nogil

cdef uint64_t SECOND = 1000000000


cdef Ring *ring_new(uint32_t size, uint32_t per_second) except NULL:
    """A ring of `size` events (a power of two) that tells `per_second` of each diagnosis and VTEP."""
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
    return ring


cdef void ring_free(Ring *ring) noexcept:
    if ring != NULL:
        free(ring.events)
        free(ring)


cdef void describe(Event *out, const uint8_t *packet, const Walk *walk, const Finding *finding,
                   uint64_t when) noexcept nogil:
    """Everything about a packet that is told, copied out of it: the packet may be gone when the event is read."""
    memset(out, 0, sizeof(Event))
    out.when = when
    out.finding = finding[0]
    out.length = walk.length
    out.tunnel = walk.tunnel
    out.vni = walk.vni
    out.vlan = walk.vlan
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
    """Put `event` into the ring, or count it as left out if its diagnosis and VTEP had their share of this second."""
    cdef const Endpoints *teller = &event.outer if event.outer.version else &event.inner
    cdef uint32_t second = <uint32_t>(event.when // SECOND)
    cdef uint32_t hashed = event.finding.diagnosis
    cdef Bucket *bucket
    cdef Event copy
    cdef int i
    for i in range(16):
        hashed = (hashed ^ teller.source[i]) * 16777619U        # FNV-1a
    bucket = &ring.buckets[(hashed ^ (hashed >> 16)) % BUCKETS]
    if bucket.version != teller.version or bucket.diagnosis != event.finding.diagnosis \
            or memcmp(bucket.source, teller.source, 16) != 0:
        if bucket.left_out:
            put_summary(ring, bucket, event.when)
        memset(bucket, 0, sizeof(Bucket))
        bucket.version = teller.version
        bucket.diagnosis = event.finding.diagnosis
        memcpy(bucket.source, teller.source, 16)
    if bucket.second != second:
        bucket.second = second
        bucket.told = 0
    if bucket.told >= ring.per_second:
        bucket.left_out += 1
        ring.left_out += 1
        return
    bucket.told += 1
    copy = event[0]
    copy.left_out = bucket.left_out
    bucket.left_out = 0
    put(ring, &copy)


cdef void put_summary(Ring *ring, Bucket *bucket, uint64_t when) noexcept nogil:
    cdef Event event
    memset(&event, 0, sizeof(Event))
    event.summary = True
    event.when = when
    event.finding.diagnosis = bucket.diagnosis
    event.left_out = bucket.left_out
    event.outer.version = bucket.version
    memcpy(event.outer.source, bucket.source, 16)
    bucket.left_out = 0
    put(ring, &event)


cdef void ring_settle(Ring *ring, uint64_t when, bint all) noexcept nogil:
    """Tell what was left out in seconds that are over, so that no burst's end is left unsaid. `all`: at a stop."""
    cdef uint32_t second = <uint32_t>(when // SECOND)
    cdef int i
    for i in range(BUCKETS):
        if ring.buckets[i].left_out and (all or ring.buckets[i].second != second):
            put_summary(ring, &ring.buckets[i], when)


cdef bint ring_take(Ring *ring, Event *out) noexcept nogil:
    """The oldest event, or False if there is none."""
    if load_acquire(&ring.written) == ring.taken:
        return False
    out[0] = ring.events[ring.taken & (ring.size - 1)]
    store_release(&ring.taken, ring.taken + 1)
    return True
