# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from fixer.datapath.pipeline cimport INCOMING, OUTGOING, UNMARKED
from fixer.datapath.wire cimport *

NOT_IP = <int>NO_IP


cdef int64_t ip_offset(int link_type, const uint8_t *frame, size_t captured, Direction *marked) noexcept nogil:
    """The offset of the IP header behind a link-layer header of a known type; `marked` says which way the frame went.

    Any number of VLAN tags is stepped over. NO_IP for another protocol, or a frame too short to say.
    """
    cdef size_t at
    cdef int32_t ethertype
    marked[0] = UNMARKED
    if link_type in (RAW_BSD, RAW, IPV4, IPV6):
        return 0 if captured else NO_IP
    if link_type == BSD_LOOP or link_type == LOOP:
        # The byte order of NULL is not told: an address family is a small number either way.
        if captured > LOOPBACK_HEADER and (is_ip_family(be32(frame)) or is_ip_family(le32(frame))):
            return LOOPBACK_HEADER
        return NO_IP
    if link_type == SLL:
        at, ethertype = SLL_HEADER, half_word(frame, captured, SLL_TYPE)
        marked[0] = OUTGOING if half_word(frame, captured, SLL_PACKET_TYPE) == PACKET_OUTGOING else INCOMING
    elif link_type == SLL2:
        at, ethertype = SLL2_HEADER, half_word(frame, captured, SLL2_TYPE)
        marked[0] = OUTGOING if captured > SLL2_PACKET_TYPE and frame[SLL2_PACKET_TYPE] == PACKET_OUTGOING else INCOMING
    else:
        at, ethertype = ETH_HEADER, half_word(frame, captured, ETH_TYPE)
    while is_tag(ethertype):
        ethertype = half_word(frame, captured, at + 2)
        at += VLAN_TAG
    return at if at < captured and ethertype in (ETHERTYPE_IP4, ETHERTYPE_IP6) else NO_IP


cdef uint16_t ethertype_of(int link_type, const uint8_t *frame, size_t captured) noexcept nogil:
    """The EtherType of a frame, behind its VLAN tags; 0 where its link layer has none, or it ends before it."""
    cdef size_t at = ETH_TYPE if link_type == ETHERNET else SLL_TYPE if link_type == SLL else SLL2_TYPE
    cdef int32_t ethertype
    if link_type not in (ETHERNET, SLL, SLL2):
        return 0
    ethertype = half_word(frame, captured, at)
    if link_type != SLL2:
        while is_tag(ethertype):
            at += VLAN_TAG
            ethertype = half_word(frame, captured, at)
    return <uint16_t>max(ethertype, 0)


cdef inline int32_t half_word(const uint8_t *frame, size_t captured, size_t at) noexcept nogil:
    """The big-endian 16-bit number at `at`, or -1 where the frame ends before it."""
    return be16(frame + at) if at + 2 <= captured else -1


cdef inline bint is_ip_family(uint32_t family) noexcept nogil:
    """AF_INET is 2 everywhere, AF_INET6 is 10 on Linux, 24, 28 and 30 on the BSDs."""
    return family in (2, 10, 24, 28, 30)


def find_ip(int link_type, bytes frame not None):
    """`ip_offset` for Python: the offset or NOT_IP, and whether the frame is marked as outgoing, None if it cannot be.

    link_type: one of LinkType.
    """
    cdef Direction marked
    cdef int64_t at = ip_offset(link_type, frame, len(frame), &marked)
    return at, None if marked == UNMARKED else marked == OUTGOING
