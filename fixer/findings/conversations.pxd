# cython: language_level=3
"""What became of packets that are not sound: who of an inner conversation sent them, and what the other side said.

Both directions of a conversation are looked at together, and those of each VNI by themselves. What is broken waits here
until the other side acknowledges it, answers it or refuses it, until it is sent again, or until the capture ends; then
its `Fate` is told to whoever counted it. What is said of one packet is said of no other.

Memory is fixed. Conversations that begin when there is no more room are not followed; of too many packets that wait on
one side those in sequence wait together, else the oldest is given up. What finds no room is counted (`unfollowed`).
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fixer.datapath.ring cimport Event
from fixer.findings.progress cimport Progress
from fixer.findings.roads cimport Roads
from fixer.findings.table cimport Table


cpdef enum Fate:
    NONE = 0                 # sound, or nothing to follow
    FINISHED                 # sound, and of what a sender leaves to its NIC: so this was not taken before that NIC
    UNKNOWN                  # nothing would answer it, or no more was followed
    UNANSWERED               # it expects an answer, and the capture holds none
    ACCEPTED                 # acknowledged or answered: so its receiver found nothing wrong with it
    ACCEPTED_DATA            # the same of a segment with payload, which may be several that were merged
    REFUSED                  # answered by RST or port unreachable: so its checksum was right when it arrived
    LOST                     # sent again and never answered, or acknowledged only after it came again and was sound
    MERGED                   # of several packets, by the host that captured it: says nothing of who sent those


cdef struct ConversationKey:
    uint8_t address[2][16]   # the two inner ends, the lower one first
    uint16_t port[2]         # ICMP: its identifier, twice
    uint8_t version
    uint8_t protocol
    uint8_t tunnel
    uint8_t tenant           # which one it is of those with these ends, each in a VNI of its own


cdef struct Ticket:
    # Of whoever counted a packet that waits.
    uint64_t frame           # its number in the capture
    uint32_t kind
    uint32_t generation


cdef struct Waiting:
    Ticket ticket
    uint64_t when            # nanoseconds since the epoch, 0: unknown
    uint32_t begin           # TCP: sequence numbers, `end` behind SYN, payload and FIN. ICMP: sequence number.
    uint32_t end             # UDP: begin is the DNS identifier, or 0; end a digest of the datagram
    uint32_t stamp           # TSval, 0: none
    uint32_t long_payload    # bytes of payload of a packet that is longer than common ones, else 0
    uint32_t count           # packets that wait together
    uint32_t next            # place in the pool + 1; 0: the last
    bint mergeable           # TCP with payload: GRO merges nothing else
    bint expects             # something would answer it
    bint repeated            # the same was sent again
    bint overtaken           # the same bytes came again, and sound


cdef struct Side:
    uint32_t first           # place in the pool + 1 of what waits longest, 0: nothing
    uint32_t last
    uint32_t waiting         # entries
    uint32_t digest          # of its last UDP datagram
    uint32_t opened          # TCP: sequence number of its SYN, 0: not seen
    uint32_t finished        # bytes of the longest payload it sent whose checksum is finished
    uint32_t vni             # valid if it spoke
    uint32_t road            # number + 1, 0: not known
    uint32_t packets         # of this connection
    uint32_t asked           # SYNs, echo requests, DNS queries of it that were sound
    uint16_t most            # MSS that it announced, 0: not seen
    uint16_t spoke
    bint finishes            # TCP: a SYN, a FIN or payload of this connection was finished
    Progress progress


cdef struct Conversation:
    ConversationKey key
    Side side[2]
    uint8_t began            # the side that spoke first


cdef struct Segment:
    # One packet, as far as a conversation is concerned: valid until the next one is looked at.
    Conversation *conversation      # NULL: not followed
    int side                        # who sent it
    Waiting waiting                 # what to remember of it
    bint pure                       # TCP without a byte to acknowledge


ctypedef void (*Settle)(void *owner, const Ticket *ticket, uint32_t count, Fate fate) noexcept nogil


cdef class Conversations:
    cdef Table table
    cdef Waiting *pool
    cdef uint32_t size
    cdef uint32_t free              # place + 1 of the first one that was given back
    cdef uint32_t used
    cdef uint32_t common_mtu
    cdef uint32_t largest_mtu
    cdef readonly uint64_t unfollowed    # packets that are not sound, and for whose fate there was no room
    cdef Roads roads
    cdef void *owner
    cdef Settle settle
    cdef bint only_broken           # a conversation begins with what is broken: sound packets begin none
    cdef Fate look(self, const uint8_t *packet, uint32_t captured, const Event *event, Segment *out) noexcept nogil
    cdef void wait(self, const Segment *segment, const Ticket *ticket) noexcept nogil
    cdef void end(self) noexcept nogil
    cdef bint is_crowded(self) noexcept nogil
    cdef void age(self, uint64_t when) noexcept nogil
    cdef void age_side(self, Side *side, uint64_t when) noexcept nogil
    cdef Conversation *find(self, const Event *event, uint16_t one, uint16_t other, int *side,
                            const uint8_t *tcp) noexcept nogil
    cdef Conversation *of_tenant(self, ConversationKey *key, uint32_t vni, int side, const uint8_t *tcp,
                                 bint begins) noexcept nogil
    cdef void hear(self, Segment *segment, const Event *event, bint asks) noexcept nogil
    cdef void conclude(self, Conversation *conversation) noexcept nogil
    cdef void look_tcp(self, const uint8_t *tcp, uint32_t room, const Event *event, Segment *out) noexcept nogil
    cdef void look_udp(self, const uint8_t *udp, uint32_t room, const Event *event, Segment *out) noexcept nogil
    cdef void look_icmp(self, const uint8_t *icmp, uint32_t room, const Event *event, Segment *out) noexcept nogil
    cdef void look_unreachable(self, const uint8_t *original, uint32_t room, const Event *event) noexcept nogil
    cdef void acknowledge(self, Side *side, const uint8_t *tcp, uint32_t header) noexcept nogil
    cdef void refuse(self, Side *side, const uint8_t *tcp, uint8_t flags) noexcept nogil
    cdef void compare(self, Side *side, const Segment *segment, bint broken) noexcept nogil
    cdef void unheard(self, Side *side, uint64_t when) noexcept nogil
    cdef bint is_merged(self, const Event *event, const Segment *segment) noexcept nogil
    cdef void answer(self, Side *side, uint32_t begin, bint every) noexcept nogil
    cdef void let_go(self, Side *side, uint32_t *link, uint32_t before, Fate fate) noexcept nogil
    cdef void let_all_go(self, Conversation *conversation) noexcept nogil
