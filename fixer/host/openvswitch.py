"""The bridges of Open vSwitch, where it runs: who forwards, the kernel or a process (``datapath_type`` netdev)."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from fixer.errors import FixerError
from fixer.host.machine import Host

_ASK = ["ovs-vsctl", "--timeout=3", "--no-wait", "--format=json", "--columns=name,datapath_type", "list", "bridge"]


class Bridge(Struct, frozen=True):
    name: str
    is_userspace: bool


def bridges(host: Host) -> list[Bridge]:
    """None where there is no Open vSwitch, or it does not answer."""
    if host.which(_ASK[0]) is None:
        return []
    try:
        done = host.run(_ASK)
        said = msgspec.json.decode(done.out) if done.status == 0 else {}
        return [Bridge(name, kind == "netdev") for name, kind in said.get("data", ())]
    except (FixerError, msgspec.DecodeError, TypeError, ValueError):
        return []
