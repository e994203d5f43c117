from fixer.capture.frames import Frames

MAGICS: frozenset[bytes]
HEADER: int
LARGEST_RECORD: int

class Pcap:
    network: int
    claimed: int
    def __init__(self, header: bytes) -> None: ...
    def parse(self, block: bytearray, at: int, end: int, frames: Frames) -> int: ...
