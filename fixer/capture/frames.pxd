# cython: language_level=3
"""Where the frames of a block of a capture are: every reader fills this, a pipeline is fed from it."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fixer.datapath.pipeline cimport Direction


cdef struct Place:
    uint64_t when            # nanoseconds since the epoch, 0 where the capture does not know
    size_t at                # of its first byte in the block
    uint32_t captured        # bytes
    uint32_t length          # bytes on the wire, at least `captured`
    uint16_t link_type
    uint8_t marked           # Direction, as far as the file itself says


cdef enum:
    MAC = 6                  # bytes, as in Here


cdef struct Here:
    # An address of the host that captured: of its link layer, or of IP (the underlay's, where there is a tunnel).
    uint8_t size             # bytes: MAC, 4 or 16; 0: not known
    uint8_t address[16]


cdef class Frames:
    cdef Here here
    cdef public object block         # a bytearray; valid until the reader goes on
    cdef uint32_t most
    cdef uint32_t used
    cdef Place *places
    cdef uint64_t *unknown           # frames of each link type that is not read
    cdef readonly uint64_t seen      # frames ever added
    cdef void add(self, size_t at, uint32_t captured, uint32_t length, uint64_t when, uint16_t link_type,
                  Direction marked) noexcept nogil
