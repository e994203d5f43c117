# cython: language_level=3
"""What the pipeline says of packets, counted by kind; and who of an inner conversation answers whom.

Each door puts its packets through a pipeline of its own and notes the events here: the census has never seen a packet.

Two packets are of one kind if a report tells them apart in nothing: same sender, VNI, states, diagnosis and action,
same direction, lengths that mean the same. So a million packets become a few kinds, each with its first packet as an
example, and nobody need look at each. Memory is fixed: when there is no room for another kind the census is `full`,
and whoever runs it takes out (`drain`) what was counted until then.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fixer.datapath.pipeline cimport Direction
from fixer.datapath.ring cimport Event
from fixer.findings.table cimport Table


cdef struct Sender:
    uint8_t address[16]      # network order, IPv4 in the first four bytes
    uint8_t version          # 4, 6, or 0: unknown
    bint tunnel              # a VTEP; else the sender of a plain packet


cdef struct KindKey:
    Sender sender            # all zero for IP packets that were not judged
    uint32_t vni
    uint8_t inner
    uint8_t outer
    uint8_t diagnosis
    uint8_t reason
    uint8_t explanation
    uint8_t would
    uint8_t unverified
    uint8_t marked           # pipeline.Direction
    uint32_t length_class    # how many of the census's two bounds the packet is longer than


cdef struct Kind:
    KindKey key
    uint64_t count
    Event first


cdef struct ConversationKey:
    uint8_t address[2][16]   # the two inner ends, the lower one first
    uint16_t port[2]
    uint8_t version
    uint8_t protocol
    uint16_t zero


cdef struct Speaker:
    bint spoke               # else nothing here is valid
    Sender sender            # of the first packet of this end
    uint64_t unfinished      # segments whose inner checksum was never finished
    uint64_t finished
    uint64_t answers         # finished ones that answer unfinished ones of the other end


cdef struct Conversation:
    ConversationKey key
    uint8_t began            # the end that spoke first: 0 or 1
    Speaker end[2]


cdef class Census:
    cdef uint32_t common
    cdef uint32_t largest
    cdef Table kinds
    cdef Table conversations
    cdef readonly uint64_t frames
    cdef readonly uint64_t not_ip
    cdef bint is_full(self) noexcept nogil
    cdef void note(self, const Event *event, Direction marked) noexcept nogil
    cdef void note_other(self) noexcept nogil
    cdef void follow(self, const Sender *sender, const Event *event) noexcept nogil
