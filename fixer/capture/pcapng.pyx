# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""pcapng files (draft-ietf-opsawg-pcapng): sections, their interfaces, their packets; other blocks are stepped over.

Interfaces are numbered in each section anew, in its own byte order. Nothing is believed: a block is looked at when all
the bytes that it claims are there, and says so at both ends.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from fixer.capture.frames cimport Frames
from fixer.datapath.pipeline cimport INCOMING, OUTGOING, UNMARKED, Direction
from fixer.datapath.wire cimport be16, be32, le32

MAGIC = b"\x0a\x0d\x0d\x0a"
LARGEST_BLOCK = <int>LARGEST
"""Bytes; a length above this is damage, and is not worth the memory of trying."""
MOST_INTERFACES = <int>INTERFACES
"""Of one section. Each takes memory, and a small file can hold millions."""

cdef enum:
    LARGEST = 1 << 24
    INTERFACES = 1 << 14
    OVERHEAD = 12            # bytes of a block that are not its body: type and length, and the length again

    SECTION = 0x0A0D0D0A
    BYTE_ORDER = 8           # in a section header
    SECTION_LEAST = 28
    INTERFACE = 1
    INTERFACE_LINK_TYPE = 8
    INTERFACE_LIMIT = 12     # bytes that are captured of a frame, 0: all
    INTERFACE_OPTIONS = 16
    PACKET = 2               # obsolete, and still met
    PACKET_INTERFACE = 8     # 16 bits
    SIMPLE = 3
    SIMPLE_LENGTH = 8
    SIMPLE_FRAME = 12
    ENHANCED = 6
    ENHANCED_INTERFACE = 8
    WHEN_HIGH = 12           # the same in both kinds of packets
    WHEN_LOW = 16
    CAPTURED = 20
    LENGTH = 24
    FRAME = 28

    OPTION_END = 0
    OPTION_FLAGS = 2         # of a packet: bits 0 and 1 are 1 for inbound, 2 for outbound
    OPTION_RESOLUTION = 9    # of an interface: ticks a second, a power of 10, or of 2 with the upper bit
    OPTION_OFFSET = 14       # of an interface: seconds to be added


cdef enum Fault:
    NO_FAULT
    TOO_LONG
    TOO_SHORT
    UNLIKE_ITS_END
    NO_SECTION
    NO_INTERFACE
    TOO_MANY_INTERFACES
    FRAME_TOO_LONG


cdef struct Interface:
    uint16_t link_type
    uint32_t limit           # bytes
    uint64_t per_second      # ticks, 0: a clock that nobody can read
    int64_t offset           # seconds


cdef class PcapNg:
    """One file's reader: `parse` it a block at a time."""
    cdef bint begun          # a section header was seen
    cdef bint big_endian
    cdef uint32_t used
    cdef uint32_t asked      # the interface that is not there
    cdef Interface *interfaces
    cdef readonly uint64_t claimed   # bytes of the block that `parse` left; 0: not even known

    def __cinit__(self):
        self.interfaces = <Interface *>calloc(INTERFACES, sizeof(Interface))
        if self.interfaces == NULL:
            raise MemoryError("no memory for interfaces")

    def __dealloc__(self):
        free(self.interfaces)

    def parse(self, bytearray block not None, size_t at, size_t end, Frames frames not None):
        """Fill `frames` with the packets of what is whole of block[at:end]; where the first block left begins.

        Raises ValueError, with what is wrong with it, if the first block cannot be one.
        """
        cdef const unsigned char[::1] data = block
        cdef Fault fault = NO_FAULT
        if at > end or end > <size_t>data.shape[0]:
            raise ValueError(f"{at}:{end} is not inside a block of {data.shape[0]} bytes")
        frames.begin(block)
        with nogil:
            while True:
                self.claimed = 0
                fault = self.measure(&data[at], end - at) if at < end else NO_FAULT
                if fault != NO_FAULT or not self.claimed or self.claimed > end - at or frames.used == frames.most:
                    break
                fault = self.take(&data[at], at, frames)
                if fault != NO_FAULT:
                    break
                at += self.claimed
        if fault != NO_FAULT and not frames.used:
            raise ValueError({
                TOO_LONG: f"a block claims {self.claimed} bytes",
                TOO_SHORT: "a block is shorter than its kind can be",
                UNLIKE_ITS_END: "a block has one length at its beginning and another at its end",
                NO_SECTION: "a section header is damaged",
                NO_INTERFACE: f"a packet names interface {self.asked} of {self.used}",
                TOO_MANY_INTERFACES: f"a section has more than {INTERFACES} interfaces",
                FRAME_TOO_LONG: "a frame is longer than its block",
            }[fault])
        return at

    cdef Fault measure(self, const uint8_t *block, size_t room) noexcept nogil:
        """Set `claimed` for the block of which `room` bytes are here; and the byte order, if it begins a section."""
        cdef uint32_t length
        if room < OVERHEAD:
            return NO_FAULT
        if le32(block) == SECTION:
            if be32(block + BYTE_ORDER) != 0x1A2B3C4D and le32(block + BYTE_ORDER) != 0x1A2B3C4D:
                return NO_SECTION
            self.big_endian = be32(block + BYTE_ORDER) == 0x1A2B3C4D
            self.begun = True
        elif not self.begun:
            return NO_SECTION
        length = self.word(block + 4)
        # Some writers leave the padding out of the length.
        self.claimed = (<uint64_t>length + 3) & ~<uint64_t>3
        if length < (SECTION_LEAST if le32(block) == SECTION else OVERHEAD):
            return TOO_SHORT
        if length > LARGEST:
            return TOO_LONG
        if self.claimed <= room and self.word(block + self.claimed - 4) != length:
            return UNLIKE_ITS_END
        return NO_FAULT

    cdef Fault take(self, const uint8_t *block, size_t at, Frames frames) noexcept nogil:
        """A whole block, which lies at `at`."""
        cdef uint32_t kind = self.word(block)
        cdef const uint8_t *end = block + self.claimed - 4
        if kind == SECTION:
            self.used = 0
        elif kind == INTERFACE:
            return self.describe(block, end)
        elif kind == ENHANCED:
            return self.packet(block, end, at, frames, self.word(block + ENHANCED_INTERFACE))
        elif kind == PACKET:
            return self.packet(block, end, at, frames, self.half(block + PACKET_INTERFACE))
        elif kind == SIMPLE:
            return self.simple(block, end, at, frames)
        return NO_FAULT

    cdef Fault describe(self, const uint8_t *block, const uint8_t *end) noexcept nogil:
        """An interface: the next number of its section."""
        cdef Interface *interface
        cdef const uint8_t *value
        if end - block < INTERFACE_OPTIONS:
            return TOO_SHORT
        if self.used == INTERFACES:
            return TOO_MANY_INTERFACES
        interface = &self.interfaces[self.used]
        interface.link_type = self.half(block + INTERFACE_LINK_TYPE)
        interface.limit = self.word(block + INTERFACE_LIMIT)
        value = self.option(block + INTERFACE_OPTIONS, end, OPTION_RESOLUTION, 1)
        interface.per_second = ticks_a_second(value[0]) if value != NULL else 1000000
        value = self.option(block + INTERFACE_OPTIONS, end, OPTION_OFFSET, 8)
        interface.offset = 0
        if value != NULL:
            interface.offset = <int64_t>(
                (<uint64_t>self.word(value if self.big_endian else value + 4) << 32)
                | self.word(value + 4 if self.big_endian else value))
        self.used += 1
        return NO_FAULT

    cdef Fault packet(self, const uint8_t *block, const uint8_t *end, size_t at, Frames frames,
                      uint32_t number) noexcept nogil:
        """An enhanced packet block, or one of the obsolete kind: but for the interface's number they are alike."""
        cdef Direction marked = UNMARKED
        cdef const uint8_t *flags
        cdef uint32_t captured
        if end - block < FRAME:
            return TOO_SHORT
        captured = self.word(block + CAPTURED)
        if captured > end - block - FRAME:
            return FRAME_TOO_LONG
        if number >= self.used:
            self.asked = number
            return NO_INTERFACE
        flags = self.option(block + FRAME + ((<size_t>captured + 3) & ~<size_t>3), end, OPTION_FLAGS, 4)
        if flags != NULL:
            if self.word(flags) & 3 == 1:
                marked = INCOMING
            elif self.word(flags) & 3 == 2:
                marked = OUTGOING
        frames.add(at + FRAME, captured, self.word(block + LENGTH),
                   nanoseconds(&self.interfaces[number],
                               <uint64_t>self.word(block + WHEN_HIGH) << 32 | self.word(block + WHEN_LOW)),
                   self.interfaces[number].link_type, marked)
        return NO_FAULT

    cdef Fault simple(self, const uint8_t *block, const uint8_t *end, size_t at, Frames frames) noexcept nogil:
        """A simple packet block: of the first interface, and without a time."""
        cdef uint32_t length, captured
        if end - block < SIMPLE_FRAME:
            return TOO_SHORT
        if not self.used:
            self.asked = 0
            return NO_INTERFACE
        length = captured = self.word(block + SIMPLE_LENGTH)
        if self.interfaces[0].limit:
            captured = min(captured, self.interfaces[0].limit)
        if captured > end - block - SIMPLE_FRAME:
            return FRAME_TOO_LONG
        frames.add(at + SIMPLE_FRAME, captured, length, 0, self.interfaces[0].link_type, UNMARKED)
        return NO_FAULT

    cdef const uint8_t *option(self, const uint8_t *at, const uint8_t *end, uint16_t code,
                               uint16_t least) noexcept nogil:
        """The value, `least` bytes at the least, of an option between `at` and `end`; NULL if it is not there."""
        cdef uint16_t kind, length
        while end - at >= 4:                # false too where `at` is behind the end
            kind, length = self.half(at), self.half(at + 2)
            at += 4
            if kind == OPTION_END or length > end - at:
                return NULL
            if kind == code:
                return at if length >= least else NULL
            at += (length + 3) & ~3
        return NULL

    cdef inline uint32_t word(self, const uint8_t *at) noexcept nogil:
        return be32(at) if self.big_endian else le32(at)

    cdef inline uint16_t half(self, const uint8_t *at) noexcept nogil:
        return be16(at) if self.big_endian else <uint16_t>(at[1] << 8 | at[0])


cdef uint64_t ticks_a_second(uint8_t resolution) noexcept nogil:
    """What an interface's resolution says; 0 if it is finer than 64 bits can count."""
    cdef uint64_t found = 1
    if resolution & 0x80:
        return <uint64_t>1 << (resolution & 0x7f) if resolution & 0x7f < 64 else 0
    if resolution > 19:
        return 0
    while resolution:
        found *= 10
        resolution -= 1
    return found


cdef uint64_t nanoseconds(const Interface *interface, uint64_t ticks) noexcept nogil:
    """Since the epoch; 0 before it, or where the clock cannot be read. Exact to a nanosecond."""
    cdef uint64_t per_second = interface.per_second
    cdef uint64_t seconds, rest
    cdef int64_t offset = interface.offset
    if per_second == 0:
        return 0
    seconds, rest = ticks // per_second, ticks % per_second
    while per_second >> 34:                 # so that the product below has 64 bits
        per_second >>= 1
        rest >>= 1
    if offset < 0:
        # Written so that the least of numbers has no overflow.
        if seconds < <uint64_t>(-(offset + 1)) + 1:
            return 0
        seconds -= <uint64_t>(-(offset + 1)) + 1
    else:
        seconds = min(seconds, <uint64_t>1 << 34) + min(<uint64_t>offset, <uint64_t>1 << 34)
    # Beyond any clock: what Frames takes for the latest time.
    return <uint64_t>-1 if seconds >> 34 else seconds * 1000000000 + rest * 1000000000 // per_second
