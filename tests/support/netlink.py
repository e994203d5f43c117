"""What nfnetlink_queue says and hears, as bytes (linux/netfilter/nfnetlink_queue.h): the tests' end of the socket."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

NUMBER = 7  # of the queue
PACKET, VERDICT, VERDICT_BATCH = 0x0300, 0x0301, 0x0303
ERROR = 2
HDR, VERDICT_HDR, PAYLOAD, CAP_LEN, SKB_INFO = 1, 2, 10, 13, 14
NLMSG_HEADER, NFGEN_HEADER, ATTRIBUTE_HEADER = 16, 4, 4  # bytes


class Verdict(NamedTuple):
    batch: bool
    verdict: int
    packet: int
    payload: bytes | None


def aligned(length: int) -> int:
    return (length + 3) & ~3


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", ATTRIBUTE_HEADER + len(value), kind) + value + bytes(-len(value) % 4)


def message(kind: int, body: bytes, sequence: int = 0) -> bytes:
    return struct.pack("=IHHII", NLMSG_HEADER + len(body), kind, 0, sequence, 0) + body


def sequence_of(sent: bytes) -> int:
    _length, _kind, _flags, sequence, _port = struct.unpack_from("=IHHII", sent)
    return int(sequence)


def arrival(number: int, packet: bytes | None, whole: int = 0, info: int = 0) -> bytes:
    """A packet as nfnetlink_queue hands it over."""
    body = struct.pack("!BBH", socket.AF_INET, 0, NUMBER) + attribute(HDR, struct.pack("!IHB", number, 0x0800, 0))
    if packet is not None:
        body += attribute(PAYLOAD, packet)
    if whole:
        body += attribute(CAP_LEN, struct.pack("!I", whole))
    if info:
        body += attribute(SKB_INFO, struct.pack("!I", info))
    return message(PACKET, body)


def verdicts(datagram: bytes) -> Iterator[Verdict]:
    """The verdicts in what the queue has sent, in order."""
    while datagram:
        length, kind, flags, _sequence, _port = struct.unpack_from("=IHHII", datagram)
        assert flags == 1, "NLM_F_REQUEST, and no acknowledgement for each packet"
        _family, _version, number = struct.unpack_from("!BBH", datagram, NLMSG_HEADER)
        assert number == NUMBER
        found: dict[int, bytes] = {}
        at = NLMSG_HEADER + NFGEN_HEADER
        while at < length:
            size, which = struct.unpack_from("=HH", datagram, at)
            found[which] = datagram[at + ATTRIBUTE_HEADER : at + size]
            at += aligned(size)
        verdict, packet = struct.unpack("!II", found[VERDICT_HDR])
        yield Verdict(kind == VERDICT_BATCH, verdict, packet, found.get(PAYLOAD))
        datagram = datagram[aligned(length) :]
