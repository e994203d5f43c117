"""Who is behind one source address: what the datapath's lines of TSval against time say, judged, as findings.

A *suspect* is a source whose SYNs a server with ``tcp_tw_recycle`` may refuse because they come from more than one
clock. Two things look like that and are told apart: several hosts behind SNAT (several lines, each with SYNs of its
own), and a host that draws the offset of its timestamps for each connection (SYNs on no line at all). Where the
numbers do not decide, nothing is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any, NamedTuple, Protocol

from fixer.datapath.snat import Clock, Sight
from fixer.findings.finding import Finding, Role, Verdict
from fixer.now import Now

LOOK_SECONDS = 10
"""How often the lines are looked at."""
PAWS_NS = 60_000_000_000
"""How long a server with tcp_tw_recycle remembers a timestamp (TCP_PAWS_MSL)."""
ENOUGH = 16
"""SYNs below which being on no line says nothing: their clients may just not have come again yet."""
DEVIATIONS = 5
"""By how many standard deviations SYNs on lines must outnumber those that chance puts there."""


class Sees(Protocol):
    """What has a memory of clocks: a ``Pipeline``."""

    def snat_sights(self, now_ns: int) -> list[Sight]: ...


class Suspect(NamedTuple):
    """A sight that is one, and which of the two it is likely to be."""

    several: bool
    """Several clocks; else one host or more that draw offsets at random."""
    clocks: int
    """Clocks that ran at once: hosts that are there at least."""
    sight: Sight

    @property
    def source(self) -> tuple[str, int | None]:
        return self.sight.source, self.sight.vni

    @property
    def weight(self) -> tuple[bool, int, int]:
        """By which the strongest of several is chosen."""
        return self.several, self.clocks, self.sight.syns


def judge(sight: Sight) -> Suspect | None:
    """The suspect in a sight; None: one clock, or not decided."""
    clocks = at_once(sight.clocks)
    beyond_chance = sight.fits > sight.chance + DEVIATIONS * sqrt(sight.chance) + 1
    if clocks > 1 and beyond_chance:
        return Suspect(True, clocks, sight)
    if sight.syns >= ENOUGH and 2 * sight.fits < sight.syns:
        return Suspect(False, clocks if beyond_chance else 0, sight)
    return None


def at_once(clocks: Sequence[Clock]) -> int:
    """How many of the clocks ran at the same time.

    A host that boots and a time that is set (a client's or ours) end one line and begin another: that is one clock.
    But a server refuses what is behind any clock of its last 60 seconds, so lines that follow each other so closely
    are counted as well, as soon as one succession cannot explain them.
    """
    together = most_at(clocks, 0)
    remembered = most_at(clocks, PAWS_NS)
    return remembered if remembered > together + 1 else together


def most_at(clocks: Sequence[Clock], longer_ns: int) -> int:
    """The most clocks at any moment, where each runs from its first SYN to ``longer_ns`` after its last."""
    return max(
        (sum(other.first_ns <= clock.first_ns <= other.last_ns + longer_ns for other in clocks) for clock in clocks),
        default=0,
    )


class SnatWatch:
    """The suspects as findings: what is known of each source now."""

    def __init__(self, pipelines: Sequence[Sees]) -> None:
        self._pipelines = pipelines
        self._next = 0.0
        self._found: list[Finding] = []

    def findings(self, now: Now) -> list[Finding]:
        """The strongest first; looks no more often than every ``LOOK_SECONDS``, so it may be asked as often as one
        likes. (What is over need not be forgotten: the memory of clocks does that itself.)"""
        if now.steady >= self._next:
            self._next = now.steady + LOOK_SECONDS
            self._found = [finding(suspect) for suspect in self.suspects(now.wall_ns)]
        return self._found

    def suspects(self, now_ns: int) -> list[Suspect]:
        """One for each source (and VNI), the strongest of all its destinations and all pipelines; strongest first.

        Not their sum: a host may have another offset for each destination, and each queue sees some flows only.
        """
        strongest: dict[tuple[str, int | None], Suspect] = {}
        for pipeline in self._pipelines:
            for sight in pipeline.snat_sights(now_ns):
                suspect = judge(sight)
                if suspect and (suspect.source not in strongest or suspect.weight > strongest[suspect.source].weight):
                    strongest[suspect.source] = suspect
        return sorted(strongest.values(), key=lambda suspect: suspect.weight, reverse=True)


def finding(suspect: Suspect) -> Finding:
    """Several clocks are what a server with tcp_tw_recycle refuses, wherever there is one; offsets at random are how
    modern hosts are."""
    return Finding(
        suspect.sight.source,
        Role.HOST,
        "several_clocks" if suspect.several else "random_offsets",
        Verdict.UNCLEAR if suspect.several else Verdict.HARMLESS,
        sentence(suspect),
        packets=suspect.sight.syns,
        of=suspect.sight.syns,
        vnis=() if suspect.sight.vni is None else (suspect.sight.vni,),
        cure=f"`fixer doctor timestamps` on {suspect.sight.destination} says whether it refuses them, and what helps",
        beside=document(suspect),
        apart="" if suspect.sight.vni is None else str(suspect.sight.vni),
    )


def document(suspect: Suspect) -> dict[str, Any]:
    """The fields that only such a finding has."""
    sight = suspect.sight
    fields = {
        "fixer.snat.suspect": "several-clocks" if suspect.several else "random-offsets",
        "fixer.snat.clocks": suspect.clocks,
        "fixer.snat.ticks_hz": sorted(round(clock.hz) for clock in sight.clocks),
        "fixer.snat.more_possible": sight.full,
        "fixer.snat.syns": sight.syns,
        "fixer.snat.syns_on_lines": sight.fits,
        "fixer.snat.syns_on_lines_by_chance": round(sight.chance, 3),
        "fixer.snat.refused_share": round(sight.refused / sight.syns, 3),
        "source.ip": sight.source,
        "destination.ip": sight.destination,
        "network.type": f"ipv{sight.version}",
        "network.transport": "tcp",
    }
    if sight.vni is not None:
        fields["fixer.vni"] = sight.vni
    return fields


def sentence(suspect: Suspect) -> str:
    """The suspect in a line for somebody who reads the log itself."""
    sight = suspect.sight
    where = f"{sight.source} (to {sight.destination}{'' if sight.vni is None else f', VNI {sight.vni}'})"
    refused = f"tcp_tw_recycle would refuse up to {100 * sight.refused / sight.syns:.0f} % of them"
    chance = f"{sight.chance:.1g} by chance"
    if suspect.several:
        number = f"{suspect.clocks}{' or more' if sight.full else ''} clocks"
        return (
            f"{number} behind {where}: {sight.fits} of {sight.syns} SYNs are on a line with an earlier one, "
            f"{chance} would be; {refused}"
        )
    beside = f" beside {suspect.clocks} clock" if suspect.clocks else ""
    return (
        f"offsets drawn at random per connection{beside}, likely, behind {where}: only {sight.fits} of {sight.syns} "
        f"SYNs are on a line with an earlier one, {chance} would be; one client may look like this, and so may very "
        f"many; {refused}"
    )
