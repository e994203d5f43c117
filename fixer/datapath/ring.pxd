# cython: language_level=3
"""Events on their way out of the datapath: a bounded ring with one writer and one reader, and the limit before it.

The writer (the packet path) never waits: an event over the limit is counted as left out, one that finds the ring full
is counted as lost. The reader is whoever calls `ring_take`, one at a time.

The limit is for each diagnosis and VTEP, and over all of them: a flood of spoofed VTEPs is told no more than VOICES of
them would be, and who spoke before it began keeps half of that. What is left out is always told as a number: by VTEP as
far as its bucket lived, else by diagnosis.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from fixer.datapath.diagnose cimport DIAGNOSES, Judgement
from fixer.datapath.walk cimport Walk

cdef extern from *:
    """
    #define load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    """
    uint64_t load_acquire(const uint64_t *p) nogil
    void store_release(uint64_t *p, uint64_t value) nogil


cdef struct Endpoints:
    uint8_t version          # 4, 6, or 0: unknown
    uint8_t protocol
    uint8_t tcp_flags        # 0 where it is not TCP, or they were not captured
    uint16_t source_port     # 0 where the protocol has none, or it was not captured
    uint16_t destination_port
    uint8_t source[16]       # network order; IPv4 in the first four bytes
    uint8_t destination[16]


cdef struct Event:
    uint64_t when            # nanoseconds since the epoch: arrival, as far as it is known
    uint64_t left_out        # events of this diagnosis and VTEP that were not told before this one
    Judgement judgement
    uint8_t action           # repair.Action that was taken
    uint8_t would            # what it would have been if not monitoring
    bint summary             # no packet: only `left_out` is told, of `judgement.diagnosis` and of the VTEP or (without
    #                          `tunnel`) plain sender `outer.source`; outer version 0: of those whose bucket is gone
    bint tunnel
    uint32_t length          # of the packet, bytes from its first IP header
    uint32_t transport       # offset of the inner transport header from the packet's first byte, 0: it is not captured
    uint32_t covered         # bytes from there to the end of the inner segment
    uint32_t vni
    int32_t vlan
    Endpoints outer
    Endpoints inner


cdef struct Bucket:
    uint64_t left_out
    uint32_t since           # the second of its first event
    uint32_t second          # the second that `told` counts in: of its last event
    uint32_t told
    uint8_t diagnosis
    uint8_t version          # 0: free
    uint8_t tunnel           # `source` is a VTEP
    uint8_t source[16]


cdef enum:
    SETS = 128               # × BUCKET_WAYS pairs of diagnosis and VTEP that are limited apart
    BUCKET_WAYS = 4
    VOICES = 20              # all together are told what so many pairs may tell
    SUMMARIES = 20           # lines a second that tell nothing but how many were left out


cdef struct Ring:
    uint64_t written         # events ever put in; only the writer advances it
    uint64_t taken           # events ever taken out; only the reader advances it
    uint64_t lost            # events that found the ring full
    uint64_t left_out        # events over the limit
    uint32_t size            # a power of two
    uint32_t per_second      # events a second for each diagnosis and VTEP; 0: none at all
    uint64_t seed
    uint32_t second          # the second that `told` and `summed` count in
    uint32_t told            # events of all buckets
    uint32_t summed          # summaries of a bucket
    uint64_t others[DIAGNOSES]   # left out, and their bucket is gone
    Bucket buckets[SETS][BUCKET_WAYS]
    Event *events


cdef Ring *ring_new(uint32_t size, uint32_t per_second, uint64_t seed) except NULL
cdef void ring_free(Ring *ring) noexcept
cdef void describe(Event *out, const uint8_t *packet, const Walk *walk, const Judgement *judgement,
                   uint64_t when) noexcept nogil
cdef void ring_tell(Ring *ring, const Event *event) noexcept nogil
cdef void ring_settle(Ring *ring, uint64_t when, bint all) noexcept nogil
cdef bint ring_take(Ring *ring, Event *out) noexcept nogil
