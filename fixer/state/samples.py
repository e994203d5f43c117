"""Sample packets of findings: a pcapng file for each, as they came and as they left, which is what a vendor asks for.

Its name is drawn, and nothing that a packet holds is in it. Only root and the daemon's user may read it. There are
never more than so many files and bytes; the oldest give way.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fixer.errors import FixerError
from fixer.host.machine import Host
from fixer.state import place

MOST = 10
"""Packets of one finding."""
MOST_FILES = 64
"""Of one network namespace …"""
MOST_BYTES = 4 << 20
"""… and all together."""

CAME, LEFT = 0, 1
"""The interfaces that packets are filed under."""
_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_MAGIC = 0x1A2B3C4D
_RAW_IP = 101
_COMMENT, _NAME, _RESOLUTION, _FLAGS = 1, 2, 9, 2
_NANOSECONDS = 9
_INBOUND = 1


class Sample(NamedTuple):
    """A packet from its first IP header on; ``left``: None if it was dropped; ``comment``: what is wrong with it."""

    when_ns: int
    length: int
    """Bytes on the wire, of which there may be fewer here."""
    came: bytes
    left: bytes | None
    comment: str


class Samples:
    """Those of one daemon."""

    def __init__(self, host: Host, queue: int) -> None:
        self._host = host
        self._queue = queue
        self._taken: dict[str, int] = {}

    def add(self, case: str, sample: Sample, comment: str) -> str:
        """Keep one more packet of a finding whose name is ``case``; the file's path, '' if it cannot be written.

        ``comment``: of the whole file, for its first packet.
        """
        taken = self._taken.get(case, 0)
        path = place.path_of(self._host, "pcapng", self._queue, case)
        if taken >= MOST:
            return str(path)
        try:
            before = (place.read(path) if taken else None) or b"".join(_head(comment))
            place.write(path, before + b"".join(_packets(sample)), private=True)
            self._bound(path)
        except FixerError:
            return ""
        self._taken[case] = taken + 1
        return str(path)

    def close(self, case: str) -> None:
        """Nothing more comes of that finding. Its file stays."""
        self._taken.pop(case, None)

    def _bound(self, newest: Path) -> None:
        """Remove the oldest files beyond what there is room for."""
        found = []
        for path in place.every(self._host, "pcapng"):
            with suppress(OSError):
                stat = path.lstat()
                found.append((path == newest, stat.st_mtime, stat.st_size, path))
        found.sort(reverse=True)
        total = 0
        for number, (_, _, size, path) in enumerate(found):
            total += size
            if number >= MOST_FILES or total > MOST_BYTES:
                place.remove(path)


def remove(host: Host) -> None:
    """All of the host's network namespace, which is about to go."""
    for path in place.every(host, "pcapng"):
        place.remove(path)


def _head(comment: str) -> Iterator[bytes]:
    """A section, and its two interfaces (draft-ietf-opsawg-pcapng)."""
    yield _block(_SECTION, struct.pack("=IHHq", _MAGIC, 1, 0, -1) + _options((_COMMENT, comment.encode())))
    for name in ("came", "left"):
        options = _options((_NAME, name.encode()), (_RESOLUTION, bytes([_NANOSECONDS])))
        yield _block(_INTERFACE, struct.pack("=HHI", _RAW_IP, 0, 0) + options)


def _packets(sample: Sample) -> Iterator[bytes]:
    for interface, data in ((CAME, sample.came), (LEFT, sample.left)):
        if data is None:
            continue
        head = struct.pack(
            "=IIIII", interface, sample.when_ns >> 32, sample.when_ns & 0xFFFFFFFF, len(data), sample.length
        )
        options = [(_COMMENT, sample.comment.encode())]
        if interface == CAME:
            options.append((_FLAGS, struct.pack("=I", _INBOUND)))
        yield _block(_PACKET, head + _padded(data) + _options(*options))


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("=I", len(body) + 12)
    return struct.pack("=I", kind) + length + body + length


def _options(*options: tuple[int, bytes]) -> bytes:
    said = b"".join(struct.pack("=HH", code, len(value)) + _padded(value) for code, value in options)
    return said + bytes(4)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
