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
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from fixer.host.machine import NET, Host
from fixer.lab import bpf
from fixer.lab.net import Lab, Layout, Namespace, Wire, meanwhile, own_name

from . import gate

PORT, CROWDED_PORT, FLOODED_PORT = 8443, 8444, 8445
CHUNK = 1 << 16  # bytes
CONNECT_SECONDS = 15.0  # a busy machine's; whether a SYN was refused on the way the gate knows
TWO_SYN_SECONDS = 1.5  # for who is refused: time for a second SYN, not for a third
ONE_SYN_SECONDS = 0.5
STALLED_SECONDS = 20.0
BLOCK = Random(323).randbytes(1 << 20)  # what is sent, again and again from its beginning
TICKS = 1 << 32
BEFORE_THE_WRAP = 3000  # ms
# Far apart (0x30000000 ms are nine days), but on one half of the circle: where each of three is ahead of the next one
# (signed 32-bit) no order satisfies a server. The last is so little behind another one, ten minutes, that Linux would
# take an echo of the wrong clock for a round trip.
CLOCKS = (0, 0x30000000, -BEFORE_THE_WRAP, 0x60000000, 0x30000000 - 600_000)


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

    def sockets(self) -> dict[int, Socket]:
        """What ``ss`` says of its established connections to the server, by their port here."""
        return _sockets(self, "dport", PORT)


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

    def visit(self, client: Client, version: int = 4, seconds: float = CONNECT_SECONDS) -> str:
        """Connect, get a little, close behind the server: ``served``, ``timed out``, or what went wrong."""
        try:
            with self.connected(client, version, seconds) as conversation:
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

    def crowd(self, client: Client, size: int) -> AbstractContextManager[None]:
        """``size`` established connections that nobody ever speaks on."""
        return _crowd(client, self.server, self.address[4], size)

    def flood(self, count: int, clock: int) -> int:
        """Send ``count`` SYNs that nobody answers from the router's address, all different, and from ``clock`` (ms) on.

        Returns how many the router's device took. Straight to the device, so that no conntrack of the router suffers.
        """
        device = self.router.run("ip", "-o", "route", "get", self.address[4]).out.split()[2]
        return self.router.call(_flood, device, self.source[4], self.address[4], count, clock)

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
        return self.client.sockets()[self.socket.getsockname()[1]]


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


class Echoes:
    """What passes between a client and the router: whether each TSecr it is sent is a TSval that it sent before."""

    def __init__(self) -> None:
        self.right = 0
        self.wrong: list[tuple[int, int]] = []  # the client's port, and what it was sent
        self._sent: dict[int, set[int]] = {}

    def note(self, packet: bytes) -> None:
        segment = gate.read(packet)
        if segment.timestamp is None or segment.echo is None:
            return
        if segment.destination_port == PORT:
            self._sent.setdefault(segment.source_port, set()).add(segment.timestamp)
        elif segment.echo in self._sent.get(segment.destination_port, ()):
            self.right += 1
        else:
            self.wrong.append((segment.destination_port, segment.echo))


@contextmanager
def overheard(site: Site, client: Client) -> Iterator[Echoes]:
    """Listen on the router's leg to ``client``, where its clock is already its own, while the context lasts."""
    echoes = Echoes()

    def listen(ended: threading.Event) -> None:
        while not ended.is_set():
            with suppress(TimeoutError):
                packet, (_, protocol, *_rest) = ours.recvfrom(CHUNK + 1)
                if protocol in (0x0800, 0x86DD) and packet[9 if protocol == 0x0800 else 6] == socket.IPPROTO_TCP:
                    echoes.note(packet)

    with site.router.call(socket.socket, socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)) as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        ours.bind((f"client{client.number}", 3))
        ours.settimeout(0.2)
        with meanwhile(listen):
            yield echoes


def sha256(size: int) -> str:
    """Of the first ``size`` bytes of BLOCK, repeated."""
    digest = hashlib.sha256()
    for at in range(0, size, len(BLOCK)):
        digest.update(BLOCK[: size - at])
    return digest.hexdigest()


def refusals(here: Namespace) -> dict[str, int]:
    """The kernel's counters of segments and ACKs that it refused for a timestamp since the namespace was built.

    Without PAWSOldAck ("tcp: add TCP_RFC7323_PAWS_ACK drop reason", 6.14): a pure ACK that the sender's own data
    overtook between two CPUs is counted there on any busy path, and nothing is lost with it.
    """
    lines = [line.split() for line in (here.call(here.host.read, f"{NET}/netstat") or "").splitlines()]
    names, values = next(pair for pair in zip(lines[::2], lines[1::2], strict=True) if pair[0][0] == "TcpExt:")
    counted = dict(zip(names[1:], map(int, values[1:]), strict=True))
    return {
        name: count
        for name, count in counted.items()
        if ("PAWS" in name or name in ("TSEcrRejected", "TWKilled")) and name != "PAWSOldAck"
    }


@contextmanager
def standing(
    kind: Kind, host: Host, *, clocks: tuple[int, ...] = CLOCKS, layout: Layout | None = None, wire: Wire | None = None
) -> Iterator[Site]:
    """A site with a client for each of ``clocks`` (ms at the start, modulo 2³²), and its server, while it lasts."""
    layout = layout or Layout(tunnel=kind is Kind.VXLAN, outer_checksum=True)
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
        for tool in ("iptables", "ip6tables"):  # behind fixer, wherever it is
            flooded = ("-p", "tcp", "--dport", str(FLOODED_PORT))
            _must(server, tool, "-t", "mangle", "-A", "INPUT", *flooded, "-j", "DROP")
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
def _crowd(client: Client, server: Namespace, address: str, size: int) -> Iterator[None]:
    with ExitStack() as undo:
        listening = undo.enter_context(server.call(_listener, CROWDED_PORT, 4096))
        assert listening.fileno() >= 0

        def connect() -> None:
            for _ in range(size):
                undo.enter_context(socket.create_connection((address, CROWDED_PORT), CONNECT_SECONDS))

        client.call(connect)
        yield


def _flood(device: str, source: str, destination: str, count: int, clock: int) -> int:
    """Every second port of the source with ever new sequence numbers, TSval going on by one tick for each 100."""
    neighbour = next(
        line.split()
        for line in Host().run(["ip", "neighbour", "show", "dev", device]).out.splitlines()
        if line.startswith(f"{destination} ")
    )
    sent = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as ours:
        ours.bind((device, 0x0800))
        ethernet = bytes.fromhex(neighbour[neighbour.index("lladdr") + 1].replace(":", ""))
        ethernet += ours.getsockname()[4] + b"\x08\0"
        addresses = socket.inet_aton(source) + socket.inet_aton(destination)
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 60, 1, 0, 64, 6, 0) + addresses
        ip = ip[:10] + (_sum(ip) ^ 0xFFFF).to_bytes(2) + ip[12:]
        fixed = struct.pack(">HH", FLOODED_PORT, 10 << 12 | 2)  # the port, the header's length and SYN
        options = b"\x02\x04\x05\x78\x04\x02\x08\x0a", b"\0\0\0\0\x01\x03\x03\x0a"
        base = _sum(addresses + bytes([0, 6, 0, 40]) + fixed + b"\xff\xff" + b"".join(options))
        for number in range(count):
            port, sequence, ticks = number % 64512 + 1024, number * 2654435761 % TICKS, (clock + number // 100) % TICKS
            total = base + port + (sequence >> 16) + (sequence & 0xFFFF) + (ticks >> 16) + (ticks & 0xFFFF)
            total = (total & 0xFFFF) + (total >> 16)
            total = (total & 0xFFFF) + (total >> 16) ^ 0xFFFF
            head = struct.pack(">HHII", port, FLOODED_PORT, sequence, 0)
            tail = struct.pack(">HHHH", 10 << 12 | 2, 0xFFFF, total, 0)
            with suppress(OSError):  # ENOBUFS: the device has no room now
                ours.send(b"".join((ethernet, ip, head, tail, options[0], ticks.to_bytes(4), options[1])))
                sent += 1
    return sent


def _sum(data: bytes) -> int:
    """The ones'-complement sum of an even number of bytes, folded."""
    return (int.from_bytes(data) - 1) % 0xFFFF + 1


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

    with server.call(_listener, PORT, 512) as listening:
        listening.settimeout(0.05)
        threads.append(threading.Thread(target=accept, daemon=True))
        threads[0].start()
        try:
            yield
        finally:
            ended.set()
            for thread in threads:
                thread.join()


def _listener(port: int, backlog: int) -> socket.socket:
    return socket.create_server(("::", port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True)


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
