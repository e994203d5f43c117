"""``fixer`` as it is typed, in a process of its own, and waiting for what it does."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

FIXER = [sys.executable, "-m", "fixer"]


def started(*arguments: str, timeout: float = 30, **options: Any) -> subprocess.CompletedProcess[str]:
    """`fixer` with these arguments, to its end; ``options`` are those of `subprocess.run`."""
    command = [*FIXER, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **options)


def wait_for(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Until the condition holds; an assertion fails if it does not in so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
