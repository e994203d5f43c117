from collections.abc import Iterator
from typing import NamedTuple

from fixer.datapath.pipeline import Pipeline
from fixer.findings.census import Census
from fixer.findings.match import Match

LATEST_NS: int

class Frame(NamedTuple):
    """One frame.

    ``wire_length`` is in bytes and at least ``len(data)``; ``when_ns`` counts from the epoch, 0 where the capture does
    not know; ``ip_at`` is the offset of the underlay's IP header in ``data``, NOT_IP where there is none; ``outgoing``
    is None where the capture does not know.
    """

    data: bytes
    wire_length: int
    when_ns: int
    link_type: int
    ip_at: int
    outgoing: bool | None

class Frames:
    block: bytearray
    seen: int
    full: bool
    unread: dict[int, int]
    def __init__(self, most: int = 8192) -> None: ...
    def taken_on(self, address: bytes) -> None: ...
    def begin(self, block: bytearray) -> None: ...
    def put(self, at: int, captured: int, length: int, link_type: int) -> None: ...
    def count(self, pipeline: Pipeline, census: Census, first: int) -> int: ...
    def match(self, match: Match, side: int) -> bool: ...
    def __len__(self) -> int: ...
    def __getitem__(self, number: int) -> Frame: ...
    def __iter__(self) -> Iterator[Frame]: ...
