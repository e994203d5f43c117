"""VXLAN packets over IPv4, made in a microsecond or two each: as many different ones as a benchmark needs."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

from fixer._csum import checksum_sum, pseudo_header_sum

IP, UDP, TCP, VXLAN, ETHERNET = 20, 8, 20, 8, 14  # bytes of header
AROUND = IP + UDP + VXLAN + ETHERNET  # what the tunnel puts around an inner packet
VNI = 4097
MACS = bytes.fromhex("02420a0001c002420a0001b0")


def ip_header(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    """An IPv4 header of 20 bytes, finished; ``length`` is the packet's."""
    fields = struct.pack("!BBHHHBBH4s4s", 0x45, 0, length, 0, 0x4000, 64, protocol, 0, source, destination)
    return fields[:10] + struct.pack("!H", 0xFFFF ^ checksum_sum(fields)) + fields[12:]


def flow(inner: int, number: int, unfinished: bool = False) -> Iterator[bytes]:
    """Packets of one TCP flow without end, from the outer IP header on; ``inner`` bytes (40 or more) are the inner one.

    ``number`` gives addresses and ports; the sequence number moves. Both checksums are there and verify. With
    ``unfinished``, the inner field holds P and the outer one was summed over the finished segment (it agrees: LCO).
    """
    vteps = bytes([192, 0, 2, number % 8]), bytes([192, 0, 2, 9])
    hosts = bytes([10, 0, number >> 8 & 0xFF, number & 0xFF]), bytes([10, 1, 0, 1])
    payload = random.Random(number).randbytes(inner - IP - TCP)  # noqa: S311 - bytes to be summed, not secrets
    segment = TCP + len(payload)
    outer_length = UDP + VXLAN + ETHERNET + inner
    tunnel = struct.pack("!II", 0x08000000, VNI << 8) + MACS + struct.pack("!H", 0x0800)
    inner_ip = ip_header(*hosts, 6, inner)
    ports = struct.pack("!HH", 1024 + number % 60000, 80)
    rest = struct.pack("!IBBH", 1, 0x50, 0x10, 512)
    partial = pseudo_header_sum(*hosts, 6, segment)
    # Finished, a segment always adds up to the complement of its pseudo-header: so this outer is right for all of them.
    udp = struct.pack("!HHH", 49152 + number % 16384, 4789, outer_length)
    covered = checksum_sum(udp + b"\0\0" + tunnel + inner_ip) + (0xFFFF ^ partial)
    covered += pseudo_header_sum(*vteps, 17, outer_length)
    outer = struct.pack("!H", complement(covered) or 0xFFFF)
    head = ip_header(*vteps, 17, IP + outer_length) + udp + outer + tunnel + inner_ip + ports
    constant = partial + checksum_sum(ports + rest + b"\0\0\0\0" + payload)
    sequence = number
    while True:
        field = partial if unfinished else complement(constant + (sequence >> 16) + (sequence & 0xFFFF))
        yield b"".join((head, sequence.to_bytes(4), rest, field.to_bytes(2), b"\0\0", payload))
        sequence = (sequence + len(payload)) & 0xFFFFFFFF


def complement(total: int) -> int:
    """A checksum field from a sum (RFC 1071), which is folded first; ``total`` is below 2^32."""
    total = (total >> 16) + (total & 0xFFFF)
    return 0xFFFF ^ ((total >> 16) + (total & 0xFFFF))
