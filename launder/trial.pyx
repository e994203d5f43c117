# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""One run: packets are made, some are damaged, all go through a `Pipeline` by a queue's door, and are judged."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from fixer.datapath.pipeline cimport Handed, Pipeline
from fixer.datapath.repair cimport DROP, REPAIR, Action

from launder.damage cimport CELLS, HARMS, Damage, harm
from launder.judge cimport (DROPPED, FATES, INVISIBLE, LOST, MEDDLED, PASSED, SPOILT, Case, Fate, meddled,
                            righted)
from launder.receiver cimport IN_PSEUDO, OUT_PSEUDO, Look, look, takes
from launder.sums cimport below, draw, pick, put16, put32
from launder.world cimport (CAUSES, KINDS, MOST, STRAIGHT, SYN, TCP, UNFINISHED, Envelope, Flow, Packet,
                            Traffic, World, make, seal, world_free, world_new)

KINDS_OF_PACKET = ("tcp", "syn", "udp", "udp-none", "icmp", "arp", "fragment", "other", "not-ip")
SENT_AS = ("good", "lco", "zero", "pseudo")
CAUSES_OF_WRONG = ("straight", "ffff", "field", "port", "address", "nic")
HARMS_DONE = ("bit", "two-bits", "burst", "swap", "shift", "slip", "length", "field", "bytes", "cell", "vni-bit",
              "mac-bit", "source-bit", "payload", "torn")
PLACES = ("ip", "udp", "vxlan", "ethernet", "inner", "transport")
FATES_MET = ("dropped", "passed", "invisible", "whole", "padding", "neutral", "chance", "wiped", "unvouched",
             "regime", "stranger", "before", "laundered", "meddled", "spoilt", "lost")
INNER_SEEN = ("unreadable", "none", "good", "pseudo", "bad")
OUTER_SEEN = ("unreadable", "zero", "good", "agrees", "pseudo", "bad")

cdef enum:
    EXAMPLES = 4             # kept of each fate
    KEPT = 64                # FATES * EXAMPLES

assert KEPT == FATES * EXAMPLES
assert len(FATES_MET) == FATES and len(HARMS_DONE) == HARMS and len(KINDS_OF_PACKET) == KINDS


cdef struct Tally:
    uint64_t packets
    uint64_t bytes
    uint64_t damaged
    uint64_t fates[FATES][HARMS + 1]    # the last: undamaged
    uint64_t whole[CAUSES]              # undamaged: how many there were, by cause …
    uint64_t mended[CAUSES]             # … were righted, to the very bytes that were sent …
    uint64_t stopped[CAUSES]            # … were dropped


cdef struct Again:
    # A damaged packet that its sender sends again and that is damaged again in the same way.
    uint32_t left
    uint32_t flow
    uint32_t length
    uint8_t harm
    bint before
    uint64_t state
    Flow as_it_was
    uint8_t changed[MOST]


cdef struct Example:
    uint8_t fate
    uint8_t harm
    uint32_t size
    uint32_t length
    uint64_t number
    uint8_t meant[MOST]
    uint8_t came[MOST]
    uint8_t left[MOST]


cdef class Trial:
    cdef World world
    cdef Damage damage
    cdef Tally tally
    cdef Again again
    cdef Example[KEPT] examples
    cdef uint32_t[FATES] kept
    cdef uint64_t state, when, step, pause, pause_every, uptime_from
    cdef uint32_t damaged, before, times_again, strangers, skb_info
    cdef bint stamps, zero6, local, still
    cdef uint8_t[MOST] meant, came, left, last

    def __cinit__(self, *, seed, pairs=1, envelopes=1, flows=100, kinds=None, sent=None, causes=None, translated=1000,
                  underlay6=300, inner6=300, unfinished=0, padded=200, options=50, tagged=100, fresh_port=60,
                  dense=False, damaged=0.0, harms=None, cells=(), before=0.0, again=0, strangers=0.0,
                  strange_pair=True, strange_sent="good", strange_cause="straight", skb_info=0, local=False,
                  stamps=False, still=False, zero6=True, step_ns=2000, pause_s=0, pause_every=0):
        """See `Traffic` for the first. damaged, before, strangers: shares of the packets, of the damaged ones, of the
        packets; cells: (place, offset, mask, stuck); again: how often a damaged packet comes again; skb_info: of all
        packets, or (local) CSUMNOTREADY for those with an unfinished layer only; stamps: TCP timestamps may be changed;
        step_ns: between packets; pause_s: and now and then, after pause_every of them."""
        cdef Traffic traffic
        memset(&traffic, 0, sizeof(Traffic))
        traffic.pairs, traffic.envelopes, traffic.flows = pairs, envelopes, flows
        for i, name in enumerate(KINDS_OF_PACKET):
            traffic.kinds[<int>i] = (kinds or {"tcp": 1}).get(name, 0)
        for i, name in enumerate(SENT_AS):
            traffic.sent[<int>i] = (sent or {"good": 1}).get(name, 0)
        for i, name in enumerate(CAUSES_OF_WRONG):
            traffic.causes[<int>i] = (causes or {"straight": 1}).get(name, 0)
        traffic.translated, traffic.underlay6, traffic.inner6 = translated, underlay6, inner6
        traffic.unfinished, traffic.padded, traffic.options, traffic.tagged = unfinished, padded, options, tagged
        traffic.fresh_port, traffic.dense, traffic.strange_pair = fresh_port, dense, strange_pair
        traffic.strange_sent = SENT_AS.index(strange_sent)
        traffic.strange_cause = CAUSES_OF_WRONG.index(strange_cause)
        memset(&self.damage, 0, sizeof(Damage))
        for i, name in enumerate(HARMS_DONE):
            self.damage.harms[<int>i] = (harms or {"bit": 1}).get(name, 0)
        if len(cells) > CELLS:
            raise ValueError(f"at most {CELLS} cells")
        for i, (place, offset, mask, stuck) in enumerate(cells):
            self.damage.cell[<int>i].place = PLACES.index(place)
            self.damage.cell[<int>i].offset, self.damage.cell[<int>i].mask = offset, mask
            self.damage.cell[<int>i].stuck = stuck
        self.damage.cells = len(cells)
        self.state = seed
        self.damaged, self.before = <uint32_t>(damaged * 1e9), <uint32_t>(before * 1e9)
        self.strangers, self.times_again = <uint32_t>(strangers * 1e9), again
        self.skb_info, self.local, self.stamps, self.zero6 = skb_info, local, stamps, zero6
        self.still = still
        self.when, self.step = 1_700_000_000_000_000_000, step_ns
        self.pause, self.pause_every = <uint64_t>pause_s * 1_000_000_000, pause_every
        memset(&self.tally, 0, sizeof(Tally))
        memset(&self.again, 0, sizeof(Again))
        memset(self.kept, 0, sizeof(self.kept))
        world_new(&self.world, &traffic, draw(&self.state))

    def __dealloc__(self):
        world_free(&self.world)

    def connect(self, Pipeline pipeline not None):
        """Let every TCP flow begin as a connection whose replies pass, too: normalising translates those alone."""
        cdef uint32_t i
        cdef uint64_t own
        cdef Flow flow
        cdef Packet packet
        cdef Handed handed
        memset(&handed, 0, sizeof(Handed))
        handed.when, handed.uptime = self.when, self.uptime()
        for i in range(self.world.traffic.flows):
            self.world.flows[i].stamped = True
            flow = self.world.flows[i]
            own = draw(&self.state)
            for flow.kind in (SYN, TCP):
                make(&self.world, &flow, False, &own, self.meant, &packet)
                seal(&packet, self.meant, True)
                handed.outgoing = False
                pipeline.process(self.meant, packet.length, packet.length, &handed, NULL)
                if flow.kind == SYN:
                    turn(&packet, self.meant)
                    handed.outgoing = True
                    pipeline.process(self.meant, packet.length, packet.length, &handed, NULL)
            flow.kind = self.world.flows[i].kind
            self.world.flows[i] = flow

    cdef uint32_t uptime(self) noexcept nogil:
        return <uint32_t>(self.when // 1000000000U - 1699999000U)

    def put(self, Pipeline pipeline not None, uint64_t count):
        """Send so many packets through `pipeline`."""
        cdef uint64_t _i
        with nogil:
            for _i in range(count):
                self.one(pipeline)

    def put_by(self, examine, uint64_t count):
        """As `put`, through whoever is asked: examine(the packet, nanoseconds) → (it as it leaves, a repair.Action)."""
        cdef Packet packet
        cdef uint8_t done
        cdef bint before
        cdef uint32_t size
        for _ in range(count):
            done, before = HARMS, False
            size = self.next_packet(&packet, &done, &before)
            self.when += self.step
            self.tally.packets += 1
            self.tally.bytes += size
            self.tally.damaged += done != HARMS
            left, action = examine(self.came[:size], self.when)
            if len(left) != size:
                raise ValueError(f"{size} bytes came and {len(left)} left")
            memcpy(self.left, <const uint8_t *><bytes>left, size)
            self.judged(&packet, done, before, size, <Action><int>action, False)

    cdef void one(self, Pipeline pipeline) noexcept nogil:
        cdef Packet packet
        cdef Handed handed
        cdef Look came
        cdef Action action
        cdef uint8_t done = HARMS
        cdef bint before = False
        cdef uint32_t size = self.next_packet(&packet, &done, &before)
        if self.pause_every and self.tally.packets % self.pause_every == 0:
            self.when += self.pause
        self.when += self.step
        self.tally.packets += 1
        self.tally.bytes += size
        handed.when = self.when
        handed.uptime = self.uptime()
        handed.skb_info = self.skb_info
        handed.outgoing = False
        if self.local:
            look(self.came, size, &came)
            handed.skb_info = came.inner == IN_PSEUDO or came.outer == OUT_PSEUDO
        memcpy(self.left, self.came, size)
        action = pipeline.process(self.left, size, size, &handed, NULL)
        if done != HARMS:
            self.tally.damaged += 1
        elif packet.cause == STRAIGHT and action != REPAIR and action != DROP and packet.inner != UNFINISHED:
            self.tally.whole[<int>STRAIGHT] += 1     # most packets are healthy and pass
            if memcmp(self.came, self.left, size) != 0:
                self.met(MEDDLED, done, size, packet.length)
            return
        self.judged(&packet, done, before, size, action, handed.skb_info & 1)

    cdef uint32_t next_packet(self, Packet *packet, uint8_t *done, bint *before) noexcept nogil:
        """Fill `meant` and `came`: one packet, undamaged and as it arrives; the size of the latter."""
        cdef Again *again = &self.again
        cdef uint32_t number, size, i
        cdef uint64_t own
        cdef bint strange = self.strangers and below(&self.state, 1000000000) < self.strangers
        cdef Flow *flow
        cdef Flow now
        if again.left and not strange and draw(&self.state) & 3 == 0:
            again.left -= 1
            flow = &self.world.flows[again.flow]
            now = flow[0]
            flow[0] = again.as_it_was
            flow.identification = now.identification
            flow.clock = now.clock
            own = again.state
            make(&self.world, flow, False, &own, self.meant, packet)
            now.identification, now.clock = flow.identification, flow.clock
            flow[0] = now
            packet.flow = again.flow
            memcpy(self.came, self.meant, packet.length)
            seal(packet, self.meant, True)
            if not again.before:
                seal(packet, self.came, True)
            for i in range(packet.length):
                self.came[i] ^= again.changed[i]
            if again.before:
                seal(packet, self.came, True)
            done[0], before[0] = again.harm, again.before
            return packet.length
        number = below(&self.state, self.world.traffic.flows)
        flow = &self.world.flows[number]
        own = number if self.still else draw(&self.state)
        if not again.left:
            again.state, again.as_it_was = own, flow[0]
        make(&self.world, flow, strange, &own, self.meant, packet)
        packet.flow = number
        size = packet.length
        memcpy(self.came, self.meant, size)
        seal(packet, self.meant, True)
        if not strange and below(&self.state, 1000000000) < self.damaged:
            done[0] = <uint8_t>pick(&self.state, self.damage.harms, HARMS)
            before[0] = self.before and below(&self.state, 1000000000) < self.before
            if not before[0]:
                memcpy(self.came, self.meant, size)
            size = harm(&self.damage, done[0], packet, self.last, self.came, not before[0], &self.state)
            if before[0]:
                size = packet.length
                seal(packet, self.came, True)
            if size == packet.length and memcmp(self.came, self.meant, size) == 0:
                done[0] = HARMS                 # it was so already
            elif self.times_again and not again.left and size == packet.length:
                again.left, again.flow, again.harm, again.before = self.times_again, number, done[0], before[0]
                for i in range(size):
                    again.changed[i] = self.meant[i] ^ self.came[i]
                if before[0]:                   # what `seal` makes of it is not damage
                    memset(again.changed, 0, packet.vxlan)
        else:
            memcpy(self.came, self.meant, size)
        memcpy(self.last, self.meant, 128)
        return size

    cdef void judged(self, const Packet *packet, uint8_t done, bint before, uint32_t size, Action action,
                     bint unfinished) noexcept nogil:
        cdef Case case
        cdef Look came, left
        cdef bint taken, takes_left
        cdef Envelope *envelope = &self.world.envelopes[packet.envelope]
        case.packet, case.meant, case.came, case.left = packet, self.meant, self.came, self.left
        case.size, case.before, case.unfinished, case.zero6 = size, before, unfinished, self.zero6
        look(self.came, size, &came)
        taken = takes(&came, unfinished, self.zero6)
        if action == DROP:
            takes_left = False
        elif action == REPAIR:
            look(self.left, size, &left)
            takes_left = takes(&left, False, self.zero6)
        else:
            takes_left = taken
        if action != DROP and meddled(&case, &came, self.stamps):
            self.met(MEDDLED, done, size, packet.length)
        elif action != REPAIR and action != DROP and memcmp(self.came, self.left, size) != 0:
            self.met(MEDDLED, done, size, packet.length)
        if done == HARMS:
            self.tally.whole[packet.cause] += 1
            if not packet.strange and packet.cause != STRAIGHT:
                envelope.translated += 1
            if action == DROP:
                self.tally.stopped[packet.cause] += 1
                if packet.cause == STRAIGHT:
                    self.met(LOST, done, size, packet.length)
            elif action == REPAIR and not takes_left:
                self.met(SPOILT, done, size, packet.length)
            elif action == REPAIR and takes_left:
                self.tally.mended[packet.cause] += 1
                if not packet.strange and packet.cause != STRAIGHT:
                    envelope.mended += 1
                    if envelope.first == 0:
                        envelope.first = envelope.translated
        elif action == DROP:
            self.met(DROPPED, done, size, packet.length)
        elif taken:
            self.met(INVISIBLE if takes_left else SPOILT, done, size, packet.length)
        elif not takes_left:
            self.met(PASSED, done, size, packet.length)
        else:
            self.met(righted(&case, &came), done, size, packet.length)

    cdef void met(self, Fate fate, uint8_t done, uint32_t size, uint32_t length) noexcept nogil:
        cdef Example *example
        self.tally.fates[<int>fate][done] += 1
        if self.kept[<int>fate] == EXAMPLES or fate <= INVISIBLE:
            return
        example = &self.examples[<int>fate * EXAMPLES + self.kept[<int>fate]]
        self.kept[<int>fate] += 1
        example.fate, example.harm, example.size, example.length = <uint8_t>fate, done, size, length
        example.number = self.tally.packets
        memcpy(example.meant, self.meant, length)
        memcpy(example.came, self.came, size)
        memcpy(example.left, self.left, size)

    def found(self):
        """What was counted: packets, bytes, damaged; fates by harm; and of the undamaged, what was righted by cause."""
        fates = {}
        for fate, name in enumerate(FATES_MET):
            row = {harm: self.tally.fates[<int>fate][<int>i] for i, harm in enumerate((*HARMS_DONE, "none"))}
            fates[name] = {harm: count for harm, count in row.items() if count}
        firsts, late = [], 0
        for i in range(self.world.traffic.pairs * self.world.traffic.envelopes):
            if self.world.envelopes[<int>i].first:
                firsts.append(self.world.envelopes[<int>i].first)
            elif self.world.envelopes[<int>i].translated:
                late += 1
        return {
            "packets": self.tally.packets, "bytes": self.tally.bytes, "damaged": self.tally.damaged, "fates": fates,
            "causes": {name: (self.tally.whole[<int>i], self.tally.mended[<int>i], self.tally.stopped[<int>i])
                       for i, name in enumerate(CAUSES_OF_WRONG)},
            "first": sorted(firsts), "never": late,
        }

    def shown(self):
        """A few packets of each fate but the ordinary: (fate, harm, number, as meant, as it came, as it left)."""
        return [
            (FATES_MET[self.examples[i].fate], (*HARMS_DONE, "none")[self.examples[i].harm], self.examples[i].number,
             self.examples[i].meant[:self.examples[i].length], self.examples[i].came[:self.examples[i].size],
             self.examples[i].left[:self.examples[i].size])
            for fate in range(FATES) for i in range(fate * EXAMPLES, fate * EXAMPLES + self.kept[fate])
        ]

    def sample(self):
        """The next packet: (as meant, as it came, what was done to it, what it is), put through nothing."""
        cdef Packet packet
        cdef uint8_t done = HARMS
        cdef bint before = False
        cdef uint32_t size = self.next_packet(&packet, &done, &before)
        about = {"kind": KINDS_OF_PACKET[packet.kind], "cause": CAUSES_OF_WRONG[packet.cause],
                 "sent": SENT_AS[packet.sent], "inner": ("complete", "unfinished", "none")[packet.inner],
                 "underlay": packet.underlay, "version": packet.version, "before": before}
        return (self.meant[:packet.length], self.came[:size], (*HARMS_DONE, "none")[done], about)


def seen(bytes packet not None):
    """What a receiver sees in a packet: (outer checksum, inner checksum, whether it takes it)."""
    cdef Look found
    look(packet, <uint32_t>len(packet), &found)
    return OUTER_SEEN[found.outer], INNER_SEEN[found.inner], bool(takes(&found, False, True))


cdef void turn(const Packet *packet, uint8_t *bytes) noexcept nogil:
    """Make of a SYN the SYN-ACK that answers it, without checksums: nobody judges what leaves."""
    cdef uint32_t size = 4 if packet.underlay == 4 else 16
    cdef uint8_t *tcp = bytes + packet.transport
    exchange(bytes + (12 if size == 4 else 8), size)
    exchange(bytes + packet.ethernet, 6)
    size = 4 if packet.version == 4 else 16
    exchange(bytes + packet.ip + (12 if size == 4 else 8), size)
    exchange(tcp, 2)
    memcpy(tcp + 8, tcp + 4, 4)
    tcp[11] += 1
    if tcp[11] == 0:
        tcp[10] += 1
    tcp[13] = 0x12
    memcpy(tcp + 36, tcp + 32, 4)
    put32(tcp + 32, 1)
    put16(bytes + packet.udp + 6, 0)


cdef void exchange(uint8_t *at, uint32_t size) noexcept nogil:
    """Two neighbours of `size` bytes change places."""
    cdef uint8_t[16] first
    memcpy(first, at, size)
    memcpy(at, at + size, size)
    memcpy(at + size, first, size)
