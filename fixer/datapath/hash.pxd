# cython: language_level=3
"""A keyed hash for tables in memory: quick and well mixed, never written down, so any seed will do."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef inline uint64_t mix(uint64_t value) noexcept nogil:
    """splitmix64's finaliser: every input bit reaches every output bit."""
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9U
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebU
    return value ^ (value >> 31)


cdef inline uint64_t hash_bytes(uint64_t seed, const uint8_t *data, uint32_t length) noexcept nogil:
    cdef uint64_t state = seed ^ length, word
    while length >= 8:
        memcpy(&word, data, 8)
        state = mix(state ^ word)
        data += 8
        length -= 8
    word = 0
    memcpy(&word, data, length)
    return mix(state ^ word)
