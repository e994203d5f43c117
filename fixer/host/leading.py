"""What leads from this host's overlay to another host: what is only marked as verified leaves wrong there."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from fixer.host import links
from fixer.host.machine import Host

_FORWARDING = {"net.ipv4.ip_forward": "IPv4", "net.ipv6.conf.all.forwarding": "IPv6"}
_STAYS = "veth"
"""A port of this kind leads to a container of this host."""


def leads_on(host: Host, ports: Collection[int]) -> Iterator[str]:
    """What may take a packet of VXLAN to ``ports`` on to another host, a line each, by what shows from this namespace.

    Nothing is no proof: a container may forward. Raises :class:`SystemRefused` if the interfaces cannot be listed.
    """
    found, tunnels = links.look(host)
    ends = [end for end in tunnels if end.ends_here and end.port in ports]
    if not ends:
        yield "no VXLAN device is in this namespace, so where its packets go cannot be seen (Docker's networks)"
    for end in ends:
        ports_beside = [link.name for link in found if link.master == end.master and link.kind != _STAYS]
        ports_beside += [other.name for other in tunnels if other.master == end.master and other is not end]
        if end.master and ports_beside:
            yield f"{end.name} is a port of the bridge {end.master}, and so is {', '.join(ports_beside)}"
    for name, family in _FORWARDING.items():
        if host.peek(f"/proc/sys/{name.replace('.', '/')}").strip() not in ("", "0"):
            yield f"{name} is on: {family} is routed on from here"
