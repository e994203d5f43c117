# cython: language_level=3
"""Ones'-complement arithmetic (RFC 1071, RFC 1624): the leaf all else stands on.

One convention holds everywhere: a *sum* is the folded ones'-complement sum of 16-bit big-endian words, as a host number
0…0xffff, **not** complemented. A *field* is what stands in a packet, as a host number. Data verifies when the sum over
it and its pseudo-header, field included, is 0xffff.

A sum is 0 only if every word summed was 0 (folding a positive number never yields 0), so a pseudo-header sum, whose
protocol number is not 0, is 1…0xffff: the same representation Linux stores in a CHECKSUM_PARTIAL field.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef inline uint16_t fold(uint64_t total) noexcept nogil:
    """Fold a sum of 16-bit or 32-bit words to 16 bits, carries added back in (RFC 1071 §2 (A))."""
    total = (total >> 32) + (total & 0xffffffffU)   # at most 0x1_ffff_fffe
    total = (total >> 32) + (total & 0xffffffffU)   # at most 0xffff_ffff: the second carry cannot overflow again
    total = (total >> 16) + (total & 0xffffU)       # at most 0x1_fffe
    total = (total >> 16) + (total & 0xffffU)       # at most 0xffff
    return <uint16_t>total


cdef inline uint16_t add(uint16_t a, uint16_t b) noexcept nogil:
    """a + b."""
    cdef uint32_t total = <uint32_t>a + b
    return <uint16_t>((total & 0xffffU) + (total >> 16))


cdef inline uint16_t subtract(uint16_t a, uint16_t b) noexcept nogil:
    """a − b: adding the complement. Of the two zeros 0xffff comes out unless both a and ~b are 0."""
    return add(a, <uint16_t>~b)


cdef inline uint16_t updated(uint16_t field, uint16_t old, uint16_t new) noexcept nogil:
    """The checksum `field` after a word it covers went from `old` to `new`: HC' = ~(~HC + ~m + m') (RFC 1624 eqn. 3).

    A wrong checksum stays wrong by the same amount: that is why a repair of something else never launders it.
    """
    return <uint16_t>~add(add(<uint16_t>~field, <uint16_t>~old), new)


cdef uint16_t sum_bytes(const uint8_t *data, size_t length) noexcept nogil
cdef uint16_t pseudo_header(const uint8_t *source, const uint8_t *destination, int address_length,
                            uint8_t protocol, uint32_t length) noexcept nogil
