# cython: language_level=3
"""A hash table of fixed memory that keeps its entries in the order in which they came.

An entry begins with its key, every byte of which counts; what is behind the key is the owner's. The table never grows:
once it is full it finds what it has and takes nothing new.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef struct Table:
    uint64_t seed            # keeps who made the capture from choosing keys that collide
    uint32_t most            # entries, a power of two
    uint32_t used
    uint32_t key_size        # bytes
    uint32_t entry_size      # bytes, the key included
    uint8_t *entries
    uint32_t *index          # number of an entry + 1, or 0: twice as many as entries, so that a search is short


cdef int table_init(Table *table, uint32_t most, uint32_t key_size, uint32_t entry_size, uint64_t seed) except -1
cdef void table_free(Table *table) noexcept
cdef void table_clear(Table *table) noexcept nogil
cdef void table_keep(Table *table, bint (*is_kept)(void *owner, void *entry) noexcept nogil,
                     void *owner) noexcept nogil
cdef void *table_find(Table *table, const void *key) noexcept nogil
cdef void *table_peek(const Table *table, const void *key) noexcept nogil
cdef inline void *table_entry(const Table *table, uint32_t number) noexcept nogil:
    """The entry that came as `number` (from 0, less than `used`)."""
    return table.entries + <size_t>number * table.entry_size


cdef inline uint32_t table_number(const Table *table, const void *entry) noexcept nogil:
    """As which it came."""
    return <uint32_t>((<const uint8_t *>entry - table.entries) // table.entry_size)
