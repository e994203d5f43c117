"""What may take a packet of the overlay on to another host."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.fakehost import FakeHost
from support.netns import Namespace

from fixer.host.leading import leads_on
from fixer.host.machine import Completed, Host

FORWARDS = {
    "/proc/sys/net/ipv4/ip_forward": "net.ipv4.ip_forward is on: IPv4 is routed on from here",
    "/proc/sys/net/ipv6/conf/all/forwarding": "net.ipv6.conf.all.forwarding is on: IPv6 is routed on from here",
}


def link(name: str, kind: str = "", master: str = "", **more: Any) -> dict[str, Any]:
    """As ``ip -details -json address show`` tells it."""
    info = {"info_kind": kind, "info_data": {"port": 4789}} if kind else {}
    return {
        "ifname": name,
        "mtu": 1500,
        "flags": ["UP"],
        "link_type": "ether",
        "linkinfo": info,
        "master": master,
    } | more


@pytest.mark.parametrize(
    ("links", "said"),
    [
        ([link("vxlan0", "vxlan")], []),
        ([link("vxlan0", "vxlan", "br0"), link("c0", "veth", "br0"), link("eth0")], []),
        (
            [
                link("vxlan0", "vxlan", "br0"),
                link("c0", "veth", "br0"),
                link("eth1", master="br0"),
                link("tap0", "tun", "br0"),
            ],
            ["vxlan0 is a port of the bridge br0, and so is eth1, tap0"],
        ),
        ([link("vxlan0", "vxlan", "br0", link_netnsid=0), link("eth1", master="br0")], ["cannot be seen"]),
        ([link("eth0")], ["cannot be seen"]),
    ],
)
def test_bridges(links: list[dict[str, Any]], said: list[str]) -> None:
    host = FakeHost()
    host.answers["ip"] = Completed(0, json.dumps(links), "")
    found = list(leads_on(host, {4789}))
    assert len(found) == len(said)
    assert all(part in line for part, line in zip(said, found, strict=True))


@pytest.mark.parametrize("value", ["0\n", "1\n", "2\n"])
@pytest.mark.parametrize("name", FORWARDS)
def test_forwarding(name: str, value: str) -> None:
    host = FakeHost()
    host.answers["ip"] = Completed(0, json.dumps([link("vxlan0", "vxlan")]), "")
    host.files[name] = value
    assert list(leads_on(host, {4789})) == ([] if value == "0\n" else [FORWARDS[name]])


@pytest.mark.root
def test_a_real_namespace_and_not_the_machines(netns: Namespace) -> None:
    netns.configure(
        "link add vxlan0 type vxlan id 7 dstport 4789",
        "link add br0 type bridge",
        "link add vxlan1 type vxlan id 8 dstport 4789",
        "link set vxlan0 master br0",
        "link set vxlan1 master br0",
    )

    def look() -> list[str]:
        return [line for line in leads_on(Host(), {4789}) if "forward" not in line]

    assert netns.call(look) == [
        "vxlan0 is a port of the bridge br0, and so is vxlan1",
        "vxlan1 is a port of the bridge br0, and so is vxlan0",
    ]
