"""The raw table as ``iptables-save -c`` tells it, and what of it is ours."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Literal, NamedTuple

from fixer.rules.selection import Scope, shown_queues

CHAIN = "FIXER"
"""Our chain, ours by its name: what jumps to it is ours as well."""

CHAIN_VXLAN, CHAIN_PLAIN = "FIXER-VXLAN", "FIXER-PLAIN"
"""Where ours leads to if only suspects are queued, ours too: first what needs no look, then the queue."""

CHAIN_FLOWS, CHAIN_OUTPUT = "FIXER-FLOWS", "FIXER-OUTPUT"
"""Where timestamps are normalised: the rule of the queue for it; and which packets that leave go to which queue."""

_ORDINARY_CHAINS = (CHAIN, CHAIN_VXLAN, CHAIN_PLAIN)
_OUR_CHAINS = (*_ORDINARY_CHAINS, CHAIN_FLOWS, CHAIN_OUTPUT)

Words = tuple[str, ...]
Chains = dict[str, list[Words]]
"""The rules of each chain, each as the words that follow ``-A CHAIN``, the quotes removed."""

Hook = Literal["PREROUTING", "OUTPUT"]

HOOK: Hook = "PREROUTING"
"""The chain we jump from: in the raw table it is met before conntrack, which would call a broken packet INVALID."""

OUTPUT: Hook = "OUTPUT"
"""Where what this host encapsulates leaves: the second chain we jump from, to normalise replies and to complete."""

ENTRIES: dict[Hook, str] = {HOOK: CHAIN, OUTPUT: CHAIN_OUTPUT}
"""Which of our chains each jump of ours leads to."""


class Line(NamedTuple):
    """One rule, as a line of ``iptables-save -c``: ``words`` is what follows ``-A CHAIN``, the quotes removed."""

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


@dataclass(frozen=True)
class RawTable:
    """The raw table of one family in one variant of iptables."""

    chains: dict[str, tuple[Line, ...]] = field(default_factory=dict)

    @property
    def has_ours(self) -> bool:
        return bool(self.own_chains() or self.jumps())

    def own_chains(self) -> Chains:
        """Our chains that there are."""
        return {name: [rule.words for rule in self.chains[name]] for name in _OUR_CHAINS if name in self.chains}

    def ours(self) -> tuple[Line, ...]:
        """The rules of our chains."""
        return tuple(rule for name in _OUR_CHAINS for rule in self.chains.get(name, ()))

    def said(self) -> tuple[str, ...]:
        """All that is ours, chains and jumps, without counters: two that are alike mean the same. `parse` reads it."""
        chains = (f":{name}" for name in self.own_chains())
        return (*chains, *map(str, self.ours()), *map(str, self.jumps()))

    def ordinary(self) -> list[Line]:
        """Those about packets whose timestamps nobody normalises."""
        rules = (rule for name in _ORDINARY_CHAINS for rule in self.chains.get(name, ()))
        return [rule for rule in rules if rule.target != CHAIN_FLOWS]

    def option(self, name: str, rules: Iterable[Line] | None = None) -> tuple[str, ...]:
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

    def normalising(self, hook: Hook) -> list[Line]:
        """The rules of ours that lead what this hook sees to the queue where timestamps are normalised."""
        return [rule for rule in self.chains.get(ENTRIES[hook], ()) if rule.target == CHAIN_FLOWS]

    def outgoing(self) -> list[Line]:
        """The rules of ours that send what leaves to the queue where it is completed."""
        return [rule for rule in self.chains.get(CHAIN_OUTPUT, ()) if rule.target == "NFQUEUE"]

    @property
    def outgoing_queue(self) -> int | None:
        """That queue; None if no rule of ours sends to one."""
        return next((int(number) for number in self.option("--queue-num", self.outgoing())), None)

    def queueing(self) -> list[Line]:
        """The rules of ours that send to the ordinary queue; all of them, unless only suspects are taken."""
        return [rule for rule in self.ordinary() if rule.target == "NFQUEUE"]

    def exempting(self) -> list[Line]:
        """The rules of ours that let pass what needs no look."""
        return [rule for rule in self.ours() if rule.target == "RETURN" and "--datestart" not in rule.words]

    def merged(self) -> list[Line]:
        """Those of them that let pass what is too long for a wire: the only ones that say why."""
        return [rule for rule in self.exempting() if "--comment" in rule.words]

    @property
    def scope(self) -> Scope:
        """Whether everything that our rules take is queued, or what is exempted passes."""
        return "suspects" if self.exempting() else "all"

    @property
    def is_on(self) -> bool:
        """Whether packets are led to our chain and from there to a queue."""
        return self.position() is not None and bool(self.queues)

    @property
    def until(self) -> datetime | None:
        """When our rules end by themselves; None: never."""
        ends = self.option("--datestart", self.chains.get(CHAIN, ()))
        return datetime.fromisoformat(ends[0]).replace(tzinfo=UTC) if ends else None

    def ports(self, rules: Iterable[Line]) -> tuple[str, ...]:
        """The ports these rules are limited to, which they are not as soon as one of them takes any port."""
        entering = [rule for rule in rules if rule.chain in ENTRIES.values() and rule.target != "RETURN"]
        limited = all("--dports" in rule.words for rule in entering)
        return self.option("--dports", entering) if limited else ()

    def interface(self, rules: Iterable[Line], option: Literal["-i", "-o"] = "-i") -> str | None:
        """The interface these rules are limited to. ("! -i lo" is in every rule for plain packets, and is no limit.)"""
        return next((name for name in self.option(option, rules) if name != "lo"), None)

    def __str__(self) -> str:
        """What our rules take and where it goes, for people."""
        ports = self.ports(self.ordinary())
        kinds = [_SHOWN.get(name, name.upper()) for name in self.option("-p")]
        parts = ["suspects among"] if self.scope == "suspects" else []
        parts.append(", ".join(kinds) + (f" to port {', '.join(ports)}" if ports else ""))
        if interface := self.interface(self.ordinary()):
            parts.append(f"on {interface}")
        if sources := self.option("-s"):
            parts.append(f"from {', '.join(sources)}")
        return f"{' '.join(parts)} to {shown_queues(self.queues)}"

    def hook(self, name: Hook = HOOK) -> tuple[Line, ...]:
        """The rules of the chain we jump from."""
        return self.chains.get(name, ())

    def jumps(self) -> list[Line]:
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


# What iptables-save writes: a comment stands in quotes, with whatever its author put there, other lines too; the name
# of an interface stands as it is, a quote in it as well.
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"(?=[ \n]|\Z)|[^ \n]+', re.DOTALL)
_LINE = re.compile(f"(?:{_WORD.pattern}| )+", re.DOTALL)


def parse(saved: str) -> RawTable:
    """The output of ``iptables-save -t raw``, with or without ``-c``; an empty one is an empty table."""
    chains: dict[str, list[Line]] = {}
    for line in _LINE.findall(saved):
        if line.startswith(":"):
            chains[line[1:].split()[0]] = []
        elif found := re.match(r"(?:\[(\d+):(\d+)\] )?-A (.*)", line, re.DOTALL):
            chain, *words = map(_unquoted, _WORD.findall(found[3]))
            chains.setdefault(chain, []).append(Line(chain, tuple(words), int(found[1] or 0), int(found[2] or 0)))
    return RawTable({name: tuple(rules) for name, rules in chains.items()})


def _unquoted(word: str) -> str:
    is_quoted = len(word) > 1 and word[0] == word[-1] == '"'
    return re.sub(r"\\(.)", r"\1", word[1:-1], flags=re.DOTALL) if is_quoted else word


def spelt(words: Iterable[str]) -> str:
    """The words of a rule as iptables-save writes them and iptables-restore reads them: it knows double quotes only."""
    return " ".join(
        word if re.fullmatch(r"[^\s\"'\\]+", word) else '"' + re.sub(r'(["\\])', r"\\\1", word) + '"' for word in words
    )


_SHOWN = {"ipv6-icmp": "ICMPv6"}
PROTOCOLS = {"ipv6-icmp": "icmpv6", "6": "tcp", "17": "udp", "1": "icmp", "58": "icmpv6"}
