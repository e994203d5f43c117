"""What is to hold, and how it is kept: the setting, the files, the commands; nothing here asks or changes a host."""

from __future__ import annotations

import re
from typing import Literal

from msgspec import Struct

CHECKSUMS = ("tx-checksum-ip-generic", "tx-checksum-ipv4", "tx-checksum-ipv6")
"""By which of these a device computes transmit checksums: the first, or the other two (netdev-features.rst)."""

TUNNEL_SUMS = "tx-udp_tnl-csum-segmentation"
"""Splits what is inside a tunnel that has an outer checksum."""


_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*")


def is_safe(name: str) -> bool:
    """Whether a device's name may stand in paths, shell scripts, rules and options: the kernel allows far more."""
    return _SAFE.fullmatch(name) is not None


class Setting(Struct, frozen=True):
    """Features of a device that are to be off, as ``ethtool -k`` calls them."""

    device: str
    features: tuple[str, ...]

    @property
    def command(self) -> tuple[str, ...]:
        """What turns them off now."""
        return ("ethtool", "-K", self.device, *(word for name in self.features for word in (name, "off")))

    @property
    def is_checksums(self) -> bool:
        """Whether it is about transmit checksums alone, which every configurator has a word for."""
        return all(name.startswith("tx-checksum-") for name in self.features)

    @property
    def file_name(self) -> str:
        """The device as a part of a file's name for run-parts(8), which takes letters, digits, ``_`` and ``-`` alone.

        No two devices have the same: ``eth0.1`` is ``eth0_2e1``, ``eth0_1`` is ``eth0_5f1``.
        """
        return re.sub(r"[^A-Za-z0-9-]", lambda found: f"_{ord(found[0]):02x}", self.device)


class File(Struct, frozen=True):
    """A file as it is to be."""

    path: str
    text: str
    """With surrogates for bytes that are no UTF-8, as :meth:`fixer.host.machine.Host.read_exactly` has them."""
    mode: int | None = 0o644
    """None: as it is."""
    line: str = ""
    """In a file that others write too: what of it counts."""


class Command(Struct, frozen=True):
    """What a configurator is told, what undoes it, and what shows that it still knows: ``expected`` is its answer."""

    tell: tuple[str, ...]
    undo: tuple[str, ...]
    ask: tuple[str, ...]
    expected: str
    gone: int | None = None
    """The status by which ``ask`` says that nothing is left to undo."""


class Plan(Struct, frozen=True):
    """How a setting is kept."""

    keeper: str
    why: str
    """What shows that it is in charge of the device."""
    setting: Setting
    files: tuple[File, ...] = ()
    commands: tuple[Command, ...] = ()
    verify: tuple[str, ...] = ()
    """What must work once the files are written, or they are put back as they were: the configurator reads them."""
    by_hand: tuple[str, ...] = ()
    """Lines to type or to write elsewhere: it is kept where this node has no hand in it."""
    notes: tuple[str, ...] = ()

    @property
    def is_by_hand(self) -> bool:
        return not self.files and not self.commands


def cost(setting: Setting, kind: Literal["nic", "tunnel"]) -> str:
    """What it costs the sender, in a sentence or two (netdev_fix_features: without checksums no TSO)."""
    if kind == "tunnel":
        return (
            f"Costs TSO inside this tunnel: the kernel splits and sums what goes through {setting.device} before it is "
            "wrapped up. Everything else on the node keeps its offloads."
        )
    if any(name in CHECKSUMS for name in setting.features):
        return (
            f"Costs TSO of everything that leaves by {setting.device}, inside tunnels and outside: a device that "
            "computes no checksums cannot split. The kernel does both (GSO stays). Cheaper, where the outer checksum "
            "is zero or the NIC can compute it: the same for the VXLAN device alone (`--device`)."
        )
    if any("udp_tnl" in name for name in setting.features):
        return f"Costs TSO inside tunnels that leave by {setting.device}. Outside of them it keeps TSO and checksums."
    return f"Costs what {', '.join(setting.features)} saved on {setting.device}; checksums and TSO stay."
