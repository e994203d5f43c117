"""What a kernel can of what fixer uses: each tried in a namespace of its own, with packets where it takes some."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from fixer.host.machine import Host
from fixer.lab import bpf
from fixer.lab.net import Namespace, own_name

from .nfqueue import FAIL_OPEN, GSO, Queue

PORT = 4789
NUMBER = 4097
ACCEPT_ALL = "1,6 0 0 65535"  # a classic BPF program of one instruction
SECONDS = 5.0
RULE = f"udp dport {PORT} counter queue num {NUMBER} bypass"


class Lacking(Exception):
    """What did not work, in the words of whoever refused."""


@dataclass(frozen=True)
class Probe:
    """A capability: its ``title`` in the table, the options of the kernel's that it takes, and how it is tried."""

    title: str
    options: tuple[str, ...]
    tried: Callable[[Namespace], None]


def all_of_them(host: Host) -> dict[str, str | None]:
    """For each probe by its title: None, or what is lacking."""
    return {probe.title: _result(probe, host) for probe in PROBES}


def _result(probe: Probe, host: Host) -> str | None:
    try:
        with Namespace(f"{own_name()}-probe", host) as here:
            probe.tried(here)
    except (Lacking, OSError) as error:
        return str(error) or type(error).__name__
    return None


def _nft(here: Namespace, expression: str) -> None:
    """A native table whose only rule is ``expression``."""
    head = "type filter hook prerouting priority -299"
    _must(here, "nft", f"table inet fixer {{\nchain prerouting {{\n{head}\n{expression}\n}}\n}}")


def _nft_queue(here: Namespace) -> None:
    """The rule of the native table, and a packet that it hands over."""
    _nft(here, RULE)
    with _bound(here) as (queue, receiver):
        _send(here, 1)
        queue.accept(queue.packet()[0], batch=False)
        receiver.recv(100)


def _raw(command: str) -> Callable[[Namespace], None]:
    def tried(here: Namespace) -> None:
        _queue_by_iptables(here, command)

    return tried


def _match(*words: str) -> Callable[[Namespace], None]:
    """A rule of iptables with a match that all packets meet, and a packet that it counts."""

    def tried(here: Namespace) -> None:
        _must(here, "iptables", "-t", "raw", "-A", "PREROUTING", "-p", "udp", *words)
        _send(here, 1)
        saved = here.run("iptables-save", "-c", "-t", "raw").out
        if "[1:" not in saved:
            raise Lacking(f"the match {' '.join(words)} does not match")

    return tried


def _fail_open(here: Namespace) -> None:
    """Of three packets into a queue of one that nobody reads, two pass."""
    _queue_by_iptables(here, "iptables")
    with _bound(here, length=1) as (queue, receiver):
        queue.set_flag(FAIL_OPEN)
        _send(here, 3)
        for _ in range(2):
            receiver.recv(100)


def _gso(here: Namespace) -> None:
    """What a sender leaves to its device to cut up comes whole: longer than any packet of the device."""
    mtu = 1500
    here.configure(f"link set lo mtu {mtu}")
    _queue_by_iptables(here, "iptables", "tcp")
    with ExitStack() as undo:
        queue = undo.enter_context(here.call(lambda: Queue(NUMBER, seconds=SECONDS)))
        queue.set_flag(GSO)
        undo.enter_context(here.call(socket.create_server, ("127.0.0.1", PORT)))
        client = undo.enter_context(here.call(socket.socket))
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", PORT))
        for _ in range(2):  # SYN, and the ACK of its answer
            queue.accept(queue.packet()[0], batch=False)
        client.settimeout(SECONDS)
        client.sendall(bytes(8 * mtu))
        if (length := queue.packet()[1]) <= mtu:
            raise Lacking(f"a merged packet came in pieces of {length} bytes")


def _batch(here: Namespace) -> None:
    """One verdict lets three packets pass."""
    _queue_by_iptables(here, "iptables")
    with _bound(here) as (queue, receiver):
        _send(here, 3)
        numbers = [queue.packet()[0] for _ in range(3)]
        queue.accept(numbers[-1], batch=True)
        for _ in range(3):
            receiver.recv(100)


def _device(*words: str) -> Callable[[Namespace], None]:
    def tried(here: Namespace) -> None:
        here.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
        _must(here, "ip", "link", "add", *words)

    return tried


def _zero_checksum_over_ipv6(here: Namespace) -> None:
    words = "type vxlan id 1 local ::1 remote ::2 dstport 4790 udp6zerocsumtx udp6zerocsumrx dev lo"
    _must(here, "ip", "link", "add", "vxlan0", *words.split())
    (link,) = json.loads(_must(here, "ip", "-j", "-d", "link", "show", "vxlan0"))
    if not link["linkinfo"]["info_data"].get("udp_zero_csum6_rx"):
        raise Lacking("udp6zerocsumrx is not kept")


def _ebpf(here: Namespace) -> None:
    if lacking := bpf.missing(here.host):
        raise Lacking(lacking)


PROBES = (
    Probe("nft `queue`", ("NF_TABLES_INET", "NFT_QUEUE"), _nft_queue),
    Probe("nft `meta time`", ("NF_TABLES_INET",), lambda here: _nft(here, 'meta time < "2100-01-01 00:00:00" counter')),
    Probe("iptables-nft", ("NFT_COMPAT", "NETFILTER_XT_TARGET_NFQUEUE"), _raw("iptables-nft")),
    Probe("iptables-legacy", ("IP_NF_RAW", "NETFILTER_XT_TARGET_NFQUEUE"), _raw("iptables-legacy")),
    Probe("`F_FAIL_OPEN`", ("NETFILTER_NETLINK_QUEUE",), _fail_open),
    Probe("`F_GSO`", ("NETFILTER_NETLINK_QUEUE",), _gso),
    Probe("batch verdicts", ("NETFILTER_NETLINK_QUEUE",), _batch),
    Probe("xt_bpf", ("NETFILTER_XT_MATCH_BPF",), _match("-m", "bpf", "--bytecode", ACCEPT_ALL)),
    Probe("xt_time", ("NETFILTER_XT_MATCH_TIME",), _match("-m", "time", "--datestop", "2037-01-01T00:00:00")),
    Probe("`udp6zerocsumrx`", ("VXLAN",), _zero_checksum_over_ipv6),
    Probe("8021q", ("VLAN_8021Q",), _device("eth0.100", "link", "eth0", "type", "vlan", "id", "100")),
    Probe("bonding", ("BONDING",), _device("bond0", "type", "bond", "mode", "active-backup")),
    Probe("WireGuard", ("WIREGUARD",), _device("wg0", "type", "wireguard")),
    Probe("TCX", ("NET_XGRESS",), _ebpf),
)


def _queue_by_iptables(here: Namespace, command: str, protocol: str = "udp") -> None:
    rule = f"-t raw -A PREROUTING -p {protocol} --dport {PORT} -j NFQUEUE --queue-num {NUMBER} --queue-bypass"
    _must(here, command, *rule.split())


@contextmanager
def _bound(here: Namespace, length: int = 1024) -> Iterator[tuple[Queue, socket.socket]]:
    """Our end of the queue, and a socket to which its packets go."""

    def receiver() -> socket.socket:
        ours = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ours.settimeout(SECONDS)
        ours.bind(("127.0.0.1", PORT))
        return ours

    with ExitStack() as undo:
        queue = undo.enter_context(here.call(lambda: Queue(NUMBER, length=length, seconds=SECONDS)))
        yield queue, undo.enter_context(here.call(receiver))


def _send(here: Namespace, count: int) -> None:
    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(count):
                sender.sendto(b"x", ("127.0.0.1", PORT))

    here.call(send)


def _must(here: Namespace, *command: str) -> str:
    done = here.run(*command)
    if done.status != 0:
        raise Lacking((done.err or done.out).strip().split("\n")[0])
    return done.out
