# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from libc.stdint cimport uint16_t
from libc.string cimport memcpy, memmove

from launder.sums cimport below, draw, get16, put16


# The fields of each header as (offset, bytes), one header after the other.
cdef uint8_t[37][2] FIELDS = [
    [0, 1], [1, 1], [2, 2], [4, 2], [6, 2], [8, 1], [9, 1], [10, 2], [12, 4], [16, 4],
    [0, 4], [4, 2], [6, 1], [7, 1], [8, 16], [24, 16],
    [0, 2], [2, 2], [4, 2], [6, 2],
    [0, 1], [1, 1], [2, 2], [4, 3], [7, 1],
    [0, 6], [6, 6], [12, 2],
    [0, 2], [2, 2], [4, 4], [8, 4], [12, 1], [13, 1], [14, 2], [16, 2], [18, 2],
]
cdef enum:
    # where each header's begin
    OF_IP4 = 0
    OF_IP6 = 10
    OF_UDP = 16
    OF_VXLAN = 20
    OF_ETHERNET = 25
    OF_TCP = 28
    OF_ALL = 37


cdef uint32_t harm(const Damage *damage, uint8_t kind, const Packet *packet, const uint8_t *before, uint8_t *bytes,
                   bint encapsulated, uint64_t *state) noexcept nogil:
    """Damage `bytes`, which hold `packet`, from its first byte, or (not encapsulated) from the inner frame on.

    before: another packet of at least as many bytes as the headers are. The length afterwards.
    """
    cdef uint32_t first = 0 if encapsulated else packet.ethernet, length = packet.length
    cdef uint32_t at, to, count, i
    cdef uint16_t word
    if kind == BIT or kind == TWO_BITS:
        at = first * 8 + below(state, (length - first) * 8)
        bytes[at >> 3] ^= 0x80 >> (at & 7)
        if kind == TWO_BITS:
            to = first * 8 + below(state, (length - first) * 8)
            bytes[to >> 3] ^= 0x80 >> (to & 7)
    elif kind == BURST:
        at = first * 8 + below(state, (length - first) * 8)
        count = 2 + below(state, 31)
        bytes[at >> 3] ^= 0x80 >> (at & 7)
        to = min(at + count, length * 8)
        for i in range(at + 1, to):
            if draw(state) & 1:
                bytes[i >> 3] ^= 0x80 >> (i & 7)
    elif kind == SWAP:
        at, to = word_of(first, length, state), word_of(first, length, state)
        word = get16(bytes + at)
        put16(bytes + at, get16(bytes + to))
        put16(bytes + to, word)
    elif kind == SHIFT:
        at = word_of(first, length, state)
        count = min(2 * (1 + below(state, 16)), (length - at - 2) & ~1U)
        word = get16(bytes + at + count)
        memmove(bytes + at + 2, bytes + at, count)
        put16(bytes + at, word)
    elif kind == SLIP:
        at = first + below(state, length - first)
        if draw(state) & 1:
            memmove(bytes + at, bytes + at + 1, length - at - 1)
        else:
            memmove(bytes + at + 1, bytes + at, length - at - 1)
    elif kind == LENGTH:
        length = another_length(packet, bytes, encapsulated, state)
    elif kind == FIELD:
        another_field(packet, bytes, encapsulated, state)
    elif kind == BYTES:
        at = first + below(state, length - first)
        count = 1 + below(state, 16)
        to = below(state, 4)
        for i in range(at, min(at + count, length)):
            bytes[i] = 0 if to == 0 else 0xff if to == 1 else <uint8_t>draw(state)
    elif kind == CELL:
        fail(&damage.cell[below(state, damage.cells)], packet, bytes)
    elif kind == VNI_BIT:
        bytes[packet.vxlan + 4 + below(state, 3)] ^= 1 << below(state, 8)
    elif kind == MAC_BIT:
        bytes[packet.ethernet + below(state, 12)] ^= 1 << below(state, 8)
    elif kind == SOURCE_BIT:
        at = 12 + below(state, 4) if packet.underlay == 4 else 8 + below(state, 16)
        bytes[at] ^= 1 << below(state, 8)
    elif kind == PAYLOAD:
        at = min(packet.transport + 8, packet.end - 1)
        bytes[at + below(state, packet.end - at)] ^= 1 << below(state, 8)
    elif kind == TORN:
        memcpy(bytes + first, before + first, max(packet.ethernet + below(state, 14), first) - first)
    return length


cdef inline uint32_t word_of(uint32_t first, uint32_t length, uint64_t *state) noexcept nogil:
    """Where one of the 16-bit words that the checksums add up begins. Headers have even lengths."""
    return first + 2 * below(state, (length - first) // 2)


cdef void fail(const Cell *cell, const Packet *packet, uint8_t *bytes) noexcept nogil:
    cdef uint32_t at = 0
    if cell.place == AT_UDP:
        at = packet.udp
    elif cell.place == AT_VXLAN:
        at = packet.vxlan
    elif cell.place == AT_ETHERNET:
        at = packet.ethernet
    elif cell.place == AT_INNER:
        at = packet.ip
    elif cell.place == AT_TRANSPORT:
        at = packet.transport
    at = min(at + cell.offset, packet.length - 1)
    bytes[at] = cell.mask if cell.stuck else bytes[at] ^ cell.mask


cdef uint32_t another_length(const Packet *packet, uint8_t *bytes, bint encapsulated, uint64_t *state) noexcept nogil:
    """One length field, or the data offset, off by a little or a bit; or bytes lost or added with no field changed."""
    cdef uint32_t[5] fields
    cdef uint32_t count = 0, at, by
    if encapsulated:
        fields[0] = 2 if packet.underlay == 4 else 4
        fields[1] = packet.udp + 4
        count = 2
    if packet.version:
        fields[count] = packet.ip + (2 if packet.version == 4 else 4)
        count += 1
    if packet.protocol == 17:
        fields[count] = packet.transport + 4
        count += 1
    if packet.protocol == 6:
        fields[count] = packet.transport + 12
        count += 1
    by = 1 + below(state, 8)
    if encapsulated and (count == 0 or below(state, 4) == 0):
        return packet.length - by if draw(state) & 1 and packet.length > packet.ethernet + by else packet.length + by
    if count == 0:
        return packet.length
    at = fields[below(state, count)]
    if draw(state) & 1:
        bytes[at + below(state, 2)] ^= 1 << below(state, 8)
    else:
        put16(bytes + at, get16(bytes + at) + (by if draw(state) & 1 else -<int>by))
    return packet.length


cdef void another_field(const Packet *packet, uint8_t *bytes, bint encapsulated, uint64_t *state) noexcept nogil:
    """One header's one field gets a random value, 0, all ones, or one more than it had."""
    cdef uint32_t header = below(state, 6) if encapsulated else 3 + below(state, 3)
    cdef uint32_t start = 0, first = OF_IP4, end = OF_IP6, i, how, size
    if header == 1:
        start, first, end = packet.udp, OF_UDP, OF_VXLAN
    elif header == 2:
        start, first, end = packet.vxlan, OF_VXLAN, OF_ETHERNET
    elif header == 3 or (header > 3 and packet.version == 0):
        start, first, end = packet.ethernet, OF_ETHERNET, OF_TCP
    elif header == 5:
        start, first, end = packet.transport, OF_UDP, OF_VXLAN
        if packet.protocol == 6:
            first, end = OF_TCP, OF_ALL
    else:
        start = 0 if header == 0 else packet.ip
        if (packet.underlay if header == 0 else packet.version) == 6:
            first, end = OF_IP6, OF_UDP
    i = first + below(state, end - first)
    start += FIELDS[i][0]
    size = FIELDS[i][1]
    how = below(state, 4)
    if how == 3:
        bytes[start + size - 1] += 1
        return
    for i in range(start, min(start + size, packet.length)):
        bytes[i] = 0 if how == 0 else 0xff if how == 1 else <uint8_t>draw(state)
