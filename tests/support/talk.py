"""One TCP connection that talks all the time: is it alive, and did it ever stand still for long?"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fixer.lab.net import Namespace

PATIENCE_SECONDS = 60.0
"""How long a connection may stand still: its sender has waited for longer and longer while the rule was off."""


@contextmanager
def answering(there: Namespace, port: int) -> Iterator[None]:
    """A server that says again what it is told."""

    def listener() -> socket.socket:
        return socket.create_server(("", port))

    def answer() -> None:
        conversation, _ = server.accept()
        with conversation:
            while some := conversation.recv(65536):
                conversation.sendall(some)

    server = there.call(listener)
    with server:
        threading.Thread(target=answer, daemon=True).start()
        yield


class Talk:
    """One connection, over which a line goes there and comes back, again and again."""

    def __init__(self, here: Namespace, address: str, port: int) -> None:
        self._socket: socket.socket = here.call(socket.create_connection, (address, port), PATIENCE_SECONDS)
        self._socket.settimeout(PATIENCE_SECONDS)
        self._over = threading.Event()
        self.said = 0
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._talk, daemon=True)
        self._thread.start()

    def _talk(self) -> None:
        try:
            while not self._over.is_set():
                line = f"{self.said:09}\n".encode() * 50
                self._socket.sendall(line)
                back = b""
                while len(back) < len(line):
                    some = self._socket.recv(65536)
                    assert some, "the connection is closed"
                    back += some
                assert back == line
                self.said += 1
        except BaseException as failure:
            self.failure = failure

    def goes_on(self) -> bool:
        """Whether another answer comes before somebody's patience ends."""
        said, deadline = self.said, time.monotonic() + PATIENCE_SECONDS
        while self.said == said and self.failure is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.said > said and self.failure is None

    def end(self) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()
