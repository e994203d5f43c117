"""Netlink messages and their attributes: walked as the kernel sends them, ``linux/netlink.h``."""

from __future__ import annotations

import struct
from collections.abc import Iterator

HEADER = struct.Struct("=IHHII")
"""nlmsghdr: length with the header, type, flags, sequence, port."""
_ATTRIBUTE = struct.Struct("=HH")
_KIND = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each message in what one call received; ends at what is none."""
    at = 0
    while at + HEADER.size <= len(data):
        length, kind, *_ = HEADER.unpack_from(data, at)
        if length < HEADER.size:
            return
        yield kind, data[at + HEADER.size : at + length]
        at += _aligned(length)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type, without its flags, and content of each attribute; ends at what is none."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _KIND, data[at + _ATTRIBUTE.size : at + length]
        at += _aligned(length)


def attribute(kind: int, content: bytes) -> bytes:
    """One attribute, padded."""
    packed = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(content), kind) + content
    return packed + bytes(_aligned(len(packed)) - len(packed))


def _aligned(length: int) -> int:
    return length + 3 & ~3
