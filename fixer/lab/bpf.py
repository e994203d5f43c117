"""Small eBPF programs on an interface of the laboratory, loaded with bpf(2) itself: no compiler, no library.

A few lines of assembler, and what tests and benchmark need of it: tagging frames inside a tunnel on a kernel without
8021q, a device that claims to have verified what nobody verified, a sender that leaves TCP unfinished at full speed.
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from fixer.lab.net import Namespace, own_name
from fixer.node.host import Host

# <linux/bpf.h>
BPF_PROG_LOAD, BPF_LINK_CREATE = 5, 28
BPF_PROG_TYPE_SCHED_CLS = 3
BPF_TCX_INGRESS, BPF_TCX_EGRESS = 46, 47
TCX_PASS, TCX_DROP = 0, 2
SKB_STORE_BYTES, SKB_VLAN_PUSH, SKB_VLAN_POP, SKB_LOAD_BYTES, CSUM_LEVEL = 9, 18, 19, 26, 135  # helper functions
FRAME_POINTER = 10  # the register that points behind the program's own 512 bytes
BPF_CSUM_LEVEL_INC = 1
SK_BUFF_VLAN_TCI = 24  # offset in struct __sk_buff
ETH_P_IP, ETH_P_8021Q = 0x0800, 0x8100
SYSCALL = {"x86_64": 321, "aarch64": 280}

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


def add(register: int, other: int) -> bytes:
    return _instruction(0x0F, to=register, of=other)


def add_value(register: int, value: int) -> bytes:
    return _instruction(0x07, to=register, value=value)


def shift_right(register: int, bits: int) -> bytes:
    return _instruction(0x77, to=register, value=bits)


def keep(register: int, bits: int) -> bytes:
    return _instruction(0x57, to=register, value=bits)


def skip_unless_equal(register: int, value: int, skipped: int) -> bytes:
    return _instruction(0x55, to=register, value=value, offset=skipped)


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


def claim_verified() -> Program:
    """Say of every packet that its checksum and the one inside are verified (CHECKSUM_UNNECESSARY, csum_level 1)."""
    once = copy(1, 6) + set_to(2, BPF_CSUM_LEVEL_INC) + call(CSUM_LEVEL)
    return copy(6, 1) + once + once + leave(TCX_PASS)


def leave_unfinished(port: int) -> Program:
    """At the exit of a VTEP's underlay device: put P where the finished checksum of an inner TCP segment stands.

    P is the pseudo-header's sum, what an offload leaves behind that nobody carries out. For TCP over IPv4 in VXLAN to
    ``port`` over IPv4, all without IP options; every other frame stays as it is. The inner checksum must be finished
    when the frame comes here (``ethtool -K vxlan0 tx off``), or the kernel finishes it behind us; an outer one is
    summed by the kernel afterwards, over what we leave.
    """
    outer_port, ethertype, inner = 14 + 20 + 2, 14 + 20 + 8 + 8 + 12, 14 + 20 + 8 + 8 + 14  # offsets in the frame
    size = inner + 20 - outer_port  # what is looked at: from the outer destination port to the inner IP header's end

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
    work += copy(1, 6) + set_to(2, inner + 20 + 16) + copy(3, FRAME_POINTER) + add_value(3, on_stack(outer_port))
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


def missing(host: Host) -> str | None:
    """Why no program can be attached on this machine, in one line; None if it can."""
    if platform.machine() not in SYSCALL:
        return f"no system call number of bpf(2) for {platform.machine()} is known here"
    with Namespace(f"{own_name()}-probe", host) as here:
        try:
            with attached(here, "lo", BPF_TCX_INGRESS, leave(TCX_PASS)):
                return None
        except OSError as error:
            return f"no eBPF program on an interface in this kernel (TCX, since 6.6): {error.strerror}"


@contextmanager
def attached(here: Namespace, device: str, point: int, program: Program) -> Iterator[None]:
    """Run ``program`` on each packet at ``point`` (BPF_TCX_INGRESS or _EGRESS) of ``device`` while the context lasts.

    Raises OSError with the kernel's error.
    """
    link = here.call(_attach, device, point, program)
    try:
        yield
    finally:
        os.close(link)


def _attach(device: str, point: int, program: Program) -> int:
    code, licence = ctypes.create_string_buffer(program), ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "=IIQQ", BPF_PROG_TYPE_SCHED_CLS, len(program) // 8, ctypes.addressof(code), ctypes.addressof(licence)
    )
    loaded = _bpf(BPF_PROG_LOAD, attributes)
    try:
        return _bpf(BPF_LINK_CREATE, struct.pack("=IIII", loaded, socket.if_nametoindex(device), point, 0))
    finally:
        os.close(loaded)


def _bpf(command: int, attributes: bytes) -> int:
    """bpf(2): a file descriptor, or OSError."""
    room = ctypes.create_string_buffer(attributes, 128)  # what is not set is zero, as the kernel asks
    descriptor = ctypes.CDLL(None, use_errno=True).syscall(SYSCALL[platform.machine()], command, room, len(room))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(descriptor)
