"""What ends the walk before our jump, read from iptables-save's words."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from fixer.rules.ahead import Match, Traffic, ends, match, told, traffic
from fixer.rules.rawtable import HOOK, OUTPUT, Line, RawTable, parse, spelt

VXLAN = Traffic(frozenset({"udp"}), frozenset({4789, 8472}))
PLAIN = Traffic(frozenset({"tcp", "udp", "icmp"}))

OURS = """\
[7:700] -A PREROUTING -j FIXER
[5:500] -A FIXER -p udp -m multiport --dports 4789,8472 -j NFQUEUE --queue-num 3 --queue-bypass
"""


def table(*rules: str, ours: str = OURS) -> RawTable:
    chains = {rule.split()[1] for rule in rules} | {"FIXER", "PREROUTING"}
    return parse(
        "# comment\n*raw\n"
        + "".join(f":{chain} {'ACCEPT' if chain == 'PREROUTING' else '-'} [0:0]\n" for chain in sorted(chains))
        + "".join(f"[0:0] {rule}\n" for rule in rules)
        + ours
        + "COMMIT\n"
    )


def counted(found: RawTable) -> tuple[int, int]:
    """Packets and bytes that our rules have sent to the queue."""
    lines = found.queueing()
    return sum(line.packets for line in lines), sum(line.bytes for line in lines)


def test_parsing_reads_rules_counters_and_quotes() -> None:
    found = parse('*raw\n:X - [0:0]\n[12:345] -A X -m comment --comment "say \\"hi\\" to me" -j LOG\nCOMMIT\n')
    rule = Line("X", ("-m", "comment", "--comment", 'say "hi" to me', "-j", "LOG"), 12, 345)
    assert found.chains == {"X": (rule,)}
    assert str(rule) == '-A X -m comment --comment "say \\"hi\\" to me" -j LOG'


@pytest.mark.parametrize(
    "comment", ["two\n-A PREROUTING -j FIXER", "a\r\x85\u2028b", 'a"b', "don't", "back\\slash", '"', ""]
)
def test_a_comment_is_one_word_whatever_is_in_it(comment: str) -> None:
    """Of another line in it nothing is believed, and no quote in it ends the word."""
    saved = comment.replace("\\", "\\\\").replace('"', '\\"').replace("'", "\\'")  # as libxtables writes it
    words = f'-p icmp -m comment --comment "{saved}" -j ACCEPT'
    table = parse(f"*raw\n:PREROUTING ACCEPT [0:0]\n[1:2] -A PREROUTING {words}\n[3:4] -A OUTPUT -j RETURN\nCOMMIT\n")
    assert table.chains["PREROUTING"] == (
        Line("PREROUTING", ("-p", "icmp", "-m", "comment", "--comment", comment, "-j", "ACCEPT"), 1, 2),
    )
    assert table.chains["OUTPUT"] == (Line("OUTPUT", ("-j", "RETURN"), 3, 4),)
    assert not table.jumps()


@pytest.mark.parametrize("interface", ['et"h', "don't", "[/red]", "\\", 'h"'])
def test_a_name_stands_as_it_is(interface: str) -> None:
    [rule] = parse(f"-A PREROUTING -i {interface} -j DROP\n-A OUTPUT -j RETURN\n").chains["PREROUTING"]
    assert rule.words == ("-i", interface, "-j", "DROP")


def test_nothing_saved_is_an_empty_table() -> None:
    assert parse("") == RawTable()
    assert not parse("").has_ours


def test_our_own_rule_is_read_back() -> None:
    ours = table("-A PREROUTING -p udp --dport 53 -j CT --notrack")
    assert ours.is_on
    assert ours.in_place
    assert (ours.position(), ours.queues, *counted(ours)) == (2, range(3, 4), 5, 500)
    assert traffic(ours) == VXLAN
    assert str(ours) == "UDP to port 4789, 8472 to queue 3"


def test_several_queues_are_read_back() -> None:
    spread = "--queue-balance 3:6 --queue-bypass --queue-cpu-fanout"
    ours = table(ours=OURS.replace("--queue-num 3 --queue-bypass", spread))
    assert ours.is_on
    assert (ours.queues, counted(ours)[0]) == (range(3, 7), 5)
    assert str(ours) == "UDP to port 4789, 8472 to queues 3 to 6"
    assert table(ours="[7:700] -A PREROUTING -j FIXER\n").queues == range(0)


def test_plain_rules_are_read_back() -> None:
    ours = table(
        ours="[0:0] -A PREROUTING -j FIXER\n"
        + "".join(
            f"[1:10] -A FIXER -s 10.0.0.0/8 ! -i lo -p {kind} -j NFQUEUE --queue-num 0 --queue-bypass\n"
            for kind in ("tcp", "udp", "ipv6-icmp")
        )
    )
    assert traffic(ours) == Traffic(frozenset({"tcp", "udp", "icmpv6"}))
    assert counted(ours)[0] == 3
    assert str(ours) == "TCP, UDP, ICMPv6 from 10.0.0.0/8 to queue 0"


SUSPECTS = """\
[9:9000] -A PREROUTING -j FIXER
[6:3500] -A FIXER -p udp -m multiport --dports 4789 -g FIXER-VXLAN
[1:3000] -A FIXER-VXLAN -m bpf --bytecode "1,6 0 0 0" -m comment --comment "a, b" -j RETURN
[5:500] -A FIXER-VXLAN -j NFQUEUE --queue-num 3 --queue-bypass
"""


def test_what_passes_without_a_look_is_not_counted_as_queued() -> None:
    ours = table(ours=SUSPECTS)
    assert (ours.scope, table().scope) == ("suspects", "all")
    assert (ours.queues, *counted(ours)) == (range(3, 4), 5, 500)
    assert [rule.packets for rule in ours.exempting()] == [1]
    assert traffic(ours) == Traffic(frozenset({"udp"}), frozenset({4789}))
    assert ours.in_place
    assert [rule.chain for rule in ours.jumps()] == ["PREROUTING"], "not what leads from one of our chains to another"
    assert str(ours) == "suspects among UDP to port 4789 to queue 3"


NORMALISING = """\
[9:900] -A PREROUTING -j FIXER
[8:800] -A OUTPUT -j FIXER-OUTPUT
[4:400] -A FIXER -s 10.9.0.0/16 -i eth0 -p udp -m multiport --dports 4789 -m bpf --bytecode "1,6 0 0 1" -g FIXER-FLOWS
[5:500] -A FIXER -i eth0 -p udp -m multiport --dports 4789 -j NFQUEUE --queue-num 3 --queue-bypass
[3:300] -A FIXER-OUTPUT -o eth0 -p udp -m multiport --dports 4789 -m bpf --bytecode "1,6 0 0 1" -g FIXER-FLOWS
[2:200] -A FIXER-OUTPUT -o eth0 -p tcp -g FIXER-FLOWS
[9:900] -A FIXER-FLOWS -j NFQUEUE --queue-num 4 --queue-bypass
"""


def test_what_is_normalised_is_read_back_by_itself() -> None:
    ours = table(ours=NORMALISING)
    assert ours.is_on
    assert ours.in_place
    assert (ours.queues, *counted(ours), ours.flows_queue) == (range(3, 4), 5, 500, 4)
    assert [sum(rule.packets for rule in ours.normalising(hook)) for hook in (HOOK, OUTPUT)] == [4, 5]
    assert str(ours) == "UDP to port 4789 on eth0 to queue 3", "nothing that narrows the other rules"
    assert traffic(ours) == Traffic(frozenset({"udp"}), frozenset({4789}), "eth0")
    assert traffic(ours, OUTPUT) == Traffic(frozenset({"udp", "tcp"}), None, "eth0")
    assert table().flows_queue is None
    assert table().normalising(OUTPUT) == []


def test_both_jumps_have_to_be_there_and_last() -> None:
    jump = "[8:800] -A OUTPUT -j FIXER-OUTPUT\n"
    missing = table(ours=NORMALISING.replace(jump, ":FIXER-OUTPUT - [0:0]\n"))
    assert (missing.in_place, missing.is_on, missing.position(OUTPUT)) == (False, True, None)
    assert not missing.has_surplus_jumps()
    behind = table(ours=NORMALISING + "[0:0] -A OUTPUT -j LOG\n")
    assert (behind.in_place, behind.position(OUTPUT), behind.is_last(OUTPUT)) == (False, 1, False)
    twice = table(ours=NORMALISING + jump)
    assert (twice.in_place, twice.has_surplus_jumps()) == (False, True)
    elsewhere = table("-A OUTPUT -j FIXER-FLOWS", ours=NORMALISING)
    assert (elsewhere.in_place, elsewhere.has_surplus_jumps()) == (False, True)


@pytest.mark.parametrize(
    ("rule", "matched"),
    [
        ("-A OUTPUT -j ACCEPT", Match.ALL),
        ("-A OUTPUT -o eth0 -j DROP", Match.ALL),
        ("-A OUTPUT -p udp -j ACCEPT", Match.SOME),
        ("-A OUTPUT -o eth1 -j DROP", None),
        ("-A OUTPUT -o lo -j ACCEPT", None),
        ("-A OUTPUT -p icmp -j ACCEPT", None),
        ("-A OUTPUT -p tcp -j CT --notrack", None),
        ("-A PREROUTING -j ACCEPT", None),
    ],
)
def test_what_ends_the_walk_on_the_way_out(rule: str, matched: Match | None) -> None:
    ours = table(rule, ours=NORMALISING)
    found = list(ends(ours, traffic(ours, OUTPUT), OUTPUT))
    assert [(str(end.line), end.match) for end in found] == ([(rule, matched)] if matched else [])


def test_ports_of_one_rule_limit_nothing_if_another_takes_any() -> None:
    ours = table(ours=SUSPECTS + "[0:0] -A FIXER -p tcp -g FIXER-PLAIN\n")
    assert traffic(ours) == Traffic(frozenset({"udp", "tcp"}), None)
    assert str(ours) == "suspects among UDP, TCP to queue 3"


def test_ports_that_we_would_not_write_are_any() -> None:
    assert traffic(table(ours=OURS.replace("4789,8472", "4789:4790"))) == Traffic(frozenset({"udp"}), None)


def test_a_rule_behind_ours_is_not_last() -> None:
    late = table(ours=OURS + "[0:0] -A PREROUTING -j ACCEPT\n")
    assert late.is_on
    assert not late.in_place
    assert list(ends(late, VXLAN)) == []


def test_a_second_jump_is_not_in_place() -> None:
    assert not table("-A PREROUTING -j FIXER").in_place
    assert not table("-A OUTPUT -j FIXER").in_place


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (["-A PREROUTING -j ACCEPT"], [(0, 0, Match.ALL)]),
        (["-A PREROUTING -p udp -j DROP"], [(0, 0, Match.ALL)]),
        (["-A PREROUTING -p 17 -j DROP"], [(0, 0, Match.ALL)]),
        (["-A PREROUTING -j RETURN"], [(0, 0, Match.ALL)]),
        (["-A PREROUTING -p udp -m multiport --dports 4000:5000,8472 -j NFQUEUE --queue-num 9"], [(0, 0, Match.ALL)]),
        (["-A PREROUTING -p udp -m udp --dport 4789 -j ACCEPT"], [(0, 0, Match.SOME)]),
        (["-A PREROUTING -p udp -m udp --dport 8000: -j ACCEPT"], [(0, 0, Match.SOME)]),
        (["-A PREROUTING ! -p tcp -j ACCEPT"], [(0, 0, Match.ALL)]),
        (["-A PREROUTING -s 10.0.0.0/8 -j ACCEPT"], [(0, 0, Match.SOME)]),
        (["-A PREROUTING -m rpfilter --invert -j DROP"], [(0, 0, Match.SOME)]),
        (["-A PREROUTING -i eth0 -j ACCEPT"], [(0, 0, Match.SOME)]),
        (["-A PREROUTING ! -i lo -j ACCEPT"], [(0, 0, Match.ALL)]),
        # These leave our packets alone.
        (["-A PREROUTING -p tcp -j DROP"], []),
        (["-A PREROUTING ! -p udp -j DROP"], []),
        (["-A PREROUTING -i lo -j ACCEPT"], []),
        (["-A PREROUTING -p udp -m udp --dport 53 -j ACCEPT"], []),
        (["-A PREROUTING -p udp -m udp ! --dport 53 -j ACCEPT"], [(0, 0, Match.ALL)]),
        (["-A PREROUTING -j CT --notrack"], []),
        (["-A PREROUTING -j LOG --log-prefix ACCEPT"], []),
        (["-A PREROUTING -m comment --comment only-counts"], []),
        # Chains: what counts is where the walk ends, and that it can get there.
        (["-A PREROUTING -j cali", "-A cali -m mark --mark 0x40000/0x40000 -j ACCEPT"], [(0, 1, Match.SOME)]),
        (["-A PREROUTING -j a", "-A a -p udp -j b", "-A b -j DROP"], [(0, 2, Match.ALL)]),
        (["-A PREROUTING -p tcp -j a", "-A a -j DROP"], []),
        (["-A PREROUTING -j a", "-A a -p udp -j RETURN", "-A a -j DROP"], []),
        (["-A PREROUTING -j a", "-A a -s 10.0.0.0/8 -j RETURN", "-A a -j DROP"], [(0, 2, Match.ALL)]),
        (["-A PREROUTING -g a", "-A a -j LOG"], [(0, 0, Match.ALL)]),
        (["-A PREROUTING -j ACCEPT", "-A PREROUTING -p udp -j DROP"], [(0, 0, Match.ALL), (1, 1, Match.ALL)]),
    ],
)
def test_what_ends_the_walk(rules: list[str], expected: list[tuple[int, int, Match]]) -> None:
    found = [(rules.index(str(end.entry)), rules.index(str(end.line)), end.match) for end in ends(table(*rules), VXLAN)]
    assert found == expected


def test_plain_traffic_is_more_than_udp() -> None:
    tcp = Line("PREROUTING", ("-p", "tcp", "-j", "DROP"))
    assert match(tcp, PLAIN) is Match.SOME
    port = Line("PREROUTING", ("-p", "udp", "-m", "udp", "--dport", "53", "-j", "DROP"))
    assert match(port, PLAIN) is Match.SOME


def test_an_interface_of_ones_own_is_compared() -> None:
    limited = Traffic(frozenset({"udp"}), None, "eth0")
    assert match(Line("PREROUTING", ("-i", "eth1", "-j", "DROP")), limited) is Match.NONE
    assert match(Line("PREROUTING", ("-i", "eth0", "-j", "DROP")), limited) is Match.ALL
    assert match(Line("PREROUTING", ("-i", "eth+", "-j", "DROP")), limited) is Match.SOME


LOCAL = frozenset(map(ip_address, ("127.0.0.1", "192.0.2.5", "172.17.0.1")))
DOCKER_28 = "! -i docker0 -j DROP"


@pytest.mark.parametrize(
    ("rule", "vxlan", "plain"),
    [
        (f"-d 172.17.0.2/32 {DOCKER_28}", Match.NONE, Match.NONE),
        ("-d 172.17.0.2/32 -j ACCEPT", Match.NONE, Match.SOME),  # that would be taken out of our way
        (f"-d 192.0.2.5/32 {DOCKER_28}", Match.SOME, Match.SOME),
        (f"-d 172.17.0.0/16 {DOCKER_28}", Match.SOME, Match.SOME),
        (f"-d 239.1.1.1/32 {DOCKER_28}", Match.SOME, Match.SOME),  # a VXLAN group: nobody's own address
        (f"! -d 172.17.0.2/32 {DOCKER_28}", Match.SOME, Match.SOME),
        (f"-d 10.0.0.1/255.0.255.0 {DOCKER_28}", Match.SOME, Match.SOME),
    ],
)
def test_an_address_that_is_not_ours_is_compared(rule: str, vxlan: Match, plain: Match) -> None:
    line = Line("PREROUTING", tuple(rule.split()))
    assert (match(line, VXLAN._replace(local=LOCAL)), match(line, PLAIN._replace(local=LOCAL))) == (vxlan, plain)
    assert {match(line, VXLAN), match(line, PLAIN)} == {Match.SOME}, "nobody knows ours"


def test_what_differs_in_an_address_or_an_interface_alone_is_told_once() -> None:
    containers = [f"-A PREROUTING -d 172.17.{n % 3}.{n}/32 ! -i br-{n % 3} -j ACCEPT" for n in range(2, 32)]
    others = ["-A PREROUTING -p udp -m udp --dport 4789 -j ACCEPT", "-A PREROUTING -d 172.17.0.99/32 -j DROP"]
    found = told(ends(table(*containers, *others), PLAIN))
    assert [(each.entry, each.alike) for each in found] == [(containers[0], 30), (others[0], 1), (others[1], 1)]


@pytest.mark.parametrize("word", ["plain", "two words", 'quo"te', "it's", "back\\slash", "!", ""])
def test_words_survive_being_spelt(word: str) -> None:
    saved = f"[0:0] -A X -m comment --comment {spelt([word])} -j LOG"
    assert parse(saved).chains["X"][0].words[3] == word
