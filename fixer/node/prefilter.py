"""Which packets need no look: classic-BPF programs for ``iptables -m bpf`` that tell it from the headers alone.

``fixer on --scope suspects`` lets the packets pass that these programs match, and queues all others. So a packet whose
headers a program does not follow (options, extension headers, a second VLAN tag) is queued, and so is one that ends too
early: a load beyond the end of the packet ends the program with "no match".

What is promised: a packet that is let pass is none that the datapath would repair by what stands in it, which is a
checksum field that holds its pseudo-header's sum (RFC 1071; CHECKSUM_PARTIAL that nobody finished) or an outer field of
``ffff``. A payload cannot be summed here, so a wrong checksum of any other kind is not seen.

Every instruction is one that ``xt_bpf`` has known since it exists (Linux 3.9): 64 of them at most, no loops, byte order
of the wire, offset 0 at the IP header.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Version = Literal[4, 6]

INSTRUCTIONS_MOST = 64
"""XT_BPF_MAX_NUM_INSTR, linux/netfilter/xt_bpf.h"""

_TCP, _UDP, _ICMP6 = 6, 17, 58
_IP_HEADER = {4: 20, 6: 40}
_ETHERTYPE = {4: 0x0800, 6: 0x86DD}
_SYN = 0x02
_TAGS = (0x8100, 0x88A8)  # 802.1Q, 802.1ad
_UDP_AND_VXLAN, _ETHERNET, _TAG = 16, 14, 4

_PASS, _LOOK = "pass", "look"  # where every program ends


class Exemption(NamedTuple):
    """Packets that need no look: those that all ``programs`` match. ``why`` is a comment for the rule, '' for none.

    A comment is a match like any other and costs a packet about 35 ns, so what most packets meet has none.
    """

    programs: tuple[str, ...]
    why: str = ""


class Instruction(NamedTuple):
    """One instruction of linux/filter.h. The jumps name a label, '' is the instruction behind."""

    code: int
    k: int = 0
    yes: str = ""
    no: str = ""


Line = Instruction | str  # a text is a label: of the instruction behind it


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


def longest_looked_at(program: str) -> int | None:
    """The length in bytes above which a program of ours takes a packet for merged; None if it is another program."""
    found = re.fullmatch(r"4,128 0 0 0,37 0 1 (\d+),6 0 0 1,6 0 0 0", program)
    return int(found[1]) if found else None


def queues_syns(program: str) -> bool:
    """Whether a program of ours exempts no SYN; no other question of ours asks for that bit alone."""
    return re.search(rf",69 \d+ \d+ {_SYN}(,|$)", program) is not None  # 69: see _any_of


def _merged(longest: int) -> Exemption:
    """What GRO has merged: CHECKSUM_PARTIAL again though nothing is wrong with it, but longer than the wire allows."""
    program: list[Line] = [_length(), _greater(longest, no=_LOOK)]
    return Exemption((assemble(program),), f"longer than {longest} bytes: merged by GRO")


def _programs(underlay: Version, frame: int, inside: Version, *, tagged: bool, syns: bool) -> tuple[str, ...]:
    """Both layers are finished: as one program if it fits, since each program is an indirect call more; else as two."""
    outer = _underlay(underlay)
    both = [*_ethernet(frame, inside, tagged, syns, "underlay"), "underlay", *outer]
    if _size(both) <= INSTRUCTIONS_MOST:
        return (assemble(both),)
    return assemble(_ethernet(frame, inside, tagged, syns, _PASS)), assemble(outer)


def _ethernet(frame: int, version: Version, tagged: bool, syns: bool, then: str) -> list[Line]:
    """A frame at offset ``frame`` that carries IPv4 or IPv6, behind one VLAN tag or none, and is finished."""
    behind = frame + _ETHERNET + _TAG * tagged
    tag: list[Line] = []
    if tagged:
        tag = [_half(behind - 6), _equal(_TAGS[0], yes="tagged"), _equal(_TAGS[1], no=_LOOK), "tagged"]
    return [*tag, _half(behind - 2), _equal(_ETHERTYPE[version], no=_LOOK), *_finished(version, behind, syns, then)]


def _finished(version: Version, ip: int, syns: bool, then: str) -> list[Line]:
    """The IP packet at offset ``ip`` has no transport checksum that is its pseudo-header's sum: on to ``then``."""
    transport = ip + _IP_HEADER[version]
    icmp6: list[Line] = []
    if version == 4:
        program: list[Line] = [_byte(ip), _equal(0x45, no=_LOOK)]  # no options
        program += [_half(ip + 6), _any_of(0x3FFF, yes=then)]  # a fragment's checksum spans packets: never repaired
        program += _keep_length(ip + 2, 20)
        # ICMP has no pseudo-header; what other protocols have, we do not repair.
        program += [_byte(ip + 9), _equal(_TCP, yes="tcp"), _equal(_UDP, yes="udp", no=then)]
    else:
        program = _keep_length(ip + 4)
        # What is none of the three may be an extension header.
        program += [_byte(ip + 6), _equal(_TCP, yes="tcp"), _equal(_UDP, yes="udp"), _equal(_ICMP6, no=_LOOK)]
        icmp6 = [*_begin(version, _ICMP6, transport + 2), _go("sum")]
    syn: list[Line] = [_byte(transport + 13), _any_of(_SYN, yes=_LOOK)] if syns else []
    tcp: list[Line] = ["tcp", *syn, *_begin(version, _TCP, transport + 16), _go("sum")]
    udp: list[Line] = ["udp", _half(transport + 6), _equal(0, yes=then)]  # it has none
    udp += [*_keep_length(transport + 4), *_begin(version, _UDP, transport + 6)]
    return [*program, *icmp6, *tcp, *udp, "sum", *_compare(version, ip, then)]


def _underlay(version: Version) -> list[Line]:
    """The UDP header of the underlay: its checksum is not its pseudo-header's sum, nor ``ffff``.

    That is what nf_nat made of a zero before ea64d8d6c675 (5.7): a stale one that is told by its looks.
    """
    transport = _IP_HEADER[version]
    plain_header = [_byte(0), _equal(0x45, no=_LOOK)] if version == 4 else [_byte(6), _equal(_UDP, no=_LOOK)]
    field = [_half(transport + 6), _equal(0, yes=_PASS), _equal(0xFFFF, yes=_LOOK)]
    length = _keep_length(transport + 4)
    return [*plain_header, *field, *length, *_begin(version, _UDP, transport + 6), *_compare(version, 0, _PASS)]


def _keep_length(at: int, header: int = 0) -> list[Line]:
    """M[0] = the length in the pseudo-header, less ``header``. If it is 0 (BIG TCP) it stands elsewhere: look."""
    return [_half(at), _equal(0, yes=_LOOK), *([_less(header)] if header else []), _keep()]


def _begin(version: Version, protocol: int, field: int) -> list[Line]:
    """A = protocol - field, modulo ffff and not negative, with room for the carries that `_compare` loses."""
    return [_half(field), _exclusive_or(0xFFFF), _plus(protocol + len(_addresses(version, 0)))]


def _compare(version: Version, ip: int, then: str) -> list[Line]:
    """A from `_begin`, M[0] = the length: look if the field is the pseudo-header's sum, with that or (TSO) with 0.

    Modulo ffff a 32-bit word is the ones'-complement sum of its halves, since 10000 is 1 there (RFC 1071 §1). So is
    10000 0000, which is what each carry out of 32 bits loses. n words of addresses lose at most n, the rest is small:
    with n added on top, sum - field comes out as one of 0…n if they are equal, and hardly ever if not.
    """
    words = _addresses(version, ip)
    n = len(words)
    program: list[Line] = []
    for word in words:
        program += [_to_x(), _word(word), _plus_x()]
    program += [_modulo(0xFFFF), _greater(n, no=_LOOK)]
    # What is left is 0…fffe, the length 0…ffff: together they are congruent to 0…n only as ffff…ffff + n.
    return [*program, _kept_to_x(), _plus_x(), _less(0xFFFF), _greater(n, yes=then, no=_LOOK)]


def _addresses(version: Version, ip: int) -> range:
    """The offsets of the 32-bit words of both addresses."""
    return range(ip + 12, ip + 20, 4) if version == 4 else range(ip + 8, ip + 40, 4)


def _size(program: list[Line]) -> int:
    return sum(isinstance(line, Instruction) for line in program) + 2  # _PASS and _LOOK


def assemble(program: list[Line]) -> str:
    """A program as ``-m bpf --bytecode`` takes it: the number of instructions, then ``code jt jf k`` of each.

    Running off its end is _PASS, which answers 1 (match); _LOOK answers 0.
    """
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    for line in [*program, _PASS, Instruction(_RETURN, 1), _LOOK, Instruction(_RETURN, 0)]:
        if isinstance(line, str):
            labels[line] = len(instructions)
        else:
            instructions.append(line)
    if _size(program) > INSTRUCTIONS_MOST:
        raise ValueError(f"{_size(program)} instructions, xt_bpf takes {INSTRUCTIONS_MOST}")
    texts = [str(len(instructions))]
    for behind, (code, k, yes, no) in enumerate(instructions, 1):
        jt, jf = (labels[label] - behind if label else 0 for label in (yes, no))
        if code == _GO:  # the one jump whose distance is in k
            jt, k = 0, jt
        texts.append(f"{code} {jt} {jf} {k}")
    return ",".join(texts)


# The instructions that are needed, by what they do to the accumulator A, the index register X and the memory M.
_GO, _RETURN = 0x05, 0x06


def _byte(at: int) -> Instruction:
    return Instruction(0x30, at)  # BPF_LD | BPF_B | BPF_ABS


def _half(at: int) -> Instruction:
    return Instruction(0x28, at)  # BPF_LD | BPF_H | BPF_ABS


def _word(at: int) -> Instruction:
    return Instruction(0x20, at)  # BPF_LD | BPF_W | BPF_ABS


def _length() -> Instruction:
    return Instruction(0x80)  # BPF_LD | BPF_W | BPF_LEN: of the packet as the kernel has it, from its IP header


def _keep() -> Instruction:
    return Instruction(0x02)  # BPF_ST: A to M[0]


def _kept_to_x() -> Instruction:
    return Instruction(0x61)  # BPF_LDX | BPF_MEM: M[0] to X


def _to_x() -> Instruction:
    return Instruction(0x07)  # BPF_MISC | BPF_TAX


def _plus(k: int) -> Instruction:
    return Instruction(0x04, k)  # BPF_ALU | BPF_ADD | BPF_K


def _plus_x() -> Instruction:
    return Instruction(0x0C)  # BPF_ALU | BPF_ADD | BPF_X


def _less(k: int) -> Instruction:
    return Instruction(0x14, k)  # BPF_ALU | BPF_SUB | BPF_K


def _modulo(k: int) -> Instruction:
    return Instruction(0x94, k)  # BPF_ALU | BPF_MOD | BPF_K


def _exclusive_or(k: int) -> Instruction:
    return Instruction(0xA4, k)  # BPF_ALU | BPF_XOR | BPF_K


def _go(label: str) -> Instruction:
    return Instruction(_GO, yes=label)  # BPF_JMP | BPF_JA


def _equal(k: int, *, yes: str = "", no: str = "") -> Instruction:
    return Instruction(0x15, k, yes, no)  # BPF_JMP | BPF_JEQ | BPF_K


def _greater(k: int, *, yes: str = "", no: str = "") -> Instruction:
    return Instruction(0x25, k, yes, no)  # BPF_JMP | BPF_JGT | BPF_K


def _any_of(k: int, *, yes: str = "", no: str = "") -> Instruction:
    return Instruction(0x45, k, yes, no)  # BPF_JMP | BPF_JSET | BPF_K
