"""What the kernel has counted in the thread's network namespace: ``snmp``, ``snmp6``, ``netstat`` and ``dev``."""

from __future__ import annotations

import re

from fixer.errors import FixerError
from fixer.host.machine import NET, Host

_NUMBER = re.compile(r"-?[0-9]+")


def group(text: str, name: str) -> dict[str, int]:
    """One group of ``/proc/net/netstat`` or ``snmp``: a line of names and one of values. Empty: it is not there."""
    lines = [line.split() for line in text.splitlines() if line.startswith(f"{name}:")]
    if len(lines) != 2 or len(lines[0]) != len(lines[1]):
        return {}
    return {key: int(value) for key, value in zip(*lines, strict=True) if _NUMBER.fullmatch(value)}


def look(host: Host) -> dict[str, int]:
    """Every counter of the protocols by its name, the group before it: ``Udp.InCsumErrors``, ``Udp6.InCsumErrors``."""
    found: dict[str, int] = {}
    for file, names in (("snmp", ("Ip", "Icmp", "Tcp", "Udp")), ("netstat", ("TcpExt", "IpExt"))):
        text = _read(host, file)
        found |= {f"{name}.{key}": value for name in names for key, value in group(text, name).items()}
    for line in _read(host, "snmp6").splitlines():
        words = line.split()
        if len(words) == 2 and (parts := re.fullmatch(r"(Ip6|Icmp6|Udp6)(\w+)", words[0])) and words[1].isdecimal():
            found[f"{parts[1]}.{parts[2]}"] = int(words[1])
    return found


def received_and_sent(host: Host) -> dict[str, tuple[int, int]]:
    """How many packets each device has handed out and taken so far."""
    found = {}
    for line in _read(host, "dev").splitlines():
        name, colon, figures = line.partition(":")
        words = figures.split()
        if colon and len(words) >= 10 and words[1].isdecimal() and words[9].isdecimal():
            found[name.strip()] = int(words[1]), int(words[9])
    return found


def _read(host: Host, file: str) -> str:
    try:
        return host.read(f"{NET}/{file}") or ""
    except FixerError:
        return ""
