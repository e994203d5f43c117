# cython: language_level=3
"""TCP timestamps of configured sources: taken out of the SYN, which turns them off for the whole connection.

RFC 7323 §3.2: the option is in use only if both SYNs carried it. So only SYNs are edited, and a connection that exists
is never touched. The option becomes NOPs where it stands; no byte moves. Checksums are updated incrementally
(RFC 1624): what was wrong stays wrong by the same amount.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from fixer.datapath.walk cimport Walk


cpdef enum Stripped:
    """What became of a packet that strip looked at."""
    NOT_CONCERNED = 0       # no SYN of a configured source
    WITHOUT                 # such a SYN, with no timestamps in it
    STRIPPED
    AUTHENTICATED           # TCP-AO (RFC 5925) covers the options: left alone
    MALFORMED               # options that cannot be walked to their end: left alone


cdef enum:
    MAX_SOURCES = 64
    OUTCOMES = 5


cdef struct Prefix:
    uint8_t version          # 4 or 6
    uint8_t bits             # 0 … 32 or 128
    uint8_t address[16]      # network order; IPv4 in the first four bytes


cdef struct Timestamps:
    # Data handed in from the configuration.
    bint strip
    bint syn_ack             # the SYN-ACKs that answer these sources, too
    uint8_t count
    Prefix sources[MAX_SOURCES]


cdef bint concerns(const Timestamps *policy, const uint8_t *packet, const Walk *walk) noexcept nogil
cdef Stripped look(const uint8_t *packet, const Walk *walk, uint32_t *option) noexcept nogil
cdef void strip(uint8_t *packet, const Walk *walk, uint32_t option) noexcept nogil
