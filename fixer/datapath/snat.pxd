# cython: language_level=3
"""Who is behind one address: clocks, seen as lines of TSval against time in the SYNs that pass.

A host's TSvals lie on a line whose slope is its tick: behind a source address that is one host there is one line,
behind SNAT there are several. Lines are looked for by *pair*, source and destination (and VNI): Linux 4.10 and newer
may draw the offset for each pair of addresses, so one host that speaks to three servers shows three lines, but one to
each of them; and a server's memory of timestamps is its own. Fixed memory, bounded work for each SYN; who reads takes
no lock (`snat_sights`).

How likely chance alone would have drawn a line is part of it: any TSval fits *some* tick between 100 Hz and 1 MHz
with a probability of 2.3e-4 for each second since the SYN before. So two SYNs are a line only at a usual tick, a tick
that must be measured takes three, and every fit is weighed by how many of the 2^32 TSvals would have fitted.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef enum:
    SETS = 128
    WAYS = 8                # × SETS pairs of 1.2 KB: 1.2 MB (touched pages only)
    LINES = 16              # of a pair, points included


cdef struct Line:
    uint64_t when           # of the SYN it is measured from (nanoseconds)
    uint64_t first
    uint64_t last
    uint32_t value          # the TSval it is measured from
    uint32_t sequence       # of its last SYN, with `port`: the same again is that SYN once more
    uint16_t port
    uint16_t ticks          # one bit for each usual tick that is still possible; 0: `rate` was measured
    uint32_t syns           # 0: free; 1: a point, through which a line may go yet
    double rate             # ticks a second, if measured
    double blur             # by what part of itself `rate` may be wrong
    double certainty        # bits: chance draws such a line in one of 2^certainty cases


cdef struct Tally:
    uint32_t syns           # connections attempted: a SYN that came again is not counted
    uint32_t fits           # of these, SYNs on a line with an earlier one
    uint32_t refused        # of these, SYNs that a server with tcp_tw_recycle would have refused
    double chance           # how many of `fits` would be there if every TSval were random


cdef struct Pair:
    uint64_t key            # hash of addresses and VNI; 0: free
    uint64_t last           # nanoseconds
    uint64_t turned         # when `now` was begun
    uint64_t stamped        # what a server with tcp_tw_recycle remembers of the source: when, and which TSval
    uint32_t remembered
    uint32_t vni            # PLAIN: no tunnel
    uint8_t source[16]      # network order; IPv4 in the first four bytes
    uint8_t destination[16]
    uint8_t version         # 4 or 6
    uint8_t sure            # how many of `lines` are surely clocks
    Tally now
    Tally before
    Line lines[LINES]


cdef struct Slot:
    uint64_t generation     # odd while it is being written
    Pair pair


cdef struct Snat:
    uint64_t seed
    Slot slots[SETS * WAYS]


cdef enum:
    PLAIN = 0xffffffff


cdef Snat *snat_new(uint64_t seed) except NULL
cdef void snat_free(Snat *snat) noexcept
cdef void snat_note(Snat *snat, const uint8_t *source, const uint8_t *destination, uint8_t version, uint32_t vni,
                    uint16_t port, uint32_t sequence, uint32_t tsval, uint64_t when) noexcept nogil
cdef list snat_sights(const Snat *snat, uint64_t now)
