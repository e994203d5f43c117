# cython: language_level=3
"""What the pipeline says of packets, and what became of them, counted by kind.

Each door puts its packets through a pipeline of its own and notes the events here, with the packet's bytes for what
the event does not tell: what of the other side it acknowledges. A packet's fate may be told long after it came
(`conversations`); it then goes from one kind to another.

Two packets are of one kind if a report tells them apart in nothing: same sender, VNI, states, diagnosis and action,
same direction, same fate. So a million packets become a few kinds, each with its first packet as an
example, and nobody need look at each. Memory is fixed: when there is no room for another kind the census is `full`,
and whoever runs it takes out (`drain`) what was counted until then.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fixer.datapath.pipeline cimport Direction
from fixer.datapath.ring cimport Event
from fixer.findings.conversations cimport Conversations
from fixer.findings.roads cimport Roads
from fixer.findings.strangers cimport Strangers
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
    uint32_t fate            # conversations.Fate


cdef struct Kind:
    KindKey key
    int64_t count            # since it was last handed over; below 0 if more have gone to another kind
    uint64_t frame           # number of the first one in the capture
    Event first


cdef struct Kinds:
    Table table
    uint32_t generation      # how often they were drained
    uint64_t untold          # packets whose fate was told when they had been drained


cdef class Census:
    cdef Kinds kinds
    cdef Conversations conversations
    cdef readonly Roads roads
    cdef readonly Strangers strangers
    cdef readonly uint64_t frames
    cdef readonly uint64_t not_ip
    cdef bint is_full(self) noexcept nogil
    cdef uint32_t note(self, const uint8_t *packet, uint32_t captured, const Event *event,
                       Direction marked) noexcept nogil
    cdef void note_part(self, const uint8_t *packet, uint32_t captured, uint64_t when) noexcept nogil
    cdef void note_other(self, uint16_t ethertype) noexcept nogil
    cdef bint hand_over(self, Kind *box, int64_t stays, uint32_t *handed) noexcept nogil


cdef as_counted(const Kind *kind)
