# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The packet path in a tight loop, without a kernel around it; the sums it cannot do without, and the flow table."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from fixer._csum cimport sum_bytes
from fixer.datapath.flows cimport PLAIN, Flows, FlowTable, Segment, Verdict, announce, forward, reply
from fixer.datapath.pipeline cimport Handed, Pipeline
from fixer.datapath.repair cimport REPAIR
from fixer.datapath.wire cimport TCP_ACK, TCP_SYN

cdef extern from "<time.h>" nogil:
    enum: CLOCK_MONOTONIC
    enum: CLOCK_THREAD_CPUTIME_ID
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int, timespec *)

cdef enum:
    SLOT = 66048             # as the queue's buffers lie
    SOURCES = 100            # addresses that connections come from
    AHEAD = 1 << 30          # how far their clocks are, in ticks
    NOW = 1000               # uptime, seconds


def process(Pipeline pipeline not None, list packets not None, int turns, bint outgoing=False):
    """Put `packets` (of one length, at most SLOT bytes) through `turns` times, as a queue would; (seconds, repaired).

    The clock, of CPU time, runs around everything; what was changed is put back as it was, a copy of its first 128 bytes.
    outgoing: they leave through OUTPUT.
    """
    cdef uint8_t *slots = filled(packets)
    cdef uint8_t *before = filled(packets)
    cdef uint32_t count = <uint32_t>len(packets), length = <uint32_t>len(packets[0]), head = min(128, length)
    cdef uint32_t i
    cdef uint64_t begun, repaired = 0
    cdef int _turn
    cdef Handed handed = Handed(when=now(), uptime=0, skb_info=0, outgoing=outgoing)
    with nogil:
        begun = spent()
        for _turn in range(turns):
            for i in range(count):
                if pipeline.process(slots + <size_t>i * SLOT, length, length, &handed, NULL) == REPAIR:
                    memcpy(slots + <size_t>i * SLOT, before + <size_t>i * SLOT, head)
                    repaired += 1
        begun = spent() - begun
    free(slots)
    free(before)
    return begun / 1e9, repaired


def sums(list packets not None, int turns):
    """Sum every byte of `packets` `turns` times and do nothing else; (seconds, what depends on all of them)."""
    cdef uint8_t *slots = filled(packets)
    cdef uint32_t count = <uint32_t>len(packets), length = <uint32_t>len(packets[0])
    cdef uint32_t i
    cdef uint64_t begun, all_ = 0
    cdef int _turn
    with nogil:
        begun = spent()
        for _turn in range(turns):
            for i in range(count):
                all_ += sum_bytes(slots + <size_t>i * SLOT, length)
        begun = spent() - begun
    free(slots)
    return begun / 1e9, all_


def lookups(Flows flows not None, int connections, list order not None, int turns):
    """Ask `flows`, which is empty, about the segments of `order` `turns` times; (seconds, how many were to be shifted).

    `connections` are established before, each with a delta other than 0. order: of each segment the number of its
    connection, and whether it is a reply. Time goes on from segment to segment, so each reply moves a clock.
    What the table is asked is written on the spot, as from a packet: that is in the time. A question is announced while
    the one before is asked, as the packet path does it before it sums the payload.
    """
    cdef FlowTable *table = &flows.table
    cdef uint32_t count = <uint32_t>len(order), i, delta, ticks = 2
    cdef uint64_t begun, shifted = 0
    cdef int _turn
    cdef Verdict verdict
    cdef Segment[2] segments
    cdef uint64_t[2] hashed
    cdef uint32_t this, following
    cdef uint32_t *asked = <uint32_t *>calloc(count, sizeof(uint32_t))      # an array of segments would fill the caches
    if asked == NULL:
        raise MemoryError
    establish(table, connections)
    for i, (number, is_reply) in enumerate(order):
        asked[i] = <uint32_t>number << 1 | <uint32_t>is_reply
    with nogil:
        begun = spent()
        for _turn in range(turns):
            about(&segments[0], asked[0] >> 1, TCP_ACK)
            hashed[0] = announce(table, &segments[0].key)
            for i in range(count):
                this, following = i & 1, ~i & 1
                if i + 1 < count:
                    about(&segments[following], asked[i + 1] >> 1, TCP_ACK)
                    hashed[following] = announce(table, &segments[following].key)
                segments[this].value += ticks
                segments[this].echoed = segments[this].value + AHEAD
                ticks += 1
                verdict = (reply if asked[i] & 1 else forward)(table, &segments[this], hashed[this], NOW, &delta)
                shifted += verdict == Verdict.TRACKED and delta != 0
        begun = spent() - begun
    free(asked)
    return begun / 1e9, shifted


cdef void establish(FlowTable *table, int connections) noexcept nogil:
    cdef Segment segment
    cdef uint32_t delta
    cdef int number
    for number in range(SOURCES):           # a connection that was there before: what is echoed of it moves the clock
        about(&segment, number, TCP_ACK)
        segment.key.server_port[0] = 1
        segment.echoed = segment.value + AHEAD
        reply(table, &segment, announce(table, &segment.key), NOW, &delta)
    for number in range(connections):
        about(&segment, number, TCP_SYN)
        forward(table, &segment, announce(table, &segment.key), NOW, &delta)
        segment.flags = TCP_SYN | TCP_ACK
        reply(table, &segment, announce(table, &segment.key), NOW, &delta)
        about(&segment, number, TCP_ACK)
        forward(table, &segment, announce(table, &segment.key), NOW, &delta)


cdef void about(Segment *segment, uint32_t number, uint8_t flags) noexcept nogil:
    """A segment of connection `number`: its SYN, or the first behind it; or a reply to either."""
    cdef uint32_t port = 1024 + number // SOURCES
    memset(segment, 0, sizeof(Segment))
    segment.key.client[0] = 10
    segment.key.client[3] = <uint8_t>(number % SOURCES)
    segment.key.server[0] = 192
    segment.key.where = 4 << 24 | PLAIN
    segment.key.client_port[0] = <uint8_t>(port >> 8)
    segment.key.client_port[1] = <uint8_t>port
    segment.flags = flags
    segment.stamped = True
    segment.sequence = number + (not flags & TCP_SYN)
    segment.acknowledged = number + 1
    segment.value = 1


cdef uint8_t *filled(list packets) except NULL:
    cdef uint8_t *slots = <uint8_t *>calloc(len(packets), SLOT)
    cdef const uint8_t[::1] packet
    if slots == NULL:
        raise MemoryError
    for i, one in enumerate(packets):
        packet = one
        if packet.shape[0] > SLOT:
            free(slots)
            raise ValueError(f"{packet.shape[0]} bytes do not fit a slot")
        memcpy(slots + <size_t>i * SLOT, &packet[0], packet.shape[0])
    return slots


cdef inline uint64_t spent() noexcept nogil:
    """Nanoseconds of this thread's CPU time: what others do on the machine is not in it."""
    cdef timespec clock
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &clock)
    return <uint64_t>clock.tv_sec * 1000000000U + <uint64_t>clock.tv_nsec


cdef inline uint64_t now() noexcept nogil:
    cdef timespec clock
    clock_gettime(CLOCK_MONOTONIC, &clock)
    return <uint64_t>clock.tv_sec * 1000000000U + <uint64_t>clock.tv_nsec
