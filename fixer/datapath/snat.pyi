from typing import NamedTuple

class Clock(NamedTuple):
    hz: float
    syns: int
    first_ns: int
    last_ns: int

class Sight(NamedTuple):
    version: int
    source: str
    destination: str
    vni: int | None
    syns: int
    fits: int
    refused: int
    chance: float
    clocks: tuple[Clock, ...]
    full: bool
