# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from libc.stdint cimport uint64_t
from libc.string cimport memcmp, memcpy, memset

from fixer._csum cimport add, sum_bytes
from fixer.datapath.diagnose cimport IN_VERIFIES, OUT_AGREES, OUT_GOOD, OUT_WRONG
from fixer.datapath.hash cimport hash_bytes, mix
from fixer.datapath.memory cimport HOME_SETS, RARELY, TALK_SETS, WAYS, Home, hash_addresses
from fixer.datapath.sets cimport find, yielding
from fixer.datapath.traits cimport DIFFERING, FORGOTTEN, QUIET, Differing, differ, is_outnumbered, is_recent
from fixer.datapath.walk cimport Layer
from fixer.datapath.wire cimport *


cdef Talk *talk_of(Evidence *memory, const uint8_t *packet, const Walk *walk, const Sight *sight) noexcept nogil:
    """What two inner addresses use between a pair of VTEPs; NULL if there is no room for it."""
    cdef uint64_t key = mix(sight.pair ^ hash_addresses(memory.seed, packet, &walk.inner)) | 1
    cdef Talk *ways = memory.talks[(key >> 32) % TALK_SETS]
    cdef Talk *talk = <Talk *>find(ways, sizeof(Talk), WAYS, key, sight.now)
    if talk == NULL:
        talk = <Talk *>yielding(ways, sizeof(Talk), WAYS, sight.now)
        if talk != NULL:
            memset(talk, 0, sizeof(Talk))
            talk.mark.key = key
            talk.mark.seen = sight.now
            talk.mark.uses = 1
    return talk


cdef void note_envelope(Evidence *memory, const uint8_t *packet, const Walk *walk, const Judgement *judgement,
                        Trait *trait, bint broken, Sight *sight) noexcept nogil:
    """Note under what outer a packet has shown this envelope (or NULL)."""
    cdef Differing *under
    if trait == NULL:
        return
    if trait.packets == 1:
        trait.detail = speaker(memory, packet, walk)
    if judgement.outer == OUT_GOOD or judgement.outer == OUT_AGREES:
        trait.verifying += trait.verifying < 0x40000000U
        trait.sticky |= trait.verifying >= STICKY and has_verified(trait)
        under = &trait.under_good
    elif judgement.outer != OUT_WRONG:
        under = &trait.under_zero       # or unfinished: nobody has summed it
    elif judgement.outer == OUT_WRONG and broken:
        under = &trait.under_wrong
    else:
        return
    if under.count < DIFFERING:
        digest(memory, packet, walk, judgement, sight)
        differ(under, <uint32_t>sight.content)


cdef inline bint has_verified(const Trait *trait) noexcept nogil:
    return <uint64_t>trait.verifying * RARELY >= trait.packets


cdef bint is_known(const Trait *two, const Trait *trait, bint broken) noexcept nogil:
    """Whether the envelope is one that is used here (the module's docstring has the rule)."""
    if trait.under_good.count >= DIFFERING and (trait.sticky or has_verified(trait)):
        return True
    if is_outnumbered(two, trait):
        return False
    return trait.under_zero.count >= DIFFERING or (broken and trait.under_wrong.count >= DIFFERING)


cdef bint is_solid(const uint8_t *packet, const Walk *walk) noexcept nogil:
    """Whether checksums cover all but the envelope: no IPv6 extension headers, which none covers, no options of the
    underlay, no bytes but zeros behind what the lengths say, and lengths that agree."""
    cdef const Layer *inner = &walk.inner
    cdef const Layer *outer = &walk.outer
    cdef uint32_t at = inner.transport + inner.covered
    if not outer.exact or not inner.exact or (inner.version == 6 and inner.transport != inner.start + IP6_HEADER) \
            or outer.transport != outer.start + (IP4_HEADER if outer.version == 4 else IP6_HEADER):
        return False
    while at < outer.transport + outer.covered:
        if packet[at]:
            return False
        at += 1
    return True


cdef void digest(const Evidence *memory, const uint8_t *packet, const Walk *walk, const Judgement *judgement,
                 Sight *sight) noexcept nogil:
    """What makes two packets differ: what an inner checksum vouches for, and nothing else.

    A segment with its addresses: not its IPv4 identification, so that a segment sent again is the same one. Of an
    unfinished segment the IPv4 header, or of IPv6 the addresses and the length.
    """
    cdef const Layer *inner = &walk.inner
    if sight.digested:
        return
    sight.digested = True
    sight.content = hash_addresses(memory.seed ^ inner.covered, packet, inner)
    if judgement.inner == IN_VERIFIES:
        sight.content = hash_bytes(sight.content, packet + inner.transport, min(inner.covered, 512U))
    elif inner.version == 4:
        sight.content = hash_bytes(memory.seed, packet + inner.start, inner.transport - inner.start)


cdef uint32_t speaker(const Evidence *memory, const uint8_t *packet, const Walk *walk) noexcept nogil:
    """Hash of an envelope without its destination, which a broadcast has in common with it."""
    return <uint32_t>hash_bytes(hash_bytes(memory.seed, packet + walk.frame - VXLAN_HEADER, VXLAN_HEADER),
                                packet + walk.frame + ETH_SOURCE, walk.behind_ethernet - 2 - walk.frame - ETH_SOURCE)


# Where an envelope is at home


cdef bint is_at_home(Evidence *memory, const uint8_t *packet, const Walk *walk, bint verifies, Trait *trait,
                     const Sight *sight) noexcept nogil:
    """Whether this known envelope is this pair's to use: unless it is another's; and then for as long as it is used.

    One that verifies here is, and takes the home over.
    """
    cdef uint32_t number = <uint32_t>((sight.envelope >> 32) % HOME_SETS)
    cdef const Layer *outer = &walk.outer
    cdef bint settled = verifies or trait.homed != 0
    cdef Home *home
    if trait.homed == sight.now + 1:
        return True                     # once a second is enough
    home = <Home *>find(memory.homes[number], sizeof(Home), WAYS, sight.envelope, sight.now)
    if home == NULL:
        if not settled and is_recent(memory.displaced_home[number], sight.now, FORGOTTEN):
            return False                # it may have been another's
        home = <Home *>yielding(memory.homes[number], sizeof(Home), WAYS, sight.now)
        if home == NULL:
            return settled
        if home.mark.key:
            memory.displaced_home[number] = sight.now + 1
        memset(home, 0, sizeof(Home))
        home.mark.key = sight.envelope
        home.mark.seen = sight.now
        home.mark.uses = 1
    elif not is_home(home, packet, outer):
        if not settled and is_another_s(home, packet, outer, sight):
            return False
        if not verifies and is_recent(home.used, sight.now, QUIET):
            trait.homed = sight.now + 1
            return True                 # beside each other
        home.proven = 0
    trait.homed = sight.now + 1
    memset(home.source, 0, 16)
    memset(home.destination, 0, 16)
    memcpy(home.source, packet + outer.source, outer.address_length)
    memcpy(home.destination, packet + outer.destination, outer.address_length)
    home.version = outer.version
    home.used = sight.now + 1
    if verifies:
        home.proven = sight.now + 1
    return True


cdef inline bint is_home(const Home *home, const uint8_t *packet, const Layer *outer) noexcept nogil:
    return (home.version == outer.version
            and memcmp(home.source, packet + outer.source, outer.address_length) == 0
            and memcmp(home.destination, packet + outer.destination, outer.address_length) == 0)


cdef bint is_another_s(const Home *home, const uint8_t *packet, const Layer *outer,
                       const Sight *sight) noexcept nogil:
    """Whether the envelope is another's: it verified lately from another VTEP, and somebody spoofs one; or it is used
    between others, and these addresses may be theirs, damaged. Over IPv6 nothing covers them; over IPv4 the header's
    checksum misses that words change places. (A multicast frame goes to every VTEP.)"""
    cdef bint from_elsewhere = (home.version != outer.version
                                or memcmp(home.source, packet + outer.source, outer.address_length) != 0)
    if from_elsewhere and is_recent(home.proven, sight.now, FORGOTTEN):
        return True
    if home.version != outer.version or not is_recent(home.used, sight.now, FORGOTTEN):
        return False
    if outer.version == 4:
        return add(sum_bytes(home.source, 4), sum_bytes(home.destination, 4)) \
            == add(sum_bytes(packet + outer.source, 4), sum_bytes(packet + outer.destination, 4))
    return from_elsewhere or not sight.multicast
