"""Who else has a hand in packets, before or beside us: switches, conntrack, routing, eBPF, a reader of our queue."""

from __future__ import annotations

from collections.abc import Iterator

from fixer.doctor import symptoms
from fixer.doctor.check import Ailment, Check, Verdict, ailment
from fixer.doctor.node import Node
from fixer.rules.rawtable import Line

OURS = ("fixer", "python")
"""What our own daemon's process is called: ``/opt/fixer/bin/fixer``, or the interpreter of an installation by pip."""


def switch(node: Node) -> Iterator[Ailment]:
    """OVS' netdev datapath reads a veth's packets from a socket, where "the checksum is not ready yet" is lost."""
    bridges = [bridge.name for bridge in node.bridges if bridge.is_userspace]
    veths = [device.name for space in node.spaces for device in space.devices if device.kind == "veth"]
    if not bridges or not veths:
        return
    ill = list(symptoms.seen(node))
    yield ailment(
        bridges[0],
        "ovs_userspace",
        Verdict.HARMLESS if not ill else Verdict.FAULT if node.before and _grows(node) else Verdict.UNCLEAR,
        f"Open vSwitch forwards on {', '.join(bridges)} in user space (datapath_type netdev), and containers hang on "
        "veths: a veth leaves checksums unfinished, and such a switch forwards them as they are. Ping works, TCP "
        "does not; the "
        "SYN-ACK's checksum is the SYN's." + ("" if ill else " Nothing on this node shows it."),
        [f"`ovs-vsctl list bridge`: {bridges[0]} netdev", f"{len(veths)} veth devices, such as {veths[0]}", *ill],
        now="`fixer on --plain` and `fixer run --plain` in the container's namespace (`--pid PID`), or in it `ethtool "
        "-K eth0 tx off`",
        cure="`ethtool -K eth0 tx off` in every container, where its network is set up (CNI, an entry point); or the "
        f"kernel's datapath: `ovs-vsctl set bridge {bridges[0]} datapath_type=system`",
    )


def invalid(node: Node) -> Iterator[Ailment]:
    """Conntrack calls a broken outer checksum INVALID; a rule that drops such hides it from UDP's counters."""
    if (
        node.settings.get("net/netfilter/nf_conntrack_checksum") == "0"
        or not any(node.tunnels())
        or node.before is None
    ):
        return
    earlier = node.before.tables
    for name, table in node.tables.items():
        counted = {str(line): line.packets for line in _invalid(earlier[name].chains)} if name in earlier else {}
        for line in _invalid(table.chains):
            grown = line.packets - counted.get(str(line), line.packets)
            if grown >= symptoms.FEW:
                yield ailment(
                    "conntrack",
                    "conntrack_invalid",
                    Verdict.UNCLEAR,
                    f"A rule drops what conntrack calls INVALID, {grown:,} packets in {node.seconds:g} s. Conntrack "
                    "verifies checksums: VXLAN with a broken outer one is INVALID, ends there, and no UDP counter "
                    "shows it. What decides: `sysctl net.netfilter.nf_conntrack_log_invalid=17` and the kernel's "
                    "log, or `fixer run --monitor`, which sees packets before conntrack.",
                    [(f"`{name.replace(' ', ' -t ')}`: {line}", grown), "net.netfilter.nf_conntrack_checksum is not 0"],
                    now="`fixer on` and `fixer run`: repaired before conntrack, a packet is NEW",
                    cure="at the sender: `fixer cure` there",
                )
                return


def reverse_path(node: Node) -> Iterator[Ailment]:
    strict = "1" in (
        node.settings.get("net/ipv4/conf/all/rp_filter"),
        node.settings.get("net/ipv4/conf/default/rp_filter"),
    )
    grown = node.growth(node.here, "TcpExt.IPReversePathFilter") or 0
    if strict and grown >= symptoms.FEW and any(node.tunnels()):
        yield ailment(
            "host",
            "rp_filter",
            Verdict.UNCLEAR,
            f"rp_filter is strict, and {grown:,} packets were dropped in {node.seconds:g} s because their source is "
            "not where the route to it leads. With an overlay that has two ways, those are its own. What decides: "
            "`sysctl net.ipv4.conf.all.log_martians=1` and the kernel's log.",
            [("TcpExt.IPReversePathFilter grew", grown), "net.ipv4.conf.{all,default}.rp_filter is 1"],
            now="`sysctl net.ipv4.conf.all.rp_filter=2`",
            cure="the same in /etc/sysctl.d, and `net.ipv4.conf.default.rp_filter=2`",
        )


def ebpf(node: Node) -> Iterator[Ailment]:
    """A program can take VXLAN off at the NIC (Calico's dataplane, Cilium's): the rules then never see it."""
    tunnels = [device for _, device in node.tunnels()]
    for nic in node.nics():
        if nic.programs and tunnels:
            silent = [device.name for device in tunnels if device.received == 0 and (device.sent or 0) >= symptoms.FEW]
            yield ailment(
                nic.name,
                "ebpf_first",
                Verdict.HARMLESS,
                f"eBPF ({' and '.join(nic.programs)}) sees packets of {nic.name} before the rules do, and may take "
                "VXLAN off itself: what it takes, fixer never sees."
                + (f" {silent[0]} hands nothing out, so it does." if silent else "")
                + " `fixer status` says whether packets meet the rule.",
                [
                    f"`tc filter show dev {nic.name} ingress`, `ip link show {nic.name}`: {', '.join(nic.programs)}",
                    *(f"{name}: received 0" for name in silent),
                ],
                cure="at the sender, `fixer cure`: it does not depend on who takes the tunnel off here",
            )


def queue(node: Node) -> Iterator[Ailment]:
    for listener in node.listeners:
        if listener.process and not listener.process.startswith(OURS):
            yield ailment(
                f"queue {listener.queue}",
                "queue_taken",
                Verdict.UNCLEAR,
                f"{listener} listens on queue {listener.queue}, which the configuration of fixer names: `fixer run` "
                f"will be refused.",
                [f"/proc/net/netfilter/nfnetlink_queue: queue {listener.queue}, port {listener.portid}"],
                cure="another `queue.number` in /etc/fixer/fixer.toml",
            )


def _invalid(chains: dict[str, tuple[Line, ...]]) -> Iterator[Line]:
    for lines in chains.values():
        for line in lines:
            words = f" {' '.join(line.words)} "
            if line.target in ("DROP", "REJECT") and any(
                f" {option} INVALID " in words for option in ("--ctstate", "--state")
            ):
                yield line


def _grows(node: Node) -> bool:
    return any(symptoms.refused_now(node, space, name) for space in node.spaces for name in symptoms.CHECKSUMS)


CHECKS = (
    Check(
        "switch",
        "Open vSwitch' bridges with `datapath_type` netdev, and veth devices",
        ("ovs_userspace",),
        {
            Verdict.FAULT: "there are both, and checksums are refused while it watches",
            Verdict.UNCLEAR: "there are both, and checksums were refused or segments sent again on this node",
            Verdict.HARMLESS: "there are both",
        },
        (
            "https://github.com/openvswitch/ovs-issues/issues/273",
            "https://github.com/antrea-io/antrea/issues/14",
            "https://bugzilla.redhat.com/show_bug.cgi?id=1685616",
        ),
        switch,
    ),
    Check(
        "invalid",
        "with `--watch`: rules that drop what conntrack calls INVALID; `nf_conntrack_checksum`",
        ("conntrack_invalid",),
        {Verdict.UNCLEAR: "they drop ten packets or more while it watches, and VXLAN ends here"},
        ("https://docs.kernel.org/networking/nf_conntrack-sysctl.html",),
        invalid,
    ),
    Check(
        "reverse_path",
        "with `--watch`: `rp_filter` and `IPReversePathFilter`",
        ("rp_filter",),
        {Verdict.UNCLEAR: "it is strict and drops ten packets or more while it watches, and VXLAN ends here"},
        ("RFC 3704", "https://docs.kernel.org/networking/ip-sysctl.html"),
        reverse_path,
    ),
    Check(
        "ebpf",
        "eBPF at XDP or tc ingress (TCX too) of the NICs",
        ("ebpf_first",),
        {Verdict.HARMLESS: "there is some, and VXLAN ends here"},
        ("https://github.com/projectcalico/calico/issues/7040", "https://github.com/projectcalico/calico/pull/9288"),
        ebpf,
    ),
    Check(
        "queue",
        "who listens on the queues of the configuration",
        ("queue_taken",),
        {Verdict.UNCLEAR: "it is another program than fixer"},
        (),
        queue,
    ),
)
