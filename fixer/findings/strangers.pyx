# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from libc.stdlib cimport free

from fixer.datapath.wire cimport *
from fixer.datapath.zeroed cimport zeroed

cdef enum:
    PORTS = 1 << 16
    PROTOCOLS = 1 << 8
    GROUP_POLICY = 0x88          # the first flags with a group policy (draft-smith-vxlan-group-policy)


cdef class Strangers:
    """Counts. One thread at once."""

    def __cinit__(self):
        self.protocols = <uint64_t *>zeroed(PROTOCOLS, sizeof(uint64_t), "protocols")
        self.ports = <uint64_t *>zeroed(PORTS, sizeof(uint64_t), "ports")
        self.ethertypes = <uint64_t *>zeroed(PORTS, sizeof(uint64_t), "EtherTypes")
        self.alike = <uint64_t *>zeroed(PORTS, sizeof(uint64_t), "ports")
        self.first = <uint64_t *>zeroed(PORTS, sizeof(uint64_t), "ports")

    def __dealloc__(self):
        free(self.protocols)
        free(self.ports)
        free(self.ethertypes)
        free(self.alike)
        free(self.first)

    cdef void note_ip(self, const uint8_t *packet, uint32_t captured, uint64_t frame) noexcept nogil:
        """An IP packet that is not UDP to a VXLAN port; its later fragments by themselves.

        IPv6 extension headers count as what they are.
        """
        cdef uint32_t header = IP6_HEADER, length
        cdef uint8_t protocol
        cdef uint16_t port
        cdef bint later = False
        if captured >= IP4_HEADER and packet[0] >> 4 == 4:
            header = <uint32_t>(packet[0] & 15) * 4
            protocol = packet[IP4_PROTOCOL]
            length = be16(packet + IP4_LENGTH)
            later = be16(packet + IP4_FRAGMENT) & 0x1fff != 0
        elif captured >= IP6_HEADER and packet[0] >> 4 == 6:
            protocol = packet[IP6_NEXT]
            length = IP6_HEADER + <uint32_t>be16(packet + IP6_LENGTH)
        else:
            return
        if later:
            self.fragments += 1
            return
        self.protocols[protocol] += 1
        if protocol != PROTO_UDP or header < IP4_HEADER or header + UDP_HEADER > captured:
            return
        port = be16(packet + header + UDP_DESTINATION)
        self.ports[port] += 1
        if looks_like_vxlan(packet + header, captured - header, length - header):
            if self.alike[port] == 0:
                self.first[port] = frame
            self.alike[port] += 1

    cdef void note_frame(self, uint16_t ethertype) noexcept nogil:
        """A frame without IP."""
        self.ethertypes[ethertype] += 1

    # The face to Python.

    def protocols_seen(self):
        """IP packets by protocol."""
        return {number: self.protocols[number] for number in range(PROTOCOLS) if self.protocols[number]}

    def ports_seen(self):
        """UDP by destination port."""
        return {number: self.ports[number] for number in range(PORTS) if self.ports[number]}

    def ethertypes_seen(self):
        """Frames without IP by EtherType, 0 where there is none."""
        return {number: self.ethertypes[number] for number in range(PORTS) if self.ethertypes[number]}

    def alike_seen(self):
        """By destination port: how many packets look like VXLAN there, and the number of the first such frame."""
        return {number: (self.alike[number], self.first[number]) for number in range(PORTS) if self.alike[number]}


cdef bint looks_like_vxlan(const uint8_t *udp, uint32_t captured, uint32_t length) noexcept nogil:
    """Whether a UDP datagram of `length` bytes has a VXLAN header, and in it a frame that ends where it must."""
    cdef const uint8_t *inner = udp + UDP_HEADER + VXLAN_HEADER + ETH_HEADER
    cdef uint32_t before = UDP_HEADER + VXLAN_HEADER + ETH_HEADER, flags
    cdef uint16_t ethertype
    if captured < before + IP4_HEADER or length < before + IP4_HEADER:
        return False
    flags = be32(udp + UDP_HEADER)
    if (flags != VXLAN_I and flags >> 24 != GROUP_POLICY) or udp[UDP_HEADER + 7] != 0:
        return False
    ethertype = be16(udp + UDP_HEADER + VXLAN_HEADER + ETH_TYPE)
    if is_tag(ethertype) and captured >= before + VLAN_TAG + IP4_HEADER:
        ethertype = be16(inner + 2)
        inner += VLAN_TAG
        before += VLAN_TAG
    if ethertype == ETHERTYPE_IP4:
        return inner[0] >> 4 == 4 and be16(inner + IP4_LENGTH) + before <= length
    if ethertype == ETHERTYPE_IP6:
        return inner[0] >> 4 == 6 and be16(inner + IP6_LENGTH) + IP6_HEADER + before <= length
    return ethertype == ETHERTYPE_ARP and be32(inner) == ARP_ETHERNET_IP4 and be16(inner + 4) == ARP_LENGTHS
