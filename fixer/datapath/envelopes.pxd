# cython: language_level=3
"""Envelopes: the VXLAN header, the inner MACs and the tags of a packet, which no inner checksum covers.

Which of them a pair of VTEPs uses, between which inner addresses; and from which VTEP an envelope comes.
"""

from libc.stdint cimport uint8_t, uint32_t

from fixer.datapath.diagnose cimport Judgement
from fixer.datapath.memory cimport Evidence, Sight, Talk
from fixer.datapath.traits cimport Trait
from fixer.datapath.walk cimport Walk


cdef enum:
    STICKY = 16             # verifying packets after which an envelope needs no more of them


cdef bint is_solid(const uint8_t *packet, const Walk *walk) noexcept nogil
cdef void digest(const Evidence *memory, const uint8_t *packet, const Walk *walk, const Judgement *judgement,
                 Sight *sight) noexcept nogil
cdef uint32_t speaker(const Evidence *memory, const uint8_t *packet, const Walk *walk) noexcept nogil
cdef Talk *talk_of(Evidence *memory, const uint8_t *packet, const Walk *walk, const Sight *sight) noexcept nogil
cdef void note_envelope(Evidence *memory, const uint8_t *packet, const Walk *walk, const Judgement *judgement,
                        Trait *trait, bint broken, Sight *sight) noexcept nogil
cdef bint is_known(const Trait *two, const Trait *trait, bint broken) noexcept nogil
cdef bint is_at_home(Evidence *memory, const uint8_t *packet, const Walk *walk, bint verifies, Trait *trait,
                     const Sight *sight) noexcept nogil
