"""This namespace's own addresses, as the kernel has them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from support.fakehost import FakeHost
from support.netns import Namespace

from fixer.errors import NotPermitted
from fixer.host import addresses
from fixer.host.machine import NET, Host


@pytest.mark.root
def test_those_of_each_family_and_no_network_or_broadcast_address(netns: Namespace) -> None:
    netns.configure(
        "link add eth0 type veth peer name eth1",
        "address add 192.0.2.5/24 dev eth0",
        "address add 192.0.2.77/32 dev eth0",
        "address add 2001:db8::5/64 dev eth0 nodad",
        "link set eth0 up",
        "link set eth1 up",
    )
    found = netns.call(addresses.local, Host(), 4)
    assert found == frozenset(map(ip_address, ("127.0.0.1", "192.0.2.5", "192.0.2.77")))
    six = netns.call(addresses.local, Host(), 6)
    assert six is not None
    assert {ip_address("::1"), ip_address("2001:db8::5")} <= six
    assert all(each.is_link_local for each in six - {ip_address("::1"), ip_address("2001:db8::5")})


def test_what_cannot_be_read_is_not_known() -> None:
    host = FakeHost()
    assert addresses.local(host, 4) is None
    host.files[f"{NET}/fib_trie"] = NotPermitted("no")
    assert addresses.local(host, 4) is None
