"""Connections through a packet path that normalises, end to end: both ends' view of their timestamps."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw
from support import oracle

from fixer.datapath.flows import Flows
from fixer.datapath.pipeline import Pipeline

SYN, ACK, RST, FIN, PUSH = 2, 16, 4, 1, 8
SYN_ACK = SYN | ACK
CLIENT, SERVER, SERVER_B = "192.0.2.7", "10.0.0.80", "10.0.0.81"
WRAP = 1 << 32

OPTIONS = {  # what Linux sends: MSS, SACK permitted, timestamps, window scale; and NOP NOP timestamps
    True: (bytes([2, 4, 5, 180, 4, 2, 8, 10]), bytes([1, 3, 3, 7])),
    False: (bytes([1, 1, 8, 10]), b""),
}


def segment(
    source: str,
    destination: str,
    ports: tuple[int, int],
    flags: int,
    stamps: tuple[int, int] | None,
    sequence: int = 0,
    acknowledged: int = 0,
    payload: bytes = b"",
) -> bytes:
    """A finished IP packet; ``stamps`` are TSval and TSecr, None: without."""
    options = b""
    if stamps is not None:
        before, behind = OPTIONS[bool(flags & SYN)]
        options = before + struct.pack("!II", *(stamp % WRAP for stamp in stamps)) + behind
    header = struct.pack(
        "!HHIIBBHHH",
        *ports,
        sequence % WRAP,
        acknowledged % WRAP,
        (5 + len(options) // 4) << 4,
        flags,
        65535,
        0,
        0,
    )
    kind = IPv6(src=source, dst=destination, nh=6) if ":" in source else IP(src=source, dst=destination, proto=6)
    bare = bytes(kind / Raw(header + options + payload))
    layer = oracle.read_ip(bare, 0, len(bare))
    oracle.read_transport(bare, layer)
    return oracle.with_field(bare, layer.field_at, layer.right(bare))


def stamps_of(packet: bytes, version: int = 4) -> tuple[int, int]:
    """TSval and TSecr of a packet that `segment` made."""
    tcp = 20 if version == 4 else 40
    at = packet.index(b"\x08\x0a", tcp + 20) + 2
    found: tuple[int, int] = struct.unpack_from("!II", packet, at)
    return found


class Node:
    """A packet path that normalises, and the time it is told."""

    def __init__(
        self,
        capacity: int = 1024,
        *,
        memory: bytearray | None = None,
        flows: Flows | None = None,
        **settings: object,
    ) -> None:
        self.memory = bytearray(Flows.size(capacity)) if memory is None else memory
        self.flows = flows or Flows(self.memory, capacity, seed=1)
        self.pipeline = Pipeline(
            ports=[4789],
            plain=True,
            timestamps="normalise",
            sources=[(bytes([192, 0, 2, 0]), 24), (bytes.fromhex("20010db8") + bytes(12), 64)],
            flows=self.flows,
            **settings,
        )
        self.uptime = 1000

    def through(self, packet: bytes, outgoing: bool = False, skb_info: int = 0) -> bytes:
        data = bytearray(packet)
        self.pipeline.examine(data, uptime=self.uptime, outgoing=outgoing, skb_info=skb_info)
        if data != packet:
            assert oracle.judge(bytes(data), plain=True).diagnosis == "SOUND"
        return bytes(data)

    def sweep(self) -> None:
        """As many settles as it takes to look at every entry."""
        for _ in range(65):
            self.pipeline.settle(0, self.uptime, all=False)

    def counted(self, which: str = "timestamps") -> dict[str, int]:
        return {name: count for name, count in self.pipeline.counters()[which].items() if count}


@dataclass
class Connection:
    """Both ends of one connection through a node; TSvals are the client's own, 1 kHz."""

    node: Node
    port: int
    clock: int  # the client's, at uptime 0
    isn: int = 5000
    client: str = CLIENT
    server: str = SERVER
    seen_by_server: list[int] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)

    @property
    def now(self) -> int:
        return self.clock + self.node.uptime * 1000

    def send(self, flags: int, sequence: int = 1, stamped: bool = True, acknowledged: int = 9000) -> int | None:
        """From the client; the TSval that arrives."""
        self.sent.append(self.now % WRAP)
        packet = segment(
            self.client,
            self.server,
            (self.port, 80),
            flags,
            (self.now, 77) if stamped else None,
            self.isn + sequence,
            acknowledged,
        )
        out = self.node.through(packet)
        if not stamped:
            assert out == packet
            return None
        value, echo = stamps_of(out)
        assert echo == 77
        self.seen_by_server.append(value)
        return value

    def syn(self) -> int:
        value = self.send(SYN, 0, acknowledged=0)
        assert value is not None
        return value

    def answer(self, flags: int = SYN_ACK, echo: int | None = None, acknowledged: int | None = None) -> int:
        """From the server, which echoes the last TSval it saw; the TSecr that arrives."""
        out = self.node.through(
            segment(
                self.server,
                self.client,
                (80, self.port),
                flags,
                (4242, self.seen_by_server[-1] if echo is None else echo),
                8999 if flags & SYN else 9000,
                self.isn + 1 if acknowledged is None else acknowledged,
            ),
            outgoing=True,
        )
        value, arrived = stamps_of(out)
        assert value == 4242
        return arrived

    def open(self) -> int:
        """The handshake; the delta."""
        value = self.syn()
        assert self.answer() == self.sent[-1]
        self.send(ACK)
        return (value - self.sent[-2]) % WRAP

    def close(self) -> None:
        self.answer(FIN | ACK)
        self.send(FIN | ACK)
        self.answer(ACK)
