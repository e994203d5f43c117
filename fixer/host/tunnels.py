"""Where VXLAN ends: the devices of a network namespace, the UDP sockets that feed them, and other namespaces' sockets.

A device may stand in another namespace than its socket (Docker moves it into a sandbox): packets pass the rules of the
socket's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any

import msgspec
from msgspec import Struct

from fixer.errors import FixerError
from fixer.host import interfaces
from fixer.host.machine import NET, Host

_TABLES = {4: "udp", 6: "udp6"}


class Tunnel(Struct, frozen=True):
    """One VXLAN device of this namespace."""

    name: str
    port: int
    is_up: bool
    ends_here: bool
    """Whether its packets arrive in this namespace too."""


def read(found: Iterable[dict[str, Any]]) -> list[Tunnel]:
    """Those among what ``ip -details -json address`` says."""
    tunnels = []
    for each in found:
        info = each.get("linkinfo", {})
        if info.get("info_kind") == "vxlan" and isinstance(port := info.get("info_data", {}).get("port"), int):
            tunnels.append(Tunnel(each["ifname"], port, "UP" in each["flags"], "link_netnsid" not in each))
    return tunnels


def ports(host: Host) -> dict[int, frozenset[int]] | None:
    """The UDP ports that are open here, by IP version, the kernel's own among them; None if that cannot be told."""
    found: dict[int, frozenset[int]] = {}
    for version, name in _TABLES.items():
        try:
            table = host.read(f"{NET}/{name}")
        except FixerError:
            return None
        if table is not None:
            found[version] = _ports(table)
    return found or None


def received(host: Host, names: Collection[str]) -> int | None:
    """How many packets these devices have handed out so far; None if the kernel does not say so of one of them."""
    found = interfaces.received(host)
    return sum(found[name] for name in names) if names and found.keys() >= set(names) else None


def elsewhere(host: Host, wanted: Collection[int]) -> str | None:
    """Another namespace that has one of these UDP ports open, as a command line names it; None: none is seen."""
    for option, path in host.other_namespaces():
        try:
            said = host.run(["nsenter", f"--net={path}", "cat", "/proc/net/udp", "/proc/net/udp6"])
        except FixerError:
            continue
        if _ports(said.out) & set(wanted):
            return option
    return None


def programs(host: Host, interface: str) -> list[str]:
    """Who sees packets of this interface before the rules do: eBPF at ``XDP``, ``tc``, as far as ip and tc tell.

    Since Linux 6.6 a program can be attached as ``tcx``, which tc does not show: only bpftool does, where it is.
    """
    found = []
    try:
        link = host.run(["ip", "-details", "-json", "link", "show", "dev", interface]).out
        if any("xdp" in each for each in msgspec.json.decode(link or "[]")):
            found.append("XDP")
        asked = [["tc", "filter", "show", "dev", interface, "ingress"]]
        asked += [["bpftool", "net", "show", "dev", interface]] * (host.which("bpftool") is not None)
        if re.search(r"\bbpf\b|\btcx/ingress\b", "".join(host.run(argv).out for argv in asked)):
            found.append("tc")
    except (FixerError, msgspec.DecodeError):
        pass
    return found


def _ports(table: str) -> frozenset[int]:
    lines = (line.split() for line in table.splitlines())
    return frozenset(int(words[1].rpartition(":")[2], 16) for words in lines if len(words) > 2 and ":" in words[1])
