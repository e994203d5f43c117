"""Who in the raw table decides about a packet before we do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_network
from itertools import pairwise
from typing import NamedTuple

from fixer.rules.installed import Ahead
from fixer.rules.rawtable import HOOK, PROTOCOLS, Hook, Line, RawTable

Addresses = frozenset[IPv4Address | IPv6Address]

# A packet that meets one of these does not come back to the chain. LOG, MARK, CT and their like let it go on.
_ENDS = {"ACCEPT", "DROP", "REJECT", "QUEUE", "NFQUEUE"}


class Traffic(NamedTuple):
    """The packets we want to see, as far as it takes to tell whether another rule concerns them."""

    protocols: frozenset[str]
    ports: frozenset[int] | None = None  # None: any port
    interface: str | None = None
    local: Addresses | None = None
    """This host's own addresses; None if they are not known, or say nothing."""


class Match(Enum):
    """How much of our traffic a rule matches, as far as its words tell."""

    NONE = "none"
    SOME = "some"
    ALL = "all"


class End(NamedTuple):
    """A rule before our jump that ends the walk: ``entry`` stands in the hook's chain and is, or leads to, ``line``."""

    entry: Line
    line: Line
    match: Match


def traffic(table: RawTable, hook: Hook = HOOK, local: Addresses | None = None) -> Traffic:
    """What our rules take of what this hook sees. ``local``: this host's addresses, where VXLAN ends."""
    lines = table.ordinary() if hook == HOOK else [*table.normalising(hook), *table.outgoing()]
    ports = table.ports(lines)
    # Others than single ones are none that we write: somebody else has, and any port may be among them.
    limited = frozenset(map(int, ports)) if ports and all(map(str.isdecimal, ports)) else None
    return Traffic(
        frozenset(PROTOCOLS.get(name, name) for name in table.option("-p", lines)),
        limited,
        table.interface(lines, "-i" if hook == HOOK else "-o"),
        local if hook == HOOK else None,
    )


def ends(table: RawTable, ours: Traffic, hook: Hook = HOOK) -> Iterator[End]:
    """The rules before our jump that end the walk for some of our packets, first the first met."""
    lines = table.hook(hook)
    position = table.position(hook) or len(lines) + 1
    for entry in lines[: position - 1]:
        matched, end = _end(table, entry, ours, frozenset())
        if end is not None:
            yield End(entry, end, matched)


def told(ends: Iterable[End]) -> tuple[Ahead, ...]:
    """The same, those that differ in an address or an interface alone as one."""
    found: dict[tuple[object, ...], Ahead] = {}
    for each in ends:
        key = (each.match, *map(_kind, (each.entry, each.line)))
        first = found.get(key, Ahead(str(each.entry), str(each.line), each.match is Match.ALL, 0))
        found[key] = first._replace(alike=first.alike + 1)
    return tuple(found.values())


def _kind(line: Line) -> tuple[str, ...]:
    named = ("", *line.words)
    return (line.chain, *("" if before in ("-s", "-d", "-i") else word for before, word in pairwise(named)))


def _end(table: RawTable, line: Line, ours: Traffic, seen: frozenset[str]) -> tuple[Match, Line | None]:
    """Whether ``line`` ends the walk (for how much of the traffic), or which rule in the chain it leads to does."""
    matched = match(line, ours)
    in_hook = not seen
    if matched is Match.NONE or line.target in seen:
        return Match.NONE, None
    if line.target in _ENDS or (in_hook and (line.target == "RETURN" or line.is_goto)):
        return matched, line
    for inner in table.chains.get(line.target, ()):
        inner_match = match(inner, ours)
        if inner.target == "RETURN" and inner_match is Match.ALL:
            break
        found, end = _end(table, inner, ours, seen | {line.chain, line.target})
        if end is not None:
            return (Match.ALL if matched is found is Match.ALL else Match.SOME), end
    return Match.NONE, None


def match(line: Line, traffic: Traffic) -> Match:
    """How much of ``traffic`` a rule matches. What is not understood is taken to match some: never all, never none."""
    result = Match.ALL
    words = iter(line.words)
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
            one = _overlap(traffic.protocols, {PROTOCOLS.get(value := next(words, ""), value)}, negated)
        elif word in ("--dport", "--dports"):
            wanted = next(words, "")
            if traffic.ports is None or len(traffic.protocols) > 1:
                one = Match.SOME
            else:
                one = _overlap(traffic.ports, {port for port in traffic.ports if _holds(wanted, port)}, negated)
        elif word == "-d" and not negated:
            one = _destination(next(words, ""), traffic, line.target)
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


def _destination(theirs: str, traffic: Traffic, target: str) -> Match:
    """Docker closes each container's address to the outside. VXLAN that ends here is for none of them; and what is
    closed is closed: of plain packets, who lets those of a container pass is more in our way."""
    try:
        network = ip_network(theirs)
    except ValueError:  # a mask with holes
        return Match.SOME
    if traffic.local is None or network.num_addresses > 1 or network.is_multicast:
        return Match.SOME
    is_local = network.network_address in traffic.local
    return Match.NONE if not is_local and (traffic.ports or target == "DROP") else Match.SOME


def _interface(theirs: str, ours: str | None, negated: bool) -> Match:
    if theirs == "lo":  # what we want comes from elsewhere
        return Match.ALL if negated else Match.NONE
    if ours is None or theirs.endswith("+") or ours.endswith("+"):
        return Match.SOME
    return Match.ALL if (theirs == ours) is not negated else Match.NONE
