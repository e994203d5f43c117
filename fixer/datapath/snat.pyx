# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from typing import NamedTuple

from libc.math cimport fabs, log2
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from fixer.datapath.hash cimport hash_bytes, mix
from fixer.datapath.wire cimport address_text
from fixer.datapath.zeroed cimport zeroed

cdef extern from *:
    """
    #define begin_writing(p) do { __atomic_store_n((p), *(p) + 1, __ATOMIC_RELAXED); \
                                  __atomic_thread_fence(__ATOMIC_RELEASE); } while (0)
    #define end_writing(p) __atomic_store_n((p), *(p) + 1, __ATOMIC_RELEASE)
    #define begin_reading(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define end_reading(p) (__atomic_thread_fence(__ATOMIC_ACQUIRE), __atomic_load_n((p), __ATOMIC_RELAXED))
    """
    void begin_writing(uint64_t *generation) nogil
    void end_writing(uint64_t *generation) nogil
    uint64_t begin_reading(const uint64_t *generation) nogil
    uint64_t end_reading(const uint64_t *generation) nogil

cdef enum:
    TICKS = 7
    EVERY_TICK = (1 << TICKS) - 1
    BASELINES = 8           # a line through two points is followed for this many times their distance
    ATTEMPTS = 4            # to read what is being written

# Linux's CONFIG_HZ, which is 1 kHz for others too, and the 1 MHz Linux 6.7 can do for a route. In rising order: the
# first that fits is the one chance fits least.
cdef double[TICKS] TICK = [100, 200, 250, 300, 500, 1000, 1e6]
cdef double SLOWEST = 100, FASTEST = 1e6        # Hz, of a measured tick

cdef double JITTER = 0.03           # seconds by which a SYN's way may differ from the one before, and …
cdef double DRIFT = 200e-6          # … of the host's clock against ours: two crystals, 100 ppm each
cdef double LATE = 0.5              # the same two for a clock that is known: what a queue held up or a host that loses
cdef double LOOSE = 0.03            # ticks sends is no new clock beside it
cdef double ROUNDING = 2            # ticks
cdef double SURE = 20               # bits that make a line a clock …
cdef uint64_t BASELINE = 900000000  # … and nanoseconds: in less, a tick is not told from another
cdef double CLOSE = 0.25            # seconds; from two points closer than this no tick can be measured
cdef double REBASE = 60             # seconds after which a line is measured from a newer SYN
cdef uint64_t AGE = 600000000000    # nanoseconds after which a line, or a pair, without a SYN is forgotten
cdef uint64_t PAWS = 60000000000    # TCP_PAWS_MSL


cdef struct Syn:
    uint64_t when
    uint32_t tsval
    uint32_t sequence
    uint16_t port


cdef struct Fit:
    uint16_t ticks          # the usual ticks that fit; 0 for a line whose tick was measured
    bint fits
    double few              # how many TSvals fit the slowest of these ticks, times the ticks that were tried


cdef Snat *snat_new(uint64_t seed) except NULL:
    """Empty memory. `seed` keeps a sender from choosing sources that displace another; tests pass a fixed one."""
    cdef Snat *snat = <Snat *>zeroed(1, sizeof(Snat), "who is behind an address")
    snat.seed = seed
    return snat


cdef void snat_free(Snat *snat) noexcept:
    free(snat)


cdef void snat_note(Snat *snat, const uint8_t *source, const uint8_t *destination, uint8_t version, uint32_t vni,
                    uint16_t port, uint32_t sequence, uint32_t tsval, uint64_t when) noexcept nogil:
    """Learn from a SYN (no SYN-ACK) with timestamps that is about to pass.

    source, destination: the inner addresses, 4 or 16 bytes by `version`; vni: PLAIN outside a tunnel; port, sequence:
    the source port and the sequence number, host order; when: nanoseconds since the epoch.
    """
    cdef uint32_t length = 4 if version == 4 else 16
    cdef uint64_t key = mix(hash_bytes(hash_bytes(snat.seed, source, length), destination, length) ^ vni)
    cdef Slot *slot = slot_of(snat, key | 1, when)
    cdef Pair *pair = &slot.pair
    cdef Syn syn
    syn.when, syn.tsval, syn.sequence, syn.port = when, tsval, sequence, port
    begin_writing(&slot.generation)
    if pair.key != key | 1 or apart(when, pair.last) > AGE:
        memset(pair, 0, sizeof(Pair))
        pair.key = key | 1
        pair.turned = when
        pair.version = version
        pair.vni = vni
        memcpy(pair.source, source, length)
        memcpy(pair.destination, destination, length)
    pair.last = when
    if not again(pair, &syn):
        count(pair, &syn)
        draw(pair, &syn)
    end_writing(&slot.generation)


cdef Slot *slot_of(Snat *snat, uint64_t key, uint64_t when) noexcept nogil:
    """The pair's place, or the one to give up for it: free or aged, else without a clock, else longest unseen.

    So a flood of SYNs from spoofed sources displaces only sources of which nothing is known yet.
    """
    cdef Slot *ways = &snat.slots[((key >> 1) % SETS) * WAYS]
    cdef Slot *worst = ways
    cdef uint64_t value, least = <uint64_t>-1
    cdef int i
    for i in range(WAYS):
        if ways[i].pair.key == key:
            return &ways[i]
        if ways[i].pair.key == 0 or apart(when, ways[i].pair.last) > AGE:
            value = 0
        else:
            value = (ways[i].pair.last >> 1) | (<uint64_t>(ways[i].pair.sure > 0) << 63)
        if value < least:
            least = value
            worst = &ways[i]
    return worst


cdef inline uint64_t apart(uint64_t when, uint64_t then) noexcept nogil:
    """Nanoseconds between two moments, whichever came first: packets are reordered, and our own clock may be set."""
    return when - then if when > then else then - when


cdef inline double seconds(uint64_t when, uint64_t then) noexcept nogil:
    return <double><int64_t>(when - then) * 1e-9


cdef inline double ticks_between(uint32_t value, uint32_t before) noexcept nogil:
    return <double><int32_t>(value - before)        # RFC 7323 §5.2: TSvals wrap


cdef inline bint is_sure(const Line *line) noexcept nogil:
    return line.syns > 1 and line.certainty >= SURE and line.last - line.first >= BASELINE


cdef inline int rank(const Line *line) noexcept nogil:
    """What it is worth: free, a point, a line, a clock."""
    return (line.syns > 0) + (line.syns > 1) + is_sure(line)


cdef bint again(Pair *pair, const Syn *syn) noexcept nogil:
    """Whether this SYN was here before: a retransmission, which a refused client sends for a minute, is no second SYN
    of a clock. Lines too long without a SYN are forgotten on the way."""
    cdef Line *line
    cdef int i
    for i in range(LINES):
        line = &pair.lines[i]
        if line.syns and apart(syn.when, line.last) > AGE:
            forget(pair, line)
        if line.syns and line.sequence == syn.sequence and line.port == syn.port:
            return True
    return False


cdef void forget(Pair *pair, Line *line) noexcept nogil:
    pair.sure -= is_sure(line)
    line.syns = 0


cdef void count(Pair *pair, const Syn *syn) noexcept nogil:
    """Count it, and ask what a server with tcp_tw_recycle would have done (tcp_peer_is_proven, Linux 3.6 … 4.11).

    The server is taken to remember each connection at once; a real one does when a connection goes to TIME_WAIT on
    its side, so this share is what SNAT can lead to, not what was refused. What is refused is not remembered.
    """
    cdef int32_t ahead
    if apart(syn.when, pair.turned) > AGE:
        pair.before = pair.now
        memset(&pair.now, 0, sizeof(Tally))
        pair.turned = syn.when
    pair.now.syns += 1
    if pair.stamped and apart(syn.when, pair.stamped) < PAWS:
        ahead = <int32_t>(pair.remembered - syn.tsval)
        pair.now.refused += ahead > 1       # TCP_PAWS_WINDOW
        if ahead > 0:
            return                          # one that is 1 older is let in, and yet not remembered
    pair.remembered = syn.tsval
    pair.stamped = syn.when


cdef void draw(Pair *pair, const Syn *syn) noexcept nogil:
    """Put the SYN on the line it fits, or through two points it is in line with, or note it as a point."""
    cdef Line *line
    cdef Line *best = NULL
    cdef Fit fit, best_fit
    cdef double chance = 0
    cdef int i
    for i in range(LINES):
        line = &pair.lines[i]
        if not line.syns:
            continue
        chance += compare(line, syn, &fit)
        # A clock that is known comes first: what is a little late for it must not become a clock beside it.
        if fit.fits and (best == NULL or rank(line) > rank(best)
                         or (rank(line) == rank(best) and line.certainty > best.certainty)):
            best = line
            best_fit = fit
    if best != NULL:
        prolong(pair, best, &best_fit, syn)
    elif not measure(pair, syn, &chance):
        point(pair, syn)
        pair.now.fits -= 1
    pair.now.fits += 1
    pair.now.chance += chance / 4294967296.0


cdef double compare(const Line *line, const Syn *syn, Fit *fit) noexcept nogil:
    """Whether the SYN is on the line, or could be on one through this point; how many of all TSvals would be."""
    cdef double passed = seconds(syn.when, line.when)
    cdef double moved = ticks_between(syn.tsval, line.value)
    cdef double slack = LATE + LOOSE * fabs(passed) if is_sure(line) else JITTER + DRIFT * fabs(passed)
    cdef double around, width = 0, narrow = 0
    cdef int i, tried = 0
    fit.ticks = 0
    if line.ticks == 0:
        around = line.rate * (slack + line.blur * fabs(passed)) + ROUNDING
        fit.fits = fabs(moved - line.rate * passed) <= around
        fit.few = 2 * around + 1
        return fit.few
    for i in range(TICKS):
        if not line.ticks & (1 << i):
            continue
        tried += 1
        around = TICK[i] * slack + ROUNDING
        width += 2 * around + 1
        if fabs(moved - TICK[i] * passed) <= around:
            fit.ticks |= <uint16_t>(1 << i)
            if narrow == 0:
                narrow = 2 * around + 1
    fit.fits = fit.ticks != 0
    fit.few = narrow * tried
    return width


cdef void prolong(Pair *pair, Line *line, const Fit *fit, const Syn *syn) noexcept nogil:
    """The SYN is on the line: it says more about its tick."""
    cdef bint sure = is_sure(line)
    cdef double passed = seconds(syn.when, line.when), rate
    line.ticks = fit.ticks
    if line.ticks == 0 and passed > CLOSE:
        rate = ticks_between(syn.tsval, line.value) / passed
        if SLOWEST <= rate <= FASTEST:
            line.rate = rate
            line.blur = (LATE if sure else 2 * JITTER) / passed
    if passed > REBASE:
        line.when = syn.when
        line.value = syn.tsval
    line.certainty += max(0.0, 32 - log2(fit.few))
    line.syns += 1
    line.last = max(line.last, syn.when)
    line.sequence = syn.sequence
    line.port = syn.port
    pair.sure += is_sure(line) - sure


cdef bint measure(Pair *pair, const Syn *syn, double *chance) noexcept nogil:
    """A line of any tick through two points and this SYN; `chance` grows by the TSvals that would have made one.

    Where a line that is not sure begins is a point as well: at some rate of SYNs two in a row are on a line of any
    tick, and that would be all there ever is.
    """
    cdef Line *older
    cdef Line *newer
    cdef Line *begin = NULL
    cdef Line *middle = NULL
    cdef double passed, to_come, rate, around, width = 0
    cdef int i, j
    for i in range(LINES):
        older = &pair.lines[i]
        if older.syns == 0 or is_sure(older):
            continue
        for j in range(LINES):
            newer = &pair.lines[j]
            if newer.syns == 0 or is_sure(newer):
                continue
            passed = seconds(newer.when, older.when)
            to_come = seconds(syn.when, newer.when)
            if passed < CLOSE or to_come < CLOSE or to_come > BASELINES * passed:
                continue
            rate = ticks_between(newer.value, older.value) / passed
            if rate < SLOWEST or rate > FASTEST:
                continue
            around = rate * (2 * JITTER * (1 + to_come / passed) + DRIFT * to_come) + ROUNDING
            width += 2 * around + 1
            if fabs(ticks_between(syn.tsval, newer.value) - rate * to_come) <= around:
                begin = older
                middle = newer
    chance[0] += width
    if begin == NULL:
        return False
    passed = seconds(syn.when, begin.when)
    rate = ticks_between(syn.tsval, begin.value) / passed
    if rate < SLOWEST or rate > FASTEST:
        return False
    middle.syns = 0
    begin.ticks = 0
    begin.rate = rate
    begin.blur = 2 * JITTER / passed
    begin.certainty = max(0.0, 32 - log2(width))
    begin.syns = 3
    begin.last = syn.when
    begin.sequence = syn.sequence
    begin.port = syn.port
    pair.sure += is_sure(begin)
    return True


cdef void point(Pair *pair, const Syn *syn) noexcept nogil:
    """Note it in a free place, or in that of a point, or of a line that is not sure, or of one that is: of the first
    such kind there is, the one longest without a SYN."""
    cdef Line *line = &pair.lines[0]
    cdef Line *other
    cdef int i
    for i in range(1, LINES):
        other = &pair.lines[i]
        if rank(other) < rank(line) or (rank(other) == rank(line) and other.last < line.last):
            line = other
    if line.syns:
        forget(pair, line)
    memset(line, 0, sizeof(Line))
    line.when = line.first = line.last = syn.when
    line.value = syn.tsval
    line.sequence = syn.sequence
    line.port = syn.port
    line.ticks = EVERY_TICK
    line.syns = 1


# The face to Python.

class Clock(NamedTuple):
    """A line that is surely a clock: its tick (as far as it could be told), its SYNs, the first and the last."""
    hz: float
    syns: int
    first_ns: int
    last_ns: int


class Sight(NamedTuple):
    """What was seen of a pair of addresses; counts are of the last 10 to 20 minutes (see `Tally`)."""
    version: int
    source: str
    destination: str
    vni: int
    syns: int
    fits: int
    refused: int
    chance: float
    clocks: tuple
    full: bool              # no room for another clock: there may be more


cdef list snat_sights(const Snat *snat, uint64_t now):
    """What there is to see of the pairs with more than one SYN in the last 10 minutes.

    now: nanoseconds on the clock that `snat_note` is told. Any thread, while another one notes: a pair that is being
    written is copied again, and left out this time if it always is.
    """
    cdef const Slot *slot
    cdef Pair pair
    cdef uint64_t generation
    cdef int i, _attempt
    cdef bint whole
    seen = []
    for i in range(SETS * WAYS):
        slot = &snat.slots[i]
        whole = False
        for _attempt in range(ATTEMPTS):
            generation = begin_reading(&slot.generation)
            pair = slot.pair
            whole = not generation & 1 and end_reading(&slot.generation) == generation
            if whole:
                break
        if whole and pair.key and apart(now, pair.last) <= AGE and pair.now.syns + pair.before.syns > 1:
            seen.append(sight(&pair, now))
    return seen


cdef sight(const Pair *pair, uint64_t now):
    cdef const Line *line
    cdef int i, k
    clocks = []
    for i in range(LINES):
        line = &pair.lines[i]
        if not is_sure(line) or apart(now, line.last) > AGE:
            continue
        rate = line.rate
        for k in range(TICKS):
            if line.ticks & (1 << k):
                rate = TICK[k]
                break
        clocks.append(Clock(rate, line.syns, line.first, line.last))
    return Sight(pair.version, address_text(pair.version, pair.source), address_text(pair.version, pair.destination),
                 None if pair.vni == PLAIN else pair.vni, pair.now.syns + pair.before.syns,
                 pair.now.fits + pair.before.fits, pair.now.refused + pair.before.refused,
                 pair.now.chance + pair.before.chance, tuple(clocks), len(clocks) >= LINES - 1)
