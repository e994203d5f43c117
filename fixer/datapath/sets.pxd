# cython: language_level=3
"""Tables of sets: an entry lies in one of the few ways of its set. Found and given up in one way, whatever is in it.

Every entry begins with a `Mark`. Its key is a seeded 64-bit hash of what the entry is about and stands for it: nobody
who does not know the seed can make two keys meet. What is in use stays: a newcomer takes a free entry, else the least
used one, else one that nobody has used for IDLE seconds, else there is no room for it. So a flood of newcomers
displaces newcomers, and whoever finds no room must act as if he knew the worst.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t


cdef enum:
    PROVEN = 16              # uses that make an entry one that is in use
    IDLE = 300               # seconds without a use that end that


cdef struct Mark:
    uint64_t key             # 0: free
    uint32_t seen            # the second of its last use
    uint32_t uses            # up to PROVEN


cdef inline Mark *way(void *entries, uint32_t size, int number) noexcept nogil:
    return <Mark *>(<uint8_t *>entries + <uint64_t>size * number)


cdef inline Mark *find(void *entries, uint32_t size, int ways, uint64_t key, uint32_t now) noexcept nogil:
    """The entry with `key` (not 0) in a set of `ways` of `size` bytes, used once more; NULL if there is none."""
    cdef Mark *mark
    cdef int i
    for i in range(ways):
        mark = way(entries, size, i)
        if mark.key == key:
            mark.seen = now
            mark.uses += mark.uses < PROVEN
            return mark
    return NULL


cdef inline Mark *yielding(void *entries, uint32_t size, int ways, uint32_t now) noexcept nogil:
    """The entry of a set that gives way to a newcomer, for the caller to clear and to mark; NULL if all are in use."""
    cdef Mark *found = NULL
    cdef Mark *mark
    cdef int i
    for i in range(ways):
        mark = way(entries, size, i)
        if mark.key == 0:
            return mark
        if mark.uses >= PROVEN and <int32_t>(now - mark.seen) < IDLE:
            continue
        if found == NULL or mark.uses < found.uses \
                or (mark.uses == found.uses and <int32_t>(mark.seen - found.seen) < 0):
            found = mark
    return found
