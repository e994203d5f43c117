"""NICs and hypervisors that are known for a fault with tunnels, and kernels that break a guest's network.

Known is not shown: what has no symptom beside it (:mod:`fixer.doctor.symptoms`) is told, and accuses nobody.
"""

from __future__ import annotations

from collections.abc import Iterator

from fixer.cure.plan import TUNNEL_SUMS
from fixer.doctor import releases, symptoms
from fixer.doctor.check import Ailment, Check, Verdict, ailment
from fixer.doctor.node import Node
from fixer.doctor.releases import VETH_BELIEVES, VMXNET3_PORTS
from fixer.host.devices import Device

_STANDARD_PORTS = (4789, 8472)
"""The ports of VXLAN that vmxnet3 computes checksums for, beside Geneve's (b22580233d47, vmxnet3_features_check)."""

_DECIDES = (
    "What decides: a capture on the host that receives, given to `fixer scan`, or `fixer doctor --watch 10` there."
)


def vmxnet3(node: Node) -> Iterator[Ailment]:
    tunnels = [device for _, device in node.tunnels()]
    for nic in node.nics():
        if nic.driver.get("driver") != "vmxnet3" or not tunnels or nic.computes() is None:
            continue
        ill = list(symptoms.seen(node))
        text = (
            f"{nic.what} is left to finish checksums inside VXLAN. With VMware's virtual hardware 14 and newer it is "
            f"reported "
            f"again and again not to, with Docker Swarm, Calico, flannel and Cilium: ping works, TCP does not."
        )
        odd = sorted({device.vxlan.port for device in tunnels if device.vxlan} - set(_STANDARD_PORTS))
        older = releases.has(VMXNET3_PORTS, node.platform)
        if odd and older is not False and nic.has(TUNNEL_SUMS):
            text += f" And {VMXNET3_PORTS.what}, such as {odd[0]}. {releases.said(VMXNET3_PORTS, node.platform)}"
        if nic.has("tx-udp_tnl-segmentation"):
            text += (
                " Less may do: two reports were cured by `tx-udp_tnl-segmentation` and `tx-udp_tnl-csum-segmentation` "
                "off, which keeps TSO outside of tunnels."
            )
        yield _suspect(nic, "offload_vmxnet3", text, _left_to(nic), ill, f"tx-checksum-ip-generic of {nic.name}")


REPORTED = {
    "hv_netvsc": "on Azure, flannel's TCP was reported not to arrive until the kernel finished checksums",
    "bnxt_en": "on Oracle's second generation of shapes it was reported to compute checksums inside VXLAN wrongly",
}
"""Drivers of which one report is known: too little to tell of a node that shows nothing."""


def reported(node: Node) -> Iterator[Ailment]:
    ill = list(symptoms.seen(node))
    for nic in node.nics():
        words = REPORTED.get(nic.driver.get("driver", ""))
        if words and ill and nic.computes() and any(node.tunnels()):
            text = f"{nic.what} is left to finish checksums inside VXLAN, and {words}."
            yield _suspect(nic, "offload_reported", text, _left_to(nic), ill, f"{nic.computes()} of {nic.name}")


def outer_by_nic(node: Node) -> Iterator[Ailment]:
    writing = [device for _, device in node.tunnels() if device.vxlan and device.vxlan.outer_checksum]
    for nic in node.nics():
        if nic.driver.get("driver") not in ("ice", "i40e") or not writing or nic.computes() is None:
            continue
        text = (
            f"{nic.what} is left to compute the outer checksum that {writing[0].name} asks for, and is reported to "
            "compute it wrongly: Open vSwitch does not let it. The receiver then refuses every packet, ping included."
        )
        shown = [*_left_to(nic), f"`ip -d link show {writing[0].name}`: udpcsum"]
        yield _suspect(nic, "offload_outer", text, shown, list(symptoms.seen(node)), f"tx-checksumming of {nic.name}")


def drops_zero6(node: Node) -> Iterator[Ailment]:
    for nic in node.nics():
        bare = [
            device
            for _, device in node.tunnels()
            if device.vxlan and device.vxlan.version == 6 and device.vxlan.takes_zero6
        ]
        if "dwmac" not in nic.driver.get("driver", "") or not nic.has("rx-checksumming") or not bare:
            continue
        unheard = [device for device in bare if device.received == 0 and (device.sent or 0) >= symptoms.FEW]
        yield ailment(
            nic.name,
            "outer_zero_over_ipv6",
            Verdict.UNCLEAR if unheard else Verdict.HARMLESS,
            f"{nic.what} is known to drop UDP over IPv6 without a checksum before Linux sees it, and {bare[0].name} "
            "lets its peers send such"
            + (
                f", of whom nothing arrives: that, or no peer lives. What decides: `ethtool -K {nic.name} rx off`, and "
                "whether something arrives then."
                if unheard
                else ". Nothing here shows that it does."
            ),
            [
                f"`ethtool -k {nic.name}`: rx-checksumming on",
                f"`ip -d link show {bare[0].name}`: udp6zerocsumrx",
                *(f"{device.name}: received 0, sent {device.sent:,}" for device in unheard),
            ],
            now=f"`ethtool -K {nic.name} rx off`",
            cure="let the senders write an outer checksum: `noudp6zerocsumtx`",
        )


def weave(node: Node) -> Iterator[Ailment]:
    """A datagram above the MTU over a raw socket (Weave's PMTU probe, 60,000 bytes) ruins a virtio ring with UFO.

    Mended in 3.13, and in 3.10.0-229 of RHEL 7.
    """
    kernel = node.kernel
    if kernel is None or kernel.version[0] != 3 or kernel.version >= (3, 13):
        return
    if kernel.version == (3, 10) and kernel.build is not None and kernel.build >= 229:
        return
    fast = next((device for _, device in node.tunnels() if device.vxlan and device.vxlan.port == 6784), None)
    for nic in node.nics():
        if nic.driver.get("driver") == "virtio_net" and nic.has("udp-fragmentation-offload"):
            yield ailment(
                nic.name,
                "weave_ufo",
                Verdict.FAULT if fast else Verdict.HARMLESS,
                f"{nic.what} splits large datagrams itself (UFO), and {node.platform.release} ruins its virtio ring "
                "with one that a raw socket sends, such as Weave's probe of 60,000 bytes: the machine's network dies "
                "until it is started again. "
                + (f"{fast.name} is Weave's." if fast else "No Weave is here.")
                + " It cannot be repaired in flight.",
                [
                    f"kernel {node.platform.release}",
                    f"`ethtool -k {nic.name}`: udp-fragmentation-offload on",
                    *([f"{fast.name}: UDP port 6784"] if fast else []),
                ],
                now=f"`ethtool -K {nic.name} ufo off`",
                cure="a kernel from 3.13, of RHEL and CentOS 7 from 3.10.0-229; until then "
                f"`fixer cure --device {nic.name} --feature udp-fragmentation-offload`",
                kernel="3.13; RHEL and CentOS 7: 3.10.0-229",
            )


def veth_believes(node: Node) -> Iterator[Ailment]:
    state = releases.has(VETH_BELIEVES, node.platform)
    if state is False or node.kernel is None:
        return
    found = next((device for space in node.spaces for device in space.devices if device.kind == "veth"), None)
    if found is None:
        return
    ill = list(symptoms.seen(node))
    yield ailment(
        found.name,
        "veth_believes",
        Verdict.UNCLEAR if ill else Verdict.HARMLESS,
        f"{VETH_BELIEVES.what}. {releases.said(VETH_BELIEVES, node.platform)}",
        [f"kernel {node.platform.release}", f"{found.name} is a veth", *ill],
        now="`fixer on --plain` and `fixer run --plain` on this node: what is provably corrupt is dropped before a "
        "veth has it",
        cure="a newer kernel",
        kernel=VETH_BELIEVES.versions,
    )


def _left_to(nic: Device) -> list[str]:
    feature = nic.computes()
    shown = [f"`ethtool -i {nic.name}`: {nic.driver['driver']}", f"`ethtool -k {nic.name}`: {feature} on"]
    return shown + [f"`ethtool -k {nic.name}`: {name} on" for name in (TUNNEL_SUMS,) if nic.has(name)]


def _suspect(nic: Device, cause: str, text: str, shown: list[str], ill: list[str], what: str) -> Ailment:
    text += f" {_DECIDES}" if ill else " Nothing on this node shows that it does here."
    return ailment(
        nic.name,
        cause,
        Verdict.UNCLEAR if ill else Verdict.HARMLESS,
        text,
        [*shown, *ill],
        now=f"`ethtool -K {nic.name} tx off`"
        if cause == "offload_outer"
        else f"`ethtool -K {nic.name} {nic.computes()} off`",
        cure=f"`fixer cure --device {nic.name}` turns {what} off so that it stays; or firmware, driver or hypervisor "
        f"that computes it",
    )


_SUSPECT = {
    Verdict.UNCLEAR: "it is so, and checksums are refused or segments sent again on this node",
    Verdict.HARMLESS: "it is so, and nothing shows it",
}
CHECKS = (
    Check(
        "vmxnet3",
        "VXLAN over vmxnet3 that is left to finish checksums; the port, and the driver's age",
        ("offload_vmxnet3",),
        _SUSPECT,
        (
            "https://github.com/moby/moby/issues/46385",
            "https://github.com/moby/moby/issues/41775",
            "https://github.com/openshift/machine-config-operator/pull/2734",
            "https://github.com/cilium/cilium/issues/21801",
            "https://git.kernel.org/linus/b22580233d47",
            "https://github.com/weaveworks/weave/issues/3887",
            "https://github.com/projectcalico/calico/issues/4727",
            "https://github.com/deckhouse/deckhouse/pull/10087",
        ),
        vmxnet3,
    ),
    Check(
        "reported",
        "VXLAN over hv_netvsc or bnxt_en that is left to finish checksums",
        ("offload_reported",),
        {Verdict.UNCLEAR: _SUSPECT[Verdict.UNCLEAR]},
        (
            "https://github.com/flannel-io/flannel/issues/790",
            "https://github.com/oracle/terraform-kubernetes-installer/issues/82",
        ),
        reported,
    ),
    Check(
        "outer_by_nic",
        "VXLAN with outer checksum over ice or i40e that computes it",
        ("offload_outer",),
        _SUSPECT,
        (
            "https://github.com/metal-stack/metal-images/pull/429",
            "https://github.com/openvswitch/ovs-issues/issues/321",
        ),
        outer_by_nic,
    ),
    Check(
        "drops_zero6",
        "VXLAN over IPv6 that takes no outer checksum, over an ipq806x (dwmac) NIC that verifies",
        ("outer_zero_over_ipv6",),
        {
            Verdict.UNCLEAR: "the device sends and never receives",
            Verdict.HARMLESS: "it does receive",
        },
        ("https://github.com/freifunk-gluon/gluon/issues/3783",),
        drops_zero6,
    ),
    Check(
        "weave",
        "`udp-fragmentation-offload` of virtio_net, and the kernel",
        ("weave_ufo",),
        {
            Verdict.FAULT: "it is on, the kernel is 3.x before 3.13 (RHEL 7: 3.10.0-229), Weave is here",
            Verdict.HARMLESS: "the same without Weave",
        },
        ("https://github.com/weaveworks/weave/issues/2289",),
        weave,
    ),
    Check(
        "veth_believes",
        "veth devices, and whether the kernel has ce8c839b74e3",
        ("veth_believes",),
        {
            Verdict.UNCLEAR: "the kernel is older, and checksums are refused or segments sent again on this node",
            Verdict.HARMLESS: "the kernel is older",
        },
        ("https://git.kernel.org/linus/ce8c839b74e3", "https://github.com/moby/moby/issues/18776"),
        veth_believes,
    ),
)
