"""Where the log goes: standard output, a file that others may rotate, a unix socket.

Each is written one line at a time by the log's own thread, which may wait for a reader, and where a line cannot be
written raises :class:`OSError` and is ready for the next one.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from fixer.telemetry.log import Output

STDOUT = "stdout"
SOCKET = "unix:"
SEND_SECONDS = 1.0
"""How long a line waits for a reader of the socket who is behind; then it is lost."""
AGAIN_SECONDS = 1.0
"""Between two attempts to reach a reader who is not there."""


def opened(where: str) -> Output:
    """What ``log.to`` names: ``stdout``, ``unix:`` and a path, or a file's path.

    Raises :class:`OSError` for a file that cannot be written; whoever reads a socket may come later.
    """
    if where == STDOUT:
        return sys.stdout
    return Socket(where.removeprefix(SOCKET)) if where.startswith(SOCKET) else File(where)


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK, 0o640)


class File:
    """A file that is opened anew once it is no longer the one of that name (logrotate's ``create``)."""

    def __init__(self, path: str) -> None:
        from logging.handlers import WatchedFileHandler

        class Raw(WatchedFileHandler):
            """Whole lines, unbuffered: what a full disk refuses is not tried again behind our back."""

            def _open(self) -> Any:
                # Without waiting: a FIFO that nobody reads is refused. It is no other for a file.
                return open(self.baseFilename, "ab", buffering=0, opener=_opened)

        self._handler = Raw(path)
        self._torn = False
        """Whether a disk that is full has taken the beginning of a line only."""

    def write(self, line: str) -> None:
        """``line``: with its end. Raises :class:`OSError`."""
        self._handler.reopenIfNeeded()
        if self._handler.stream is None:  # the last attempt to open it anew failed
            self._handler.stream = self._handler._open()
            self._handler._statstream()
        data = ("\n" if self._torn else "").encode() + line.encode(errors="backslashreplace")
        done = cast("Any", self._handler.stream).write(data) or 0  # None: a pipe whose reader is behind
        if done < len(data):
            self._torn = self._torn or done > 0
            raise OSError(f"only {done} of {len(data)} bytes were written")
        self._torn = False

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        self._handler.close()


class Socket:
    """A stream socket that somebody listens on: a shipper. Who is not there is asked for once a second."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._rest = b""
        """Of a line that was begun: nothing else may come before its end."""
        self._next = float("-inf")

    def write(self, line: str) -> None:
        """``line``: with its end. Raises :class:`OSError`."""
        reader = self._socket or self._connected()
        data = line.encode(errors="backslashreplace")
        try:
            self._rest = self._sent(reader, self._rest)
            has_begun = not self._rest
            if has_begun:
                self._rest = self._sent(reader, data)
        except OSError:
            self.close()
            raise
        if not has_begun or self._rest == data:
            self._rest = b"" if has_begun else self._rest
            raise TimeoutError("the reader is behind")

    def flush(self) -> None:
        """Nothing is held back but the end of a line whose reader is behind."""

    def _connected(self) -> socket.socket:
        if time.monotonic() < self._next:
            raise ConnectionRefusedError(f"nobody listens on {self._path}")
        self._next = time.monotonic() + AGAIN_SECONDS
        reader = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            reader.settimeout(SEND_SECONDS)
            reader.connect(self._path)
        except OSError:
            reader.close()
            raise
        self._socket = reader
        return reader

    def _sent(self, reader: socket.socket, data: bytes) -> bytes:
        """What of it could not be sent in time."""
        deadline = time.monotonic() + SEND_SECONDS
        while data and time.monotonic() < deadline:
            with suppress(TimeoutError):
                data = data[reader.send(data) :]
        return data

    def close(self) -> None:
        if self._socket:
            self._socket.close()
        self._socket, self._rest = None, b""
