from enum import IntEnum
from typing import NamedTuple

class Sight(IntEnum):
    PACKETS = 0
    ASKED = 1
    ANSWERED = 2
    SOUGHT = 3
    FOUND = 4
    STALLED = 5
    STALLED_LONG = 6
    STALLED_HEARD = 7
    REPEATS = 8
    TOO_LONG = 9
    TOO_LONG_INSIDE = 10
    WHOLE = 11
    REST_MISSING = 12

class Seen(NamedTuple):
    source: str
    destination: str
    tunnel: bool
    counts: dict[Sight, int]
    firsts: dict[Sight, int]
    stalled: int
    through: int
    longest: int
    mtu: int

class Roads:
    later_parts: int
    def all(self) -> list[Seen]: ...
