"""Which packets are TCP from configured sources, or to them: classic-BPF programs for ``iptables -m bpf``.

``fixer on`` leads what these programs match to the queue where timestamps are normalised. Unlike those of
:mod:`fixer.rules.suspects` they look for what they want: what they do not follow stays on the ordinary queue.

They follow UDP right behind an IPv4 header of 20 or an IPv6 header of 40 bytes, VXLAN, Ethernet with one VLAN tag or
none, and IP: IPv4 with or without options, its fragments too; IPv6 that carries TCP or begins with one of the common
extension headers, whatever is behind that. With a routing header, it is the address in the IP header that counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses

from fixer.rules.bytecode import (
    INSTRUCTIONS_MOST,
    MATCH,
    MISS,
    TEXT_MOST,
    Line,
    assemble,
    at_least,
    byte,
    byte_behind,
    equal,
    go,
    greater,
    half,
    half_behind,
    size,
    to_x_constant,
    word_behind,
)
from fixer.rules.selection import Network
from fixer.rules.suspects import Version

_TCP, _UDP = 6, 17
_EXTENSIONS = (0, 43, 60, 44)  # hop-by-hop, routing, destination options, fragment (RFC 8200 §4)
_IP4, _IP6 = 0x0800, 0x86DD
_TAGS = (0x8100, 0x88A8)  # 802.1Q, 802.1ad
_UNDERLAY = {4: 20, 6: 40}
_UDP_AND_VXLAN, _ETHERTYPE, _ETHERNET, _TAG = 16, 12, 14, 4


def collapsed(networks: Sequence[Network]) -> list[Network]:
    """The same addresses in as few networks as can be, in order, IPv4 before IPv6."""
    four = collapse_addresses(each for each in networks if isinstance(each, IPv4Network))
    six = collapse_addresses(each for each in networks if isinstance(each, IPv6Network))
    return [*four, *six]


def tunnelled(underlay: Version, networks: Sequence[Network], back: bool = False) -> list[str]:
    """Programs of which one matches a packet to a VXLAN port if its inner TCP is from one of ``networks``.

    With ``back``, if it is to one of them. As few programs as can be: all other traffic meets each of them.
    """
    left = collapsed(networks)
    found: list[str] = []
    while left:
        fitting = ((count, _fitting(underlay, left[:count], back)) for count in range(len(left), 0, -1))
        count, program = next((count, program) for count, program in fitting if program)
        found.append(program)
        del left[:count]
    return found


def _fitting(underlay: Version, networks: Sequence[Network], back: bool) -> str | None:
    """One program for all these networks, or None if it would be too long."""
    program = _program(underlay, networks, back)
    if size(program) > INSTRUCTIONS_MOST:
        return None
    text = assemble(program)
    return text if len(text) <= TEXT_MOST else None


def _program(underlay: Version, networks: Sequence[Network], back: bool) -> list[Line]:
    four = [each for each in networks if isinstance(each, IPv4Network)]
    six = [each for each in networks if isinstance(each, IPv6Network)]
    kind = _UNDERLAY[underlay] + _UDP_AND_VXLAN + _ETHERTYPE
    ip = _UNDERLAY[underlay] + _UDP_AND_VXLAN + _ETHERNET
    plain_header = [byte(0), equal(0x45, no=MISS)] if underlay == 4 else [byte(6), equal(_UDP, no=MISS)]
    program: list[Line] = [*plain_header, to_x_constant(0), half(kind)]  # X: the bytes of the tag
    program += [equal(_TAGS[0], yes="tagged"), equal(_TAGS[1], no="kind")]
    program += ["tagged", to_x_constant(_TAG), half_behind(kind), "kind"]
    if not six:
        return [*program, equal(_IP4, no=MISS), *_ip4(four, ip, back)]
    if not four:
        return [*program, equal(_IP6, no=MISS), *_ip6(six, ip, back)]
    program += [equal(_IP6, yes="IPv6"), equal(_IP4, no=MISS)]
    return [*program, *_ip4(four, ip, back), "IPv6", *_ip6(six, ip, back)]


def _ip4(networks: Sequence[IPv4Network], ip: int, back: bool) -> list[Line]:
    """The IPv4 packet at ``ip`` + X; the networks are disjoint and in order."""
    program: list[Line] = [byte_behind(ip + 9), equal(_TCP, no=MISS), word_behind(ip + (16 if back else 12))]
    for each in networks:
        program += _within(int(each.network_address), int(each.broadcast_address), MISS)
    return [*program, go(MISS)]


def _ip6(networks: Sequence[IPv6Network], ip: int, back: bool) -> list[Line]:
    """The IPv6 packet at ``ip`` + X."""
    program: list[Line] = [byte_behind(ip + 6), equal(_TCP, yes="TCP")]
    *others, last = _EXTENSIONS
    program += [*(equal(each, yes="TCP") for each in others), equal(last, no=MISS), "TCP"]
    address = ip + (24 if back else 8)
    for each in networks:
        beyond = f"beyond {each}"
        first, last_one = each.network_address.packed, each.broadcast_address.packed
        if each.prefixlen == 0:
            program.append(go(MATCH))
        for at in range(0, (each.prefixlen + 31) // 32 * 4, 4):
            low, high = (int.from_bytes(end[at : at + 4], "big") for end in (first, last_one))
            program.append(word_behind(address + at))
            if at + 4 < (each.prefixlen + 31) // 32 * 4:
                program.append(equal(low, no=beyond))
            else:
                program += _within(low, high, beyond)
        program.append(beyond)
    return [*program, go(MISS)]


def _within(first: int, last: int, below: str) -> list[Line]:
    """MATCH if A is ``first`` … ``last``, on to ``below`` if it is less, to the instruction behind if it is more."""
    if first == last:
        return [equal(first, yes=MATCH)]
    return [at_least(first, no=below), greater(last, no=MATCH)]
