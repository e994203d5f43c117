"""The network devices of a namespace as they stand: what they are, what VXLAN is told to do, and what a NIC is left to.

``ip`` and ``ethtool`` are asked, and not ``/sys/class/net``, which shows the network namespace that mounted it. Neither
needs root.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from fixer.errors import FixerError
from fixer.host import plainip, tunnels
from fixer.host.counters import received_and_sent
from fixer.host.machine import Host

OVERHEAD = {4: 50, 6: 70}
"""Bytes that VXLAN puts around a packet, by IP version of the underlay: IP, UDP, VXLAN, inner Ethernet (RFC 7348)."""

_NO_WIRE = {"dummy", "ifb", "nlmon", "vrf"}
"""Kinds that have a node's address and carry nothing: what is sent from it leaves by another device."""

_FEATURE = re.compile(r"^\s*([a-z0-9_-]+): ((?:on|off)\b.*)$", re.MULTILINE)
_DRIVER = re.compile(r"^(driver|version|firmware-version): (.*)$", re.MULTILINE)


class Vxlan(Struct, frozen=True):
    """What a VXLAN device is told to do."""

    vni: int | None
    """None: each packet brings its own (``external``)."""
    port: int
    version: int
    """IP version of the underlay; 4 if nothing says so."""
    local: str
    lower: str
    """The device below that it is bound to; '' if routing chooses."""
    outer_checksum: bool
    """Whether it writes an outer UDP checksum: over IPv4 ``udpcsum``, over IPv6 no ``udp6zerocsumtx``."""
    takes_zero6: bool
    """Whether it accepts packets without one over IPv6 (``udp6zerocsumrx``); over IPv4 it always does."""
    ends_elsewhere: bool
    """Whether its packets arrive in another namespace: Docker moves it into a sandbox."""


class Device(Struct, frozen=True):
    """One interface. ``kind`` is what made it (``veth``, ``bridge``), '' for a NIC."""

    name: str
    kind: str
    mtu: int
    is_up: bool
    addresses: tuple[str, ...] = ()
    vxlan: Vxlan | None = None
    programs: tuple[str, ...] = ()
    """eBPF that sees packets before the rules do: ``XDP``, ``tc``."""
    features: dict[str, str] = {}
    """As ``ethtool -k`` says them: ``on``, ``off``, ``off [fixed]``, ``off [requested on]``; empty: not asked."""
    driver: dict[str, str] = {}
    """As ``ethtool -i`` says it: driver, version, firmware-version; empty: not asked."""
    received: int | None = None
    sent: int | None = None
    """Packets, since it is there."""

    def has(self, feature: str) -> bool:
        """Whether it does this (``tx-checksum-ip-generic``) now."""
        return self.features.get(feature, "").startswith("on")

    def computes(self) -> str | None:
        """The feature by which transmit checksums are left to it; None if the kernel finishes them itself."""
        names = ("tx-checksum-ip-generic", "tx-checksum-ipv4", "tx-checksum-ipv6")
        return next((name for name in names if self.has(name)), None)

    @property
    def what(self) -> str:
        """Its name and what drives it, for people."""
        driver = self.driver.get("driver") or self.kind
        return f"{self.name} ({driver})" if driver else self.name


def look(host: Host) -> list[Device]:
    """Every device of the thread's namespace but loopback; NICs and VXLAN devices with driver and features.

    Raises :class:`fixer.errors.SystemRefused` (they cannot be listed), :class:`fixer.errors.ProgramMissing` (no ip).
    """
    traffic = received_and_sent(host)
    found = [_read(each, traffic) for each in _links(host) if each.get("link_type") != "loopback"]
    asked = {device.name for device in nics(found)} | {device.name for device in found if device.vxlan}
    return [_asked(host, device) if device.name in asked else device for device in found]


def features(host: Host, name: str) -> dict[str, str]:
    """What ``ethtool -k`` says of each feature of a device; empty if it cannot be asked."""
    return dict(_FEATURE.findall(_said(host, "ethtool", "-k", name)))


def nics(devices: Sequence[Device]) -> list[Device]:
    """What packets of the underlay come from: NICs that are up; where there is none (a container), what has an address,
    is no tunnel and leads to a wire."""
    up = [device for device in devices if device.is_up and device.vxlan is None and device.kind not in _NO_WIRE]
    return [device for device in up if not device.kind] or [device for device in up if device.addresses]


def below(tunnel: Vxlan, devices: Sequence[Device]) -> Device | None:
    """The device of this namespace that carries a tunnel: it is bound to it, or has its address; the only NIC."""
    for device in devices:
        if device.kind in _NO_WIRE:
            continue
        if device.name == tunnel.lower or (tunnel.local and tunnel.local in device.addresses):
            return device
    candidates = nics(devices)
    return candidates[0] if len(candidates) == 1 and not tunnel.lower else None


def _links(host: Host) -> list[dict[str, Any]]:
    done = host.run(["ip", "-details", "-json", "address", "show"])
    try:
        said = msgspec.json.decode(done.out, type=list[dict[str, Any]])
    except msgspec.DecodeError:
        return plainip.links(host)
    # Some versions in between have -json, and print what is in ``linkinfo`` beside it.
    return said if all("ifname" in each and "mtu" in each and "flags" in each for each in said) else plainip.links(host)


def _read(each: dict[str, Any], traffic: dict[str, tuple[int, int]]) -> Device:
    info = each.get("linkinfo", {})
    kind = info.get("info_kind", "")
    data = info.get("info_data", {}) if kind == "vxlan" else {}
    received, sent = traffic.get(each["ifname"], (None, None))
    return Device(
        name=each["ifname"],
        kind=kind,
        mtu=each["mtu"],
        is_up="UP" in each["flags"],
        addresses=tuple(found["local"] for found in each.get("addr_info", []) if found.get("scope") == "global"),
        vxlan=_vxlan(data, "link_netnsid" in each) if isinstance(data.get("port"), int) else None,
        received=received,
        sent=sent,
    )


def _vxlan(data: dict[str, Any], elsewhere: bool) -> Vxlan:
    version = 6 if {"local6", "remote6", "group6"} & data.keys() else 4
    sums = data.get("udp_csum", True) if version == 4 else not data.get("udp_zero_csum6_tx", False)
    return Vxlan(
        vni=None if data.get("external") else data.get("id"),
        port=data["port"],
        version=version,
        local=data.get("local6" if version == 6 else "local", ""),
        lower=data.get("link", ""),
        outer_checksum=bool(sums) and not data.get("external", False),
        takes_zero6=bool(data.get("udp_zero_csum6_rx", False)),
        ends_elsewhere=elsewhere,
    )


def _asked(host: Host, device: Device) -> Device:
    return msgspec.structs.replace(
        device,
        features=features(host, device.name),
        driver=dict(_DRIVER.findall(_said(host, "ethtool", "-i", device.name))),
        programs=() if device.vxlan else tuple(tunnels.programs(host, device.name)),
    )


def _said(host: Host, *argv: str) -> str:
    """What a command says; nothing where it is missing or refuses: what is not known is then not judged."""
    try:
        return host.run(argv).out
    except FixerError:
        return ""
