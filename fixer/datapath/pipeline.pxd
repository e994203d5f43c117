# cython: language_level=3
"""The steps in order: walk, judge, explain, conclude, decide, tell, mend; and what is counted on the way."""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fixer.datapath.diagnose cimport DIAGNOSES, EXPLANATIONS, VOUCHES, Judgement
from fixer.datapath.flows cimport Flows, FlowTable
from fixer.datapath.memory cimport Evidence
from fixer.datapath.repair cimport ACTIONS, Action, Policy
from fixer.datapath.ring cimport Event, Ring
from fixer.datapath.snat cimport Snat
from fixer.datapath.timestamps cimport OUTCOMES, Asked, Timestamps
from fixer.datapath.unfinished cimport Unfinished
from fixer.datapath.walk cimport Walk
from fixer.datapath.witness cimport Witness


cdef enum:
    REASONS = 32             # at least as many as walk.Reason has
    INNER_STATES = 6
    OUTER_STATES = 9


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
    uint64_t vouch[VOUCHES]
    uint64_t timestamps[OUTCOMES]   # segments of the sources whose timestamps are stripped or normalised
    uint64_t replies[OUTCOMES]      # and replies to them, which are counted nowhere else


cdef struct Handed:
    # What is known of a packet beside its bytes.
    uint64_t when            # nanoseconds since the epoch
    uint32_t uptime          # seconds, of a clock that nobody sets
    uint32_t skb_info        # NFQA_SKB_INFO bits, 0 for a packet from a wire
    bint outgoing            # it leaves this host through OUTPUT


cdef enum Direction:
    # Which way a packet of a capture went through the host that captured it.
    UNMARKED = 0             # the capture knows no directions
    INCOMING
    OUTGOING


@cython.final
cdef class Pipeline:
    cdef Policy policy
    cdef Timestamps timestamps
    cdef Counters counted
    cdef Evidence *evidence
    cdef Flows flows         # None unless timestamps are normalised
    cdef FlowTable *table    # its table, or NULL
    cdef Ring *ring
    cdef Snat *snat
    cdef Unfinished *unfinished
    cdef Witness witness     # or None
    cdef Action process(self, uint8_t *packet, uint32_t captured, uint32_t length, const Handed *handed,
                        Event *event) noexcept nogil
    cdef void sight(self, const uint8_t *packet, const Walk *route, uint64_t when) noexcept nogil
    cdef Action stamp(self, uint8_t *packet, const Walk *route, const Judgement *judgement, const Handed *handed,
                      Asked *asked, Action action) noexcept nogil
    cdef Action send(self, uint8_t *packet, const Walk *route, const Handed *handed, Asked *asked,
                     Event *event) noexcept nogil
    cpdef void settle(self, uint64_t when_ns, uint32_t uptime, bint all) noexcept nogil
