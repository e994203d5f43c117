# cython: language_level=3
"""A keyed hash for tables in memory: quick and well mixed, never written down, so any seed will do."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    static inline uint64_t folded(uint64_t one, uint64_t other) {
        unsigned __int128 product = (unsigned __int128)one * other;
        return (uint64_t)product ^ (uint64_t)(product >> 64);
    }
    """
    uint64_t folded(uint64_t, uint64_t) noexcept nogil


cdef inline uint64_t seed_or_drawn(seed) except? 0:
    """`seed`, or, if it is None, one that nobody knows: tests pass a fixed one."""
    from os import urandom

    return int.from_bytes(urandom(8)) if seed is None else seed


cdef inline uint64_t mix(uint64_t value) noexcept nogil:
    """splitmix64's finaliser: every input bit reaches every output bit."""
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9U
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebU
    return value ^ (value >> 31)


cdef inline uint64_t hash_bytes(uint64_t seed, const uint8_t *data, uint32_t length) noexcept nogil:
    """Sixteen bytes at once, by one wide multiplication whose halves are folded (as wyhash does).

    The seed is in both factors, so that nobody who does not know it can make one of them 0.
    """
    cdef uint64_t state = seed ^ length, word, other
    while length >= 16:
        memcpy(&word, data, 8)
        memcpy(&other, data + 8, 8)
        state = folded(word ^ state, other ^ (state << 32 | state >> 32))
        data += 16
        length -= 16
    word = other = 0
    memcpy(&word, data, 8 if length > 8 else length)
    if length > 8:
        memcpy(&other, data + 8, length - 8)
    return mix(folded(word ^ state, other ^ (state << 32 | state >> 32)))
