# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from libc.string cimport memcpy


cdef uint16_t sum_bytes(const uint8_t *data, size_t length) noexcept nogil:
    """The sum of `length` bytes; an odd last byte is the high half of a word whose low half is zero (RFC 1071 §4.1).

    Words are added in machine order and swapped once at the end, which the sum allows (RFC 1071 §2 (B)). The 64-bit
    total takes 2^32 words of 32 bits before it could overflow: 16 GiB, where no packet is. The plain loop is one that
    gcc vectorises.
    """
    cdef uint64_t total = 0
    cdef uint32_t word
    cdef uint16_t half, result
    cdef size_t i, words = length >> 2
    for i in range(words):
        memcpy(&word, data + (i << 2), 4)
        total += word
    data += words << 2
    if length & 2:
        memcpy(&half, data, 2)
        total += half
        data += 2
    if length & 1:
        half = 0
        memcpy(&half, data, 1)
        total += half
    result = fold(total)
    # Machine order to network order. (x86, arm64, riscv, ppc64le; on a big-endian machine nothing is to be swapped.)
    if little_endian():
        return <uint16_t>((result << 8) | (result >> 8))
    return result


cdef inline bint little_endian() noexcept nogil:
    cdef uint16_t one = 1
    return (<uint8_t *>&one)[0] == 1


cdef uint16_t pseudo_header(const uint8_t *source, const uint8_t *destination, int address_length,
                            uint8_t protocol, uint32_t length) noexcept nogil:
    """The sum P of a pseudo-header: addresses of 4 (RFC 9293 §3.1, RFC 768) or 16 (RFC 8200 §8.1), protocol, length."""
    return fold(<uint64_t>sum_bytes(source, address_length) + sum_bytes(destination, address_length)
                + protocol + (length >> 16) + (length & 0xffffU))


# The face to Python: for tests and for who wants to check a number by hand.

def checksum_sum(const uint8_t[::1] data not None):
    """The sum (0…0xffff, not complemented) of `data`."""
    return sum_bytes(&data[0], data.shape[0]) if data.shape[0] else 0


def pseudo_header_sum(bytes source not None, bytes destination not None, int protocol, uint32_t length):
    """P of a pseudo-header; `source` and `destination` are 4 or 16 bytes each, network order."""
    if len(source) != len(destination) or len(source) not in (4, 16):
        raise ValueError("addresses are 4 or 16 bytes, both of one family")
    if not 0 <= protocol <= 255:
        raise ValueError("a protocol number is 0..255")
    return pseudo_header(source, destination, <int>len(source), <uint8_t>protocol, length)


def updated_field(uint16_t field, uint16_t old, uint16_t new):
    """`field` after a word it covers went from `old` to `new` (RFC 1624)."""
    return updated(field, old, new)
