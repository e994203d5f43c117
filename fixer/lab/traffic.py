"""What a user does on the overlay, over real sockets in the namespaces, and what the kernel says about the checksums.

Nothing here knows about ``fixer``: the kernel's own TCP, UDP and ICMP are the judge.
"""

from __future__ import annotations

import hashlib
import http.client
import http.server
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from random import Random

from fixer.host.machine import NET
from fixer.lab.net import Namespace, meanwhile

HTTP_PORT, ECHO_PORT, CLOSED_PORT = 8080, 7007, 81
CHUNK = 1 << 16  # bytes: more than any datagram


@dataclass(frozen=True)
class Download:
    """What arrived: ``size`` in bytes, ``sha256`` in hex, within ``seconds``; ``error`` says why there was no more."""

    size: int
    sha256: str
    seconds: float
    error: str = ""


def ping(
    here: Namespace, address: str, *, count: int = 1, seconds: int = 1, size: int = 56, whole: bool = False
) -> bool:
    """Whether ``count`` echo requests of ``size`` bytes (``whole``: not to be fragmented) are answered in time.

    ping takes an unreachable neighbour for its answer, and one that was asked for before the path worked is so for up
    to 3 s: so it is run again for as long as there is time.
    """
    options = (f"-c{count}", f"-s{size}", f"-M{'do' if whole else 'want'}")
    give_up = time.monotonic() + seconds
    while (left := round(give_up - time.monotonic())) > 0:
        if here.run("ping", "-q", "-i0.2", f"-w{left}", *options, address).status == 0:
            return True
        time.sleep(0.1)  # it need not have waited: a packet that is too long is refused at once
    return False


def connect(here: Namespace, address: str, port: int, seconds: float = 1.5) -> str:
    """Open a TCP connection, close it: ``connected``, ``refused``, ``timed out``, or ``unreachable`` (not even ARP)."""
    try:
        here.call(socket.create_connection, (address, port), seconds).close()
    except TimeoutError:
        return "timed out"
    except ConnectionRefusedError:
        return "refused"
    except OSError:
        return "unreachable"
    return "connected"


def ask(here: Namespace, address: str, port: int, *, size: int = 32, seconds: float = 1.0) -> str:
    """Send ``size`` random bytes to a UDP echo server: ``answered``, ``altered`` (others came back) or ``lost``."""
    question = Random(size).randbytes(size)  # noqa: S311 - traffic, not a secret
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with here.call(socket.socket, family, socket.SOCK_DGRAM) as ours:
        ours.settimeout(seconds)
        try:
            ours.sendto(question, (address, port))
            answer = ours.recv(CHUNK)
        except OSError:
            return "lost"
    return "answered" if answer == question else "altered"


def download(here: Namespace, address: str, *, seconds: float = 20.0, connecting: float = 1.5) -> Download:
    """GET / from the HTTP server at ``address``; ``seconds`` is for all of it, ``connecting`` of them to connect."""
    started = time.monotonic()
    digest, size, error = hashlib.sha256(), 0, ""
    web = http.client.HTTPConnection(address, HTTP_PORT)
    try:
        web.sock = here.call(socket.create_connection, (address, HTTP_PORT), connecting)
        web.request("GET", "/")
        web.sock.settimeout(seconds)
        answer = web.getresponse()
        while chunk := answer.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
            if time.monotonic() - started > seconds:
                raise TimeoutError(f"not complete within {seconds:g} s")
    except (OSError, http.client.HTTPException) as raised:
        error = str(raised) or type(raised).__name__
    finally:
        web.close()
    return Download(size, digest.hexdigest(), time.monotonic() - started, error)


@contextmanager
def serving(there: Namespace, content: bytes) -> Iterator[None]:
    """Serve ``content`` over HTTP and echo UDP, on HTTP_PORT and ECHO_PORT, IPv4 and IPv6, while the context lasts."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads the access log of the laboratory."""

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:  # the client gave up: on a broken wire that is the expected end
                self.close_connection = True

    with ExitStack() as undo:
        web = socketserver.ThreadingTCPServer(("", HTTP_PORT), Page, bind_and_activate=False)
        web.daemon_threads = True
        web.socket.close()
        web.socket = there.call(_listener, socket.SOCK_STREAM, HTTP_PORT)
        undo.callback(web.server_close)
        thread = threading.Thread(target=web.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        undo.callback(thread.join)
        undo.callback(web.shutdown)
        undo.enter_context(echoing(there, ECHO_PORT))
        yield


@contextmanager
def echoing(there: Namespace, port: int) -> Iterator[None]:
    """Echo UDP datagrams on ``port``, over IPv4 and IPv6, while the context lasts."""

    def echo(ended: threading.Event) -> None:
        while not ended.is_set():
            with suppress(OSError):  # nothing came for a while, or there is no way back to the sender
                ours.sendto(*ours.recvfrom(CHUNK))

    with there.call(_listener, socket.SOCK_DGRAM, port) as ours:
        ours.settimeout(0.05)
        with meanwhile(echo):
            yield


def checksum_errors(here: Namespace) -> dict[str, int]:
    """How many packets this host's kernel refused for their checksum since it was built, IPv4 and IPv6 together."""
    snmp, snmp6 = (here.call(here.host.read, f"{NET}/{file}") or "" for file in ("snmp", "snmp6"))
    lines = [line.split() for line in snmp.splitlines()]  # a line of names, then one of values, for each protocol
    pairs = zip(lines[::2], lines[1::2], strict=True)
    four = {names[0]: dict(zip(names, values, strict=True)) for names, values in pairs}
    six = dict(line.split() for line in snmp6.splitlines())
    return {
        "TcpInCsumErrors": int(four["Tcp:"]["InCsumErrors"]),
        "UdpInCsumErrors": int(four["Udp:"]["InCsumErrors"]) + int(six["Udp6InCsumErrors"]),
    }


def _listener(kind: socket.SocketKind, port: int) -> socket.socket:
    """A socket bound to ``port`` for IPv4 and IPv6 alike, listening if ``kind`` is a stream."""
    with ExitStack() as undo:
        ours = undo.enter_context(socket.socket(socket.AF_INET6, kind))
        ours.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ours.bind(("::", port))
        if kind is socket.SOCK_STREAM:
            ours.listen()
        undo.pop_all()
    return ours
