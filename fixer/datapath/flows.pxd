# cython: language_level=3
"""The connections whose timestamps are normalised, and one clock for each source: a table in memory that outlives us.

The table lies in memory that is handed in, which the daemon maps from a file, so that nothing is lost with the process.
Its size is fixed, every operation takes a bounded number of steps, and nothing in it is believed unchecked: whatever
identifies a connection or shifts its timestamps is covered by a check, and one store of one byte makes each change
valid, so that a kill between any two leaves the state before or the state after. What only speeds things up (the tags)
is private memory, made anew by whoever opens the table.

An entry lies in one of two buckets, which its hash names. A bucket's tags are half a cache line, all tags together stay
in the caches, and an entry is one cache line: so a search among any number of connections waits for memory once, and
hardly that if something else is done between `announce` and the question.

A connection is entered at its SYN. It is *normalised* if its delta is not 0: that is added to the TSval of what the
client sends and taken off the TSecr of what it is sent. A second SYN of the same five-tuple with another initial
sequence number is another attempt: it gets a delta of its own, which becomes the connection's once the server has
answered that SYN, so that a stray or forged one does no harm to a connection that lives.

The delta brings a SYN up to its source's clock: clocks.pxd.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fixer.datapath.clocks cimport Clock, Clocks


cpdef enum State:
    """Where a connection stands, as far as both directions have shown."""
    FREE = 0
    SYN_SENT                # by the client, unanswered
    SYN_RECEIVED            # answered by the server, not yet by the client
    ESTABLISHED
    HALF_CLOSED             # one side has sent its FIN
    TIME_WAIT               # both have
    CLOSED                  # a RST was sent


cpdef enum Verdict:
    """What the table says of a segment; its delta is 0 unless it is TRACKED."""
    UNTRACKED = 0           # of a connection that was there before, until its server replies, or that was left alone
    TRACKED
    OPENED                  # a SYN that was entered, whatever its delta
    FULL                    # a SYN there is no room for
    DRAINING                # a SYN that is left alone because the table is being drained
    NO_WAY_BACK             # a SYN that was entered with delta 0, because its server's replies are known not to pass us


cdef enum:
    # Bytes; the layout of the file, which `fixer.state.flowfile` reads too.
    HEADER = 4096
    HEADER_CHECKED = 20     # of it, in front of `check`
    KEY = 40
    FLOW = 64
    ATTEMPT = 12
    VERSION = 2

    PLAIN = 0x80000000U     # in `Key.where`: no VXLAN

    LEAST_FLOWS = 1024
    MOST_FLOWS = 4194304

    # `Flow.life`
    SECOND = 1              # attempt 1 is the connection's, not attempt 0
    WAITING = 2             # the other attempt waits for its answer

    # `Flow.fins`
    CLIENT_FIN = 1          # was sent
    SERVER_FIN = 2
    BOTH_FINS = 3
    SERVER_FIRST = 4        # and that was the first: what is `awaited` is valid

    # A SYN's window is not scaled (RFC 7323 §2.2): so far what is first sent or acknowledged behind it may be from it.
    FIRST_WINDOW = 0x10000

    BUCKET = 16             # entries
    SWEEPS = 64             # settles until every entry has been looked at

    # Seconds without a segment after which an entry is free. conntrack's, or more.
    SYN_SECONDS = 130       # Linux gives up a connect after 127 (tcp_syn_retries 6)
    ESTABLISHED_SECONDS = 432000
    HALF_CLOSED_SECONDS = 3600
    CLOSING_SECONDS = 120
    DISBELIEF_SECONDS = 2   # after which a segment of the server says that it did not believe a RST of the client


cdef struct Key:
    # Every byte counts; what is not used is 0.
    uint8_t client[16]      # network order; IPv4 in the first four bytes
    uint8_t server[16]
    uint32_t where          # IP version << 24, and the VNI or PLAIN
    uint8_t client_port[2]  # network order
    uint8_t server_port[2]


cdef struct Attempt:
    uint32_t sequence       # the SYN's
    uint32_t delta          # less than HALF_CIRCLE
    uint32_t check          # of the key and the two above


cdef struct Flow:
    Key key
    Attempt attempt         # attempt 0; attempt 1, which few ever have, is in `FlowTable.others`
    uint32_t seen           # uptime, seconds
    uint8_t state           # State
    uint8_t life            # SECOND | WAITING
    uint8_t fins            # CLIENT_FIN | SERVER_FIN | SERVER_FIRST
    uint8_t was             # State before a RST of the client
    uint32_t clock          # number of the source's clock when it was last looked for; believed only if it is that


cdef struct Header:
    uint8_t magic[8]
    uint32_t version
    uint32_t flows          # connections that may be entered, of which `slots_for` tells the number of entries
    uint32_t clocks
    uint32_t check          # of all of the above and the seed
    uint64_t seed
    # changed while the table is in use
    uint32_t draining       # written by `fixer off --drain`
    uint32_t normalised     # live connections with a delta other than 0
    uint32_t used           # entries
    uint64_t server_seed    # of `Clocks`


cdef struct FlowCounters:
    uint64_t evicted        # half-open connections that gave way to newer ones
    uint64_t expired
    uint64_t damaged        # entries whose check failed
    uint64_t one_way        # connections that were established though we never saw the server's SYN-ACK


cdef struct FlowTable:
    Clocks clocks
    Flow *flows             # `slots` of them
    Attempt *others         # of each entry, its attempt 1
    uint16_t *tags          # of each entry, 16 bits of its key's hash; 0: free
    uint64_t seed
    uint32_t buckets
    uint32_t slots
    # So far 64 bytes, what every segment asks for.
    Header *header
    uint32_t capacity
    uint32_t *half_open     # a ring of entries in the order of their SYNs: when it is full the oldest gives way
    uint32_t *born          # of each entry, its number in that order
    uint32_t births
    uint32_t half_open_most
    uint32_t hand           # of the sweep
    FlowCounters counted
    Clock one_way           # the last source of `counted.one_way`, for the log
    uint32_t one_way_turn   # odd while it is being written


cdef struct Segment:
    # What the table needs to know of a TCP segment. Numbers are host numbers.
    Key key
    uint8_t flags
    bint stamped            # it has timestamps: `value` is valid
    uint32_t sequence
    uint32_t acknowledged
    uint32_t length         # bytes of payload
    uint32_t value          # TSval, as it was sent
    uint32_t echoed         # TSecr, likewise; 0 without timestamps


cdef inline uint32_t place(uint8_t version, bint vxlan, uint32_t vni) noexcept nogil:
    """`Key.where`."""
    return <uint32_t>version << 24 | (vni if vxlan else PLAIN)


cdef inline uint8_t version_at(uint32_t where) noexcept nogil:
    """The IP version in a `Key.where`; 0 if it is that of no connection."""
    return <uint8_t>(where >> 24 & 0x7f)


cdef uint64_t announce(const FlowTable *table, const Key *key) noexcept nogil
cdef Verdict forward(FlowTable *table, const Segment *segment, uint64_t hashed, uint32_t now,
                     uint32_t *delta) noexcept nogil
cdef Verdict reply(FlowTable *table, const Segment *segment, uint64_t hashed, uint32_t now,
                   uint32_t *delta) noexcept nogil
cdef void sweep(FlowTable *table, uint32_t now) noexcept nogil


cdef class Flows:
    cdef FlowTable table
    cdef object memory      # keeps what is mapped mapped
