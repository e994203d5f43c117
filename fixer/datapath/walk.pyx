# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from libc.string cimport memset

from fixer._csum cimport sum_bytes
from fixer.datapath.wire cimport *


cdef void walk(const uint8_t *packet, uint32_t captured, uint32_t length, const Ports *ports, bint plain,
               Walk *out) noexcept nogil:
    """Fill `out` for the packet whose first IP header is at `packet`.

    `captured` bytes are readable; `length` is what the packet had on the wire (from the kernel or the capture), at
    least `captured`, any padding behind it included. With `plain` a packet that is no VXLAN enters at the inner layer;
    without it, such a packet leaves with a reason.
    """
    memset(out, 0, sizeof(Walk))
    out.captured = captured
    out.length = length
    out.vlan = -1
    walk_outer(packet, ports, out)
    if out.vxlan:
        if out.inner.reason == Reason.NONE:
            walk_inner_frame(packet, out)
        return
    if plain:
        memset(&out.outer, 0, sizeof(Layer))
        out.tunnel = False
        read_ip(packet, 0, captured, length, &out.inner)
        if out.inner.reason == Reason.NONE:
            read_transport(packet, captured, &out.inner)


cdef void walk_outer(const uint8_t *packet, const Ports *ports, Walk *out) noexcept nogil:
    """Underlay IP, UDP and the VXLAN header. Leaves `out.inner.reason` NONE if there is an inner frame to walk."""
    cdef Layer *outer = &out.outer
    cdef uint16_t port
    cdef uint32_t header
    cdef int i
    read_ip(packet, 0, out.captured, out.length, outer)
    if outer.version and outer.protocol == PROTO_UDP and outer.transport \
            and outer.transport + UDP_HEADER <= out.captured:
        # A first fragment has its UDP header too; later ones do not, and belong to nobody we could name.
        port = be16(packet + outer.transport + UDP_DESTINATION)
        for i in range(ports.count):
            out.tunnel |= port == ports.port[i]
        if port == GENEVE_PORT and not out.tunnel:
            outer.reason = Reason.GENEVE
    if outer.reason == Reason.NONE:
        if out.tunnel:
            read_transport(packet, out.captured, outer)
        elif outer.protocol == PROTO_UDP and outer.covered < UDP_HEADER:
            outer.reason = Reason.OUTER_UNREADABLE
        elif outer.protocol == PROTO_UDP and outer.transport + UDP_HEADER > out.captured:
            outer.reason = Reason.TRUNCATED
        else:
            outer.reason = Reason.OTHER_TRAFFIC
    if outer.reason == Reason.INNER_FRAGMENT:
        outer.reason = Reason.OUTER_FRAGMENT
    elif outer.reason == Reason.INNER_IP or outer.reason == Reason.INNER_TRANSPORT:
        outer.reason = Reason.OUTER_UNREADABLE
    out.inner.reason = outer.reason
    if not outer.field_read or (outer.reason != Reason.NONE and outer.reason != Reason.TRUNCATED):
        return

    header = outer.transport + UDP_HEADER
    if outer.covered < UDP_HEADER + VXLAN_HEADER:
        out.inner.reason = Reason.NOT_VXLAN
        return
    if header + VXLAN_HEADER > out.captured:
        return                              # TRUNCATED, as the outer layer
    out.flags = be32(packet + header)
    if not out.flags & VXLAN_I:
        out.inner.reason = Reason.NOT_VXLAN
        return
    out.vxlan = True
    out.vni = be32(packet + header + VXLAN_VNI) >> 8
    out.frame = header + VXLAN_HEADER
    # Reserved bits are ignored on receipt (RFC 7348 §5), the Group Policy bits among them. So a P bit means GPE only
    # where the version bits beside it are those of GPE version 0: a sender of all-ones reserved bits is no GPE sender.
    if out.flags & VXLAN_GPE_P and not out.flags & VXLAN_GPE_VERSION:
        out.inner.reason = Reason.GPE
    elif out.flags & VXLAN_REMOTE_CHECKSUM and not out.flags & VXLAN_GPE_VERSION:
        out.inner.reason = Reason.REMOTE_CHECKSUM
    else:
        out.inner.reason = Reason.NONE


cdef void walk_inner_frame(const uint8_t *packet, Walk *out) noexcept nogil:
    """Inner Ethernet, its VLAN tags, inner IP and transport; all inside what the outer UDP length spans."""
    cdef uint32_t end = out.outer.transport + out.outer.covered
    cdef uint32_t at = out.frame + ETH_HEADER
    cdef int tags
    if at > end:
        out.inner.reason = Reason.INNER_ETHERNET
        return
    if at > out.captured:
        out.inner.reason = Reason.TRUNCATED
        return
    out.ethertype = be16(packet + out.frame + ETH_TYPE)
    for tags in range(MAX_TAGS + 1):
        if not is_tag(out.ethertype):
            break
        if tags == MAX_TAGS or at + VLAN_TAG > end:
            out.inner.reason = Reason.INNER_ETHERNET
            return
        if at + VLAN_TAG > out.captured:
            out.inner.reason = Reason.TRUNCATED
            return
        if tags == 0:
            out.vlan = be16(packet + at) & 0x0fff
        out.ethertype = be16(packet + at + 2)
        at += VLAN_TAG
    out.framed = True
    out.behind_ethernet = at
    if out.ethertype != ETHERTYPE_IP4 and out.ethertype != ETHERTYPE_IP6:
        out.inner.reason = Reason.NO_IP if has_nothing_to_check(out.ethertype) else Reason.NOT_IP
        return
    read_ip(packet, at, out.captured, end, &out.inner)
    if out.inner.version and (out.inner.version == 4) != (out.ethertype == ETHERTYPE_IP4):
        out.inner.version = 0               # an Ethertype and a version that contradict each other
        out.inner.reason = Reason.INNER_IP
    if out.inner.reason == Reason.NONE:
        read_transport(packet, out.captured, &out.inner)


cdef inline bint has_nothing_to_check(uint16_t ethertype) noexcept nogil:
    """Frames that are not IP and carry no IP either. (Below ETHERTYPE_LEAST it is 802.3's length: spanning tree.)"""
    return ethertype in (ETHERTYPE_ARP, ETHERTYPE_RARP, ETHERTYPE_LLDP) or ethertype < ETHERTYPE_LEAST


cdef void read_ip(const uint8_t *packet, uint32_t start, uint32_t captured, uint32_t end, Layer *out) noexcept nogil:
    """The IP header at `start`, its options or extension headers; the packet it belongs to must fit before `end`.

    Sets reason NONE with `transport` and, for now, `covered` = all bytes behind the header chain. Reasons it may set:
    TRUNCATED, INNER_IP, INNER_FRAGMENT, SOURCE_ROUTE, EXTENSION_HEADERS. `walk_outer` gives them the outer names.
    """
    out.reason = Reason.TRUNCATED
    out.start = start
    if start >= end:
        out.reason = Reason.INNER_IP
        return
    if start >= captured:
        return
    if packet[start] >> 4 == 4:
        read_ip4(packet, start, captured, end, out)
    elif packet[start] >> 4 == 6:
        read_ip6(packet, start, captured, end, out)
    else:
        out.reason = Reason.INNER_IP


cdef void read_ip4(const uint8_t *packet, uint32_t start, uint32_t captured, uint32_t end, Layer *out) noexcept nogil:
    cdef const uint8_t *ip = packet + start
    cdef uint32_t header, total, room = end - start
    if room < IP4_HEADER:
        out.reason = Reason.INNER_IP
        return
    if captured - start < IP4_HEADER:
        return
    header = (ip[0] & 0x0f) * 4
    total = be16(ip + IP4_LENGTH)
    out.version = 4
    out.address_length = 4
    out.protocol = ip[IP4_PROTOCOL]
    out.source = start + IP4_SOURCE
    out.destination = start + IP4_DESTINATION
    if header < IP4_HEADER or header > room:
        out.reason = Reason.INNER_IP
        # An honest header has at least 20 bytes, so this one is damaged whatever its checksum would be.
        out.header_wrong = header < IP4_HEADER
        return
    if header > captured - start:
        return
    out.header_wrong = sum_bytes(ip, header) != 0xffff
    if total == 0:
        total = room                        # BIG TCP (linux b1a78b9b9886): the frame's length counts
    if total < header or total > room:
        out.reason = Reason.INNER_IP
        return
    out.transport = start + header
    out.covered = total - header
    if be16(ip + IP4_FRAGMENT) & IP4_MORE_OR_OFFSET:
        if be16(ip + IP4_FRAGMENT) & 0x1fff:
            out.transport = 0               # not a first fragment: no transport header in it
        out.reason = Reason.INNER_FRAGMENT
        return
    if header > IP4_HEADER and source_routed(ip + IP4_HEADER, header - IP4_HEADER):
        out.reason = Reason.SOURCE_ROUTE
        return
    out.reason = Reason.NONE


cdef bint source_routed(const uint8_t *options, uint32_t length) noexcept nogil:
    """Whether a source route (RFC 791 §3.1) still has hops: its last one, not the header, is the pseudo-header's."""
    cdef uint32_t at = 0
    while at < length and options[at] != IP4_OPTION_END:
        if options[at] == IP4_OPTION_NOP:
            at += 1
            continue
        if at + 2 >= length or options[at + 1] < 2:
            return False
        if options[at] == IP4_OPTION_LSRR or options[at] == IP4_OPTION_SSRR:
            return options[at + 2] <= options[at + 1]
        at += options[at + 1]
    return False


cdef void read_ip6(const uint8_t *packet, uint32_t start, uint32_t captured, uint32_t end, Layer *out) noexcept nogil:
    cdef const uint8_t *ip = packet + start
    cdef const uint8_t *header
    cdef uint32_t at, size, stop, room = end - start
    cdef int _count
    if room < IP6_HEADER:
        out.reason = Reason.INNER_IP
        return
    if captured - start < IP6_HEADER:
        return
    out.version = 6
    out.address_length = 16
    out.protocol = ip[IP6_NEXT]
    out.source = start + IP6_SOURCE
    out.destination = start + IP6_DESTINATION
    stop = be16(ip + IP6_LENGTH)
    stop = end if stop == 0 else start + IP6_HEADER + stop   # 0: a jumbogram (RFC 2675) or BIG TCP
    if stop > end:
        out.reason = Reason.INNER_IP
        return
    at = start + IP6_HEADER
    for _count in range(MAX_EXTENSIONS + 1):
        if not is_extension(out.protocol):
            out.transport = at
            out.covered = stop - at
            out.reason = Reason.NONE
            return
        if at + 8 > stop:
            out.reason = Reason.INNER_IP
            return
        if at + 8 > captured:
            return
        header = packet + at
        size = 8 if out.protocol == PROTO_FRAGMENT else (<uint32_t>header[1] + 1) * 8
        if at + size > stop:
            out.reason = Reason.INNER_IP
            return
        if at + size > captured:
            return
        if out.protocol == PROTO_FRAGMENT and be16(header + 2) & IP6_MORE_OR_OFFSET:
            out.protocol = header[0]
            out.transport = 0 if be16(header + 2) & 0xfff8 else at + size
            out.reason = Reason.INNER_FRAGMENT
            return
        if out.protocol == PROTO_ROUTING and header[3] and not final_destination(header, at, size, out):
            out.reason = Reason.SOURCE_ROUTE
            return
        if out.protocol == PROTO_DESTINATION and has_home_address(header, size):
            out.reason = Reason.SOURCE_ROUTE
            return
        out.protocol = header[0]
        at += size
    out.reason = Reason.EXTENSION_HEADERS


cdef inline bint is_extension(uint8_t protocol) noexcept nogil:
    """IPv6 extension headers with the common layout (RFC 6564). Not AH and ESP: what they carry is authenticated or
    encrypted and must not be edited; they end the walk as OTHER_PROTOCOL."""
    return protocol in (PROTO_HOP_BY_HOP, PROTO_ROUTING, PROTO_FRAGMENT, PROTO_DESTINATION, PROTO_MOBILITY, PROTO_HIP,
                        PROTO_SHIM6)


cdef bint final_destination(const uint8_t *header, uint32_t at, uint32_t size, Layer *out) noexcept nogil:
    """Point `out.destination` at the final address of a routing header that still has segments left."""
    if header[2] == IP6_ROUTING_SEGMENTS and size >= 24:
        out.destination = at + 8
        return True
    if (header[2] == IP6_ROUTING_SOURCE or header[2] == IP6_ROUTING_HOME) and size >= 24 and size % 16 == 8:
        out.destination = at + size - 16
        return True
    return False                            # RPL compresses its addresses (RFC 6554); others are unknown


cdef bint has_home_address(const uint8_t *header, uint32_t size) noexcept nogil:
    """Whether destination options hold a Home Address: the pseudo-header's source is in it (RFC 6275 §6.3)."""
    cdef uint32_t at = 2
    while at < size:
        if header[at] == IP6_OPTION_HOME_ADDRESS:
            return True
        if header[at] == IP6_OPTION_PAD1:
            at += 1
        elif at + 1 < size:
            at += 2 + <uint32_t>header[at + 1]
        else:
            break
    return False


cdef void read_transport(const uint8_t *packet, uint32_t captured, Layer *out) noexcept nogil:
    """The transport header: where its checksum stands, how much it covers. `covered` comes as the IP payload's length.

    Reasons: OTHER_PROTOCOL, INNER_TRANSPORT, TRUNCATED.
    """
    cdef uint32_t header, field, claimed
    out.exact = be16(packet + out.start + (IP4_LENGTH if out.version == 4 else IP6_LENGTH)) != 0
    if out.protocol == PROTO_TCP:
        header = TCP_HEADER
        field = TCP_CHECKSUM
    elif out.protocol == PROTO_UDP:
        header = UDP_HEADER
        field = UDP_CHECKSUM
    elif (out.protocol == PROTO_ICMP and out.version == 4) or (out.protocol == PROTO_ICMP6 and out.version == 6):
        header = ICMP_HEADER
        field = ICMP_CHECKSUM
    else:
        out.reason = Reason.OTHER_PROTOCOL
        return
    if out.covered < header:
        out.reason = Reason.INNER_TRANSPORT
        return
    if out.transport + header > captured:
        out.reason = Reason.TRUNCATED
        return
    if out.protocol == PROTO_UDP:
        claimed = be16(packet + out.transport + UDP_LENGTH)
        out.exact &= claimed == out.covered
        # 0 is a jumbogram's (RFC 2675 §4) or BIG TCP's; over IPv4 only where the IP length is 0 as well.
        if claimed == 0 and (out.version == 6 or be16(packet + out.start + IP4_LENGTH) == 0):
            claimed = out.covered
        if claimed < UDP_HEADER or claimed > out.covered:
            out.reason = Reason.INNER_TRANSPORT
            return
        out.covered = claimed
    out.field = out.transport + field
    out.field_read = True
    if out.transport + out.covered > captured:
        out.reason = Reason.TRUNCATED
