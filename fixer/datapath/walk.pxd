# cython: language_level=3
"""From the first byte of a packet to its inner transport header, or why the walk stopped.

`walk` fills one reusable struct of offsets. The promise: whatever the bytes are, it reads only `captured` of them, and
an offset in a `Layer` is valid as its comment says; who uses it after that needs no bounds check of his own.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t


cpdef enum Reason:
    """Why a layer has no checksum that can be judged. NONE: it has one, and all the bytes it covers are here."""
    NONE = 0
    # what was handed over is not the packet as it was on the wire
    TRUNCATED               # a cut copy: bytes the checksum covers are missing
    SUPER_PACKET            # GRO or GSO merged several packets; nobody can verify them any more
    DEVICE_VERIFIED         # a device says it has verified it, and the policy is to believe that
    # the outer layer
    OTHER_TRAFFIC           # not UDP to a VXLAN port
    GENEVE                  # UDP 6081
    OUTER_UNREADABLE        # no IP header, or lengths that contradict each other
    OUTER_FRAGMENT
    NOT_VXLAN               # a VXLAN port, but no VXLAN header with the I flag
    GPE                     # VXLAN-GPE with a next protocol: another format behind the header
    REMOTE_CHECKSUM         # Remote Checksum Offload: the inner checksum is incomplete on purpose
    # the inner layer has no checksum
    NO_IP                   # ARP, LLDP, 802.3: nothing in it to check
    INNER_FRAGMENT
    OTHER_PROTOCOL          # IGMP, GRE, ESP, SCTP (which has a CRC), …
    NO_CHECKSUM             # UDP zero over IPv4
    # the inner layer cannot be read
    INNER_ETHERNET          # shorter than its header, or more than MAX_TAGS VLAN tags
    INNER_IP                # no such version, or lengths that contradict each other
    INNER_TRANSPORT         # shorter than its header, or a UDP length that lies
    # either layer: its pseudo-header cannot be told
    SOURCE_ROUTE            # the pseudo-header's address is in an option that is not followed here
    EXTENSION_HEADERS       # more than MAX_EXTENSIONS IPv6 extension headers
    # the inner layer is not looked into
    NOT_IP                  # MPLS, PPPoE, an EtherType that means nothing here
    # and what `judge` adds
    NEVER_COMPUTED          # a wrong field of 0000: nobody began to compute it
    MERGED_BY_NIC           # LRO: the checksum is that of the first of several segments


cdef enum:
    MAX_PORTS = 15          # as many as one iptables multiport match takes
    MAX_TAGS = 4
    MAX_EXTENSIONS = 8


cdef struct Ports:
    uint8_t count
    uint16_t port[MAX_PORTS]


cdef struct Layer:
    # One IP header and the transport header behind it.
    uint8_t reason           # Reason; NONE: every field below is valid and transport … transport + covered is captured
    uint8_t version          # 4 or 6 once the fixed IP header has been read, else 0
    uint8_t protocol         # valid if version: the last next-header value that was reached
    uint8_t address_length   # valid if version: 4 or 16
    bint header_wrong        # valid if version: an IPv4 header whose own checksum does not verify
    bint field_read          # the transport header with its checksum field is captured (`transport`, `field` are valid)
    bint exact               # valid if field_read: the IP length is told, and a UDP header's is that of its payload
    uint32_t start           # valid if version: offset of the IP header
    uint32_t source          # valid if version: offsets of the two addresses the pseudo-header takes; with a routing
    uint32_t destination     # header `destination` is the final one (RFC 8200 §8.1)
    uint32_t transport       # offset of the TCP, UDP or ICMP header
    uint32_t covered         # bytes the transport checksum covers, which is also the length in its pseudo-header
    uint32_t field           # offset of the transport checksum


cdef struct Walk:
    bint tunnel              # UDP to one of the VXLAN ports (VXLAN inside or not)
    bint vxlan               # and a VXLAN header behind it: `flags`, `vni`, `frame` are valid
    bint framed              # the inner Ethernet header is captured: `frame`, `ethertype`, `vlan` are valid
    uint32_t length          # bytes of the packet on the wire, from its first IP header
    uint32_t captured        # bytes of it that are here
    uint32_t flags           # the VXLAN flags word
    uint32_t vni
    uint32_t frame           # offset of the inner Ethernet header
    uint32_t behind_ethernet  # offset of what the inner frame carries; valid if framed
    uint16_t ethertype       # of the inner frame, behind its tags
    int32_t vlan             # VLAN ID of the outermost inner tag, or −1
    Layer outer              # version 0 throughout for a plain packet
    Layer inner


cdef void walk(const uint8_t *packet, uint32_t captured, uint32_t length, const Ports *ports, bint plain,
               Walk *out) noexcept nogil
