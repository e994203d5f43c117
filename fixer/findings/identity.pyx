# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from libc.string cimport memcpy, memset

from fixer.datapath.hash cimport hash_bytes
from fixer.datapath.walk cimport Layer, Reason
from fixer.datapath.wire cimport *

cdef enum:
    MACS = 12


cdef struct Head:
    uint8_t address[2][16]   # IPv4 in the first four bytes
    uint32_t ports           # as they stand: source and destination; of ICMP type and code
    uint32_t sequence
    uint32_t acknowledged
    uint32_t length          # bytes of the IP packet
    uint32_t fragment        # IPv4 identification, flags and offset
    uint16_t ethertype
    uint8_t version
    uint8_t protocol


cdef struct Flow:
    uint8_t address[2][16]
    uint16_t port[2]
    uint32_t protocol


cdef bint identify(const uint8_t *packet, const Walk *route, const Judgement *judgement, uint64_t seed, Packet *out,
                   Ends *answers) noexcept nogil:
    """Fill `out` but for what only the capture knows (when, number, pair); False if the packet cannot be known again.

    That is so for fragments of the underlay, and where the copy ends before the headers do. `answers`: what it
    acknowledges, if it does.
    """
    cdef const Layer *inner = &route.inner
    cdef Head head
    cdef uint32_t at, end
    memset(out, 0, sizeof(Packet))
    memset(&head, 0, sizeof(Head))
    answers.acknowledges = False
    out.length = route.length
    out.inner = judgement.inner
    out.outer = judgement.outer
    out.diagnosis = judgement.diagnosis
    out.sums[0] = judgement.outer_found
    out.sums[1] = judgement.inner_found
    if route.tunnel:
        if not route.vxlan or route.frame + MACS > route.captured:
            return False
        out.traits |= TUNNELLED
        out.vni = route.vni
        out.flags = route.flags
        out.ports[0] = be16(packet + route.outer.transport + UDP_SOURCE)
        out.ports[1] = be16(packet + route.outer.transport + UDP_DESTINATION)
        read_hops(packet, &route.outer, 0, out)
        at = route.behind_ethernet if route.framed else route.frame
        end = route.outer.transport + route.outer.covered
        if end < at:
            return False
        out.envelope = <uint32_t>hash_bytes(seed, packet + route.frame, at - route.frame if route.framed else MACS)
    else:
        at, end = 0, route.length
    if inner.version == 0:
        if end > route.captured:
            return False
        head.ethertype = route.ethertype
        return finish(packet + at, end - at, seed, &head, out)
    read_hops(packet, inner, 1, out)
    head.version = inner.version
    head.protocol = inner.protocol
    memcpy(head.address[0], packet + inner.source, inner.address_length)
    memcpy(head.address[1], packet + inner.destination, inner.address_length)
    if inner.version == 4:
        head.length = be16(packet + inner.start + IP4_LENGTH)
        head.fragment = be32(packet + inner.start + IP4_ID)
        out.traits |= TELLING if be16(packet + inner.start + IP4_ID) else 0
        at = inner.start + IP4_HEADER
        if head.length >= IP4_HEADER and inner.start + head.length < end:
            end = inner.start + head.length
        if inner.transport > at and inner.transport <= route.captured:
            out.rest = <uint32_t>hash_bytes(seed, packet + at, inner.transport - at)
    else:
        head.length = be16(packet + inner.start + IP6_LENGTH)
        at = inner.start + IP6_HEADER
        if head.length and at + head.length < end:
            end = at + head.length
    if inner.field_read and (inner.reason == Reason.NONE or inner.reason == Reason.TRUNCATED):
        end = inner.transport + inner.covered
        at = read_transport(packet, inner, end, route.captured, seed, &head, out, answers)
    if end > route.captured:
        out.traits |= CUT
        out.head = hash_bytes(seed, <const uint8_t *>&head, sizeof(Head))
        return True
    return finish(packet + at, end - at, seed, &head, out)


cdef inline bint finish(const uint8_t *content, uint32_t length, uint64_t seed, const Head *head,
                        Packet *out) noexcept nogil:
    out.head = hash_bytes(seed, <const uint8_t *>head, sizeof(Head))
    out.whole = hash_bytes(out.head, content, length)
    return True


cdef inline void read_hops(const uint8_t *packet, const Layer *layer, int which, Packet *out) noexcept nogil:
    """What every router may write."""
    cdef const uint8_t *ip = packet + layer.start
    if layer.version == 4:
        out.ttl[which] = ip[IP4_TTL]
        out.tos[which] = ip[IP4_TOS]
    elif layer.version == 6:
        out.ttl[which] = ip[IP6_HOPS]
        out.tos[which] = <uint8_t>(be16(ip) >> 4)


cdef uint32_t read_transport(const uint8_t *packet, const Layer *inner, uint32_t end, uint32_t captured, uint64_t seed,
                             Head *head, Packet *out, Ends *answers) noexcept nogil:
    """Where the payload begins. The checksum field is in none of the hashes."""
    cdef const uint8_t *header = packet + inner.transport
    cdef uint32_t at = inner.transport + UDP_HEADER
    cdef Flow flow
    head.ports = be32(header)
    if inner.protocol == PROTO_ICMP or inner.protocol == PROTO_ICMP6:
        head.ports >>= 16                       # type and code; the checksum is behind them
        if at <= end and at <= captured:
            head.sequence = be32(header + ICMP_HEADER)
            out.traits |= TELLING
            return at
        return inner.transport + ICMP_HEADER
    memset(&flow, 0, sizeof(Flow))
    memcpy(flow.address, head.address, sizeof(flow.address))
    flow.port[0] = be16(header + UDP_SOURCE)
    flow.port[1] = be16(header + UDP_DESTINATION)
    flow.protocol = inner.protocol
    out.flow = hash_bytes(seed, <const uint8_t *>&flow, sizeof(Flow))
    if inner.protocol == PROTO_UDP:
        return at
    head.sequence = out.sequence = be32(header + TCP_SEQUENCE)
    head.acknowledged = be32(header + TCP_ACKNOWLEDGED)
    at = inner.transport + max(<uint32_t>(header[TCP_OFFSET] >> 4) * 4, <uint32_t>TCP_HEADER)
    out.traits |= TELLING
    if at > end:                                # a header that lies: all behind the fixed one is payload
        at = inner.transport + TCP_HEADER
    out.payload = end - at
    if out.payload or header[TCP_FLAGS] & TCP_SYN:
        out.traits |= STREAM
    out.rest ^= be32(header + TCP_OFFSET)
    if at <= captured and at > inner.transport + TCP_HEADER:
        out.rest ^= <uint32_t>hash_bytes(seed, header + TCP_HEADER, at - inner.transport - TCP_HEADER)
    if header[TCP_FLAGS] & TCP_ACK and not header[TCP_FLAGS] & TCP_RST:
        memcpy(flow.address[0], head.address[1], 16)
        memcpy(flow.address[1], head.address[0], 16)
        flow.port[0], flow.port[1] = flow.port[1], flow.port[0]
        answers.acknowledges = True
        answers.flow = hash_bytes(seed, <const uint8_t *>&flow, sizeof(Flow))
        answers.upto = head.acknowledged
    return at
