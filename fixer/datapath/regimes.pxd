# cython: language_level=3
"""Regimes: what the wrong outers of a pair of VTEPs have in common. It vouches where no inner checksum does, and names
what made them wrong."""

from libc.stdint cimport uint8_t

from fixer.datapath.diagnose cimport Judgement
from fixer.datapath.memory cimport Evidence, Pair, Sight
from fixer.datapath.walk cimport Walk


cdef enum:
    # An implied old port lies in this range by chance 0.43 times, PORTS times in a row fewer than once in a million.
    FIRST_PORT = 32768      # net.ipv4.ip_local_port_range as Linux has it; VXLAN's own default port range is the same
    LAST_PORT = 60999
    PORTS = 17
    MOVED = 4               # of them with a new port outside of it (fewer by chance once in a thousand)


cdef void note_regime(Pair *pair, const uint8_t *packet, const Walk *walk, const Judgement *judgement,
                      const Sight *sight) noexcept nogil
cdef void name(Evidence *memory, const uint8_t *packet, const Walk *walk, Judgement *judgement, const Pair *pair,
               const Sight *sight) noexcept nogil
cdef bint keeps_to_regime(const Pair *pair, const uint8_t *packet, const Walk *walk, const Judgement *judgement,
                          const Sight *sight) noexcept nogil
cdef bint regime_vouches(Evidence *memory, const uint8_t *packet, const Walk *walk, const Judgement *judgement,
                         Pair *pair, Sight *sight) noexcept nogil
