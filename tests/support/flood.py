"""``python flood.py DEVICE SECONDS FRAME``: one frame, in hex, again and again; how often is the last line.

A program of its own, to be run in a network namespace: a thread of the tests could not send so much.
"""

from __future__ import annotations

import socket
import sys
import time


def main(device: str, seconds: float, frame: bytes) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((device, 0))
        sent, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(100):
                try:
                    sent += wire.send(frame) > 0
                except OSError:  # no room, or the device is down
                    time.sleep(0.001)
    print(sent)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), bytes.fromhex(sys.argv[3]))
