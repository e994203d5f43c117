# cython: language_level=3
"""What in a capture is no VXLAN where it was looked for: by protocol, by port, by EtherType; and what looks like VXLAN
on another port."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef class Strangers:
    cdef uint64_t *protocols     # by IP protocol
    cdef uint64_t *ports         # UDP, by destination port
    cdef uint64_t *ethertypes    # of frames without IP; 0: another link layer, or no room for one
    cdef uint64_t *alike         # UDP that looks like VXLAN, by destination port
    cdef uint64_t *first         # the number of the first such frame
    cdef readonly uint64_t fragments     # those of an IP packet that are not its first
    cdef void note_ip(self, const uint8_t *packet, uint32_t captured, uint64_t frame) noexcept nogil
    cdef void note_frame(self, uint16_t ethertype) noexcept nogil
