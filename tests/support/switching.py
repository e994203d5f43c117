"""`fixer on` and `fixer off` as their users meet them: what is done, and the lines about it."""

from __future__ import annotations

from collections.abc import Sequence

from support.netns import Namespace

from fixer.host.machine import Host
from fixer.rules import switch
from fixer.rules.iptables import COMMANDS, Variant
from fixer.rules.rawtable import RawTable, parse
from fixer.rules.selection import Family, Selection
from fixer.screen.changes import turned_off, turned_on


def turn_on(host: Host, selection: Selection, variant: Variant | None = None) -> list[str]:
    return turned_on(switch.on(host, selection, variant))


def turn_off(host: Host) -> list[str]:
    return turned_off(switch.off(host))


def raw_table(netns: Namespace, family: Family, variant: Variant) -> RawTable:
    return parse(netns.run(f"{COMMANDS[family]}-{variant}-save", "-c", "-t", "raw").out)


def option(words: Sequence[str], name: str) -> str:
    """What stands behind an option in a rule's words."""
    return words[words.index(name) + 1]
