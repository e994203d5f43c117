"""``fixer doctor --json``: what was seen and what is to be said of it, as one object (docs/doctor.schema.json)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from fixer.doctor.check import Ailment
from fixer.doctor.checks import exit_code
from fixer.doctor.node import Node


def as_object(node: Node, found: Sequence[Ailment]) -> dict[str, Any]:
    """Rules and entries of conntrack are left out: what of them matters is evidence of a finding."""
    return {
        "verdict": found[0].verdict if found else "healthy",
        "findings": [each.as_object() for each in found],
        "node": {
            "platform": msgspec.to_builtins(node.platform),
            "nics": [msgspec.to_builtins(nic) for nic in node.nics()],
            "tunnels": [msgspec.to_builtins(device) | {"namespace": space.option} for space, device in node.tunnels()],
            "bridges": msgspec.to_builtins(node.bridges),
            "settings": node.settings,
            "namespaces": len(node.spaces),
        },
        "watched": node.seconds,
        "unseen": node.unseen,
        "exit_code": exit_code(list(found)),
    }
