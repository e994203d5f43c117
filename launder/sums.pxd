# cython: language_level=3
"""Internet checksums (RFC 1071) the plain way, and random numbers. The judge's own: nothing here is fixer's."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef inline uint16_t get16(const uint8_t *at) noexcept nogil:
    return <uint16_t>(at[0] * 256 + at[1])


cdef inline void put16(uint8_t *at, uint32_t value) noexcept nogil:
    at[0] = <uint8_t>(value >> 8)
    at[1] = <uint8_t>value


cdef inline void put32(uint8_t *at, uint32_t value) noexcept nogil:
    put16(at, value >> 16)
    put16(at + 2, value)


cdef inline uint32_t words(const uint8_t *at, uint32_t size) noexcept nogil:
    """Sum of big-endian words, not folded, of less than 64 KiB; the last byte of an odd number is an upper one."""
    cdef uint32_t i, total = 0
    for i in range(0, size & ~1U, 2):
        total += get16(at + i)
    if size & 1:
        total += <uint32_t>at[size - 1] << 8
    return total


cdef inline uint16_t fold(uint64_t total) noexcept nogil:
    """The ones'-complement sum, where ffff and 0000 are both zero: a sum over what verifies is ffff."""
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return <uint16_t>total


cdef inline uint32_t pseudo(const uint8_t *source, const uint8_t *destination, uint32_t size, uint32_t protocol,
                            uint32_t length) noexcept nogil:
    """The pseudo-header of IPv4 (size 4) or IPv6 (16), not folded."""
    return words(source, size) + words(destination, size) + protocol + (length & 0xffff) + (length >> 16)


cdef inline uint16_t field_of(uint64_t total, bint udp) noexcept nogil:
    """What to write where `total` was summed with 0 in the field's place. UDP keeps 0 for *none*."""
    cdef uint16_t field = fold(total) ^ 0xffffU
    return 0xffff if udp and field == 0 else field


cdef inline uint64_t draw(uint64_t *state) noexcept nogil:
    """64 random bits (splitmix64, Steele, Lea and Flood 2014)."""
    cdef uint64_t z
    state[0] += 0x9e3779b97f4a7c15U
    z = state[0]
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU
    return z ^ (z >> 31)


cdef inline uint32_t below(uint64_t *state, uint32_t bound) noexcept nogil:
    """0 … bound − 1; 0 if bound is 0."""
    return <uint32_t>(((draw(state) >> 32) * bound) >> 32)


cdef inline uint32_t pick(uint64_t *state, const uint32_t *weights, uint32_t count) noexcept nogil:
    """The number of one of `count` choices, by weight. One of them must be more than 0."""
    cdef uint32_t i, left, total = 0
    for i in range(count):
        total += weights[i]
    left = below(state, total)
    for i in range(count):
        if left < weights[i]:
            return i
        left -= weights[i]
    return 0
