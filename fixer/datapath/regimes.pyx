# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from libc.stdint cimport uint16_t, uint32_t, uint64_t

from fixer._csum cimport add, subtract
from fixer.datapath.diagnose cimport IN_PARTIAL, IN_VERIFIES, Explanation
from fixer.datapath.envelopes cimport is_at_home, is_known, speaker, talk_of
from fixer.datapath.hash cimport mix
from fixer.datapath.memory cimport FLOWS, MANY, FlowError, Talk, bits, is_broken
from fixer.datapath.traits cimport DIFFERING, FORGOTTEN, QUIET, Trait, differ, is_outnumbered, is_recent, trait_of
from fixer.datapath.walk cimport Reason
from fixer.datapath.wire cimport *


cdef void note_regime(Pair *pair, const uint8_t *packet, const Walk *walk, const Judgement *judgement,
                      const Sight *sight) noexcept nogil:
    """Note the error and the field of a wrong outer over an inner segment that verifies or is unfinished."""
    cdef uint16_t error = subtract(judgement.outer_right, judgement.outer_found)
    cdef uint16_t port = be16(packet + walk.outer.transport + UDP_SOURCE)
    cdef bint unfinished = judgement.inner == IN_PARTIAL
    cdef Trait *trait = trait_of(pair.errors, <uint64_t>error + 1, sight.now)
    if trait != NULL:
        differ(&trait.under_wrong, <uint32_t>sight.content)
        if trait.packets == 1:
            trait.detail = port
        trait.sticky |= trait.detail != port
    keep_score(&pair.error_score, trait == &pair.errors[0])
    trait = trait_of(pair.fields, <uint64_t>judgement.outer_found + 1, sight.now)
    if trait != NULL:                   # packets of one length in one connection have one right field anyway
        differ(&trait.under_wrong, judgement.outer_right)
    keep_score(&pair.field_score, trait == &pair.fields[0])
    if not is_old_port(add(port, error)):
        pair.ports[unfinished] = pair.moved[unfinished] = 0
        pair.strays += pair.strays < MANY
    elif error != pair.last_error:
        pair.ports[unfinished] += pair.ports[unfinished] < PORTS
        pair.moved[unfinished] += pair.moved[unfinished] < MOVED and not is_old_port(port)
    pair.last_error = error
    if implies_ports(pair, unfinished):
        pair.strays = 0
    if judgement.inner == IN_VERIFIES:
        pair.differing |= <uint64_t>1 << (sight.content & 63)


cdef inline void keep_score(uint32_t *score, bint kept) noexcept nogil:
    """One up for a packet that keeps to a rule, eight down for one that does not."""
    if kept:
        score[0] += score[0] < 4 * MANY
    else:
        score[0] -= min(score[0], 8U)


cdef inline bint is_old_port(uint16_t port) noexcept nogil:
    return FIRST_PORT <= port <= LAST_PORT


cdef inline bint implies_ports(const Pair *pair, bint unfinished) noexcept nogil:
    """Whether the last wrong outers imply old ports of one range, and their new ones are not all of it anyway."""
    return pair.ports[unfinished] >= PORTS and pair.moved[unfinished] >= MOVED


cdef bint keeps_to_regime(const Pair *pair, const uint8_t *packet, const Walk *walk, const Judgement *judgement,
                          const Sight *sight) noexcept nogil:
    """Whether this wrong outer over an unfinished inner is wrong as the others of its broken pair are.

    No field is one bit away from a zero where others are zero: that is a memory cell. An old port fits by chance every
    second time, so it counts only if it did for many unfinished ones.
    """
    cdef uint16_t error = subtract(judgement.outer_right, judgement.outer_found)
    cdef const Trait *trait
    cdef int i
    for i in range(2):
        trait = &pair.errors[i]
        if trait.tag == <uint64_t>error + 1 and trait.under_wrong.count >= DIFFERING \
                and not is_outnumbered(pair.errors, trait):
            return True
    for i in range(2):
        trait = &pair.fields[i]
        if trait.tag == <uint64_t>judgement.outer_found + 1 and not is_outnumbered(pair.fields, trait) \
                and (trait.under_wrong.count >= DIFFERING or judgement.outer_found == 0xffff):
            return bits(judgement.outer_found) > 1 or not is_recent(pair.last_zero, sight.now, FORGOTTEN)
    return implies_ports(pair, True) and is_old_port(add(be16(packet + walk.outer.transport + UDP_SOURCE), error))


cdef bint regime_vouches(Evidence *memory, const uint8_t *packet, const Walk *walk, const Judgement *judgement,
                         Pair *pair, Sight *sight) noexcept nogil:
    """Whether a wrong outer over something without a checksum may be righted: no outer of the pair verifies and all its
    inners do, this one is wrong as they are, and its envelope is known. (Over IPv6 even the header is without one.)"""
    cdef uint16_t error = subtract(judgement.outer_right, judgement.outer_found)
    cdef Trait *trait = NULL
    cdef Talk *talk = NULL
    cdef bint broken = is_broken(pair, sight.now)
    if not broken or is_recent(pair.against, sight.now, QUIET) or bits(pair.differing) < MANY or not walk.outer.exact:
        return False
    # (Packets of one length in a connection keep to one error and to one field.)
    if pair.error_score >= MANY or pair.field_score >= MANY:
        if not (pair.error_score >= MANY and pair.errors[0].tag == <uint64_t>error + 1) \
                and not (pair.field_score >= MANY and pair.fields[0].tag == <uint64_t>judgement.outer_found + 1):
            return False
    elif (implies_ports(pair, False) or implies_ports(pair, True)) \
            and not is_old_port(add(be16(packet + walk.outer.transport + UDP_SOURCE), error)):
        return False
    if walk.inner.reason == Reason.NO_IP:
        if walk.ethertype != ETHERTYPE_ARP or walk.behind_ethernet + 6 > walk.captured \
                or be32(packet + walk.behind_ethernet) != ARP_ETHERNET_IP4 \
                or be16(packet + walk.behind_ethernet + 4) != ARP_LENGTHS or pair.several:
            return False
    elif walk.inner.version != 4:
        return False
    if not pair.several:
        trait = &pair.envelopes[0]
        if not is_known(pair.envelopes, trait, broken):
            return False
        if trait.tag != sight.envelope and not (is_broadcast(packet + walk.frame)
                                                and trait.detail == speaker(memory, packet, walk)):
            return False
    else:
        talk = talk_of(memory, packet, walk, sight)
        if talk == NULL:
            return False
        trait = &talk.envelopes[talk.envelopes[1].tag == sight.envelope]
        if trait.tag != sight.envelope or not is_known(talk.envelopes, trait, broken):
            return False
    return trait.tag != sight.envelope or is_at_home(memory, packet, walk, False, trait, sight)


cdef inline bint is_broadcast(const uint8_t *address) noexcept nogil:
    return be32(address) == 0xffffffffU and be16(address + 4) == 0xffff


# What it comes from


cdef void name(Evidence *memory, const uint8_t *packet, const Walk *walk, Judgement *judgement, const Pair *pair,
               const Sight *sight) noexcept nogil:
    """The name of what made this outer wrong, from what the pair has shown so far."""
    cdef uint16_t error = subtract(judgement.outer_right, judgement.outer_found)
    cdef const Trait *trait
    cdef bint broken = is_broken(pair, sight.now)
    cdef bint in_flow = note_flow(memory, packet, walk, error, sight) >= DIFFERING
    cdef bint is_bit = bits(error) == 1 or bits(<uint16_t>~error) == 1
    # Until wrong ones are seen that imply no old port, they may all be a NAT's that has shown too few of them.
    cdef bint stray = not is_old_port(add(be16(packet + walk.outer.transport + UDP_SOURCE), error))
    cdef int i
    if judgement.outer_found == 0xffff:
        judgement.explanation = Explanation.FIELD_FFFF
        return
    # Beside outers that verify, an error of a single bit is a memory cell sooner than a NAT.
    if broken or not is_bit:
        for i in range(2):              # (packets of one length in a healthy connection have one field as well)
            trait = &pair.fields[i]
            if broken and trait.tag == <uint64_t>judgement.outer_found + 1 and trait.under_wrong.count >= DIFFERING:
                judgement.explanation = Explanation.SAME_FIELD
                return
        for i in range(2):
            trait = &pair.errors[i]
            if trait.tag == <uint64_t>error + 1 and trait.under_wrong.count >= DIFFERING and trait.sticky:
                judgement.explanation = Explanation.SAME_ERROR
                return
        if in_flow:
            judgement.explanation = Explanation.FLOW_ERROR
            return
        if implies_ports(pair, judgement.inner == IN_PARTIAL):
            judgement.explanation = Explanation.IMPLIED_PORTS
            return
    if not broken:
        if stray or is_bit or pair.strays >= DIFFERING:
            judgement.explanation = Explanation.SINGLE_DAMAGE
    elif pair.run >= MANY and (pair.strays >= DIFFERING or pair.ports[judgement.inner == IN_PARTIAL] >= PORTS):
        judgement.explanation = Explanation.SYSTEMATIC


cdef uint8_t note_flow(Evidence *memory, const uint8_t *packet, const Walk *walk, uint16_t error,
                       const Sight *sight) noexcept nogil:
    """How many differing packets in a row, up to DIFFERING, had this error in their outer five-tuple."""
    cdef uint64_t key = mix(sight.pair ^ (<uint64_t>be32(packet + walk.outer.transport) << 20))
    cdef FlowError *flow = &memory.flows[key % FLOWS]
    if flow.tag != <uint32_t>(key >> 32) or flow.error != error:
        flow.tag = <uint32_t>(key >> 32)
        flow.error = error
        flow.count = 0
    elif flow.digest == <uint32_t>sight.content:
        return flow.count
    flow.digest = <uint32_t>sight.content
    flow.count += flow.count < DIFFERING
    return flow.count
