# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from libc.string cimport memcmp, memcpy, memset

from fixer._csum cimport sum_bytes, updated
from fixer.datapath.flows cimport Segment, Verdict, announce, forward, place, reply
from fixer.datapath.walk cimport Reason
from fixer.datapath.wire cimport *


cdef Outcome consider(const Timestamps *policy, const uint8_t *packet, const Walk *walk, Edit *edit) noexcept nogil:
    """Mode strip: what is to become of a packet; `edit` is valid if it is to be STRIPPED, which `apply` does."""
    if is_tcp(walk) and is_stripped(policy, packet, walk):
        return look(packet, walk, edit)
    return Outcome.NOT_CONCERNED


cdef inline bint is_tcp(const Walk *walk) noexcept nogil:
    return walk.inner.reason == Reason.NONE and walk.inner.protocol == PROTO_TCP


cdef bint is_stripped(const Timestamps *policy, const uint8_t *packet, const Walk *walk) noexcept nogil:
    """Whether this is the SYN of a configured source, or a SYN-ACK to one where those are asked for."""
    cdef uint8_t flags = packet[walk.inner.transport + TCP_FLAGS] & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)
    if flags == TCP_SYN:
        return matches(policy, packet + walk.inner.source, walk.inner.version)
    if flags == (TCP_SYN | TCP_ACK) and policy.syn_ack:
        return matches(policy, packet + walk.inner.destination, walk.inner.version)
    return False


cdef bint matches(const Timestamps *policy, const uint8_t *address, uint8_t version) noexcept nogil:
    cdef const Prefix *prefix
    cdef uint8_t i, whole, rest
    for i in range(policy.count):
        prefix = &policy.sources[i]
        whole = prefix.bits >> 3
        rest = prefix.bits & 7
        if prefix.version == version and memcmp(prefix.address, address, whole) == 0 \
                and (rest == 0 or (prefix.address[whole] ^ address[whole]) >> (8 - rest) == 0):
            return True
    return False


cdef Outcome look(const uint8_t *packet, const Walk *walk, Edit *edit) noexcept nogil:
    """Walk the options to their end (RFC 9293 §3.1): STRIPPED if there are timestamps that may be edited."""
    cdef uint32_t at = walk.inner.transport + TCP_HEADER
    cdef uint32_t end = walk.inner.transport + (packet[walk.inner.transport + TCP_OFFSET] >> 4) * 4
    cdef uint8_t kind, length
    cdef bint authenticated = False
    edit.option = edit.at = 0
    if end < at or end > walk.inner.transport + walk.inner.covered:
        return Outcome.MALFORMED
    while at < end and packet[at] != TCP_OPTION_END:
        kind = packet[at]
        if kind == TCP_OPTION_NOP:
            at += 1
            continue
        if at + 2 > end:
            return Outcome.MALFORMED
        length = packet[at + 1]
        if length < 2 or at + length > end:
            return Outcome.MALFORMED
        if kind == TCP_OPTION_AO:
            authenticated = True
        elif kind == TCP_OPTION_TIMESTAMPS:
            if length != TCP_TIMESTAMPS_LENGTH or edit.option:
                return Outcome.MALFORMED
            edit.option = at
        at += length
    if not edit.option:
        return Outcome.WITHOUT
    return Outcome.AUTHENTICATED if authenticated else Outcome.STRIPPED


cdef void prepare(const Timestamps *policy, const FlowTable *table, const uint8_t *packet, const Walk *walk,
                  bint outgoing, Asked *asked) noexcept nogil:
    """Mode normalise: whose segment it is, and announce that. The sooner before `normalise`, the better.

    outgoing: it leaves through OUTPUT, so it is a reply or nothing.
    """
    cdef Segment *segment = &asked.segment
    cdef const uint8_t *tcp = packet + walk.inner.transport
    cdef const uint8_t *client
    cdef const uint8_t *server
    asked.concerns = False
    if not is_tcp(walk):
        return
    client = packet + (walk.inner.destination if outgoing else walk.inner.source)
    server = packet + (walk.inner.source if outgoing else walk.inner.destination)
    if not matches(policy, client, walk.inner.version):
        return
    asked.concerns = True
    memset(segment, 0, sizeof(Segment))
    memcpy(segment.key.client, client, walk.inner.address_length)
    memcpy(segment.key.server, server, walk.inner.address_length)
    segment.key.where = place(walk.inner.version, walk.vxlan, walk.vni)
    memcpy(segment.key.client_port, tcp + (TCP_DESTINATION if outgoing else TCP_SOURCE), 2)
    memcpy(segment.key.server_port, tcp + (TCP_SOURCE if outgoing else TCP_DESTINATION), 2)
    asked.hashed = announce(table, &segment.key)
    segment.flags = tcp[TCP_FLAGS]
    segment.sequence = be32(tcp + TCP_SEQUENCE)
    segment.acknowledged = be32(tcp + TCP_ACKNOWLEDGED)
    segment.length = walk.inner.covered - (tcp[TCP_OFFSET] >> 4) * 4


cdef Outcome normalise(const Timestamps *policy, FlowTable *table, const uint8_t *packet, const Walk *walk,
                       bint outgoing, uint32_t now, Asked *asked, Edit *edit) noexcept nogil:
    """Ask the flow table about a `prepare`d packet; `edit` is valid if it is to be STRIPPED or TRANSLATED.

    now: uptime, seconds.
    """
    cdef Segment *segment = &asked.segment
    cdef uint32_t delta
    cdef Outcome found
    cdef Verdict verdict
    if not asked.concerns:
        return Outcome.NOT_CONCERNED
    found = look(packet, walk, edit)
    if found == Outcome.MALFORMED or found == Outcome.AUTHENTICATED:
        return found
    segment.stamped = found == Outcome.STRIPPED
    segment.value = be32(packet + edit.option + TCP_TSVAL) if segment.stamped else 0
    segment.echoed = be32(packet + edit.option + TCP_TSECR) if segment.stamped else 0
    verdict = (reply if outgoing else forward)(table, segment, asked.hashed, now, &delta)
    if not segment.stamped:
        return Outcome.WITHOUT
    if verdict == Verdict.FULL:
        return Outcome.STRIPPED if policy.strip_when_full else Outcome.FULL
    if verdict == Verdict.DRAINING:
        return Outcome.DRAINED
    if verdict == Verdict.NO_WAY_BACK:
        return Outcome.NO_WAY_BACK
    if verdict == Verdict.UNTRACKED:
        return Outcome.UNTRACKED
    if delta == 0:
        return Outcome.UNCHANGED
    if not outgoing:
        edit.at = edit.option + TCP_TSVAL
        edit.value = segment.value + delta
        return Outcome.TRANSLATED
    if segment.echoed == 0:
        return Outcome.UNCHANGED
    edit.at = edit.option + TCP_TSECR
    edit.value = segment.echoed - delta
    return Outcome.TRANSLATED


cdef void apply(uint8_t *packet, const Walk *walk, const Edit *edit) noexcept nogil:
    """NOPs for the timestamps, or another number in them; both layers' checksums follow, whether right or wrong.

    The inner field takes up what the options lose or gain, so the sum over both is what it was (RFC 1624), and with it
    the outer checksum, which covers both.
    """
    cdef uint32_t start = walk.inner.transport + TCP_HEADER
    cdef uint32_t length = (packet[walk.inner.transport + TCP_OFFSET] >> 4) * 4 - TCP_HEADER
    cdef uint16_t before = sum_bytes(packet + start, length), after
    cdef uint16_t inner = be16(packet + walk.inner.field)
    if edit.at:
        put_be32(packet + edit.at, edit.value)
    else:
        memset(packet + edit.option, TCP_OPTION_NOP, TCP_TIMESTAMPS_LENGTH)
    after = sum_bytes(packet + start, length)
    put_be16(packet + walk.inner.field, updated(inner, before, after))
