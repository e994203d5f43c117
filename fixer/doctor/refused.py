"""Does this host refuse packets for their checksum, now or so far, and of which layer?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from fixer.doctor.check import Ailment, Check, Verdict, ailment
from fixer.doctor.node import Node, Space
from fixer.doctor.releases import NAT_OF_ZERO
from fixer.doctor.symptoms import CHECKSUMS, refused_before, refused_now
from fixer.host.devices import Vxlan

MOST_TOLD = 5
"""Counters that are evidence one by one: the worst."""

_NOW = "`fixer on` and `fixer run` here"
_CURE = (
    "on the sender's node: `fixer cure`; `fixer run --monitor` or a capture from here given to `fixer scan` names it"
)
_WHO = "Who sends them, unfinished or damaged, tells `fixer run --monitor`, or `fixer scan` of a capture."


class Counted(NamedTuple):
    """One counter of one namespace that tells of refusals: while it was watched, and since the start."""

    space: Space
    name: str
    now: int
    so_far: int


def judge(node: Node) -> Iterator[Ailment]:
    """One finding for each layer, whatever the number of namespaces: a node may have hundreds."""
    layers: dict[str, list[Counted]] = {}
    for space in node.spaces:
        for name in CHECKSUMS:
            if name == "Udp6.InCsumErrors" and any(not vxlan.takes_zero6 for vxlan in _over_ipv6(node)):
                continue  # `zero6` has an answer to that
            counted = Counted(space, name, refused_now(node, space, name), refused_before(space, name))
            if counted.now or (counted.so_far and node.before is None):
                layers.setdefault(_layer(node, counted), []).append(counted)
    for cause, counters in layers.items():
        yield _refused(node, cause, counters)


def _layer(node: Node, counted: Counted) -> str:
    # Where TCP inside is refused, the outer checksums of its packets were not: then UDP's are most likely inside too.
    if counted.name == "Tcp.InCsumErrors" or not _ends_here(node, counted.space) or _tcp_refused(node):
        return "inner_refused"
    return "outer_zero_rewritten" if _sends_none(node) else "outer_refused"


def _refused(node: Node, cause: str, counters: list[Counted]) -> Ailment:
    now = sum(counted.now for counted in counters)
    what = "TCP segments" if all(counted.name == "Tcp.InCsumErrors" for counted in counters) else "UDP datagrams"
    if len({counted.name for counted in counters}) > 1:
        what = "packets"
    where = (
        counters[0].space.where
        if len(counters) == 1
        else f" in {len({each.space.option for each in counters})} namespaces"
    )
    if now:
        text = f"This host refuses {what} for their checksum{where}: {now:,} in {node.seconds:g} s."
    else:
        count = sum(counted.so_far for counted in counters)
        text = f"This host has refused {count:,} {what} for their checksum{where}; `--watch 10` tells if it does now."
    worst = sorted(counters, key=lambda counted: (counted.now, counted.so_far), reverse=True)[:MOST_TOLD]
    shown: list[str | tuple[str, int]] = [
        (f"{each.name}{' grew' * bool(each.now)}{each.space.where}", each.now or each.so_far) for each in worst
    ]
    cure, kernel = _CURE, ""
    if cause == "outer_zero_rewritten":
        text += (
            " Its own tunnels send no outer checksum. If its peers are set up alike, somebody on the way has written "
            f"one into an empty field: a NAT or middlebox, or the sender's kernel before {NAT_OF_ZERO.commit}. {_WHO}"
        )
        shown.append("no tunnel here writes an outer checksum")
        cure = "let no NAT stand between VTEPs, or let the senders write an outer checksum (`udpcsum`)"
        kernel = NAT_OF_ZERO.versions
    elif any(node.tunnels()):
        layer = "the outer checksum, or that of UDP inside" if cause == "outer_refused" else "the inner checksum"
        text += f" Where VXLAN ends, that is {layer}: never finished by its sender, or damaged on the way. {_WHO}"
    else:
        text += f" No VXLAN ends here: a sender whose checksums nobody finishes (a userspace switch), or damage. {_WHO}"
    verdict = Verdict.FAULT if now else Verdict.UNCLEAR
    carried = _NOW if any(node.tunnels()) else f"{_NOW}, both with `--plain`"
    return ailment("host", cause, verdict, text, shown, now=carried, cure=cure, kernel=kernel)


def _ends_here(node: Node, space: Space) -> bool:
    """Whether VXLAN arrives in this namespace: the device may stand in a sandbox, and its socket in the host's."""
    return any(
        each is space or (device.vxlan is not None and device.vxlan.ends_elsewhere and space is node.here)
        for each, device in node.tunnels()
    )


def _sends_none(node: Node) -> bool:
    tunnels = [device.vxlan for _, device in node.tunnels() if device.vxlan]
    return bool(tunnels) and all(vxlan.version == 4 and not vxlan.outer_checksum for vxlan in tunnels)


def _tcp_refused(node: Node) -> bool:
    return any(
        refused_now(node, space, "Tcp.InCsumErrors") or refused_before(space, "Tcp.InCsumErrors")
        for space in node.spaces
    )


def _over_ipv6(node: Node) -> Iterator[Vxlan]:
    return (device.vxlan for _, device in node.tunnels() if device.vxlan and device.vxlan.version == 6)


CHECKS = (
    Check(
        name="refused",
        looks_at="`InCsumErrors` of UDP and TCP in every namespace; with `--watch`, whether they grow",
        causes=("inner_refused", "outer_refused", "outer_zero_rewritten"),
        says={
            Verdict.FAULT: "they grow while it watches",
            Verdict.UNCLEAR: "there are ten or more, and more than one in a thousand of what came in, since the start",
        },
        sources=(
            "https://github.com/mitchross/talos-argocd-proxmox/pull/1953",
            "https://github.com/cilium/cilium/issues/28707",
        ),
        judge=judge,
    ),
)
