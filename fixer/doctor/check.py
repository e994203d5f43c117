"""What a check is: what it looks at, when it says what, what cures it and where that is known from, and a function."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from fixer.doctor.node import Node
from fixer.findings.finding import Fact, Finding, Role, Verdict

__all__ = ["Ailment", "Check", "Fact", "Role", "Verdict", "ailment"]


@dataclass(frozen=True)
class Ailment(Finding):
    """A finding about a node. ``cure`` is the one that lasts. Evidence that was not counted has 0 packets."""

    now: str = ""
    """The cure that holds until the next reboot, or what carries one until the lasting one."""
    check: str = ""


class Check(NamedTuple):
    """One thing that is looked at. ``docs/doctor.md`` is made from these."""

    name: str
    looks_at: str
    causes: tuple[str, ...]
    """What its findings can have as ``cause``."""
    says: dict[Verdict, str]
    """When it gives which verdict."""
    sources: tuple[str, ...]
    judge: Callable[[Node], Iterable[Ailment]]


def ailment(
    who: str,
    cause: str,
    verdict: Verdict,
    text: str,
    evidence: Iterable[str | tuple[str, int]],
    *,
    now: str = "",
    cure: str = "",
    kernel: str = "",
    vnis: Iterable[int] = (),
) -> Ailment:
    """A finding about ``who`` of this node; evidence is what was seen, and how many packets that was so for."""
    facts = (Fact(each, 0, 0) if isinstance(each, str) else Fact(each[0], each[1], 0) for each in evidence)
    return Ailment(
        who=who,
        role=Role.HOST,
        cause=cause,
        verdict=verdict,
        text=text,
        evidence=tuple(facts),
        cure=cure,
        kernel=kernel,
        vnis=tuple(vnis),
        now=now,
    )
