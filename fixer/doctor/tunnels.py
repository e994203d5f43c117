"""VXLAN devices: what they refuse, what does not fit, who never hears an answer, and what is no VXLAN."""

from __future__ import annotations

from collections.abc import Iterator

from fixer.doctor.check import Ailment, Check, Verdict, ailment
from fixer.doctor.node import Node, Space
from fixer.doctor.symptoms import refused_before, refused_now
from fixer.host import devices
from fixer.host.devices import OVERHEAD, Device, Vxlan

SENT = 50
"""Packets that a tunnel whose peers live has an answer to."""

FRAGMENTS = {4: ("Ip.FragCreates", "Ip.FragFails"), 6: ("Ip6.FragCreates", "Ip6.FragFails")}
"""What counts packets that did not fit, by IP version of the underlay."""

NSX_PORTS = (4789, 8472)
"""What VMware's NSX uses for itself, newer and older: it takes a guest's packets to them for its own."""


def zero6(node: Node) -> Iterator[Ailment]:
    """The kernel refuses UDP over IPv6 without a checksum unless the socket allows it (RFC 6935, udp6_csum_init)."""
    for space, device, vxlan in _all(node):
        if vxlan.version != 6 or vxlan.takes_zero6:
            continue
        now = refused_now(node, space, "Udp6.InCsumErrors")
        # What was refused long ago may be somebody else's, and over.
        count = now or (refused_before(space, "Udp6.InCsumErrors") if node.before is None else 0)
        if not count and vxlan.outer_checksum:
            continue
        shown: list[str | tuple[str, int]] = [f"`ip -d link show {device.name}`: noudp6zerocsumrx{space.where}"]
        text = f"{device.name}{space.where} takes no packet without an outer checksum over IPv6"
        if count:
            shown.append((f"Udp6.InCsumErrors{' grew' * bool(now)}{space.where}", count))
            text += f", and {count:,} datagrams were refused for their checksum"
            text += (
                f" in {node.seconds:g} s."
                if now
                else " since the start, of this or of something else: `--watch 10` tells if they are now."
            )
        else:
            shown.append(f"`ip -d link show {device.name}`: udp6zerocsumtx{space.where}")
            text += ", and itself sends such: a peer set up alike refuses all of them."
        yield ailment(
            device.name,
            "outer_zero_over_ipv6",
            Verdict.FAULT if now else Verdict.UNCLEAR,
            text,
            shown,
            now='`fixer on` and `fixer run` on the host that receives, with `policy.outer_absent6 = "repair"`',
            cure="make the device with `udp6zerocsumrx` on both sides, or with `noudp6zerocsumtx` on the sender's",
            vnis=_vnis(vxlan),
        )


def mtu(node: Node) -> Iterator[Ailment]:
    """A device that brings no VNI of its own (Cilium's) leaves the MTU to routes: its own says nothing."""
    for space, device, vxlan in _all(node):
        carrier = devices.below(vxlan, node.here.devices if vxlan.ends_elsewhere else space.devices)
        needed = device.mtu + OVERHEAD[vxlan.version]
        if carrier is None or needed <= carrier.mtu or vxlan.vni is None:
            continue
        shown: list[str | tuple[str, int]] = [
            f"MTU {device.mtu} of {device.name}{space.where}, {carrier.mtu} of {carrier.name}"
        ]
        # Whoever else sends large packets moves these counters too: they prove nothing of a tunnel that sends nothing.
        underlay = node.here if vxlan.ends_elsewhere else space
        for name in FRAGMENTS[vxlan.version] if node.sent(space, device) else ():
            if grown := node.growth(underlay, name):
                shown.append((f"{name} grew{underlay.where}", grown))
        yield ailment(
            device.name,
            "mtu",
            Verdict.FAULT if len(shown) > 1 else Verdict.UNCLEAR,
            f"A full packet of {device.name}{space.where} ({device.mtu} bytes) needs {needed} on {carrier.name}, "
            f"which takes "
            f"{carrier.mtu}: it is fragmented, or vanishes where a firewall drops fragments or ICMP. Small ones pass."
            + ("" if len(shown) > 1 else " `--watch 10` under load tells if it happens now."),
            shown,
            now=f"`ip link set {device.name} mtu {carrier.mtu - OVERHEAD[vxlan.version]}`",
            cure="the MTU in the overlay's own configuration (flannel's `MTU`, Calico's `vxlanMTU`, Docker's "
            "`com.docker.network.driver.mtu`), or a larger one on the underlay, everywhere",
            vnis=_vnis(vxlan),
        )


def unheard(node: Node) -> Iterator[Ailment]:
    """On ESXi; elsewhere a tunnel without peers is no sign of anything."""
    if not node.platform.is_vmware:
        return
    for space, device, vxlan in _all(node):
        sent, received = device.sent, device.received
        if vxlan.port in NSX_PORTS and sent is not None and sent >= SENT and received == 0:
            yield ailment(
                device.name,
                "hypervisor_takes_port",
                Verdict.UNCLEAR,
                f"{device.name}{space.where} has sent {sent:,} packets and received none, on a VMware host, to UDP "
                f"port {vxlan.port}, which NSX uses for itself: it takes a guest's packets to it for its own and "
                "drops them. What decides: a capture on the other side, where nothing arrives; or another port.",
                [
                    f"machine: {node.platform.vendor} {node.platform.product}",
                    f"{device.name}: received 0",
                    (f"{device.name}: sent", sent),
                ],
                cure="another port for the overlay (flannel's `Backend.Port`, Calico's `vxlanPort`, Cilium's "
                "`tunnelPort`, Docker's `--data-path-port`), and in fixer's `vxlan.ports`",
                vnis=_vnis(vxlan),
            )


def unlisted(node: Node) -> Iterator[Ailment]:
    missing = sorted({vxlan.port for _, _, vxlan in _all(node)} - set(node.ports))
    if missing:
        ports = ", ".join(map(str, (*node.ports, *missing)))
        names = ", ".join(sorted({device.name for _, device, vxlan in _all(node) if vxlan.port in missing}))
        yield ailment(
            names,
            "port_unlisted",
            Verdict.HARMLESS,
            f"VXLAN ends here on UDP port {', '.join(map(str, missing))} ({names}), which the configuration of fixer "
            "does not have: it would not be looked at.",
            [f"`ip -d link show {names.partition(',')[0]}`: dstport {missing[0]}"],
            cure=f"in /etc/fixer/fixer.toml: `[vxlan] ports = [{ports}]`",
        )


def geneve(node: Node) -> Iterator[Ailment]:
    found = [device.name for space in node.spaces for device in space.devices if device.kind == "geneve"]
    if found and not any(node.tunnels()):
        yield ailment(
            ", ".join(found),
            "geneve",
            Verdict.HARMLESS,
            f"The overlay of this node is Geneve ({', '.join(found)}), not VXLAN: fixer recognises it and repairs "
            "nothing of it. What `fixer cure` does at the sender helps there too.",
            [f"`ip -d link show {found[0]}`: geneve"],
        )


def _all(node: Node) -> Iterator[tuple[Space, Device, Vxlan]]:
    return ((space, device, device.vxlan) for space, device in node.tunnels() if device.vxlan)


def _vnis(vxlan: Vxlan) -> tuple[int, ...]:
    return () if vxlan.vni is None else (vxlan.vni,)


CHECKS = (
    Check(
        "zero6",
        "VXLAN over IPv6: `udp6zerocsumrx`, `udp6zerocsumtx`, `Udp6InCsumErrors`",
        ("outer_zero_over_ipv6",),
        {
            Verdict.FAULT: "the device takes no packet without outer checksum, and datagrams are refused while it "
            "watches",
            Verdict.UNCLEAR: "datagrams were refused since the start; or it takes none and sends such",
        },
        ("https://github.com/freifunk-gluon/gluon/issues/3783", "RFC 6935, RFC 6936"),
        zero6,
    ),
    Check(
        "mtu",
        "the MTU of each VXLAN device and of what carries it; `FragCreates`, `FragFails`",
        ("mtu",),
        {
            Verdict.FAULT: "a full packet does not fit, and while it watches the device sends, and packets are "
            "fragmented or refused for that",
            Verdict.UNCLEAR: "a full packet does not fit",
        },
        (
            "https://github.com/kubeovn/kube-ovn/issues/1457",
            "https://github.com/kubeovn/kube-ovn/issues/2155",
            "RFC 7348, 4.3",
        ),
        mtu,
    ),
    Check(
        "unheard",
        "on VMware: what a VXLAN device on port 4789 or 8472 has sent and received",
        ("hypervisor_takes_port",),
        {Verdict.UNCLEAR: "it has sent fifty packets or more and received none"},
        (
            "https://github.com/flannel-io/flannel/issues/2388",
            "https://github.com/flannel-io/flannel/issues/423",
            "https://github.com/projectcalico/calico/issues/9433",
            "https://github.com/cloudfoundry/cf-networking-release/issues/12",
        ),
        unheard,
    ),
    Check(
        "unlisted",
        "the ports of the VXLAN devices, and `vxlan.ports` of the configuration",
        ("port_unlisted",),
        {Verdict.HARMLESS: "the configuration lacks one"},
        (),
        unlisted,
    ),
    Check(
        "geneve",
        "Geneve devices",
        ("geneve",),
        {Verdict.HARMLESS: "there are some, and no VXLAN device"},
        ("RFC 8926",),
        geneve,
    ),
)
