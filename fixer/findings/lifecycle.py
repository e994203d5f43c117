"""The life of a finding while packets come: opened at once, updated while it grows, closed when it is over."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from fixer.findings.finding import Finding, Role
from fixer.now import Now

UPDATE_SECONDS = 60.0
"""At least so long between two events of one finding."""
CLOSE_SECONDS = 300.0
"""So long after its last packet a finding is over."""
MOST_OPEN = 64
"""Findings that are open at once: the worst."""
MOST_OPENED = 16
"""Findings that are opened at one look; the others, if they are still there, at the next one."""

Key = tuple[str, Role, str, str]
"""One life for each: who, role, cause, and what tells several of these apart."""


class Stage(StrEnum):
    OPENED = "opened"
    UPDATED = "updated"
    CLOSED = "closed"


class End(StrEnum):
    """Why a finding was closed: its packets have ceased; a worse one needs the room; the daemon stops."""

    OVER = "over"
    GAVE_WAY = "gave way"
    STOPPED = "stopped"


@dataclass
class Case:
    """A finding that is open. Its ``id`` is drawn: nothing that a packet holds is in it."""

    id: str
    finding: Finding
    """As it was last seen."""
    since_ns: int
    """Nanoseconds since the epoch, as all that ends with ns: when it was opened …"""
    last_ns: int
    """… and when it last grew."""
    grew: float
    """The same in steady seconds."""
    told: Finding
    """As it was last told …"""
    told_at: float
    """… at this steady second."""
    samples: str = ""
    """The file that holds some of its packets."""

    def see(self, finding: Finding, now: Now) -> None:
        if finding.packets > self.finding.packets:
            self.grew, self.last_ns = now.steady, now.wall_ns
        self.finding = finding

    def is_due(self, now: Now) -> bool:
        news = self.finding.packets > self.told.packets or self.finding.verdict is not self.told.verdict
        return news and now.steady - self.told_at >= UPDATE_SECONDS


class News(NamedTuple):
    """What is to be told of a case."""

    stage: Stage
    case: Case
    end: End = End.OVER


class LifeCycle:
    """All that is open. To be shown what is found about once a second."""

    def __init__(self) -> None:
        self._open: dict[Key, Case] = {}
        self._over: dict[Key, int] = {}
        """Closed with so many packets, and still shown."""
        self.left_out = 0
        """Findings of the last look for which there was no room."""

    @property
    def open(self) -> list[Case]:
        """The worst first."""
        return sorted(self._open.values(), key=lambda case: case.finding.badness, reverse=True)

    def case(self, key: Key) -> Case | None:
        return self._open.get(key)

    def look(self, findings: Iterable[Finding], now: Now) -> Iterator[News]:
        """What has come up. ``findings`` are all that hold now, with their packets since each began; of several of one
        key the first counts."""
        shown: dict[Key, Finding] = {}
        for finding in findings:
            shown.setdefault(key_of(finding), finding)
        self._over = {key: most for key, most in self._over.items() if key in shown and shown[key].packets <= most}
        for key, case in list(self._open.items()):
            if key in shown:
                case.see(shown[key], now)
            if now.steady - case.grew >= CLOSE_SECONDS:
                yield self._close(key, End.OVER)
            elif case.is_due(now):
                case.told, case.told_at = case.finding, now.steady
                yield News(Stage.UPDATED, case)
        new = [finding for key, finding in shown.items() if key not in self._open and key not in self._over]
        yield from self._begin(sorted(new, key=lambda finding: finding.badness, reverse=True), now)

    def stop(self) -> Iterator[News]:
        """The end of all that is open."""
        for key in list(self._open):
            yield self._close(key, End.STOPPED)

    def _begin(self, new: list[Finding], now: Now) -> Iterator[News]:
        """Open the worst of them. What is open gives way only to what is clearly worse: a flood of small ones must not
        turn it over and over."""
        begun = 0
        for finding in new[:MOST_OPENED]:
            if len(self._open) >= MOST_OPEN:
                key, least = min(self._open.items(), key=lambda each: each[1].finding.badness)
                urgency, packets = least.finding.badness
                if finding.badness <= (urgency, 2 * packets):
                    break
                yield self._close(key, End.GAVE_WAY)
            case = Case(secrets.token_hex(8), finding, now.wall_ns, now.wall_ns, now.steady, finding, now.steady)
            self._open[key_of(finding)] = case
            begun += 1
            yield News(Stage.OPENED, case)
        self.left_out = len(new) - begun

    def _close(self, key: Key, end: End) -> News:
        case = self._open.pop(key)
        if end is End.OVER:
            self._over[key] = case.finding.packets
        return News(Stage.CLOSED, case, end)


def key_of(finding: Finding) -> Key:
    """Those who are not told one by one are called after how many they are, which changes."""
    return "" if finding.cause == "others" else finding.who, finding.role, finding.cause, finding.apart
