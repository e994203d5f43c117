# cython: language_level=3
"""What the options of a TCP header say (RFC 9293 §3.1), all of which is there; nothing beyond it is read."""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t

from fixer.datapath.wire cimport TCP_HEADER, TCP_OPTION_END, TCP_OPTION_NOP, TCP_OPTION_TIMESTAMPS, be16, be32

cdef enum:
    TCP_OPTION_MSS = 2               # RFC 9293 §3.7.1
    TCP_OPTION_SACK = 5              # RFC 2018 §3


cdef inline uint32_t option_at(const uint8_t *tcp, uint32_t header, uint8_t wanted, uint32_t *size) noexcept nogil:
    """Where the first option of that kind begins, which is whole, and its bytes; 0: nowhere. header: bytes."""
    cdef uint32_t at = TCP_HEADER
    while at + 1 < header and tcp[at] != TCP_OPTION_END:
        if tcp[at] == TCP_OPTION_NOP:
            at += 1
            continue
        size[0] = tcp[at + 1]
        if size[0] < 2 or at + size[0] > header:
            return 0
        if tcp[at] == wanted:
            return at
        at += size[0]
    return 0


cdef inline uint16_t announced_mss(const uint8_t *tcp, uint32_t header) noexcept nogil:
    """Bytes; 0: none."""
    cdef uint32_t size, at = option_at(tcp, header, TCP_OPTION_MSS, &size)
    return be16(tcp + at + 2) if at and size >= 4 else 0


cdef inline uint32_t timestamp(const uint8_t *tcp, uint32_t header, uint32_t behind) noexcept nogil:
    """TSval or TSecr, `behind` the option's begin; 0: none."""
    cdef uint32_t size, at = option_at(tcp, header, TCP_OPTION_TIMESTAMPS, &size)
    return be32(tcp + at + behind) if at and behind + 4 <= size else 0


cdef inline uint32_t longest_sacked(const uint8_t *tcp, uint32_t header) noexcept nogil:
    """Bytes of the longest selective block; 0: none."""
    cdef uint32_t size, edge, longest = 0, at = option_at(tcp, header, TCP_OPTION_SACK, &size)
    if at:
        for edge in range(at + 2, at + size - 7, 8):
            longest = max(longest, be32(tcp + edge + 4) - be32(tcp + edge))
    return longest


cdef inline bint is_sacked(const uint8_t *tcp, uint32_t header, uint32_t begin, uint32_t end) noexcept nogil:
    """Whether one selective block covers all from `begin` to `end`."""
    cdef uint32_t size, edge, at = option_at(tcp, header, TCP_OPTION_SACK, &size)
    if at:
        for edge in range(at + 2, at + size - 7, 8):
            if <int32_t>(begin - be32(tcp + edge)) >= 0 and <int32_t>(be32(tcp + edge + 4) - end) >= 0:
                return True
    return False
