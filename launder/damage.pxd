# cython: language_level=3
"""Damage to a packet: what wires, memories and cards do to one, and things that none of them does."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from launder.world cimport Packet

cdef enum:
    HARMS = 15
    CELLS = 8


cdef enum Harm:
    BIT = 0
    TWO_BITS
    BURST                    # 2 to 32 bits in a row, changed at random
    SWAP                     # two 16-bit words change places: no Internet checksum over both sees that
    SHIFT                    # some words move by one, the last of them to the front: the same
    SLIP                     # a byte is lost or comes twice, and all behind it moves
    LENGTH                   # a length field, some times with as many bytes more or less
    FIELD                    # a header field has another value
    BYTES                    # 1 to 16 bytes have other values, 00 or ff
    CELL                     # a bit of a memory cell is always wrong: the same place in every packet that is hit
    VNI_BIT
    MAC_BIT
    SOURCE_BIT               # of the outer source address
    PAYLOAD                  # a bit of the inner segment's payload
    TORN                     # up to somewhere in the inner Ethernet header it is the packet before


cdef enum Place:             # a cell's, counted from
    AT_IP = 0
    AT_UDP
    AT_VXLAN
    AT_ETHERNET
    AT_INNER
    AT_TRANSPORT


cdef struct Cell:
    uint8_t place
    uint8_t mask
    uint32_t offset
    bint stuck               # the byte is `mask`; else these bits are the other way


cdef struct Damage:
    uint32_t harms[HARMS]    # weights
    uint32_t cells
    Cell cell[CELLS]


cdef uint32_t harm(const Damage *damage, uint8_t kind, const Packet *packet, const uint8_t *before, uint8_t *bytes,
                   bint encapsulated, uint64_t *state) noexcept nogil
