# cython: language_level=3
"""TCP timestamps of configured sources: taken out of their SYNs, or shifted so that each source has one clock.

*Strip*: RFC 7323 §3.2 has the option in use only if both SYNs carried it. So only SYNs are edited, and a connection
that exists is never touched. The option becomes NOPs where it stands; no byte moves. *Normalise*: a connection's delta
(`flows`) is added to TSval on the way to the server and taken off TSecr on the way back. Either way checksums are
updated incrementally (RFC 1624): what was wrong stays wrong by the same amount.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fixer.datapath.flows cimport FlowTable, Segment
from fixer.datapath.walk cimport Walk


cpdef enum Mode:
    OFF = 0
    STRIP
    NORMALISE


cpdef enum Outcome:
    """What became of a TCP segment of a configured source, or (normalise) of a reply to one."""
    NOT_CONCERNED = 0       # strip: no SYN; either: of no configured source
    WITHOUT                 # it has no timestamps
    STRIPPED
    AUTHENTICATED           # TCP-AO (RFC 5925) covers the options: left alone
    MALFORMED               # options that cannot be walked to their end: left alone
    UNTRACKED               # of a connection that was there before, or was left alone
    UNCHANGED               # its delta is 0, or its TSecr is (which then echoes nothing)
    TRANSLATED
    FULL                    # a SYN for which the flow table has no room: passed
    DRAINED                 # a SYN that was left alone because the flow table is being drained
    NO_WAY_BACK             # a SYN that got no delta, because no replies to its source are seen
    INCOMPLETE              # what cannot be given back changed: a super-packet, or unfinished and to be left so


cdef enum:
    MAX_SOURCES = 64
    OUTCOMES = 12


cdef struct Prefix:
    uint8_t version          # 4 or 6
    uint8_t bits             # 0 … 32 or 128
    uint8_t address[16]      # network order; IPv4 in the first four bytes


cdef struct Timestamps:
    # Data handed in from the configuration.
    uint8_t mode             # Mode
    bint syn_ack             # strip: the SYN-ACKs that answer these sources, too
    bint strip_when_full     # normalise: what to do with a SYN for which there is no room
    uint8_t count
    Prefix sources[MAX_SOURCES]


cdef struct Edit:
    # What is to be written, if anything.
    uint32_t option          # offset of the timestamps
    uint32_t at              # offset of the number to write, or 0: the option becomes NOPs
    uint32_t value


cdef struct Asked:
    # A segment about which the flow table is going to be asked.
    bint concerns            # it is of a configured source, or a reply to one: the rest is valid
    uint64_t hashed
    Segment segment


cdef void prepare(const Timestamps *policy, const FlowTable *table, const uint8_t *packet, const Walk *walk,
                  bint outgoing, Asked *asked) noexcept nogil
cdef Outcome normalise(const Timestamps *policy, FlowTable *table, const uint8_t *packet, const Walk *walk,
                       bint outgoing, uint32_t now, Asked *asked, Edit *edit) noexcept nogil
cdef Outcome consider(const Timestamps *policy, const uint8_t *packet, const Walk *walk, Edit *edit) noexcept nogil
cdef Outcome look(const uint8_t *packet, const Walk *walk, Edit *edit) noexcept nogil
cdef void apply(uint8_t *packet, const Walk *walk, const Edit *edit) noexcept nogil
