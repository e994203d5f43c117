"""What time it is, read once for all that is told it; so that tests can tell another one."""

from __future__ import annotations

import time
from typing import NamedTuple


class Now(NamedTuple):
    """One moment on both clocks: what is due is asked of ``steady``, and when something was, of ``wall_ns``."""

    steady: float
    """Seconds since some moment; whoever sets the time does not move it."""
    wall_ns: int
    """Nanoseconds since the epoch, as packets are stamped."""

    @classmethod
    def read(cls) -> Now:
        return cls(time.monotonic(), time.time_ns())
