# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from launder.sums cimport below, draw, field_of, fold, get16, pick, pseudo, put16, put32, words


cdef int world_new(World *world, const Traffic *traffic, uint64_t seed) except -1:
    cdef uint32_t i
    memset(world, 0, sizeof(World))
    world.traffic = traffic[0]
    world.state = seed
    world.pairs = <Pair *>calloc(traffic.pairs, sizeof(Pair))
    world.envelopes = <Envelope *>calloc(<size_t>traffic.pairs * traffic.envelopes, sizeof(Envelope))
    world.flows = <Flow *>calloc(traffic.flows, sizeof(Flow))
    if world.pairs == NULL or world.envelopes == NULL or world.flows == NULL:
        world_free(world)
        raise MemoryError
    for i in range(POOL):
        world.pool[i] = <uint8_t>draw(&world.state)
    for i in range(traffic.pairs):
        draw_pair(world, i, &world.pairs[i])
    for i in range(traffic.pairs * traffic.envelopes):
        draw_envelope(world, i % traffic.pairs, i // traffic.pairs, &world.envelopes[i])
    for i in range(traffic.flows):
        draw_flow(world, i, &world.flows[i])
    return 0


cdef void world_free(World *world) noexcept nogil:
    free(world.pairs)
    free(world.envelopes)
    free(world.flows)


cdef void draw_pair(World *world, uint32_t number, Pair *out) noexcept nogil:
    """One receiver, numbered senders: a bit of one's address is another's."""
    cdef uint64_t *state = &world.state
    memset(out, 0, sizeof(Pair))
    out.version = 6 if below(state, 1000) < world.traffic.underlay6 else 4
    out.cause = <uint8_t>pick(state, world.traffic.causes, CAUSES)
    if out.version == 4:
        put32(out.source, 0x0a000001 + number)
        put32(out.destination, 0x0a00ff01)
    else:
        put32(out.source, 0xfd200000U)
        put32(out.source + 12, 1 + number)
        put32(out.destination, 0xfd200000U)
        put32(out.destination + 12, 0xff01)
    memcpy(out.arrives, out.source, 16)
    if out.cause == FIELD or out.cause == ADDRESS:
        put32(out.arrives, (0xcb007100U if out.version == 4 else 0xfd300000U) + 1 + below(state, 250))


cdef void draw_envelope(World *world, uint32_t pair, uint32_t number, Envelope *out) noexcept nogil:
    cdef uint64_t *state = &world.state
    cdef bint dense = world.traffic.dense
    cdef uint32_t network = below(state, 4)
    memset(out, 0, sizeof(Envelope))
    out.pair = pair
    # Dense: at most 64 containers of this sender, each one talking to several of at most 64 here.
    out.number[0] = (2 + 64 * (pair & 3) + number % 8) if dense else <uint32_t>draw(state)
    out.number[1] = (130 + number // 8) if dense else <uint32_t>draw(state)
    out.bytes[0] = 0x08
    if not dense and below(state, 8) == 0:      # Group Policy
        out.bytes[0] = 0x88
        put16(out.bytes + 2, below(state, 65536))
    put32(out.bytes + 4, (4097 + network if dense else below(state, 1 << 24)) << 8)
    put_mac(out.bytes + 8, network, out.number[1], dense)
    put_mac(out.bytes + 14, network, out.number[0], dense)
    out.size = 20
    while out.size < 28 and below(state, 1000) < world.traffic.tagged:
        put16(out.bytes + out.size, 0x88a8 if out.size == 20 and below(state, 2) else 0x8100)
        put16(out.bytes + out.size + 2, below(state, 65536))
        out.size += 4


cdef inline void put_mac(uint8_t *at, uint32_t network, uint32_t number, bint dense) noexcept nogil:
    put16(at, 0x0242)
    put32(at + 2, 0x0a000000 + (network << 8) + number if dense else number)


cdef void draw_flow(World *world, uint32_t number, Flow *out) noexcept nogil:
    cdef uint64_t *state = &world.state
    cdef const Envelope *envelope
    cdef uint8_t *address
    cdef int end
    memset(out, 0, sizeof(Flow))
    out.envelope = number % (world.traffic.pairs * world.traffic.envelopes)
    envelope = &world.envelopes[out.envelope]
    out.version = 6 if below(state, 1000) < world.traffic.inner6 else 4
    out.kind = <uint8_t>pick(state, world.traffic.kinds, KINDS)
    out.stamped = below(state, 2)
    for end in range(2):
        address = &out.source[0] if end == 0 else &out.destination[0]
        put32(address, 0xac100000U + (envelope.number[end] & 0xfffff) if out.version == 4 else 0xfd100000U)
        if out.version == 6:
            put32(address + 12, envelope.number[end])
    if not world.traffic.dense:                 # routed: many addresses behind one MAC
        put16(out.source + (2 if out.version == 4 else 10), 0x1000 + below(state, 0x1000))
    out.ports[0] = <uint16_t>(32768 + below(state, 28232))
    out.ports[1] = <uint16_t>(1 + below(state, 1023))
    out.outer_port = <uint16_t>(32768 + below(state, 28232))
    out.identification = <uint16_t>draw(state)
    out.sequence = <uint32_t>draw(state)
    out.clock = <uint32_t>draw(state)


cdef void make(World *world, Flow *flow, bint strange, uint64_t *state, uint8_t *bytes, Packet *out) noexcept nogil:
    """The next packet of `flow`: all but the outer checksum, which `seal` makes.

    A stranger's is of `flow`, in an envelope that nobody uses. `state`: the random numbers that this packet is made of.
    """
    cdef const Traffic *traffic = &world.traffic
    cdef Envelope *envelope = &world.envelopes[flow.envelope]
    cdef const Pair *pair = &world.pairs[envelope.pair]
    cdef uint32_t at, size
    memset(out, 0, sizeof(Packet))
    out.envelope = flow.envelope
    out.strange = strange
    out.kind = flow.kind
    out.garbage = <uint16_t>draw(state)
    out.sent = <uint8_t>pick(state, traffic.sent, SENT)
    if strange:
        pair = stranger(world, pair, state)
        envelope = &world.strangers
        out.cause = <uint8_t>traffic.strange_cause
        out.sent = <uint8_t>traffic.strange_sent
    elif pair.cause != STRAIGHT and below(state, 1000) < traffic.translated:
        out.cause = pair.cause
    if out.cause == FFFF or out.cause == FIELD:
        out.sent = ZERO
    elif (out.cause == PORT or out.cause == ADDRESS) and out.sent != GOOD:
        out.sent = LCO
    out.pair = pair
    out.underlay = pair.version
    out.udp = outer_header(pair, flow, below(state, 1000) < traffic.options, bytes, state)
    out.vxlan = out.udp + 8
    out.ethernet = out.vxlan + 8
    memcpy(bytes + out.vxlan, envelope.bytes, envelope.size)
    at = out.vxlan + envelope.size
    out.ip = at + 2
    inner_packet(world, flow, at, state, bytes, out)
    size = 0
    if out.end - out.ethernet < 60:             # as short frames come, and as they come from virtual devices
        size = (60 - (out.end - out.ethernet)) * (below(state, 1000) < traffic.padded)
    elif below(state, 1000) < traffic.padded:
        size = 1 + below(state, 9)
    out.length = out.end + size
    memset(bytes + out.end, 0, size)
    if size and out.inner == COMPLETE and below(state, 4) == 0:
        memcpy(bytes + out.end, world.pool, size)
    if below(state, 1000) < traffic.fresh_port:
        flow.outer_port = <uint16_t>(32768 + below(state, 28232))
    out.old_port = out.new_port = flow.outer_port
    if out.cause == PORT or out.cause == FFFF:
        out.new_port = <uint16_t>(1024 + below(state, 64512))
    put16(bytes + out.udp, out.new_port)
    put16(bytes + out.udp + 2, VXLAN_PORT)
    put16(bytes + out.udp + 4, out.length - out.udp)
    put16(bytes + out.udp + 6, 0)
    if out.underlay == 4:
        put16(bytes + 2, out.length)
    else:
        put16(bytes + 4, out.length - 40)


cdef const Pair *stranger(World *world, const Pair *pair, uint64_t *state) noexcept nogil:
    """An envelope that nobody uses, and a source too if strangers have their own."""
    cdef uint32_t i
    world.stranger = pair[0]
    if world.traffic.strange_pair:
        for i in range(2, 4 if pair.version == 4 else 16):
            world.stranger.source[i] = <uint8_t>draw(state)
        memcpy(world.stranger.arrives, world.stranger.source, 16)
    memset(&world.strangers, 0, sizeof(Envelope))
    world.strangers.bytes[0] = 0x08
    world.strangers.size = 20
    for i in range(4, 20):
        world.strangers.bytes[i] = 0 if i == 7 else <uint8_t>draw(state)
    return &world.stranger


cdef uint32_t outer_header(const Pair *pair, Flow *flow, bint options, uint8_t *bytes, uint64_t *state) noexcept nogil:
    """The underlay's header; length, source address and IPv4 checksum are still to come. Where UDP begins."""
    cdef uint32_t size
    flow.identification += 1
    if pair.version == 4:
        size = 24 if options else 20
        memset(bytes, 0, size)
        bytes[0] = <uint8_t>(0x40 + size // 4)
        put16(bytes + 4, flow.identification)
        bytes[6] = 0x40
        bytes[8] = 64
        bytes[9] = 17
        memcpy(bytes + 16, pair.destination, 4)
        if options:
            put32(bytes + 20, 0x94040000U)      # router alert
        return size
    size = 48 if options else 40
    memset(bytes, 0, size)
    put32(bytes, 0x60000000 + below(state, 1 << 20))
    bytes[6] = 60 if options else 17
    bytes[7] = 64
    memcpy(bytes + 24, pair.destination, 16)
    if options:                                 # destination options: PadN
        bytes[40] = 17
        put16(bytes + 42, 0x0104)
    return size


cdef void inner_packet(World *world, Flow *flow, uint32_t at, uint64_t *state, uint8_t *bytes,
                       Packet *out) noexcept nogil:
    """EtherType, IP, transport and payload; the checksum finished or not, as `out.inner` says."""
    cdef uint32_t size = payload_size(state), header
    cdef bint options = below(state, 1000) < world.traffic.options
    cdef uint8_t *ip = bytes + at + 2
    out.inner = NO_SUM
    if flow.kind == ARP or flow.kind == NOT_IP:
        put16(bytes + at, 0x0806 if flow.kind == ARP else 0x88cc)
        size = 28 if flow.kind == ARP else size + 4
        out.transport = out.ip
        out.covered = out.end = out.ip + size
        random_bytes(world, state, ip, size)
        if flow.kind == ARP:
            put32(ip, 0x00010800)
            put32(ip + 4, 0x06040001)
            memcpy(ip + 14, flow.source, 4)
            memcpy(ip + 24, flow.destination, 4)
        return
    out.version = flow.version
    put16(bytes + at, 0x0800 if flow.version == 4 else 0x86dd)
    out.protocol = protocol_of(flow)
    out.transport = out.ip + ip_header(flow, out.protocol, options, state, ip)
    header = transport_header(flow, state, bytes + out.transport, out)
    size += flow.kind == OTHER                  # an IPv6 packet with nothing in it is read differently by everyone
    random_bytes(world, state, bytes + out.transport + header, size)
    out.covered = out.end = out.transport + header + size
    if (flow.kind == UDP or flow.kind == UDP_NONE) and options and below(state, 2):
        random_bytes(world, state, bytes + out.end, 8)   # RFC 9868: options behind the datagram's end
        out.end += 8
    if out.protocol == 17:
        put16(bytes + out.transport + 4, header + size)
    if out.version == 4:
        put16(ip + 2, out.end - out.ip)
        put16(ip + 10, field_of(words(ip, out.transport - out.ip), False))
    else:
        put16(ip + 4, out.end - out.ip - 40)
    if out.field:
        out.inner = COMPLETE
        if (out.protocol == 6 or out.protocol == 17) and out.end == out.covered \
                and below(state, 1000) < world.traffic.unfinished:
            out.inner = UNFINISHED
        put16(bytes + out.field, fold(pseudo_of(bytes, out)) if out.inner == UNFINISHED else field_of(
            <uint64_t>pseudo_of(bytes, out) + words(bytes + out.transport, out.covered - out.transport),
            out.protocol == 17))


cdef inline uint8_t protocol_of(const Flow *flow) noexcept nogil:
    if flow.kind == TCP or flow.kind == SYN:
        return 6
    if flow.kind == ICMP:
        return 1 if flow.version == 4 else 58
    return 89 if flow.kind == OTHER else 17


cdef inline uint32_t pseudo_of(const uint8_t *bytes, const Packet *packet) noexcept nogil:
    """Of the inner packet. ICMP over IPv4 has none."""
    cdef uint32_t size = 4 if packet.version == 4 else 16
    cdef const uint8_t *source = bytes + packet.ip + (12 if packet.version == 4 else 8)
    if packet.protocol == 1:
        return 0
    return pseudo(source, source + size, size, packet.protocol, packet.covered - packet.transport)


cdef inline uint32_t payload_size(uint64_t *state) noexcept nogil:
    cdef uint32_t of_hundred = below(state, 100)
    if of_hundred < 70:
        return below(state, 64)
    return below(state, 256) if of_hundred < 99 else below(state, 1400)


cdef inline void random_bytes(World *world, uint64_t *state, uint8_t *at, uint32_t size) noexcept nogil:
    memcpy(at, world.pool + below(state, POOL - 2048), size)
    if size >= 8:
        (<uint64_t *>at)[0] = draw(state)       # so that no two are the same


cdef uint32_t ip_header(Flow *flow, uint8_t protocol, bint options, uint64_t *state, uint8_t *ip) noexcept nogil:
    """The inner header, length and checksum still to come; its size, extension headers included."""
    cdef uint32_t size
    if flow.version == 4:
        size = 28 if options else 20
        memset(ip, 0, size)
        ip[0] = <uint8_t>(0x40 + size // 4)
        put16(ip + 4, flow.identification)
        if flow.kind == FRAGMENT:
            put16(ip + 6, 0x2000 if below(state, 2) else 0x2000 + 185)
        ip[8] = 64
        ip[9] = protocol
        memcpy(ip + 12, flow.source, 4)
        memcpy(ip + 16, flow.destination, 4)
        if options:                             # record route, empty, and an end
            put32(ip + 20, 0x07070400)
        return size
    memset(ip, 0, 56)
    put32(ip, 0x60000000 + below(state, 1 << 20))
    ip[6] = protocol
    ip[7] = 64
    memcpy(ip + 8, flow.source, 16)
    memcpy(ip + 24, flow.destination, 16)
    size = 40
    if options:                                 # destination options: one that is skipped if unknown, with a value
        ip[6] = 60
        ip[size] = protocol
        put16(ip + size + 2, 0x1e04)
        put32(ip + size + 4, <uint32_t>draw(state))
        size += 8
    if flow.kind == FRAGMENT:
        ip[40 if options else 6] = 44
        ip[size] = protocol
        put16(ip + size + 2, 1 if below(state, 2) else 1 + 185 * 8)
        put32(ip + size + 4, <uint32_t>draw(state))
        size += 8
    return size


cdef uint32_t transport_header(Flow *flow, uint64_t *state, uint8_t *at, Packet *out) noexcept nogil:
    """Without its checksum; `out.field` if it has one. Its size."""
    cdef uint32_t size = 8
    flow.clock += 1 + below(state, 3)
    if flow.kind == OTHER:
        return 0
    if flow.kind == TCP or flow.kind == SYN:
        flow.sequence += 1 + below(state, 1400)
        size = 20 if not flow.stamped else 32
        if flow.kind == SYN:
            size = 40
        put16(at, flow.ports[0])
        put16(at + 2, flow.ports[1])
        put32(at + 4, flow.sequence)
        put32(at + 8, 0 if flow.kind == SYN else <uint32_t>draw(state))
        put16(at + 12, (size << 10) + (0x02 if flow.kind == SYN else 0x10))
        put16(at + 14, 0xfaf0)
        put32(at + 16, 0)
        if flow.kind == SYN:
            put32(at + 20, 0x020405b4)
            put32(at + 24, 0x01030307)
        if size > 20:
            out.options = out.transport + 20
            out.options_end = out.transport + size
            put32(at + size - 12, 0x0101080a)
            put32(at + size - 8, flow.clock)
            put32(at + size - 4, 0 if flow.kind == SYN else <uint32_t>draw(state))
        out.field = out.transport + 16
        return size
    if flow.kind == ICMP:
        put32(at, 0x08000000 if flow.version == 4 else 0x80000000U)
        put16(at + 4, flow.ports[0])
        put16(at + 6, <uint16_t>flow.clock)
        out.field = out.transport + 2
        return size
    put16(at, flow.ports[0])
    put16(at + 2, flow.ports[1])
    put32(at + 4, 0)
    if flow.kind == UDP or (flow.kind == UDP_NONE and flow.version == 6):
        out.field = out.transport + 6
    elif flow.kind == FRAGMENT:
        put16(at + 6, <uint16_t>draw(state))    # over the whole datagram, which nobody sees here
    return size


cdef void seal(const Packet *packet, uint8_t *bytes, bint on_the_way) noexcept nogil:
    """Write what the outer headers owe to the whole: source address and port, and both checksums.

    As the sender left them, or (on_the_way) as they arrive. The sum is over whatever `bytes` hold: damage that came
    before is in it.
    """
    cdef const Pair *pair = packet.pair
    cdef uint32_t size = 4 if pair.version == 4 else 16, length = packet.length - packet.udp
    cdef bint arrives = on_the_way and packet.cause != STRAIGHT
    cdef uint32_t head = pseudo(pair.source, pair.destination, size, 17, length)
    cdef uint8_t *udp = bytes + packet.udp
    cdef const uint8_t *source = pair.source
    cdef uint64_t total
    if arrives:
        source = pair.arrives
    memcpy(bytes + (12 if size == 4 else 8), source, size)
    if size == 4:
        put16(bytes + 10, 0)
        put16(bytes + 10, field_of(words(bytes, packet.udp), False))
    put16(udp, packet.old_port)
    put16(udp + 6, 0)
    if packet.sent == PSEUDO:
        put16(udp + 6, fold(head))
    elif packet.sent != ZERO:
        if packet.sent == LCO and packet.inner == UNFINISHED:
            total = <uint64_t>words(udp, packet.transport - packet.udp) + (get16(bytes + packet.field) ^ 0xffffU)
        else:
            total = words(udp, length)
        put16(udp + 6, field_of(head + total, True))
    if packet.cause == NIC:                     # from the start
        put16(udp + 6, packet.garbage | 1)
    if not arrives:
        return
    put16(udp, packet.new_port)
    if packet.cause == FFFF:
        put16(udp + 6, 0xffff)
    elif packet.cause == FIELD:                 # RFC 1624 on a field that was none: ~(~0 + ~old + new)
        put16(udp + 6, field_of(0xffffU + (fold(words(pair.source, size)) ^ 0xffffU) + words(pair.arrives, size), True))
