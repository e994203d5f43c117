"""Hex dumps: what `tcpdump -x`, `-xx`, `-X` and `-XX` print, and `tshark -x`; what people paste into reports."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fixer.capture.frames import Frames
from fixer.capture.link import NOT_IP, LinkType, find_ip
from fixer.capture.source import Source

LARGEST_FRAME = 1 << 18
"""Bytes: as much as libpcap takes of one."""
BYTES_A_LINE = 16
LINK_TYPES = (LinkType.ETHERNET, LinkType.SLL, LinkType.SLL2, LinkType.RAW)
"""What a dump may begin with, and does not say: `-x` leaves the link layer out."""

_PIECE = 1 << 16
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_LINE = re.compile(rb"(?:.*?\b(0x)|\s*)([0-9a-f]{4,8})(?(1):|:? )\s*(.*)", re.IGNORECASE | re.DOTALL)
_GROUP = re.compile(rb"([0-9a-f]{4}|[0-9a-f]{2})(?:\s|$)( ?)", re.IGNORECASE)


def is_text(head: bytes) -> bool:
    """Whether a file that begins so is one for people to read."""
    return not _CONTROL.search(head)


def has_dump(head: bytes) -> bool:
    """Whether a dump begins somewhere in it."""
    return any(offset == 0 and data for offset, data, _ in map(_dumped, head.split(b"\n")))


def batches(source: Source, frames: Frames) -> Iterator[Frames]:
    """The packets of all dumps in a text, one at a time; what stands between them is passed over.

    Raises ValueError where a dump has a gap or no end.
    """
    packet = bytearray()
    for line in _lines(source):
        offset, data, is_sure = _dumped(line)
        if not data:
            continue
        if offset == 0 and packet:
            yield _one(packet, frames)
            packet = bytearray()
        if offset != len(packet):
            if is_sure:
                raise ValueError(f"a dump goes on at 0x{offset:04x} where 0x{len(packet):04x} was due")
            continue
        packet += data
        if len(packet) > LARGEST_FRAME:
            raise ValueError(f"a dump is longer than {LARGEST_FRAME} bytes")
    if packet:
        yield _one(packet, frames)


def _lines(source: Source) -> Iterator[bytes]:
    """The text's lines; one that is longer than any dump's comes in pieces."""
    block = bytearray(_PIECE)
    rest = b""
    while fresh := source.fill(block, 0):
        *lines, rest = (rest + block[:fresh]).split(b"\n")
        yield from lines
        if len(rest) > _PIECE:
            yield rest
            rest = b""
    yield rest


def _dumped(line: bytes) -> tuple[int, bytes, bool]:
    """What a line dumps: from which offset on, which bytes, and whether it can be nothing else."""
    found = _LINE.match(line)
    if found is None:
        return 0, b"", False
    rest, data = found[3], b""
    while len(data) < BYTES_A_LINE and (group := _GROUP.match(rest)):
        data += bytes.fromhex(group[1].decode("ascii"))
        rest = rest[group.end() :]
        if group[2]:  # two blanks: what follows is the same as text
            break
    return int(found[2], 16), data, found[1] is not None


def _one(packet: bytearray, frames: Frames) -> Frames:
    """A batch of one frame. Its length on the wire is what its IP header says, since a dump may show less."""
    link_type, ip_at = _link_layer(bytes(packet))
    length = len(packet)
    if ip_at != NOT_IP and len(packet) >= ip_at + 6:
        is_ip4 = packet[ip_at] >> 4 == 4
        said = int.from_bytes(packet[ip_at + 2 : ip_at + 4] if is_ip4 else packet[ip_at + 4 : ip_at + 6], "big")
        length = max(length, ip_at + said + (0 if is_ip4 else 40))
    frames.begin(packet)
    frames.put(0, len(packet), length, link_type)
    return frames


def _link_layer(packet: bytes) -> tuple[LinkType, int]:
    """The link type, and where the IP header is: the first that fits, with a right header checksum if there is one."""
    places = [(kind, find_ip(kind, packet)[0]) for kind in LINK_TYPES]
    for strict in (True, False):
        for kind, at in places:
            if at != NOT_IP and _is_ip(packet[at : at + 60], strict):
                return kind, at
    return places[0]


def _is_ip(header: bytes, strict: bool) -> bool:
    if header[0] >> 4 == 6:
        return len(header) >= 40
    size = (header[0] & 15) * 4
    if header[0] >> 4 != 4 or size < 20:
        return False
    if not strict:
        return True
    total = sum(int.from_bytes(header[at : at + 2], "big") for at in range(0, size, 2))
    return len(header) >= size and total % 0xFFFF == 0
