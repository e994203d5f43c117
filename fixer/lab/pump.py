"""The wire: carries Ethernet frames from one interface to another, in one direction, and spoils them on the way.

``python -m fixer.lab.pump FROM TO [--finish MODE] [--corrupt RATE]`` prints ``ready`` once it listens and then runs
until it is ended. What an AF_PACKET socket reads is the packet before any NIC finished its checksums (CHECKSUM_PARTIAL:
the field holds the pseudo-header's sum), and what it writes is taken as it is: left alone this is hardware that
finishes nothing.

The reading of packets here is deliberately its own: the fault's maker shares no code with what it tests. It knows just
the packets that Linux sends through a VXLAN device; what else comes along, it carries unchanged.
"""

from __future__ import annotations

import argparse
import errno
import random
import socket
import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, NoReturn

FRAME_LIMIT = 65_600  # bytes: more than any frame with segmentation offload off
BUFFERED = 64 << 20  # bytes of frames that may wait for this process, so that the wire loses none of its own accord
ETH_P_ALL = 3
SO_RCVBUFFORCE = 33  # <asm-generic/socket.h>; the socket module does not name it
SOL_PACKET = 263  # <linux/socket.h>; nor this one
PACKET_IGNORE_OUTGOING = 23  # <linux/if_packet.h>; the frames we write ourselves must not come back as frames to carry

UDP_HEADER, VXLAN_HEADER = 8, 8  # bytes
TCP, UDP, ICMPV6 = 6, 17, 58
CHECKSUM_AT = {TCP: 16, UDP: 6, ICMPV6: 2}  # offset of the checksum in the transport header
ZERO_UPDATED_BY_NAT = b"\xff\xff"
REWRITTEN = 0x97CC  # the difference between the addresses' sums before and behind a NAT, as moby#37115 has it


class Finish(StrEnum):
    """Which of the checksums that the sender left to its NIC the wire finishes, and how wrongly."""

    NOTHING = "nothing"  # a NIC that promised to and does not
    OUTER = "outer"  # only an outer field that holds its pseudo-header's sum; one that LCO computed stays as it is
    OUTER_OVER_UNFINISHED = "outer-over-unfinished"  # an outer, over the packet as it stands; the inner never
    NAT = "nat"  # nothing, and a zero outer is "updated" to ffff, as nf_nat did before ea64d8d6c675 (5.7)
    READDRESSED = "readdressed"  # as OUTER; then addresses are rewritten and not folded in: each is off by the same
    WRONGLY = "wrongly"  # as OUTER, and each is off by something else
    EVERYTHING = "everything"  # a healthy path: inner first, then the outer


class Damage(StrEnum):
    """When a payload is damaged, as seen from whoever computes the outer checksum."""

    BEFORE = "before"  # the outer sum is computed over the damage and vouches for it
    AFTER = "after"  # the outer sum is that of the intact packet


@dataclass(frozen=True)
class Fault:
    """What is wrong with a wire; ``corrupt`` is the share of inner TCP and UDP payloads that get one byte changed."""

    finish: Finish = Finish.NOTHING
    corrupt: float = 0.0
    damage: Damage = Damage.AFTER
    eats: bool = False
    """Whether what has a checksum that is not right, inside or outside, never arrives (ESXi, NSX)."""


class Segment(NamedTuple):
    """A TCP, UDP or ICMPv6 segment, as offsets into its frame; ``pseudo`` is congruent to its pseudo-header's sum."""

    protocol: int
    start: int
    end: int
    pseudo: int

    @property
    def field(self) -> int:
        return self.start + CHECKSUM_AT[self.protocol]


def segment_at(frame: bytearray, ip: int) -> Segment | None:
    """The transport segment of the IP packet whose header starts at ``ip``; None if it has none to finish."""
    if frame[ip] >> 4 == 4:
        if int.from_bytes(frame[ip + 6 : ip + 8]) & 0x3FFF:  # a fragment: its checksum spans packets
            return None
        start, end = ip + 4 * (frame[ip] & 15), ip + int.from_bytes(frame[ip + 2 : ip + 4])
        protocol, addresses = frame[ip + 9], frame[ip + 12 : ip + 20]
    else:
        start, end = ip + 40, ip + 40 + int.from_bytes(frame[ip + 4 : ip + 6])
        protocol, addresses = frame[ip + 6], frame[ip + 8 : ip + 40]
    if protocol not in CHECKSUM_AT:
        return None
    return Segment(protocol, start, end, int.from_bytes(addresses) % 0xFFFF + protocol + end - start)


def ip_at(frame: bytearray, ethernet: int) -> int | None:
    """Where the IP header of the Ethernet frame at ``ethernet`` is, behind 802.1Q tags; None if it carries no IP."""
    at = ethernet + 12
    while bytes(frame[at : at + 2]) == b"\x81\x00":
        at += 4
    return at + 2 if bytes(frame[at : at + 2]) in (b"\x08\x00", b"\x86\xdd") else None


def layers(frame: bytearray, port: int) -> tuple[Segment | None, Segment | None]:
    """The outer UDP segment, if it is VXLAN to ``port``, and the inner one. ``port`` 0: no tunnel, the inner is all."""
    ip = ip_at(frame, 0)
    segment = segment_at(frame, ip) if ip is not None else None
    if port == 0 or segment is None:
        return None, segment
    if segment.protocol != UDP or int.from_bytes(frame[segment.start + 2 : segment.start + 4]) != port:
        return None, None
    ip = ip_at(frame, segment.start + UDP_HEADER + VXLAN_HEADER)
    return segment, segment_at(frame, ip) if ip is not None else None


def unfinished(frame: bytearray, segment: Segment) -> bool:
    """Whether the field holds the pseudo-header's sum (modulo ffff, where ones'-complement zero is one number)."""
    field = int.from_bytes(frame[segment.field : segment.field + 2])
    return field != 0 and field % 0xFFFF == segment.pseudo % 0xFFFF


def finish(frame: bytearray, segment: Segment) -> None:
    """Write the right checksum: a number modulo ffff is the ones'-complement sum of its 16-bit digits (RFC 1071 §1)."""
    frame[segment.field : segment.field + 2] = b"\0\0"
    total = int.from_bytes(frame[segment.start : segment.end]) << 8 * (segment.end - segment.start & 1)
    checksum = -(total + segment.pseudo) % 0xFFFF
    if checksum == 0 and segment.protocol == UDP:  # zero would mean that there is none (RFC 768)
        checksum = 0xFFFF
    frame[segment.field : segment.field + 2] = checksum.to_bytes(2)


def complete(frame: bytearray, port: int) -> bool:
    """Whether every checksum that the frame has is right."""
    for segment in layers(frame, port):
        if segment is None or (segment.protocol == UDP and not any(frame[segment.field : segment.field + 2])):
            continue
        field = bytes(frame[segment.field : segment.field + 2])
        finish(frame, segment)
        right = bytes(frame[segment.field : segment.field + 2])
        frame[segment.field : segment.field + 2] = field
        if field != right:
            return False
    return True


def shift(frame: bytearray, segment: Segment, error: int) -> None:
    """Make a checksum wrong by ``error``, 1 to fffe."""
    field = int.from_bytes(frame[segment.field : segment.field + 2]) + error
    frame[segment.field : segment.field + 2] = (field % 0xFFFF or 0xFFFF).to_bytes(2)


def damage(frame: bytearray, segment: Segment, chance: random.Random) -> None:
    """Change one byte of the payload, which every checksum detects; a segment without payload stays as it is."""
    payload = segment.start + (4 * (frame[segment.start + 12] >> 4) if segment.protocol == TCP else UDP_HEADER)
    if payload < segment.end:
        frame[chance.randrange(payload, segment.end)] ^= chance.randrange(1, 256)


def spoil(frame: bytearray, fault: Fault, port: int, chance: random.Random) -> None:
    """Do to ``frame`` what this wire does to it; the frame keeps its length."""
    outer, inner = layers(frame, port)
    hit = inner is not None and inner.protocol in (TCP, UDP) and chance.random() < fault.corrupt
    if fault.finish is Finish.EVERYTHING and inner is not None and unfinished(frame, inner):
        finish(frame, inner)
    if inner is not None and hit and fault.damage is Damage.BEFORE:
        damage(frame, inner, chance)
    if outer is not None:
        zero = frame[outer.field : outer.field + 2] == b"\0\0"
        match fault.finish:
            case Finish.OUTER if unfinished(frame, outer):
                finish(frame, outer)
            case Finish.OUTER_OVER_UNFINISHED | Finish.EVERYTHING if not zero:
                finish(frame, outer)
            case Finish.READDRESSED | Finish.WRONGLY if not zero:
                if unfinished(frame, outer):
                    finish(frame, outer)
                shift(frame, outer, REWRITTEN if fault.finish is Finish.READDRESSED else chance.randrange(1, 0xFFFF))
            case Finish.NAT if zero:
                frame[outer.field : outer.field + 2] = ZERO_UPDATED_BY_NAT
    if inner is not None and hit and fault.damage is Damage.AFTER:
        damage(frame, inner, chance)


def leg(interface: str) -> socket.socket:
    """A packet socket that sees the frames arriving at ``interface`` and can send frames from it."""
    ours = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    ours.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFERED)
    ours.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    ours.bind((interface, ETH_P_ALL))  # only now does it receive, and from this interface alone
    return ours


def carry(source: socket.socket, target: socket.socket, fault: Fault, port: int) -> NoReturn:
    """Carry frames from ``source`` to ``target`` for ever; what ``target`` has no room for is lost, as on a wire."""
    chance = random.Random(port)  # noqa: S311 - damage that is the same in every run, not a secret
    room = bytearray(FRAME_LIMIT)
    view = memoryview(room)
    as_it_is = fault == Fault()
    while True:
        length = source.recv_into(room)
        try:
            if as_it_is:
                target.send(view[:length])
            else:
                frame = room[:length]
                spoil(frame, fault, port, chance)
                if not fault.eats or complete(frame, port):
                    target.send(frame)
        except OSError as error:
            if error.errno not in (errno.ENOBUFS, errno.EMSGSIZE):  # longer than the wire's frames: TSO is no wire's
                raise


def main() -> NoReturn:
    parser = argparse.ArgumentParser(prog="python -m fixer.lab.pump", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", metavar="FROM", help="interface whose frames are carried")
    parser.add_argument("target", metavar="TO", help="interface that sends them on")
    parser.add_argument("--port", type=int, default=4789, help="the VXLAN's UDP port, 0: no tunnel (default 4789)")
    parser.add_argument("--finish", type=Finish, choices=list(Finish), default=Finish.NOTHING)
    parser.add_argument("--corrupt", type=float, default=0.0, metavar="RATE", help="share of data segments, 0 to 1")
    parser.add_argument("--damage", type=Damage, choices=list(Damage), default=Damage.AFTER, help="... the outer sum")
    parser.add_argument("--eat", action="store_true", help="lose what has a checksum that is not right")
    chosen = parser.parse_args()
    source, target = leg(chosen.source), leg(chosen.target)
    print("ready", flush=True)
    try:
        carry(source, target, Fault(chosen.finish, chosen.corrupt, chosen.damage, chosen.eat), chosen.port)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
