# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from libc.string cimport memcpy, memset

from fixer.datapath.diagnose cimport IN_UNCHECKABLE, OUT_NO_TUNNEL, UNCHECKABLE, Judgement
from fixer.datapath.hash cimport seed_or_drawn
from fixer.datapath.pipeline cimport INCOMING, OUTGOING, UNMARKED
from fixer.datapath.result cimport Result
from fixer.datapath.ring cimport Endpoints, describe
from fixer.datapath.walk cimport Ports, Reason, Walk, walk
from fixer.datapath.wire cimport UDP_DESTINATION, be16
from fixer.findings.conversations cimport Conversations, Fate, Segment, Ticket
from fixer.findings.conversations import Fate as FateName
from fixer.findings.roads cimport Roads, Sight
from fixer.findings.strangers cimport Strangers
from fixer.findings.table cimport table_clear, table_entry, table_find, table_free, table_init, table_keep, table_number

cdef enum:
    HEADERS = 256            # bytes of a cut packet that are looked into


OUTGOING_NAMES = {UNMARKED: None, INCOMING: False, OUTGOING: True}
FATES = tuple(FateName)             # by number


cdef class Census:
    """Counts what a pipeline says of packets. One thread at once."""

    def __cinit__(self, *, uint32_t common_mtu, uint32_t largest_mtu, uint32_t most_kinds=1 << 16,
                  uint32_t most_conversations=1 << 16, uint32_t most_waiting=1 << 17):
        """most_kinds: a power of two; the others: see `Conversations`."""
        table_init(&self.kinds.table, most_kinds, sizeof(KindKey), sizeof(Kind), seed_or_drawn(None))
        self.roads = Roads()
        self.strangers = Strangers()
        self.conversations = Conversations(most=most_conversations, most_waiting=most_waiting, common_mtu=common_mtu,
                                           largest_mtu=largest_mtu, roads=self.roads)
        self.conversations.owner = &self.kinds
        self.conversations.settle = move

    def __dealloc__(self):
        table_free(&self.kinds.table)

    cdef bint is_full(self) noexcept nogil:
        return self.kinds.table.used == self.kinds.table.most

    cdef uint32_t note(self, const uint8_t *packet, uint32_t captured, const Event *event,
                       Direction marked) noexcept nogil:
        """Count one packet, of which `captured` bytes are here; the number of its kind, or, where the census is full
        and has not seen its like, as many as there can be: then it was not counted."""
        cdef KindKey key
        cdef Kind *kind
        cdef Segment segment
        cdef Ticket ticket
        self.frames += 1
        self.roads.frame = self.frames
        memset(&key, 0, sizeof(KindKey))        # padding is part of a key
        key.inner = event.judgement.inner
        key.outer = event.judgement.outer
        key.diagnosis = event.judgement.diagnosis
        key.reason = event.judgement.reason
        key.explanation = event.judgement.explanation
        key.would = event.would
        key.unverified = event.judgement.unverified
        segment.conversation = NULL
        if event.tunnel or event.judgement.outer == OUT_NO_TUNNEL:
            key.sender.tunnel = event.tunnel
            copy_source(&event.outer if event.tunnel else &event.inner, &key.sender)
            key.vni = event.vni
            key.marked = <uint8_t>marked
            key.fate = self.conversations.look(packet, captured, event, &segment)
            if segment.conversation == NULL and event.tunnel:
                self.roads.note(self.roads.of(event), Sight.PACKETS, 1)
                if event.judgement.reason == Reason.NO_IP:
                    self.roads.note_neighbour(packet, captured, event)
        if not event.tunnel:
            self.strangers.note_ip(packet, captured, self.frames)
            self.roads.note_icmp(packet, captured)
        if event.judgement.reason in (Reason.OUTER_FRAGMENT, Reason.INNER_FRAGMENT):
            self.note_part(packet, captured, event.when)
        kind = <Kind *>table_find(&self.kinds.table, &key)
        if kind == NULL:
            return self.kinds.table.most
        if kind.frame == 0:
            kind.first = event[0]
            kind.frame = self.frames
        kind.count += 1
        if key.fate == Fate.UNKNOWN and segment.conversation != NULL:
            ticket = Ticket(frame=self.frames, kind=table_number(&self.kinds.table, kind),
                            generation=self.kinds.generation)
            self.conversations.wait(&segment, &ticket)
        return table_number(&self.kinds.table, kind)

    cdef bint hand_over(self, Kind *box, int64_t stays, uint32_t *handed) noexcept nogil:
        """Copy the kinds that have changed to `box`, which has room for all, and count on from 0. Whether kinds were
        forgotten and the others numbered anew, for room: those of fewer than `stays` packets first.

        A kind that stays is known again by those that wait.
        """
        cdef Table *table = &self.kinds.table
        cdef Kind *kind
        cdef uint32_t number
        cdef bint crowded = table.used > table.most // 4 * 3
        handed[0] = 0
        for number in range(table.used):
            kind = <Kind *>table_entry(table, number)
            if kind.count:
                box[handed[0]] = kind[0]
                handed[0] += 1
        if crowded:
            table_keep(table, has_come_often, &stays)
            if table.used > table.most // 2:
                table_clear(table)
            self.kinds.generation += 1
        for number in range(table.used):
            (<Kind *>table_entry(table, number)).count = 0
        return crowded

    cdef void note_part(self, const uint8_t *packet, uint32_t captured, uint64_t when) noexcept nogil:
        """A fragment of the underlay, if it is one: what a first one shows of the conversation in it."""
        cdef uint8_t[HEADERS] whole
        cdef Walk here
        cdef Event event
        cdef Ports ports
        cdef Judgement judgement
        cdef Segment segment
        cdef uint32_t size = self.roads.note_fragment(packet, captured, whole, HEADERS)
        if size == 0:
            return
        memset(&judgement, 0, sizeof(Judgement))
        judgement.inner = IN_UNCHECKABLE
        judgement.diagnosis = UNCHECKABLE
        ports.count = 1
        ports.port[0] = be16(whole + (whole[0] & 15) * 4 + UDP_DESTINATION) if whole[0] >> 4 == 4 \
            else be16(whole + 48 + UDP_DESTINATION)
        walk(whole, size, 1 << 16, &ports, False, &here)
        if here.inner.field_read:
            describe(&event, whole, &here, &judgement, when)
            self.conversations.look(whole, size, &event, &segment)

    cdef void note_other(self, uint16_t ethertype) noexcept nogil:
        """Count a frame without IP; ethertype: 0 where there is none."""
        self.frames += 1
        self.not_ip += 1
        self.strangers.note_frame(ethertype)

    # The face to Python.

    @property
    def full(self):
        """Whether it must be drained before it takes another packet."""
        return self.is_full()

    def add(self, Result result not None, outgoing, packet=b""):
        """Count one packet by what `Pipeline.examine` said of it; outgoing: None if the capture does not know; packet:
        its bytes, without which nothing is known of its conversation.

        Raises BufferError if the census is full.
        """
        if self.is_full():
            raise BufferError("the census is full: drain it first")
        cdef const unsigned char[::1] data = packet
        self.note(&data[0] if data.shape[0] else NULL, <uint32_t>data.shape[0], &result.event,
                  UNMARKED if outgoing is None else OUTGOING if outgoing else INCOMING)

    def add_other(self, uint16_t ethertype=0):
        """Count a frame without IP."""
        self.note_other(ethertype)

    @property
    def unfollowed(self):
        """Packets that are not sound, and whose fate was lost for want of room."""
        return self.conversations.unfollowed + self.kinds.untold

    def drain(self):
        """Take out the kinds counted so far, in the order of their first packets: that packet's `Result`, whether they
        are marked as outgoing, what became of them, the number of the first one, and how many they are."""
        cdef Kind *kind
        cdef uint32_t number
        kinds = []
        for number in range(self.kinds.table.used):
            kind = <Kind *>table_entry(&self.kinds.table, number)
            if kind.count == 0:
                continue        # the fate of all of them was told
            kinds.append(as_counted(kind))
        table_clear(&self.kinds.table)
        self.kinds.generation += 1
        return kinds

    def end(self):
        """After the last packet: what still waits for an answer gets its fate. Drain the census after it."""
        self.conversations.end()
        self.roads.count_parts()


cdef as_counted(const Kind *kind):
    """A kind as `drain` tells it."""
    cdef Result result = Result.__new__(Result)
    result.event = kind.first
    return result, OUTGOING_NAMES[kind.key.marked], FATES[kind.key.fate], kind.frame, kind.count


cdef bint has_come_often(void *stays, void *kind) noexcept nogil:
    return (<Kind *>kind).count >= (<int64_t *>stays)[0]


cdef void move(void *owner, const Ticket *ticket, uint32_t count, Fate fate) noexcept nogil:
    """Packets that were counted go to the kind of what became of them. Not if they have been drained since, nor into
    the last place, which is for the packet that tells it."""
    cdef Kinds *kinds = <Kinds *>owner
    cdef Kind *here
    cdef Kind *there
    cdef KindKey key
    if ticket.generation != kinds.generation or kinds.table.used + 1 >= kinds.table.most:
        kinds.untold += count
        return
    here = <Kind *>table_entry(&kinds.table, ticket.kind)
    key = here.key
    key.fate = <uint32_t>fate
    there = <Kind *>table_find(&kinds.table, &key)
    if there.frame == 0:
        there.first = here.first
        there.frame = ticket.frame
    there.frame = min(there.frame, ticket.frame)
    there.count += count
    here.count -= count


cdef inline void copy_source(const Endpoints *end, Sender *sender) noexcept nogil:
    sender.version = end.version
    memcpy(sender.address, end.source, 16)
