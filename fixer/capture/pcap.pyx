# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""pcap files (draft-ietf-opsawg-pcap), and the modified ones of A. Kuznetsov's tcpdump: their header, their records.

Nothing is believed: a record is looked at when all the bytes that it claims are there.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fixer.capture.frames cimport Frames
from fixer.datapath.pipeline cimport INCOMING, OUTGOING, UNMARKED, Direction
from fixer.datapath.wire cimport PACKET_OUTGOING, be32, le32

MAGICS = frozenset(bytes.fromhex(magic)[::step] for magic in ("a1b2c3d4", "a1b23c4d", "a1b2cd34") for step in (1, -1))
HEADER = <int>FILE_HEADER
"""Bytes before the first record."""
LARGEST_RECORD = <int>LARGEST
"""Bytes. libpcap allows 256 KiB a record; a length above this is damage, and is not worth the memory of trying."""

cdef enum:
    FILE_HEADER = 24
    FILE_LINK_TYPE = 20      # the upper bits describe a frame check sequence
    RECORD_HEADER = 16
    RECORD_SECONDS = 0
    RECORD_FRACTION = 4      # micro- or nanoseconds, as the file's magic number says
    RECORD_CAPTURED = 8
    RECORD_LENGTH = 12
    MODIFIED_HEADER = 24     # interface and protocol behind the length, then which way it went
    MODIFIED_PACKET_TYPE = 22
    LARGEST = 1 << 24


cdef class Pcap:
    """One file's reader: `parse` it a block at a time."""
    cdef bint big_endian
    cdef bint modified
    cdef uint64_t unit       # nanoseconds
    cdef uint32_t header     # bytes before each frame
    cdef readonly uint32_t network   # link type and frame check sequence, as the file header has them
    cdef readonly uint64_t claimed   # bytes of the record that `parse` left, its header included; 0: not even known

    def __cinit__(self, const unsigned char[::1] header not None):
        """header: HEADER bytes that begin with one of MAGICS."""
        if header.shape[0] < FILE_HEADER or bytes(header[:4]) not in MAGICS:
            raise ValueError("no file header of pcap")
        self.big_endian = header[0] == 0xa1
        magic = be32(&header[0]) if self.big_endian else le32(&header[0])
        self.unit = 1 if magic == 0xa1b23c4d else 1000
        self.modified = magic == 0xa1b2cd34
        self.header = MODIFIED_HEADER if self.modified else RECORD_HEADER
        self.network = self.word(&header[0], FILE_LINK_TYPE)

    def parse(self, bytearray block not None, size_t at, size_t end, Frames frames not None):
        """Fill `frames` with what is whole of block[at:end]; where the first record left begins.

        Raises ValueError, with what is wrong with it, if the first record cannot be one.
        """
        cdef const unsigned char[::1] data = block
        cdef uint32_t captured
        if at > end or end > <size_t>data.shape[0]:
            raise ValueError(f"{at}:{end} is not inside a block of {data.shape[0]} bytes")
        frames.begin(block)
        self.claimed = 0
        with nogil:
            while end - at >= self.header and frames.used < frames.most:
                captured = self.word(&data[at], RECORD_CAPTURED)
                self.claimed = <uint64_t>self.header + captured
                if captured > LARGEST or end - at < self.claimed:
                    break
                self.add(&data[at], at, captured, frames)
                at += self.claimed
                self.claimed = 0
        if self.claimed > LARGEST + self.header and not frames.used:
            raise ValueError(f"a record claims {self.claimed - self.header} bytes")
        return at

    cdef inline void add(self, const uint8_t *record, size_t at, uint32_t captured, Frames frames) noexcept nogil:
        cdef Direction marked = UNMARKED
        if self.modified:
            marked = OUTGOING if record[MODIFIED_PACKET_TYPE] == PACKET_OUTGOING else INCOMING
        frames.add(at + self.header, captured, self.word(record, RECORD_LENGTH),
                   self.word(record, RECORD_SECONDS) * <uint64_t>1000000000
                   + self.word(record, RECORD_FRACTION) * self.unit,
                   <uint16_t>self.network, marked)

    cdef inline uint32_t word(self, const uint8_t *record, size_t at) noexcept nogil:
        return be32(record + at) if self.big_endian else le32(record + at)
