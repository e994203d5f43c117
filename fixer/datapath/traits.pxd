# cython: language_level=3
"""What packets of a pair of VTEPs have in common (an envelope, a field, an error), and how often it was seen.

Two traits of a kind are remembered, the more common one first: which of two is damage to the other shows by number.
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memset


cdef enum:
    DIFFERING = 3           # packets that must show the same before it is believed
    CLEARLY = 4
    QUIET = 60              # seconds
    FORGOTTEN = 600         # seconds without a packet after which a trait is a new one


cdef struct Differing:
    uint32_t digest[DIFFERING - 1]
    uint32_t count          # of differing packets, up to DIFFERING


cdef struct Trait:
    # Something that packets of a pair have in common: an envelope, a field, an error.
    uint64_t tag            # 0: free
    uint32_t seen           # seconds
    uint32_t packets        # it was seen on
    uint32_t beside         # the packets of the other trait when this one appeared
    uint32_t verifying      # packets under an outer that verifies
    uint32_t homed          # the second + 1 in which its home was last told of it
    uint32_t detail         # envelope: hash of all but its destination; error: the first UDP source port
    bint sticky             # envelope: enough of them verified; error: more than one port shows it
    Differing under_good    # under an outer that verifies
    Differing under_zero
    Differing under_wrong   # envelope: while its pair is broken


cdef inline Trait *trait_of(Trait *two, uint64_t tag, uint32_t now) noexcept nogil:
    """The trait with this tag, on one packet more, at its place: [0] is the more common one.

    A new one takes the place of one that is forgotten, else that of [1]; NULL while that is in use and has verified.
    """
    cdef Trait *found = NULL
    cdef Trait swapped
    if two[0].tag == tag:
        found = &two[0]
    elif two[1].tag == tag:
        found = &two[1]
    if found == NULL or <int32_t>(now - found.seen) >= FORGOTTEN:
        if found == NULL:
            if two[0].tag == 0 or <int32_t>(now - two[0].seen) >= FORGOTTEN:
                found = &two[0]
            elif two[1].under_good.count < DIFFERING or <int32_t>(now - two[1].seen) >= QUIET:
                found = &two[1]
            else:
                return NULL
        memset(found, 0, sizeof(Trait))
        found.tag = tag
        if found == &two[1]:
            found.beside = two[0].packets
            two[0].beside = 0
        else:
            found.beside = two[1].packets
            two[1].beside = 0
    found.seen = now
    found.packets += 1
    if found == &two[1] and found.packets > two[0].packets:
        swapped = two[0]
        two[0] = two[1]
        two[1] = swapped
        return &two[0]
    if found.packets >= 0x40000000U:
        two[0].packets >>= 1
        two[1].packets >>= 1
        two[0].beside >>= 1
        two[1].beside >>= 1
    return found


cdef inline void differ(Differing *seen, uint32_t content) noexcept nogil:
    """Count `content` if it is another one: the same packet again proves nothing."""
    cdef uint32_t i
    if seen.count >= DIFFERING:
        return
    for i in range(seen.count):
        if seen.digest[i] == content:
            return
    if seen.count < DIFFERING - 1:
        seen.digest[seen.count] = content
    seen.count += 1


cdef inline bint is_outnumbered(const Trait *two, const Trait *trait) noexcept nogil:
    """Whether the other trait was seen too, more than once in CLEARLY packets of this one since both were there.

    Then this one may be damage to that, or that to this.
    """
    cdef const Trait *other = &two[1] if trait == &two[0] else &two[0]
    return <uint64_t>(other.packets - trait.beside) * CLEARLY > trait.packets


cdef inline bint is_recent(uint32_t moment, uint32_t now, int32_t seconds) noexcept nogil:
    """moment: a second + 1, or 0 for never."""
    return moment != 0 and <int32_t>(now + 1 - moment) < seconds
