# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from libc.string cimport memcpy, memset

from fixer.datapath.hash cimport seed_or_drawn
from fixer.datapath.ring cimport Endpoints
from fixer.datapath.wire cimport *
from fixer.findings.table cimport table_clear, table_entry, table_find, table_free, table_init, table_number, table_peek

from collections import namedtuple

Seen = namedtuple("Seen", "source destination tunnel counts firsts stalled through longest mtu")
"""A road as Python sees it: addresses as text, `counts` and `firsts` by `Sight`; see `Road`."""

cdef enum:
    MOST_PARTS = 1 << 14     # cut packets whose fragments are put together at once
    ENOUGH_REPEATS = 3       # a segment that came again so often is stalled
    LONG = 512               # bytes: what is shorter passes every MTU (RFC 791 §3.1: 576 for the whole packet)
    JUST_BEFORE = 8          # frames: a packet that began so shortly before the end may miss parts for that alone
    ARP_REQUEST = 1
    ARP_REPLY = 2
    ARP_OPERATION = 6
    SOLICITATION = 135       # RFC 4861 §4.3
    ADVERTISEMENT = 136
    UNREACHABLE = 3
    TOO_LONG_CODE = 4        # "fragmentation needed and DF set" (RFC 792, RFC 1191 §4)
    TOO_BIG6 = 2             # RFC 4443 §3.2
    ICMP_ORIGINAL = 8


cdef class Roads:
    """What is seen of each road. One thread at once."""

    def __cinit__(self, uint32_t most=1 << 14):
        """most: roads, a power of two."""
        table_init(&self.table, most, sizeof(RoadKey), sizeof(Road), seed_or_drawn(None))
        table_init(&self.parts, MOST_PARTS, 40, sizeof(Parts), seed_or_drawn(None))

    def __dealloc__(self):
        table_free(&self.table)
        table_free(&self.parts)

    cdef uint32_t of(self, const Event *event) noexcept nogil:
        """The number + 1 of the road that a packet takes; 0 where there is no more room."""
        cdef const Endpoints *ends = &event.outer if event.tunnel else &event.inner
        return self.between(ends.source, ends.destination, ends.version, event.tunnel)

    cdef uint32_t between(self, const uint8_t *source, const uint8_t *destination, uint8_t version,
                          bint tunnel) noexcept nogil:
        cdef RoadKey key
        cdef Road *road
        key_of(&key, source, destination, version, tunnel)
        road = <Road *>table_find(&self.table, &key)
        return 0 if road == NULL else table_number(&self.table, road) + 1

    cdef void note(self, uint32_t road, Sight sight, uint64_t count) noexcept nogil:
        cdef Road *here
        if road == 0 or count == 0:
            return
        here = <Road *>table_entry(&self.table, road - 1)
        if here.count[<int>sight] == 0:
            here.first[<int>sight] = self.frame
        here.count[<int>sight] += count

    cdef void note_end(self, uint32_t road, const Progress *progress) noexcept nogil:
        """One side of a connection is over, or the capture is."""
        cdef Road *here
        cdef uint64_t now = self.frame
        if road == 0:
            return
        here = <Road *>table_entry(&self.table, road - 1)
        here.through = max(here.through, progress.through)
        if progress.repeats < ENOUGH_REPEATS:
            return
        self.frame = progress.frame
        self.note(road, Sight.STALLED, 1)
        self.note(road, Sight.REPEATS, progress.repeats)
        if progress.acked and progress.payload >= LONG and progress.payload > progress.through:
            self.note(road, Sight.STALLED_LONG, 1)
            if progress.heard:
                self.note(road, Sight.STALLED_HEARD, 1)
            if here.stalled == 0 or progress.payload < here.stalled:
                here.stalled = progress.payload
        self.frame = now

    cdef void note_neighbour(self, const uint8_t *packet, uint32_t captured, const Event *event) noexcept nogil:
        """ARP in a tunnel, whose outer IP header has no options."""
        cdef uint32_t frame = (IP4_HEADER if event.outer.version == 4 else IP6_HEADER) + UDP_HEADER + VXLAN_HEADER
        cdef uint16_t operation
        if not event.tunnel or frame + ETH_HEADER + ARP_OPERATION + 2 > captured:
            return
        if be16(packet + frame + ETH_TYPE) != ETHERTYPE_ARP:
            return
        operation = be16(packet + frame + ETH_HEADER + ARP_OPERATION)
        if operation == ARP_REQUEST:
            self.note(self.of(event), Sight.SOUGHT, 1)
        elif operation == ARP_REPLY:
            self.note(self.of(event), Sight.FOUND, 1)

    cdef void note_too_long(self, const uint8_t *icmp, uint32_t room, const Event *inside) noexcept nogil:
        """An ICMP message, if it says that a packet was too long: of the tunnel that `inside` came back through, or, if
        that is NULL, of the road that the packet it quotes has taken."""
        cdef const uint8_t *quoted = icmp + ICMP_ORIGINAL
        cdef uint32_t mtu, road = 0
        cdef Road *here
        if room < ICMP_ORIGINAL + IP4_HEADER:
            return
        if icmp[0] == UNREACHABLE and icmp[1] == TOO_LONG_CODE and quoted[0] >> 4 == 4:
            mtu = be16(icmp + 6)
            if inside == NULL:
                road = self.quoted(quoted + IP4_SOURCE, quoted + IP4_DESTINATION, 4)
        elif icmp[0] == TOO_BIG6 and quoted[0] >> 4 == 6 and room >= ICMP_ORIGINAL + IP6_HEADER:
            mtu = be32(icmp + 4)
            if inside == NULL:
                road = self.quoted(quoted + IP6_SOURCE, quoted + IP6_DESTINATION, 6)
        else:
            return
        if inside != NULL:
            road = self.between(inside.outer.destination, inside.outer.source, inside.outer.version, True)
        if road == 0:
            return
        self.note(road, Sight.TOO_LONG if inside == NULL else Sight.TOO_LONG_INSIDE, 1)
        here = <Road *>table_entry(&self.table, road - 1)
        if mtu and (here.mtu == 0 or mtu < here.mtu):
            here.mtu = mtu

    cdef uint32_t quoted(self, const uint8_t *source, const uint8_t *destination, uint8_t version) noexcept nogil:
        """The road between two addresses that was seen before, a tunnel's rather than another."""
        cdef RoadKey key
        cdef Road *road
        cdef int tunnel
        for tunnel in range(2):
            key_of(&key, source, destination, version, tunnel == 0)
            road = <Road *>table_peek(&self.table, &key)
            if road != NULL:
                return table_number(&self.table, road) + 1
        return 0

    cdef void note_icmp(self, const uint8_t *packet, uint32_t captured) noexcept nogil:
        """An IP packet that is in no tunnel, if it is ICMP."""
        cdef uint32_t header = IP6_HEADER
        if captured < IP4_HEADER:
            return
        if packet[0] >> 4 == 4:
            header = <uint32_t>(packet[0] & 15) * 4
            if packet[IP4_PROTOCOL] != PROTO_ICMP or header < IP4_HEADER:
                return
        elif packet[0] >> 4 != 6 or captured < IP6_HEADER or packet[IP6_NEXT] != PROTO_ICMP6:
            return
        if header < captured:
            self.note_too_long(packet + header, captured - header, NULL)

    # What the underlay cuts to pieces.

    cdef uint32_t note_fragment(self, const uint8_t *packet, uint32_t captured, uint8_t *whole,
                                uint32_t room) noexcept nogil:
        """A packet, if it is a fragment of UDP. Of a first one with VXLAN in it, as many bytes as there are room for go
        to `whole`, with headers as if it were the whole packet; how many that are, else 0."""
        cdef Parts key
        cdef Parts *parts
        cdef uint32_t header, offset, length, copied
        cdef bint more
        memset(&key, 0, sizeof(Parts))
        if captured >= IP4_HEADER and packet[0] >> 4 == 4:
            header = <uint32_t>(packet[0] & 15) * 4
            offset = <uint32_t>(be16(packet + IP4_FRAGMENT) & 0x1fff) * 8
            more = be16(packet + IP4_FRAGMENT) & 0x2000 != 0
            length = be16(packet + IP4_LENGTH)
            key.version = 4
            key.protocol = packet[IP4_PROTOCOL]
            key.identification = be16(packet + IP4_ID)
            memcpy(key.address[0], packet + IP4_SOURCE, 4)
            memcpy(key.address[1], packet + IP4_DESTINATION, 4)
        elif captured >= IP6_HEADER + 8 and packet[0] >> 4 == 6 and packet[IP6_NEXT] == PROTO_FRAGMENT:
            header = IP6_HEADER + 8
            offset = be16(packet + IP6_HEADER + 2) & 0xfff8
            more = packet[IP6_HEADER + 3] & 1 != 0
            length = <uint32_t>be16(packet + IP6_LENGTH) + IP6_HEADER
            key.version = 6
            key.protocol = packet[IP6_HEADER]
            key.identification = be32(packet + IP6_HEADER + 4)
            memcpy(key.address[0], packet + IP6_SOURCE, 16)
            memcpy(key.address[1], packet + IP6_DESTINATION, 16)
        else:
            return 0
        if header < IP4_HEADER or length <= header or key.protocol != PROTO_UDP or (not more and offset == 0):
            return 0
        if self.parts.used == self.parts.most:
            self.count_parts()
        parts = <Parts *>table_find(&self.parts, &key)
        parts.bytes += length - header
        if not more:
            parts.total = offset + length - header
        if offset:
            self.later_parts += 1
            return 0
        if header + UDP_HEADER + VXLAN_HEADER + ETH_HEADER > captured or not has_vxlan(packet + header + UDP_HEADER):
            return 0
        parts.header = header
        parts.frame = self.frame
        parts.road = self.between(key.address[0], key.address[1], <uint8_t>key.version, True)
        copied = min(captured, room)
        memcpy(whole, packet, copied)
        length = header + be16(packet + header + UDP_LENGTH)
        if key.version == 4:
            put_be16(whole + IP4_LENGTH, <uint16_t>min(length, 0xffffU))
            put_be16(whole + IP4_FRAGMENT, 0)
        else:
            put_be16(whole + IP6_LENGTH, <uint16_t>min(length - IP6_HEADER, 0xffffU))
            put_be16(whole + IP6_HEADER + 2, 0)
        return copied

    cdef void count_parts(self) noexcept nogil:
        """Count the packets that were cut, and forget them."""
        cdef const Parts *parts
        cdef Road *here
        cdef uint64_t now = self.frame
        cdef uint32_t number
        for number in range(self.parts.used):
            parts = <const Parts *>table_entry(&self.parts, number)
            if parts.road == 0:
                continue
            self.frame = parts.frame
            here = <Road *>table_entry(&self.table, parts.road - 1)
            if parts.total and parts.bytes >= parts.total:
                self.note(parts.road, Sight.WHOLE, 1)
                here.longest = max(here.longest, parts.header + parts.total)
            elif parts.frame + JUST_BEFORE <= now and self.parts.used < self.parts.most:
                self.note(parts.road, Sight.REST_MISSING, 1)
        table_clear(&self.parts)
        self.frame = now

    # The face to Python.

    def all(self):
        """Each road, in the order in which they came, once the capture is over."""
        cdef const Road *road
        cdef uint32_t number
        from fixer.findings.roads import Sight as Sights

        found = []
        for number in range(self.table.used):
            road = <const Road *>table_entry(&self.table, number)
            found.append(Seen(
                address_text(road.key.version, road.key.address[0]),
                address_text(road.key.version, road.key.address[1]),
                bool(road.key.tunnel), {sight: road.count[<int>sight] for sight in Sights},
                {sight: road.first[<int>sight] for sight in Sights},
                road.stalled, road.through, road.longest, road.mtu))
        return found


cdef inline bint has_vxlan(const uint8_t *header) noexcept nogil:
    """Whether the 8 bytes are a VXLAN header as everybody writes it (RFC 7348 §5): the I flag, and nothing reserved."""
    return be32(header) == VXLAN_I and header[7] == 0


cdef inline void key_of(RoadKey *key, const uint8_t *source, const uint8_t *destination, uint8_t version,
                        bint tunnel) noexcept nogil:
    cdef int size = 16 if version == 6 else 4
    memset(key, 0, sizeof(RoadKey))
    memcpy(key.address[0], source, size)
    memcpy(key.address[1], destination, size)
    key.version = version
    key.tunnel = tunnel
