"""VXLAN as it arrives at the interfaces, before any rule and any eBPF program at tc has seen it: counted, not read.

A packet socket with a classic BPF filter, ``linux/if_packet.h``: a program at XDP sees packets even earlier.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Collection
from contextlib import suppress

_ETH_P_ALL, _ETH_P_IP, _ETH_P_IPV6 = 3, 0x0800, 0x86DD
_SO_ATTACH_FILTER, _SOL_PACKET, _PACKET_STATISTICS, _PACKET_IGNORE_OUTGOING = 26, 263, 6, 23
_PROTOCOL, _KIND = 0xFFFFF000, 0xFFFFF004  # SKF_AD_OFF + SKF_AD_PROTOCOL, SKF_AD_PKTTYPE
_PACKET_HOST = 0
_LOAD_HALF, _LOAD_BYTE, _LOAD_HALF_AT, _LENGTH_OF_IP = 0x28, 0x30, 0x48, 0xB1
_EQUAL, _BITS, _LEAVE = 0x15, 0x45, 0x06
_UDP = 17
PORTS_MOST = 100
"""Ports that fit a filter's jumps."""


class Arriving:
    """Counts from when it is made until it is closed. Raises OSError where such a socket is not to be had."""

    def __init__(self, ports: Collection[int]) -> None:
        self._packets = 0
        self._socket = socket.socket(
            socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, socket.htons(_ETH_P_ALL)
        )
        try:
            code = _filter(sorted(ports)[:PORTS_MOST])
            room = ctypes.create_string_buffer(code, len(code))
            program = struct.pack("HL", len(code) // 8, ctypes.addressof(room))
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
            with suppress(OSError):  # Linux 4.20; the filter asks for what is for this host anyway
                self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            self._taken()
        except BaseException:
            self._socket.close()
            raise

    def packets(self) -> int:
        """How many so far, those that did not fit the socket among them."""
        self._packets += self._taken()
        return self._packets

    def _taken(self) -> int:
        """Since the last time: asking sets the kernel's own count to zero. First, what came before the filter."""
        packets, _ = struct.unpack("II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        return int(packets)

    def close(self) -> None:
        self._socket.close()


def _filter(ports: list[int]) -> bytes:
    """Unfragmented UDP to one of the ports, over IPv4 or IPv6 without extension headers, that is for this host."""
    four = [
        (_LOAD_BYTE, 0, 0, 9),
        (_EQUAL, 0, "no", _UDP),
        (_LOAD_HALF, 0, 0, 6),
        (_BITS, "no", 0, 0x1FFF),
        (_LENGTH_OF_IP, 0, 0, 0),
        (_LOAD_HALF_AT, 0, 0, 2),
        (_EQUAL, "ports", "ports", 0),
    ]
    six = [(_LOAD_BYTE, 0, 0, 6), (_EQUAL, 0, "no", _UDP), (_LOAD_HALF, 0, 0, 42)]
    head = [
        (_LOAD_HALF, 0, 0, _KIND),
        (_EQUAL, 0, "no", _PACKET_HOST),
        (_LOAD_HALF, 0, 0, _PROTOCOL),
        (_EQUAL, 0, 1, _ETH_P_IP),
        (_EQUAL, 1, 1, 0),  # over the next one, whatever it is
        (_EQUAL, "six", "no", _ETH_P_IPV6),
    ]
    code = [*head, *four, *six, *((_EQUAL, "yes", 0, port) for port in ports), (_LEAVE, 0, 0, 0), (_LEAVE, 0, 0, 1)]
    places = {"six": len(head) + len(four), "ports": len(head) + len(four) + len(six)}
    places |= {"no": len(code) - 2, "yes": len(code) - 1}
    return b"".join(
        struct.pack("HBBI", kind, *(places[to] - at - 1 if isinstance(to, str) else to for to in (true, false)), value)
        for at, (kind, true, false, value) in enumerate(code)
    )
