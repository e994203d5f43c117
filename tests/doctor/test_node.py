"""``fixer doctor``: the five systems, the field cases, and healthy nodes that look like them."""

from __future__ import annotations

import json
import runpy
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.fakenode import UNDERLAY, FakeNode

from fixer import cli
from fixer.cure import apply as cures
from fixer.cure.plan import Setting
from fixer.doctor import node as nodes
from fixer.doctor.check import Ailment, Verdict
from fixer.doctor.checks import CHECKS, diagnose
from fixer.errors import NotPermitted, SystemRefused
from fixer.host import machine as host_module
from fixer.host.machine import NET, Owner

PORTS = (4789, 8472, 6784)
FAULT, UNCLEAR, HARMLESS = Verdict.FAULT, Verdict.UNCLEAR, Verdict.HARMLESS

KUBE_DOUBLE = """
:POSTROUTING ACCEPT [0:0]
:KUBE-POSTROUTING - [0:0]
[900:54000] -A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
[40:2400] -A KUBE-POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE --random-fully
"""
KUBE_UNMARKED = """
:POSTROUTING ACCEPT [0:0]
:KUBE-POSTROUTING - [0:0]
[900:54000] -A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
[860:51600] -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
[40:2400] -A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
[40:2400] -A KUBE-POSTROUTING -m comment --comment "requiring SNAT" -j MASQUERADE --random-fully
"""
FLANNEL_AND_DOCKER = """
:POSTROUTING ACCEPT [0:0]
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A POSTROUTING -o vxlan.calico -m comment --comment "cali:xyz" -j MASQUERADE --random-fully
"""
ENTRY = (
    f"ipv4     2 udp      17 29 src={UNDERLAY} dst=192.168.102.4 sport=50078 dport={{port}} "
    f"src=192.168.102.4 dst={UNDERLAY} sport={{port}} dport={{back}} mark=0 use=1\n"
)
EL7 = "3.10.0-1160.el7.x86_64"


def seen(host: FakeNode) -> list[Ailment]:
    return diagnose(nodes.look(host, PORTS, [0]))


def told(host: FakeNode) -> list[tuple[str, Verdict]]:
    return [(each.cause, each.verdict) for each in seen(host)]


def watched(host: FakeNode, monkeypatch: pytest.MonkeyPatch, **grows: int) -> list[tuple[str, Verdict]]:
    """``Tcp_InCsumErrors=7``: that counter grows by so many while it is watched."""

    def sleep(_: float) -> None:
        for name, by in grows.items():
            group, _, counter = name.partition("_")
            groups = host.snmp if group in host.snmp else host.netstat
            if group in ("Ip6", "Udp6"):
                host.snmp6[f"{group}{counter}"] += by
            elif group == "sent":
                (device,) = (each for each in host.traffic if each.replace(".", "_") == counter)
                host.traffic[device] = (host.traffic[device][0], host.traffic[device][1] + by)
            else:
                groups[group][counter] += by

    monkeypatch.setattr(time, "sleep", sleep)
    found = diagnose(nodes.watch(host, nodes.look(host, PORTS, [0]), 3))
    return [(each.cause, each.verdict) for each in found]


# Healthy nodes: nothing at all, or nothing but what is to be known


HEALTHY = {
    "flannel": FakeNode().nic().tunnel().rules(KUBE_UNMARKED + FLANNEL_AND_DOCKER),
    "calico with kube-proxy's rules as they are today": FakeNode()
    .nic()
    .tunnel("vxlan.calico", 4789, 4096)
    .rules(KUBE_UNMARKED),
    "a double masquerade, but checksums are finished before": FakeNode()
    .nic()
    .tunnel("vxlan.calico", 4789, 4096, tx="off")
    .rules(KUBE_DOUBLE),
    "a double masquerade of zero on a mended kernel": FakeNode().nic().tunnel(udp_csum=False).rules(KUBE_DOUBLE),
    "masquerade with a port of its own for nobody": FakeNode()
    .nic()
    .tunnel()
    .rules(":POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o eth0 -j MASQUERADE"),
    "cilium, whose device has an MTU that routes reduce": FakeNode()
    .nic()
    .tunnel("cilium_vxlan", 8472, None, mtu=1500, external=True),
    "over IPv6, with outer checksums": FakeNode().nic(address="fd00::5").tunnel(mtu=1430, local6="fd00::5"),
    "over IPv6, without, and taken": FakeNode()
    .nic(address="fd00::5")
    .tunnel(mtu=1430, local6="fd00::5", udp_zero_csum6_tx=True, udp_zero_csum6_rx=True),
    "ESXi with another kind of NIC": FakeNode().vmware().nic(driver="e1000e").tunnel("vxlan.calico", 4789, 4096),
    "el7 without containers": FakeNode(EL7, "Linux version 3.10.0-1160.el7.x86_64").nic(),
    "no VXLAN": FakeNode().nic(),
    "Open vSwitch in the kernel": FakeNode().nic().veth().ovs(br0="system"),
    "retransmissions alone": FakeNode().nic().tunnel().retransmits(),
}


@pytest.mark.parametrize("host", HEALTHY.values(), ids=HEALTHY)
def test_a_healthy_node_is_told_nothing(host: FakeNode) -> None:
    assert told(host) == []


@pytest.mark.parametrize("host", HEALTHY.values(), ids=HEALTHY)
def test_a_healthy_node_is_told_nothing_when_it_is_watched(host: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    assert watched(host, monkeypatch, Tcp_InSegs=500, Tcp_OutSegs=500, Udp_InDatagrams=90) == []


KNOWN = {
    "vmxnet3": (FakeNode().vmware().nic(driver="vmxnet3").tunnel("vx-swarm", 4789, 4097), "offload_vmxnet3"),
    "ice": (FakeNode().nic(driver="ice").tunnel("vxlan.calico", 4789, 4096), "offload_outer"),
    "OVS in user space with veths": (FakeNode().nic().veth().ovs(br0="netdev"), "ovs_userspace"),
    "Geneve": (FakeNode().nic().geneve(), "geneve"),
    "a port of its own": (FakeNode().nic().tunnel(port=4999), "port_unlisted"),
    "veths on el7": (FakeNode(EL7, "Linux version 3.10.0-1160.el7.x86_64").nic().veth(), "veth_believes"),
    "UFO on an old kernel without Weave": (
        FakeNode("3.10.0-123.el7.x86_64", "Linux").nic(udp_fragmentation_offload="on"),
        "weave_ufo",
    ),
}


@pytest.mark.parametrize(("host", "cause"), KNOWN.values(), ids=KNOWN)
def test_what_is_only_known_is_told_and_accuses_nobody(host: FakeNode, cause: str) -> None:
    found = seen(host)
    assert [(each.cause, each.verdict) for each in found] == [(cause, HARMLESS)]
    assert "Nothing" in found[0].text or cause in ("geneve", "port_unlisted", "veth_believes", "weave_ufo")


# The five systems of the fault atlas


def swarm() -> FakeNode:
    """A Docker Swarm host on ESXi: the overlay's device is in a sandbox, whose containers refuse segments."""
    sandbox = FakeNode().tunnel("vx-001001-abcde", 4789, 4097, elsewhere=True)
    sandbox.snmp["Tcp"] |= {"InSegs": 3000, "OutSegs": 900, "RetransSegs": 400, "InCsumErrors": 2100}
    return FakeNode().vmware().nic("ens192", "vmxnet3").namespace("--netns /run/docker/netns/1-abcde", sandbox)


def test_system_1_swarm() -> None:
    found = seen(swarm())
    assert [(each.cause, each.verdict) for each in found] == [("inner_refused", UNCLEAR), ("offload_vmxnet3", UNCLEAR)]
    assert "2,100 TCP segments" in found[0].text
    assert "/run/docker/netns/1-abcde" in found[0].text
    assert found[1].now == "`ethtool -K ens192 tx-checksum-ip-generic off`"
    assert "fixer cure --device ens192" in found[1].cure


def test_system_1_swarm_while_it_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    host = swarm()
    sandbox = next(iter(host.inside.values()))
    assert isinstance(sandbox, FakeNode)
    monkeypatch.setattr(time, "sleep", lambda _: sandbox.snmp["Tcp"].update(InCsumErrors=2150))
    found = diagnose(nodes.watch(host, nodes.look(host, PORTS, [0]), 3))
    assert (found[0].cause, found[0].verdict, found[0].evidence[0].packets) == ("inner_refused", FAULT, 50)


def tw_recycle(release: str, refused: int) -> FakeNode:
    host = FakeNode(release, f"Linux version {release}").nic()
    host.files["/proc/sys/net/ipv4/tcp_tw_recycle"] = "1\n"
    host.netstat["TcpExt"] |= {"PAWSPassive": refused, "ListenDrops": refused}
    return host


@pytest.mark.parametrize(("release", "mode"), [(EL7, "normalise"), ("3.16.0-4-amd64", "strip")])
def test_systems_2_and_3_recycling_behind_snat(release: str, mode: str) -> None:
    (found,) = seen(tw_recycle(release, 1284))
    assert (found.cause, found.verdict) == ("tw_recycle", FAULT)
    assert f'timestamps.mode = "{mode}"' in found.now
    assert told(tw_recycle(release, 0)) == [("tw_recycle", UNCLEAR)]


def test_system_4_a_userspace_switch_under_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    host = FakeNode(EL7, f"Linux version {EL7}").nic().veth().ovs(br0="netdev").retransmits()
    assert told(host) == [("veth_believes", UNCLEAR), ("ovs_userspace", UNCLEAR)]
    assert watched(host, monkeypatch, Tcp_InCsumErrors=4)[:2] == [("inner_refused", FAULT), ("ovs_userspace", FAULT)]
    newer = FakeNode().nic().veth().ovs(br0="netdev", br1="system").retransmits()
    assert told(newer) == [("ovs_userspace", UNCLEAR)]


def test_system_5_weave() -> None:
    host = FakeNode("3.10.0-123.4.4.el7.x86_64", "Linux").nic(udp_fragmentation_offload="on")
    host.tunnel("vxlan-6784", 6784, None, external=True)
    (found,) = seen(host)
    assert (found.cause, found.verdict) == ("weave_ufo", FAULT)
    assert found.now == "`ethtool -K eth0 ufo off`"
    for release in ("3.10.0-229.el7.x86_64", "3.13.0-24-generic", "4.4.0"):
        mended = (
            FakeNode(release, "Linux")
            .nic(udp_fragmentation_offload="on")
            .tunnel("vxlan-6784", 6784, None, external=True)
        )
        assert told(mended) == []


# The twelve field cases


def test_kube_proxy_masquerades_twice() -> None:
    """calico#3145: an outer checksum of zero, and a kernel that writes into it."""
    old = (
        FakeNode("5.3.0", "Linux version 5.3.0")
        .nic()
        .tunnel("vxlan.calico", 4789, 4096, udp_csum=False)
        .rules(KUBE_DOUBLE)
    )
    (found,) = seen(old)
    assert (found.cause, found.verdict) == ("double_masquerade", UNCLEAR)
    old.files[f"{NET}/nf_conntrack"] = ENTRY.format(port=4789, back=50078)
    assert told(old) == [("double_masquerade", UNCLEAR)], "an entry whose port is its own proves nothing"
    old.files[f"{NET}/nf_conntrack"] = ENTRY.format(port=4789, back=7103)
    (found,) = seen(old)
    assert (found.cause, found.verdict) == ("double_masquerade", FAULT)
    assert found.now == "`ethtool -K vxlan.calico tx-checksum-ip-generic off`"
    assert "kube-proxy masquerades them twice" in found.text
    assert "ea64d8d6c675: 5.7, 5.6.13, 5.4.41, 4.19.123, 4.14.181" in found.text


@pytest.mark.parametrize(
    ("release", "version", "said"),
    [
        ("4.18.0-240.el8.x86_64", "Linux version 4.18.0-240.el8.x86_64", "its distribution may have brought it"),
        ("4.19.0-8-amd64", "Linux version 4.19.0-8-amd64 Debian 4.19.98-1", "made from 4.19.98, has it"),
        ("4.19.0-9-amd64", "Linux version 4.19.0-9-amd64 Debian 4.19.125-1", None),
        ("5.4.41", "Linux version 5.4.41", None),
        ("5.4.40", "Linux version 5.4.40", "5.4.40 has it"),
    ],
)
def test_what_a_distribution_may_have_mended_is_said_plainly(release: str, version: str, said: str | None) -> None:
    host = FakeNode(release, version).nic().tunnel("vxlan.calico", 4789, 4096, udp_csum=False).rules(KUBE_DOUBLE)
    host.files[f"{NET}/nf_conntrack"] = ENTRY.format(port=4789, back=7103)
    found = seen(host)
    if said is None:
        assert found == []
        return
    assert said in found[0].text
    assert found[0].verdict is (UNCLEAR if "may" in said else FAULT)


def test_ubuntu_says_what_its_kernel_was_made_from() -> None:
    host = (
        FakeNode("5.4.0-42-generic", "Linux version 5.4.0-42-generic").nic().tunnel(udp_csum=False).rules(KUBE_DOUBLE)
    )
    assert [each.verdict for each in seen(host)] == [UNCLEAR]
    host.files["/proc/version_signature"] = "Ubuntu 5.4.0-42.46-generic 5.4.44\n"
    assert seen(host) == []


def test_a_random_port_on_a_new_kernel() -> None:
    """calico#4865: the outer checksum is there, and no kernel folds the new port into it."""
    host = FakeNode().nic().tunnel("vxlan.calico", 4789, 4096)
    host.rules(":POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o eth0 -j MASQUERADE --random-fully")
    host.files[f"{NET}/nf_conntrack"] = ENTRY.format(port=4789, back=7103)
    assert told(host) == [("masquerade_random", FAULT)]
    host.files[f"{NET}/nf_conntrack"] = NotPermitted("root")
    assert told(host) == [("masquerade_random", UNCLEAR)]


def test_conntrack_writes_addresses_of_ipv6_in_full() -> None:
    host = FakeNode().nic(address="fd00::5").tunnel("vxlan-v6.calico", 4789, 4096, 1430, local6="fd00::5")
    us, them = "fd00:0000:0000:0000:0000:0000:0000:0005", "fd00:0000:0000:0000:0000:0000:0000:0004"
    host.files[f"{NET}/nf_conntrack"] = (
        f"ipv6 10 udp 17 29 src={us} dst={them} sport=50078 dport=4789 src={them} dst={us} sport=4789 dport=7103\n"
    )
    assert told(host) == [("masquerade_random", FAULT)]


OTHERS = {
    "of containers that make tunnels of their own": f"ipv4 2 udp 17 29 src=10.244.1.7 dst=192.168.102.4 sport=50078 "
    f"dport=4789 src=192.168.102.4 dst={UNDERLAY} sport=4789 dport=7103",
    "an address alone that is changed": f"ipv4 2 udp 17 29 src={UNDERLAY} dst=192.168.102.4 sport=50078 dport=4789 "
    "src=192.168.102.4 dst=203.0.113.9 sport=4789 dport=50078",
    "redirected, and from its own port": f"ipv4 2 udp 17 29 src={UNDERLAY} dst=10.96.0.9 sport=50078 dport=4789 "
    f"src=192.168.102.4 dst={UNDERLAY} sport=14789 dport=50078",
}


@pytest.mark.parametrize("entry", OTHERS.values(), ids=OTHERS)
def test_an_entry_of_other_packets_accuses_nobody(entry: str) -> None:
    host = FakeNode().nic().tunnel("vxlan.calico", 4789, 4096)
    host.files[f"{NET}/nf_conntrack"] = f"{entry}\n"
    assert told(host) == []
    host.rules(":POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o eth0 -j MASQUERADE --random-fully")
    assert told(host) == [("masquerade_random", UNCLEAR)]


def test_swarm_on_esxi() -> None:
    """moby#46385, at the sender: what it sends is sent again."""
    host = FakeNode().vmware().nic("ens192", "vmxnet3", tx_udp_tnl_csum_segmentation="on").retransmits()
    host.namespace(
        "--netns /run/docker/netns/1-abcde", FakeNode().tunnel("vx-001001-abcde", 4789, 4097, elsewhere=True)
    )
    (found,) = seen(host)
    assert (found.cause, found.verdict) == ("offload_vmxnet3", UNCLEAR)
    assert any("sent again" in fact.what for fact in found.evidence)
    for release, said in (("5.10.52", True), ("5.10.53", False), ("5.13.0-30-generic", True), ("5.14.0", False)):
        odd = (
            FakeNode(release, "Linux")
            .vmware()
            .nic("ens192", "vmxnet3", tx_udp_tnl_csum_segmentation="on")
            .tunnel(port=4799)
        )
        (vmxnet3, _) = seen(odd)
        assert ("b22580233d47" in vmxnet3.text) is said
    cured = FakeNode().vmware().nic("ens192", "vmxnet3", tx_checksum_ip_generic="off").tunnel().retransmits()
    assert told(cured) == [("cure_unkept", UNCLEAR)]


@pytest.mark.parametrize("driver", ["hv_netvsc", "bnxt_en"])
def test_a_nic_of_which_one_report_is_known_is_a_suspect_beside_a_symptom_only(driver: str) -> None:
    assert told(FakeNode().nic(driver=driver).tunnel()) == []
    assert told(FakeNode().nic(driver=driver).retransmits()) == []
    assert told(FakeNode().nic(driver=driver).tunnel().retransmits()) == [("offload_reported", UNCLEAR)]


def test_esxi_eats_4789_and_nsx_eats_8472() -> None:
    """calico#9433 and flannel#2388."""
    for name, port in (("vxlan.calico", 4789), ("flannel.1", 8472)):
        host = FakeNode().vmware().nic(driver="e1000e")
        host.traffic[name] = (0, 400)
        assert told(host.tunnel(name, port)) == [("hypervisor_takes_port", UNCLEAR)]
        other = FakeNode().vmware().nic(driver="e1000e")
        other.traffic[name] = (0, 400)
        assert "hypervisor_takes_port" not in dict(told(other.tunnel(name, 4799)))
        elsewhere = FakeNode().nic()
        elsewhere.traffic[name] = (0, 400)
        assert told(elsewhere.tunnel(name, port)) == []


def test_a_nic_that_computes_the_outer_one_wrongly() -> None:
    """metal-images#429."""
    for driver in ("ice", "i40e"):
        host = FakeNode().nic("lan0", driver).tunnel("vxlan.calico", 4789, 4096).retransmits()
        (found,) = seen(host)
        assert (found.cause, found.verdict, found.now) == ("offload_outer", UNCLEAR, "`ethtool -K lan0 tx off`")
    assert told(FakeNode().nic("lan0", "ice").tunnel(udp_csum=False).retransmits()) == []


def test_no_outer_checksum_over_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """gluon#3783: the NIC drops it; or, more often, the kernel that was not told to take it."""
    host = FakeNode().nic("eth0", "st_gmac-dwmac", address="fd00::5")
    host.traffic["vx_mesh"] = (0, 90)
    host.tunnel("vx_mesh", 4789, 7, 1430, local6="fd00::5", udp_zero_csum6_tx=True, udp_zero_csum6_rx=True)
    (found,) = seen(host)
    assert (found.cause, found.verdict) == ("outer_zero_over_ipv6", UNCLEAR), "its peers may all be dead"
    assert "What decides" in found.text
    refuses = FakeNode().nic(address="fd00::5").tunnel("vx_mesh", 4789, 7, 1430, local6="fd00::5")
    assert told(refuses) == []
    assert watched(refuses, monkeypatch, Udp6_InCsumErrors=3) == [("outer_zero_over_ipv6", FAULT)]
    long_ago = FakeNode().nic(address="fd00::5").tunnel("vx_mesh", 4789, 7, 1430, local6="fd00::5")
    long_ago.snmp6["Udp6InCsumErrors"] = 90
    assert told(long_ago) == [("outer_zero_over_ipv6", UNCLEAR)]
    assert watched(long_ago, monkeypatch, Udp6_InDatagrams=50) == []
    one_sided = FakeNode().nic(address="fd00::5").tunnel(mtu=1430, local6="fd00::5", udp_zero_csum6_tx=True)
    assert told(one_sided) == [("outer_zero_over_ipv6", UNCLEAR)]


def test_a_nat_that_writes_into_an_empty_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    """cilium#28707."""
    host = FakeNode().nic().tunnel("cilium_vxlan", 8472, None, external=True)
    assert watched(host, monkeypatch, Udp_InCsumErrors=12) == [("outer_zero_rewritten", FAULT)]
    # Had the outer one been refused, nobody would have come to look at TCP's.
    both = FakeNode().nic().tunnel("cilium_vxlan", 8472, None, external=True)
    assert watched(both, monkeypatch, Udp_InCsumErrors=12, Tcp_InCsumErrors=9) == [("inner_refused", FAULT)]


def test_packets_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """kube-ovn#2155."""
    host = FakeNode().nic(mtu=1450).tunnel("vxlan.calico", 4789, 4096, mtu=1450)
    assert told(host) == [("mtu", UNCLEAR)]
    assert watched(host, monkeypatch, Ip_FragCreates=6, sent_vxlan_calico=3) == [("mtu", FAULT)]
    assert watched(host, monkeypatch, Ip_FragCreates=6) == [("mtu", UNCLEAR)], (
        "somebody else's: the tunnel sends nothing"
    )
    assert watched(host, monkeypatch, sent_vxlan_calico=3) == [("mtu", UNCLEAR)]
    assert told(host) == [("mtu", UNCLEAR)], "since the start is not now"
    over6 = FakeNode().nic(address="fd00::5").tunnel(mtu=1450, local6="fd00::5")
    assert watched(over6, monkeypatch, Ip_FragCreates=6, sent_flannel_1=3) == [("mtu", UNCLEAR)], "IPv4's is not its"
    assert watched(over6, monkeypatch, Ip6_FragCreates=6, sent_flannel_1=3) == [("mtu", FAULT)]
    (found,) = seen(host)
    assert "needs 1500 on eth0, which takes 1450" in found.text
    assert found.now == "`ip link set vxlan.calico mtu 1400`"
    in_a_sandbox = (
        FakeNode()
        .nic(mtu=1400)
        .namespace("--netns /run/docker/netns/1-a", FakeNode().tunnel("vx-1", 4789, 4097, elsewhere=True))
    )
    assert told(in_a_sandbox) == [("mtu", UNCLEAR)]


def test_a_setting_that_a_reboot_takes() -> None:
    """flannel#2152: turned off by hand; and not where something keeps it."""
    host = FakeNode().nic().tunnel(tx="off")
    assert told(host) == [("cure_unkept", UNCLEAR)]
    host.files["/etc/udev/rules.d/90-flannel.rules"] = 'RUN+="ethtool -K flannel.1 tx-checksum-ip-generic off"'
    assert told(host) == []
    assert told(FakeNode().nic(tx_checksum_ip_generic="off [fixed]").tunnel()) == []
    assert told(FakeNode().nic().tunnel("vxlan.calico", 4789, 4096, tx="off")) == [], "Felix keeps that"


UNREAD = {
    "a file": "/etc/NetworkManager/system-connections/wired.nmconnection",
    "a directory": "/etc/NetworkManager/system-connections",
}


@pytest.mark.parametrize("path", UNREAD.values(), ids=UNREAD)
def test_what_may_keep_it_and_cannot_be_read_accuses_nobody(path: str) -> None:
    host = FakeNode().nic().tunnel(tx="off")
    host.files[path] = NotPermitted(f"{path} cannot be read: run this as root")
    node = nodes.look(host, PORTS, [0])
    assert diagnose(node) == []
    assert node.unseen == ["whether a file keeps checksums off (root)"]
    host.files["/etc/rc.local"] = "ethtool -K flannel.1 tx off"
    assert nodes.look(host, PORTS, [0]).unseen == []


def test_a_subdirectory_among_the_files_ends_nothing() -> None:
    host = FakeNode().nic().tunnel(tx="off")
    host.answers["ifup"] = host_module.Completed(0, "", "")
    host.files["/etc/network/interfaces.d/old"] = SystemRefused("/etc/network/interfaces.d/old: Is a directory")
    assert told(host) == [("cure_unkept", UNCLEAR)]


def test_one_device_that_cannot_be_cured_ends_nothing() -> None:
    host = FakeNode().nic().tunnel("$(reboot)", tx="off").tunnel(tx="off")
    host.files["/var/lib/fixer/cure/eth9.json"] = "{"
    node = nodes.look(host, PORTS, [0])
    assert [(each.who, each.cause) for each in diagnose(node)] == [("flannel.1", "cure_unkept")]
    damaged, unsafe = node.unseen
    assert damaged.startswith("whether the cure of eth9 holds (/var/lib/fixer/cure/eth9.json is damaged")
    assert unsafe.startswith("whether anything keeps checksums of $(reboot) off")


def test_a_cure_of_a_device_that_is_gone_is_neither_kept_nor_lost() -> None:
    host = FakeNode().nic().tunnel(tx="off")
    host.files["/run/udev/control"] = ""
    host.answers["udevadm"] = host_module.Completed(0, "", "")
    cures.apply(host, Setting("flannel.1", ("tx-checksum-ip-generic",)))
    gone = FakeNode().nic()
    gone.files |= {path: text for path, text in host.files.items() if path.startswith(("/var", "/etc", "/run"))}
    node = nodes.look(gone, PORTS, [0])
    assert diagnose(node) == []
    assert node.unseen == ["whether the cure of flannel.1 holds"]


def test_a_cure_that_has_drifted() -> None:
    """talos-argocd-proxmox#1953: it was applied, and is on again."""
    host = FakeNode().nic().tunnel()
    host.files["/run/udev/control"] = ""
    host.answers["udevadm"] = host_module.Completed(0, "", "")
    setting = Setting("flannel.1", ("tx-checksum-ip-generic",))
    host.answers["ethtool -k flannel.1"] = host_module.Completed(0, "tx-checksum-ip-generic: off\n", "")
    cures.apply(host, setting)
    assert told(host) == []
    host.answers["ethtool -k flannel.1"] = host_module.Completed(0, "tx-checksum-ip-generic: on\n", "")
    (found,) = seen(host)
    assert (found.cause, found.verdict) == ("cure_lost", FAULT)
    assert found.cure == "`fixer cure --apply --device flannel.1`"
    host.answers["ethtool -k flannel.1"] = host_module.Completed(0, "tx-checksum-ip-generic: off\n", "")
    del host.files["/etc/udev/rules.d/90-fixer-flannel.1.rules"]
    assert told(host) == [("cure_lost", UNCLEAR)]


def test_ebpf_before_our_hook() -> None:
    """calico#7040."""
    host = FakeNode().nic().tunnel("vxlan.calico", 4789, 4096)
    host.answers["tc filter show dev eth0 ingress"] = host_module.Completed(
        0, "filter pref 1 bpf chain 0 handle 0x1 cali", ""
    )
    (found,) = seen(host)
    assert (found.cause, found.verdict) == ("ebpf_first", HARMLESS)


def test_recycling_behind_snat_in_a_namespace_asked_for() -> None:
    """flannel#530."""
    assert told(tw_recycle("4.4.0-21-generic", 90)) == [("tw_recycle", FAULT)]


# What grows, and what is somebody else's


def test_refused_so_far_is_unclear_and_what_every_host_refuses_is_nothing() -> None:
    host = FakeNode().nic().tunnel()
    host.snmp["Udp"] |= {"InCsumErrors": 9000}
    assert told(host) == [("outer_refused", UNCLEAR)]
    host.snmp["Udp"] |= {"InCsumErrors": 400}  # of half a million
    assert told(host) == []


def test_what_was_refused_long_ago_is_no_fault_while_nothing_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    host = FakeNode().nic().tunnel()
    host.snmp["Udp"] |= {"InCsumErrors": 9000}
    assert watched(host, monkeypatch) == []


def test_invalid_packets_that_a_rule_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    drops = ":INPUT ACCEPT [0:0]\n[{}:100] -A INPUT -m conntrack --ctstate INVALID -j DROP"
    host = FakeNode().nic().tunnel().rules(filter=drops.format(70))
    assert told(host) == []
    monkeypatch.setattr(time, "sleep", lambda _: host.rules(filter=drops.format(99)))
    found = diagnose(nodes.watch(host, nodes.look(host, PORTS, [0]), 3))
    assert [(each.cause, each.verdict) for each in found] == [("conntrack_invalid", UNCLEAR)]
    host.files["/proc/sys/net/netfilter/nf_conntrack_checksum"] = "0\n"
    monkeypatch.setattr(time, "sleep", lambda _: host.rules(filter=drops.format(200)))
    assert diagnose(nodes.watch(host, nodes.look(host, PORTS, [0]), 3)) == []


def test_a_strict_rp_filter_that_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    host = FakeNode().nic().tunnel()
    assert watched(host, monkeypatch, TcpExt_IPReversePathFilter=40) == []
    host.files["/proc/sys/net/ipv4/conf/all/rp_filter"] = "1\n"
    assert watched(host, monkeypatch, TcpExt_IPReversePathFilter=40) == [("rp_filter", UNCLEAR)]


def test_who_listens_on_our_queue() -> None:
    host = FakeNode().nic().tunnel()
    host.files[f"{NET}/netfilter/nfnetlink_queue"] = "    0  31621     0 2 65531     0     0       17  1\n"
    host.files[f"{NET}/netlink"] = "sk Eth Pid\n0 12 31621 0 0 0 0 0 0 4242\n"
    host.owners[4242] = Owner(77, "suricata")
    assert told(host) == [("queue_taken", UNCLEAR)]
    host.owners[4242] = Owner(77, "fixer")
    assert told(host) == []


# As a command


@pytest.fixture
def swarm_host(monkeypatch: pytest.MonkeyPatch) -> FakeNode:
    host = swarm()
    monkeypatch.setattr(host_module, "Host", lambda: host)
    return host


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli.cli, ["doctor", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_the_command(swarm_host: FakeNode) -> None:
    result = run()
    assert result.exit_code == 3
    for words in (
        "1  unclear  host  (inner_refused)",
        "NIC    ens192 (vmxnet3), MTU 1500, tx-checksum-ip-generic on",
        "To last",
    ):
        assert " ".join(words.split()) in " ".join(result.stdout.split())
    assert swarm_host.changed == []


def test_a_healthy_node_ends_with_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "Host", lambda: HEALTHY["flannel"])
    result = run()
    assert (result.exit_code, "Nothing is wrong" in result.stdout) == (0, True)
    assert json.loads(run("--json").stdout)["verdict"] == "healthy"


def test_without_root_it_says_what_it_could_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    host = FakeNode().vmware().nic("ens192", "vmxnet3").tunnel().retransmits()
    host.net_admin = False
    host.answers["iptables-save"] = host_module.Completed(4, "", "Permission denied (you must be root)")
    host.files[f"{NET}/nf_conntrack"] = NotPermitted("root")
    host.files[f"{NET}/netfilter/nfnetlink_queue"] = NotPermitted("root")
    monkeypatch.setattr(host_module, "Host", lambda: host)
    found = json.loads(run("--json").stdout)
    assert [each["cause"] for each in found["findings"]] == ["offload_vmxnet3"]
    assert len(found["unseen"]) == 4


def test_the_other_part_is_still_there(swarm_host: FakeNode) -> None:
    assert run("timestamps").exit_code == 0


# The object


ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "doctor.schema.json").read_text(encoding="utf-8"))


def test_every_finding_has_the_shape_that_is_promised() -> None:
    finding = SCHEMA["$defs"]["finding"]
    every = [swarm(), tw_recycle(EL7, 5), *(host for host, _ in KNOWN.values())]
    for found in (each for host in every for each in seen(host)):
        shown = json.loads(json.dumps(found.as_object()))
        assert set(shown) == set(finding["required"]) == set(finding["properties"])
        assert shown["cause"] in finding["properties"]["cause"]["enum"]
        assert shown["check"] in finding["properties"]["check"]["enum"]
        assert shown["text"]
        assert shown["evidence"]


def test_a_finding_of_scan_is_one_too_but_for_what_only_a_node_has() -> None:
    of_scan = json.loads((Path(nodes.__file__).parents[1] / "data" / "finding.schema.json").read_text(encoding="utf-8"))
    assert set(SCHEMA["$defs"]["finding"]["required"]) - set(of_scan["required"]) == {"now", "check"}
    assert set(of_scan["required"]) <= set(SCHEMA["$defs"]["finding"]["required"])


def test_every_check_has_a_name_of_its_own_and_says_when() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert all(check.says and check.looks_at for check in CHECKS)
    assert all(
        found.cause in causes[found.check] for found in seen(swarm()) for causes in [{c.name: c.causes for c in CHECKS}]
    )


def test_the_manual_says_what_the_checks_say() -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "checks"))
    text = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert tool["manual"](text) == text, "run .venv/bin/python tools/checks"
    assert json.loads(tool["schema"]()) == SCHEMA, "run .venv/bin/python tools/checks"
