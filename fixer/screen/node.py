"""What ``fixer doctor`` says of a node, for people: what it looked at, and each finding with its evidence and cure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from fixer.doctor.check import Ailment, Verdict
from fixer.doctor.node import Node
from fixer.screen.console import Console, rows, say

_STYLES = {Verdict.FAULT: "bold red", Verdict.UNCLEAR: "bold yellow", Verdict.HARMLESS: "bold"}
_WORDS = {Verdict.FAULT: "fault", Verdict.UNCLEAR: "unclear", Verdict.HARMLESS: "to know"}


def show(node: Node, found: Sequence[Ailment], console: Console) -> None:
    """The node in a few lines, then the findings, the worst first."""
    console.print(rows(_facts(node)))
    if not found:
        say(console)
        say(console, ("Nothing is wrong", "bold green"), " with what could be seen.")
    for number, each in enumerate(found, 1):
        say(console)
        say(
            console,
            (f"{number}  {_WORDS[each.verdict]}", _STYLES[each.verdict]),
            (f"  {each.who}  ", "bold"),
            f"({each.cause})",
        )
        say(console, each.text, indent=3)
        console.print(rows(_behind(each), title="dim"))
    if node.unseen:
        say(console)
        say(console, "Not seen: ", "; ".join(node.unseen), ".")


def _behind(each: Ailment) -> Iterator[tuple[str, str]]:
    for at, fact in enumerate(each.evidence):
        yield "   Evidence" if at == 0 else "", f"{fact.what}: {fact.packets:,}" if fact.packets else fact.what
    if each.now:
        yield "   Now", each.now
    if each.cure:
        yield "   To last", each.cure


def _facts(node: Node) -> Iterator[tuple[str, str]]:
    platform = node.platform
    upstream = (
        f" (made from {platform.upstream})" if platform.upstream and platform.upstream not in platform.release else ""
    )
    yield (
        "Kernel",
        f"{platform.release or 'unknown'}{upstream}" + (f", {platform.distribution}" if platform.distribution else ""),
    )
    if platform.vendor or platform.product:
        yield "Machine", f"{platform.vendor} {platform.product}".strip()
    for nic in node.nics():
        left = (
            f"{left} on"
            if (left := nic.computes())
            else "checksums finished by the kernel"
            if nic.features
            else "features unknown"
        )
        yield "NIC", f"{nic.what}, MTU {nic.mtu}, {left}"
    tunnels = list(node.tunnels())
    for space, device in tunnels:
        if vxlan := device.vxlan:
            vni = "any VNI" if vxlan.vni is None else f"VNI {vxlan.vni}"
            sums = "outer checksum" if vxlan.outer_checksum else "no outer checksum"
            yield "VXLAN", f"{device.name}{space.where}, UDP {vxlan.port}, {vni}, MTU {device.mtu}, {sums}"
    if not tunnels:
        yield "VXLAN", "none"
    if len(node.spaces) > 1:
        yield "Namespaces", f"{len(node.spaces)}"
    kinds = Counter(bridge.is_userspace for bridge in node.bridges)
    if kinds:
        yield "OVS", f"{kinds[False]} bridges in the kernel, {kinds[True]} in user space"
