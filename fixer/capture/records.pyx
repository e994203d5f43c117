# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The records of a pcap file (draft-ietf-opsawg-pcap), a block at a time, through a pipeline into a census.

Nothing is believed: a record is looked at when all the bytes that it claims are in the block.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from fixer.capture.link cimport NO_IP, ip_offset
from fixer.datapath.pipeline cimport Direction, Handed, Pipeline
from fixer.datapath.ring cimport Event
from fixer.datapath.wire cimport (RECORD_CAPTURED, RECORD_FRACTION, RECORD_HEADER, RECORD_LENGTH, RECORD_SECONDS, be32,
                                  le32)
from fixer.findings.census cimport Census

HEADER = <int>RECORD_HEADER
"""Bytes before each frame."""


cdef class Records:
    """What a file's header says of its records."""
    cdef bint big_endian
    cdef int link_type
    cdef uint64_t unit       # nanoseconds

    def __cinit__(self, *, bint big_endian, bint nanoseconds, int link_type):
        """link_type: one of link.LinkType."""
        self.big_endian = big_endian
        self.link_type = link_type
        self.unit = 1 if nanoseconds else 1000

    def count(self, unsigned char[::1] block not None, size_t at, size_t end, Pipeline pipeline not None,
              Census census not None):
        """Note what `pipeline` says of the whole records of block[at:end], until `census` is full; where the first one
        left begins.

        Packets that the pipeline mends are mended in the block.
        """
        check(block, at, end)
        with nogil:
            while at < end and not census.is_full() and self.is_whole(&block[at], end - at):
                self.count_one(&block[at], pipeline, census)
                at += RECORD_HEADER + self.word(&block[at], RECORD_CAPTURED)
        return at

    def claimed(self, unsigned char[::1] block not None, size_t at, size_t end):
        """The bytes, its header included, that the record at `at` claims to have; 0 if its header is not whole."""
        check(block, at, end)
        return <uint64_t>RECORD_HEADER + self.word(&block[at], RECORD_CAPTURED) if end - at >= RECORD_HEADER else 0

    cdef inline bint is_whole(self, const uint8_t *record, size_t room) noexcept nogil:
        return room >= RECORD_HEADER and room - RECORD_HEADER >= self.word(record, RECORD_CAPTURED)

    cdef inline uint32_t word(self, const uint8_t *record, size_t at) noexcept nogil:
        return be32(record + at) if self.big_endian else le32(record + at)

    cdef inline void count_one(self, uint8_t *record, Pipeline pipeline, Census census) noexcept nogil:
        """A whole record. The length on the wire is at least what was captured, whatever it says."""
        cdef uint8_t *frame = record + RECORD_HEADER
        cdef uint32_t captured = self.word(record, RECORD_CAPTURED)
        cdef uint32_t length = max(captured, self.word(record, RECORD_LENGTH))
        cdef Handed handed = Handed(when=self.word(record, RECORD_SECONDS) * <uint64_t>1000000000
                                    + self.word(record, RECORD_FRACTION) * self.unit,
                                    uptime=0, skb_info=0, outgoing=False)
        cdef Event event
        cdef Direction marked
        cdef int64_t ip = ip_offset(self.link_type, frame, captured, &marked)
        if ip == NO_IP:
            census.note_other()
        else:
            pipeline.process(frame + ip, captured - <uint32_t>ip, length - <uint32_t>ip, &handed, &event)
            census.note(&event, marked)


cdef inline int check(const unsigned char[::1] block, size_t at, size_t end) except -1:
    if at > end or end > <size_t>block.shape[0]:
        raise ValueError(f"{at}:{end} is not inside a block of {block.shape[0]} bytes")
    return 0
