"""Metrics where Prometheus finds them: over HTTP on an address or a unix socket, or in node_exporter's textfile.

``prometheus_client`` is imported here alone, by a daemon that is to be measured: it is a third of a daemon's memory.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from socketserver import TCPServer
from typing import Any

from fixer.config import Metrics
from fixer.daemon.metering import Meter
from fixer.errors import SystemRefused
from fixer.telemetry.events import Saying, state_change
from fixer.telemetry.metrics import Collector, Delay

WAIT_SECONDS = 5.0
"""How long a client may take for a whole scrape: they are served one after the other."""
TEXTFILE_SECONDS = 15.0
"""Between two writes of the textfile."""


class Exposition:
    """All ways at once, each with a thread of its own; nothing, if nothing is asked for."""

    def __init__(self, metrics: Metrics, meter: Meter, delay: Delay, say: Callable[[Saying], None]) -> None:
        """Binds; raises :class:`SystemRefused`. ``say`` takes a line for the log and does not wait."""
        self._metrics = metrics
        self._meter = meter
        self._say = say
        self._over = threading.Event()
        self._server: Server | None = None
        self._writing = threading.Lock()
        self._serves = False
        self._complained = ""
        if not (metrics.listen or metrics.textfile):
            return
        from prometheus_client import CollectorRegistry, ProcessCollector

        self._registry = CollectorRegistry()
        self._registry.register(Collector(meter.sample, delay))
        ProcessCollector(registry=self._registry)
        if metrics.listen:
            try:
                self._server = _server(metrics.listen, self._registry)
            except OSError as error:
                raise SystemRefused(f"metrics.listen: {metrics.listen}: {error.strerror or error}") from None

    def start(self) -> None:
        if self._server:
            threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()
            self._serves = True
        if self._metrics.textfile:
            self._write()
            threading.Thread(target=self._rewrite, name="textfile", daemon=True).start()

    def stop(self) -> None:
        """A textfile stays, and says that nobody serves: the rule may be there still."""
        self._over.set()
        self._meter.serves = False
        if self._server:
            if self._serves:  # or `shutdown` waits for a loop that never turned
                self._server.leave()
            if self._metrics.listen.startswith("unix:"):  # while it is ours: the next one may have it at once
                with suppress(OSError):
                    os.unlink(self._metrics.listen.removeprefix("unix:"))  # noqa: PTH108
            self._server.server_close()
        if self._metrics.textfile:
            with self._writing:  # behind one that was at it: the last one is to stay
                self._write()

    def _rewrite(self) -> None:
        while not self._over.wait(TEXTFILE_SECONDS):
            with self._writing:
                if not self._over.is_set():
                    self._write()

    def _write(self) -> None:
        from prometheus_client import generate_latest

        try:
            _replace(self._metrics.textfile, generate_latest(self._registry))
            self._complained = ""
        except OSError as error:
            if error.strerror != self._complained:
                self._complained = str(error.strerror)
                words = f"metrics.textfile: {self._metrics.textfile} cannot be written: {error.strerror}"
                self._say(state_change("degraded", words))


def _replace(path: str, content: bytes) -> None:
    """Whole or not at all, and for everybody to read, whatever our umask: node_exporter is somebody else."""
    beside = f"{path}.{os.getpid()}"  # it reads what ends in .prom
    try:
        with open(beside, "wb") as file:  # noqa: PTH123
            os.fchmod(file.fileno(), 0o644)
            file.write(content)
        os.replace(beside, path)  # noqa: PTH105
    except OSError:
        with suppress(OSError):
            os.unlink(beside)  # noqa: PTH108
        raise


class Server(TCPServer):
    """Serves one client after the other, in a thread; none may take longer than so long, or keep a stop waiting."""

    allow_reuse_address = True

    def __init__(self, family: socket.AddressFamily, where: Any, handler: Any) -> None:
        """Bound, and not yet serving. Raises :class:`OSError`."""
        self.address_family = family
        self._client: socket.socket | None = None
        self._leaves = False
        super().__init__(where, handler)

    def leave(self) -> None:
        """End the thread that serves, and the client that it serves."""
        self._leaves = True
        if client := self._client:
            _end(client)
        self.shutdown()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._client = request  # before it is asked whether it is over: `leave` does it the other way round
        if self._leaves:
            _end(request)
        limit = threading.Timer(WAIT_SECONDS, _end, [request])
        limit.daemon = True
        limit.start()
        try:
            super().process_request(request, client_address)
        finally:
            limit.cancel()
            self._client = None

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        return connection, address or ("unix", 0)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, or said nothing: not ours to tell."""


def _end(client: socket.socket) -> None:
    """Whoever waits for it, waits no more."""
    with suppress(OSError):  # it has just gone
        client.shutdown(socket.SHUT_RDWR)


def _server(where: str, registry: Any) -> Server:
    """Bound, and not yet serving. Raises :class:`OSError`."""
    from prometheus_client import MetricsHandler

    handler = MetricsHandler.factory(registry)
    if where.startswith("unix:"):
        path = where.removeprefix("unix:")
        with suppress(FileNotFoundError):
            if is_unused(path):
                os.unlink(path)  # noqa: PTH108
        server = Server(socket.AF_UNIX, path, handler)
        os.chmod(path, 0o660)  # noqa: PTH101
        return server
    address, _, port = where.rpartition(":")
    host = ip_address(address.strip("[]"))
    family = socket.AF_INET if host.version == 4 else socket.AF_INET6
    return Server(family, (str(host), int(port)), handler)


def is_unused(path: str) -> bool:
    """Whether a socket was left behind there. Raises :class:`FileNotFoundError` if nothing has that name."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        return sock.connect_ex(path) == errno.ECONNREFUSED
