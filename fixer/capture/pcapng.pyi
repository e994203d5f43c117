from fixer.capture.frames import Frames

MAGIC: bytes
LARGEST_BLOCK: int
MOST_INTERFACES: int

class PcapNg:
    claimed: int
    def parse(self, block: bytearray, at: int, end: int, frames: Frames) -> int: ...
