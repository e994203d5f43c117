# cython: language_level=3
"""What `evidence` remembers: its tables, of fixed size, in one piece of memory."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fixer.datapath.hash cimport hash_bytes
from fixer.datapath.sets cimport Mark
from fixer.datapath.traits cimport QUIET, Trait, is_recent
from fixer.datapath.walk cimport Layer


cdef enum:
    RARELY = 1000
    MANY = 16               # differing packets that make a regime without a rule of its own
    WINDOW = 8192           # outers of a pair that *lately* means, about

    WAYS = 4
    PAIR_SETS = 512         # × WAYS entries of about 700 bytes: 1.4 MiB
    TALK_SETS = 2048        # × WAYS of about 200: 1.6 MiB
    HOME_SETS = 1024        # × WAYS of about 60: 250 KiB
    FLOWS = 2048            # × 12: 24 KiB
    VNI_BYTES = 0x200000    # one bit for each of 2^24 VNIs (touched pages only)


cdef struct Pair:
    Mark mark               # of both addresses, as ordered
    uint32_t good           # outers that verified, lately …
    uint32_t wrong          # … and that were wrong
    uint32_t run            # wrong ones over a verifying inner since the last that verified
    uint32_t last_good      # the second of the last one that verified + 1; 0: never
    uint32_t against        # the same of what last spoke against "no outer verifies, all inners do"
    uint32_t last_zero      # the second of the last zero one + 1; 0: never
    uint32_t ports[2]       # wrong ones in a row that imply an old port of the range; [1]: over unfinished inners
    uint32_t error_score    # how much the last ones keep to errors[0] …
    uint32_t field_score    # … and to fields[0]
    uint64_t differing      # a bit for each of the packets that show the regime, by their digest
    uint32_t moved[2]       # of these, those whose new port is outside of it
    uint32_t strays         # wrong ones that imply none, since ports[] last was long enough to say so
    uint16_t last_error
    bint several            # more than one envelope is in use
    Trait envelopes[2]      # [0], the more common one, is the main one
    Trait errors[2]
    Trait fields[2]


cdef struct Talk:
    Mark mark               # of the pair and two inner addresses
    Trait envelopes[2]


cdef struct Home:
    Mark mark               # of an envelope
    uint8_t source[16]      # the VTEPs that use it; IPv4 in the first four bytes
    uint8_t destination[16]
    uint8_t version
    uint32_t used           # the second of the last use + 1 …
    uint32_t proven         # … and of the last one under an outer that verifies; 0: never


cdef struct FlowError:
    uint32_t tag            # of the outer five-tuple
    uint16_t error
    uint8_t count           # differing packets in a row with that error
    uint32_t digest


cdef struct Evidence:
    uint64_t seed
    uint32_t displaced_pair[PAIR_SETS]      # the second in which a set last lost an entry, + 1; 0: never
    uint32_t displaced_home[HOME_SETS]
    Pair pairs[PAIR_SETS][WAYS]
    Talk talks[TALK_SETS][WAYS]
    Home homes[HOME_SETS][WAYS]
    FlowError flows[FLOWS]
    uint8_t vnis[VNI_BYTES]


cdef struct Sight:
    # What `weigh` knows of the packet before it.
    uint64_t pair            # key
    uint64_t envelope        # tag
    uint64_t content         # what makes two packets differ; valid if `digested`
    uint32_t now
    bint digested
    bint multicast           # the inner destination


cdef inline uint64_t hash_addresses(uint64_t seed, const uint8_t *packet, const Layer *layer) noexcept nogil:
    """Of both addresses, as ordered. (They lie together unless a routing header moved one.)"""
    if layer.destination == layer.source + layer.address_length:
        return hash_bytes(seed, packet + layer.source, 2 * layer.address_length) | 1
    return hash_bytes(hash_bytes(seed, packet + layer.source, layer.address_length), packet + layer.destination,
                      layer.address_length) | 1


cdef inline bint is_broken(const Pair *pair, uint32_t now) noexcept nogil:
    """Whether the pair's outers do not verify: fewer than 1 in RARELY lately, or none of the last MANY and for a while.

    By chance 1 in 65,536 of a pair that is wholly behind NAT verifies; that does not end its repair.
    """
    return pair.wrong > RARELY * pair.good or (pair.run >= MANY and not is_recent(pair.last_good, now, QUIET))


cdef inline int bits(uint64_t word) noexcept nogil:
    cdef int found = 0
    while word:
        word &= word - 1
        found += 1
    return found
