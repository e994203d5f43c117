"""Does this node's own NAT touch the VXLAN that it sends, and does that break the outer checksum?

Two ways, both with checksums left to a device (CHECKSUM_PARTIAL): a kernel without ea64d8d6c675 writes into an outer
checksum of zero; and to this day (6.18 measured) a changed source port is not folded into an outer checksum that was
computed around an unfinished inner one (LCO). Without a random source port a MASQUERADE changes nothing of what the
node itself sends.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from fixer.doctor import releases
from fixer.doctor.check import Ailment, Check, Verdict, ailment
from fixer.doctor.node import Node
from fixer.doctor.releases import NAT_OF_ZERO
from fixer.host.devices import Device
from fixer.rules.ahead import Match, Traffic, match
from fixer.rules.rawtable import Line, RawTable

_RANDOM = {"--random", "--random-fully"}
_UNMARKS = re.compile(r"--(xor-mark|set-xmark) 0x0*4000/0x0|--xor-mark 0x0*4000")
_MARKED = re.compile(r"(?<!! )--mark 0x0*4000/0x0*4000")


class Rule(NamedTuple):
    """A rule that gives VXLAN of this node another source port."""

    saver: str
    line: Line
    is_double: bool
    """kube-proxy's: it meets the packet by its mark, before and after encapsulation."""


def judge(node: Node) -> Iterator[Ailment]:
    # With checksums finished before encapsulation nothing is left for NAT to spoil.
    tunnels = [device for _, device in node.tunnels() if device.vxlan and device.computes()]
    if not tunnels:
        return
    ours = {ipaddress.ip_address(address) for device in node.here.devices for address in device.addresses}
    rules, entries = list(_rules(node)), [line for line in node.conntrack if _is_given_a_port(line, ours)]
    if not rules and not entries:
        return
    for device in tunnels:
        yield from _of(node, device, rules, [line for line in entries if f"dport={_port(device)}" in line.split()])


def _of(node: Node, device: Device, rules: list[Rule], entries: list[str]) -> Iterator[Ailment]:
    if device.vxlan is None:
        return
    broken: bool | None = True
    kernel = ""
    if device.vxlan.outer_checksum:
        how = (
            f"{device.name} writes an outer checksum around an inner one that is not finished, and Linux (6.18 still) "
            "does not fold the new port into it"
        )
    else:
        broken, kernel = releases.has(NAT_OF_ZERO, node.platform), NAT_OF_ZERO.versions
        if broken is False:
            return
        how = f"{device.name} writes none, and {NAT_OF_ZERO.what}. {releases.said(NAT_OF_ZERO, node.platform)}".rstrip(
            "."
        )
    shown: list[str | tuple[str, int]] = [f"`{rule.saver} -t nat`: {rule.line}" for rule in rules[:2]]
    if entries:
        shown.append((f"conntrack: {entries[0].strip()}", len(entries)))
    shown.append(f"`ethtool -k {device.name}`: {device.computes()} on")
    double = any(rule.is_double for rule in rules)
    fact = (
        "NAT gives packets of this node's VXLAN another source port"
        if entries
        else "A NAT rule of this node meets its own VXLAN"
    )
    who = " (kube-proxy masquerades them twice: the mark stays with the packet through encapsulation)" if double else ""
    yield ailment(
        device.name,
        "double_masquerade" if double else "masquerade_random",
        Verdict.FAULT if entries and broken else Verdict.UNCLEAR,
        f"{fact}{who}. {how}: receivers refuse those packets, SYNs are sent again, and a connection takes 1 s, or 63."
        + (
            ""
            if entries
            else " What decides: `conntrack -L -p udp`, where dport of the reply is not sport, or a capture."
        ),
        shown,
        now=f"`ethtool -K {device.name} tx-checksum-ip-generic off`",
        cure=f"`fixer cure --device {device.name}`; and "
        + (
            "a kube-proxy that takes the mark off again (Kubernetes 1.19; after the upgrade start the node again, the "
            "old rules stay)"
            if double
            else f"no `--random-fully` for what goes to UDP port {device.vxlan.port}"
        ),
        kernel=kernel,
        vnis=() if device.vxlan.vni is None else (device.vxlan.vni,),
    )


def _port(device: Device) -> int:
    return device.vxlan.port if device.vxlan else 0


def _rules(node: Node) -> Iterator[Rule]:
    traffic = Traffic(frozenset({"udp"}), frozenset(_port(device) for _, device in node.tunnels()))
    for name, table in node.tables.items():
        saver, _, kind = name.partition(" ")
        if kind == "nat":
            for line in _reached(table, "POSTROUTING", traffic, node, frozenset()):
                yield Rule(saver, line, _MARKED.search(str(line)) is not None)


def _reached(table: RawTable, chain: str, traffic: Traffic, node: Node, seen: frozenset[str]) -> Iterator[Line]:
    """The rules that a packet of our VXLAN can come to and that give it another port."""
    unmarked = False
    for line in table.chains.get(chain, ()):
        unmarked = unmarked or (line.target == "MARK" and _UNMARKS.search(str(line)) is not None)
        how = match(line, traffic)
        if how is Match.NONE or not _concerns(line, node):
            continue
        if line.target in ("MASQUERADE", "SNAT") and _RANDOM & set(line.words):
            if not unmarked:
                yield line
        elif line.target in table.chains and line.target not in seen:
            yield from _reached(table, line.target, traffic, node, seen | {chain})
        elif how is Match.ALL and line.target in ("RETURN", "ACCEPT"):
            return


def _concerns(line: Line, node: Node) -> bool:
    """Whether a rule may mean packets between VTEPs: they leave by a NIC, and have its address, not a container's."""
    words = line.words
    nics = node.nics()
    addresses = [ipaddress.ip_address(address) for nic in nics for address in nic.addresses]
    for at, word in enumerate(words[:-1]):
        value, negated = words[at + 1], at > 0 and words[at - 1] == "!"
        if word == "-o" and not value.endswith("+") and (value in {nic.name for nic in nics}) is negated:
            return False
        if word in ("-s", "-d") and addresses:
            try:
                network = ipaddress.ip_network(value, strict=False)
            except ValueError:
                continue
            # Peers are taken to be where the NIC is: a rule for containers' addresses means other packets.
            if any(address in network for address in addresses if address.version == network.version) is negated:
                return False
    return True


def _is_given_a_port(line: str, ours: Collection[object]) -> bool:
    """Whether an entry is of a packet that this node sent, and was given another source port: ``src dst sport dport``
    twice, and the reply goes elsewhere.

    What containers send through here, an address alone that was changed, and what was redirected are other things.
    """
    values: dict[str, list[str]] = {}
    for name, value in re.findall(r"\b(src|dst|sport|dport)=(\S+)", line):
        values.setdefault(name, []).append(value)
    if any(len(values.get(name, ())) != 2 for name in ("src", "dst", "sport", "dport")):
        return False
    return ipaddress.ip_address(values["src"][0]) in ours and values["sport"][0] != values["dport"][1]


CHECKS = (
    Check(
        "nat",
        "`MASQUERADE --random-fully` and `SNAT --random` that the node's own VXLAN comes to, kube-proxy's mark among "
        "them; conntrack's entries of VXLAN; who finishes the VXLAN device's checksums; the kernel",
        ("double_masquerade", "masquerade_random"),
        {
            Verdict.FAULT: "conntrack has VXLAN of this node's own with another source port, checksums are left to a "
            "device, and an outer one is written or the kernel has no ea64d8d6c675",
            Verdict.UNCLEAR: "the same without such an entry; or the kernel may have it from its distribution",
        },
        (
            "https://github.com/projectcalico/calico/issues/3145",
            "https://github.com/projectcalico/calico/issues/4865",
            "https://github.com/kubernetes/kubernetes/pull/92035",
            "https://git.kernel.org/linus/ea64d8d6c675",
        ),
        judge,
    ),
)
