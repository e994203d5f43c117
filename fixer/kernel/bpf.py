"""bpf(2): programs loaded, attached to an interface and tried out; maps. No compiler, no library.

Everything raises OSError with the kernel's error. Descriptors are the caller's to close.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
from contextlib import suppress
from errno import ENOSYS
from typing import NamedTuple

# <linux/bpf.h>
MAP_CREATE, MAP_LOOKUP_ELEM, MAP_UPDATE_ELEM, MAP_DELETE_ELEM, MAP_GET_NEXT_KEY = 0, 1, 2, 3, 4
PROG_LOAD, PROG_TEST_RUN, PROG_GET_FD_BY_ID, OBJ_GET_INFO_BY_FD, PROG_QUERY, LINK_CREATE = 5, 10, 13, 15, 16, 28
PROG_TYPE_SCHED_CLS, PROG_TYPE_XDP = 3, 6
XDP, TCX_INGRESS, TCX_EGRESS = 37, 46, 47
F_BEFORE = 1 << 3
TEST_CHECKSUM_COMPLETE = 1 << 2
SYSCALL = {"x86_64": 321, "aarch64": 280}
LOG_BYTES = 1 << 20
_ATTRIBUTES = 152
"""Bytes of union bpf_attr that are handed over; what is not set is zero, as the kernel asks."""


class Ran(NamedTuple):
    """What one run of a program came to."""

    returned: int
    packet: bytes
    nanoseconds: int
    """For one run, on average."""


def make_map(kind: int, key_size: int, value_size: int, most: int, name: str = "") -> int:
    """A map's descriptor. Sizes in bytes."""
    return _bpf(MAP_CREATE, struct.pack("=IIIIIII16s", kind, key_size, value_size, most, 0, 0, 0, name.encode()[:15]))


def look_up(map_: int, key: bytes, size: int, filled: bytes = b"") -> bytes | None:
    """The value of a key in ``size`` bytes of room, which is ``filled`` with that before; None if there is none.

    The room must hold what the kernel writes: of a map that is per CPU, a value for each one that could be there.
    """
    room = ctypes.create_string_buffer(filled, size)
    try:
        _element(MAP_LOOKUP_ELEM, map_, key, room)
    except FileNotFoundError:
        return None
    return room.raw


def update(map_: int, key: bytes, value: bytes) -> None:
    """Put the value there, whatever was."""
    _element(MAP_UPDATE_ELEM, map_, key, ctypes.create_string_buffer(value, len(value)))


def delete(map_: int, key: bytes) -> None:
    """Take it out, if it is there."""
    with suppress(FileNotFoundError):
        _element(MAP_DELETE_ELEM, map_, key, None)


def _element(command: int, map_: int, key: bytes, value: ctypes.Array[ctypes.c_char] | None) -> None:
    at = ctypes.create_string_buffer(key, len(key))
    place = ctypes.addressof(value) if value is not None else 0
    _bpf(command, struct.pack("=I4xQQQ", map_, ctypes.addressof(at), place, 0))


def lift_memory_limit() -> None:
    """Before Linux 5.11 maps and programs count as locked memory, of which 64 KiB are allowed: take as much as may be.

    Never raises: what is not allowed shows when a map is made.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    for limit in (resource.RLIM_INFINITY, hard):
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
            return


def load(code: bytes, licence: bytes, name: str = "", log: bool = False, *, kind: int = PROG_TYPE_SCHED_CLS) -> int:
    """A program's descriptor, a tc program's unless another ``kind`` is named.

    With ``log`` an error carries what the verifier said, as its ``filename``.
    """
    instructions, terms = ctypes.create_string_buffer(code), ctypes.create_string_buffer(licence)
    said = ctypes.create_string_buffer(LOG_BYTES if log else 1)
    attributes = struct.pack(
        "=IIQQIIQII16s",
        kind,
        len(code) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(terms),
        int(log),
        LOG_BYTES if log else 0,
        ctypes.addressof(said) if log else 0,
        0,
        0,
        name.encode()[:15],
    )
    try:
        return _bpf(PROG_LOAD, attributes)
    except OSError as error:
        if log:
            error.filename = said.value.decode(errors="replace")
        raise


def attach_tcx(program: int, interface: int, point: int, *, first: bool = False) -> int:
    """A link's descriptor: the program runs at ``point`` while it is open. OSError EINVAL before Linux 6.6.

    At ``XDP`` too, which has links since 5.9.
    """
    flags = F_BEFORE if first else 0
    return _bpf(LINK_CREATE, struct.pack("=IIII", program, interface, point, flags))


def attached_tcx(interface: int, point: int) -> list[int]:
    """The ids of the programs there, in the order that a packet meets them. OSError EINVAL before Linux 6.6."""
    room = (ctypes.c_uint32 * 64)()
    # {target, attach type, query flags, attach flags, addresses of ids, their number}
    attributes = ctypes.create_string_buffer(
        struct.pack("=IIIIQI", interface, point, 0, 0, ctypes.addressof(room), len(room)), _ATTRIBUTES
    )
    _call(PROG_QUERY, attributes)
    (count,) = struct.unpack_from("=I", attributes, 24)
    return list(room[:count])


def id_of(program: int) -> int:
    """The number by which the kernel tells a program from others."""
    room = ctypes.create_string_buffer(64)
    _bpf(OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", program, len(room), ctypes.addressof(room)))
    (number,) = struct.unpack_from("=I", room, 4)
    return int(number)


def name_of(number: int) -> str:
    """The name of a program by its id: 15 characters at most, '' if it has none."""
    program = _bpf(PROG_GET_FD_BY_ID, struct.pack("=I", number))
    try:
        room = ctypes.create_string_buffer(80)
        _bpf(OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", program, len(room), ctypes.addressof(room)))
        return room.raw[64:80].rstrip(b"\0").decode(errors="replace")  # struct bpf_prog_info
    finally:
        os.close(program)


def try_out(program: int, frame: bytes, *, repeat: int = 1, complete: bool = False, gso_size: int = 0) -> Ran:
    """Run a program on a frame that nobody has checked, or with ``complete`` one whose sum the device gave.

    With it, the kernel (6.11 and newer) says EBADMSG if the sum is not right for what the program left.
    """
    given, room = ctypes.create_string_buffer(frame, len(frame)), ctypes.create_string_buffer(len(frame) + 256)
    context = ctypes.create_string_buffer(192)
    struct.pack_into("=I", context, 176, gso_size)
    attributes = ctypes.create_string_buffer(
        struct.pack(
            "=IIIIQQIIIIQQII",
            program,
            0,
            len(frame),
            len(room),
            ctypes.addressof(given),
            ctypes.addressof(room),
            repeat,
            0,
            len(context) if gso_size else 0,
            0,
            ctypes.addressof(context) if gso_size else 0,
            0,
            TEST_CHECKSUM_COMPLETE if complete else 0,
            0,
        ),
        _ATTRIBUTES,
    )
    _call(PROG_TEST_RUN, attributes)
    returned, _, size = struct.unpack_from("=III", attributes, 4)
    (took,) = struct.unpack_from("=I", attributes, 36)
    return Ran(returned, room.raw[:size], took)


def _bpf(command: int, attributes: bytes) -> int:
    """The system call: a descriptor or 0."""
    return _call(command, ctypes.create_string_buffer(attributes, _ATTRIBUTES))


def _call(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    number = SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(ENOSYS, f"the number of bpf(2) for {platform.machine()} is not known")
    done = ctypes.CDLL(None, use_errno=True).syscall(number, command, attributes, len(attributes))
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(done)
