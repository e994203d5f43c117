"""Small eBPF programs on an interface of the laboratory, without a compiler: `fixer.kernel.bpf` loads them.

A few lines of assembler, and what tests and benchmark need of it: tagging frames inside a tunnel on a kernel without
8021q, a device that claims to have verified what nobody verified, a sender that leaves TCP unfinished at full speed, a
host whose clock for TCP timestamps is another one.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fixer.host.machine import Host
from fixer.kernel import bpf
from fixer.lab.net import Namespace, own_name

# <linux/bpf.h>
BPF_XDP = bpf.XDP
BPF_TCX_INGRESS, BPF_TCX_EGRESS = bpf.TCX_INGRESS, bpf.TCX_EGRESS
TCX_PASS, TCX_DROP = 0, 2
XDP_DROP, XDP_PASS = 1, 2
XDP_DATA, XDP_DATA_END = 0, 4  # offsets in struct xdp_md
# Helper functions.
SKB_STORE_BYTES, L4_CSUM_REPLACE, SKB_VLAN_PUSH, SKB_VLAN_POP, SKB_LOAD_BYTES, CSUM_LEVEL = 9, 11, 18, 19, 26, 135
REDIRECT, CSUM_UPDATE = 23, 40
FRAME_POINTER = 10  # the register that points behind the program's own 512 bytes
BPF_CSUM_LEVEL_INC = 1
SK_BUFF_PROTOCOL, SK_BUFF_VLAN_TCI = 16, 24  # offsets in struct __sk_buff
ETH_P_IP, ETH_P_8021Q, ETH_P_IPV6 = 0x0800, 0x8100, 0x86DD

Program = bytes


def _instruction(code: int, *, to: int = 0, of: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", code, to | of << 4, offset, value)


def set_to(register: int, value: int) -> bytes:
    return _instruction(0xB7, to=register, value=value)


def copy(register: int, source: int) -> bytes:
    return _instruction(0xBF, to=register, of=source)


def load32(register: int, base: int, offset: int) -> bytes:
    return _instruction(0x61, to=register, of=base, offset=offset)


def load16(register: int, base: int, offset: int) -> bytes:
    return _instruction(0x69, to=register, of=base, offset=offset)


def load8(register: int, base: int, offset: int) -> bytes:
    return _instruction(0x71, to=register, of=base, offset=offset)


def store16(base: int, offset: int, register: int) -> bytes:
    return _instruction(0x6B, to=base, of=register, offset=offset)


def store32(base: int, offset: int, register: int) -> bytes:
    return _instruction(0x63, to=base, of=register, offset=offset)


def add(register: int, other: int) -> bytes:
    return _instruction(0x0F, to=register, of=other)


def add_value(register: int, value: int) -> bytes:
    return _instruction(0x07, to=register, value=value)


def add_value32(register: int, value: int) -> bytes:
    """Add modulo 2³²; ``value`` is signed."""
    return _instruction(0x04, to=register, value=value)


def swap32(register: int) -> bytes:
    """From network order to the machine's, or back."""
    return _instruction(0xDC, to=register, value=32)


def shift_right(register: int, bits: int) -> bytes:
    return _instruction(0x77, to=register, value=bits)


def keep(register: int, bits: int) -> bytes:
    return _instruction(0x57, to=register, value=bits)


def skip_unless_equal(register: int, value: int, skipped: int) -> bytes:
    return _instruction(0x55, to=register, value=value, offset=skipped)


def skip_if_equal(register: int, value: int, skipped: int) -> bytes:
    return _instruction(0x15, to=register, value=value, offset=skipped)


def skip_if_greater(register: int, other: int, skipped: int) -> bytes:
    return _instruction(0x2D, to=register, of=other, offset=skipped)


def call(helper: int) -> bytes:
    return _instruction(0x85, value=helper)


def leave(verdict: int) -> bytes:
    return set_to(0, verdict) + _instruction(0x95)


def push_tag(vlan: int) -> Program:
    """Tag every frame with 802.1Q ``vlan``."""
    return set_to(2, socket.htons(ETH_P_8021Q)) + set_to(3, vlan) + call(SKB_VLAN_PUSH) + leave(TCX_PASS)


def pop_tag(vlan: int) -> Program:
    """Take the tag ``vlan`` off; drop every frame that does not carry it, so that nothing crosses untagged."""
    tagged = call(SKB_VLAN_POP) + leave(TCX_PASS)
    return load32(2, 1, SK_BUFF_VLAN_TCI) + skip_unless_equal(2, vlan, len(tagged) // 8) + tagged + leave(TCX_DROP)


def eat(port: int) -> Program:
    """At the entry: drop what is for UDP ``port`` over IPv4 without options, as who decapsulates by himself does."""
    fetch = copy(6, 1) + set_to(2, 14 + 20 + 2) + copy(3, FRAME_POINTER) + add_value(3, -8) + set_to(4, 2)
    eats = load16(2, FRAME_POINTER, -8) + skip_unless_equal(2, socket.htons(port), 2) + leave(TCX_DROP)
    return fetch + call(SKB_LOAD_BYTES) + skip_unless_equal(0, 0, len(eats) // 8) + eats + leave(TCX_PASS)


def eat_at_xdp(port: int) -> Program:
    """The same at XDP, where the frame lies bare in memory."""
    behind = 14 + 20 + 4
    eats = load16(5, 2, behind - 2) + skip_unless_equal(5, socket.htons(port), 2) + leave(XDP_DROP)
    look = load32(2, 1, XDP_DATA) + load32(3, 1, XDP_DATA_END) + copy(4, 2) + add_value(4, behind)
    return look + skip_if_greater(4, 3, len(eats) // 8) + eats + leave(XDP_PASS)


def claim_verified() -> Program:
    """Say of every packet that its checksum and the one inside are verified (CHECKSUM_UNNECESSARY, csum_level 1)."""
    once = copy(1, 6) + set_to(2, BPF_CSUM_LEVEL_INC) + call(CSUM_LEVEL)
    return copy(6, 1) + once + once + leave(TCX_PASS)


def send_on(interface: int) -> Program:
    """At the entry: out through another interface, by its index, with what the kernel knows of the packet's sum."""
    return set_to(1, interface) + set_to(2, 0) + call(REDIRECT) + _instruction(0x95)


def drop_unless_complete() -> Program:
    """Drop every packet but those whose sum the device gave (CHECKSUM_COMPLETE)."""
    return (
        set_to(2, 0)
        + call(CSUM_UPDATE)
        + shift_right(0, 63)
        + skip_if_equal(0, 0, 2)
        + leave(TCX_DROP)
        + leave(TCX_PASS)
    )


def leave_unfinished(port: int, put_back: bool = False) -> Program:
    """At the exit of a VTEP's underlay device: put P where the finished checksum of an inner TCP segment stands.

    P is the pseudo-header's sum, what an offload leaves behind that nobody carries out. For TCP over IPv4 in VXLAN to
    ``port`` over IPv4, all without IP options; every other frame stays as it is. The inner checksum must be finished
    when the frame comes here (``ethtool -K vxlan0 tx off``), or the kernel finishes it behind us; an outer one is
    summed by the kernel afterwards, over what we leave.

    With ``put_back`` the same is done, and then what stood there is written: a healthy sender that pays what one that
    is broken here pays, which on a real host is nothing.
    """
    outer_port, ethertype, inner = 14 + 20 + 2, 14 + 20 + 8 + 8 + 12, 14 + 20 + 8 + 8 + 14  # offsets in the frame
    field = inner + 20 + 16
    # From the outer destination port to the inner TCP header's end: then the words on the stack are aligned.
    size = field + 4 - outer_port

    def on_stack(at: int) -> int:
        return at - outer_port - size

    total, scratch = 3, 2  # registers
    # P in network order, as the addresses lie there. Less the 20 bytes of IP header: plus their ones' complement.
    work = load32(total, FRAME_POINTER, on_stack(inner + 12)) + load32(scratch, FRAME_POINTER, on_stack(inner + 16))
    work += add(total, scratch) + load16(scratch, FRAME_POINTER, on_stack(inner + 2)) + add(total, scratch)
    work += add_value(total, socket.htons(socket.IPPROTO_TCP) + (0xFFFF ^ socket.htons(20)))
    for _ in range(3):  # 34 bits fold to 19, to 17, to 16
        work += copy(scratch, total) + shift_right(scratch, 16) + keep(total, 0xFFFF) + add(total, scratch)
    work += store16(FRAME_POINTER, on_stack(outer_port), total)
    written = on_stack(field if put_back else outer_port)
    work += copy(1, 6) + set_to(2, field) + copy(3, FRAME_POINTER) + add_value(3, written)
    work += set_to(4, 2) + set_to(5, 0) + call(SKB_STORE_BYTES)
    for load, at, wanted in (
        (load8, inner + 9, socket.IPPROTO_TCP),
        (load8, inner, 0x45),
        (load16, ethertype, socket.htons(ETH_P_IP)),
        (load16, outer_port, socket.htons(port)),
    ):
        work = load(scratch, FRAME_POINTER, on_stack(at)) + skip_unless_equal(scratch, wanted, len(work) // 8) + work
    fetch = copy(6, 1) + set_to(2, outer_port) + copy(3, FRAME_POINTER) + add_value(3, -size) + set_to(4, size)
    return fetch + call(SKB_LOAD_BYTES) + skip_unless_equal(0, 0, len(work) // 8) + work + leave(TCX_PASS)


def shift_clock(milliseconds: int, point: int) -> Program:
    """A host whose clock of TCP timestamps is ``milliseconds`` ahead (modulo 2³²), at one ``point`` of its only device.

    What leaves (BPF_TCX_EGRESS) has it added to TSval; what comes in (BPF_TCX_INGRESS) has it taken off TSecr, unless
    that is 0. For TCP over IPv4 and IPv6 as Linux writes it: no IP options or extension headers, and the timestamps
    either behind two NOPs (every segment but SYNs) or behind MSS and SACK-permitted (both SYNs).
    """
    leaves = point == BPF_TCX_EGRESS
    signed = (milliseconds if leaves else -milliseconds) & 0xFFFFFFFF
    signed -= (signed >> 31) << 32
    after_nops, after_mss = (int.from_bytes(option, sys.byteorder) for option in (b"\1\1\x08\x0a", b"\4\2\x08\x0a"))
    old, new, scratch, field = 8, 9, 2, 7  # registers; 6 is the packet
    size = 72  # what is looked at, at most: an IPv6 header, and TCP's up to the end of TSecr behind two NOPs

    def of_version(ethertype: int, header: int, looks: tuple[tuple[int, int], ...]) -> bytes:
        tcp = 14 + header

        def on_stack(at: int) -> int:
            return at - 14 - size

        shift = copy(1, 6) + copy(2, field) + copy(3, FRAME_POINTER) + add_value(3, -size) + set_to(4, 4)
        shift += call(SKB_LOAD_BYTES) + load32(old, FRAME_POINTER, -size)
        write = copy(new, old) + swap32(new) + add_value32(new, signed) + swap32(new)
        write += store32(FRAME_POINTER, -size + 4, new)
        # The helper knows an unfinished checksum, which the change must leave as it is.
        write += copy(1, 6) + set_to(2, tcp + 16) + copy(3, old) + copy(4, new) + set_to(5, 4) + call(L4_CSUM_REPLACE)
        write += copy(1, 6) + copy(2, field) + copy(3, FRAME_POINTER) + add_value(3, -size + 4) + set_to(4, 4)
        write += set_to(5, 0) + call(SKB_STORE_BYTES)
        shift += write if leaves else skip_if_equal(old, 0, len(write) // 8) + write
        value = tcp + 24 if leaves else tcp + 28  # in a segment that is no SYN
        in_syn = set_to(field, value + 4) + load32(scratch, FRAME_POINTER, on_stack(tcp + 24))
        in_syn += skip_unless_equal(scratch, after_mss, len(shift) // 8)
        work = set_to(field, value) + load32(scratch, FRAME_POINTER, on_stack(tcp + 20))
        work += skip_if_equal(scratch, after_nops, len(in_syn) // 8) + in_syn + shift
        for at, wanted in looks:
            work = (
                load8(scratch, FRAME_POINTER, on_stack(14 + at))
                + skip_unless_equal(scratch, wanted, len(work) // 8)
                + work
            )
        work = skip_unless_equal(0, 0, len(work) // 8) + work  # shorter than a segment with timestamps
        fetch = copy(1, 6) + set_to(2, 14) + copy(3, FRAME_POINTER) + add_value(3, -size) + set_to(4, header + 32)
        work = fetch + call(SKB_LOAD_BYTES) + work
        return (
            load32(scratch, 6, SK_BUFF_PROTOCOL)
            + skip_unless_equal(scratch, socket.htons(ethertype), len(work) // 8)
            + work
        )

    four = of_version(ETH_P_IP, 20, ((9, socket.IPPROTO_TCP), (0, 0x45)))
    six = of_version(ETH_P_IPV6, 40, ((6, socket.IPPROTO_TCP),))
    return copy(6, 1) + four + six + leave(TCX_PASS)


def missing(host: Host) -> str | None:
    """Why no program can be attached on this machine, in one line; None if it can."""
    with Namespace(f"{own_name()}-probe", host) as here:
        try:
            with attached(here, "lo", BPF_TCX_INGRESS, leave(TCX_PASS)):
                return None
        except OSError as error:
            return f"no eBPF program on an interface in this kernel (TCX, since 6.6): {error.strerror}"


@contextmanager
def attached(here: Namespace, device: str, point: int, program: Program) -> Iterator[None]:
    """Run ``program`` on each packet at ``point`` of ``device`` while the context lasts.

    The point: BPF_TCX_INGRESS, BPF_TCX_EGRESS or BPF_XDP.

    Raises OSError with the kernel's error.
    """
    link = here.call(_attach, device, point, program)
    try:
        yield
    finally:
        os.close(link)


def _attach(device: str, point: int, program: Program) -> int:
    loaded = bpf.load(program, b"GPL", "lab", kind=bpf.PROG_TYPE_XDP if point == BPF_XDP else bpf.PROG_TYPE_SCHED_CLS)
    try:
        return bpf.attach_tcx(loaded, socket.if_nametoindex(device), point)
    finally:
        os.close(loaded)
