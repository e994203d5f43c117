# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from libc.stdint cimport int32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from fixer._csum cimport subtract
from fixer.datapath.diagnose cimport IN_VERIFIES, OUT_AGREES, OUT_GOOD, OUT_ZERO
from fixer.datapath.hash cimport hash_bytes, mix
from fixer.datapath.walk cimport Layer
from fixer.datapath.wire cimport *


cdef History *history_new(uint64_t seed) except NULL:
    """Empty memory. `seed` keeps a sender from choosing packets that collide; tests pass a fixed one."""
    cdef History *history = <History *>calloc(1, sizeof(History))
    if history == NULL:
        raise MemoryError("no memory for the history of stale checksums")
    history.seed = seed
    return history


cdef void history_free(History *history) noexcept:
    free(history)


cdef void know_vni(History *history, uint32_t vni) noexcept nogil:
    history.vnis[(vni & 0xffffffU) >> 3] |= <uint8_t>(1 << (vni & 7))


cdef inline bint is_known(const History *history, uint32_t vni) noexcept nogil:
    return (history.vnis[(vni & 0xffffffU) >> 3] >> (vni & 7)) & 1


cdef void remember(History *history, const uint8_t *packet, const Walk *walk, const Judgement *judgement,
                   uint32_t now) noexcept nogil:
    """Learn from a packet whose outer layer is not wrong: its VNI is one of ours, and its flow is not rewritten."""
    cdef Flow *flow
    if judgement.outer == OUT_GOOD or judgement.outer == OUT_AGREES:
        know_vni(history, walk.vni)     # the outer sum covers the VXLAN header
        flow = flow_of(history, five_tuple(history, packet, walk), now)
        flow.score = min(flow.score + SCORE_GOOD, SCORE_MOST)
    elif judgement.outer == OUT_ZERO and judgement.inner == IN_VERIFIES:
        know_vni(history, walk.vni)


cdef Explanation explain(History *history, const uint8_t *packet, const Walk *walk, const Judgement *judgement,
                         uint32_t now) noexcept nogil:
    """Why this wrong outer checksum would be stale, if it is; the packet itself is added to the evidence first."""
    cdef uint64_t tuple_hash = five_tuple(history, packet, walk)
    cdef uint64_t content = digest(history, packet, walk)
    cdef uint16_t error = subtract(judgement.outer_right, judgement.outer_found)
    cdef Flow *flow = flow_of(history, tuple_hash, now)
    cdef bint contradicted = flow.score > 0
    cdef bint same_error, same_field
    if contradicted:
        flow.score -= 1
    same_error = witness(history, mix(tuple_hash ^ 0x10000U ^ error), content, now)
    same_field = witness(history, mix(pair(history, packet, walk) ^ judgement.outer_found), content, now)
    if contradicted:
        return Explanation.UNEXPLAINED
    if same_error:
        return Explanation.SAME_ERROR
    if not is_known(history, walk.vni):
        return Explanation.UNEXPLAINED
    if judgement.outer_found == 0xffff:
        return Explanation.FIELD_FFFF
    return Explanation.SAME_FIELD if same_field else Explanation.UNEXPLAINED


cdef bint witness(History *history, uint64_t key, uint64_t content, uint32_t now) noexcept nogil:
    """Add one packet to the evidence under `key`; True once DIFFERING packets of different content have shown it."""
    cdef Evidence *ways = &history.evidence[(key % EVIDENCE_SETS) * WAYS]
    cdef Evidence *entry
    cdef int i
    history.turn += 1
    entry = &ways[history.turn % WAYS]  # the one to give up if all were seen in the same second
    if key == 0:
        key = 1
    for i in range(WAYS):
        if ways[i].key == key:
            entry = &ways[i]
            break
        if ways[i].seen < entry.seen:
            entry = &ways[i]            # free (seen 0) or longest unseen
    if entry.key != key or <int32_t>(now - entry.seen) > EVIDENCE_SECONDS:
        memset(entry, 0, sizeof(Evidence))
        entry.key = key
    entry.seen = now
    if entry.count >= DIFFERING:
        return True
    for i in range(entry.count):
        if entry.digest[i] == content:
            return False                # the same packet again, or the same one damaged elsewhere, proves nothing
    if entry.count < DIFFERING - 1:
        entry.digest[entry.count] = content
    entry.count += 1
    return entry.count >= DIFFERING


cdef Flow *flow_of(History *history, uint64_t tuple_hash, uint32_t now) noexcept nogil:
    """The flow's entry; a new flow, or one long unseen, begins with score 0. Direct-mapped: a newer flow displaces."""
    cdef Flow *flow = &history.flows[tuple_hash % FLOWS]
    cdef uint32_t tag = <uint32_t>(tuple_hash >> 32)
    if flow.tag != tag or <int32_t>(now - flow.seen) > FLOW_SECONDS:
        flow.tag = tag
        flow.score = 0
    flow.seen = now
    return flow


cdef inline uint64_t pair(const History *history, const uint8_t *packet, const Walk *walk) noexcept nogil:
    """The VTEP pair, as ordered. (Both addresses lie together in the IP header unless a routing header moved one.)"""
    cdef const Layer *outer = &walk.outer
    return hash_bytes(hash_bytes(history.seed, packet + outer.source, outer.address_length),
                      packet + outer.destination, outer.address_length)


cdef inline uint64_t five_tuple(const History *history, const uint8_t *packet, const Walk *walk) noexcept nogil:
    return mix(pair(history, packet, walk) ^ (<uint64_t>be32(packet + walk.outer.transport) << 20))


cdef uint64_t digest(const History *history, const uint8_t *packet, const Walk *walk) noexcept nogil:
    """What makes two packets differ: the inner packet behind its Ethernet header, and the outer IPv4 identification.

    Not the bytes that only the outer checksum covers: one healthy packet damaged there in many ways stays one packet.
    """
    cdef uint32_t start = walk.behind_ethernet
    cdef uint32_t length = walk.outer.transport + walk.outer.covered - start
    cdef uint64_t seed = history.seed
    if walk.outer.version == 4:
        seed ^= be16(packet + walk.outer.start + IP4_ID)
    return hash_bytes(seed ^ (<uint64_t>length << 32), packet + start, length if length < 512 else 512)
