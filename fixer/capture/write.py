"""A pcap file to write: little-endian, timestamps in nanoseconds."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from types import TracebackType
from typing import Self

from fixer.capture.frames import Frame
from fixer.capture.source import words
from fixer.errors import SystemRefused

MAGIC_NANOSECONDS = 0xA1B23C4D
SNAPSHOT = 1 << 18
"""Bytes of a frame that the file says it holds at most; BIG TCP's are as long."""


class CaptureWriter:
    """A file that appears under its name only when it is complete.

    Raises SystemRefused where it cannot be written. As a context manager: left by an exception, nothing remains.
    """

    def __init__(self, path: Path, network: int) -> None:
        """network: the link type, and above it what a pcap header says of the frame check sequence."""
        self.path = path
        # Through a symbolic link, so that the link stays one; beside the target: a rename cannot cross devices.
        self._target = path.resolve()
        self._part = self._target.with_name(f".{self._target.name}.{os.getpid()}.part")
        if self._target.exists() and not self._target.is_file():
            raise SystemRefused(f"{path}: not a regular file: choose another name to write to")
        try:
            self._file = self._part.open("xb")
        except OSError as error:
            raise SystemRefused(f"{path}: cannot be written: {words(error)}") from error
        self._file.write(struct.pack("<IHHiIII", MAGIC_NANOSECONDS, 2, 4, 0, 0, SNAPSHOT, network))

    def write(self, frame: Frame) -> None:
        seconds, nanoseconds = divmod(frame.when_ns, 1_000_000_000)
        try:
            self._file.write(
                struct.pack("<IIII", seconds & 0xFFFFFFFF, nanoseconds, len(frame.data), frame.wire_length) + frame.data
            )
        except OSError as error:
            raise SystemRefused(f"{self.path}: cannot be written: {words(error)}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()  # flushes: a full disk may show only here
            if kind is None:
                self._part.replace(self._target)
        except OSError as full:
            raise SystemRefused(f"{self.path}: cannot be written: {words(full)}") from full
        finally:
            self._part.unlink(missing_ok=True)


def mended(frame: Frame, before: bytes) -> Frame:
    """`frame`, whose packet was mended since it was `before`: a frame check sequence behind it that was right is right
    again."""
    if len(before) > 4 and before[-4:] == _check_sequence(before[:-4]):
        return frame._replace(data=frame.data[:-4] + _check_sequence(frame.data[:-4]))
    return frame


def _check_sequence(data: bytes) -> bytes:
    """IEEE 802.3 §3.2.9, as captures have it: the CRC with its least significant byte first."""
    return zlib.crc32(data).to_bytes(4, "little")
