"""Which interfaces this network namespace has, and what they have received: from one file, without a process."""

from __future__ import annotations

from fixer.errors import FixerError
from fixer.host.machine import NET, Host


def received(host: Host) -> dict[str, int]:
    """Packets that each interface has received so far. Raises what :meth:`Host.read` does."""
    found = {}
    for line in (host.read(f"{NET}/dev") or "").splitlines():
        name, colon, figures = line.partition(":")
        if colon:
            found[name.strip()] = int(figures.split()[1])
    return found


def is_there(host: Host, interface: str) -> bool:
    """Whether a rule for ``interface`` (``eth+``: all whose names begin so) is for any; true if that cannot be told."""
    try:
        names = received(host)
    except FixerError:
        return True
    if interface.endswith("+"):
        return not names or any(name.startswith(interface[:-1]) for name in names)
    return not names or interface in names
