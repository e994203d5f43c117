"""Conversations through a tunnel as a capture holds them: numbered, acknowledged, each packet finished or not."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from support.wire import Wire, ip_header, pseudo, right, total

from fixer.datapath.pipeline import Pipeline
from fixer.findings.finding import Finding
from fixer.findings.sender import Door
from fixer.findings.sentences import findings
from fixer.findings.tally import Tally, new_census

FIN, SYN, RST, PUSH, ACK = 1, 2, 4, 8, 16
VTEPS = ("192.0.2.4", "192.0.2.5")
HOSTS = ("10.0.1.4", "10.0.1.5")
SECOND = 10**9
MSS = 1410


@dataclass
class Capture:
    """What was captured so far: when, the packet, whether it is marked as outgoing."""

    packets: list[tuple[int, bytes, bool | None]] = field(default_factory=list)
    now: int = 10**18
    marks: tuple[bool | None, bool | None] = (None, None)
    """Of what the first VTEP sends, and of what the second one does."""
    plain: bool = False
    """Without a tunnel: the hosts' packets as they are."""
    vni: int = 4097

    def put(self, side: int, transport: bytes, protocol: int, state: str, *, outer: str = "zero") -> None:
        """A packet of one side (0, 1); its checksum field is where the protocol has it."""
        at = {6: 16, 17: 6, 1: 2}[protocol]
        ends = HOSTS[side], HOSTS[1 - side]
        header = b"" if protocol == 1 else pseudo(*ends, protocol, len(transport))
        right_field = right(header, transport)
        first = transport[: 1500 - 20]  # of what a NIC's LRO merged
        states = {
            "finished": right_field,
            "unfinished": total(header),
            "wrong": right_field ^ 0x0110,
            "lro": right(pseudo(*ends, protocol, len(first)), first),
        }
        value = states[state]
        transport = transport[:at] + struct.pack(">H", value) + transport[at + 2 :]
        packet = ip_header(*ends, protocol, len(transport), len(self.packets)) + transport
        if self.plain:
            self.packets.append((self.now, packet, self.marks[side]))
            self.now += SECOND // 1000
            return
        payload = struct.pack(">II", 0x08000000, self.vni << 8) + Wire().macs + b"\x08\0" + packet
        length, vteps = 8 + len(payload), (VTEPS[side], VTEPS[1 - side])
        udp = struct.pack(">HHHH", 40000, 4789, length, total(pseudo(*vteps, 17, length)) if outer == "partial" else 0)
        whole = ip_header(*vteps, 17, length, len(self.packets)) + udp + payload
        self.packets.append((self.now, whole, self.marks[side]))
        self.now += SECOND // 1000

    def udp(self, side: int, state: str, payload: bytes = b"?", port: int = 4000, to: int = 514) -> None:
        ports = (port, to) if side == 0 else (to, port)
        self.put(side, struct.pack(">HHHH", *ports, 8 + len(payload), 0) + payload, 17, state)

    def echo(self, side: int, number: int, *, outer: str = "zero") -> None:
        self.put(side, struct.pack(">BBHHH", 8 if side == 0 else 0, 0, 0, 7, number), 1, "finished", outer=outer)

    def unreachable(self, side: int, port: int = 4000, to: int = 514) -> None:
        """The refusal of what the other side sent."""
        quoted = ip_header(HOSTS[1 - side], HOSTS[side], 17, 9, 0) + struct.pack(">HHHH", port, to, 9, 0)
        self.put(side, struct.pack(">BBHI", 3, 3, 0, 0) + quoted, 1, "finished")

    def findings(self, told: int | None = None) -> list[Finding]:
        """What the datapath and the census conclude; told: on which side the user says it was taken."""
        pipeline, census = Pipeline(ports=[4789], plain=self.plain), new_census()
        tally = Tally(Door.CAPTURE if told is None else Door.TOLD)
        for when, packet, outgoing in self.packets:
            result = pipeline.examine(bytearray(packet), when_ns=when)
            if told is not None:
                outgoing = result.outer_source == VTEPS[told]
            census.add(result, outgoing, packet)
        tally.finish(census)
        return findings(tally, [4789], plain=self.plain)


@dataclass
class Connection:
    """One TCP connection of a capture. Sequence numbers begin where those of a port do, so that none are alike."""

    capture: Capture
    port: int = 4000
    numbers: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.numbers = [self.port * 70000, self.port * 90001]

    def send(
        self, side: int, flags: int, state: str, payload: bytes = b"", *, mss: int = 0, again: bool = False, **more: str
    ) -> None:
        """again: one second later and with the numbers of the last packet of that side, which had as many bytes."""
        size = len(payload) + (flags & SYN != 0) + (flags & FIN != 0)
        if again:
            self.capture.now += SECOND
            self.numbers[side] -= size
        ports = (self.port, 80) if side == 0 else (80, self.port)
        options = struct.pack(">BBH", 2, 4, mss) if mss else b""
        acknowledged = self.numbers[1 - side] if flags & ACK else 0
        head = struct.pack(
            *(">HHIIBBHHH", *ports, self.numbers[side] % 2**32, acknowledged % 2**32),
            *((20 + len(options)) // 4 << 4, flags, 512, 0, 0),
        )
        self.numbers[side] += size
        self.capture.put(side, head + options + payload, 6, state, **more)

    def open(self, first: str = "finished", second: str = "finished") -> Connection:
        self.send(0, SYN, first, mss=MSS)
        self.send(1, SYN | ACK, second, mss=MSS)
        self.send(0, ACK, first)
        return self

    def say(self, side: int, state: str, payload: bytes, answer: str = "finished", **more: str) -> Connection:
        """Data and its acknowledgement."""
        self.send(side, ACK | PUSH, state, payload, **more)
        self.send(1 - side, ACK, answer)
        return self

    def knock(self, state: str = "unfinished", times: int = 3) -> Connection:
        """A SYN that nobody answers."""
        for number in range(times):
            self.send(0, SYN, state, mss=MSS, again=number > 0)
        return self
