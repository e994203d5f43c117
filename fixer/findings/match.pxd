# cython: language_level=3
"""The packets of two captures, matched by what no hop changes; and what became of each, counted by who sent to whom.

Both sides are noted packet by packet (`note`), then matched once (`settle`): by sorting and merging, so that memory is
what the packets themselves take, and nothing is looked for.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from fixer.datapath.diagnose cimport DIAGNOSES
from fixer.datapath.pipeline cimport Direction
from fixer.datapath.walk cimport Ports, Walk
from fixer.findings.identity cimport Packet
from fixer.findings.table cimport Table


cpdef enum Fate:
    """What the other capture has of a packet."""
    ONLY = 0                 # nothing: it should be there, and is not
    MATCHED                  # the same content
    ALTERED                  # its head, and another payload
    COPY                     # the same content, and fewer of it than there are here
    PIECES                   # its bytes, cut into other segments: GSO and GRO
    OUTSIDE                  # nothing, but it does not reach to when this one was there
    MISSED                   # nothing, but its bytes were acknowledged: it arrived, unseen
    SILENT                   # nothing, nor anything else at that time


cpdef enum Field:
    """What may differ in a packet that is otherwise the same."""
    OUTER_ADDRESSES = 0
    OUTER_SOURCE_PORT
    VXLAN_PORT
    OUTER_TTL
    OUTER_TOS
    OUTER_CHECKSUM
    VNI
    VXLAN_FLAGS
    MACS_OR_TAGS
    INNER_TTL
    INNER_TOS
    INNER_CHECKSUM
    INNER_OPTIONS            # TCP flags, window, options; IP options
    PAYLOAD
    TUNNEL                   # tunnelled in one of them alone


cdef enum:
    FATES = 8
    FIELDS = 15
    INNERS = 6
    OUTERS = 9
    MOST_PAIRS = 1 << 14     # of senders and receivers that are kept apart
    MOST_FLOWS = 1 << 18     # whose acknowledgements are remembered

    ACKNOWLEDGED = 0         # what became of packets that arrived unfinished
    REPEATED = 1             # never acknowledged, and sent again
    OPEN = 2                 # nothing is known of them


cdef struct PairKey:
    uint8_t address[2][16]   # network order, IPv4 in the first four bytes
    uint8_t version[2]
    uint8_t tunnel
    uint8_t zero


cdef struct Pair:
    PairKey key
    uint32_t alias           # of a pair of the second capture: the one of the first that its packets have there, + 1


cdef struct FlowEntry:
    uint64_t hash
    uint32_t upto            # the last byte acknowledged, + 1; valid if `acknowledged`
    uint32_t base            # of the sequence numbers, so that they can be ordered; valid if `begun`
    bint acknowledged
    bint begun


cdef struct Leg:
    # Everything of one pair. [2]: by capture.
    uint64_t fates[2][FATES]
    uint64_t first[2][FATES]         # number of the first such frame
    uint64_t unknowable[2]           # fragments of the underlay, and copies too short
    uint64_t cut                     # matched by head alone, for a copy is cut
    uint64_t changed[FIELDS]
    uint64_t first_changed[FIELDS]   # in the first capture
    uint64_t inner[INNERS][INNERS]   # state in the first and in the second capture, of what is matched
    uint64_t outer[OUTERS][OUTERS]
    uint64_t diagnosis[2][DIAGNOSES]  # of what is matched
    uint64_t unfinished[2][3]        # matched and unfinished in the *other* capture, by what became of them
    uint64_t reordered[2]            # taken as sent from that one
    uint64_t higher[2]               # matched, with a higher outer TTL there
    uint64_t leaving[2]              # marked as outgoing there
    uint64_t lost_unfinished[2]      # ONLY and unfinished
    uint64_t arrived_unfinished[2]   # matched and unfinished here
    uint32_t longest                 # matched
    uint32_t shortest[2]             # of ONLY; 0: none
    uint32_t newest[2]               # the highest number seen of what is matched, while they are counted
    uint64_t timed                   # how many tell the time from one to the other
    int64_t least                    # nanoseconds that the second capture's clock is later, least, half of them, most
    int64_t middle
    int64_t most


cdef struct Sorted:
    uint64_t key
    uint32_t second
    uint32_t place           # of the packet


cdef enum By:
    BY_WHOLE
    BY_HEAD
    BY_STREAM


ctypedef void (*Step)(Match, const Sorted *, uint32_t, const Sorted *, uint32_t) noexcept nogil


cdef class Match:
    cdef Ports ports
    cdef bint plain
    cdef uint64_t seed
    cdef uint32_t limit
    cdef Table pairs
    cdef Table flows
    cdef Leg *legs
    cdef Packet *packets[2]
    cdef uint32_t used[2]
    cdef Sorted *sorted[2]
    cdef uint32_t listed[2]
    cdef uint64_t began[2]
    cdef uint64_t ended[2]
    cdef uint64_t seen[2]
    cdef uint64_t others[2]
    cdef bint settled
    cdef bint is_full(self, int side) noexcept nogil
    cdef void note(self, int side, const uint8_t *packet, uint32_t captured, uint32_t length, uint64_t when,
                   Direction marked) noexcept nogil
    cdef void note_other(self, int side, uint64_t when) noexcept nogil
    cdef uint32_t pair_of(self, const uint8_t *packet, const Walk *route) noexcept nogil
    cdef void list_by(self, By by) noexcept nogil
    cdef void merge(self, Step step) noexcept nogil
    cdef void join(self, uint32_t here, uint32_t there, Fate fate) noexcept nogil
    cdef void nearest(self, const Sorted *here, uint32_t n, const Sorted *there, uint32_t m) noexcept nogil
    cdef int64_t gap(self, const Sorted *here, const Sorted *there, int64_t middle) noexcept nogil
    cdef void tell_time(self) noexcept nogil
