"""Whether somebody has changed the raw tables of iptables-legacy, without a process."""

from __future__ import annotations

import pytest
from support.netns import Namespace

from fixer.host.machine import Host
from fixer.host.xtables import digests

pytestmark = [pytest.mark.root, pytest.mark.kernels]

ADD = "-t raw -A PREROUTING -p udp --dport 4789 -j NFQUEUE --queue-num 7 --queue-bypass"
CHANGES = (
    ADD,
    "-t raw -A PREROUTING -p udp --dport 53 -j DROP",
    "-t raw -R PREROUTING 1 -p udp --dport 4789 -j NFQUEUE --queue-num 8 --queue-bypass",
    "-t raw -R PREROUTING 2 -p udp --dport 54 -j DROP",
    "-t raw -I PREROUTING -p udp --dport 53 -j ACCEPT",
    "-t raw -D PREROUTING 1",
    "-t raw -N FIXER",
    "-t raw -A PREROUTING -j FIXER",
    "-t raw -P PREROUTING DROP",
    "-t raw -F",
)


@pytest.fixture
def legacy(netns: Namespace) -> Namespace:
    tried = netns.host.run(["unshare", "-n", "iptables-legacy", "-t", "raw", "-L"])
    if tried.status != 0:
        pytest.skip(f"no iptables-legacy in this kernel: {tried.err.splitlines()[0]}")
    return netns


def test_no_table_is_none_and_none_is_made_by_asking(legacy: Namespace) -> None:
    assert legacy.call(digests, Host()) == (None, None)
    assert legacy.call(digests, Host()) == (None, None)


@pytest.mark.parametrize("number", [0, 1], ids=["ipv4", "ipv6"])
def test_each_change_is_seen_and_what_is_counted_is_none(legacy: Namespace, number: int) -> None:
    command = ("iptables-legacy", "ip6tables-legacy")[number]
    seen: list[tuple[bytes | None, ...]] = [(None, None)]
    for change in CHANGES:
        legacy.run(command, *change.split())
        now = legacy.call(digests, Host())
        assert now != seen[-1], change
        assert now[1 - number] is None
        legacy.send(3, version=(4, 6)[number])
        legacy.send(3, port=53, version=(4, 6)[number])
        legacy.run(command, "-t", "mangle", "-F")
        legacy.run(command, "-t", "raw", "-Z")
        assert legacy.call(digests, Host()) == now, change
        seen.append(now)


def test_the_same_rules_are_the_same(legacy: Namespace) -> None:
    legacy.run("iptables-legacy", *ADD.split())
    before = legacy.call(digests, Host())
    legacy.run("iptables-legacy", "-t", "raw", "-F")
    legacy.run("iptables-legacy", *ADD.split())
    assert legacy.call(digests, Host()) == before
