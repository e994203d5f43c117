# cython: language_level=3
"""Policy + judgement → action, and the mending itself: the only file that writes into a packet."""

from libc.stdint cimport uint8_t, uint16_t

from fixer.datapath.diagnose cimport DIAGNOSES, Judgement
from fixer.datapath.walk cimport Ports, Walk


cpdef enum Action:
    PASS = 0
    REPAIR
    DROP


cpdef enum Stale:
    """When a wrong outer checksum may be righted."""
    EXPLAINED = 0           # where `evidence` vouches for what it covers
    INNER_VERIFIES          # there, and over any verifying inner segment
    OFF                     # never


cdef enum:
    ACTIONS = 3


cdef struct Policy:
    # Data handed in from the configuration; nothing here reads one.
    Ports ports
    bint plain
    bint monitor             # decide, count and tell, but change nothing
    bint trust_device        # believe a device that says it has verified a packet
    uint8_t stale            # Stale
    uint8_t action[DIAGNOSES]


cdef Action decide(const Policy *policy, const Judgement *judgement) noexcept nogil
cdef void mend(uint8_t *packet, const Walk *walk, const Judgement *judgement) noexcept nogil
