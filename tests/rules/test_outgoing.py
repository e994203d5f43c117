"""``fixer on --outgoing``: the rules that lead what leaves to a queue of its own."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from support.netns import Namespace
from support.switching import turn_off, turn_on

from fixer import config
from fixer.errors import ConfigWrong
from fixer.host.machine import Host
from fixer.rules import nftables, switch
from fixer.rules.chains import chains_of
from fixer.rules.selection import IPV4, IPV6, Selection

VXLAN = Selection(queue=7, ports=(4789, 8472))
OUTGOING = replace(VXLAN, outgoing_queue=8)
MATCH = "-p udp -m multiport --dports 4789,8472"
TO_QUEUE = "-j NFQUEUE --queue-num 8 --queue-bypass"


def leaving(selection: Selection, family: switch.Family = IPV4) -> list[str]:
    return [" ".join(rule) for rule in chains_of(selection, family).get("FIXER-OUTPUT", [])]


def test_all_that_is_sent_is_led_to_a_queue_of_its_own() -> None:
    for family in (IPV4, IPV6):
        assert leaving(OUTGOING, family) == [f"{MATCH} {TO_QUEUE}"]
        assert chains_of(OUTGOING, family)["FIXER"] == chains_of(VXLAN, family)["FIXER"]
    assert "FIXER-OUTPUT" not in chains_of(VXLAN, IPV4)


def test_suspects_narrow_only_what_arrives() -> None:
    assert leaving(replace(OUTGOING, suspects_up_to=1500)) == leaving(OUTGOING)


def test_interface_and_sources_narrow_what_leaves_by_where_it_goes() -> None:
    narrow = replace(OUTGOING, interface="eth0", sources=("10.0.0.0/8",))
    assert leaving(narrow) == [f"-d 10.0.0.0/8 -o eth0 {MATCH} {TO_QUEUE}"]
    assert leaving(narrow, IPV6) == []


def test_plain_packets_leave_by_anything_but_loopback() -> None:
    plain = Selection(queue=7, plain=True, outgoing_queue=8)
    assert leaving(plain) == [f"! -o lo -p {kind} {TO_QUEUE}" for kind in ("tcp", "udp", "icmp")]


def test_what_is_normalised_goes_to_its_own_queue_and_the_rest_to_this_one() -> None:
    both = replace(OUTGOING, flows_queue=9, flows_sources=("192.0.2.1",), until=None)
    rules = leaving(both)
    assert [rule.endswith(end) for rule, end in zip(rules, ("-g FIXER-FLOWS", TO_QUEUE), strict=True)] == [True, True]
    assert sorted(both.every_queue()) == [7, 8, 9]


def test_the_queue_is_the_first_one_that_nobody_else_has() -> None:
    normalise = '[timestamps]\nmode = "normalise"\nsources = ["192.0.2.1/32"]\n'
    for text, number in (
        ("", 1),
        ("[queue]\nnumber = 7\ncount = 3", 10),
        (normalise, 2),
        (f"{normalise}queue = 9", 1),
        ("[timestamps]\nqueue = 1", 1),
    ):
        settings = config.parse(text, "f.toml")
        assert Selection.of(settings, outgoing=True).outgoing_queue == number, text
        assert Selection.of(settings).outgoing_queue is None
    last = config.parse("[queue]\nnumber = 65535", "f.toml")
    assert Selection.of(last).queue == 65535
    with pytest.raises(ConfigWrong, match="no queue number is left for what leaves"):
        Selection.of(last, outgoing=True)


def test_nftables_has_a_chain_of_its_own_for_it() -> None:
    assert nftables.script(OUTGOING, IPV6) == (
        "table ip6 fixer {\n"
        "\tchain prerouting {\n"
        "\t\ttype filter hook prerouting priority -299; policy accept;\n"
        "\t\tudp dport { 4789, 8472 } counter queue num 7 bypass\n"
        "\t}\n"
        "\tchain output {\n"
        "\t\ttype filter hook output priority -299; policy accept;\n"
        "\t\tudp dport { 4789, 8472 } counter queue num 8 bypass\n"
        "\t}\n"
        "}\n"
    )
    narrow = replace(OUTGOING, interface="eth+", sources=("10.0.0.0/8",))
    rule = '\t\tip daddr { 10.0.0.0/8 } oifname "eth*" udp dport { 4789, 8472 } counter queue num 8 bypass\n'
    assert rule in nftables.script(narrow, IPV4)


@pytest.mark.root
def test_on_and_off(netns: Namespace, variant: Any) -> None:
    command = f"iptables-{variant}"
    netns.run(command, "-t", "raw", "-A", "OUTPUT", "-p", "tcp", "-j", "CT", "--notrack")
    before = netns.saved(command)
    said = netns.call(turn_on, Host(), OUTGOING, variant)
    assert said[1] == "IPv4: completing: what leaves, in queue 8; rule 2 of 2 in raw/OUTPUT, last"
    netns.send(3)
    found = netns.call(switch.look, Host(), IPV4)[0]
    assert (found.outgoing_queue, found.counted.outgoing, found.counted.packets) == (8, 3, 3)
    assert found.selection == OUTGOING
    assert "already on" in netns.call(turn_on, Host(), OUTGOING, variant)[0]
    netns.run(command, "-t", "raw", "-D", "OUTPUT", "-j", "FIXER-OUTPUT")
    assert not netns.call(switch.look, Host(), IPV4)[0].in_place
    assert any("put right" in line for line in netns.call(turn_on, Host(), OUTGOING, variant))
    netns.call(turn_on, Host(), VXLAN, variant)
    assert not any("FIXER-OUTPUT" in line for line in netns.saved(command)), "said again without it"
    netns.call(turn_on, Host(), OUTGOING, variant)
    netns.call(turn_off, Host())
    assert netns.saved(command) == before
