"""What is to be turned off, on which devices: chosen, or read from what the node's devices do now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fixer.cure.plan import CHECKSUMS, Setting
from fixer.errors import CommandWrong, FileUnreadable
from fixer.host import devices
from fixer.host.devices import Device
from fixer.host.machine import Host


def chosen(host: Host, names: Sequence[str], features: Sequence[str]) -> list[Setting]:
    """A setting for each device: those named, or the NICs below this node's tunnels; the features named, or those by
    which the device computes transmit checksums.

    Raises :class:`FileUnreadable` (no such device), :class:`CommandWrong` (it cannot be told which, or has no such
    feature).
    """
    there = devices.look(host)
    return [_setting(host, device, features) for device in (_named(there, names) if names else carriers(there))]


def kind(host: Host, setting: Setting) -> Literal["nic", "tunnel"]:
    """For :func:`fixer.cure.plan.cost`."""
    device = next((each for each in devices.look(host) if each.name == setting.device), None)
    return "tunnel" if device and device.vxlan else "nic"


def carriers(there: Sequence[Device]) -> list[Device]:
    """The devices that carry this node's tunnels; without tunnels in sight its only NIC."""
    found = [below for each in there if each.vxlan and (below := devices.below(each.vxlan, there))]
    if not found and len(nics := devices.nics(there)) == 1:
        found = list(nics)
    if not found:
        raise CommandWrong("it cannot be told which NIC carries the tunnels: name it with --device")
    return list({device.name: device for device in found}.values())


def states(host: Host, setting: Setting) -> dict[str, str]:
    """What ``ethtool -k`` says now of each feature; one that the device does not have is left out."""
    said = devices.features(host, setting.device)
    return {name: said[name] for name in setting.features if name in said}


def _named(there: Sequence[Device], names: Sequence[str]) -> list[Device]:
    by_name = {device.name: device for device in there}
    for name in names:
        if name not in by_name:
            raise FileUnreadable(f"there is no interface {name} here; see: ip link")
    return [by_name[name] for name in dict.fromkeys(names)]


def _setting(host: Host, device: Device, features: Sequence[str]) -> Setting:
    said = device.features or devices.features(host, device.name)
    for name in features:
        if name not in said:
            raise CommandWrong(f"{device.name} has no feature {name}; see: ethtool -k {device.name}")
    able = [name for name in CHECKSUMS if name in said and "[fixed]" not in said[name]]
    wanted = tuple(features) or tuple(able[:1] if able[:1] == [CHECKSUMS[0]] else able)
    if not wanted:
        raise CommandWrong(
            f"{device.name} is not left to finish checksums, and cannot be: there is nothing to cure on it; "
            "--feature names another offload"
        )
    return Setting(device.name, wanted)
