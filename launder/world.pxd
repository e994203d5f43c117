# cython: language_level=3
"""Who talks to whom: VTEP pairs, the envelopes they use, the flows inside; and what each of them sends.

An *envelope* is the VXLAN header, the inner MACs, tags and EtherType. Where things stand in a packet is known from the
making, so that nothing that judges has to ask the packet.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef enum:
    MOST = 9216              # bytes of a packet
    POOL = 16384
    KINDS = 9
    SENT = 4
    CAUSES = 6
    VXLAN_PORT = 4789


cdef enum Kind:              # of inner packet
    TCP = 0
    SYN                      # with timestamps
    UDP
    UDP_NONE                 # without checksum (over IPv6: as UDP)
    ICMP
    ARP
    FRAGMENT
    OTHER                    # a protocol without checksum
    NOT_IP


cdef enum Sent:              # the outer checksum, as the sender leaves it
    GOOD = 0
    LCO                      # over an unfinished inner segment: summed as if that were finished. Else as GOOD
    ZERO
    PSEUDO                   # the pseudo-header's sum: never finished


cdef enum Cause:             # what becomes of it on the way (or does not)
    STRAIGHT = 0
    FFFF                     # nf_nat "updates" a zero, the address stays
    FIELD                    # the same, or a middlebox, and the address changes: one field
    PORT                     # nf_nat rewrites the source port, and the sum does not follow
    ADDRESS                  # addresses rewritten behind the checksum: one error
    NIC                      # computed wrongly: all errors differ


cdef enum Inner:             # its checksum
    COMPLETE = 0
    UNFINISHED               # the pseudo-header's sum
    NO_SUM


cdef struct Pair:
    uint8_t version
    uint8_t cause
    uint8_t source[16]       # as sent
    uint8_t arrives[16]      # as received
    uint8_t destination[16]


cdef struct Envelope:
    uint32_t pair
    uint8_t size             # from the VXLAN header to the last tag, the EtherType behind it left out
    uint8_t bytes[30]
    uint32_t number[2]       # of the two that talk
    uint64_t translated      # packets on which the useful side was seen …
    uint64_t mended          # … of which were righted …
    uint64_t first           # … the first of them being the so manieth; 0: none


cdef struct Flow:
    uint32_t envelope
    uint8_t version
    uint8_t kind
    bint stamped             # TCP: with timestamps
    uint8_t source[16]
    uint8_t destination[16]
    uint16_t ports[2]
    uint16_t outer_port
    uint16_t identification
    uint32_t sequence
    uint32_t clock


cdef struct Traffic:
    # Shares are of 1,000; weights of their sum.
    uint32_t pairs
    uint32_t envelopes       # of each pair
    uint32_t flows
    uint32_t kinds[KINDS]
    uint32_t sent[SENT]
    uint32_t causes[CAUSES]  # of a pair
    uint32_t translated      # of the packets of a pair with a cause: to these it happens
    uint32_t underlay6
    uint32_t inner6
    uint32_t unfinished      # of the packets that could be
    uint32_t padded
    uint32_t options         # IPv4 options or IPv6 extension headers, inside and outside; UDP with bytes behind its end
    uint32_t tagged
    uint32_t fresh_port      # packets that take an outer source port of their own
    bint dense               # numbers next to one another, as containers have them (02:42:0a:…)
    bint strange_pair        # strangers: under a source of their own (else in the name of a pair)
    uint32_t strange_sent    # with such an outer checksum
    uint32_t strange_cause   # and with this done to it


cdef struct World:
    Traffic traffic
    Pair *pairs
    Envelope *envelopes
    Flow *flows
    Pair stranger
    Envelope strangers
    uint64_t state           # of the random numbers
    uint8_t pool[POOL]       # payload


cdef struct Packet:
    # One packet as it was meant. Offsets from its first byte.
    uint32_t flow
    uint32_t envelope
    bint strange
    uint8_t kind
    uint8_t inner            # Inner
    uint8_t sent             # Sent
    uint8_t cause            # Cause, as it happened to this packet
    uint8_t underlay         # 4 or 6
    uint8_t version          # of the inner packet; 0: no IP
    uint8_t protocol
    uint32_t udp
    uint32_t vxlan
    uint32_t ethernet
    uint32_t ip              # behind the EtherType
    uint32_t transport
    uint32_t covered         # end of what the transport checksum covers
    uint32_t end             # of the inner packet: padding behind it
    uint32_t length
    uint32_t field           # the inner checksum, 0: none
    uint32_t options         # TCP's, if any: from here to …
    uint32_t options_end
    uint16_t old_port        # outer source port as sent …
    uint16_t new_port        # … and as received
    uint16_t garbage
    const Pair *pair


cdef int world_new(World *world, const Traffic *traffic, uint64_t seed) except -1
cdef void world_free(World *world) noexcept nogil
cdef void make(World *world, Flow *flow, bint strange, uint64_t *state, uint8_t *bytes, Packet *out) noexcept nogil
cdef void seal(const Packet *packet, uint8_t *bytes, bint on_the_way) noexcept nogil
