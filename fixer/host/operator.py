"""Who types a command: the user it runs as, and whose login and whose sudo that was."""

from __future__ import annotations

import os
import pwd

from msgspec import Struct

from fixer.host.machine import Host

_NOBODY = 0xFFFFFFFF
"""loginuid of what no login has started: a service, a boot script."""


class Operator(Struct, frozen=True):
    """Names, or numbers where a user has none."""

    user: str
    login: str | None = None
    """Who logged in (audit's loginuid, which neither su nor sudo changes); None for a service."""
    sudo: str | None = None

    def __str__(self) -> str:
        """For people: ``alice``, ``root (sudo by alice)``, ``root (logged in as alice)``."""
        if self.sudo:
            return f"{self.user} (sudo by {self.sudo})"
        if self.login and self.login != self.user:
            return f"{self.user} (logged in as {self.login})"
        return self.user


def operator(host: Host) -> Operator:
    """Who runs this process. The sudo user is what the environment says, and no proof."""
    uid = int((host.read("/proc/self/loginuid") or "").strip() or _NOBODY)
    return Operator(
        user=_name(host.geteuid()),
        login=None if uid == _NOBODY else _name(uid),
        sudo=os.environ.get("SUDO_USER") or None,
    )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
