# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from collections import namedtuple

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy

from fixer.capture.link cimport NO_IP, LinkType, ethertype_of, ip_offset, is_known
from fixer.datapath.pipeline cimport INCOMING, OUTGOING, UNMARKED, Direction, Handed, Pipeline
from fixer.datapath.ring cimport Endpoints, Event
from fixer.datapath.wire cimport ETH_HEADER, ETH_SOURCE
from fixer.findings.census cimport Census
from fixer.findings.match cimport Match

LATEST_NS = <uint64_t>LATEST
"""Nanoseconds since the epoch, in the year 2262. Files can name times beyond any clock."""

Frame = namedtuple("Frame", "data wire_length when_ns link_type ip_at outgoing")

cdef enum:
    LINK_TYPES = 1 << 16
    LATEST = 0x7fffffffffffffff


cdef class Frames:
    """The frames of one block. Iterating over it makes a `Frame` of each; `count` needs none."""

    def __cinit__(self, uint32_t most=1 << 13):
        """most: frames that it holds at once."""
        self.block = bytearray()
        self.most = most
        self.places = <Place *>calloc(most, sizeof(Place))
        self.unknown = <uint64_t *>calloc(LINK_TYPES, sizeof(uint64_t))
        if self.places == NULL or self.unknown == NULL:
            raise MemoryError("no memory for frames")

    def __dealloc__(self):
        free(self.places)
        free(self.unknown)

    cdef void add(self, size_t at, uint32_t captured, uint32_t length, uint64_t when, uint16_t link_type,
                  Direction marked) noexcept nogil:
        """Remember one frame. Only while there is room; `at` and `captured` lie inside the block."""
        cdef Place *place = &self.places[self.used]
        place.at = at
        place.captured = captured
        place.length = max(captured, length)
        place.when = min(when, <uint64_t>LATEST)
        place.link_type = link_type
        place.marked = <uint8_t>marked
        self.used += 1
        self.seen += 1
        if not is_known(link_type):
            self.unknown[link_type] += 1

    def taken_on(self, bytes address not None):
        """The capture was taken on the host with this address (6 bytes of Ethernet, 4 or 16 of IP): what comes from it
        is outgoing and what goes to it is incoming, whatever the capture itself says."""
        if len(address) not in (4, MAC, 16):
            raise ValueError(f"an address has 4, 6 or 16 bytes, not {len(address)}")
        self.here.size = <uint8_t>len(address)
        memcpy(self.here.address, <const uint8_t *>address, len(address))

    def begin(self, bytearray block not None):
        """Forget the frames of the last block."""
        self.block = block
        self.used = 0

    def put(self, size_t at, uint32_t captured, uint32_t length, uint16_t link_type):
        """`add` for a reader in Python, of a frame without a time or a direction."""
        if self.used == self.most or at > <size_t>len(self.block) or captured > <size_t>len(self.block) - at:
            raise ValueError(f"no room for a frame, or {captured} bytes at {at} are not in the block")
        self.add(at, captured, length, 0, link_type, UNMARKED)

    @property
    def full(self):
        return self.used == self.most

    @property
    def unread(self):
        """How many frames there were of each link type that is not read, since the file began."""
        return {kind: self.unknown[kind] for kind in range(LINK_TYPES) if self.unknown[kind]}

    def count(self, Pipeline pipeline not None, Census census not None, uint32_t first):
        """Note what `pipeline` says of each frame from number `first` on, until `census` is full; the first one left.

        Packets that the pipeline mends are mended in the block. A frame of a link type that is not read is passed over.
        """
        cdef unsigned char[::1] block = self.block
        cdef Place *place
        with nogil:
            while first < self.used and not census.is_full():
                place = &self.places[first]
                if is_known(place.link_type):
                    count_one(&block[place.at] if place.captured else NULL, place, &self.here, pipeline, census)
                first += 1
        return first

    def match(self, Match match not None, int side):
        """Note each frame for one side (0 or 1) of `match`, until that is full; whether all of them went in."""
        cdef const unsigned char[::1] block = self.block
        cdef Place *place
        cdef uint32_t number
        if side not in (0, 1):
            raise ValueError(f"a match has the sides 0 and 1, not {side}")
        with nogil:
            for number in range(self.used):
                if match.is_full(side):
                    break
                place = &self.places[number]
                if is_known(place.link_type):
                    match_one(&block[place.at] if place.captured else NULL, place, match, side)
            else:
                number = self.used
        return number == self.used

    def __len__(self):
        return self.used

    def __getitem__(self, uint32_t number):
        """The frame as it now stands in the block."""
        cdef Direction marked = UNMARKED
        cdef const unsigned char[::1] block = self.block
        cdef Place *place
        cdef int64_t ip = NO_IP
        if number >= self.used:
            raise IndexError(number)
        place = &self.places[number]
        if place.captured and is_known(place.link_type):
            ip = ip_offset(place.link_type, &block[place.at], place.captured, &marked)
        if marked == UNMARKED:
            marked = <Direction>place.marked
        return Frame(bytes(self.block[place.at:place.at + place.captured]), place.length, place.when, place.link_type,
                     ip, None if marked == UNMARKED else marked == OUTGOING)


cdef inline void count_one(uint8_t *frame, const Place *place, const Here *here, Pipeline pipeline,
                           Census census) noexcept nogil:
    cdef Handed handed = Handed(when=place.when, uptime=0, skb_info=0, outgoing=False)
    cdef Event event
    cdef Direction marked = UNMARKED
    cdef int64_t ip = ip_offset(place.link_type, frame, place.captured, &marked) if place.captured else NO_IP
    if ip == NO_IP:
        census.note_other(ethertype_of(place.link_type, frame, place.captured))
        return
    if marked == UNMARKED:
        marked = <Direction>place.marked
    pipeline.process(frame + ip, place.captured - <uint32_t>ip, place.length - <uint32_t>ip, &handed, &event)
    if here.size:
        marked = marked_by(here, frame, place, &event, marked)
    census.note(frame + ip, place.captured - <uint32_t>ip, &event, marked)


cdef Direction marked_by(const Here *here, const uint8_t *frame, const Place *place, const Event *event,
                         Direction otherwise) noexcept nogil:
    cdef const Endpoints *ends = &event.outer if event.tunnel else &event.inner
    if here.size == MAC:
        if place.link_type != LinkType.ETHERNET or place.captured < ETH_HEADER:
            return otherwise
        if memcmp(frame + ETH_SOURCE, here.address, MAC) == 0:
            return OUTGOING
        return INCOMING if memcmp(frame, here.address, MAC) == 0 else otherwise
    if ends.version != (4 if here.size == 4 else 6):
        return otherwise
    if memcmp(ends.source, here.address, here.size) == 0:
        return OUTGOING
    return INCOMING if memcmp(ends.destination, here.address, here.size) == 0 else otherwise


cdef inline void match_one(const uint8_t *frame, const Place *place, Match match, int side) noexcept nogil:
    cdef Direction marked = UNMARKED
    cdef int64_t ip = ip_offset(place.link_type, frame, place.captured, &marked) if place.captured else NO_IP
    if ip == NO_IP:
        match.note_other(side, place.when)
        return
    match.note(side, frame + ip, place.captured - <uint32_t>ip, place.length - <uint32_t>ip, place.when,
               <Direction>place.marked if marked == UNMARKED else marked)
