"""Classic-BPF programs as ``iptables -m bpf --bytecode`` takes them: instructions, labels, and the text.

Every instruction is one that ``xt_bpf`` has known since it exists (Linux 3.9): 64 of them at most, no loops, byte order
of the wire, offset 0 at the IP header. A load beyond the end of the packet ends the program with "no match".
"""

from __future__ import annotations

from typing import NamedTuple

INSTRUCTIONS_MOST = 64
"""XT_BPF_MAX_NUM_INSTR, linux/netfilter/xt_bpf.h"""

TEXT_MOST = 1023
"""Characters of a word that iptables-restore before 1.8.3 takes ("Parameter too long!")."""

MATCH, MISS = "match", "miss"
"""Labels: where every program ends."""


class Instruction(NamedTuple):
    """One instruction of linux/filter.h. The jumps name a label, '' is the instruction behind."""

    code: int
    k: int = 0
    yes: str = ""
    no: str = ""


Line = Instruction | str  # a text is a label: of the instruction behind it


def size(program: list[Line]) -> int:
    """How many instructions a program has once it is assembled."""
    return sum(isinstance(line, Instruction) for line in program) + 2  # MATCH and MISS


def assemble(program: list[Line]) -> str:
    """A program as ``-m bpf --bytecode`` takes it: the number of instructions, then ``code jt jf k`` of each.

    Running off its end is MATCH, which answers 1 (match); MISS answers 0.
    """
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    for line in [*program, MATCH, Instruction(_RETURN, 1), MISS, Instruction(_RETURN, 0)]:
        if isinstance(line, str):
            labels[line] = len(instructions)
        else:
            instructions.append(line)
    if size(program) > INSTRUCTIONS_MOST:
        raise ValueError(f"{size(program)} instructions, xt_bpf takes {INSTRUCTIONS_MOST}")
    texts = [str(len(instructions))]
    for behind, (code, k, yes, no) in enumerate(instructions, 1):
        jt, jf = (labels[label] - behind if label else 0 for label in (yes, no))
        if code == _GO:  # the one jump whose distance is in k
            jt, k = 0, jt
        texts.append(f"{code} {jt} {jf} {k}")
    return ",".join(texts)


# The instructions that are needed, by what they do to the accumulator A, the index register X and the memory M.
_GO, _RETURN = 0x05, 0x06


def byte(at: int) -> Instruction:
    return Instruction(0x30, at)  # BPF_LD | BPF_B | BPF_ABS


def half(at: int) -> Instruction:
    return Instruction(0x28, at)  # BPF_LD | BPF_H | BPF_ABS


def word(at: int) -> Instruction:
    return Instruction(0x20, at)  # BPF_LD | BPF_W | BPF_ABS


def byte_behind(at: int) -> Instruction:
    return Instruction(0x50, at)  # BPF_LD | BPF_B | BPF_IND: X bytes further on


def half_behind(at: int) -> Instruction:
    return Instruction(0x48, at)  # BPF_LD | BPF_H | BPF_IND


def word_behind(at: int) -> Instruction:
    return Instruction(0x40, at)  # BPF_LD | BPF_W | BPF_IND


def to_x_constant(k: int) -> Instruction:
    return Instruction(0x01, k)  # BPF_LDX | BPF_IMM


def length() -> Instruction:
    return Instruction(0x80)  # BPF_LD | BPF_W | BPF_LEN: of the packet as the kernel has it, from its IP header


def keep() -> Instruction:
    return Instruction(0x02)  # BPF_ST: A to M[0]


def kept_to_x() -> Instruction:
    return Instruction(0x61)  # BPF_LDX | BPF_MEM: M[0] to X


def to_x() -> Instruction:
    return Instruction(0x07)  # BPF_MISC | BPF_TAX


def plus(k: int) -> Instruction:
    return Instruction(0x04, k)  # BPF_ALU | BPF_ADD | BPF_K


def plus_x() -> Instruction:
    return Instruction(0x0C)  # BPF_ALU | BPF_ADD | BPF_X


def less(k: int) -> Instruction:
    return Instruction(0x14, k)  # BPF_ALU | BPF_SUB | BPF_K


def modulo(k: int) -> Instruction:
    return Instruction(0x94, k)  # BPF_ALU | BPF_MOD | BPF_K


def exclusive_or(k: int) -> Instruction:
    return Instruction(0xA4, k)  # BPF_ALU | BPF_XOR | BPF_K


def go(label: str) -> Instruction:
    return Instruction(_GO, yes=label)  # BPF_JMP | BPF_JA


def equal(k: int, *, yes: str = "", no: str = "") -> Instruction:
    return Instruction(0x15, k, yes, no)  # BPF_JMP | BPF_JEQ | BPF_K


def greater(k: int, *, yes: str = "", no: str = "") -> Instruction:
    return Instruction(0x25, k, yes, no)  # BPF_JMP | BPF_JGT | BPF_K


def at_least(k: int, *, yes: str = "", no: str = "") -> Instruction:
    return Instruction(0x35, k, yes, no)  # BPF_JMP | BPF_JGE | BPF_K


def any_of(k: int, *, yes: str = "", no: str = "") -> Instruction:
    return Instruction(0x45, k, yes, no)  # BPF_JMP | BPF_JSET | BPF_K
