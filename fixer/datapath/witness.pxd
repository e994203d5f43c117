# cython: language_level=3
"""Who is told of packets as they pass, beside the ring: the face of it here; `findings.ledger` is one."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fixer.datapath.repair cimport Action
from fixer.datapath.ring cimport Event
from fixer.datapath.walk cimport Walk


cdef class Witness:
    cdef uint64_t asks       # not 0: sound packets may be wanted, too
    cdef bint wants(self, const uint8_t *packet, const Walk *route) noexcept nogil
    cdef void came(self, const uint8_t *packet, const Walk *route, const Event *event) noexcept nogil
    cdef void left(self, const uint8_t *packet, uint32_t captured, Action action) noexcept nogil
    cdef void turn(self, uint64_t when) noexcept nogil
