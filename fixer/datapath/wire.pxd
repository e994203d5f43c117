# cython: language_level=3
"""Header layouts as named offsets, and big-endian reads: the only place with numbers.

Offsets are in bytes from the start of their own header. Nothing here checks a bound: `walk` does, once, before reading.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef extern from "<arpa/inet.h>" nogil:
    enum: AF_INET, AF_INET6, INET6_ADDRSTRLEN
    const char *inet_ntop(int family, const void *address, char *text, unsigned int size)


cdef enum:
    # IPv4 (RFC 791)
    IP4_HEADER = 20           # without options
    IP4_TOS = 1
    IP4_LENGTH = 2
    IP4_ID = 4
    IP4_FRAGMENT = 6
    IP4_TTL = 8
    IP4_PROTOCOL = 9
    IP4_CHECKSUM = 10
    IP4_SOURCE = 12
    IP4_DESTINATION = 16
    IP4_MORE_OR_OFFSET = 0x3fff   # MF bit and fragment offset: anything set means a fragment
    IP4_OPTION_END = 0
    IP4_OPTION_NOP = 1
    IP4_OPTION_LSRR = 131
    IP4_OPTION_SSRR = 137

    # IPv6 (RFC 8200)
    IP6_HEADER = 40
    IP6_LENGTH = 4
    IP6_NEXT = 6
    IP6_HOPS = 7
    IP6_SOURCE = 8
    IP6_DESTINATION = 24
    IP6_MORE_OR_OFFSET = 0xfff9   # in the fragment header's second half-word: offset and M bit
    IP6_OPTION_PAD1 = 0
    IP6_OPTION_HOME_ADDRESS = 0xc9   # RFC 6275 §6.3
    IP6_ROUTING_HOME = 2      # RFC 6275 §6.4
    IP6_ROUTING_SOURCE = 0    # RFC 2460 §4.4 (deprecated by RFC 5095, still met in captures)
    IP6_ROUTING_SEGMENTS = 4  # RFC 8754: segment list in reverse, the last segment first

    # next header and protocol numbers
    PROTO_HOP_BY_HOP = 0
    PROTO_ICMP = 1
    PROTO_TCP = 6
    PROTO_UDP = 17
    PROTO_ROUTING = 43
    PROTO_FRAGMENT = 44
    PROTO_ICMP6 = 58
    PROTO_DESTINATION = 60
    PROTO_MOBILITY = 135
    PROTO_HIP = 139
    PROTO_SHIM6 = 140

    # UDP (RFC 768), TCP (RFC 9293), ICMP (RFC 792), ICMPv6 (RFC 4443)
    UDP_HEADER = 8
    UDP_SOURCE = 0
    UDP_DESTINATION = 2
    UDP_LENGTH = 4
    UDP_CHECKSUM = 6
    TCP_HEADER = 20
    TCP_SOURCE = 0
    TCP_DESTINATION = 2
    TCP_SEQUENCE = 4
    TCP_ACKNOWLEDGED = 8
    TCP_OFFSET = 12           # header length in 32-bit words, in the upper four bits
    TCP_FLAGS = 13
    TCP_FIN = 0x01
    TCP_SYN = 0x02
    TCP_RST = 0x04
    TCP_ACK = 0x10
    TCP_CHECKSUM = 16
    TCP_OPTION_END = 0
    TCP_OPTION_NOP = 1
    TCP_OPTION_TIMESTAMPS = 8   # RFC 7323 §3.2: kind, length, TSval, TSecr
    TCP_TIMESTAMPS_LENGTH = 10
    TCP_TSVAL = 2
    TCP_TSECR = 6
    TCP_OPTION_AO = 29          # RFC 5925 §2.2
    ICMP_HEADER = 4
    ICMP_CHECKSUM = 2

    # VXLAN (RFC 7348): the 32-bit flags word, then the VNI in the upper 24 bits of the second word
    VXLAN_HEADER = 8
    VXLAN_VNI = 4
    VXLAN_I = 0x08000000
    VXLAN_GPE_P = 0x04000000        # draft-ietf-nvo3-vxlan-gpe: next protocol present
    VXLAN_GPE_VERSION = 0x30000000
    VXLAN_REMOTE_CHECKSUM = 0x00200000   # VXLAN_HF_RCO, linux/include/net/vxlan.h
    GENEVE_PORT = 6081

    # Ethernet and VLAN tags
    ETH_HEADER = 14
    ETH_SOURCE = 6
    ETH_TYPE = 12
    VLAN_TAG = 4
    ETHERTYPE_IP4 = 0x0800
    ETHERTYPE_IP6 = 0x86dd
    ETHERTYPE_LEAST = 0x0600      # what is less is a length (IEEE 802.3 §3.2.6)
    ETHERTYPE_ARP = 0x0806
    ETHERTYPE_RARP = 0x8035
    ETHERTYPE_LLDP = 0x88cc
    ETHERTYPE_8021Q = 0x8100
    ETHERTYPE_8021AD = 0x88a8
    ETHERTYPE_QINQ = 0x9100       # 802.1ad before it had a number

    # ARP for IPv4 over Ethernet (RFC 826): hardware and protocol, then their address lengths
    ARP_ETHERNET_IP4 = 0x00010800
    ARP_LENGTHS = 0x0604

    # Linux cooked captures (https://www.tcpdump.org/linktypes.html, LINUX_SLL and LINUX_SLL2)
    SLL_HEADER = 16
    SLL_PACKET_TYPE = 0
    SLL_TYPE = 14
    SLL2_HEADER = 20
    SLL2_TYPE = 0
    SLL2_PACKET_TYPE = 10
    PACKET_OUTGOING = 4           # linux/if_packet.h

    # loopback captures: one address family (NULL, LOOP)
    LOOPBACK_HEADER = 4


cdef inline bint is_tag(uint16_t ethertype) noexcept nogil:
    """Whether a VLAN tag stands there."""
    return ethertype in (ETHERTYPE_8021Q, ETHERTYPE_8021AD, ETHERTYPE_QINQ)


cdef inline uint16_t be16(const uint8_t *p) noexcept nogil:
    return <uint16_t>((<uint16_t>p[0] << 8) | p[1])


cdef inline uint32_t be32(const uint8_t *p) noexcept nogil:
    return (<uint32_t>p[0] << 24) | (<uint32_t>p[1] << 16) | (<uint32_t>p[2] << 8) | p[3]


cdef inline uint32_t le32(const uint8_t *p) noexcept nogil:
    return (<uint32_t>p[3] << 24) | (<uint32_t>p[2] << 16) | (<uint32_t>p[1] << 8) | p[0]


cdef inline void put_be16(uint8_t *p, uint16_t value) noexcept nogil:
    p[0] = <uint8_t>(value >> 8)
    p[1] = <uint8_t>value


cdef inline void put_be32(uint8_t *p, uint32_t value) noexcept nogil:
    p[0] = <uint8_t>(value >> 24)
    p[1] = <uint8_t>(value >> 16)
    p[2] = <uint8_t>(value >> 8)
    p[3] = <uint8_t>value


cdef inline str address_text(uint8_t version, const uint8_t *address):
    """An address of IP `version` (4 or 6) as text; '' for any other version, where there is none."""
    cdef char[INET6_ADDRSTRLEN] text
    if version != 4 and version != 6:
        return ""
    inet_ntop(AF_INET if version == 4 else AF_INET6, address, text, INET6_ADDRSTRLEN)
    return text.decode("ascii")
