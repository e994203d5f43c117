# cython: language_level=3
"""What passes on the wire, for the same conclusions as of a capture: told by the packet path, taken out by whoever
draws them.

Only what is not sound enters; and, so that what became of it is known and of how many it is, whatever comes from the
same sender or passes between the same two inner addresses. While nothing is wrong, a packet costs one look at `asks`.

Two threads: the packet path's notes packets and `turn`s once a second, another one `drain`s. What is counted is handed
over in a box that belongs to the one or to the other, and neither waits. Memory is fixed; what is forgotten first is
what came once, so that a flood of spoofed senders does not hide who is there all the time.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fixer.datapath.ring cimport Event
from fixer.datapath.witness cimport Witness
from fixer.findings.census cimport Census, Kind


cdef enum:
    SAMPLES = 8              # packets that wait to be taken out
    SAMPLE_BYTES = 9216      # of each at the most
    FILTER_WORDS = 512       # × 64 bits


cdef struct Sample:
    uint64_t ready           # it belongs to who drains; else to the packet path
    Event event
    uint32_t came            # bytes
    uint32_t left            # 0: it was dropped
    uint8_t bytes[2][SAMPLE_BYTES]


cdef struct Filter:
    # Who is followed: of the last period, and of this one.
    uint64_t bits[2][FILTER_WORDS]


cdef class Ledger(Witness):
    cdef Census census
    cdef Kind *box
    cdef uint64_t boxed      # kinds in the box, which then belongs to who drains
    cdef uint8_t *sampled    # by number of a kind: how many were taken
    cdef Sample *samples
    cdef Sample *pending     # the packet that is in the packet path now, or NULL
    cdef Filter senders
    cdef Filter pairs
    cdef uint64_t seed
    cdef uint64_t aged       # nanoseconds: when what waits was last looked through
    cdef uint64_t begun      # when this period of the filters began
    cdef readonly uint64_t left_out     # packets for which there was no room
    cdef void sample(self, const uint8_t *packet, uint32_t captured, const Event *event, uint32_t kind) noexcept nogil
