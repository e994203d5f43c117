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

class Memory:
    size: int
    def __init__(self, seed: int | None = None) -> None: ...
    def note(
        self, source: bytes, destination: bytes, vni: int | None, port: int, sequence: int, tsval: int, when_ns: int
    ) -> None: ...
    def sights(self, now_ns: int) -> list[Sight]: ...
