"""VXLAN packets over IPv4, made in a microsecond or two each: as many different ones as a benchmark needs."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator

from fixer._csum import checksum_sum, pseudo_header_sum

IP, UDP, TCP, VXLAN, ETHERNET = 20, 8, 20, 8, 14  # bytes of header
AROUND = IP + UDP + VXLAN + ETHERNET  # what the tunnel puts around an inner packet
VNI = 4097
MACS = bytes.fromhex("02420a0001c002420a0001b0")
TUNNEL = struct.pack("!II", 0x08000000, VNI << 8) + MACS + struct.pack("!H", 0x0800)  # VXLAN and Ethernet
SYN, RST, ACK = 0x02, 0x04, 0x10


def ip_header(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    """An IPv4 header of 20 bytes, finished; ``length`` is the packet's."""
    fields = struct.pack("!BBHHHBBH4s4s", 0x45, 0, length, 0, 0x4000, 64, protocol, 0, source, destination)
    return fields[:10] + struct.pack("!H", 0xFFFF ^ checksum_sum(fields)) + fields[12:]


def flow(inner: int, number: int, unfinished: bool = False) -> Iterator[bytes]:
    """TCP segments of one direction without end, each a packet of its own: see ``segment_maker``."""
    make = segment_maker(inner, number, unfinished=unfinished)
    sequence = number
    while True:
        yield make(sequence, 1)
        sequence = (sequence + inner - IP - TCP) & 0xFFFFFFFF


def conversation(inner: int, number: int, unfinished: bool = False) -> Iterator[bytes]:
    """The same with the other direction's acknowledgement after every second segment, which is never unfinished."""
    there, back = segment_maker(inner, number, unfinished=unfinished), segment_maker(IP + TCP, number, back=True)
    sequence = number
    while True:
        for _ in range(2):
            yield there(sequence, 1)
            sequence = (sequence + inner - IP - TCP) & 0xFFFFFFFF
        yield back(1, sequence)


def segment_maker(inner: int, number: int, unfinished: bool = False, back: bool = False) -> Callable[[int, int], bytes]:
    """What makes the packet (from its outer IP header) for a sequence and an acknowledgement number.

    ``inner`` bytes, 40 or more, are the inner packet's; ``number`` gives addresses and ports, ``back`` swaps them. Both
    checksums are there and verify. With ``unfinished``, the inner field holds P and the outer one was summed over the
    finished segment (it agrees: LCO).
    """
    vteps = bytes([192, 0, 2, number % 8]), bytes([192, 0, 2, 9])
    hosts = bytes([10, 0, number >> 8 & 0xFF, number & 0xFF]), bytes([10, 1, 0, 1])
    ports = 40000 + number % 10000, 50000  # none of a protocol that tshark would follow further
    if back:
        vteps, hosts, ports = vteps[::-1], hosts[::-1], ports[::-1]
    payload = random.Random(number).randbytes(inner - IP - TCP)  # noqa: S311 - bytes to be summed, not secrets
    segment = TCP + len(payload)
    outer_length = UDP + VXLAN + ETHERNET + inner
    inner_ip = ip_header(*hosts, 6, inner)
    head_of_segment, tail_of_segment = struct.pack("!HH", *ports), struct.pack("!BBH", 0x50, 0x10, 0xFFFF)
    partial = pseudo_header_sum(*hosts, 6, segment)
    # Finished, a segment always adds up to the complement of its pseudo-header: so this outer is right for all of them.
    udp = struct.pack("!HHH", 49152 + number % 16384, 4789, outer_length)
    covered = checksum_sum(udp + b"\0\0" + TUNNEL + inner_ip) + (0xFFFF ^ partial)
    covered += pseudo_header_sum(*vteps, 17, outer_length)
    outer = struct.pack("!H", complement(covered) or 0xFFFF)
    head = ip_header(*vteps, 17, IP + outer_length) + udp + outer + TUNNEL + inner_ip + head_of_segment
    constant = partial + checksum_sum(head_of_segment + tail_of_segment + payload)

    def make(sequence: int, acknowledged: int) -> bytes:
        numbers = (sequence >> 16) + (sequence & 0xFFFF) + (acknowledged >> 16) + (acknowledged & 0xFFFF)
        field = partial if unfinished else complement(constant + numbers)
        middle = (sequence << 32 | acknowledged).to_bytes(8)
        return b"".join((head, middle, tail_of_segment, field.to_bytes(2), b"\0\0", payload))

    return make


def stamped(
    hosts: tuple[bytes, bytes],
    ports: tuple[int, int],
    flags: int,
    numbers: tuple[int, int],
    stamps: tuple[int, int],
    payload: bytes = b"",
) -> bytes:
    """An IPv4 packet, its checksums finished: a TCP segment with timestamps, as Linux writes those of no SYN.

    Pairs are source and destination; sequence and acknowledgement number; TSval and TSecr.
    """
    head = struct.pack("!HHIIBBHI", *ports, *numbers, 0x80, flags, 0xFFFF, 0)
    segment = head + struct.pack("!BBBBII", 1, 1, 8, 10, *stamps) + payload
    field = complement(checksum_sum(segment) + pseudo_header_sum(*hosts, 6, len(segment)))
    return ip_header(*hosts, 6, IP + len(segment)) + segment[:16] + field.to_bytes(2) + segment[18:]


def tunnelled(vteps: tuple[bytes, bytes], inner: bytes) -> bytes:
    """An IPv4 packet in a VXLAN packet whose outer checksum is there and verifies."""
    length = AROUND - IP + len(inner)
    ports = struct.pack("!HHH", 49152, 4789, length)
    total = checksum_sum(ports + b"\0\0" + TUNNEL + inner) + pseudo_header_sum(*vteps, 17, length)
    outer = (complement(total) or 0xFFFF).to_bytes(2)
    return ip_header(*vteps, 17, IP + length) + ports + outer + TUNNEL + inner


def complement(total: int) -> int:
    """A checksum field from a sum (RFC 1071), which is folded first; ``total`` is below 2^32."""
    total = (total >> 16) + (total & 0xFFFF)
    return 0xFFFF ^ ((total >> 16) + (total & 0xFFFF))


def wrong_outer(packet: bytes, error: int = 0x1A2B) -> bytes:
    """A packet of :func:`flow` whose outer field is less than the right one by ``error``."""
    at = IP + UDP - 2
    field = (int.from_bytes(packet[at : at + 2], "big") - error) % 0xFFFF
    return packet[:at] + field.to_bytes(2, "big") + packet[at + 2 :]
