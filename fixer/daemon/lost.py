"""In which way rules are not what they should be, family by family."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from msgspec.structs import replace

from fixer.rules.installed import Installed
from fixer.rules.selection import Family, Selection

Kind = Literal["gone", "twice", "not last", "changed", "leftover"]

NO_INTERFACE = "no interface"
"""As a kind of loss, beside those: the rule is as it was, and the interface it is for is not there any more."""


class Loss(NamedTuple):
    """One thing that somebody else has done to the rules of a family."""

    family: Family
    kind: Kind
    what: str

    def __str__(self) -> str:
        return f"{self.family.name}: {self.what}"


def losses(family: Family, found: Sequence[Installed], wanted: Selection) -> Iterator[Loss]:
    """What is wrong with the rules that are there, the backend that is on first; nothing, if nothing can be there."""
    if not found or not wanted.concerns(family):
        return
    first, *others = found
    if not first.on:
        what = "what is left of the rule takes nothing" if first.is_there else "the rule is gone"
        yield Loss(family, "gone", what)
        return
    for other in others:
        if other.is_there:
            yield Loss(family, "leftover", f"rules of ours are in {other.backend} too")
    if first.surplus:
        yield Loss(family, "twice", "more than one jump leads to our chain")
    elif not first.in_place:
        yield Loss(family, "not last", f"our jump is not last in {' and '.join(first.hooks)}")
    elif first.selection is None or replace(first.selection, until=None) != replace(wanted, until=None):
        yield Loss(family, "changed", "the rule is not as it was written")
