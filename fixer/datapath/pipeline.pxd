# cython: language_level=3
"""The steps in order: walk, judge, explain, conclude, decide, tell, mend; and what is counted on the way."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fixer.datapath.diagnose cimport DIAGNOSES, Finding
from fixer.datapath.history cimport History
from fixer.datapath.repair cimport ACTIONS, Action, Policy
from fixer.datapath.ring cimport Event, Ring
from fixer.datapath.timestamps cimport OUTCOMES, Timestamps


from fixer.datapath.walk cimport Walk


cdef enum:
    REASONS = 32             # at least as many as walk.Reason has
    EXPLANATIONS = 5
    INNER_STATES = 6
    OUTER_STATES = 8


cdef struct Counters:
    uint64_t packets
    uint64_t bytes           # from the first IP header, as on the wire
    uint64_t tunnel          # packets to a VXLAN port
    uint64_t unverified      # repaired with nothing that vouches for the payload
    uint64_t inner[INNER_STATES]
    uint64_t outer[OUTER_STATES]
    uint64_t diagnosis[DIAGNOSES]
    uint64_t action[ACTIONS]
    uint64_t would[ACTIONS]
    uint64_t reason[REASONS]
    uint64_t explanation[EXPLANATIONS]
    uint64_t timestamps[OUTCOMES]   # SYNs of the sources whose timestamps are stripped


cdef class Pipeline:
    cdef Policy policy
    cdef Timestamps timestamps
    cdef Counters counted
    cdef History *history
    cdef Ring *ring
    cdef Action process(self, uint8_t *packet, uint32_t captured, uint32_t length, uint32_t skb_info, uint64_t when,
                        Event *event) noexcept nogil
    cdef Action strip_syn(self, uint8_t *packet, const Walk *route, const Finding *finding, uint32_t skb_info,
                          Action action) noexcept nogil
    cdef void settle(self, uint64_t when, bint all) noexcept nogil


cdef class Result:
    cdef Event event
