# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from libc.stdint cimport int32_t
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy, memset

from fixer.datapath.diagnose cimport (IN_PARTIAL, IN_VERIFIES, IN_WRONG, OUT_GOOD, OUT_NO_TUNNEL, OUT_ZERO, SOUND,
                                      UNCHECKABLE, BOTH_UNFINISHED, CORRUPT)
from fixer.datapath.hash cimport seed_or_drawn
from fixer.datapath.ring cimport Endpoints
from fixer.datapath.wire cimport *
from fixer.datapath.zeroed cimport zeroed
from fixer.findings.options cimport announced_mss, is_sacked, longest_sacked, timestamp
from fixer.findings.progress cimport is_later, progress_acknowledge, progress_sack, progress_send
from fixer.findings.roads cimport Roads, Sight
from fixer.findings.table cimport table_entry, table_find, table_free, table_init, table_keep, table_peek

cdef enum:
    MOST_WAITING = 32                # entries of one side
    MOST_TENANTS = 16                # conversations of the same ends that are told apart by their VNI
    NEAR = 1 << 20                   # an acknowledgement is of what was sent at most so many bytes before
    STAMPED_HEADER = 32              # of a TCP header that has timestamps and nothing else, which begin so:
    STAMPED = 0x0101080a
    PATIENCE = 30                    # seconds on a wire until what waits is not answered any more …
    PATIENCE_AGAIN = 10              # … and what was sent again is lost
    DNS_PORT = 53
    DHCP_SERVER = 67
    DHCP_CLIENT = 68
    ACK_WINDOW = 0x40000000          # an acknowledgement reaches so far back (RFC 7323 §2.3)
    ECHO_REPLY = 0
    UNREACHABLE = 3
    PORT_UNREACHABLE = 3
    ECHO = 8
    ECHO6 = 128
    ECHO_REPLY6 = 129
    SOLICITATION = 135               # RFC 4861 §4.3, §4.4
    ADVERTISEMENT = 136
    UNREACHABLE6 = 1
    PORT_UNREACHABLE6 = 4
    ICMP_ID = 4
    ICMP_SEQUENCE = 6
    ICMP_ORIGINAL = 8


cdef class Conversations:
    """Memory of what waits for an answer. One thread at once."""

    def __cinit__(self, *, uint32_t most, uint32_t most_waiting, uint32_t common_mtu, uint32_t largest_mtu,
                  Roads roads not None):
        """most: conversations, a power of two; most_waiting: packets of all of them; common_mtu, largest_mtu: bytes,
        see `is_merged`; roads: where it is noted how they go."""
        self.roads = roads
        self.common_mtu = common_mtu
        self.largest_mtu = largest_mtu
        table_init(&self.table, most, sizeof(ConversationKey), sizeof(Conversation), seed_or_drawn(None))
        self.size = most_waiting
        self.pool = <Waiting *>zeroed(most_waiting, sizeof(Waiting), "what waits")

    def __dealloc__(self):
        table_free(&self.table)
        free(self.pool)

    cdef Fate look(self, const uint8_t *packet, uint32_t captured, const Event *event, Segment *out) noexcept nogil:
        """What is known of a packet as it comes, after telling what it says of those that wait.

        If that is UNKNOWN and `out.conversation` is not NULL it may `wait`.
        """
        cdef const Endpoints *inner = &event.inner
        cdef bint broken = is_broken(event)
        cdef Fate fate = Fate.UNKNOWN if broken else Fate.NONE
        cdef uint32_t room
        memset(out, 0, sizeof(Segment))
        if not event.transport or event.transport >= captured:
            return fate
        room = captured - event.transport
        out.waiting.when = event.when
        out.waiting.count = 1
        if inner.protocol == PROTO_TCP and room >= TCP_HEADER:
            self.look_tcp(packet + event.transport, room, event, out)
        elif inner.protocol == PROTO_UDP and room >= UDP_HEADER:
            self.look_udp(packet + event.transport, room, event, out)
        elif inner.protocol in (PROTO_ICMP, PROTO_ICMP6) and room >= ICMP_ORIGINAL:
            self.look_icmp(packet + event.transport, room, event, out)
        if broken:
            if out.conversation == NULL and self.table.used == self.table.most:
                self.unfollowed += 1
            if event.judgement.inner == IN_PARTIAL and self.is_merged(event, out):
                fate = Fate.MERGED
        elif event.judgement.inner == IN_VERIFIES and event.judgement.outer in (OUT_GOOD, OUT_ZERO, OUT_NO_TUNNEL) \
                and is_left_to_nics(inner, out):
            fate = Fate.FINISHED
        return fate

    cdef bint is_merged(self, const Event *event, const Segment *segment) noexcept nogil:
        """Whether an unfinished packet is several, merged by GRO or still to be cut by GSO where it was captured.

        No wire carried it: it is longer than the largest jumbo frame; longer than a common packet with nothing finished
        on either layer, as only a sender that leaves the cutting to its NIC does it, or a receiver that merged what had
        an outer checksum; or has more payload than its receiver takes in one segment (MSS, RFC 9293 §3.7.1).
        """
        cdef uint16_t most
        if event.length > self.largest_mtu:
            return True
        if event.length > self.common_mtu and event.judgement.diagnosis in (BOTH_UNFINISHED, CORRUPT):
            return True
        if segment.conversation == NULL or event.inner.protocol != PROTO_TCP:
            return False
        most = segment.conversation.side[1 - segment.side].most
        return most != 0 and segment.waiting.end - segment.waiting.begin > <uint32_t>most + 1

    cdef void wait(self, const Segment *segment, const Ticket *ticket) noexcept nogil:
        """Let a packet wait for what becomes of it."""
        cdef Side *side = &segment.conversation.side[segment.side]
        cdef Waiting *last
        cdef Waiting *new
        cdef uint32_t place
        if side.waiting >= MOST_WAITING:
            last = &self.pool[side.last - 1]
            if last.end == segment.waiting.begin and last.ticket.kind == ticket.kind and not segment.pure \
                    and last.ticket.generation == ticket.generation and not segment.waiting.repeated \
                    and segment.conversation.key.protocol == PROTO_TCP:
                last.end = segment.waiting.end
                last.count += 1
                return
            self.let_go(side, &side.first, 0, Fate.UNKNOWN)
        if self.free:
            place = self.free
            self.free = self.pool[place - 1].next
        elif self.used < self.size:
            self.used += 1
            place = self.used
        else:
            self.unfollowed += 1
            return
        new = &self.pool[place - 1]
        new[0] = segment.waiting
        new.ticket = ticket[0]
        new.next = 0
        if side.last:
            self.pool[side.last - 1].next = place
        else:
            side.first = place
        side.last = place
        side.waiting += 1

    cdef void end(self) noexcept nogil:
        """The capture is over: what still waits was lost if it was sent again, and is unanswered if not."""
        cdef uint32_t number
        for number in range(self.table.used):
            self.let_all_go(<Conversation *>table_entry(&self.table, number))
            self.conclude(<Conversation *>table_entry(&self.table, number))

    cdef void conclude(self, Conversation *conversation) noexcept nogil:
        """A connection is over: what is to be said of the roads that its two sides took."""
        cdef Side *side
        cdef uint64_t now = self.roads.frame
        cdef int number
        cdef uint32_t heard[2]
        self.roads.frame = 0            # none of this is of one frame
        for number in range(2):
            heard[number] = conversation.side[1 - number].packets
        for number in range(2):
            side = &conversation.side[number]
            self.roads.note_end(side.road, &side.progress)
            self.roads.note(side.road, Sight.PACKETS, side.packets)
            if heard[number] == 0:
                self.roads.note(side.road, Sight.ASKED, side.asked)
            elif number == conversation.began:
                self.roads.note(side.road, Sight.ANSWERED, 1)
            side.packets = side.asked = 0
            memset(&side.progress, 0, sizeof(side.progress))
        self.roads.frame = now

    cdef bint is_crowded(self) noexcept nogil:
        """Whether there is little room for another conversation, or for what waits."""
        return self.table.used > self.table.most // 4 * 3 or (self.used == self.size and self.free == 0)

    cdef void age(self, uint64_t when) noexcept nogil:
        """On a wire, which has no end: what has waited for long gets its fate, conversations in which nothing waits are
        forgotten, and if there is no room then, all of them.

        `when`: nanoseconds since the epoch, as packets have it.
        """
        cdef Conversation *conversation
        cdef uint32_t number
        cdef int side
        for number in range(self.table.used):
            conversation = <Conversation *>table_entry(&self.table, number)
            for side in range(2):
                self.age_side(&conversation.side[side], when)
        table_keep(&self.table, is_waiting, NULL)
        if self.is_crowded():
            for number in range(self.table.used):
                conversation = <Conversation *>table_entry(&self.table, number)
                for side in range(2):
                    while conversation.side[side].first:
                        self.let_go(&conversation.side[side], &conversation.side[side].first, 0, Fate.UNKNOWN)
            table_keep(&self.table, is_waiting, NULL)

    cdef void age_side(self, Side *side, uint64_t when) noexcept nogil:
        cdef uint32_t before = 0, place = side.first
        cdef uint32_t *link = &side.first
        cdef Waiting *one
        cdef uint64_t age
        while place:
            one = &self.pool[place - 1]
            age = when - one.when if when > one.when else 0
            if age >= <uint64_t>(PATIENCE_AGAIN if one.repeated else PATIENCE) * 1000000000U:
                self.let_go(side, link, before, Fate.UNANSWERED)
                place = link[0]
            else:
                before, link, place = place, &one.next, one.next

    # How each protocol answers.

    cdef Conversation *find(self, const Event *event, uint16_t one, uint16_t other, int *side,
                            const uint8_t *tcp) noexcept nogil:
        """The conversation of `event`, from port `one` to port `other`, and which side has sent it; NULL if it is not
        followed. tcp: its TCP header, or NULL."""
        cdef ConversationKey key
        cdef Conversation *found
        cdef const Endpoints *inner = &event.inner
        cdef int place = memcmp(inner.source, inner.destination, 16)
        place = 1 if place > 0 or (place == 0 and one > other) else 0
        memset(&key, 0, sizeof(ConversationKey))
        memcpy(key.address[place], inner.source, 16)
        memcpy(key.address[1 - place], inner.destination, 16)
        key.port[place] = one
        key.port[1 - place] = other
        key.version = inner.version
        key.protocol = inner.protocol
        key.tunnel = <uint8_t>event.tunnel
        side[0] = place
        found = self.of_tenant(&key, event.vni, place, tcp, not self.only_broken or is_broken(event))
        if found != NULL:
            if not found.side[0].spoke and not found.side[1].spoke:
                found.began = <uint8_t>place
            found.side[place].spoke = True
            found.side[place].vni = event.vni
        return found

    cdef Conversation *of_tenant(self, ConversationKey *key, uint32_t vni, int side, const uint8_t *tcp,
                                 bint begins) noexcept nogil:
        """Of all conversations with these ends the one in this VNI; `begins`: or else a new one.

        Where the way back has a VNI of its own (a router at either end, RFC 9135 §4.1), an answer joins what it is an
        answer to: of TCP only if it acknowledges what was sent there.
        """
        cdef Conversation *found
        cdef Conversation *asked = NULL
        cdef const Side *there
        cdef int tenant
        for tenant in range(MOST_TENANTS):
            key.tenant = <uint8_t>tenant
            found = <Conversation *>table_peek(&self.table, key)
            if found == NULL:
                break
            there = &found.side[1 - side]
            if found.side[side].spoke:
                if found.side[side].vni == vni:
                    return found
            elif there.vni == vni:
                return found
            elif asked == NULL and (tcp == NULL or is_answer(tcp, there)):
                asked = found
        else:
            return asked
        return asked if asked != NULL or not begins else <Conversation *>table_find(&self.table, key)

    cdef void hear(self, Segment *segment, const Event *event, bint asks) noexcept nogil:
        """A packet of one side, and on which road it came; asks: if it is sound, somebody answers it."""
        cdef Side *side = &segment.conversation.side[segment.side]
        if side.road == 0:
            side.road = self.roads.of(event)
        side.packets += 1
        side.asked += asks and not is_broken(event)

    cdef void look_tcp(self, const uint8_t *tcp, uint32_t room, const Event *event, Segment *out) noexcept nogil:
        cdef uint32_t header = <uint32_t>(tcp[TCP_OFFSET] >> 4) * 4
        cdef uint8_t flags = tcp[TCP_FLAGS]
        cdef uint32_t payload
        cdef Side *here
        cdef Side *there
        if header < TCP_HEADER or header > event.covered or header > room:
            return
        out.conversation = self.find(event, event.inner.source_port, event.inner.destination_port, &out.side, tcp)
        if out.conversation == NULL:
            return
        here = &out.conversation.side[out.side]
        there = &out.conversation.side[1 - out.side]
        payload = event.covered - header
        out.waiting.begin = be32(tcp + TCP_SEQUENCE)
        out.waiting.end = out.waiting.begin + payload + (flags & TCP_SYN != 0) + (flags & TCP_FIN != 0)
        out.pure = out.waiting.begin == out.waiting.end
        out.waiting.expects = not out.pure and not flags & TCP_RST
        out.waiting.mergeable = payload != 0 and not flags & TCP_SYN
        out.waiting.stamp = timestamp(tcp, header, TCP_TSVAL)
        if event.judgement.inner == IN_VERIFIES:
            here.finishes |= not out.pure
            if payload > here.finished:
                here.finished = payload
        if event.length > self.common_mtu:
            out.waiting.long_payload = payload
        if event.judgement.inner != IN_WRONG and there.first:
            if flags & TCP_RST:
                self.refuse(there, tcp, flags)
            elif flags & TCP_ACK:
                self.acknowledge(there, tcp, header)
        if flags & TCP_SYN and event.judgement.inner != IN_WRONG:
            if here.opened and here.opened != out.waiting.begin:    # another connection between the same ports
                self.let_all_go(out.conversation)
                self.conclude(out.conversation)
                here.finished = there.finished = 0
                here.finishes = event.judgement.inner == IN_VERIFIES
                there.finishes = False
            here.opened = out.waiting.begin
            here.most = announced_mss(tcp, header)
        if here.first and not out.pure:
            self.compare(here, out, is_broken(event))
        self.hear(out, event, flags & (TCP_SYN | TCP_ACK) == TCP_SYN)
        if event.judgement.inner == IN_WRONG:
            return
        if flags & TCP_ACK:
            progress_acknowledge(&there.progress, be32(tcp + TCP_ACKNOWLEDGED))
            if header > STAMPED_HEADER or (header == STAMPED_HEADER and be32(tcp + TCP_HEADER) != STAMPED):
                progress_sack(&there.progress, longest_sacked(tcp, header))
        if payload and not flags & TCP_SYN:
            progress_send(&here.progress, out.waiting.begin, payload, not is_broken(event), event.when,
                          self.roads.frame)

    cdef void look_udp(self, const uint8_t *udp, uint32_t room, const Event *event, Segment *out) noexcept nogil:
        cdef uint16_t source = event.inner.source_port, destination = event.inner.destination_port
        cdef bint dns = (source == DNS_PORT or destination == DNS_PORT) and room >= UDP_HEADER + 2
        cdef uint32_t digest = <uint32_t>event.judgement.inner_right << 16 | (event.covered & 0xffff)
        cdef Side *here
        cdef Side *there
        out.conversation = self.find(event, source, destination, &out.side, NULL)
        if out.conversation == NULL:
            return
        here = &out.conversation.side[out.side]
        there = &out.conversation.side[1 - out.side]
        out.waiting.begin = be16(udp + UDP_HEADER) if dns else 0
        out.waiting.end = digest
        out.waiting.expects = dns and destination == DNS_PORT
        self.hear(out, event, out.waiting.expects)
        if there.first and event.judgement.inner != IN_WRONG:
            if out.conversation.began != out.side:
                self.answer(there, out.waiting.begin, not dns)
            elif here.digest == digest:
                self.unheard(there, event.when)
        here.digest = digest
        if here.first:
            self.compare(here, out, is_broken(event))

    cdef void unheard(self, Side *side, uint64_t when) noexcept nogil:
        """The other side asks the same again: it has not heard the answers that wait."""
        cdef uint32_t place = side.first
        while place:
            if is_later(when, self.pool[place - 1].when):
                self.pool[place - 1].repeated = True
            place = self.pool[place - 1].next

    cdef void look_icmp(self, const uint8_t *icmp, uint32_t room, const Event *event, Segment *out) noexcept nogil:
        """Echoes, which carry an identifier and a number, and the refusal of a port (RFC 792, RFC 4443)."""
        cdef bint six = event.inner.protocol == PROTO_ICMP6
        cdef uint8_t kind = icmp[0]
        cdef uint16_t identifier
        if kind == (ECHO6 if six else ECHO) or kind == (ECHO_REPLY6 if six else ECHO_REPLY):
            identifier = be16(icmp + ICMP_ID)
            out.conversation = self.find(event, identifier, identifier, &out.side, NULL)
            if out.conversation == NULL:
                return
            out.waiting.begin = out.waiting.end = be16(icmp + ICMP_SEQUENCE)
            out.waiting.expects = kind == (ECHO6 if six else ECHO)
            self.hear(out, event, out.waiting.expects)
            if not out.waiting.expects and event.judgement.inner != IN_WRONG:
                self.answer(&out.conversation.side[1 - out.side], out.waiting.begin, False)
        elif event.judgement.inner != IN_WRONG and kind == (UNREACHABLE6 if six else UNREACHABLE) \
                and icmp[1] == (PORT_UNREACHABLE6 if six else PORT_UNREACHABLE):
            self.look_unreachable(icmp + ICMP_ORIGINAL, room - ICMP_ORIGINAL, event)
        elif event.tunnel:
            if six and kind in (SOLICITATION, ADVERTISEMENT):
                self.roads.note(self.roads.of(event), Sight.SOUGHT if kind == SOLICITATION else Sight.FOUND, 1)
            self.roads.note_too_long(icmp, room, event)

    cdef void look_unreachable(self, const uint8_t *original, uint32_t room, const Event *event) noexcept nogil:
        """A receiver quotes the datagram to a port where nobody listens, having verified it."""
        cdef Event quoted
        cdef uint32_t header
        cdef ConversationKey key
        cdef Conversation *conversation
        cdef int side, tenant
        memset(&key, 0, sizeof(ConversationKey))
        if event.inner.version == 4:
            if room < IP4_HEADER:
                return
            header = <uint32_t>(original[0] & 15) * 4
            key.protocol = original[IP4_PROTOCOL]
        else:
            header = IP6_HEADER
            if room < header:
                return
            key.protocol = original[IP6_NEXT]
        if header < IP4_HEADER or room < header + 4 or key.protocol != PROTO_UDP:
            return
        memset(&quoted, 0, sizeof(Event))
        if event.inner.version == 4:
            memcpy(quoted.inner.source, original + IP4_SOURCE, 4)
            memcpy(quoted.inner.destination, original + IP4_DESTINATION, 4)
        else:
            memcpy(quoted.inner.source, original + IP6_SOURCE, 16)
            memcpy(quoted.inner.destination, original + IP6_DESTINATION, 16)
        side = memcmp(quoted.inner.source, quoted.inner.destination, 16)
        side = 1 if side > 0 or (side == 0 and be16(original + header) > be16(original + header + 2)) else 0
        memcpy(key.address[side], quoted.inner.source, 16)
        memcpy(key.address[1 - side], quoted.inner.destination, 16)
        key.port[side] = be16(original + header + UDP_SOURCE)
        key.port[1 - side] = be16(original + header + UDP_DESTINATION)
        key.version = event.inner.version
        key.tunnel = <uint8_t>event.tunnel
        for tenant in range(MOST_TENANTS):
            key.tenant = <uint8_t>tenant
            conversation = <Conversation *>table_peek(&self.table, &key)
            if conversation == NULL:
                return
            if conversation.side[side].vni == event.vni and conversation.side[side].first:
                self.let_go(&conversation.side[side], &conversation.side[side].first, 0, Fate.REFUSED)
                return

    # What one packet says of those that wait.

    cdef void acknowledge(self, Side *side, const uint8_t *tcp, uint32_t header) noexcept nogil:
        """By number, by a selective block (RFC 2018 §3), or, where there is no byte to acknowledge, by timestamp."""
        cdef uint32_t acknowledged = be32(tcp + TCP_ACKNOWLEDGED)
        cdef uint32_t echoed = timestamp(tcp, header, TCP_TSECR)
        cdef uint32_t before = 0, place = side.first
        cdef uint32_t *link = &side.first
        cdef Waiting *one
        while place:
            one = &self.pool[place - 1]
            if one.begin == one.end:
                if not one.stamp or one.stamp != echoed:
                    before, link, place = place, &one.next, one.next
                    continue
            elif acknowledged - one.end >= ACK_WINDOW and not is_sacked(tcp, header, one.begin, one.end):
                before, link, place = place, &one.next, one.next
                continue
            self.let_go(side, link, before, Fate.LOST if one.overtaken else Fate.ACCEPTED)
            place = link[0]

    cdef void refuse(self, Side *side, const uint8_t *tcp, uint8_t flags) noexcept nogil:
        """A RST acknowledges what it refuses, or has the number that was acknowledged to it (RFC 9293 §3.5.2): then it
        is about what came last."""
        cdef uint32_t acknowledged = be32(tcp + TCP_ACKNOWLEDGED)
        cdef uint32_t before = 0, place = side.first
        cdef uint32_t *link = &side.first
        cdef Waiting *one
        while place:
            one = &self.pool[place - 1]
            if (flags & TCP_ACK and one.begin != one.end and acknowledged - one.end < ACK_WINDOW) \
                    or (not flags & TCP_ACK and one.next == 0):
                self.let_go(side, link, before, Fate.LOST if one.overtaken else Fate.REFUSED)
                place = link[0]
            else:
                before, link, place = place, &one.next, one.next

    cdef void compare(self, Side *side, const Segment *segment, bint broken) noexcept nogil:
        """Whether what waits on its sender's own side has come again, as it was or sound."""
        cdef bint tcp = segment.conversation.key.protocol == PROTO_TCP
        cdef uint32_t place = side.first
        cdef Waiting *one
        cdef Segment *mine = <Segment *>segment
        while place:
            one = &self.pool[place - 1]
            if is_later(segment.waiting.when, one.when):
                if one.begin == segment.waiting.begin and one.end == segment.waiting.end:
                    one.repeated |= broken
                    one.overtaken |= not broken
                    mine.waiting.repeated |= broken
                elif tcp and not broken and <int32_t>(one.end - segment.waiting.begin) > 0 \
                        and <int32_t>(segment.waiting.end - one.begin) > 0:
                    one.overtaken = True
            place = one.next

    cdef void answer(self, Side *side, uint32_t begin, bint every) noexcept nogil:
        """A datagram answers what was asked before it: everything, or what has its number."""
        cdef uint32_t before = 0, place = side.first
        cdef uint32_t *link = &side.first
        cdef Waiting *one
        while place:
            one = &self.pool[place - 1]
            if every or one.begin == begin:
                self.let_go(side, link, before, Fate.ACCEPTED)
                place = link[0]
            else:
                before, link, place = place, &one.next, one.next

    cdef void let_go(self, Side *side, uint32_t *link, uint32_t before, Fate fate) noexcept nogil:
        """Tell the fate of what `link` leads to, which is behind place + 1 `before` (0: the first), and free it."""
        cdef uint32_t place = link[0]
        cdef Waiting *one = &self.pool[place - 1]
        if fate == Fate.UNANSWERED and not one.expects:
            fate = Fate.UNKNOWN
        if fate in (Fate.UNKNOWN, Fate.UNANSWERED) and (one.repeated or one.overtaken):
            fate = Fate.LOST
        if fate in (Fate.UNKNOWN, Fate.UNANSWERED) and side.finished and one.long_payload > side.finished:
            fate = Fate.MERGED
        if fate == Fate.ACCEPTED and one.mergeable:
            fate = Fate.ACCEPTED_DATA
        if fate != Fate.UNKNOWN:
            self.settle(self.owner, &one.ticket, one.count, fate)
        link[0] = one.next
        if side.last == place:
            side.last = before
        side.waiting -= 1
        one.next = self.free
        self.free = place

    cdef void let_all_go(self, Conversation *conversation) noexcept nogil:
        cdef Side *side
        cdef int number
        for number in range(2):
            side = &conversation.side[number]
            while side.first:
                self.let_go(side, &side.first, 0, Fate.UNANSWERED)


cdef inline bint is_broken(const Event *event) noexcept nogil:
    return event.judgement.diagnosis != SOUND and event.judgement.diagnosis != UNCHECKABLE


cdef inline bint is_left_to_nics(const Endpoints *inner, const Segment *segment) noexcept nogil:
    """Whether a sender's kernel leaves such a packet's checksum to its NIC.

    What Linux answers without a socket it finishes itself over IPv4: a RST, and an acknowledgement in TIME_WAIT
    (ip_send_unicast_reply); that may be any without a byte, of a side none of whose others was finished. DHCP's clients
    and servers write whole packets.
    """
    if inner.protocol == PROTO_UDP:
        return not (inner.source_port in (DHCP_SERVER, DHCP_CLIENT)
                    and inner.destination_port in (DHCP_SERVER, DHCP_CLIENT))
    if inner.protocol != PROTO_TCP or inner.tcp_flags & TCP_RST or segment.conversation == NULL:
        return False
    return not segment.pure or segment.conversation.side[segment.side].finishes


cdef inline bint is_answer(const uint8_t *tcp, const Side *there) noexcept nogil:
    """Whether a TCP header acknowledges what the other side has sent of late."""
    cdef uint32_t upto = there.progress.next if there.progress.sent else there.opened + 1
    return tcp[TCP_FLAGS] & TCP_ACK != 0 and upto - be32(tcp + TCP_ACKNOWLEDGED) < NEAR


cdef bint is_waiting(void *unused, void *conversation) noexcept nogil:
    return (<Conversation *>conversation).side[0].first != 0 or (<Conversation *>conversation).side[1].first != 0
