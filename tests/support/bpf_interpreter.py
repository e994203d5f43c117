"""Classic BPF, slow and exact: what ``-m bpf`` does with a packet, after linux/filter.h and McCanne & Jacobson (1993).

Only the instructions that :mod:`fixer.rules.bytecode` has; any other one is an error, as is everything for which
the kernel refuses a program.
"""

from __future__ import annotations

from functools import cache

WORD = 0xFFFF_FFFF
SIZES = {0x20: 4, 0x28: 2, 0x30: 1}
SIZES_BEHIND = {0x40: 4, 0x48: 2, 0x50: 1}
CALCULATE = {
    0x04: lambda a, k: a + k,
    0x14: lambda a, k: a - k,
    0x94: lambda a, k: a % k,
    0xA4: lambda a, k: a ^ k,
}
COMPARE = {
    0x15: lambda a, k: a == k,
    0x25: lambda a, k: a > k,
    0x35: lambda a, k: a >= k,
    0x45: lambda a, k: a & k != 0,
}


@cache  # a program meets thousands of packets
def parse(bytecode: str) -> list[tuple[int, int, int, int]]:
    """``4,128 0 0 0,...`` as (code, jt, jf, k), checked as bpf_check_classic does."""
    count, *texts = bytecode.split(",")
    program = []
    for text in texts:
        code, jt, jf, k = map(int, text.split())
        program.append((code, jt, jf, k))
    assert int(count) == len(program) <= 64
    for at, (code, jt, jf, k) in enumerate(program):
        assert 0 <= k <= WORD
        assert 0 <= jt <= 255
        assert 0 <= jf <= 255
        assert not (code == 0x94 and k == 0)
        if code in COMPARE:
            assert at + 1 + max(jt, jf) < len(program)
        if code == 0x05:
            assert at + 1 + k < len(program)
    assert program[-1][0] == 0x06
    return program


def run(bytecode: str, packet: bytes) -> int:
    """What the program returns for ``packet`` (from its IP header); a load beyond its end ends it with 0."""
    program = parse(bytecode)
    a = x = at = 0
    kept: int | None = None
    while True:
        code, jt, jf, k = program[at]
        at += 1
        if code in SIZES or code in SIZES_BEHIND:
            start, size = (k, SIZES[code]) if code in SIZES else (x + k, SIZES_BEHIND[code])
            if start + size > len(packet):
                return 0
            a = int.from_bytes(packet[start : start + size], "big")
        elif code == 0x01:
            x = k
        elif code == 0x80:
            a = len(packet)
        elif code == 0x02:
            assert k == 0
            kept = a
        elif code == 0x61:
            assert k == 0
            assert kept is not None, "the kernel refuses a program that reads what it has not written"
            x = kept
        elif code == 0x07:
            x = a
        elif code == 0x0C:
            a = (a + x) & WORD
        elif code in CALCULATE:
            a = CALCULATE[code](a, k) & WORD
        elif code in COMPARE:
            at += jt if COMPARE[code](a, k) else jf
        elif code == 0x05:
            at += k
        elif code == 0x06:
            return k
        else:
            raise AssertionError(f"instruction {code:#x} is not one of ours")
