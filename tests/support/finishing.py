"""The program that finishes packets in the kernel, tried out on frames (BPF_PROG_TEST_RUN): without an interface."""

from __future__ import annotations

import functools
import struct
import time

from support import oracle

from fixer.kernel import bpf
from fixer.kernel.finisher import AGREES, PSEUDO, ZERO, Finisher

ETHERNET = bytes.fromhex("020000000005020000000004")
ANY = ZERO | PSEUDO | AGREES
HOUR = 3600 * 10**9


@functools.cache
def missing() -> str | None:
    """Why no program can be loaded here, in one line; None if one can."""
    try:
        Finisher().close()
    except OSError as error:
        return f"no eBPF program of tc in this kernel: {error.strerror}"
    return None


@functools.cache
def knows_complete() -> bool:
    """Whether the kernel can run a program on a packet whose sum the device gave."""
    with Finisher() as finisher:
        try:
            bpf.try_out(finisher.program, framed(bytes(60)), complete=True)
        except OSError:
            return False
    return True


def framed(packet: bytes) -> bytes:
    """An Ethernet frame around a packet of the underlay."""
    return ETHERNET + (b"\x86\xdd" if packet[:1] and packet[0] >> 4 == 6 else b"\x08\x00") + packet


def key_of(packet: bytes) -> bytes:
    """The key of a packet's envelope, read plainly: no options, no extension headers, no tags."""
    version = packet[0] >> 4
    source, udp = (bytes(12) + packet[12:16], 20) if version == 4 else (packet[8:24], 40)
    return source + packet[udp + 2 : udp + 4] + packet[udp + 8 : udp + 28] + struct.pack("=H", version)


def put(
    finisher: Finisher, key: bytes, outers: int = ANY, *, lives: int = HOUR, sample: int = HOUR, marks: bool = False
) -> None:
    """An entry for an hour, of which no packet is the judge's."""
    now = time.monotonic_ns()
    assert finisher.put(key, outers, deadline=now + lives, sample=now + sample, interval=HOUR, marks=marks)


def marked(packet: bytes) -> bytes:
    """An unfinished packet, plain as for :func:`key_of`, as it is once it is marked as verified: UDP over IPv4 has no
    checksum then, others have their pseudo-header's sum and 32."""
    inner = (20 if packet[0] >> 4 == 4 else 40) + 8 + 8 + 14
    layer = oracle.read_ip(packet, inner, len(packet))
    oracle.read_transport(packet, layer)
    none = (layer.version, layer.protocol) == (4, 17)
    return oracle.with_field(packet, layer.field_at, 0 if none else oracle.add(layer.pseudo(), 32))


def ran(finisher: Finisher, packet: bytes, *, complete: bool = False, gso_size: int = 0) -> bytes:
    """The packet as the program leaves it; it always goes on (TC_ACT_UNSPEC)."""
    found = bpf.try_out(finisher.program, framed(packet), complete=complete, gso_size=gso_size)
    assert found.returned == 0xFFFFFFFF
    assert found.packet[:14] == framed(packet)[:14]
    return found.packet[14:]
