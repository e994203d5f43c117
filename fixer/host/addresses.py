"""The addresses that are this network namespace's own: from the kernel's tables, without a process."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

from fixer.errors import FixerError
from fixer.host.machine import NET, Host

_LOCAL = re.compile(r"\|-- (\S+)\n\s+/32 host LOCAL")


def local(host: Host, version: int) -> frozenset[IPv4Address | IPv6Address] | None:
    """Those of an IP version, loopback's among them; None if that cannot be told."""
    try:
        said = host.read(f"{NET}/fib_trie" if version == 4 else f"{NET}/if_inet6")
    except FixerError:
        return None
    if said is None:
        return None
    if version == 4:
        return frozenset(map(IPv4Address, _LOCAL.findall(said)))
    return frozenset(IPv6Address(int(line.split()[0], 16)) for line in said.splitlines() if line)
