"""What a thread that handles packets gives up before the first one, of itself alone: capabilities, files, system calls.

Three locks, each of which the kernel may lack or another program forbid: then the others hold, and packets are served
all the same. None can be opened again (no_new_privs), and none is of the other threads, who run iptables and write the
log.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Callable
from contextlib import suppress
from errno import EPERM

_PR_NO_NEW_PRIVS = 38
_CAPABILITIES_3 = 0x20080522
NET_ADMIN = 12
"""The one that is kept: each verdict is sent with it."""

# Landlock: the rights to files that each version of it knows, and what came later.
_FILES = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_TCP, _SCOPES = 3, 3  # bind and connect (4); abstract sockets and signals beyond the own domain (6)

# What is allowed, by its numbers on each machine; poll is ppoll where there is no other.
_MACHINES = ("x86_64", "aarch64")
_AUDIT = (0xC000003E, 0xC00000B7)
_SECCOMP, _CAPGET, _CAPSET = (317, 277), (125, 90), (126, 91)
# fmt: off
_ALLOWED = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "poll": (7, 73), "ppoll": (271, 73),
    "recvmmsg": (299, 243), "sendmsg": (46, 211), "recvmsg": (47, 212), "sendto": (44, 206), "recvfrom": (45, 207),
    "sendmmsg": (307, 269), "futex": (202, 98), "clock_gettime": (228, 113), "gettimeofday": (96, 169),
    "clock_nanosleep": (230, 115), "nanosleep": (35, 101), "restart_syscall": (219, 128), "sched_yield": (24, 124),
    "munmap": (11, 215), "mremap": (25, 216), "madvise": (28, 233), "brk": (12, 214), "membarrier": (324, 283),
    "getrandom": (318, 278), "getpid": (39, 172), "gettid": (186, 178), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "sigaltstack": (131, 132), "set_robust_list": (273, 99), "rseq": (334, 293),
    "exit": (60, 93), "exit_group": (231, 94),
}
# fmt: on
_MAPPING = ((9, 222), (10, 226))  # mmap, mprotect: allowed unless what is mapped could be run

# Classic BPF (linux/filter.h), and what seccomp makes of it (linux/seccomp.h).
_LOAD, _EQUAL, _ANY_OF, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER, _ARCH, _THIRD = 0, 4, 32  # offsets in struct seccomp_data; the third argument's lower half
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | EPERM
_MODE_FILTER, _SPEC_ALLOW = 1, 4
_PROT_EXEC = 4


def packet_thread() -> tuple[str, ...]:
    """Give up, in the calling thread, all that handling packets does not need; which of the locks hold. Never raises.

    From then on it opens no file, makes no socket, process or code, and every system call beyond those above is EPERM.
    """
    held = []
    locks: tuple[tuple[str, Callable[[], None]], ...] = (
        ("capabilities", _keep_net_admin),
        ("landlock", _open_no_file),
        ("seccomp", _call_little),
    )
    with suppress(OSError):
        _no_new_privs()
    for name, lock in locks:
        with suppress(OSError):
            lock()
            held.append(name)
    return tuple(held)


def _no_new_privs() -> None:
    """No program that is run gets more than whoever runs it: without CAP_SYS_ADMIN the locks ask for that."""
    _called(ctypes.CDLL(None, use_errno=True).prctl, _PR_NO_NEW_PRIVS, 1, 0, 0, 0)


def _keep_net_admin() -> None:
    """Of the capabilities all but NET_ADMIN go, for good."""
    keep = 1 << NET_ADMIN
    header = struct.pack("=Ii", _CAPABILITIES_3, 0)
    sets = ctypes.create_string_buffer(struct.pack("=6I", keep, keep, 0, 0, 0, 0), 24)
    try:
        _syscall(_CAPSET[_machine()], ctypes.create_string_buffer(header, len(header)), sets)
    except OSError:
        # The unit's filter refuses the call, and its daemon has nothing else to give up.
        _syscall(_CAPGET[_machine()], ctypes.create_string_buffer(header, len(header)), sets)
        effective, permitted, _, *higher = struct.unpack("=6I", sets)
        if (effective | permitted) & ~keep or any(higher[:2]):
            raise


def _open_no_file() -> None:
    """A Landlock domain without a rule: nothing is opened, made, run, removed or renamed any more, nobody is traced."""
    version = _syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    files = _FILES[max(known for known in _FILES if known <= version)]
    attributes = struct.pack("=QQQ", files, _TCP, _SCOPES)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    ruleset = _syscall(_CREATE_RULESET, ctypes.c_char_p(attributes), ctypes.c_size_t(len(attributes)), 0)
    try:
        _syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _call_little() -> None:
    """A seccomp filter of this thread alone. With SPEC_ALLOW: before Linux 5.16 it would else cost a mitigation too."""
    code = _filter(_machine())
    room = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("=H6xQ", len(code) // 8, ctypes.addressof(room))
    _syscall(_SECCOMP[_machine()], _MODE_FILTER, _SPEC_ALLOW, ctypes.c_char_p(program))


def _filter(machine: int) -> bytes:
    """Instructions of 8 bytes: code, how many to skip if true, if false, and a number."""
    allowed = sorted({numbers[machine] for numbers in _ALLOWED.values()})
    mmap, mprotect = (numbers[machine] for numbers in _MAPPING)
    refuse, allow = len(allowed) + 7, len(allowed) + 8  # where they stand
    program = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 0, refuse - 2, _AUDIT[machine]),
        (_LOAD, 0, 0, _NUMBER),
        *((_EQUAL, allow - at - 1, 0, number) for at, number in enumerate(allowed, 3)),
        (_EQUAL, 1, 0, mmap),
        (_EQUAL, 0, refuse - len(allowed) - 5, mprotect),
        (_LOAD, 0, 0, _THIRD),
        (_ANY_OF, 0, 1, _PROT_EXEC),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _machine() -> int:
    """Which of _MACHINES this is. Raises OSError for one whose numbers are not written down here."""
    if platform.machine() not in _MACHINES or struct.calcsize("P") != 8:
        raise OSError(f"no system calls are known of {platform.machine()}")
    return _MACHINES.index(platform.machine())


def _syscall(number: int, *arguments: object) -> int:
    return _called(ctypes.CDLL(None, use_errno=True).syscall, number, *arguments)


def _called(function: Callable[..., int], *arguments: object) -> int:
    """Raises OSError with what the kernel says."""
    returned = function(*(ctypes.c_long(each) if isinstance(each, int) else each for each in arguments))
    if returned < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(returned)
