"""The bytes of a capture: of a file or of standard input, decompressed on the way.

Reading never raises: what breaks a stream is its `fault`, behind everything that was read before that.
"""

from __future__ import annotations

import os
import shlex
import sys
import zlib
from collections.abc import Callable
from importlib import import_module
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from fixer.errors import FileUnreadable

STDIN = Path("-")

PIECE = 1 << 13
"""Bytes that are decompressed at once: a library takes what it has of a piece with it when the stream is damaged
there."""
MOST_MEMORY = 1 << 28
"""Bytes that an xz stream may ask for: `xz -9` needs 65 MiB, a damaged header may ask for 4 GiB."""


class Stream(Protocol):
    """What the decompressors of bz2, lzma and zstd have in common."""

    eof: Any
    needs_input: Any
    unused_data: Any

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class Gzip:
    """zlib's stream with the face of the others."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=31)

    eof = property(lambda self: self._stream.eof)
    unused_data = property(lambda self: self._stream.unused_data)
    needs_input = property(lambda self: not self._stream.unconsumed_tail)

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail + data, max_length)


class Packing(NamedTuple):
    """How a file may be compressed; `stream` raises ImportError where this Python cannot undo it."""

    name: str
    magic: bytes
    stream: Callable[[], Stream]
    command: str


PACKINGS = (
    Packing("gzip", b"\x1f\x8b", Gzip, "gzip -dc"),
    Packing("bzip2", b"BZh", lambda: import_module("bz2").BZ2Decompressor(), "bzip2 -dc"),
    Packing("xz", b"\xfd7zXZ\0", lambda: import_module("lzma").LZMADecompressor(memlimit=MOST_MEMORY), "xz -dc"),
    Packing(
        "zstd",
        b"\x28\xb5\x2f\xfd",
        lambda: import_module("compression.zstd").ZstdDecompressor(),  # from Python 3.14 on
        "zstd -dc",
    ),
)


class Source:
    """One file, or standard input for ``-``.

    Raises FileUnreadable where it cannot be opened, or is packed in a way that this Python does not read.
    """

    def __init__(self, path: Path) -> None:
        self.name = "standard input" if path == STDIN else str(path)
        self.fault = ""
        self.warning = ""
        self.position = 0  # bytes on disk, of `size`
        self._packed = b""  # read from the file, and not decompressed yet
        self._ahead = b""  # decompressed, and not taken yet
        self._packing: Packing | None = None
        self._ended = False  # a terminal goes on behind its end
        try:
            self._file = FileIO(sys.stdin.fileno() if path == STDIN else path, closefd=path != STDIN)
        except (OSError, ValueError) as error:  # ValueError: standard input is closed
            raise FileUnreadable(f"{self.name}: cannot be read: {words(error)}") from error
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            self._packed = self._fresh(PIECE)
            self._unpack()
        except OSError as error:
            self.close()
            raise FileUnreadable(f"{self.name}: cannot be read: {words(error)}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._file.close()

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, fewer if there are no more; they will be read again."""
        head = bytearray(size)
        self._ahead = bytes(head[: self.fill(head, 0)]) + self._ahead
        return self._ahead[:size]

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer if there are no more."""
        data = bytearray(size)
        return bytes(data[: self.fill(data, 0)])

    def fill(self, block: bytearray, at: int) -> int:
        """Fill `block` from `at` on and return how much that was: less than there was room for at the end, and then
        0."""
        began = at
        with memoryview(block) as view:
            while at < len(block) and (fresh := self._into(view[at:])):
                at += fresh
        return at - began

    def _into(self, room: memoryview) -> int:
        """Some bytes into `room`, 0 at the end."""
        if self._ahead:
            data, self._ahead = self._ahead[: len(room)], self._ahead[len(room) :]
        elif self.fault:
            return 0  # nothing behind a fault is to be believed, and the first is the one to name
        elif self._packing is None:
            if not self._packed:
                return self._straight(room)
            data, self._packed = self._packed[: len(room)], self._packed[len(room) :]
        else:
            data = self._unpacked(self._packing, min(len(room), PIECE))
        room[: len(data)] = data
        return len(data)

    def _straight(self, room: memoryview) -> int:
        if self._ended:
            return 0
        try:
            fresh = self._file.readinto(room) or 0
        except OSError as error:
            self.fault = words(error)
            return 0
        self.position += fresh
        self._ended = not fresh
        return fresh

    def _unpack(self) -> None:
        """Choose how to decompress what begins here."""
        for packing in PACKINGS:
            if self._packed.startswith(packing.magic):
                try:
                    self._stream = packing.stream()
                except ImportError:
                    file = shlex.quote(self.name) if self._file.closefd else "FILE"
                    raise FileUnreadable(
                        f"{self.name}: packed with {packing.name}, which this Python does not read: "
                        f"`{packing.command} {file} | fixer scan -`"
                    ) from None
                self._packing = packing

    def _unpacked(self, packing: Packing, most: int) -> bytes:
        """At most `most` bytes; none at the end."""
        try:
            while True:
                if self._stream.eof and not self._goes_on(packing):
                    return b""
                wants = self._stream.needs_input
                data = self._stream.decompress(self._taken() if wants else b"", most)
                if data:
                    return data
                if wants and not self._packed and not self._stream.eof and not self._refill():
                    self.fault = f"its {packing.name} stream is cut short"
                    return b""
        except OSError as error:
            self.fault = words(error) if error.errno is not None else f"its {packing.name} stream is damaged"
        except Exception:  # each library has an error of its own
            self.fault = f"its {packing.name} stream is damaged"
        return b""

    def _goes_on(self, packing: Packing) -> bool:
        """Behind the end of a stream: whether another begins. Zeros are padding; anything else is not ours to read."""
        self._packed = self._stream.unused_data + self._packed
        while len(self._packed) < len(packing.magic) or not self._packed.strip(b"\0"):
            self._packed = self._packed.lstrip(b"\0")
            if not self._refill():
                break
        self._packed = self._packed.lstrip(b"\0")
        if self._packed.startswith(packing.magic):
            self._stream = packing.stream()
            return True
        if self._packed:
            self.warning = f"there are bytes behind the end of its {packing.name} stream, which were not read"
        return False

    def _taken(self) -> bytes:
        if not self._packed:
            self._refill()
        data, self._packed = self._packed, b""
        return data

    def _refill(self) -> bool:
        """Read more of the file behind `_packed`; False at its end."""
        fresh = self._fresh(PIECE)
        self._packed += fresh
        return bool(fresh)

    def _fresh(self, size: int) -> bytes:
        data = b"" if self._ended else self._file.read(size) or b""
        self._ended = not data
        self.position += len(data)
        return data


def words(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()
