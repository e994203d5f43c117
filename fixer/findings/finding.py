"""A conclusion: who, what, whether it is a fault at all, what shows it, and what cures it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, NamedTuple


class Verdict(StrEnum):
    """FAULT: it breaks traffic, and this is shown; HARMLESS: normal where the capture was taken; UNCLEAR: it can be
    read either way, and the text says what would decide."""

    FAULT = "fault"
    UNCLEAR = "unclear"
    HARMLESS = "harmless"


class Role(StrEnum):
    """Of whom a finding speaks: PATH is whatever lies between a VTEP and the point of capture."""

    VTEP = "vtep"
    HOST = "host"
    PATH = "path"
    FILE = "file"


class Place(StrEnum):
    """Where a capture was taken, as seen from one sender; BEHIND: anywhere behind its NIC."""

    SENDER = "sender"
    RECEIVER = "receiver"
    ONE_HOST = "one host"
    BEHIND = "behind"
    UNKNOWN = "unknown"


class Fact(NamedTuple):
    """What shows it: of how many packets that is so, and the first one's number in the file (0: not of one packet)."""

    what: str
    packets: int
    frame: int


@dataclass(frozen=True)
class Finding:
    """``packets`` of the ``of`` that its sender sent; ``cure`` and ``kernel`` (versions and the commit that mended it)
    are '' where there is none. ``text`` says it all to people."""

    who: str
    role: Role
    cause: str
    verdict: Verdict
    text: str
    packets: int = 0
    of: int = 0
    vnis: tuple[int, ...] = ()
    taken: Place = Place.UNKNOWN
    evidence: tuple[Fact, ...] = ()
    cure: str = ""
    kernel: str = ""
    beside: dict[str, Any] = field(default_factory=dict, compare=False)
    """ECS fields of the log that only this cause has."""
    apart: str = ""
    """What tells it from another one of the same sender and cause."""

    @property
    def badness(self) -> tuple[int, int]:
        """The larger, the worse."""
        return -_URGENCY.index(self.verdict), self.packets

    def as_object(self) -> dict[str, Any]:
        """As `--json` prints it; fixer/data/finding.schema.json describes it."""
        said = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("beside", "apart")}
        return said | {"vnis": list(self.vnis), "evidence": [fact._asdict() for fact in self.evidence]}


_URGENCY = (Verdict.FAULT, Verdict.UNCLEAR, Verdict.HARMLESS)
