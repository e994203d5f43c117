"""Where VXLAN ends: the devices of a network namespace, the UDP sockets that feed them, and other namespaces' sockets.

A device may stand in another namespace than its socket (Docker moves it into a sandbox): packets pass the rules of the
socket's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Struct

from fixer.errors import FixerError
from fixer.host import interfaces
from fixer.host.machine import NET, Host

PROGRAM = "fixer_finish"
"""Ours, of ``--scope kernel``, which takes nothing away; the kernel keeps 15 characters of a name."""
_TABLES = {4: "udp", 6: "udp6"}


class Tunnel(Struct, frozen=True):
    """One VXLAN device of this namespace."""

    name: str
    port: int
    is_up: bool
    ends_here: bool
    """Whether its packets arrive in this namespace too."""
    master: str = ""
    """The bridge or VRF that it is a port of."""


def read(found: Iterable[dict[str, Any]]) -> list[Tunnel]:
    """Those among what ``ip -details -json address`` says."""
    tunnels = []
    for each in found:
        info = each.get("linkinfo", {})
        if info.get("info_kind") == "vxlan" and isinstance(port := info.get("info_data", {}).get("port"), int):
            is_up, ends_here = "UP" in each["flags"], "link_netnsid" not in each
            tunnels.append(Tunnel(each["ifname"], port, is_up, ends_here, each.get("master", "")))
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
    """Another namespace that has one of these UDP ports open, as a command line names it; None: none is seen.

    Of those that an interface of ours leads into: a machine may have others, with a VXLAN that is none of ours.
    """
    for option, path in host.other_namespaces():
        if not host.leads_into(path):
            continue
        try:
            said = host.run(["nsenter", f"--net={path}", "cat", "/proc/net/udp", "/proc/net/udp6"])
        except FixerError:
            continue
        if _ports(said.out) & set(wanted):
            return option
    return None


def programs(host: Host, interface: str) -> list[str]:
    """Who else sees packets of this interface before the rules do: eBPF at ``XDP``, ``tc``, ``TCX``, as far as is told.

    The first two by ip and tc, which know nothing of the third: the kernel is asked itself, and says their names.
    """
    found = []
    with suppress(FixerError, msgspec.DecodeError):
        link = host.run(["ip", "-details", "-json", "link", "show", "dev", interface]).out
        if any("xdp" in each for each in msgspec.json.decode(link or "[]")):
            found.append("XDP")
    with suppress(FixerError):
        filters = host.run(["tc", "filter", "show", "dev", interface, "ingress"]).out.splitlines()
        if any("bpf" in line and PROGRAM not in line for line in filters):
            found.append("tc")
    names = [name for name in host.tcx_programs(interface) if not PROGRAM.startswith(name or "?")]
    return found + [f"TCX {name}".rstrip() for name in names]


def _ports(table: str) -> frozenset[int]:
    lines = (line.split() for line in table.splitlines())
    return frozenset(int(words[1].rpartition(":")[2], 16) for words in lines if len(words) > 2 and ":" in words[1])
