"""``fixer status --watch`` on a terminal of 80 × 24: it fits, it counts, and q leaves."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

import pytest
from support.commands import FIXER, started
from support.netns import Namespace

QUEUE = 7


@pytest.mark.root
def test_it_fits_counts_and_is_left_with_q(netns: Namespace) -> None:
    daemon = netns.start(*FIXER, "run", f"--queue={QUEUE}")
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    try:
        assert daemon.stdout is not None
        daemon.stdout.readline()
        started("on", "--netns", netns.name, f"--queue={QUEUE}", "--for", "1h")
        watching = subprocess.Popen(
            [*FIXER, "status", "--watch", "--netns", netns.name, f"--queue={QUEUE}"],
            stdin=side,
            stdout=side,
            stderr=side,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
        )
        seen = ""
        deadline = time.monotonic() + 40
        while "Packets/s" not in seen and time.monotonic() < deadline:
            netns.send(5)
            if select.select([main], [], [], 0.2)[0]:
                seen += os.read(main, 65536).decode()
        os.write(main, b"q")
        while watching.poll() is None and time.monotonic() < deadline:
            if select.select([main], [], [], 0.2)[0]:
                seen += os.read(main, 65536).decode()
        assert watching.wait(10) in (0, 3)
    finally:
        os.close(side)
        os.close(main)
        daemon.terminate()
        daemon.wait()
        daemon.stdout and daemon.stdout.close()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
    for part in ("State", "UDP to port 4789", "until ", "Packets/s", "Actions/s", "CPU", "q leaves"):
        assert part in plain, plain
    assert seen.rstrip().endswith("\x1b[?25h") or "\x1b[?1049l" in seen, "the screen is as it was"
