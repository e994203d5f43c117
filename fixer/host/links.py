"""The interfaces on which packets of the underlay arrive: how long one may be, and whether GRO merges several of them.

``ip`` is asked, and not ``/sys/class/net``, which shows the network namespace that mounted it, whatever ours is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from fixer.errors import FileUnreadable, FixerError, SystemRefused
from fixer.host import tunnels
from fixer.host.machine import Host
from fixer.host.tunnels import Tunnel

ETHERNET_MTU = 1500

# They hand out what was inside a tunnel, with an MTU that no wire has (Open vSwitch: 65,000), or copies for a sniffer.
_NO_UNDERLAY = {"vxlan", "geneve", "gretap", "ip6gretap", "erspan", "ip6erspan", "nlmon"}
_ON_TOP = {"vlan", "macvlan", "ipvlan", "macsec"}
_MERGERS = re.compile(r"^(?:generic|large)-receive-offload: (on|off)", re.MULTILINE)


class Link(NamedTuple):
    """One interface. ``kind`` is what made it (``veth``, ``bridge``), '' for a device; ``lower`` what it stands on."""

    name: str
    mtu: int
    kind: str = ""
    is_up: bool = True
    has_address: bool = False
    master: str = ""
    lower: str = ""
    is_ethernet: bool = True


def every(host: Host) -> list[Link]:
    """Every interface of the namespace that may belong to an underlay; :class:`FixerError` if that cannot be told."""
    return look(host)[0]


def look(host: Host) -> tuple[list[Link], list[Tunnel]]:
    """As :func:`every`, and the VXLAN devices there are."""
    done = host.run(["ip", "-details", "-json", "address", "show"])
    if done.status != 0:
        raise SystemRefused(f"the interfaces cannot be listed: ip: {' '.join(done.err.split())}")
    try:
        said = msgspec.json.decode(done.out)
        found = [_read(each) for each in said if each.get("link_type") != "loopback"]
        ends = tunnels.read(said)
    except (msgspec.DecodeError, KeyError) as error:
        raise SystemRefused("the interfaces cannot be listed: ip -json is too old to be understood") from error
    return [link for link in found if link.kind not in _NO_UNDERLAY], ends


def _read(each: dict[str, Any]) -> Link:
    kind = each.get("linkinfo", {}).get("info_kind", "")
    return Link(
        name=each["ifname"],
        mtu=each["mtu"],
        kind=kind,
        is_up="UP" in each["flags"],
        has_address=any(address.get("scope") == "global" for address in each.get("addr_info", [])),
        master=each.get("master", ""),
        lower=each.get("link", "") if kind in _ON_TOP else "",
        is_ethernet=each.get("link_type") == "ether",
    )


def named(links: Sequence[Link], interface: str | None) -> list[Link]:
    """Those that ``iptables -i`` means (``eth+``: all whose names begin so); without an interface all of them."""
    if interface is None:
        return list(links)
    if interface.endswith("+"):
        return [link for link in links if link.name.startswith(interface[:-1])]
    return [link for link in links if link.name == interface]


def longest_packet(host: Host, interface: str | None) -> int:
    """Bytes of the longest packet that can come from a wire: the largest MTU of ``interface`` or of all there are.

    Rather too large than too small: what is longer is taken for merged, and never looked at. An interface that is down
    counts, and Ethernet's 1,500 always, for one that is not there yet. Raises :class:`FileUnreadable` if ``interface``
    does not exist.
    """
    links = named(every(host), interface)
    if interface is not None and not links:
        raise FileUnreadable(f"there is no interface {interface} to read the MTU of; name that with --mtu BYTES")
    return max([ETHERNET_MTU, *(link.mtu for link in links)])


def carriers(links: Sequence[Link], interface: str | None) -> list[Link]:
    """Where the packets that arrive on ``interface`` are received: GRO works there, and not on a bond or VLAN above.

    Without an interface: every device that is up; where there is none, in a container, what has an address.
    """
    if interface is None:
        up = [link for link in links if link.is_up]
        return [link for link in up if not link.kind] or [link for link in up if link.has_address]
    reached = named(links, interface)
    for link in reached:  # which grows on the way down
        reached += [each for each in _below(link, links) if each not in reached]
    return [link for link in reached if not _below(link, links)]


def _below(link: Link, links: Sequence[Link]) -> list[Link]:
    return [each for each in links if each.master == link.name or each.name == link.lower]


def merging(host: Host, links: Iterable[Link]) -> dict[str, bool | None]:
    """Whether each interface merges the packets it receives (GRO or LRO); None where ethtool cannot tell."""
    found: dict[str, bool | None] = {}
    for link in links:
        try:
            said = _MERGERS.findall(host.run(["ethtool", "-k", link.name]).out)
        except FixerError:
            said = []
        found[link.name] = "on" in said if said else None
    return found
