"""The raw table as ``iptables-save -c`` tells it, and who in it decides about a packet before we do.

Reads only: :mod:`fixer.node.rules` changes it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise
from typing import Literal, NamedTuple

CHAIN = "FIXER"
"""Our chain, ours by its name: what jumps to it is ours as well."""

CHAIN_VXLAN, CHAIN_PLAIN = "FIXER-VXLAN", "FIXER-PLAIN"
"""Where ours leads to if only suspects are queued, ours too: first what needs no look, then the queue."""

_OUR_CHAINS = (CHAIN, CHAIN_VXLAN, CHAIN_PLAIN)

Words = tuple[str, ...]
Chains = dict[str, list[Words]]
"""The rules of each chain, each as the words that follow ``-A CHAIN``, the quotes removed."""

HOOK = "PREROUTING"
"""The chain we jump from: in the raw table it is met before conntrack, which would call a broken packet INVALID."""

Scope = Literal["all", "suspects"]

# A packet that meets one of these does not come back to the chain. LOG, MARK, CT and their like let it go on.
_ENDS = {"ACCEPT", "DROP", "REJECT", "QUEUE", "NFQUEUE"}


class Family(NamedTuple):
    """An address family and its command."""

    name: Literal["IPv4", "IPv6"]
    version: Literal[4, 6]
    command: str

    @property
    def key(self) -> str:
        """The family's name in JSON."""
        return self.name.lower()


IPV4 = Family("IPv4", 4, "iptables")
IPV6 = Family("IPv6", 6, "ip6tables")
FAMILIES = (IPV4, IPV6)


class Rule(NamedTuple):
    """One rule: ``words`` is what follows ``-A CHAIN``, the quotes removed."""

    chain: str
    words: tuple[str, ...]
    packets: int = 0
    bytes: int = 0

    @property
    def target(self) -> str:
        """What ``-j`` or ``-g`` names; empty for a rule that only counts."""
        return next((self.words[at + 1] for at, word in enumerate(self.words[:-1]) if word in ("-j", "-g")), "")

    @property
    def is_goto(self) -> bool:
        """``-g`` does not come back to this chain; it goes on where this chain was called."""
        return "-g" in self.words

    def __str__(self) -> str:
        return f"-A {self.chain} {spelt(self.words)}"


class Traffic(NamedTuple):
    """The packets we want to see, as far as it takes to tell whether another rule concerns them."""

    protocols: frozenset[str]
    ports: frozenset[int] | None = None  # None: any port
    interface: str | None = None


class Match(Enum):
    """How much of our traffic a rule matches, as far as its words tell."""

    NONE = "none"
    SOME = "some"
    ALL = "all"


class End(NamedTuple):
    """A rule before our jump that ends the walk: ``entry`` stands in PREROUTING and is, or leads to, ``rule``."""

    entry: Rule
    rule: Rule
    match: Match


@dataclass(frozen=True)
class RawTable:
    """The raw table of one family in one variant of iptables."""

    chains: dict[str, tuple[Rule, ...]] = field(default_factory=dict)

    @property
    def has_ours(self) -> bool:
        return bool(self.own_chains() or self.jumps())

    def own_chains(self) -> Chains:
        """Our chains that there are."""
        return {name: [rule.words for rule in self.chains[name]] for name in _OUR_CHAINS if name in self.chains}

    def ours(self) -> tuple[Rule, ...]:
        """The rules of our chains."""
        return tuple(rule for name in _OUR_CHAINS for rule in self.chains.get(name, ()))

    def option(self, name: str) -> tuple[str, ...]:
        """The values an option has in our rules (``--dports``: each port), each once, in order."""
        found: dict[str, None] = {}
        for rule in self.ours():
            for word, value in pairwise(rule.words):
                if word == name:
                    found.update(dict.fromkeys(value.split(",")))
        return tuple(found)

    @property
    def queues(self) -> range:
        """The queues our rules send to; empty if no rule of ours queues."""
        for value in (*self.option("--queue-num"), *self.option("--queue-balance")):
            first, _, last = value.partition(":")
            return range(int(first), int(last or first) + 1)
        return range(0)

    def queueing(self) -> list[Rule]:
        """The rules of ours that send to the queue; all of them, unless only suspects are taken."""
        return [rule for rule in self.ours() if rule.target == "NFQUEUE"]

    def exempting(self) -> list[Rule]:
        """The rules of ours that let pass what needs no look."""
        return [rule for rule in self.ours() if rule.target == "RETURN"]

    @property
    def packets(self) -> int:
        """Packets our rules have sent to the queue (or let pass, while nobody listened)."""
        return sum(rule.packets for rule in self.queueing())

    @property
    def bytes(self) -> int:
        return sum(rule.bytes for rule in self.queueing())

    @property
    def scope(self) -> Scope:
        """Whether everything that our rules take is queued, or what is exempted passes."""
        return "suspects" if self.exempting() else "all"

    @property
    def is_on(self) -> bool:
        """Whether packets are led to our chain and from there to a queue."""
        return self.position() is not None and bool(self.queues)

    def traffic(self) -> Traffic:
        """What our rules take."""
        return Traffic(
            frozenset(_PROTOCOLS.get(name, name) for name in self.option("-p")),
            frozenset(map(int, self._ports())) or None,
            # "! -i lo" is in every rule for plain packets and limits nothing.
            next((name for name in self.option("-i") if name != "lo"), None),
        )

    def _ports(self) -> tuple[str, ...]:
        """The ports we limit ourselves to, which we do not as soon as one of our rules takes any port."""
        limited = all("--dports" in rule.words for rule in self.chains.get(CHAIN, ()))
        return self.option("--dports") if limited else ()

    def __str__(self) -> str:
        """What our rules take and where it goes, for people."""
        ports = self._ports()
        kinds = [_SHOWN.get(name, name.upper()) for name in self.option("-p")]
        parts = ["suspects among"] if self.scope == "suspects" else []
        parts.append(", ".join(kinds) + (f" to port {', '.join(ports)}" if ports else ""))
        if interface := self.traffic().interface:
            parts.append(f"on {interface}")
        if sources := self.option("-s"):
            parts.append(f"from {', '.join(sources)}")
        return f"{' '.join(parts)} to {shown_queues(self.queues)}"

    def hook(self) -> tuple[Rule, ...]:
        """The rules of PREROUTING."""
        return self.chains.get(HOOK, ())

    def jumps(self) -> list[Rule]:
        """Every rule of others' chains that leads into one of ours, wherever it stands."""
        others = (rules for name, rules in self.chains.items() if name not in _OUR_CHAINS)
        return [rule for rules in others for rule in rules if rule.target in _OUR_CHAINS]

    def position(self) -> int | None:
        """Where the first unconditional jump to us stands in PREROUTING, counted from 1; None without one."""
        return next((at for at, rule in enumerate(self.hook(), 1) if rule.words == ("-j", CHAIN)), None)

    @property
    def in_place(self) -> bool:
        """Whether there is one jump to us and it stands last in PREROUTING.

        Last, because a packet that a queue accepts goes on at the next *table*: it never meets the rules behind us.
        """
        return self.position() == len(self.hook()) and len(self.jumps()) == 1

    def ends_before_us(self, traffic: Traffic) -> Iterator[End]:
        """The rules of PREROUTING before our jump that end the walk for some of our packets, first the first met."""
        position = self.position() or len(self.hook()) + 1
        for entry in self.hook()[: position - 1]:
            matched, end = self._end(entry, traffic, frozenset())
            if end is not None:
                yield End(entry, end, matched)

    def _end(self, rule: Rule, traffic: Traffic, seen: frozenset[str]) -> tuple[Match, Rule | None]:
        """Whether ``rule`` ends the walk (for how much of the traffic), or which rule in the chain it leads to does."""
        matched = match(rule, traffic)
        in_hook = not seen
        if matched is Match.NONE or rule.target in seen:
            return Match.NONE, None
        if rule.target in _ENDS or (in_hook and (rule.target == "RETURN" or rule.is_goto)):
            return matched, rule
        for inner in self.chains.get(rule.target, ()):
            inner_match = match(inner, traffic)
            if inner.target == "RETURN" and inner_match is Match.ALL:
                break
            found, end = self._end(inner, traffic, seen | {rule.chain, rule.target})
            if end is not None:
                return (Match.ALL if matched is found is Match.ALL else Match.SOME), end
        return Match.NONE, None


def shown_queues(numbers: Sequence[int]) -> str:
    """Consecutive queues, for people."""
    return f"queue {numbers[0]}" if len(numbers) == 1 else f"queues {numbers[0]} to {numbers[-1]}"


def parse(saved: str) -> RawTable:
    """The output of ``iptables-save -c -t raw``; an empty one (the table does not exist yet) is an empty table."""
    chains: dict[str, list[Rule]] = {}
    for line in saved.splitlines():
        if line.startswith(":"):
            chains[line[1:].split()[0]] = []
        elif found := re.match(r"\[(\d+):(\d+)\] -A (.*)", line):
            chain, *words = shlex.split(found[3])
            chains.setdefault(chain, []).append(Rule(chain, tuple(words), int(found[1]), int(found[2])))
    return RawTable({name: tuple(rules) for name, rules in chains.items()})


def spelt(words: Iterable[str]) -> str:
    """The words of a rule as iptables-save writes them and iptables-restore reads them: it knows double quotes only."""
    return " ".join(
        word if re.fullmatch(r"[^\s\"'\\]+", word) else '"' + re.sub(r'(["\\])', r"\\\1", word) + '"' for word in words
    )


def match(rule: Rule, traffic: Traffic) -> Match:
    """How much of ``traffic`` a rule matches. What is not understood is taken to match some: never all, never none."""
    result = Match.ALL
    words = iter(rule.words)
    negated = False
    for word in words:
        if word == "!":
            negated = True
            continue
        if word in ("-j", "-g"):
            break  # the target's own options follow
        if word in ("-m", "--comment"):
            # A match's name says nothing by itself; its options do. One without options we know (-m rpfilter) is below.
            name = next(words, "")
            one = Match.ALL if word == "--comment" or name in ("udp", "tcp", "multiport", "comment") else Match.SOME
        elif word == "-p":
            one = _overlap(traffic.protocols, {_PROTOCOLS.get(value := next(words, ""), value)}, negated)
        elif word in ("--dport", "--dports"):
            wanted = next(words, "")
            if traffic.ports is None or len(traffic.protocols) > 1:
                one = Match.SOME
            else:
                one = _overlap(traffic.ports, {port for port in traffic.ports if _holds(wanted, port)}, negated)
        elif word == "-i":
            one = _interface(next(words, ""), traffic.interface, negated)
        else:
            one = Match.SOME
        negated = False
        if one is Match.NONE:
            return Match.NONE
        if one is Match.SOME:
            result = Match.SOME
    return result


_SHOWN = {"ipv6-icmp": "ICMPv6"}
_PROTOCOLS = {"ipv6-icmp": "icmpv6", "6": "tcp", "17": "udp", "1": "icmp", "58": "icmpv6"}


def _overlap(ours: frozenset[str] | frozenset[int], theirs: set[str] | set[int], negated: bool) -> Match:
    common = len(ours - theirs) if negated else len(ours & theirs)
    if common == 0:
        return Match.NONE
    return Match.ALL if common == len(ours) else Match.SOME


def _holds(ports: str, port: int) -> bool:
    """Whether ``4789,6000:7000`` holds a port; an open end is the first or last one."""
    for part in ports.split(","):
        first, colon, last = part.partition(":")
        if int(first or 0) <= port <= int(last or (65535 if colon else first)):
            return True
    return False


def _interface(theirs: str, ours: str | None, negated: bool) -> Match:
    if theirs == "lo":  # what we want comes from elsewhere
        return Match.ALL if negated else Match.NONE
    if ours is None or theirs.endswith("+") or ours.endswith("+"):
        return Match.SOME
    return Match.ALL if (theirs == ours) is not negated else Match.NONE
