"""The raw table as ``iptables-save -c`` tells it, and who in it decides about a packet before we do.

Reads only: :mod:`fixer.rules.switch` changes it.
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

CHAIN_FLOWS, CHAIN_OUTPUT = "FIXER-FLOWS", "FIXER-OUTPUT"
"""Where timestamps are normalised: the rule of the queue for it, and which packets that leave go there as well."""

_ORDINARY_CHAINS = (CHAIN, CHAIN_VXLAN, CHAIN_PLAIN)
_OUR_CHAINS = (*_ORDINARY_CHAINS, CHAIN_FLOWS, CHAIN_OUTPUT)

Words = tuple[str, ...]
Chains = dict[str, list[Words]]
"""The rules of each chain, each as the words that follow ``-A CHAIN``, the quotes removed."""

Hook = Literal["PREROUTING", "OUTPUT"]

HOOK: Hook = "PREROUTING"
"""The chain we jump from: in the raw table it is met before conntrack, which would call a broken packet INVALID."""

OUTPUT: Hook = "OUTPUT"
"""Where the replies leave, encapsulated by this host: the second chain we jump from, if timestamps are normalised."""

ENTRIES: dict[Hook, str] = {HOOK: CHAIN, OUTPUT: CHAIN_OUTPUT}
"""Which of our chains each jump of ours leads to."""

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
    """A rule before our jump that ends the walk: ``entry`` stands in the hook's chain and is, or leads to, ``rule``."""

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

    def ordinary(self) -> list[Rule]:
        """Those about packets whose timestamps nobody normalises."""
        rules = (rule for name in _ORDINARY_CHAINS for rule in self.chains.get(name, ()))
        return [rule for rule in rules if rule.target != CHAIN_FLOWS]

    def option(self, name: str, rules: Iterable[Rule] | None = None) -> tuple[str, ...]:
        """The values an option has in our ordinary rules, or in ``rules`` (``--dports``: each port), each once."""
        found: dict[str, None] = {}
        for rule in self.ordinary() if rules is None else rules:
            for word, value in pairwise(rule.words):
                if word == name:
                    found.update(dict.fromkeys(value.split(",")))
        return tuple(found)

    @property
    def queues(self) -> range:
        """The ordinary queues our rules send to; empty if no rule of ours queues."""
        for value in (*self.option("--queue-num"), *self.option("--queue-balance")):
            first, _, last = value.partition(":")
            return range(int(first), int(last or first) + 1)
        return range(0)

    @property
    def flows_queue(self) -> int | None:
        """The queue where timestamps are normalised; None if no rule of ours sends to one."""
        return next((int(number) for number in self.option("--queue-num", self.chains.get(CHAIN_FLOWS, ()))), None)

    def normalising(self, hook: Hook) -> list[Rule]:
        """The rules of ours that lead what this hook sees to the queue where timestamps are normalised."""
        return [rule for rule in self.chains.get(ENTRIES[hook], ()) if rule.target == CHAIN_FLOWS]

    def queueing(self) -> list[Rule]:
        """The rules of ours that send to the ordinary queue; all of them, unless only suspects are taken."""
        return [rule for rule in self.ordinary() if rule.target == "NFQUEUE"]

    def exempting(self) -> list[Rule]:
        """The rules of ours that let pass what needs no look."""
        return [rule for rule in self.ours() if rule.target == "RETURN"]

    @property
    def packets(self) -> int:
        """Packets our rules have sent to the ordinary queue (or let pass, while nobody listened)."""
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

    def traffic(self, hook: Hook = HOOK) -> Traffic:
        """What our rules take of what this hook sees."""
        rules = self.ordinary() if hook == HOOK else self.normalising(hook)
        return Traffic(
            frozenset(_PROTOCOLS.get(name, name) for name in self.option("-p", rules)),
            frozenset(map(int, self._ports(rules))) or None,
            # "! -i lo" is in every rule for plain packets and limits nothing.
            next((name for name in self.option("-i" if hook == HOOK else "-o", rules) if name != "lo"), None),
        )

    def _ports(self, rules: Iterable[Rule]) -> tuple[str, ...]:
        """The ports these rules are limited to, which they are not as soon as one of them takes any port."""
        entering = [rule for rule in rules if rule.chain in ENTRIES.values()]
        limited = all("--dports" in rule.words for rule in entering)
        return self.option("--dports", entering) if limited else ()

    def __str__(self) -> str:
        """What our rules take and where it goes, for people."""
        ports = self._ports(self.ordinary())
        kinds = [_SHOWN.get(name, name.upper()) for name in self.option("-p")]
        parts = ["suspects among"] if self.scope == "suspects" else []
        parts.append(", ".join(kinds) + (f" to port {', '.join(ports)}" if ports else ""))
        if interface := self.traffic().interface:
            parts.append(f"on {interface}")
        if sources := self.option("-s"):
            parts.append(f"from {', '.join(sources)}")
        return f"{' '.join(parts)} to {shown_queues(self.queues)}"

    def hook(self, name: Hook = HOOK) -> tuple[Rule, ...]:
        """The rules of the chain we jump from."""
        return self.chains.get(name, ())

    def jumps(self) -> list[Rule]:
        """Every rule of others' chains that leads into one of ours, wherever it stands."""
        others = (rules for name, rules in self.chains.items() if name not in _OUR_CHAINS)
        return [rule for rules in others for rule in rules if rule.target in _OUR_CHAINS]

    def position(self, hook: Hook = HOOK) -> int | None:
        """Where the first unconditional jump to us stands in the hook's chain, counted from 1; None without one."""
        words = ("-j", ENTRIES[hook])
        return next((at for at, rule in enumerate(self.hook(hook), 1) if rule.words == words), None)

    def has_surplus_jumps(self) -> bool:
        """Whether more leads to our chains than one jump from each hook."""
        return len(self.jumps()) > sum(self.position(hook) is not None for hook in ENTRIES)

    def is_last(self, hook: Hook = HOOK) -> bool:
        """Whether our jump is the last rule of the hook's chain.

        Last, because a packet that a queue accepts goes on at the next *table*: it never meets the rules behind us.
        """
        return self.position(hook) == len(self.hook(hook))

    @property
    def in_place(self) -> bool:
        """Whether one jump leads to each of our chains that a hook enters, last there, and none from elsewhere."""
        entered = [hook for hook, chain in ENTRIES.items() if hook == HOOK or chain in self.chains]
        return all(map(self.is_last, entered)) and len(self.jumps()) == len(entered)

    def ends_before_us(self, traffic: Traffic, hook: Hook = HOOK) -> Iterator[End]:
        """The rules before our jump that end the walk for some of our packets, first the first met."""
        rules = self.hook(hook)
        position = self.position(hook) or len(rules) + 1
        for entry in rules[: position - 1]:
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
        elif word in ("-i", "-o"):  # a hook's rules have one of them, and ours the same
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
