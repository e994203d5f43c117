"""A tc program at the entry of an interface where there is no TCX (before Linux 6.6): a filter of the qdisc clsact.

By rtnetlink, ``linux/rtnetlink.h`` and ``linux/pkt_cls.h``: tc itself takes a program only from a file that it compiles
or finds in bpffs, and that is another one under ``ip netns exec``. A filter outlives whoever made it.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from typing import NamedTuple

from fixer.kernel.netlink import HEADER, attribute, attributes, messages

PREFERENCE = 1
"""The smallest: before what anybody else has there."""
HANDLE = 0xF1E
"""By which ours is told from others of the same preference."""

_NEW_QDISC, _DEL_QDISC, _NEW_FILTER, _DEL_FILTER, _GET_FILTER = 36, 37, 44, 45, 46
_REQUEST, _ACK, _EXCL, _CREATE, _DUMP = 0x1, 0x4, 0x200, 0x400, 0x300
_ERROR, _DONE = 2, 3
_TC = struct.Struct("=BxxxiIII")  # tcmsg: family, interface, handle, parent, info
_KIND, _OPTIONS = 1, 2
_BPF_FD, _BPF_NAME, _BPF_FLAGS, _BPF_ID = 6, 7, 8, 11
_DIRECT = 1  # TCA_BPF_FLAG_ACT_DIRECT: what the program returns is what is done
_CLSACT, _ENTRY, _EXIT = 0xFFFFFFF1, 0xFFFFFFF2, 0xFFFFFFF3
_QDISC = 0xFFFF0000
_ALL = socket.htons(3)  # ETH_P_ALL


class Filter(NamedTuple):
    """One filter at the entry of an interface."""

    preference: int
    handle: int
    name: str
    """Of a bpf filter; '' for others."""
    program: int
    """The program's id; 0 for others."""


def attach(program: int, interface: int, name: str) -> bool:
    """Put a program there, before all others; whether clsact had to be made for it. Raises OSError."""
    made = True
    try:
        _ask(_NEW_QDISC, _CREATE | _EXCL, interface, _QDISC, _CLSACT, 0, attribute(_KIND, b"clsact\0"))
    except FileExistsError:  # somebody's clsact, or ingress, which does as well
        made = False
    options = attribute(_BPF_FD, struct.pack("=I", program)) + attribute(_BPF_NAME, name.encode() + b"\0")
    options += attribute(_BPF_FLAGS, struct.pack("=I", _DIRECT))
    content = attribute(_KIND, b"bpf\0") + attribute(_OPTIONS | 0x8000, options)
    try:
        _ask(_NEW_FILTER, _CREATE | _EXCL, interface, HANDLE, _ENTRY, PREFERENCE << 16 | _ALL, content)
    except BaseException:
        if made:
            remove_empty(interface)
        raise
    return made


def detach(interface: int, each: Filter) -> None:
    """Take a bpf filter away. Raises OSError."""
    info = each.preference << 16 | _ALL
    _ask(_DEL_FILTER, 0, interface, each.handle, _ENTRY, info, attribute(_KIND, b"bpf\0"))


def remove_empty(interface: int) -> None:
    """Remove a clsact that nobody uses any more, if that is so."""
    with suppress(OSError):
        if not filters(interface) and not filters(interface, _EXIT):
            _ask(_DEL_QDISC, 0, interface, _QDISC, _CLSACT, 0, attribute(_KIND, b"clsact\0"))


def filters(interface: int, where: int = _ENTRY) -> list[Filter]:
    """What is there, in the order that a packet meets it; nothing where there is no qdisc for it. Raises OSError."""
    found = []
    for body in _ask(_GET_FILTER, _DUMP, interface, 0, where, 0, b""):
        _, index, handle, _, info = _TC.unpack_from(body)
        options = dict(attributes(dict(attributes(body[_TC.size :])).get(_OPTIONS, b"")))
        # A filter without a handle is the head that others of its preference hang on.
        if index == interface and handle:
            name = options.get(_BPF_NAME, b"").rstrip(b"\0").decode(errors="replace")
            found.append(Filter(info >> 16, handle, name, int.from_bytes(options.get(_BPF_ID, b""), "little")))
    return found


def _ask(kind: int, flags: int, interface: int, handle: int, parent: int, info: int, content: bytes) -> list[bytes]:
    """One request and what is answered: of a dump all messages' bodies, of anything else none. Raises OSError."""
    body = _TC.pack(0, interface, handle, parent, info) + content
    flags |= _REQUEST | (0 if flags & _DUMP == _DUMP else _ACK)
    found: list[bytes] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(5.0)
        sock.send(HEADER.pack(HEADER.size + len(body), kind, flags, 1, 0) + body)
        while True:
            for answered, said in messages(sock.recv(1 << 16)):
                if answered == _ERROR:
                    (error,) = struct.unpack_from("=i", said)
                    if error:
                        raise OSError(-error, os.strerror(-error))
                    return found
                if answered == _DONE:
                    return found
                found.append(said)
