"""Where the rules are not what was wanted, or not as they were written."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from msgspec.structs import replace

from fixer.rules.installed import Installed
from fixer.rules.selection import FAMILIES, Family, Selection
from fixer.rules.wanted import Intent
from fixer.status.facts import Facts
from fixer.status.reason import Reason, Severity

FORGOTTEN_SECONDS = 86_400.0
"""An incident is over after a day, or somebody has forgotten the rule."""


def reasons(facts: Facts) -> Iterator[Reason]:
    """What there is to know of that."""
    if facts.misunderstood:
        yield Reason(Severity.WARNING, facts.misunderstood)
    on = {family.key: rules for family, rules in facts.on()}
    wanted = facts.wanted
    if wanted and not wanted.holds(facts.now) and on:
        yield Reason(Severity.WARNING, f"the rule is there, and {_why_not(wanted)}", "fixer off, or fixer on")
    holds = wanted is None or wanted.holds(facts.now)
    for family in FAMILIES:
        if holds and family.key not in on:
            yield from _gone(facts, family, bool(on))
        elif holds and family.key in on:
            yield from _changed(facts, family, on[family.key])
    if wanted and wanted.holds(facts.now) and wanted.until is None and on:
        age = (facts.now - wanted.since).total_seconds()
        if age > FORGOTTEN_SECONDS:
            what = f"the rule is there for {age / 86_400:.1f} days, and nobody has said until when: forgotten?"
            yield Reason(Severity.NOTE, what, "fixer off, or fixer on --for 8h")


def _gone(facts: Facts, family: Family, other: bool) -> Iterator[Reason]:
    """A family has no rule: whether it should have one."""
    rules = facts.families[family.key]
    carries = bool(facts.ports and facts.ports.get(family.version, frozenset()) & _ports(facts))
    written = facts.noted is not None and family.key in facts.noted.written
    selection = facts.wanted.selection if facts.wanted else None
    if selection is not None and not selection.concerns(family):
        return
    if rules.unavailable:
        if carries and other:
            what = f"{family.name}: VXLAN arrives, and no rule can be there: {rules.unavailable}"
            yield Reason(Severity.DOWN, what)
        return
    if written:
        what = f"{family.name}: the rule is gone: somebody has removed it since fixer on"
        yield Reason(Severity.DOWN if carries or not other else Severity.WARNING, what, "fixer on")
    elif (other and carries) or (facts.wanted and facts.wanted.on):
        yield Reason(Severity.DOWN, f"{family.name}: no rule sends packets to the queue", "fixer on")


def _ports(facts: Facts) -> frozenset[int]:
    """The VXLAN ports that rules take, or are to take."""
    taken = {port for _, rules in facts.on() for port in rules.ports or ()}
    selection = facts.wanted.selection if facts.wanted else None
    return frozenset(taken | set(selection.ports if selection else ()))


def _changed(facts: Facts, family: Family, rules: Installed) -> Iterator[Reason]:
    """A family's rule is not what was written, or means something else than what is wanted."""
    wanted = facts.wanted.selection if facts.wanted else None
    if is_changed(facts, family, rules):
        yield Reason(Severity.WARNING, f"{family.name}: the rule is not as fixer on wrote it", "fixer on")
    elif rules.selection is not None and wanted is not None and not _alike(rules.selection, wanted):
        yield Reason(Severity.WARNING, f"{family.name}: the rule takes something else than is wanted", "fixer on")


def _alike(one: Selection, other: Selection) -> bool:
    """But for the end that a kernel may lack."""
    return one == other or one == replace(other, until=None)


def is_changed(facts: Facts, family: Family, rules: Installed) -> bool:
    """Whether somebody has changed what was written, in another way than by leading more to it."""
    written = facts.noted is not None and family.key in facts.noted.written
    return written and rules.selection is None and not rules.surplus


def _why_not(wanted: Intent) -> str:
    if wanted.on and wanted.until:
        return f"{wanted.by} wanted it until {_moment(wanted.until)}: it takes nothing any more"
    return f"{wanted.by} has said fixer off at {_moment(wanted.since)}"


def _moment(when: datetime) -> str:
    return when.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
