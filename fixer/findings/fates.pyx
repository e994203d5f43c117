# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from socket import AF_INET, AF_INET6, inet_ntop

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport qsort

from fixer.datapath.diagnose cimport DIAGNOSES, IN_PARTIAL, OUT_PARTIAL
from fixer.findings.identity cimport CUT, LEAVING, STREAM, TUNNELLED, Packet
from fixer.findings.match cimport *
from fixer.findings.table cimport table_entry, table_find

from fixer.datapath.diagnose import Diagnosis, InnerState, OuterState
from fixer.findings.match import Fate as Fates, Field as Fields

cdef enum:
    SILENCE = 100000000      # nanoseconds in which a capture shows nothing …
    MANY_SILENT = 32         # … while so many packets should have been there


cdef inline bint is_unfinished(const Packet *packet) noexcept nogil:
    return packet.inner == IN_PARTIAL or packet.outer == OUT_PARTIAL


cdef void find_pieces(Match match) noexcept nogil:
    """PIECES for what is not matched, if each byte of it is in the other capture's segments that are not matched."""
    cdef uint32_t at[2]
    cdef uint32_t end[2]
    cdef uint64_t key
    cdef int side
    match.list_by(BY_STREAM)
    at[0] = at[1] = 0
    while at[0] < match.listed[0] and at[1] < match.listed[1]:
        key = max(match.sorted[0][at[0]].key, match.sorted[1][at[1]].key)
        for side in range(2):
            while at[side] < match.listed[side] and match.sorted[side][at[side]].key < key:
                at[side] += 1
            end[side] = at[side]
            while end[side] < match.listed[side] and match.sorted[side][end[side]].key == key:
                end[side] += 1
        for side in range(2):
            cover(match, side, at[side], end[side], at[1 - side], end[1 - side])
        at[0], at[1] = end[0], end[1]


cdef void cover(Match match, int side, uint32_t at, uint32_t end, uint32_t other, uint32_t other_end) noexcept nogil:
    """One stream: at … end of one side's list, other … other_end of the other's, both in the order of their bytes."""
    cdef Packet *packet
    cdef const Packet *piece
    cdef uint64_t low = 0, high = 0, first, last, begins     # low … high: bytes that the other side has without a hole
    while at < end:
        packet = &match.packets[side][match.sorted[side][at].place]
        first = match.sorted[side][at].second
        last = first + packet.payload
        at += 1
        if packet.other or packet.payload == 0:
            continue
        while other < other_end and match.sorted[1 - side][other].second <= max(first, high):
            piece = &match.packets[1 - side][match.sorted[1 - side][other].place]
            if not piece.other and piece.payload:
                begins = match.sorted[1 - side][other].second
                if begins > high:               # behind a hole
                    low = begins
                high = max(high, begins + piece.payload)
            other += 1
        if low <= first and last <= high:
            packet.fate = PIECES


cdef void look_outside(Match match) noexcept nogil:
    """OUTSIDE for what was there before the other capture began, or after it ended, allowing for the slowest packet."""
    cdef Packet *packet
    cdef const Leg *leg
    cdef uint32_t place
    cdef int side
    cdef int64_t low, high
    for side in range(2):
        for place in range(match.used[side]):
            packet = &match.packets[side][place]
            if packet.other or packet.fate == PIECES:
                continue
            leg = &match.legs[canonical(match, side, packet)]
            low = <int64_t>packet.when + (leg.least if side == 0 else -leg.most)
            high = <int64_t>packet.when + (leg.most if side == 0 else -leg.least)
            if low < <int64_t>match.began[1 - side] or high > <int64_t>match.ended[1 - side]:
                packet.fate = OUTSIDE


cdef void ask_streams(Match match) noexcept nogil:
    """MISSED for what was acknowledged though it is not there, nor sent again; and what became of what arrived
    unfinished."""
    cdef uint32_t at, end, each
    cdef int side
    cdef Packet *packet
    cdef const FlowEntry *flow
    cdef bint arrived, acknowledged
    match.list_by(BY_STREAM)
    for side in range(2):
        at = 0
        while at < match.listed[side]:
            end = at
            arrived = False
            while end < match.listed[side] and match.sorted[side][end].key == match.sorted[side][at].key \
                    and match.sorted[side][end].second == match.sorted[side][at].second:
                arrived |= match.packets[side][match.sorted[side][end].place].other != 0
                end += 1
            for each in range(at, end):
                packet = &match.packets[side][match.sorted[side][each].place]
                flow = <const FlowEntry *>table_find(&match.flows, &packet.flow)
                acknowledged = flow != NULL and flow.acknowledged \
                    and <int32_t>(flow.upto - packet.sequence - max(packet.payload, 1U)) >= 0
                if packet.fate == ONLY and not packet.other and acknowledged and not arrived:
                    packet.fate = MISSED
                if packet.other and is_unfinished(&match.packets[1 - side][packet.other - 1]):
                    match.legs[canonical(match, side, packet)].unfinished[side][
                        ACKNOWLEDGED if acknowledged else REPEATED if end - at > 1 else OPEN] += 1
            at = end


cdef void find_silence(Match match) noexcept nogil:
    """SILENT for many that are missing in a row while the other capture shows nothing whatever."""
    cdef Packet *packet
    cdef uint64_t *times
    cdef uint32_t place, last, begin, at
    cdef uint64_t when
    cdef int64_t middle
    cdef int side
    for side in range(2):
        times = <uint64_t *>match.sorted[0]       # two numbers to an entry, one is needed
        for place in range(match.used[1 - side]):
            times[place] = match.packets[1 - side][place].when
        qsort(times, match.used[1 - side], sizeof(uint64_t), compare_numbers)
        match.listed[1] = 0
        for place in range(match.used[side]):
            packet = &match.packets[side][place]
            if packet.other or (packet.fate != ONLY and packet.fate != COPY):
                continue
            middle = match.legs[canonical(match, side, packet)].middle
            when = packet.when + <uint64_t>(middle if side == 0 else -middle)
            match.sorted[1][match.listed[1]].key = after(times, match.used[1 - side], when)
            match.sorted[1][match.listed[1]].place = place
            match.sorted[1][match.listed[1]].second = 0
            match.listed[1] += 1
        qsort(match.sorted[1], match.listed[1], sizeof(Sorted), compare_keys)
        begin = 0
        while begin < match.listed[1]:
            last = begin
            while last < match.listed[1] and match.sorted[1][last].key == match.sorted[1][begin].key:
                last += 1
            at = <uint32_t>match.sorted[1][begin].key
            if last - begin >= MANY_SILENT and 0 < at < match.used[1 - side] and times[at] - times[at - 1] >= SILENCE:
                for place in range(begin, last):
                    match.packets[side][match.sorted[1][place].place].fate = SILENT
            begin = last


cdef uint32_t after(const uint64_t *times, uint32_t count, uint64_t when) noexcept nogil:
    """How many of the times are not later."""
    cdef uint32_t low = 0, high = count, middle
    while low < high:
        middle = low + (high - low) // 2
        if times[middle] <= when:
            low = middle + 1
        else:
            high = middle
    return low


cdef int compare_numbers(const void *one, const void *two) noexcept nogil:
    cdef uint64_t a = (<const uint64_t *>one)[0], b = (<const uint64_t *>two)[0]
    return (a > b) - (a < b)


cdef int compare_keys(const void *one, const void *two) noexcept nogil:
    cdef uint64_t a = (<const Sorted *>one).key, b = (<const Sorted *>two).key
    return (a > b) - (a < b)


cdef uint32_t canonical(Match match, int side, const Packet *packet) noexcept nogil:
    """Whose leg it is counted with: the pair that the first capture shows."""
    cdef uint32_t alias
    if side == 0 or packet.pair == MOST_PAIRS:
        return packet.pair
    if packet.other:
        return match.packets[0][packet.other - 1].pair
    alias = (<const Pair *>table_entry(&match.pairs, packet.pair)).alias
    return alias - 1 if alias else packet.pair


cdef void count_all(Match match) noexcept nogil:
    cdef Packet *packet
    cdef Leg *leg
    cdef uint32_t place
    cdef int side
    for side in range(2):
        for place in range(match.used[side]):
            packet = &match.packets[side][place]
            leg = &match.legs[canonical(match, side, packet)]
            if leg.fates[side][packet.fate] == 0:
                leg.first[side][packet.fate] = packet.number
            leg.fates[side][packet.fate] += 1
            leg.leaving[side] += packet.traits & LEAVING != 0
            if not packet.other:
                if packet.fate == ONLY:
                    leg.lost_unfinished[side] += is_unfinished(packet)
                    if leg.shortest[side] == 0 or packet.length < leg.shortest[side]:
                        leg.shortest[side] = packet.length
                continue
            leg.longest = max(leg.longest, packet.length)
            leg.arrived_unfinished[side] += is_unfinished(packet)
            leg.diagnosis[side][packet.diagnosis] += 1
            # In the order in which they came: whoever is behind one that was sent later was overtaken.
            if packet.other < leg.newest[side]:
                leg.reordered[1 - side] += 1
            else:
                leg.newest[side] = packet.other
            if is_unfinished(&match.packets[1 - side][packet.other - 1]) and not packet.traits & STREAM:
                leg.unfinished[side][OPEN] += 1
            if side == 0:
                compare(packet, &match.packets[1][packet.other - 1], leg)


cdef void compare(const Packet *one, const Packet *two, Leg *leg) noexcept nogil:
    """Count what differs in two copies of one packet."""
    cdef bint tunnels = one.traits & two.traits & TUNNELLED != 0
    cdef bint cut = (one.traits | two.traits) & CUT != 0
    leg.cut += cut
    leg.inner[one.inner][two.inner] += 1
    leg.outer[one.outer][two.outer] += 1
    differs(leg, one, TUNNEL, (one.traits ^ two.traits) & TUNNELLED)
    if tunnels:
        leg.higher[0] += one.ttl[0] > two.ttl[0]
        leg.higher[1] += two.ttl[0] > one.ttl[0]
        differs(leg, one, OUTER_ADDRESSES, one.pair != two.pair)
        differs(leg, one, OUTER_SOURCE_PORT, one.ports[0] != two.ports[0])
        differs(leg, one, VXLAN_PORT, one.ports[1] != two.ports[1])
        differs(leg, one, OUTER_TTL, one.ttl[0] != two.ttl[0])
        differs(leg, one, OUTER_TOS, one.tos[0] != two.tos[0])
        differs(leg, one, OUTER_CHECKSUM, one.sums[0] != two.sums[0])
        differs(leg, one, VNI, one.vni != two.vni)
        differs(leg, one, VXLAN_FLAGS, one.flags != two.flags)
        differs(leg, one, MACS_OR_TAGS, one.envelope != two.envelope)
    differs(leg, one, INNER_TTL, one.ttl[1] != two.ttl[1])
    differs(leg, one, INNER_TOS, one.tos[1] != two.tos[1])
    differs(leg, one, INNER_CHECKSUM, one.sums[1] != two.sums[1])
    differs(leg, one, INNER_OPTIONS, one.rest != two.rest and not cut)
    differs(leg, one, PAYLOAD, one.fate == ALTERED)


cdef inline void differs(Leg *leg, const Packet *one, int field, bint different) noexcept nogil:
    if different:
        if leg.changed[field] == 0:
            leg.first_changed[field] = one.number
        leg.changed[field] += 1


def fates(Match match not None):
    """What is known of each pair of sender and receiver, in the order in which they came: a dictionary each, its keys
    as `Leg` has them. Once, after `match.settle()`."""
    cdef uint32_t number
    if not match.settled:
        raise ValueError("the captures are not settled")
    with nogil:
        find_pieces(match)
        look_outside(match)
        ask_streams(match)
        find_silence(match)
        count_all(match)
    legs = [as_leg(&match.legs[number], number, match) for number in range(match.pairs.used)]
    legs.append(as_leg(&match.legs[MOST_PAIRS], MOST_PAIRS, match))
    return [leg for leg in legs if any(leg["fates"][0].values()) or any(leg["fates"][1].values())
            or any(leg["unknowable"])]


cdef as_leg(const Leg *leg, uint32_t number, Match match):
    cdef const Pair *pair = <const Pair *>table_entry(&match.pairs, number) if number < MOST_PAIRS else NULL
    return {
        "source": address(pair, 0) if pair != NULL else "",
        "destination": address(pair, 1) if pair != NULL else "",
        "tunnel": pair != NULL and bool(pair.key.tunnel),
        "fates": [{fate: leg.fates[side][<int>fate] for fate in Fates} for side in range(2)],
        "first": [{fate: leg.first[side][<int>fate] for fate in Fates} for side in range(2)],
        "unknowable": [leg.unknowable[side] for side in range(2)],
        "cut": leg.cut,
        "changed": {field: leg.changed[<int>field] for field in Fields if leg.changed[<int>field]},
        "first_changed": {field: leg.first_changed[<int>field] for field in Fields if leg.changed[<int>field]},
        "inner": {(InnerState(one), InnerState(two)): leg.inner[one][two]
                  for one in range(INNERS) for two in range(INNERS) if leg.inner[one][two]},
        "outer": {(OuterState(one), OuterState(two)): leg.outer[one][two]
                  for one in range(OUTERS) for two in range(OUTERS) if leg.outer[one][two]},
        "diagnosis": [{Diagnosis(each): leg.diagnosis[side][each] for each in range(DIAGNOSES)
                       if leg.diagnosis[side][each]} for side in range(2)],
        "unfinished": [[leg.unfinished[side][each] for each in range(3)] for side in range(2)],
        "reordered": [leg.reordered[side] for side in range(2)],
        "higher": [leg.higher[side] for side in range(2)],
        "leaving": [leg.leaving[side] for side in range(2)],
        "lost_unfinished": [leg.lost_unfinished[side] for side in range(2)],
        "arrived_unfinished": [leg.arrived_unfinished[side] for side in range(2)],
        "longest": leg.longest,
        "shortest": [leg.shortest[side] for side in range(2)],
        "timed": leg.timed, "least": leg.least, "middle": leg.middle, "most": leg.most,
    }


cdef str address(const Pair *pair, int end):
    """Text of an address, '' where it is unknown."""
    if pair.key.version[end] == 4:
        return inet_ntop(AF_INET, pair.key.address[end][:4])
    return inet_ntop(AF_INET6, pair.key.address[end][:16]) if pair.key.version[end] == 6 else ""
