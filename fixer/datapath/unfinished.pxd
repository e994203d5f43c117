# cython: language_level=3
"""Which envelopes carry unfinished packets, for whoever can finish them before they reach the queue.

An envelope is told of once it was seen unfinished, and repaired, on CONFIRMING packets, and then about four times
a second while it goes on: so whoever is told knows it for current. By a ring with one writer and one reader: the
packet path never waits, and what finds the ring full is told of a little later.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fixer.datapath.diagnose cimport Judgement
from fixer.datapath.sets cimport Mark
from fixer.datapath.walk cimport Walk


cdef enum:
    CONFIRMING = 3           # packets
    ENVELOPE_SETS = 256      # × ENVELOPE_WAYS envelopes are remembered
    ENVELOPE_WAYS = 4
    TOLD_AT_ONCE = 256       # a power of two


# How the outer field stands over the unfinished inner one: bits.
cdef enum Outers:
    OUTERS_ZERO = 1
    OUTERS_PSEUDO = 2
    OUTERS_AGREES = 4


cdef struct Envelope:
    # As `struct key` in fixer/kernel/finish.bpf.c: network order, but for the version.
    uint8_t source[16]       # of the outer header; IPv4 in the last four bytes
    uint8_t port[2]          # UDP destination
    uint8_t header[20]       # VXLAN header, inner MACs
    uint16_t version


cdef struct Telling:
    Envelope envelope
    uint32_t outers          # the one that this packet shows


cdef struct Sighting:
    Mark mark
    uint32_t told            # the quarter of a second, +1, in which it was told of last


cdef struct Unfinished:
    bint wanted              # by whoever reads; set by that one
    uint64_t seed
    uint64_t written         # tellings ever put in; only the writer advances it
    uint64_t taken           # … and taken out; only the reader
    Sighting seen[ENVELOPE_SETS][ENVELOPE_WAYS]
    Telling tellings[TOLD_AT_ONCE]


cdef Unfinished *unfinished_new(uint64_t seed) except NULL
cdef void unfinished_free(Unfinished *memory) noexcept
cdef void unfinished_note(Unfinished *memory, const uint8_t *packet, const Walk *walk, const Judgement *judgement,
                          uint64_t when) noexcept nogil
cdef list unfinished_take(Unfinished *memory)
