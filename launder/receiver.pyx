# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from launder.sums cimport fold, get16, pseudo, words
from launder.world cimport VXLAN_PORT


cdef struct Network:
    # An IP header and where it leads.
    bint fragment
    bint wrong               # the checksum of an IPv4 header; or a length of 0, which is a super-packet's
    uint8_t version
    uint8_t protocol
    uint32_t addresses       # source and destination behind it
    uint32_t transport
    uint32_t end             # of what the header says there is


cdef void look(const uint8_t *packet, uint32_t size, Look *out) noexcept nogil:
    cdef Network ip
    cdef uint32_t udp, length, width, at
    cdef uint32_t head, right = 0
    memset(out, 0, sizeof(Look))
    if not network(packet, 0, size, &ip) or ip.fragment or ip.protocol != 17 or ip.end - ip.transport < 16:
        return
    out.version = ip.version
    udp = ip.transport
    length = datagram(packet, &ip)
    if get16(packet + udp + 2) != VXLAN_PORT or length < 16 or length > ip.end - udp or not packet[udp + 8] & 0x08:
        return
    out.outer_field = udp + 6
    width = 4 if ip.version == 4 else 16
    head = pseudo(packet + ip.addresses, packet + ip.addresses + width, width, 17, length)
    at = udp + length
    frame(packet, udp + 16, at, out, &right)
    if ip.wrong:
        return
    out.total = out.finished = fold(<uint64_t>head + words(packet + udp, length))
    if out.inner == IN_PSEUDO:
        out.finished = fold(<uint64_t>out.total + (get16(packet + out.inner_field) ^ 0xffffU) + right)
    if get16(packet + udp + 6) == 0:
        out.outer = OUT_ZERO
    elif out.total == 0xffff:
        out.outer = OUT_GOOD
    elif out.finished == 0xffff:
        out.outer = OUT_AGREES
    elif get16(packet + udp + 6) == fold(head):
        out.outer = OUT_PSEUDO
    else:
        out.outer = OUT_BAD


cdef bint takes(const Look *seen, bint unfinished, bint zero6) noexcept nogil:
    """Whether the packet is delivered.

    unfinished: its receiver finishes the one layer that was left unfinished on this host (CHECKSUM_PARTIAL); with both
    layers so it is not known which one that would be: no. zero6: an outer zero over IPv6 is taken.
    """
    cdef bint outer = seen.outer == OUT_GOOD or (seen.outer == OUT_ZERO and (zero6 or seen.version == 4))
    cdef bint inner = seen.inner == IN_GOOD or seen.inner == IN_NONE
    if unfinished and seen.inner == IN_PSEUDO and seen.outer != OUT_PSEUDO:
        inner = True
        outer = seen.outer == OUT_AGREES or seen.outer == OUT_ZERO
    elif unfinished and seen.outer == OUT_PSEUDO:
        outer = True
    return outer and inner


cdef bint network(const uint8_t *packet, uint32_t start, uint32_t end, Network *out) noexcept nogil:
    cdef const uint8_t *ip = packet + start
    cdef uint32_t size, total, at
    memset(out, 0, sizeof(Network))
    if end < start + 20:
        return False
    if ip[0] >> 4 == 4:
        size = (ip[0] & 15) * 4
        total = get16(ip + 2)
        out.wrong = fold(words(ip, size)) != 0xffff or total == 0
        if total == 0:
            total = end - start
        if size < 20 or total < size or total > end - start:
            return False
        out.version = 4
        out.protocol = ip[9]
        out.fragment = get16(ip + 6) & 0x3fff != 0
        out.addresses = start + 12
        out.transport = start + size
        out.end = start + total
        return True
    if ip[0] >> 4 != 6 or end < start + 40:
        return False
    total = get16(ip + 4)
    out.wrong = total == 0
    if total == 0:
        total = end - start - 40
    if total > end - start - 40:
        return False
    out.version = 6
    out.protocol = ip[6]
    out.addresses = start + 8
    out.end = start + 40 + total
    at = start + 40
    # Hop-by-hop, routing, destination options, mobility, HIP, shim6; and the fragment header.
    while out.protocol in (0, 43, 44, 60, 135, 139, 140):
        if out.end < at + 8:
            return False
        size = 8 if out.protocol == 44 else 8 + <uint32_t>packet[at + 1] * 8
        if out.end < at + size:
            return False
        if out.protocol == 43 and packet[at + 3]:
            return False                        # not for us yet
        if out.protocol == 44 and get16(packet + at + 2) & 0xfff9:
            out.fragment = True
        out.protocol = packet[at]
        at += size
        if out.fragment:
            break
    out.transport = at
    return True


cdef inline uint32_t datagram(const uint8_t *packet, const Network *ip) noexcept nogil:
    """The length of a UDP datagram. 0 over IPv6 is all there is (RFC 2675 §4; Linux takes it so without the option)."""
    cdef uint32_t length = get16(packet + ip.transport + 4)
    return ip.end - ip.transport if length == 0 and ip.version == 6 else length


cdef void frame(const uint8_t *packet, uint32_t at, uint32_t end, Look *out, uint32_t *right) noexcept nogil:
    """The inner Ethernet frame: state and field of its checksum, and (right) what that must be if it is unfinished."""
    cdef Network ip
    cdef uint32_t width, length, least, field, head, total, kind = 0
    out.inner = IN_UNREADABLE
    if end < at + 14:
        return
    at += 12
    while end >= at + 2:
        kind = get16(packet + at)
        at += 2
        if kind != 0x8100 and kind != 0x88a8 and kind != 0x9100:
            break
        at += 2
        kind = 0
    if kind == 0:
        return
    if kind != 0x0800 and kind != 0x86dd:
        out.inner = IN_NONE
        return
    if not network(packet, at, end, &ip) or (ip.version == 4) != (kind == 0x0800):
        return
    length = ip.end - ip.transport
    if ip.fragment:
        out.inner = IN_UNREADABLE if ip.wrong else IN_NONE
        return
    if ip.protocol == 6:
        least, field = 20, 16
    elif ip.protocol == 17:
        least, field = 8, 6
    elif ip.protocol == (1 if ip.version == 4 else 58):
        least, field = 8, 2
    else:
        out.inner = IN_UNREADABLE if ip.wrong else IN_NONE
        return
    if length < least:
        return
    if ip.protocol == 17:
        if datagram(packet, &ip) < 8 or datagram(packet, &ip) > length:
            return
        length = datagram(packet, &ip)
    out.protocol = ip.protocol
    out.inner_field = ip.transport + field
    if ip.protocol == 6:
        out.options = ip.transport + 20
        out.options_end = ip.transport + min(length, <uint32_t>(packet[ip.transport + 12] >> 4) * 4)
    if ip.wrong:
        return
    if ip.protocol == 17 and get16(packet + out.inner_field) == 0:
        out.inner = IN_NONE if ip.version == 4 else IN_BAD
        return
    width = 4 if ip.version == 4 else 16
    head = 0
    if ip.protocol != 1:
        head = pseudo(packet + ip.addresses, packet + ip.addresses + width, width, ip.protocol, length)
    total = words(packet + ip.transport, length)
    if fold(<uint64_t>head + total) == 0xffff:
        out.inner = IN_GOOD
    elif ip.protocol != 1 and (get16(packet + out.inner_field) == fold(head) or (
            ip.protocol == 6 and get16(packet + out.inner_field) == fold(head - length))):
        out.inner = IN_PSEUDO
        right[0] = fold(<uint64_t>head + total + (get16(packet + out.inner_field) ^ 0xffffU)) ^ 0xffffU
        if right[0] == 0 and ip.protocol == 17:
            right[0] = 0xffff
    else:
        out.inner = IN_BAD
