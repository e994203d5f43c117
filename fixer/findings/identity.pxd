# cython: language_level=3
"""What of a packet no hop changes, and what a hop may: enough to know it again in another capture.

Kept of each packet is this one struct; the bytes are gone when the reader goes on.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fixer.datapath.diagnose cimport Judgement
from fixer.datapath.walk cimport Walk


cdef enum:
    # Traits of a packet.
    TUNNELLED = 1
    CUT = 2                  # the copy is cut: its payload cannot be compared, `whole` is 0
    STREAM = 4               # TCP that takes sequence numbers: payload or SYN
    TELLING = 8              # its head is its own: no other packet of a minute has it (IP id, sequence, echo number)
    LEAVING = 16             # the capture marks it as outgoing


cdef struct Packet:
    uint64_t when            # nanoseconds since the epoch, by the clock of its capture
    uint64_t head            # hash of what no hop changes, but for the payload
    uint64_t whole           # … and with it
    uint64_t flow            # hash of inner addresses, protocol and ports, as directed
    uint32_t sequence        # TCP
    uint32_t payload         # bytes behind the TCP header
    uint32_t length          # bytes on the wire, from the first IP header
    uint32_t number          # of its frame in the file, from 1 on
    uint32_t pair            # who sent it to whom: of the outer addresses, without a tunnel the only ones
    uint32_t other           # place in the other capture + 1 of what it was matched with; 0: none
    uint32_t vni
    uint32_t flags           # the VXLAN flags word
    uint32_t envelope        # hash of MAC addresses and tags
    uint32_t rest            # hash of TCP flags, window and options, and of IP options
    uint16_t ports[2]        # outer UDP
    uint16_t sums[2]         # checksum fields: outer, inner
    uint8_t ttl[2]           # outer, inner
    uint8_t tos[2]
    uint8_t inner            # InnerState
    uint8_t outer            # OuterState
    uint8_t diagnosis
    uint8_t traits
    uint8_t fate             # match.Fate


cdef struct Ends:
    # Hash of the flow that answers this one, and what is acknowledged of it.
    bint acknowledges
    uint64_t flow
    uint32_t upto


cdef bint identify(const uint8_t *packet, const Walk *route, const Judgement *judgement, uint64_t seed, Packet *out,
                   Ends *answers) noexcept nogil
