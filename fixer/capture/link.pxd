# cython: language_level=3
"""From the first byte of a captured frame to the underlay's IP header; what a capture has before it.

Frames from a queue have no link layer: only captures meet this.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t

from fixer.datapath.pipeline cimport Direction


cpdef enum LinkType:
    """https://www.tcpdump.org/linktypes.html"""
    BSD_LOOP = 0             # BSD loopback, family in the byte order of the host that captured
    ETHERNET = 1
    RAW_BSD = 12
    RAW = 101
    LOOP = 108              # OpenBSD loopback, family in network order
    SLL = 113               # Linux cooked: `tcpdump -i any`
    IPV4 = 228
    IPV6 = 229
    SLL2 = 276


cdef enum:
    NO_IP = -1


cdef inline bint is_known(int link_type) noexcept nogil:
    return link_type in (BSD_LOOP, ETHERNET, RAW_BSD, RAW, LOOP, SLL, IPV4, IPV6, SLL2)


cdef uint16_t ethertype_of(int link_type, const uint8_t *frame, size_t captured) noexcept nogil
cdef int64_t ip_offset(int link_type, const uint8_t *frame, size_t captured, Direction *marked) noexcept nogil
