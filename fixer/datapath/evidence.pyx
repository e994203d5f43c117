# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy, memset

from fixer.datapath.diagnose cimport (IN_ABSENT, IN_NONE, IN_UNCHECKABLE, IN_VERIFIES, IN_WRONG, OUT_AGREES, OUT_GOOD,
                                      OUT_STALE, OUT_UNCHECKABLE, OUT_WRONG, OUT_ZERO, OUT_ZERO6, Vouch)
from fixer.datapath.envelopes cimport digest, is_at_home, is_known, is_solid, note_envelope, talk_of
from fixer.datapath.hash cimport hash_bytes
from fixer.datapath.memory cimport (MANY, PAIR_SETS, VNI_BYTES, WAYS, WINDOW, Pair, Sight, Talk, hash_addresses,
                                    is_broken)
from fixer.datapath.regimes cimport keeps_to_regime, name, note_regime, regime_vouches
from fixer.datapath.sets cimport find, yielding
from fixer.datapath.traits cimport FORGOTTEN, Trait, is_recent, trait_of
from fixer.datapath.wire cimport *
from fixer.datapath.zeroed cimport zeroed


cdef Evidence *evidence_new(uint64_t seed) except NULL:
    """Empty memory. `seed` keeps a sender from choosing packets that collide; tests pass a fixed one."""
    cdef Evidence *memory = <Evidence *>zeroed(1, sizeof(Evidence), "the evidence of wrong outer checksums")
    memory.seed = seed
    return memory


cdef void evidence_free(Evidence *memory) noexcept:
    free(memory)


cdef void know_vni(Evidence *memory, uint32_t vni) noexcept nogil:
    """The operator says that this VNI is ours."""
    memory.vnis[(vni & 0xffffffU) >> 3] |= <uint8_t>(1 << (vni & 7))


cdef void know_vnis_of(Evidence *memory, const Evidence *other) noexcept nogil:
    """Take what the operator said to the other memory in place of what was said to this one."""
    if memcmp(memory.vnis, other.vnis, VNI_BYTES):      # else its pages stay untouched
        memcpy(memory.vnis, other.vnis, VNI_BYTES)


cdef inline bint is_ours(const Evidence *memory, uint32_t vni) noexcept nogil:
    return (memory.vnis[(vni & 0xffffffU) >> 3] >> (vni & 7)) & 1


cdef void weigh(Evidence *memory, const uint8_t *packet, const Walk *walk, Judgement *judgement, bint on_sight,
                uint32_t now) noexcept nogil:
    """Learn what a packet's outer layer says, and who vouches for its envelope where that is to be righted.

    A wrong outer that somebody vouches for becomes OUT_STALE, with `vouch` and `explanation`; a zero one over IPv6 only
    gets its `vouch`. on_sight: the operator takes a verifying inner segment for enough. now: seconds.
    """
    cdef Pair *pair
    cdef Sight sight
    cdef bint wrong = judgement.outer == OUT_WRONG
    if not walk.vxlan or walk.outer.header_wrong or judgement.outer == OUT_UNCHECKABLE:
        return
    sight.now = now
    sight.digested = False
    sight.pair = hash_addresses(memory.seed, packet, &walk.outer)
    pair = pair_of(memory, sight.pair, now)
    if pair != NULL:
        reckon(pair, judgement, now)
        if judgement.inner == IN_WRONG or walk.inner.header_wrong:
            pair.against = now + 1
            pair.differing = 0
    if judgement.inner == IN_WRONG or judgement.inner == IN_UNCHECKABLE or walk.inner.header_wrong or not walk.framed:
        return
    sight.multicast = packet[walk.frame] & 1
    # The EtherType is left out: it is right if what it leads to verifies.
    sight.envelope = hash_bytes(memory.seed, packet + walk.frame - VXLAN_HEADER,
                                walk.behind_ethernet - 2 - walk.frame + VXLAN_HEADER) | 1
    if judgement.inner == IN_NONE or judgement.inner == IN_ABSENT:
        if wrong and pair != NULL and regime_vouches(memory, packet, walk, judgement, pair, &sight):
            judgement.vouch = Vouch.REGIME
    elif pair != NULL:
        weigh_envelope(memory, packet, walk, judgement, pair, &sight)
    if not wrong:
        return
    if judgement.vouch == Vouch.NOBODY \
            and ((on_sight and judgement.inner == IN_VERIFIES)
                 or (judgement.outer_found == 0xffff and is_ours(memory, walk.vni)
                     and (judgement.inner not in (IN_NONE, IN_ABSENT) or (pair != NULL and is_broken(pair, now))))):
        judgement.vouch = Vouch.OPERATOR
    if judgement.vouch != Vouch.NOBODY:
        judgement.outer = OUT_STALE


# The pair of VTEPs


cdef Pair *pair_of(Evidence *memory, uint64_t key, uint32_t now) noexcept nogil:
    """The pair's entry; NULL if there is no room for a new one. Where one had to go, a new one is taken for one that
    verifies and uses several envelopes: it may be the one that went."""
    cdef uint32_t number = <uint32_t>((key >> 32) % PAIR_SETS)
    cdef Pair *pair = <Pair *>find(memory.pairs[number], sizeof(Pair), WAYS, key, now)
    if pair != NULL:
        return pair
    pair = <Pair *>yielding(memory.pairs[number], sizeof(Pair), WAYS, now)
    if pair == NULL:
        return NULL
    if pair.mark.key:
        memory.displaced_pair[number] = now + 1
    memset(pair, 0, sizeof(Pair))
    pair.mark.key = key
    pair.mark.seen = now
    pair.mark.uses = 1
    if is_recent(memory.displaced_pair[number], now, FORGOTTEN):
        pair.good = 1
        pair.last_good = pair.against = now + 1
        pair.several = True
    return pair


cdef void reckon(Pair *pair, const Judgement *judgement, uint32_t now) noexcept nogil:
    """Count an outer that verifies or is wrong; a zero or unfinished one says nothing of the others."""
    if judgement.outer == OUT_GOOD or judgement.outer == OUT_AGREES:
        pair.good += 1
        pair.run = 0
        pair.differing = 0
        pair.last_good = pair.against = now + 1
    elif judgement.outer == OUT_WRONG:
        pair.wrong += 1
        if judgement.inner == IN_VERIFIES:
            pair.run += pair.run < MANY
    else:
        if judgement.outer == OUT_ZERO or judgement.outer == OUT_ZERO6:
            pair.last_zero = now + 1
        return
    if pair.good + pair.wrong >= WINDOW:
        pair.good >>= 1
        pair.wrong >>= 1


cdef void weigh_envelope(Evidence *memory, const uint8_t *packet, const Walk *walk, Judgement *judgement, Pair *pair,
                         Sight *sight) noexcept nogil:
    """A packet whose inner segment verifies or is unfinished: note its envelope, and say whether that is known."""
    cdef bint verifies = judgement.outer == OUT_GOOD or judgement.outer == OUT_AGREES
    cdef bint wrong = judgement.outer == OUT_WRONG
    cdef bint solid = not wrong or is_solid(packet, walk)
    cdef bint known = False, broken
    cdef Talk *talk
    cdef Trait *main = NULL
    cdef Trait *here = NULL
    cdef Trait *trait
    if wrong and solid:
        digest(memory, packet, walk, judgement, sight)
        note_regime(pair, packet, walk, judgement, sight)
        name(memory, packet, walk, judgement, pair, sight)
    if not solid:
        return
    broken = is_broken(pair, sight.now)
    if not sight.multicast:             # few and alike, and used beside others: they are no pair's main envelope
        main = trait_of(pair.envelopes, sight.envelope, sight.now)
        note_envelope(memory, packet, walk, judgement, main, broken, sight)
    if not verifies or pair.several or main != &pair.envelopes[0]:
        talk = talk_of(memory, packet, walk, sight)
        if talk != NULL:
            here = trait_of(talk.envelopes, sight.envelope, sight.now)
            note_envelope(memory, packet, walk, judgement, here, broken, sight)
            known = here != NULL and is_known(talk.envelopes, here, broken)
    if main != &pair.envelopes[0]:
        if not pair.several and not sight.multicast and (known or (verifies and pair.envelopes[0].verifying)):
            pair.several = True
    elif not pair.several:
        known |= is_known(pair.envelopes, main, broken)
    trait = main if main == &pair.envelopes[0] and not pair.several else here
    known = known and trait != NULL and is_at_home(memory, packet, walk, verifies, trait, sight)
    if not known:
        return
    if judgement.outer == OUT_ZERO6 and judgement.inner == IN_VERIFIES and is_solid(packet, walk):
        judgement.vouch = Vouch.ENVELOPE
    elif wrong and judgement.inner == IN_VERIFIES:
        judgement.vouch = Vouch.ENVELOPE
    elif wrong and broken and keeps_to_regime(pair, packet, walk, judgement, sight):
        judgement.vouch = Vouch.REGIME
