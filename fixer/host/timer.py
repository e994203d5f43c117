"""A timer of systemd's that runs fixer once: for what the kernel cannot end by itself. A reboot forgets it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from fixer.errors import FixerError
from fixer.host.machine import Host
from fixer.host.service import has_systemd


def at(host: Host, when: datetime, *, netns: str | None = None, pid: int | None = None) -> str | None:
    """Have the rule of this network namespace removed then, if its time is over by that time; the timer's name.

    None where systemd does not run, refuses, or has its services in another namespace and none is named.
    """
    if not has_systemd(host) or host.which("systemd-run") is None or not (netns or pid or host.is_init_netns()):
        return None
    where = ["--netns", netns] if netns else ["--pid", str(pid)] if pid else []
    moment = when.astimezone(UTC)
    name = "-".join(["fixer-end", f"{moment:%Y%m%dT%H%M%SZ}", *(word.removeprefix("--") for word in where)])
    options = [f"--unit={name}", f"--on-calendar={moment:%Y-%m-%d %H:%M:%S} UTC", "--timer-property=AccuracySec=1s"]
    try:
        host.run(["systemctl", "stop", f"{name}.timer"])  # the same words said again
        done = host.run(["systemd-run", "--quiet", *options, *_fixer("off", "--over", *where)])
    except FixerError:
        return None
    return f"{name}.timer" if done.status == 0 else None


def _fixer(*words: str) -> Sequence[str]:
    """This very fixer, wherever it is installed."""
    return [sys.executable, "-I", "-m", "fixer", *words]
