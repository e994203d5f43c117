"""Who in nftables drops our packets before our table meets them: read from what nft 1.0.6 said of such rulesets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from support.fakehost import OK, FakeHost

from fixer.host.machine import Completed
from fixer.rules.earlier import Chain, Packet, chains, drops
from fixer.rules.nftables import Nftables
from fixer.rules.selection import IPV4, IPV6
from fixer.status import reasons

EARLY = Chain("inet", "firewall", "early", -400, "accept")
SAID = """\
{"table": {"family": "ip", "name": "fixer", "handle": 3}}
{"chain": {"family": "ip", "table": "raw", "name": "PREROUTING", "hook": "prerouting", "prio": -300}}
{"chain": {"family": "inet", "table": "firewall", "name": "sub", "handle": 1}}
{"chain": {"family": "inet", "table": "firewall", "name": "early", "hook": "prerouting", "prio": -400}}
{"chain": {"family": "inet", "table": "firewall", "name": "out", "hook": "output", "prio": -400, "policy": "drop"}}
{"chain": {"family": "ip6", "table": "other", "name": "p", "hook": "prerouting", "prio": -301, "policy": "drop"}}
{"chain": {"family": "ip", "table": "fixer", "name": "prerouting", "hook": "prerouting", "prio": -299}}
{"chain": {"family": "ip", "table": "filter", "name": "late", "hook": "prerouting", "prio": 0, "policy": "drop"}}
"""
UDP4789 = '{"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 4789}}'
BOTH = UDP4789.replace("4789", '{"set": [4789, {"range": [6000, 7000]}, 8472]}')
NOT_LO = '{"match": {"op": "!=", "left": {"meta": {"key": "iifname"}}, "right": "lo"}}'
ETH0 = '{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth0"}}'
IS_IPV4 = '{"match": {"op": "==", "left": {"meta": {"key": "nfproto"}}, "right": "ipv4"}}'
UDP = '{"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "udp"}}'
FROM_TEN = (
    '{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, '
    '"right": {"prefix": {"addr": "10.0.0.0", "len": 8}}}}'
)
NAMED_SET = UDP4789.replace("4789", '"@bad"')
MULTIPORT = '{"xt": {"type": "match", "name": "multiport"}}'
NOTRACK = '{"xt": {"type": "target", "name": "CT"}}'
STRANGE = '{"xt": {"type": "target", "name": "TPROXY"}}'
COUNTER, LIMIT = '{"counter": {"packets": 0, "bytes": 0}}', '{"limit": {"rate": 5, "burst": 5, "per": "second"}}'
DROP, ACCEPT, RETURN = '{"drop": null}', '{"accept": null}', '{"return": null}'
REJECT = '{"reject": {"type": "icmpx", "expr": "port-unreachable"}}'
JUMP, GOTO = '{"jump": {"target": "sub"}}', '{"goto": {"target": "sub"}}'
VMAP = (
    '{"vmap": {"key": {"payload": {"protocol": "udp", "field": "dport"}}, "data": {"set": [[53, {"accept": null}]]}}}'
)


def objects(said: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.splitlines()]


def rules(*early: tuple[str, ...], sub: tuple[tuple[str, ...], ...] = ()) -> list[dict[str, Any]]:
    both = [("early", each) for each in early] + [("sub", each) for each in sub]
    return [
        {"rule": {"chain": chain, "handle": handle, "expr": [json.loads(part) for part in parts]}}
        for handle, (chain, parts) in enumerate(both, 1)
    ]


def found(
    table: list[dict[str, Any]], chain: Chain = EARLY, *, ports: tuple[int | None, ...] = (4789, 8472), **packet: Any
) -> list[tuple[str, tuple[int, ...], bool]]:
    wanted = [Packet(packet.get("family", IPV4), port, packet.get("interface")) for port in ports]
    return [(each.entry, each.ports, each.takes_all) for each in drops(chain, table, wanted)]


def test_what_stands_before_ours_in_the_order_of_a_packet() -> None:
    assert list(map(str, chains(objects(SAID), IPV4, -299))) == ["inet firewall early", "ip raw PREROUTING"]
    assert list(map(str, chains(objects(SAID), IPV6, -299))) == ["inet firewall early", "ip6 other p"]


ALL, SOME = [("handle 1", (4789, 8472), True)], [("handle 1", (4789,), False)]
NONE: list[object] = []


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((DROP,), ALL),
        ((COUNTER, REJECT), ALL),
        ((BOTH, COUNTER, DROP), ALL),
        ((NOT_LO, UDP, DROP), ALL),
        ((IS_IPV4, DROP), ALL),
        ((UDP4789, DROP), SOME),
        ((UDP4789.replace("udp", "th"), DROP), SOME),
        ((UDP4789.replace("==", "!="), DROP), [("handle 1", (8472,), False)]),
        ((UDP4789.replace("4789", '{"range": [4000, 5000]}'), DROP), SOME),
        ((UDP.replace("udp", "tcp"), DROP), NONE),
        ((UDP.replace('"udp"', '{"set": ["tcp", "udp"]}'), DROP), ALL),
        ((UDP.replace("==", "!="), DROP), NONE),
        ((IS_IPV4.replace("ipv4", "ipv6"), DROP), NONE),
        ((BOTH, ACCEPT), NONE),
        ((BOTH,), NONE),
        # Whom these are for cannot be told.
        ((FROM_TEN, BOTH, DROP), NONE),
        ((NAMED_SET, DROP), NONE),
        ((UDP, MULTIPORT, DROP), NONE),
        ((LIMIT, DROP), NONE),
        ((ETH0, DROP), NONE),
        ((UDP.replace("==", "in"), DROP), NONE),
        ((UDP4789.replace("4789", '[4789, "x"]'), DROP), NONE),
    ],
)
def test_one_rule(parts: tuple[str, ...], expected: list[object]) -> None:
    assert found(rules(parts)) == expected


def test_what_another_one_lets_pass_comes_to_ours_and_is_not_dropped_behind_that() -> None:
    assert found(rules((UDP4789, ACCEPT), (DROP,))) == [("handle 2", (8472,), False)]
    assert found(rules((FROM_TEN, ACCEPT), (DROP,))) == [], "peers may be let pass, and the others dropped"
    assert found(rules((VMAP,), (DROP,))) == []
    assert found(rules((UDP4789, STRANGE), (DROP,))) == [("handle 2", (8472,), False)]
    assert found(rules((NOTRACK,), (MULTIPORT, NOTRACK), (FROM_TEN, DROP), (LIMIT, DROP), (DROP,))) == [
        ("handle 5", (4789, 8472), True)
    ]


def test_where_a_rule_leads() -> None:
    dropped = [("handle 2", (4789,), False)]
    assert found(rules((UDP, JUMP), sub=((UDP4789, DROP),))) == dropped
    assert found(rules((JUMP,), (DROP,), sub=((UDP4789, RETURN), (ACCEPT,)))) == dropped
    assert found(rules((GOTO,), (DROP,), sub=((UDP4789, RETURN),))) == []
    assert found(rules((FROM_TEN, JUMP), (DROP,), sub=((ACCEPT,),))) == []


OURS = """\
{"table": {"family": "ip", "name": "fixer", "handle": 3}}
{"chain": {"family": "ip", "table": "fixer", "name": "prerouting", "hook": "prerouting", "prio": -299}}
{"rule": {"chain": "prerouting", "handle": 2, "expr": [%s, {"counter": {"packets": 5, "bytes": 500}},
 {"queue": {"num": 7, "flags": "bypass"}}]}}
"""


def test_it_is_told_with_the_command_that_shows_it() -> None:
    host = FakeHost()
    ports = UDP4789.replace("4789", '{"set": [4789, 8472]}')
    listed = {
        ("table", "ip", "fixer"): objects((OURS % ports).replace(",\n", ",")),
        ("chains",): objects(SAID),
        ("table", "inet", "firewall"): rules((UDP4789, DROP)),
        ("table", "ip", "raw"): [],
    }

    def nft(argv: Sequence[str], _: str | None) -> Completed:
        assert argv[:5] == ["env", "TZ=UTC0", "nft", "-j", "list"]
        return Completed(0, json.dumps({"nftables": listed[tuple(argv[5:])]}), "")

    host.answers |= {"nft": OK, "env": nft}
    found = Nftables(host, IPV4).read()
    assert (found.on, found.is_passed_over) == (True, False), "what others append later is met all the same"
    assert found.takes == "UDP to port 4789, 8472 to queue 7"
    (reason,) = reasons.ahead(found)
    what = "handle 1 in inet firewall early drops all our packets to port 4789 before our rules meet them"
    assert (reason.what, reason.command, reason.by) == (what, "nft -a list table inet firewall", "See")


def test_a_table_of_others_that_cannot_be_read_leaves_ours_as_it_is() -> None:
    host = FakeHost()
    ours = json.dumps({"nftables": objects((OURS % UDP4789).replace(",\n", ","))})

    def nft(argv: Sequence[str], _: str | None) -> Completed:
        return Completed(0, ours if argv[5:] == ["table", "ip", "fixer"] else "no JSON", "")

    host.answers |= {"nft": OK, "env": nft}
    found = Nftables(host, IPV4).read()
    assert (found.on, found.ahead) == (True, ())


def test_more_ways_than_there_are_rules_end_in_no_answer() -> None:
    """The kernel has no loops, and lets 16 chains call each other; here each calls the next one twice."""
    names = ["early", *(f"c{depth}" for depth in range(15))]
    table = [
        {"rule": {"chain": chain, "handle": 1, "expr": [{"jump": {"target": target}}]}}
        for chain, target in pairwise(names)
        for _ in range(2)
    ]
    table += [rule for rule in rules((DROP,)) if rule["rule"]["chain"] == "early"]
    assert found(table) == []


def test_a_policy() -> None:
    closed = EARLY._replace(policy="drop")
    assert found([], closed) == [("policy drop", (4789, 8472), True)]
    assert found(rules((BOTH, ACCEPT)), closed) == []
    assert found(rules((UDP4789, RETURN)), closed) == [("policy drop", (4789, 8472), True)]
    assert found(rules((FROM_TEN, ACCEPT)), closed) == []


def test_an_interface_and_the_other_family() -> None:
    assert found(rules((ETH0, DROP)), interface="eth0") == ALL
    assert found(rules((ETH0, DROP)), interface="eth1") == NONE
    assert found(rules((ETH0, DROP)), interface="eth+") == NONE
    assert found(rules((IS_IPV4, DROP)), family=IPV6) == NONE
    assert found(rules((FROM_TEN, ACCEPT), (DROP,)), family=IPV6) == [("handle 2", (4789, 8472), True)]


def test_what_is_plain_is_dropped_for_certain_only_by_what_drops_all() -> None:
    assert found(rules((UDP, DROP), (BOTH, DROP)), ports=(None,)) == []
    assert found(rules((NOT_LO, DROP)), ports=(None,)) == [("handle 1", (), True)]
