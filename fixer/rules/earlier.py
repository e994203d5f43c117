"""Who in nftables drops our packets before our table meets them.

A verdict of a base chain is for that chain alone: what another one accepts, or lets a program have a look at, comes to
ours all the same. Only what is dropped does not. So one packet for each of our ports is led through every base chain
that stands before ours, and what cannot be told of a rule ends its way: nobody is accused of what only may be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any, NamedTuple

from fixer.rules.installed import Ahead
from fixer.rules.selection import IPV6, Family

_MOST_RULES = 10_000
"""Looked at for one packet: chains may lead to each other in more ways than there are rules."""
_VERDICTS = {"drop", "reject", "accept", "return", "queue", "jump", "goto"}
_MAY_END = {"vmap", "tproxy", "synproxy", "fwd", "redirect", "dnat", "snat", "masquerade"}
"""What has a verdict of its own, or may have."""
_ASIDE = {"counter", "log", "mangle", "notrack"}
"""Behind which a packet goes on to the next part of the rule."""
_ANYWHERE = "*"
"""No name of an interface: any but loopback."""
_NUMBERS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58, "ipv6-icmp": 58}


class Packet(NamedTuple):
    """One of those that we want: UDP to ``port``, or (None) any of those that are plain."""

    family: Family
    port: int | None
    interface: str | None
    """Where it arrives; None: anywhere but on loopback."""


class Chain(NamedTuple):
    """A base chain of others that packets meet before ours."""

    family: str
    table: str
    name: str
    priority: int
    policy: str

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


class _Way(Enum):
    GOES_ON = "goes on"
    PASSED = "passed"
    UNKNOWN = "unknown"


class _End(NamedTuple):
    handle: int


def chains(said: Iterable[dict[str, Any]], family: Family, priority: int) -> list[Chain]:
    """Of the objects of ``nft -j list chains``: those before ``priority``, as a packet meets them."""
    found = [each["chain"] for each in said if each.get("chain", {}).get("hook") == "prerouting"]
    before = [
        Chain(each["family"], each["table"], each["name"], each["prio"], each.get("policy", "accept"))
        for each in found
        if each["family"] in ("inet", "ip6" if family is IPV6 else "ip") and each["prio"] < priority
    ]
    return sorted(before, key=lambda each: each.priority)


def drops(chain: Chain, table: Iterable[dict[str, Any]], packets: list[Packet]) -> Iterator[Ahead]:
    """What in ``chain`` drops some of the ``packets`` for certain. ``table``: what there is in its table."""
    rules: dict[str, list[dict[str, Any]]] = {}
    for each in table:
        if "rule" in each:
            rules.setdefault(each["rule"]["chain"], []).append(each["rule"])
    found: dict[str, list[Packet]] = {}
    for packet in packets:
        if end := _dropped_by(chain, rules, packet):
            found.setdefault(end, []).append(packet)
    for end, taken in found.items():
        ports = tuple(packet.port for packet in taken if packet.port is not None)
        yield Ahead(end, end, len(taken) == len(packets), chain=str(chain), ports=ports)


def _dropped_by(chain: Chain, rules: dict[str, list[dict[str, Any]]], packet: Packet) -> str | None:
    left = [_MOST_RULES]
    way = _walk(chain.name, rules, packet, left)
    if isinstance(way, _End):
        return f"handle {way.handle}"
    if way is _Way.GOES_ON and chain.policy == "drop":
        return "policy drop"
    return None


def _walk(name: str, rules: dict[str, list[dict[str, Any]]], packet: Packet, left: list[int]) -> _End | _Way:
    """What becomes of the packet in one chain: it GOES_ON behind its last rule, or has PASSED the whole base chain."""
    for rule in rules.get(name, ()):
        left[0] -= 1
        if left[0] < 0:
            return _Way.UNKNOWN
        verdict, target, certain = _verdict(rule["expr"], packet)
        if verdict is None or certain is False:
            continue
        if certain is None:
            if verdict in ("drop", "reject"):
                continue  # whom it is not for goes on
            return _Way.UNKNOWN
        if verdict in ("drop", "reject"):
            return _End(rule["handle"])
        if verdict == "return":
            return _Way.GOES_ON
        if verdict not in ("jump", "goto"):
            return _Way.PASSED if verdict in ("accept", "queue") else _Way.UNKNOWN
        way = _walk(target, rules, packet, left)
        if way is not _Way.GOES_ON or verdict == "goto":
            return way
    return _Way.GOES_ON


def _verdict(parts: list[dict[str, Any]], packet: Packet) -> tuple[str | None, str, bool | None]:
    """The verdict of a rule (None: it has none), and whether it is for the packet; None: that cannot be told."""
    certain: bool | None = True
    for part in parts:
        (kind, what), *_ = part.items()
        if kind == "match":
            met = _meets(what, packet)
            if met is False:
                return None, "", False
            certain = certain and met
        elif kind in _VERDICTS:
            return kind, what["target"] if kind in ("jump", "goto") else "", certain
        elif kind in _MAY_END or (kind == "xt" and not _goes_on(what)):
            return kind, "", None
        elif kind not in _ASIDE:
            certain = None  # a limit, or what this version has never heard of
    return None, "", certain


def _goes_on(extension: dict[str, str] | None) -> bool:
    """Of iptables: a match, or a target behind which a packet goes on."""
    found = extension or {}
    return found.get("type") == "match" or found.get("name") in ("CT", "LOG", "NFLOG", "MARK", "TRACE")


def _meets(match: dict[str, Any], packet: Packet) -> bool | None:
    """Whether the packet meets a condition; None: that cannot be told."""
    left, right, op = match["left"], match["right"], match["op"]
    if not isinstance(left, dict):
        return None
    (kind, what), *_ = left.items()
    if kind == "payload" and what.get("protocol") == ("ip" if packet.family is IPV6 else "ip6"):
        return False
    value = _value(kind, what, packet)
    if value is None or op not in ("==", "!="):
        return None
    held = _holds(right, value)
    return held if held is None or op == "==" else not held


def _value(kind: str, what: Any, packet: Packet) -> int | str | None:
    """What stands there in the packet; None: that cannot be told."""
    if kind == "payload":
        where = (what.get("protocol"), what.get("field"))
        if where in (("udp", "dport"), ("th", "dport")):
            return packet.port
        return _udp(packet) if where == ("ip", "protocol") else None
    key = what.get("key") if kind == "meta" else None
    if key in ("iifname", "iif"):
        return packet.interface if packet.interface and "+" not in packet.interface else _ANYWHERE
    if key == "nfproto":
        return packet.family.key
    return _udp(packet) if key == "l4proto" else None


def _udp(packet: Packet) -> int | None:
    return None if packet.port is None else _NUMBERS["udp"]


def _holds(right: Any, value: int | str) -> bool | None:
    """Whether a value, a set or a range holds it; None: that cannot be told."""
    if isinstance(right, dict):
        if "set" in right and isinstance(right["set"], list):
            held = [_holds(each, value) for each in right["set"]]
            return True if True in held else None if None in held else False
        if "range" in right and isinstance(value, int):
            first, last = right["range"]
            return first <= value <= last if isinstance(first, int) and isinstance(last, int) else None
        return None
    if isinstance(value, int):
        right = _NUMBERS.get(right) if isinstance(right, str) else right
        return right == value if isinstance(right, int) else None
    if not isinstance(right, str) or right.startswith("@"):
        return None
    if value == _ANYWHERE:
        return False if right == "lo" else None
    return right == value if "*" not in right else None
