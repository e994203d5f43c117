"""What was applied, and what was there before: one file for each device, so that it can be checked and undone.

It lies where a reboot does not take it, and is the backup of every file that was changed.
"""

from __future__ import annotations

import json

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
    return f"{DIRECTORY}/{device}.json"


def load(host: Host, device: str) -> Record | None:
    """None if nothing was applied to it. Raises :class:`SystemRefused` if the file is damaged."""
    text = host.read(path(device))
    if text is None:
        return None
    try:
        return msgspec.convert(json.loads(text), Record)
    except (ValueError, msgspec.ValidationError) as error:
        raise SystemRefused(f"{path(device)} is damaged ({error}): undo by hand what it names, and remove it") from None


def every(host: Host) -> list[Record]:
    """All that was applied on this node."""
    return [record for device in devices(host) if (record := load(host, device))]


def devices(host: Host) -> list[str]:
    """The devices that have a record."""
    return [name.removesuffix(".json") for name in host.listed(DIRECTORY) if name.endswith(".json")]


def save(host: Host, record: Record) -> None:
    # The standard library's: msgspec writes no surrogates, which stand for a file's bytes that are no UTF-8.
    text = json.dumps(msgspec.to_builtins(record), indent=2)
    # What somebody else wrote may be for root alone.
    is_ours = all(before is None for before in record.before.values())
    host.write(path(record.plan.setting.device), f"{text}\n", 0o644 if is_ours else 0o600)


def forget(host: Host, device: str) -> None:
    host.remove(path(device))
