"""What passes a host's devices, as a capture: pcapng, the direction of each frame with it."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from support.captures import enhanced, interface, section

from fixer.lab.net import End

MARKS = {True: 2, False: 1}  # pcapng: outbound, inbound
EVERYTHING = 3  # ETH_P_ALL
SO_TIMESTAMPNS = 35  # when the kernel saw it: whoever reads it may be late


class Heard(NamedTuple):
    when_ns: int
    frame: bytes
    outgoing: bool


@dataclass
class Tap:
    """Frames in the order in which they came."""

    heard: list[Heard] = field(default_factory=list)

    def write(self, path: Path, *, marked: bool = True, direction: bool | None = None) -> Path:
        """A pcapng of them; marked: with the direction of each; direction: only those of one."""
        blocks = [section(), interface()]
        for when_ns, frame, outgoing in self.heard:
            if direction in (None, outgoing):
                blocks.append(enhanced(frame, when_ns, MARKS[outgoing] if marked else None))
        path.write_bytes(b"".join(blocks))
        return path


@contextmanager
def tapped(end: End, device: str | None = "eth0") -> Iterator[Tap]:
    """All that passes a device of ``end`` while the context lasts; None: any of its devices, as `tcpdump -i any`."""
    with end.call(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERYTHING)) as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        if device is not None:
            ours.bind((device, EVERYTHING))
        ours.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        ours.settimeout(0.1)
        done, tap = threading.Event(), Tap()

        def take() -> None:
            while True:
                try:
                    frame, beside, _, (_, _, kind, *_) = ours.recvmsg(1 << 17, 128)
                except TimeoutError:
                    if done.is_set():
                        return
                    continue
                [when_ns] = [
                    seconds * 10**9 + nanoseconds
                    for level, what, (seconds, nanoseconds) in ((*key, struct.unpack("=qq", it)) for *key, it in beside)
                    if (level, what) == (socket.SOL_SOCKET, SO_TIMESTAMPNS)
                ]
                tap.heard.append(Heard(when_ns, frame, kind == socket.PACKET_OUTGOING))

        taking = threading.Thread(target=take)
        taking.start()
        try:
            yield tap
        finally:
            done.set()
            taking.join()
