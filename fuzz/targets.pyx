# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What is fuzzed: each target takes any bytes and hands them to the code as they would reach it.

A target ends the process where the code does what it must never do; everything else is for the sanitizers to see. Bytes
are always an allocation of their own, so that one byte too far is seen.
"""
import os
from pathlib import Path

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport abort, free, malloc
from libc.string cimport memcmp, memcpy, memset

from fixer._csum cimport sum_bytes
from fixer.capture.frames cimport Frames
from fixer.datapath.flows cimport FlowTable, Flows, Segment, announce, forward, reply
from fixer.datapath.pipeline cimport Handed, Pipeline
from fixer.datapath.repair cimport PASS
from fixer.datapath.timestamps cimport Edit, Outcome, apply, look
from fixer.datapath.walk cimport Ports, Reason, Walk, walk as walk_
from fixer.findings.census cimport Census
from fixer.nfqueue.queue cimport Queue

import msgspec
from fixer import config as configuration, scan
from fixer.capture import text
from fixer.capture.open import Capture
from fixer.capture.pcap import HEADER, Pcap
from fixer.capture.pcapng import PcapNg
from fixer.errors import FixerError
from fixer.findings import wire
from fixer.findings.match import Match
from fixer.findings.tally import Tally
from fixer.rules.selection import Selection
from fixer.state import intent as intents, report as reports

ctypedef int (*Target)(const uint8_t *data, size_t size) except -1

cdef enum:
    SECOND = 1000000000


cdef int walk(const uint8_t *data, size_t size) except -1:
    """Two bytes of how it came, then a packet: the walk, and the options of what it found."""
    cdef Ports ports
    cdef Walk route
    cdef Edit edit
    cdef uint8_t *packet
    if size < 2:
        return 0
    packet = copied(data + 2, size - 2)
    ports.count = 1
    ports.port[0] = 4789
    walk_(packet, <uint32_t>size - 2, <uint32_t>size - 2 + data[1], &ports, data[0] & 1, &route)
    if route.inner.reason == Reason.NONE and route.inner.protocol == 6:
        look(packet, &route, &edit)
    free(packet)
    return 0


cdef int options(const uint8_t *data, size_t size) except -1:
    """A TCP header's options, and the packet behind them: what is stripped leaves the sum as it was."""
    cdef Walk route
    cdef Edit edit
    cdef uint8_t *packet
    cdef uint16_t before
    if size < 20:
        return 0
    packet = copied(data, size)
    memset(&route, 0, sizeof(Walk))
    route.length = route.captured = route.inner.covered = <uint32_t>size
    route.inner.field = 16
    before = sum_bytes(packet, <uint32_t>size)
    if look(packet, &route, &edit) == Outcome.STRIPPED:
        edit.at = 0
        apply(packet, &route, &edit)
        if (before - sum_bytes(packet, <uint32_t>size)) % 0xffff or look(packet, &route, &edit) != Outcome.WITHOUT:
            abort()
    free(packet)
    return 0


cdef list paths = [], ledgers = []
cdef uint64_t clock = 1600000000 * <uint64_t>SECOND


cdef int pipeline(const uint8_t *data, size_t size) except -1:
    """Which packet path; then packets, each behind its length, how it came and how long it had been on its way: what is
    not repaired leaves as it came, and the whole of what is told and concluded goes with it."""
    global clock
    cdef Pipeline path
    cdef Handed handed
    cdef uint8_t *packet
    cdef size_t at = 1, length
    cdef uint8_t how
    if size < 1:
        return 0
    path = <Pipeline>paths[data[0] % 4]
    while at + 4 <= size:
        length = min(<size_t>(data[at] << 8 | data[at + 1]), size - at - 4)
        how = data[at + 2]
        clock += <uint64_t>data[at + 3] << (how & 31)
        handed.when = clock
        handed.uptime = <uint32_t>(clock // SECOND)
        handed.skb_info = how >> 5 & 3
        handed.outgoing = how >> 7
        packet = copied(data + at + 4, length)
        if path.process(packet, <uint32_t>length, <uint32_t>length + (how & 16) * 8, &handed, NULL) == PASS \
                and memcmp(packet, data + at + 4, length):
            abort()
        free(packet)
        at += 4 + length
    path.settle(clock, <uint32_t>(clock // SECOND), False)
    if data[0] > 250:               # somebody reads what is told
        path.drain()
        ledgers[data[0] % 4].drain()
    return 0


cdef void prepare_pipeline():
    cdef dict sources = {"sources": [(bytes([10, 0, 0, 0]), 8), (bytes(16), 0)]}
    for more in ({}, {"plain": True, "stale": "inner-verifies", **sources, "timestamps": "strip", "syn_ack": True},
                 {"plain": True, **sources, "timestamps": "normalise",
                  "flows": Flows(bytearray(Flows.size(1024)), 1024)},
                 {"trust_device": True, "actions": {"outer_absent6": "repair", "corrupt": "pass"}, "vnis": [(1, 9)]}):
        paths.append(Pipeline(ports=[4789, 8472], seed=1, **more))
    ledgers.extend(wire.watch(paths))


cdef Queue queue = None


cdef int netlink(const uint8_t *data, size_t size) except -1:
    """Messages as the kernel sends them, each behind its length; what would be sent back is readable to its end."""
    cdef Handed handed = Handed(when=clock, uptime=1, skb_info=0, outgoing=False)
    cdef uint8_t *message
    cdef size_t at = 0, length
    cdef uint32_t i
    while at + 3 <= size and queue.messages < 64:
        length = min(<size_t>((data[at] & 0x7f) << 8 | data[at + 1]), size - at - 3)
        message = copied(data + at + 3, length)
        queue.take(message, <uint32_t>length, data[at] >> 7, &handed)
        for i in range(queue.vector_count):
            sum_bytes(<uint8_t *>queue.vectors[i].iov_base, <uint32_t>queue.vectors[i].iov_len)
        queue.messages = queue.vector_count = queue.gathered = 0
        queue.running = False
        free(message)
        at += 3 + length
    return 0


cdef void prepare_netlink():
    global queue
    queue = Queue(Pipeline(ports=[4789], seed=1), 0)


cdef Frames frames = None
cdef Pipeline path_of_captures = None
cdef Census census = None
cdef object tally = None
cdef object matched = None
cdef uint64_t judged = 0


cdef int judge(Frames found) except -1:
    """What `scan` and `compare` do with the frames of a block."""
    global tally, matched, judged
    if judged % 50000 == 0:         # what they remember is bounded by what a file holds
        tally = Tally()
        matched = Match(ports=[4789], most=1 << 16)
    judged += 1
    for side in range(2):
        found.match(matched, side)
    scan.judge(found, path_of_captures, census, tally)
    return 0


cdef void prepare_captures():
    global frames, path_of_captures, census
    frames = Frames(64)
    path_of_captures = Pipeline(ports=[4789], seed=1)
    census = scan.new_census()


cdef int pcap(const uint8_t *data, size_t size) except -1:
    """A file: its header, and its records as one block."""
    try:
        blocks(Pcap(data[:min(size, <size_t>HEADER)]), data, size, HEADER)
    except ValueError:
        pass
    return 0


cdef int pcapng(const uint8_t *data, size_t size) except -1:
    """A file: its sections and interfaces, one block after another."""
    try:
        blocks(PcapNg(), data, size, 0)
    except ValueError:
        pass
    return 0


cdef int blocks(reader, const uint8_t *data, size_t size, size_t at) except -1:
    block = bytearray(data[:size])
    while at <= size:
        at = reader.parse(block, at, size, frames)
        if not len(frames):
            break
        judge(frames)
    return 0


class Pasted:
    """As much of `Source` as a hex dump's reader asks for."""

    def __init__(self, data):
        self.data = data

    def fill(self, block, at):
        part = self.data[:len(block) - at]
        self.data = self.data[len(part):]
        block[at:at + len(part)] = part
        return len(part)


cdef int hexdump(const uint8_t *data, size_t size) except -1:
    """What somebody pastes."""
    pasted = bytes(data[:size])
    if text.is_text(pasted) and text.has_dump(pasted):
        try:
            for found in text.batches(Pasted(pasted), frames):
                judge(found)
        except ValueError:
            pass
    return 0


cdef int capture(const uint8_t *data, size_t size) except -1:
    """A whole file, of any format, packed in any way."""
    descriptor = os.memfd_create("capture")
    try:
        os.write(descriptor, data[:size])
        with Capture(Path(f"/proc/self/fd/{descriptor}")) as opened:
            for found in opened.batches():
                judge(found)
    except FixerError:
        pass
    finally:
        os.close(descriptor)
    return 0


cdef bytes table_before = b""
cdef object table_after = None


cdef int flows(const uint8_t *data, size_t size) except -1:
    """A flow table's file, changed in some places, that a new daemon takes over; then segments ask for it."""
    cdef bytearray changed = bytearray(table_before)
    cdef size_t at = 0, where
    while at + 4 <= size:
        where = (data[at] << 16 | data[at + 1] << 8 | data[at + 2]) % <size_t>len(changed)
        changed[where] = data[at + 3]
        at += 4
    if size % 4 == 3:
        del changed[data[size - 1] << 10:]
    adopting = Flows(table_after, 1024, seed=2)
    try:
        adopting.adopt(changed, 1000)
    except ValueError:
        pass
    ask(&(<Flows>adopting).table, 1000)
    found = adopting.counters()
    if found["normalised"] > found["used"] or found["used"] > found["capacity"]:
        abort()
    return 0


cdef void prepare_flows():
    global table_before, table_after
    memory = bytearray(Flows.size(1024))
    before = Flows(memory, 1024, seed=1)
    ask(&(<Flows>before).table, 900)
    table_before, table_after = bytes(memory), bytearray(Flows.size(1024))


cdef void ask(FlowTable *table, uint32_t now):
    """Connections of two clients behind one address: a handshake, a second SYN, an end."""
    cdef Segment segment
    cdef uint32_t delta, number
    for number in range(64):
        memset(&segment, 0, sizeof(Segment))
        segment.key.client[0] = segment.key.server[0] = 10
        segment.key.client[3] = number & 3
        segment.key.where = 4 << 24 | 7
        segment.key.client_port[1] = <uint8_t>number
        segment.stamped = True
        segment.flags = 2
        segment.value = 1000000 if number % 2 else 1000
        forward(table, &segment, announce(table, &segment.key), now, &delta)
        segment.flags = 18
        segment.acknowledged, segment.echoed = 1, segment.value + delta
        reply(table, &segment, announce(table, &segment.key), now, &delta)
        segment.flags = 16 + number % 3 % 2
        segment.sequence = 1
        forward(table, &segment, announce(table, &segment.key), now, &delta)
        reply(table, &segment, announce(table, &segment.key), now, &delta)
        if number % 5 == 0:
            segment.flags, segment.sequence = 2, 99
            forward(table, &segment, announce(table, &segment.key), now, &delta)


cdef int intent(const uint8_t *data, size_t size) except -1:
    """What is wanted, and what a daemon reports, as their files have it."""
    for kind in (intents.Intent[Selection], reports.Report):
        try:
            msgspec.json.decode(data[:size], type=kind)
        except (msgspec.DecodeError, ValueError):
            pass
    return 0


cdef int config(const uint8_t *data, size_t size) except -1:
    """A configuration; one that is taken makes a packet path, unless that says in one line why not."""
    try:
        taken = configuration.parse((<bytes>data[:size]).decode("utf-8", "replace"), "fixer.toml")
        if taken.timestamps.mode != "normalise":
            Pipeline(**taken.datapath())
    except FixerError as error:
        if "\n" in str(error) or "\x1b" in str(error):
            raise
    return 0


cdef int awake(const uint8_t *data, size_t size) except -1:
    """What must be found, or nothing is: one byte too far, behind three that only coverage leads to."""
    cdef uint8_t *packet = copied(data, size)
    cdef int beyond = 0
    if size > 3 and data[0] == 0x66 and data[1] == 0x78 and data[2] == 0x7a:
        beyond = packet[size]
    free(packet)
    return beyond


cdef uint8_t *copied(const uint8_t *data, size_t size) noexcept nogil:
    cdef uint8_t *copy = <uint8_t *>malloc(size)
    memcpy(copy, data, size)
    return copy


def target(name):
    """Where one begins, ready to be called."""
    if name == "pipeline":
        prepare_pipeline()
    elif name == "netlink":
        prepare_netlink()
    elif name == "flows":
        prepare_flows()
    elif name in ("pcap", "pcapng", "hexdump", "capture"):
        prepare_captures()
    return {
        "walk": <size_t>&walk, "options": <size_t>&options, "pipeline": <size_t>&pipeline,
        "netlink": <size_t>&netlink, "pcap": <size_t>&pcap, "pcapng": <size_t>&pcapng,
        "hexdump": <size_t>&hexdump, "capture": <size_t>&capture, "flows": <size_t>&flows,
        "intent": <size_t>&intent, "config": <size_t>&config, "awake": <size_t>&awake,
    }[name]
