"""The journal's native protocol, as systemd reads it."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from fixer.host import journal


def test_a_message_is_framed_whatever_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    message = 'of "several"\nlines=1 → end'
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        assert journal.write(message, path)
        entry = sock.recv(65535)
    head, _, rest = entry.partition(b"MESSAGE\n")
    assert head == b"PRIORITY=6\nSYSLOG_IDENTIFIER=fixer\n"
    (length,) = struct.unpack("<Q", rest[:8])
    assert rest[8:] == message.encode() + b"\n"
    assert length == len(message.encode())


def test_no_journal_is_no_error(tmp_path: Path) -> None:
    assert not journal.write("anything", tmp_path / "none")
