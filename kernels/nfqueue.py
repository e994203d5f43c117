"""A queue as a few messages of nfnetlink_queue, to ask a kernel what it can; nothing of it is ``fixer.nfqueue``'s."""

from __future__ import annotations

import os
import socket
import struct
from typing import Self

NETLINK_NETFILTER = 12
NLMSG_ERROR = 2
PACKET, VERDICT, CONFIG, VERDICT_BATCH = 0x0300, 0x0301, 0x0302, 0x0303
CFG_CMD, CFG_PARAMS, CFG_MAXLEN, CFG_MASK, CFG_FLAGS = 1, 2, 3, 4, 5
PACKET_HDR, VERDICT_HDR, PAYLOAD = 1, 2, 10
BIND, COPY_PACKET, ACCEPT = 1, 2, 1
FAIL_OPEN, GSO = 1, 4
REQUEST, ACKNOWLEDGE = 1, 4


class Queue:
    """Queue ``number`` of the thread's network namespace, bound, each packet copied whole; OSError if refused."""

    def __init__(self, number: int, *, length: int = 1024, seconds: float = 5.0) -> None:
        self.number = number
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        try:
            self._socket.bind((0, 0))
            self._socket.settimeout(seconds)
            self._configure(CFG_CMD, struct.pack("!BBH", BIND, 0, socket.AF_UNSPEC))
            self._configure(CFG_PARAMS, struct.pack("!IB", 0xFFFF, COPY_PACKET))
            self._configure(CFG_MAXLEN, struct.pack("!I", length))
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def set_flag(self, flag: int) -> None:
        """OSError (EOPNOTSUPP) from a kernel that does not know it."""
        word = struct.pack("!I", flag)
        self._send(CONFIG, _attribute(CFG_FLAGS, word) + _attribute(CFG_MASK, word), ACKNOWLEDGE)
        self._wait_for_answer()

    def packet(self) -> tuple[int, int]:
        """The next packet: its id and its length in bytes. TimeoutError if none comes."""
        while True:
            message = self._socket.recv(1 << 17)
            if struct.unpack_from("=H", message, 4)[0] == PACKET:
                found = dict(_attributes(message[20:]))
                return struct.unpack_from("!I", found[PACKET_HDR])[0], len(found.get(PAYLOAD, b""))

    def accept(self, packet: int, *, batch: bool) -> None:
        """Let ``packet`` pass; with ``batch`` all that came before it too."""
        self._send(VERDICT_BATCH if batch else VERDICT, _attribute(VERDICT_HDR, struct.pack("!II", ACCEPT, packet)), 0)

    def _configure(self, kind: int, value: bytes) -> None:
        self._send(CONFIG, _attribute(kind, value), ACKNOWLEDGE)
        self._wait_for_answer()

    def _send(self, kind: int, attributes: bytes, flags: int) -> None:
        body = struct.pack("!BBH", socket.AF_UNSPEC, 0, self.number) + attributes
        self._socket.send(struct.pack("=IHHII", 16 + len(body), kind, REQUEST | flags, 1, 0) + body)

    def _wait_for_answer(self) -> None:
        while True:
            message = self._socket.recv(1 << 17)
            if struct.unpack_from("=H", message, 4)[0] == NLMSG_ERROR:
                (error,) = struct.unpack_from("=i", message, 16)
                if error:
                    raise OSError(-error, os.strerror(-error))
                return


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(body: bytes) -> list[tuple[int, bytes]]:
    found = []
    while len(body) >= 4:
        length, kind = struct.unpack_from("=HH", body)
        found.append((kind & 0x3FFF, body[4:length]))
        body = body[(length + 3) & ~3 :]
    return found
