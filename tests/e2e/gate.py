"""The test that a server with ``tcp_tw_recycle`` puts a SYN to, before a kernel that no longer has it.

Linux up to 4.11 remembers one timestamp for each source when a connection goes to TIME_WAIT (tcp_remember_stamp) and
drops the SYN of a source that seems to have gone back in time (tcp_peer_is_proven), both in net/ipv4/tcp_metrics.c.
``Gate`` is these two functions; ``standing`` puts it into a namespace, in mangle, behind wherever ``fixer`` is.
It shares no code with what it tests.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from netfilterqueue import NetfilterQueue, Packet

from fixer.lab.net import Namespace, meanwhile

PAWS_MSL = 60  # seconds (TCP_PAWS_MSL): for how long a remembered timestamp counts
PAWS_WINDOW = 1  # ticks (TCP_PAWS_WINDOW): by how much a SYN may be older
QUEUE = 777  # no default of anybody's
LOCAL_OUT = 3  # NF_INET_LOCAL_OUT
FIN, SYN, RST, ACK = 1, 2, 4, 16
OPTION_TIMESTAMPS = 8

Source = bytes
Peer = tuple[Source, int, int]  # the client's address and port, and the server's port


class Variant(StrEnum):
    """Which kernel's test it is."""

    BEFORE = "before-a26552afe894"  # a SYN without a timestamp passes
    SINCE = "since-a26552afe894"  # it is refused too, while anything is remembered of its source


class Stamp(NamedTuple):
    """What is remembered of a source: its TSval, and the second in which it came."""

    value: int
    second: int


@dataclass
class Connection:
    """Just as much of the server's socket: ts_recent and its second, None without timestamps; who closed first."""

    recent: Stamp | None
    server_closed: bool = False


class Segment(NamedTuple):
    """What is read of a TCP segment here; ``timestamp`` is TSval, ``echo`` TSecr."""

    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    flags: int
    timestamp: int | None
    echo: int | None


def read(packet: bytes) -> Segment:
    """An IPv4 packet, or an IPv6 packet without extension headers, that carries TCP."""
    if packet[0] >> 4 == 4:
        tcp, source, destination = 4 * (packet[0] & 15), packet[12:16], packet[16:20]
    else:
        tcp, source, destination = 40, packet[8:24], packet[24:40]
    ports = int.from_bytes(packet[tcp : tcp + 2]), int.from_bytes(packet[tcp + 2 : tcp + 4])
    options = packet[tcp + 20 : tcp + 4 * (packet[tcp + 12] >> 4)]
    return Segment(source, destination, *ports, packet[tcp + 13], *_timestamps(options))


def _timestamps(options: bytes) -> tuple[int, int] | tuple[None, None]:
    while options and options[0] != 0:
        if options[0] == OPTION_TIMESTAMPS:
            return int.from_bytes(options[2:6]), int.from_bytes(options[6:10])
        options = options[1:] if options[0] == 1 else options[options[1] :]
    return None, None


def ahead(one: int, other: int) -> int:
    """By how many ticks ``one`` is later than ``other``: the signed 32-bit difference, (s32)(one - other)."""
    return (one - other + 0x80000000) % 0x100000000 - 0x80000000


class Gate:
    """The server's memory of its sources, and its judgement.

    To be shown each segment with SYN, FIN or RST, in both directions. A source's FIN is the last that moves ts_recent
    before TIME_WAIT, so that no other segment is needed; a connection that was there before the gate is not known.
    ``clock`` gives seconds.
    """

    def __init__(self, variant: Variant, *, clock: Callable[[], float] = time.time) -> None:
        self.variant = variant
        self.paws_passive = 0  # what the kernel counts in PAWSPassive
        self.passed = 0  # SYNs
        self.remembered: dict[Source, Stamp] = {}
        self._clock = clock
        self._connections: dict[Peer, Connection] = {}

    def comes_in(self, packet: bytes) -> bool:
        """Whether the server takes this segment; it drops nothing but SYNs."""
        segment = read(packet)
        peer = segment.source, segment.source_port, segment.destination_port
        if segment.flags & RST:
            self._connections.pop(peer, None)
        elif segment.flags & SYN:
            if not self._is_proven(segment.source, segment.timestamp):
                self.paws_passive += 1
                return False
            self.passed += 1
            self._connections[peer] = Connection(self._now(segment.timestamp))
        elif segment.flags & FIN and (connection := self._connections.pop(peer, None)) and connection.recent:
            if segment.timestamp is not None and ahead(segment.timestamp, connection.recent.value) >= 0:
                connection.recent = self._now(segment.timestamp)
            # Who closes first goes to TIME_WAIT; a server that closes last goes from LAST_ACK to CLOSED, and forgets.
            if connection.server_closed and connection.recent:
                self._remember(segment.source, connection.recent)
        return True

    def goes_out(self, packet: bytes) -> None:
        """Note what the server answers: whether timestamps are in use, and its FIN."""
        segment = read(packet)
        peer = segment.destination, segment.destination_port, segment.source_port
        if segment.flags & RST:
            self._connections.pop(peer, None)
        elif connection := self._connections.get(peer):
            if segment.flags & SYN and segment.timestamp is None:
                connection.recent = None
            if segment.flags & FIN:
                connection.server_closed = True

    def _is_proven(self, source: Source, timestamp: int | None) -> bool:
        """tcp_peer_is_proven, with its paws_check."""
        known = self.remembered.get(source)
        if known is None or int(self._clock()) - known.second >= PAWS_MSL:
            return True
        if timestamp is None:
            return self.variant is Variant.BEFORE
        return ahead(known.value, timestamp) <= PAWS_WINDOW

    def _remember(self, source: Source, recent: Stamp) -> None:
        """tcp_remember_stamp: what is newer, or what follows on something that no longer counts."""
        known = self.remembered.get(source)
        outlived = known and int(self._clock()) - known.second > PAWS_MSL and known.second <= recent.second
        if known is None or ahead(known.value, recent.value) <= 0 or outlived:
            self.remembered[source] = recent

    def _now(self, timestamp: int | None) -> Stamp | None:
        return None if timestamp is None else Stamp(timestamp, int(self._clock()))


@contextmanager
def standing(here: Namespace, port: int, gate: Gate) -> Iterator[Gate]:
    """Let ``gate`` judge what comes to TCP ``port`` of this namespace while the context lasts."""

    def judge(packet: Packet) -> None:
        if packet.hook == LOCAL_OUT:
            gate.goes_out(packet.get_payload())
            packet.accept()
        elif gate.comes_in(packet.get_payload()):
            packet.accept()
        else:
            packet.drop()

    def listen() -> NetfilterQueue:
        listening = NetfilterQueue()
        listening.bind(QUEUE, judge)
        return listening

    queue = here.call(listen)
    descriptor = queue.get_fd()

    def serve(ended: threading.Event) -> None:
        while not ended.is_set():
            if select.select([descriptor], [], [], 0.05)[0]:
                queue.run(block=False)

    try:
        with meanwhile(serve, f"{here.name}-gate"):
            try:
                _rules(here, "-A", port)
                yield gate
            finally:
                _rules(here, "-D", port)
    finally:
        queue.unbind()


def _rules(here: Namespace, verb: str, port: int) -> None:
    for tool in ("iptables", "ip6tables"):
        for chain, side in (("INPUT", "--dport"), ("OUTPUT", "--sport")):
            match = ("-p", "tcp", side, str(port), "!", "--tcp-flags", "SYN,FIN,RST", "NONE")
            target = ("-j", "NFQUEUE", "--queue-num", str(QUEUE))  # without bypass: no gate, no connection
            done = here.run(tool, "-t", "mangle", verb, chain, *match, *target)
            if done.status != 0:
                raise OSError(f"{tool} {verb} {chain}: {done.err.strip()}")


def address(text: str) -> Source:
    """A source as the gate knows it."""
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
