"""``fixer.service``, where systemd has it: is it there, does it run, start and stop it."""

from __future__ import annotations

from typing import Literal

from fixer.errors import FixerError, SystemRefused
from fixer.host.machine import Host

UNIT = "fixer.service"
_SYSTEMD = "/run/systemd/system"  # sd_booted(3)
_START_SECONDS = 60.0  # `fixer on` waits for it, and its ExecStartPost for a listener

State = Literal["absent", "stopped", "running"]


def has_systemd(host: Host) -> bool:
    """Whether it runs this host, and can be asked."""
    return host.exists(_SYSTEMD) and host.which("systemctl") is not None


def state(host: Host) -> State:
    """``absent`` too where systemd does not run, or cannot be asked."""
    if not has_systemd(host):
        return "absent"
    try:
        said = host.run(["systemctl", "show", "--property=LoadState,ActiveState", UNIT]).out
    except FixerError:
        return "absent"
    found = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    if found.get("LoadState") != "loaded":
        return "absent"
    return "running" if found.get("ActiveState") in ("active", "activating", "reloading") else "stopped"


def start(host: Host) -> None:
    """Start it, and wait until it has begun. Raises :class:`SystemRefused` with systemd's own words."""
    _must(host, "start")


def stop(host: Host) -> None:
    """Stop it, and wait until it has ended. Raises :class:`SystemRefused` with systemd's own words."""
    _must(host, "stop")


def _must(host: Host, verb: str) -> None:
    done = host.run(["systemctl", verb, UNIT], seconds=_START_SECONDS)
    if done.status != 0:
        words = " ".join(done.err.split()) or f"status {done.status}"
        raise SystemRefused(f"systemctl {verb} {UNIT} failed, see journalctl -u {UNIT}: {words}")
