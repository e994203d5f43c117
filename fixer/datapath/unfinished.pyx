# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from fixer.datapath.diagnose cimport BOTH_UNFINISHED, INNER_UNFINISHED, OUT_AGREES, OUT_PARTIAL, OUT_ZERO, OUT_ZERO6
from fixer.datapath.hash cimport hash_bytes
from fixer.datapath.sets cimport find, yielding
from fixer.datapath.wire cimport *
from fixer.datapath.zeroed cimport zeroed

cdef extern from *:
    """
    #define load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    """
    uint64_t load_acquire(const uint64_t *p) nogil
    void store_release(uint64_t *p, uint64_t value) nogil

cdef enum:
    QUARTER_BITS = 28        # 2²⁸ ns: about a quarter of a second


cdef Unfinished *unfinished_new(uint64_t seed) except NULL:
    """Empty memory, which nobody reads yet. `seed` keeps a sender from choosing envelopes that share a set."""
    cdef Unfinished *memory = <Unfinished *>zeroed(1, sizeof(Unfinished), "the envelopes of unfinished packets")
    memory.seed = seed
    return memory


cdef void unfinished_free(Unfinished *memory) noexcept:
    free(memory)


cdef void unfinished_note(Unfinished *memory, const uint8_t *packet, const Walk *walk, const Judgement *judgement,
                          uint64_t when) noexcept nogil:
    """Note a packet that is repaired, before it is. when: nanoseconds.

    Only what headers alone can tell from damage: an outer field that is zero, its pseudo-header's sum, or right once
    the inner one is finished. A tagged inner frame is left to the queue.
    """
    cdef Telling telling
    cdef Sighting *sighting
    cdef uint64_t key
    cdef uint32_t second, quarter, number
    if judgement.diagnosis != INNER_UNFINISHED and judgement.diagnosis != BOTH_UNFINISHED:
        return
    if not walk.vxlan or walk.behind_ethernet != walk.frame + ETH_HEADER:
        return
    memset(&telling, 0, sizeof(Telling))
    if judgement.outer == OUT_ZERO or (judgement.outer == OUT_ZERO6 and not judgement.outer_filled):
        telling.outers = OUTERS_ZERO
    elif judgement.outer == OUT_PARTIAL:
        telling.outers = OUTERS_PSEUDO
    elif judgement.outer == OUT_AGREES:
        telling.outers = OUTERS_AGREES
    else:
        return
    memcpy(telling.envelope.source + 16 - walk.outer.address_length, packet + walk.outer.source,
           walk.outer.address_length)
    memcpy(telling.envelope.port, packet + walk.outer.transport + UDP_DESTINATION, 2)
    memcpy(telling.envelope.header, packet + walk.frame - VXLAN_HEADER, sizeof(telling.envelope.header))
    telling.envelope.version = walk.outer.version
    key = hash_bytes(memory.seed, <const uint8_t *>&telling, sizeof(Telling)) | 1
    second = <uint32_t>(when // 1000000000U)
    quarter = <uint32_t>(when >> QUARTER_BITS)
    number = <uint32_t>((key >> 32) % ENVELOPE_SETS)
    sighting = <Sighting *>find(memory.seen[number], sizeof(Sighting), ENVELOPE_WAYS, key, second)
    if sighting == NULL:
        sighting = <Sighting *>yielding(memory.seen[number], sizeof(Sighting), ENVELOPE_WAYS, second)
        if sighting == NULL:
            return
        memset(sighting, 0, sizeof(Sighting))
        sighting.mark.key = key
        sighting.mark.seen = second
        sighting.mark.uses = 1
    if sighting.mark.uses < CONFIRMING or sighting.told == quarter + 1:
        return
    if memory.written - load_acquire(&memory.taken) >= TOLD_AT_ONCE:
        return
    sighting.told = quarter + 1
    memory.tellings[memory.written & (TOLD_AT_ONCE - 1)] = telling
    store_release(&memory.written, memory.written + 1)


cdef list unfinished_take(Unfinished *memory):
    """What was told since the last time, as (the bytes of an `Envelope`, `Outers`). One reader at a time."""
    cdef uint64_t written = load_acquire(&memory.written)
    cdef Telling telling
    found = []
    while memory.taken != written:
        telling = memory.tellings[memory.taken & (TOLD_AT_ONCE - 1)]
        store_release(&memory.taken, memory.taken + 1)
        found.append(((<uint8_t *>&telling.envelope)[:sizeof(Envelope)], telling.outers))
    return found
