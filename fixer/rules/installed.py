"""What there is of ours in the kernel, and what was changed about it: by meaning, whatever backend it is in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from fixer.rules.selection import Family, Scope, Selection


class Place(NamedTuple):
    """Where packets are led to us in one hook: by the rule at ``position`` of ``of``, counted from 1.

    None: nothing leads to us. What stands behind us never sees what we take.
    """

    hook: str
    position: int | None
    of: int
    target: str = ""
    """What of ours they are led to."""

    @property
    def is_last(self) -> bool:
        return self.position == self.of

    def __str__(self) -> str:
        return f"rule {self.position} of {self.of} in {self.hook}, {'last' if self.is_last else 'not last'}"


class Counted(NamedTuple):
    """Packets our rules have met. What is normalised is in ``arrived`` and ``left`` alone, and what leaves in
    ``left`` and ``outgoing``."""

    packets: int = 0
    """Sent to the ordinary queues (or let pass, while nobody listened)."""
    bytes: int = 0
    finished: int = 0
    """Let pass, for they are no suspects."""
    merged: int = 0
    """Let pass, for they are too long to have come from a wire in one piece."""
    arrived: int = 0
    """From the sources whose timestamps are normalised."""
    left: int = 0
    """To them."""
    outgoing: int = 0
    """Sent by this host, to be completed; one that is segmented later is one here."""


class Ahead(NamedTuple):
    """A rule before ours that ends the walk: ``entry`` is met first and is, or leads to, ``rule``."""

    entry: str
    rule: str
    takes_all: bool
    """Whether for all our packets, or some of them."""
    alike: int = 1
    """How many there are that differ from it in an address or an interface alone, itself among them."""
    chain: str = ""
    """Of nftables, where nothing but a drop is in our way: the base chain that a packet enters, as ``nft`` names it."""
    ports: tuple[int, ...] = ()
    """Which of ours it is, there; none if all that is plain."""


@dataclass(frozen=True)
class Installed:
    """One family's rules of ours in one backend."""

    family: Family
    backend: str
    """The command that changes it."""
    said: tuple[str, ...]
    """All that is ours, as the kernel spells it, without counters; empty if nothing is."""
    parts: str
    """How much that is, in the backend's words."""
    selection: Selection | None
    """What it means, if it is just what we had written; None if somebody changed it, or nobody remembers."""
    on: bool
    """Whether packets are led to us, and from us to a queue."""
    queues: range
    flows_queue: int | None
    """Where timestamps are normalised."""
    outgoing_queue: int | None
    """Where what leaves is completed."""
    scope: Scope
    takes: str
    """Which packets go where, for people."""
    takes_plain: bool
    """Whether others than VXLAN are among them."""
    ports: frozenset[int] | None
    """Which UDP ports; None: any."""
    interface: str | None
    until: datetime | None
    """When the kernel stops taking any; None: never."""
    place: Place
    way_back: Place
    """Where what leaves is led to us: replies to what is normalised, and what is to be completed."""
    in_place: bool
    """Whether one rule leads to us in each hook that we need, last there, and none from elsewhere."""
    surplus: bool
    """Whether more leads to us than that."""
    counted: Counted
    ahead: tuple[Ahead, ...]
    elsewhere: str | None
    """The value of ``--variant`` for another table, which what is ``ahead`` does not reach."""

    @property
    def is_there(self) -> bool:
        return bool(self.said)

    @property
    def is_passed_over(self) -> bool:
        """Whether rules that others append are not met by what we take, until ours is put last again.

        Not behind nftables' own hook: there being last is the priority's work.
        """
        return self.on and self.backend != "nft"

    @property
    def hooks(self) -> tuple[str, ...]:
        """Those in which packets have to be led to us."""
        return (self.place.hook, self.way_back.hook) if self.takes_what_leaves else (self.place.hook,)

    @property
    def takes_what_leaves(self) -> bool:
        return self.flows_queue is not None or self.outgoing_queue is not None

    @property
    def longest(self) -> int | None:
        """The length in bytes above which nothing is looked at; None if there is none, or that cannot be told."""
        return self.selection.suspects_up_to if self.selection else None

    @property
    def takes_syns(self) -> bool:
        """Whether every SYN is queued, suspect or not. False if that cannot be told."""
        return self.scope == "all" or (self.selection is not None and self.selection.syns)


Did = Literal["written", "kept", "removed", "cleared", "nothing", "uncovered"]
"""``kept``: it was as it should be. ``cleared``: what had been left in a backend that is not used any more was removed.
``nothing``: nothing was wanted, nothing was there. ``uncovered``: this host does not have the family."""


@dataclass(frozen=True)
class Change:
    """What became of one family's rules in one backend."""

    family: Family
    did: Did
    before: Installed | None = None
    after: Installed | None = None
    why: str = ""
    """What is lacking, if ``uncovered``."""

    @property
    def is_one(self) -> bool:
        """Whether anything in the kernel is another than before."""
        return self.did in ("written", "removed", "cleared")
