"""The raw tables of iptables-legacy, of whose changes the kernel tells nobody: asked of it without a process.

``linux/netfilter_ipv4/ip_tables.h`` and ``netfilter_ipv6/ip6_tables.h``, on machines of 64 bits.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from fixer.host.machine import NET, Host

TABLE = b"raw"
_GET_INFO, _GET_ENTRIES = 64, 65  # IPT_SO_*, IP6T_SO_*
_INFO = struct.Struct("=32sI5I5III")
_HEAD = struct.Struct("=32sI4x")  # of ipt_get_entries, as long as what follows begins at a multiple of 8
_OFFSETS = struct.Struct("=HH")
_COUNTERS_BYTES = 16


class _Layout(NamedTuple):
    """Of an address family: where the tables are asked for, the file of their names, and fields of an entry."""

    family: int
    level: int
    names: str
    offsets: int
    """target_offset, next_offset; the comefrom behind them is the kernel's own."""
    counters: int


_LAYOUTS = (
    _Layout(socket.AF_INET, socket.IPPROTO_IP, "ip_tables_names", 88, 96),
    _Layout(socket.AF_INET6, socket.IPPROTO_IPV6, "ip6_tables_names", 140, 152),
)


def digests(host: Host) -> tuple[bytes | None, ...]:
    """For each family what its raw table is now, counters aside, as a digest; None: there is no such table.

    Two that differ are of two tables, but for matches that keep what they count in the rule itself (before 4.11).
    Raises :class:`OSError` where this process may not ask, and what reading a file does. Creates no table.
    """
    return tuple(_digest(layout) if _is_there(host, layout) else None for layout in _LAYOUTS)


def _is_there(host: Host, layout: _Layout) -> bool:
    return TABLE.decode() in (host.read(f"{NET}/{layout.names}") or "").split()


def _digest(layout: _Layout) -> bytes:
    with socket.socket(layout.family, socket.SOCK_DGRAM) as asked:
        info = _INFO.unpack(_asked(asked, layout.level, _GET_INFO, _INFO.pack(TABLE, *[0] * 13)))
        size = info[-1]
        head = _HEAD.pack(TABLE, size)
        found = _asked(asked, layout.level, _GET_ENTRIES, head + bytes(size))[len(head) :]
    digest = hashlib.sha256()
    for entry in _entries(found, layout):
        digest.update(entry)
    return digest.digest()


def _entries(table: bytes, layout: _Layout) -> Iterator[bytes]:
    """The parts of each entry that are its own: all but where the walk came from, and the counters."""
    at = 0
    while at < len(table):
        _, length = _OFFSETS.unpack_from(table, at + layout.offsets)
        if not length:
            raise OSError("an entry without a length")
        yield table[at : at + layout.offsets + _OFFSETS.size]
        yield table[at + layout.counters + _COUNTERS_BYTES : at + length]
        at += length


def _asked(asked: socket.socket, level: int, option: int, request: bytes) -> bytes:
    """getsockopt(2) with something in the buffer, which Python's does not have."""
    buffer, length = ctypes.create_string_buffer(request, len(request)), ctypes.c_uint32(len(request))
    if _LIBC.getsockopt(asked.fileno(), level, option, buffer, ctypes.byref(length)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return buffer.raw


_LIBC = ctypes.CDLL(None, use_errno=True)
