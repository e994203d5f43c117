"""The devices of a namespace as ip tells them, in JSON and as it did before: the same."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from support.fakenode import UNDERLAY, FakeNode
from support.netns import Namespace

from fixer.errors import SystemRefused
from fixer.host import devices, plainip
from fixer.host.devices import Vxlan
from fixer.host.machine import Completed, Host

EL7 = r"""1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN mode DEFAULT group default qlen 1000\    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00 promiscuity 0
2: eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc pfifo_fast state UP mode DEFAULT group default qlen 1000\    link/ether 52:54:00:12:34:56 brd ff:ff:ff:ff:ff:ff promiscuity 0 addrgenmode eui64 numtxqueues 1
3: flannel.1: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1450 qdisc noqueue state UNKNOWN mode DEFAULT group default \    link/ether 4e:8c:11:22:33:44 brd ff:ff:ff:ff:ff:ff promiscuity 0 \    vxlan id 1 local 192.168.102.5 dev eth0 srcport 0 0 dstport 8472 nolearning ageing 300 noudpcsum noudp6zerocsumtx noudp6zerocsumrx addrgenmode eui64
4: veth9@if3: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1450 qdisc noqueue master cni0 state UP mode DEFAULT group default \    link/ether 4e:8c:11:22:33:45 brd ff:ff:ff:ff:ff:ff link-netnsid 0 promiscuity 1 \    veth \    bridge_slave state forwarding priority 32
"""  # noqa: E501 - as ip prints it
ADDRESSES = r"""1: lo    inet 127.0.0.1/8 scope host lo\       valid_lft forever preferred_lft forever
2: eth0    inet 192.168.102.5/24 brd 192.168.102.255 scope global dynamic eth0\       valid_lft 8000sec
2: eth0    inet6 fe80::5054:ff:fe12:3456/64 scope link \       valid_lft forever preferred_lft forever
"""


class Old(Host):
    """This machine, with an ip that has no JSON."""

    def run(self, argv: Sequence[str], input: str | None = None, seconds: float | None = 30.0) -> Completed:
        if "-json" in argv:
            return Completed(255, "", 'Option "-json" is unknown, try "ip -help".\n')
        return super().run(argv, input, seconds)


def test_centos_7() -> None:
    host = FakeNode()
    host.answers |= {
        "ip": Completed(255, "", 'Option "-json" is unknown, try "ip -help".\n'),
        "ip -details -oneline link show": Completed(0, EL7, ""),
        "ip -oneline address": Completed(0, ADDRESSES, ""),
    }
    eth0, flannel, veth = devices.look(host)
    assert (eth0.name, eth0.kind, eth0.addresses, eth0.is_up) == ("eth0", "", ("192.168.102.5",), True)
    assert flannel.vxlan == Vxlan(1, 8472, 4, "192.168.102.5", "eth0", False, False, False)
    assert (veth.name, veth.kind, veth.mtu) == ("veth9", "veth", 1450)


def test_an_ip_that_says_nothing_is_an_error() -> None:
    host = FakeNode()
    host.answers["ip"] = Completed(1, "", "Cannot open netlink socket")
    with pytest.raises(SystemRefused, match="Cannot open netlink socket"):
        devices.look(host)


@pytest.mark.root
def test_both_say_the_same_of_real_devices(netns: Namespace) -> None:
    netns.configure(
        "link add eth0 type veth peer name eth1",
        "address add 10.9.0.1/24 dev eth0",
        "address add fd00::1/64 dev eth0 nodad",
        "link set eth0 up",
        "link add br0 type bridge",
        "link set eth1 master br0",
        "link add v6 type vxlan id 7 local fd00::1 remote fd00::2 dstport 4789 dev eth0 udp6zerocsumtx",
        "link add v4 type vxlan id 8 local 10.9.0.1 dstport 8472 dev eth0 noudpcsum",
        "link add out type vxlan external dstport 9999",
    )
    found = {device.name: device for device in netns.call(devices.look, Host())}
    assert {device.name: device for device in netns.call(devices.look, Old())} == found
    assert netns.call(plainip.links, Host())
    assert found["v6"].vxlan == Vxlan(7, 4789, 6, "fd00::1", "eth0", False, False, False)
    assert found["v4"].vxlan == Vxlan(8, 8472, 4, "10.9.0.1", "eth0", False, False, False)
    assert found["out"].vxlan == Vxlan(None, 9999, 4, "", "", False, False, False)
    assert found["eth0"].addresses == ("10.9.0.1", "fd00::1")
    assert devices.below(found["v4"].vxlan, list(found.values())) == found["eth0"]


def test_a_dummy_has_the_address_and_carries_nothing() -> None:
    """Where routing protocols give a node its address, it stands on a dummy."""
    host = FakeNode().nic("eth0", address="10.0.0.1").tunnel()
    host._link("dummy0", 1500, "dummy", UNDERLAY)
    there = devices.look(host)
    tunnel = next(device.vxlan for device in there if device.vxlan)
    assert tunnel.local == UNDERLAY
    below = devices.below(tunnel, there)
    assert below is not None
    assert below.name == "eth0"
    assert devices.below(tunnel, [device for device in there if device.name != "eth0"]) is None
    bound = msgspec.structs.replace(tunnel, lower="dummy0")
    assert devices.below(bound, there) is None
