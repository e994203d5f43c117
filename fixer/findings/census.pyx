# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from libc.string cimport memcmp, memcpy, memset

from fixer.datapath.diagnose cimport IN_PARTIAL, IN_VERIFIES, OUT_NO_TUNNEL
from fixer.datapath.hash cimport seed_or_drawn
from fixer.datapath.pipeline cimport INCOMING, OUTGOING, UNMARKED
from fixer.datapath.result cimport Result
from fixer.datapath.ring cimport Endpoints
from fixer.findings.table cimport table_clear, table_entry, table_find, table_free, table_init
from fixer.datapath.wire cimport PROTO_TCP, PROTO_UDP, TCP_ACK, address_text

OUTGOING_NAMES = {UNMARKED: None, INCOMING: False, OUTGOING: True}


cdef class Census:
    """Counts what a pipeline says of packets. One thread at once."""

    def __cinit__(self, *, uint32_t common_mtu, uint32_t largest_mtu,
                  uint32_t most_kinds=1 << 16, uint32_t most_conversations=1 << 16):
        """common_mtu, largest_mtu: the bounds in bytes between which lengths mean the same; most_kinds,
        most_conversations: powers of two. Conversations that begin when there is no more room are not followed."""
        seed = seed_or_drawn(None)
        self.common = common_mtu
        self.largest = largest_mtu
        table_init(&self.kinds, most_kinds, sizeof(KindKey), sizeof(Kind), seed)
        table_init(&self.conversations, most_conversations, sizeof(ConversationKey), sizeof(Conversation), seed)

    def __dealloc__(self):
        table_free(&self.kinds)
        table_free(&self.conversations)

    cdef bint is_full(self) noexcept nogil:
        return self.kinds.used == self.kinds.most

    cdef void note(self, const Event *event, Direction marked) noexcept nogil:
        """Count one packet. Only while the census is not full."""
        cdef KindKey key
        cdef Kind *kind
        self.frames += 1
        memset(&key, 0, sizeof(KindKey))        # padding is part of a key
        key.inner = event.judgement.inner
        key.outer = event.judgement.outer
        key.diagnosis = event.judgement.diagnosis
        key.reason = event.judgement.reason
        key.explanation = event.judgement.explanation
        key.would = event.would
        key.unverified = event.judgement.unverified
        if event.tunnel or event.judgement.outer == OUT_NO_TUNNEL:
            key.sender.tunnel = event.tunnel
            copy_source(&event.outer if event.tunnel else &event.inner, &key.sender)
            key.vni = event.vni
            key.marked = <uint8_t>marked
            key.length_class = (event.length > self.common) + (event.length > self.largest)
            if marked == UNMARKED:
                self.follow(&key.sender, event)
        kind = <Kind *>table_find(&self.kinds, &key)
        if kind.count == 0:
            kind.first = event[0]
        kind.count += 1

    cdef void note_other(self) noexcept nogil:
        """Count a frame without IP."""
        self.frames += 1
        self.not_ip += 1

    cdef void follow(self, const Sender *sender, const Event *event) noexcept nogil:
        """Remember who of an inner conversation sends unfinished segments, and who answers them.

        An acknowledgement is an answer; a bare SYN is not, it comes again and again from somebody who hears nothing.
        A UDP packet is one if the other side spoke first.
        """
        cdef const Endpoints *inner = &event.inner
        cdef ConversationKey key
        cdef Conversation *conversation
        cdef Speaker *here
        cdef int side
        if (event.judgement.inner != IN_PARTIAL and event.judgement.inner != IN_VERIFIES) \
                or (inner.protocol != PROTO_TCP and inner.protocol != PROTO_UDP):
            return
        side = memcmp(inner.source, inner.destination, 16)
        side = 1 if side > 0 or (side == 0 and inner.source_port > inner.destination_port) else 0
        memset(&key, 0, sizeof(ConversationKey))
        memcpy(key.address[side], inner.source, 16)
        memcpy(key.address[1 - side], inner.destination, 16)
        key.port[side] = inner.source_port
        key.port[1 - side] = inner.destination_port
        key.version = inner.version
        key.protocol = inner.protocol
        conversation = <Conversation *>table_find(&self.conversations, &key)
        if conversation == NULL:
            return
        here = &conversation.end[side]
        if not conversation.end[0].spoke and not conversation.end[1].spoke:
            conversation.began = <uint8_t>side
        if not here.spoke:
            here.spoke = True
            here.sender = sender[0]
        if event.judgement.inner == IN_PARTIAL:
            here.unfinished += 1
            return
        here.finished += 1
        if conversation.end[1 - side].unfinished:
            if inner.protocol == PROTO_TCP:
                here.answers += inner.tcp_flags & TCP_ACK != 0
            else:
                here.answers += conversation.began != side

    # The face to Python.

    @property
    def full(self):
        """Whether it must be drained before it takes another packet."""
        return self.is_full()

    def add(self, Result result not None, outgoing):
        """Count one packet by what `Pipeline.examine` said of it; outgoing: None if the capture does not know.

        Raises BufferError if the census is full.
        """
        if self.is_full():
            raise BufferError("the census is full: drain it first")
        self.note(&result.event, UNMARKED if outgoing is None else OUTGOING if outgoing else INCOMING)

    def add_other(self):
        """Count a frame without IP."""
        self.note_other()

    def drain(self):
        """Take out the kinds counted so far, in the order of their first packets: that packet's `Result`, whether they
        are marked as outgoing, and how many they are."""
        cdef Kind *kind
        cdef Result result
        cdef uint32_t number
        kinds = []
        for number in range(self.kinds.used):
            kind = <Kind *>table_entry(&self.kinds, number)
            result = Result.__new__(Result)
            result.event = kind.first
            kinds.append((result, OUTGOING_NAMES[kind.key.marked], kind.count))
        table_clear(&self.kinds)
        return kinds

    def answers(self):
        """What the conversations say of who sends unfinished segments: by (whether it is a VTEP, address) how many of
        these are in conversations where the other end answers them and sends none like them, and how many are not."""
        cdef Conversation *conversation
        cdef Speaker *here
        cdef Speaker *there
        cdef uint32_t number
        cdef int side
        found = {}
        for number in range(self.conversations.used):
            conversation = <Conversation *>table_entry(&self.conversations, number)
            for side in range(2):
                here, there = &conversation.end[side], &conversation.end[1 - side]
                if not here.unfinished:
                    continue
                name = bool(here.sender.tunnel), address_text(here.sender.version, here.sender.address)
                answered, unanswered = found.get(name, (0, 0))
                if there.answers and not there.unfinished and here.unfinished > here.finished:
                    answered += here.unfinished
                else:
                    unanswered += here.unfinished
                found[name] = answered, unanswered
        return found


cdef inline void copy_source(const Endpoints *end, Sender *sender) noexcept nogil:
    sender.version = end.version
    memcpy(sender.address, end.source, 16)
