"""What was applied, and what was there before: one file for each device, so that it can be checked and undone.

It lies where a reboot does not take it, and is the backup of every file that was changed.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from fixer.cure.plan import Plan
from fixer.errors import SystemRefused
from fixer.host.machine import Host

DIRECTORY = "/var/lib/fixer/cure"


class Record(Struct, frozen=True):
    plan: Plan
    before: dict[str, str | None]
    """The text of each file before; None: there was none."""
    was: dict[str, str]
    """What ``ethtool -k`` said of each feature before: ``on``, ``off``."""


def path(device: str) -> str:
    return f"{DIRECTORY}/{device.replace('/', '_')}.json"


def load(host: Host, device: str) -> Record | None:
    """None if nothing was applied to it. Raises :class:`SystemRefused` if the file is damaged."""
    text = host.read(path(device))
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=Record)
    except msgspec.DecodeError as error:
        raise SystemRefused(f"{path(device)} is damaged ({error}): undo by hand what it names, and remove it") from None


def every(host: Host) -> list[Record]:
    """All that was applied on this node."""
    names = (name.removesuffix(".json") for name in host.listed(DIRECTORY) if name.endswith(".json"))
    return [record for name in names if (record := load(host, name))]


def save(host: Host, record: Record) -> None:
    host.write(
        path(record.plan.setting.device), msgspec.json.format(msgspec.json.encode(record), indent=2).decode() + "\n"
    )


def forget(host: Host, device: str) -> None:
    host.remove(path(device))
