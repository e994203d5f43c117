"""Which packets need no look: classic-BPF programs for ``iptables -m bpf`` that tell it from the headers alone.

``fixer on --scope suspects`` lets the packets pass that these programs match, and queues all others. So a packet whose
headers a program does not follow (options, extension headers, a second VLAN tag) is queued, and so is one that ends too
early: a load beyond the end of the packet ends the program with "no match".

What is promised: a packet that is let pass is none that the datapath would repair by what stands in it, which is a
checksum field that holds its pseudo-header's sum (RFC 1071; CHECKSUM_PARTIAL that nobody finished) or an outer field of
``ffff``. A payload cannot be summed here, so a wrong checksum of any other kind is not seen.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from fixer.rules.bytecode import (
    INSTRUCTIONS_MOST,
    MATCH,
    MISS,
    Line,
    any_of,
    assemble,
    byte,
    equal,
    exclusive_or,
    go,
    greater,
    half,
    keep,
    kept_to_x,
    length,
    less,
    modulo,
    plus,
    plus_x,
    size,
    to_x,
    word,
)

Version = Literal[4, 6]

_TCP, _UDP, _ICMP6 = 6, 17, 58
_IP_HEADER = {4: 20, 6: 40}
_ETHERTYPE = {4: 0x0800, 6: 0x86DD}
_SYN = 0x02
_TAGS = (0x8100, 0x88A8)  # 802.1Q, 802.1ad
_UDP_AND_VXLAN, _ETHERNET, _TAG = 16, 14, 4

_PASS, _LOOK = MATCH, MISS  # what matches passes


class Exemption(NamedTuple):
    """Packets that need no look: those that all ``programs`` match. ``why`` is a comment for the rule, '' for none.

    A comment is a match like any other and costs a packet about 35 ns, so what most packets meet has none.
    """

    programs: tuple[str, ...]
    why: str = ""


def tunnelled(underlay: Version, longest: int, syns: bool = False) -> list[Exemption]:
    """The exemptions of UDP to a VXLAN port; the underlay is IPv4 or IPv6, its longest packet has ``longest`` bytes.

    With ``syns`` no SYN is exempted, for who handles timestamps. Nor is ARP or whatever else is no IP, though its inner
    layer is never repaired: there is little of it. The most frequent ones come first.
    """
    frame = _IP_HEADER[underlay] + _UDP_AND_VXLAN
    return [
        Exemption(_programs(underlay, frame, 4, tagged=False, syns=syns)),
        Exemption(_programs(underlay, frame, 6, tagged=False, syns=syns)),
        _merged(longest),
        Exemption(_programs(underlay, frame, 4, tagged=True, syns=syns)),
        Exemption(_programs(underlay, frame, 6, tagged=True, syns=syns)),
    ]


def plain(version: Version, longest: int, syns: bool = False) -> list[Exemption]:
    """The exemptions of packets without a tunnel, as in `tunnelled`."""
    return [Exemption((assemble(_finished(version, 0, syns, _PASS)),)), _merged(longest)]


def _merged(longest: int) -> Exemption:
    """What GRO has merged: CHECKSUM_PARTIAL again though nothing is wrong with it, but longer than the wire allows."""
    program: list[Line] = [length(), greater(longest, no=_LOOK)]
    return Exemption((assemble(program),), f"longer than {longest} bytes: merged by GRO")


def _programs(underlay: Version, frame: int, inside: Version, *, tagged: bool, syns: bool) -> tuple[str, ...]:
    """Both layers are finished: as one program if it fits, since each program is an indirect call more; else as two."""
    outer = _underlay(underlay)
    both = [*_ethernet(frame, inside, tagged, syns, "underlay"), "underlay", *outer]
    if size(both) <= INSTRUCTIONS_MOST:
        return (assemble(both),)
    return assemble(_ethernet(frame, inside, tagged, syns, _PASS)), assemble(outer)


def _ethernet(frame: int, version: Version, tagged: bool, syns: bool, then: str) -> list[Line]:
    """A frame at offset ``frame`` that carries IPv4 or IPv6, behind one VLAN tag or none, and is finished."""
    behind = frame + _ETHERNET + _TAG * tagged
    tag: list[Line] = []
    if tagged:
        tag = [half(behind - 6), equal(_TAGS[0], yes="tagged"), equal(_TAGS[1], no=_LOOK), "tagged"]
    return [*tag, half(behind - 2), equal(_ETHERTYPE[version], no=_LOOK), *_finished(version, behind, syns, then)]


def _finished(version: Version, ip: int, syns: bool, then: str) -> list[Line]:
    """The IP packet at offset ``ip`` has no transport checksum that is its pseudo-header's sum: on to ``then``."""
    transport = ip + _IP_HEADER[version]
    icmp6: list[Line] = []
    if version == 4:
        program: list[Line] = [byte(ip), equal(0x45, no=_LOOK)]  # no options
        program += [half(ip + 6), any_of(0x3FFF, yes=then)]  # a fragment's checksum spans packets: never repaired
        program += _keep_length(ip + 2, 20)
        # ICMP has no pseudo-header; what other protocols have, we do not repair.
        program += [byte(ip + 9), equal(_TCP, yes="tcp"), equal(_UDP, yes="udp", no=then)]
    else:
        program = _keep_length(ip + 4)
        # What is none of the three may be an extension header.
        program += [byte(ip + 6), equal(_TCP, yes="tcp"), equal(_UDP, yes="udp"), equal(_ICMP6, no=_LOOK)]
        icmp6 = [*_begin(version, _ICMP6, transport + 2), go("sum")]
    syn: list[Line] = [byte(transport + 13), any_of(_SYN, yes=_LOOK)] if syns else []
    tcp: list[Line] = ["tcp", *syn, *_begin(version, _TCP, transport + 16), go("sum")]
    udp: list[Line] = ["udp", half(transport + 6), equal(0, yes=then)]  # it has none
    udp += [*_keep_length(transport + 4), *_begin(version, _UDP, transport + 6)]
    return [*program, *icmp6, *tcp, *udp, "sum", *_compare(version, ip, then)]


def _underlay(version: Version) -> list[Line]:
    """The UDP header of the underlay: its checksum is not its pseudo-header's sum, nor ``ffff``.

    That is what nf_nat made of a zero before ea64d8d6c675 (5.7): a stale one that is told by its looks.
    """
    transport = _IP_HEADER[version]
    plain_header = [byte(0), equal(0x45, no=_LOOK)] if version == 4 else [byte(6), equal(_UDP, no=_LOOK)]
    field = [half(transport + 6), equal(0, yes=_PASS), equal(0xFFFF, yes=_LOOK)]
    kept = _keep_length(transport + 4)
    return [*plain_header, *field, *kept, *_begin(version, _UDP, transport + 6), *_compare(version, 0, _PASS)]


def _keep_length(at: int, header: int = 0) -> list[Line]:
    """M[0] = the length in the pseudo-header, less ``header``. If it is 0 (BIG TCP) it stands elsewhere: look."""
    return [half(at), equal(0, yes=_LOOK), *([less(header)] if header else []), keep()]


def _begin(version: Version, protocol: int, field: int) -> list[Line]:
    """A = protocol - field, modulo ffff and not negative, with room for the carries that `_compare` loses."""
    return [half(field), exclusive_or(0xFFFF), plus(protocol + len(_addresses(version, 0)))]


def _compare(version: Version, ip: int, then: str) -> list[Line]:
    """A from `_begin`, M[0] = the length: look if the field is the pseudo-header's sum, with that or (TSO) with 0.

    Modulo ffff a 32-bit word is the ones'-complement sum of its halves, since 10000 is 1 there (RFC 1071 §1). So is
    10000 0000, which is what each carry out of 32 bits loses. n words of addresses lose at most n, the rest is small:
    with n added on top, sum - field comes out as one of 0…n if they are equal, and hardly ever if not.
    """
    words = _addresses(version, ip)
    n = len(words)
    program: list[Line] = []
    for at in words:
        program += [to_x(), word(at), plus_x()]
    program += [modulo(0xFFFF), greater(n, no=_LOOK)]
    # What is left is 0…fffe, the length 0…ffff: together they are congruent to 0…n only as ffff…ffff + n.
    return [*program, kept_to_x(), plus_x(), less(0xFFFF), greater(n, yes=then, no=_LOOK)]


def _addresses(version: Version, ip: int) -> range:
    """The offsets of the 32-bit words of both addresses."""
    return range(ip + 12, ip + 20, 4) if version == 4 else range(ip + 8, ip + 40, 4)
