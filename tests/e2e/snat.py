"""Clients with clocks of their own behind one address, and a server that they reach through it.

``standing`` builds one of two sites. Over VXLAN the server is a container behind a bridge of the second host, whose
VTEP is where ``fixer`` runs; its replies leave encapsulated through that host's OUTPUT. As macvlan the server has a
namespace of its own on the second host's interface, which is where ``fixer --plain`` runs. In both the first host is
the router: it forwards what the clients send and puts its own address in place of theirs.

The server closes first, always: so it goes to TIME_WAIT, where an old kernel would remember the client's timestamp.
"""

from __future__ import annotations

import hashlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from fixer.lab import bpf
from fixer.lab.net import Lab, Layout, Namespace, Wire, own_name
from fixer.node.host import NET, Host

PORT = 8443
CHUNK = 1 << 16  # bytes
CONNECT_SECONDS = 1.5  # time for a second SYN, not for a third
STALLED_SECONDS = 20.0
BLOCK = Random(323).randbytes(1 << 20)  # what is sent, again and again from its beginning
TICKS = 1 << 32
BEFORE_THE_WRAP = 3000  # ms
# Each is ahead of one and behind another of them (signed 32-bit), and far: 0x30000000 ms are nine days.
CLOCKS = (0, 0x30000000, -BEFORE_THE_WRAP, 0x90000000)


class Kind(StrEnum):
    """Where the server is."""

    VXLAN = "vxlan"
    MACVLAN = "macvlan"


class Bridge(Wire):
    """A sound wire at the speed of the kernel, and NICs that finish their checksums before it."""

    @contextmanager
    def join(self, namespace: Namespace, port: int) -> Iterator[None]:
        namespace.configure(
            "link add br0 type bridge",
            "link set br0 addrgenmode none",
            *(f"link set {leg} master br0" for leg in ("left", "right")),
            "link set br0 up",
        )
        yield


class Client(Namespace):
    """A host behind the router, whose clock of TCP timestamps shows ``clock`` (ms, modulo 2³²) at the start."""

    def __init__(self, name: str, host: Host, number: int, clock: int) -> None:
        super().__init__(name, host)
        self.number = number
        self.clock = clock


@dataclass(frozen=True)
class Site:
    """A standing site: ``source`` is the one address that the server sees, ``address`` the server's, by IP version."""

    kind: Kind
    router: Namespace
    clients: list[Client]
    server: Namespace
    at: Namespace  # where fixer runs
    source: dict[int, str]
    address: dict[int, str]

    @property
    def plain(self) -> tuple[str, ...]:
        """What ``fixer on`` and ``fixer run`` are told about the site."""
        return ("--plain",) if self.kind is Kind.MACVLAN else ()

    @property
    def sources(self) -> str:
        """The source as the configuration has it: `sources`' value in TOML."""
        return f'["{self.source[4]}/32", "{self.source[6]}/128"]'

    def visit(self, client: Client, version: int = 4) -> str:
        """Connect, get a little, close behind the server: ``served``, ``timed out``, or what went wrong."""
        try:
            with self.connected(client, version) as conversation:
                return "served" if conversation.get(1000) else "wrong bytes"
        except TimeoutError:
            return "timed out"
        except OSError as error:
            return error.strerror or str(error)

    @contextmanager
    def connected(self, client: Client, version: int = 4, seconds: float = CONNECT_SECONDS) -> Iterator[Conversation]:
        """An open connection; TimeoutError if there was none within ``seconds``."""
        with client.call(socket.create_connection, (self.address[version], PORT), seconds) as ours:
            ours.settimeout(STALLED_SECONDS)
            yield Conversation(client, self.server, ours)

    def sockets(self) -> dict[int, Socket]:
        """What ``ss`` says of the server's established connections, by the port that it sees."""
        return _sockets(self.server, "sport", PORT)


@dataclass(frozen=True)
class Conversation:
    """One connection to the server, which does one thing, sends so many bytes or takes them and says their sum.

    Then it closes, and so do we.
    """

    client: Client
    server: Namespace
    socket: socket.socket

    def get(self, size: int) -> bool:
        """Whether ``size`` bytes come as they were sent, and then the end."""
        self.socket.sendall(b"GET %d\n" % size)
        digest = hashlib.sha256()
        while chunk := self.socket.recv(CHUNK):
            digest.update(chunk)
        self.socket.close()
        return digest.hexdigest() == sha256(size)

    def put(self, size: int, pause: float = 0.0) -> bool:
        """Whether ``size`` bytes arrive as they were sent; ``pause`` (s) is made after each MB."""
        self.socket.sendall(b"PUT %d\n" % size)
        for at in range(0, size, len(BLOCK)):
            self.socket.sendall(BLOCK[: size - at])
            time.sleep(pause)
        answer = b"".join(iter(lambda: self.socket.recv(CHUNK), b""))
        self.socket.close()
        return answer.decode() == sha256(size)

    def seen(self) -> Socket:
        """What ``ss`` says of it at the client."""
        return _sockets(self.client, "dport", PORT)[self.socket.getsockname()[1]]


@dataclass(frozen=True)
class Socket:
    """What ``ss -tio`` says of a connection: whether it uses timestamps, its round-trip times in ms, if measured."""

    timestamps: bool
    rtt: float | None
    rcv_rtt: float | None
    text: str


def _sockets(here: Namespace, side: str, port: int) -> dict[int, Socket]:
    # Without -o there is no "ts" in it, whatever the connection uses (iproute2 6.1).
    shown = here.run("ss", "-tnioH", "state", "established", f"( {side} = :{port} )").out
    found = {}
    for addresses, about in zip(*[iter(shown.splitlines())] * 2, strict=True):
        ours, theirs = (int(end.rpartition(":")[2]) for end in addresses.split()[2:4])
        values = dict(re.findall(r"\b(rtt|rcv_rtt):([\d.]+)", about))
        rtt, rcv_rtt = (float(values[name]) if name in values else None for name in ("rtt", "rcv_rtt"))
        found[theirs if side == "sport" else ours] = Socket(" ts " in f" {about} ", rtt, rcv_rtt, about)
    return found


def sha256(size: int) -> str:
    """Of the first ``size`` bytes of BLOCK, repeated."""
    digest = hashlib.sha256()
    for at in range(0, size, len(BLOCK)):
        digest.update(BLOCK[: size - at])
    return digest.hexdigest()


def refusals(here: Namespace) -> dict[str, int]:
    """The kernel's counters of segments and ACKs that it refused for a timestamp, since the namespace was built."""
    lines = [line.split() for line in (here.call(here.host.read, f"{NET}/netstat") or "").splitlines()]
    names, values = next(pair for pair in zip(lines[::2], lines[1::2], strict=True) if pair[0][0] == "TcpExt:")
    counted = dict(zip(names[1:], map(int, values[1:]), strict=True))
    return {name: count for name, count in counted.items() if "PAWS" in name or name in ("TSEcrRejected", "TWKilled")}


@contextmanager
def standing(
    kind: Kind, host: Host, *, clocks: tuple[int, ...] = CLOCKS, layout: Layout | None = None, wire: Wire | None = None
) -> Iterator[Site]:
    """A site with a client for each of ``clocks`` (ms at the start, modulo 2³²), and its server, while it lasts."""
    layout = layout or Layout(tunnel=kind is Kind.VXLAN)
    with ExitStack() as undo:
        lab = undo.enter_context(Lab(layout, wire or Bridge(), host))
        if wire is None:
            for end in (lab.left, lab.right):
                _must(end, "ethtool", "-K", "eth0", "tx", "off")
        name = own_name()
        server = undo.enter_context(Namespace(f"{name}-server", host))
        address = {4: "10.0.1.6", 6: "fd00:1::6"}
        if kind is Kind.VXLAN:
            lab.right.configure(
                "address flush dev vxlan0",
                "link add br0 type bridge",
                "link set br0 addrgenmode none",
                "link set vxlan0 master br0",
                f"link add server type veth peer name eth0 netns {server.name}",
                "link set server addrgenmode none master br0 up",
                "link set br0 up",
            )
        else:
            lab.right.configure(f"link add server link eth0 netns {server.name} type macvlan mode bridge")
            server.configure("link set server name eth0")
        server.configure(
            f"link set eth0 addrgenmode none mtu {layout.overlay_mtu} up",
            f"address add {address[4]}/24 dev eth0",
            f"address add {address[6]}/64 dev eth0 nodad",
        )
        _must(lab.left, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        source = {4: lab.left.overlay4, 6: lab.left.overlay6}
        for tool, inside in (("iptables", "10.9.0.0/16"), ("ip6tables", "fd00:9::/32")):
            translate = ("-s", inside, "-o", lab.left.device, "-j", "SNAT", "--to-source")
            _must(lab.left, tool, "-t", "nat", "-A", "POSTROUTING", *translate, source[6 if tool[2] == "6" else 4])
        clients = []
        for number, clock in enumerate(clocks):
            client = undo.enter_context(Client(f"{name}-client{number}", host, number, clock))
            _connect(client, lab.left, layout.overlay_mtu)
            undo.enter_context(_clock(client))
            clients.append(client)
        undo.enter_context(_serving(server))
        yield Site(
            kind, lab.left, clients, server, lab.right if kind is Kind.VXLAN else server, source=source, address=address
        )


def _connect(client: Client, router: Namespace, mtu: int) -> None:
    number = client.number
    router.configure(
        f"link add client{number} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {client.name}",
        f"link set client{number} addrgenmode none up",
        f"address add 10.9.{number}.1/24 dev client{number}",
        f"address add fd00:9:{number}::1/64 dev client{number} nodad",
        f"address add fe80::1/64 dev client{number} nodad",  # a router asks for its neighbours from this one only
    )
    client.configure(
        "link set eth0 addrgenmode none up",
        f"address add 10.9.{number}.2/24 dev eth0",
        f"address add fd00:9:{number}::2/64 dev eth0 nodad",
        f"route add default via 10.9.{number}.1",
        f"route add default via fd00:9:{number}::1",
    )


@contextmanager
def _clock(client: Client) -> Iterator[None]:
    """Set the client's clock: 2 is without an offset drawn at random; then Linux shows the milliseconds since boot."""
    _must(client, "sysctl", "-qw", "net.ipv4.tcp_timestamps=2")
    shift = client.clock - time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000_000
    with ExitStack() as undo:
        for point in (bpf.BPF_TCX_EGRESS, bpf.BPF_TCX_INGRESS):
            undo.enter_context(bpf.attached(client, "eth0", point, bpf.shift_clock(shift, point)))
        yield


@contextmanager
def _serving(server: Namespace) -> Iterator[None]:
    """GET n and PUT n while the context lasts; what is still open then is cut."""
    ended = threading.Event()
    threads: list[threading.Thread] = []

    def answer(theirs: socket.socket) -> None:
        with theirs, suppress(OSError):  # the client went away
            theirs.settimeout(0.2)
            line = b""
            while not line.endswith(b"\n"):
                if (byte := _patiently(theirs, 1, ended)) == b"":
                    return
                line += byte
            verb, size = line.split()
            if verb == b"GET":
                theirs.settimeout(STALLED_SECONDS)
                for at in range(0, int(size), len(BLOCK)):
                    theirs.sendall(BLOCK[: int(size) - at])
                return
            digest, left = hashlib.sha256(), int(size)
            while left and (chunk := _patiently(theirs, min(left, CHUNK), ended)):
                digest.update(chunk)
                left -= len(chunk)
            theirs.sendall(digest.hexdigest().encode())

    def accept() -> None:
        while not ended.is_set():
            with suppress(TimeoutError):
                thread = threading.Thread(target=answer, args=(listening.accept()[0],), daemon=True)
                thread.start()
                threads.append(thread)

    with server.call(_listener) as listening:
        listening.settimeout(0.05)
        threads.append(threading.Thread(target=accept, daemon=True))
        threads[0].start()
        try:
            yield
        finally:
            ended.set()
            for thread in threads:
                thread.join()


def _listener() -> socket.socket:
    return socket.create_server(("::", PORT), family=socket.AF_INET6, backlog=512, dualstack_ipv6=True)


def _patiently(theirs: socket.socket, size: int, ended: threading.Event) -> bytes:
    """The next bytes, up to ``size``, however long they take; none at the end of either side."""
    while not ended.is_set():
        with suppress(TimeoutError):
            return theirs.recv(size)
    return b""


def _must(here: Namespace, *argv: str) -> None:
    done = here.run(*argv)
    if done.status != 0:
        raise OSError(f"{' '.join(argv)}: {done.err.strip()}")
