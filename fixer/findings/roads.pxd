# cython: language_level=3
"""Who sends to whom, and how that goes: what is answered, what is sent in vain, what is too long or cut to pieces.

A road is one direction of two VTEPs, or of two hosts without a tunnel. What is noted here is no fault of a checksum,
and what people look for a checksum's fault in all the same. Memory is fixed; roads and fragments beyond it are not
noted.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fixer.datapath.ring cimport Event
from fixer.findings.progress cimport Progress
from fixer.findings.table cimport Table


cpdef enum Sight:
    """What is counted on a road."""
    PACKETS = 0
    ASKED                    # SYNs, echo requests and DNS queries that are sound and to which nothing came back
    ANSWERED                 # conversations in which both sides spoke
    SOUGHT                   # requests for somebody's MAC address (ARP, neighbour solicitations)
    FOUND                    # answers to such
    STALLED                  # sides of connections whose first segment came again and again, and was never acknowledged
    STALLED_LONG             # of these: longer than all that was acknowledged
    STALLED_HEARD            # of these: and the other side was heard meanwhile
    REPEATS                  # packets that came again for nothing, of STALLED
    TOO_LONG                 # packets of the underlay of which a router says that they are too long (ICMP)
    TOO_LONG_INSIDE          # the same of packets inside the tunnel: it tells their sender, who may obey
    WHOLE                    # fragmented packets of which every fragment is here
    REST_MISSING             # fragmented packets of which the first fragment is here, and not all the others


cdef enum:
    SIGHTS = 13


cdef struct RoadKey:
    uint8_t address[2][16]   # from, to; network order, IPv4 in the first four bytes
    uint8_t version
    uint8_t tunnel


cdef struct Road:
    RoadKey key
    uint64_t count[SIGHTS]
    uint64_t first[SIGHTS]   # number of the first such frame, 0: not told
    uint32_t stalled         # bytes of the shortest payload of STALLED_LONG
    uint32_t through         # bytes of the longest payload that was acknowledged beside these
    uint32_t longest         # bytes of the longest packet that was cut to pieces, from its first IP header
    uint32_t mtu             # the lowest of which a router speaks, 0: none


cdef struct Parts:
    # A packet of the underlay that was cut to pieces.
    uint8_t address[2][16]
    uint32_t identification
    uint16_t version
    uint16_t protocol
    uint32_t bytes           # behind the key: of all fragments that are here
    uint32_t total           # of the whole packet's IP payload, 0: the last fragment is not here
    uint32_t header          # bytes of its IP header
    uint32_t road            # number + 1, 0: its first fragment is not here, or shows no VXLAN
    uint64_t frame


cdef class Roads:
    cdef Table table
    cdef Table parts
    cdef readonly uint64_t later_parts   # fragments that are not the first of their packet
    cdef uint64_t frame      # number of the packet that is looked at: to be set before the others are asked
    cdef uint32_t of(self, const Event *event) noexcept nogil
    cdef uint32_t between(self, const uint8_t *source, const uint8_t *destination, uint8_t version,
                          bint tunnel) noexcept nogil
    cdef uint32_t quoted(self, const uint8_t *source, const uint8_t *destination, uint8_t version) noexcept nogil
    cdef void note(self, uint32_t road, Sight sight, uint64_t count) noexcept nogil
    cdef void note_end(self, uint32_t road, const Progress *progress) noexcept nogil
    cdef void note_neighbour(self, const uint8_t *packet, uint32_t captured, const Event *event) noexcept nogil
    cdef void note_too_long(self, const uint8_t *icmp, uint32_t room, const Event *inside) noexcept nogil
    cdef void note_icmp(self, const uint8_t *packet, uint32_t captured) noexcept nogil
    cdef uint32_t note_fragment(self, const uint8_t *packet, uint32_t captured, uint8_t *whole,
                                uint32_t room) noexcept nogil
    cdef void count_parts(self) noexcept nogil
