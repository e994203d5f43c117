# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy, memmove, memset

from fixer.datapath.hash cimport hash_bytes
from fixer.datapath.zeroed cimport zeroed


cdef int table_init(Table *table, uint32_t most, uint32_t key_size, uint32_t entry_size, uint64_t seed) except -1:
    """An empty table; memory is taken at once and touched as it fills. Whatever comes of it, `table_free` it."""
    memset(table, 0, sizeof(Table))
    if most == 0 or most & (most - 1) or most > 0x40000000U:
        raise ValueError("a table's size is a power of two")
    table.seed = seed
    table.most = most
    table.key_size = key_size
    table.entry_size = entry_size
    table.entries = <uint8_t *>zeroed(most, entry_size, "a table")
    table.index = <uint32_t *>zeroed(2 * <size_t>most, sizeof(uint32_t), "a table")
    return 0


cdef void table_free(Table *table) noexcept:
    free(table.entries)
    free(table.index)
    memset(table, 0, sizeof(Table))


cdef void table_clear(Table *table) noexcept nogil:
    memset(table.index, 0, 2 * <size_t>table.most * sizeof(uint32_t))
    table.used = 0


cdef void *table_peek(const Table *table, const void *key) noexcept nogil:
    """The entry of `key`, or NULL."""
    cdef uint32_t mask = 2 * table.most - 1
    cdef uint32_t at = <uint32_t>hash_bytes(table.seed, <const uint8_t *>key, table.key_size) & mask
    cdef void *entry
    while table.index[at]:
        entry = table_entry(table, table.index[at] - 1)
        if memcmp(entry, key, table.key_size) == 0:
            return entry
        at = (at + 1) & mask
    return NULL


cdef void *table_find(Table *table, const void *key) noexcept nogil:
    """The entry of `key`; a new one is zero behind its key. NULL if there is none and no room for one."""
    cdef uint32_t mask = 2 * table.most - 1
    cdef uint32_t at = <uint32_t>hash_bytes(table.seed, <const uint8_t *>key, table.key_size) & mask
    cdef void *entry
    while table.index[at]:              # ends: at most half of the index is taken
        entry = table_entry(table, table.index[at] - 1)
        if memcmp(entry, key, table.key_size) == 0:
            return entry
        at = (at + 1) & mask
    if table.used == table.most:
        return NULL
    entry = table_entry(table, table.used)
    memset(entry, 0, table.entry_size)
    memcpy(entry, key, table.key_size)
    table.used += 1
    table.index[at] = table.used
    return entry


cdef void table_keep(Table *table, bint (*is_kept)(void *owner, void *entry) noexcept nogil,
                     void *owner) noexcept nogil:
    """Forget all entries but those that are kept, which stay in order and get other numbers."""
    cdef uint32_t mask = 2 * table.most - 1, number, at, used = table.used
    cdef void *entry
    cdef void *place
    table_clear(table)
    for number in range(used):
        entry = table_entry(table, number)
        if not is_kept(owner, entry):
            continue
        place = table_entry(table, table.used)
        if place != entry:
            memmove(place, entry, table.entry_size)
        at = <uint32_t>hash_bytes(table.seed, <const uint8_t *>place, table.key_size) & mask
        while table.index[at]:
            at = (at + 1) & mask
        table.used += 1
        table.index[at] = table.used
