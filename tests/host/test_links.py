"""Which interfaces an underlay has: how long its packets may be, and where GRO works."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.fakehost import FakeHost
from support.netns import Namespace

from fixer.errors import FileUnreadable, ProgramMissing, SystemRefused
from fixer.host import links
from fixer.host.machine import Completed, Host


def interface(name: str, mtu: int, kind: str = "", up: bool = True, scope: str = "", **more: Any) -> dict[str, Any]:
    """As ``ip -details -json address show`` tells it."""
    return {
        "ifname": name,
        "mtu": mtu,
        "flags": ["BROADCAST", "UP"] if up else ["BROADCAST"],
        "link_type": "ether",
        "addr_info": [{"scope": scope}] if scope else [],
        **({"linkinfo": {"info_kind": kind}} if kind else {}),
        **more,
    }


NODE = [
    interface("lo", 65536, link_type="loopback", scope="host"),
    interface("eth0", 1500, master="bond0"),
    interface("eth1", 9000, master="bond0"),
    interface("eth2", 1500, up=False),
    interface("bond0", 9000, "bond"),
    interface("bond0.7", 4000, "vlan", scope="global", link="bond0"),
    interface("docker0", 1500, "bridge", scope="global"),
    interface("veth1", 1500, "veth", scope="link", master="docker0", link="veth0"),
    interface("vxlan_sys_4789", 65000, "vxlan", scope="link"),
    interface("genev_sys_6081", 65000, "geneve"),
]
CONTAINER = [
    interface("lo", 65536, link_type="loopback", scope="host"),
    interface("eth0", 1450, "veth", scope="global", link_index=9),
    interface("tunl0", 1480, "ipip", up=False),
]


def host_with(found: list[dict[str, Any]]) -> FakeHost:
    host = FakeHost()
    host.answers["ip"] = Completed(0, json.dumps(found), "")
    return host


@pytest.mark.parametrize(
    ("found", "interface", "longest"),
    [
        (NODE, None, 9000),  # not what comes out of a tunnel, and not loopback
        (NODE, "eth0", 1500),
        (NODE, "bond0.7", 4000),
        (NODE, "bond+", 9000),
        (CONTAINER, None, 1500),  # Ethernet's at least: one that is not there yet may have it
        ([], None, 1500),
    ],
)
def test_the_longest_packet_of_a_wire(found: list[dict[str, Any]], interface: str | None, longest: int) -> None:
    assert links.longest_packet(host_with(found), interface) == longest


@pytest.mark.parametrize(
    ("found", "interface", "names"),
    [
        (NODE, None, {"eth0", "eth1"}),
        (NODE, "bond0.7", {"eth0", "eth1"}),
        (NODE, "eth2", {"eth2"}),
        (NODE, "veth1", {"veth1"}),
        (NODE, "eth9", set()),
        (CONTAINER, None, {"eth0"}),
    ],
)
def test_where_packets_are_received(found: list[dict[str, Any]], interface: str | None, names: set[str]) -> None:
    every = links.every(host_with(found))
    assert {link.name for link in links.carriers(every, interface)} == names


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (None, ProgramMissing, "ip is not installed; on Debian and Ubuntu: apt-get install iproute2"),
        (Completed(1, "", "Cannot open netlink socket\n"), SystemRefused, "ip: Cannot open netlink socket"),
        (Completed(0, "1: lo: <LOOPBACK>", ""), SystemRefused, "ip -json is too old to be understood"),
        (Completed(0, '[{"name": "eth0"}]', ""), SystemRefused, "ip -json is too old to be understood"),
        (Completed(0, "[]", ""), FileUnreadable, "there is no interface eth0 to read the MTU of"),
    ],
)
def test_what_cannot_be_told_is_an_error(answer: Completed | None, error: type[Exception], said: str) -> None:
    host = FakeHost()
    if answer:
        host.answers["ip"] = answer
    with pytest.raises(error, match=said):
        links.longest_packet(host, "eth0")


@pytest.mark.parametrize(
    ("gro", "lro", "merges"),
    [("on", "off [fixed]", True), ("off", "on", True), ("off", "off", False), ("", "", None)],
)
def test_who_merges(gro: str, lro: str, merges: bool | None) -> None:
    host = FakeHost()
    said = f"Features for eth0:\ngeneric-receive-offload: {gro}\nlarge-receive-offload: {lro}\nrx-gro-list: on\n"
    host.answers["ethtool"] = Completed(0, said, "")
    assert links.merging(host, [links.Link("eth0", 1500)]) == {"eth0": merges}


def test_without_ethtool_it_is_not_known_who_merges() -> None:
    assert links.merging(FakeHost(), [links.Link("eth0", 1500)]) == {"eth0": None}


@pytest.mark.root
def test_a_real_namespace_and_not_the_machines(netns: Namespace) -> None:
    host = Host()
    if host.which("ethtool") is None:
        pytest.skip("needs ethtool")
    netns.run("ip", "link", "add", "fx0", "mtu", "4000", "type", "veth", "peer", "name", "fx1")
    netns.run("ip", "link", "add", "fxv", "mtu", "65000", "type", "vxlan", "dstport", "4789", "external")
    netns.run("ip", "address", "add", "192.0.2.1/24", "dev", "fx0")
    netns.run("ip", "link", "set", "fx0", "up")
    netns.run("ethtool", "-K", "fx0", "gro", "off")
    every = netns.call(links.every, host)
    assert {"fx0", "fx1"} <= {link.name for link in every}
    assert not {"fxv", "lo"} & {link.name for link in every}
    assert netns.call(links.longest_packet, host, "fx0") == 4000
    carriers = links.carriers(every, "fx0")
    assert netns.call(links.merging, host, carriers) == {"fx0": False}
    netns.run("ethtool", "-K", "fx0", "gro", "on")
    assert netns.call(links.merging, host, carriers) == {"fx0": True}
