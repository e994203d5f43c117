"""Every check there is, in the order in which their findings are told; and what all of them say of a node."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from fixer.doctor import hardware, kept, nat, path, refused, timestamps, tunnels
from fixer.doctor.check import Ailment, Check, Verdict, ailment
from fixer.doctor.node import Node


def recycling(node: Node) -> Iterator[Ailment]:
    """:mod:`fixer.doctor.timestamps` has all of it."""
    found = timestamps.diagnose(node.server)
    server = node.server
    if found.verdict == "unaffected" or not (server.kernel or server.counters):
        return
    refused_so_far = server.counters.paws_passive if server.counters else None
    growing = server.growth.paws_passive if server.growth else None
    shown: list[str | tuple[str, int]] = [f"kernel {server.release}", f"net.ipv4.tcp_tw_recycle {server.tw_recycle}"]
    if growing:
        shown.append((f"PAWSPassive grew in {node.seconds:g} s", growing))
    elif refused_so_far:
        shown.append(("PAWSPassive", refused_so_far))
    shown_to_refuse = bool(growing or (refused_so_far and server.tw_recycle))
    yield ailment(
        "host",
        "tw_recycle",
        Verdict.FAULT if shown_to_refuse else Verdict.UNCLEAR,
        f"This server refuses clients that share a source address (SNAT) for their TCP timestamps: {found.because} "
        f"`fixer doctor timestamps` has what helps until it is cured.",
        shown,
        now="`sysctl -w net.ipv4.tcp_tw_recycle=0`"
        + (f'; or `timestamps.mode = "{found.mode}"` in fixer.toml' if found.mode else ""),
        cure="take it out of the file that sets it: `grep -rs tcp_tw_recycle /etc/sysctl.conf /etc/sysctl.d`",
        kernel="4396e46187ca: 4.12",
    )


CHECKS: tuple[Check, ...] = (
    *refused.CHECKS,
    *kept.CHECKS,
    *nat.CHECKS,
    *hardware.CHECKS,
    *tunnels.CHECKS,
    Check(
        "timestamps",
        "`tcp_tw_recycle`, `PAWSPassive`, the kernel: `fixer doctor timestamps`",
        ("tw_recycle",),
        {
            Verdict.FAULT: "it is on, and SYNs were refused for their timestamps",
            Verdict.UNCLEAR: "it is on and refused none so far, or cannot be seen on a kernel that has it",
        },
        ("https://github.com/flannel-io/flannel/issues/530", "https://git.kernel.org/linus/4396e46187ca"),
        recycling,
    ),
    *path.CHECKS,
)

_ORDER = list(Verdict)


def diagnose(node: Node) -> list[Ailment]:
    """What all of them say: faults first, then what is unclear, then what is to be known. Nothing of a healthy node."""
    found = [dataclasses.replace(each, check=check.name) for check in CHECKS for each in check.judge(node)]
    return sorted(found, key=lambda each: _ORDER.index(each.verdict))


def exit_code(found: list[Ailment]) -> int:
    """0: nothing is wrong; 3: something is, or that cannot be told."""
    return 3 if any(each.verdict is not Verdict.HARMLESS for each in found) else 0
