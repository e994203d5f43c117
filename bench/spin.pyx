# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The packet path in a tight loop, without a kernel around it; and the sums alone that it cannot do without."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from fixer._csum cimport sum_bytes
from fixer.datapath.pipeline cimport Handed, Pipeline
from fixer.datapath.repair cimport REPAIR

cdef extern from "<time.h>" nogil:
    enum: CLOCK_MONOTONIC
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int, timespec *)

cdef enum:
    SLOT = 66048             # as the queue's buffers lie


def process(Pipeline pipeline not None, list packets not None, int turns):
    """Put `packets` (of one length, at most SLOT bytes) through `turns` times, as a queue would; (seconds, repaired).

    The clock runs around everything; what was mended is put back as it was, a copy of its first 128 bytes.
    """
    cdef uint8_t *slots = filled(packets)
    cdef uint8_t *before = filled(packets)
    cdef uint32_t count = <uint32_t>len(packets), length = <uint32_t>len(packets[0]), head = min(128, length)
    cdef uint32_t i
    cdef uint64_t begun, repaired = 0
    cdef int _turn
    cdef Handed handed = Handed(when=now(), uptime=0, skb_info=0, outgoing=False)
    with nogil:
        begun = now()
        for _turn in range(turns):
            for i in range(count):
                if pipeline.process(slots + <size_t>i * SLOT, length, length, &handed, NULL) == REPAIR:
                    memcpy(slots + <size_t>i * SLOT, before + <size_t>i * SLOT, head)
                    repaired += 1
        begun = now() - begun
    free(slots)
    free(before)
    return begun / 1e9, repaired


def sums(list packets not None, int turns):
    """Sum every byte of `packets` `turns` times and do nothing else; (seconds, a number that depends on all of them)."""
    cdef uint8_t *slots = filled(packets)
    cdef uint32_t count = <uint32_t>len(packets), length = <uint32_t>len(packets[0])
    cdef uint32_t i
    cdef uint64_t begun, all_ = 0
    cdef int _turn
    with nogil:
        begun = now()
        for _turn in range(turns):
            for i in range(count):
                all_ += sum_bytes(slots + <size_t>i * SLOT, length)
        begun = now() - begun
    free(slots)
    return begun / 1e9, all_


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


cdef inline uint64_t now() noexcept nogil:
    cdef timespec clock
    clock_gettime(CLOCK_MONOTONIC, &clock)
    return <uint64_t>clock.tv_sec * 1000000000U + <uint64_t>clock.tv_nsec
