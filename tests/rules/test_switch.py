"""``fixer on`` and ``fixer off``: in a real namespace with the kernel as judge, and every refusal on a fake host."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from support.fakehost import NFT, OK, FakeHost
from support.netns import Namespace
from support.switching import option, turn_off, turn_on

from fixer.config import parse as parse_settings
from fixer.errors import ConfigWrong, KernelLacks, NotPermitted, ProgramMissing, SystemRefused
from fixer.host.machine import NET, Completed, Host
from fixer.rules import iptables, switch
from fixer.rules.chains import chains_of
from fixer.rules.rawtable import parse
from fixer.rules.selection import IPV4, IPV6, Selection
from fixer.rules.switch import rule_packets
from fixer.state import baseline
from fixer.state.baseline import Baseline

VXLAN = Selection(queue=7, ports=(4789, 8472))
NORMALISING = replace(
    VXLAN,
    flows_queue=8,
    flows_sources=(
        "192.0.2.1",
        "2001:db8::/64",
    ),
)

FOREIGN = [
    [
        "-A",
        "PREROUTING",
        "-p",
        "udp",
        "--dport",
        "53",
        "-m",
        "comment",
        "--comment",
        'not "ours"',
        "-j",
        "CT",
        "--notrack",
    ],
    ["-N", "theirs"],
    ["-A", "theirs", "-m", "mark", "--mark", "0x1/0x1", "-j", "RETURN"],
    ["-A", "PREROUTING", "-j", "theirs"],
    ["-A", "OUTPUT", "-p", "tcp", "-j", "CT", "--notrack"],
    ["-P", "OUTPUT", "ACCEPT"],
]


class Meddler(Host):
    """The real host, but one command is answered (once or always) by ``answer``, which may do something first."""

    def __init__(self, command: str, answer: Any, times: int = 1000) -> None:
        self.command, self.answer, self.times = command, answer, times

    def run(self, argv: Sequence[str], input: str | None = None, seconds: float | None = 30) -> Completed:
        if argv[0] == self.command and self.times:
            self.times -= 1
            answered = self.answer(super().run, argv, input) if callable(self.answer) else self.answer
            if answered is not None:
                return answered
        return super().run(argv, input)


# Selection: what is wanted, word by word


def test_vxlan_is_one_rule_per_family() -> None:
    words = "-p udp -m multiport --dports 4789,8472 -j NFQUEUE --queue-num 7 --queue-bypass"
    assert chains_of(VXLAN, IPV4) == chains_of(VXLAN, IPV6) == {"FIXER": [tuple(words.split())]}


def test_several_queues_are_one_rule_that_follows_the_cpu() -> None:
    """Word by word as iptables-save has it, and never by addresses alone, which are the same for all flows."""
    words = "-p udp -m multiport --dports 4789 -j NFQUEUE --queue-balance 7:9 --queue-bypass --queue-cpu-fanout"
    assert chains_of(Selection(queue=7, count=3, ports=(4789,)), IPV4) == {"FIXER": [tuple(words.split())]}


def test_plain_is_tcp_udp_and_the_familys_own_icmp() -> None:
    plain = Selection(queue=0, plain=True)
    four, six = (chains_of(plain, family)["FIXER"] for family in (IPV4, IPV6))
    assert [option(rule, "-p") for rule in four] == ["tcp", "udp", "icmp"]
    assert [option(rule, "-p") for rule in six] == ["tcp", "udp", "ipv6-icmp"]
    assert all(" ".join(rule).startswith("! -i lo -p ") for rule in four + six)


def test_sources_belong_to_their_family() -> None:
    only4 = Selection(
        queue=0,
        plain=True,
        interface="eth0",
        sources=(
            "10.0.0.0/8",
            "192.0.2.1",
        ),
    )
    assert chains_of(only4, IPV6) == {}
    rules = chains_of(only4, IPV4)["FIXER"]
    assert {(option(rule, "-s"), option(rule, "-i")) for rule in rules} == {
        ("10.0.0.0/8", "eth0"),
        ("192.0.2.1/32", "eth0"),
    }
    everywhere = Selection(queue=0, ports=(1,), sources=("0.0.0.0/0",))
    assert chains_of(everywhere, IPV4) == chains_of(Selection(queue=0, ports=(1,)), IPV4), (
        "iptables-save leaves a /0 out"
    )


def test_suspects_are_what_is_left_when_the_others_have_returned() -> None:
    suspects = Selection(queue=7, ports=(4789,), interface="eth0", suspects_up_to=9000)
    for family in (IPV4, IPV6):
        (everything,) = chains_of(Selection(queue=7, ports=(4789,), interface="eth0"), family)["FIXER"]
        jump = everything.index("-j")
        selecting, queueing = everything[:jump], everything[jump:]
        chains = chains_of(suspects, family)
        assert chains["FIXER"] == [(*selecting, "-g", "FIXER-VXLAN")]
        *exempting, last = chains["FIXER-VXLAN"]
        assert last == queueing
        assert {option(rule, "-j") for rule in exempting} == {"RETURN"}
        assert ["--comment" in rule for rule in exempting] == [False, False, True, False, False]
        assert option(exempting[2], "--comment") == "longer than 9000 bytes: merged by GRO"
        assert [rule.count("--bytecode") for rule in exempting] == [1 if family is IPV4 else 2, 2, 1, 2, 2]


def test_plain_suspects_begin_with_what_goes_to_a_vxlan_port() -> None:
    """Its outer UDP may be sound and what is inside not: as plain UDP it would be let pass."""
    chains = chains_of(Selection(queue=0, ports=(4789,), plain=True, suspects_up_to=1500), IPV4)
    assert [" ".join(rule) for rule in chains["FIXER"]] == [
        "! -i lo -p udp -m multiport --dports 4789 -g FIXER-VXLAN",
        "! -i lo -p tcp -g FIXER-PLAIN",
        "! -i lo -p udp -g FIXER-PLAIN",
        "! -i lo -p icmp -g FIXER-PLAIN",
    ]
    assert chains["FIXER-PLAIN"][-1] == chains["FIXER-VXLAN"][-1]


def without_programs(rules: list[tuple[str, ...]]) -> list[str]:
    """The rules with "…" in the place of their programs."""
    return [
        " ".join("…" if before == "--bytecode" else word for before, word in zip(("", *rule), rule, strict=False))
        for rule in rules
    ]


def test_what_is_normalised_is_led_away_first_and_the_replies_as_they_leave() -> None:
    for family in (IPV4, IPV6):
        chains = chains_of(NORMALISING, family)
        led = "-p udp -m multiport --dports 4789,8472 -m bpf --bytecode … -g FIXER-FLOWS"
        assert without_programs(chains["FIXER"]) == [led, *map(" ".join, chains_of(VXLAN, family)["FIXER"])]
        assert without_programs(chains["FIXER-OUTPUT"]) == [led]
        assert chains["FIXER"][0] != chains["FIXER-OUTPUT"][0], "from the sources, and to them"
        assert chains["FIXER-FLOWS"] == [("-j", "NFQUEUE", "--queue-num", "8", "--queue-bypass")]


def test_what_narrows_a_rule_narrows_both_directions() -> None:
    narrow = replace(
        NORMALISING,
        interface="eth0",
        sources=(
            "10.0.0.0/8",
            "172.16.0.0/12",
        ),
    )
    chains = chains_of(narrow, IPV4)
    assert [rule[:4] for rule in chains["FIXER"][:2]] == [
        ("-s", "10.0.0.0/8", "-i", "eth0"),
        ("-s", "172.16.0.0/12", "-i", "eth0"),
    ]
    assert [rule[:4] for rule in chains["FIXER-OUTPUT"]] == [
        ("-d", "10.0.0.0/8", "-o", "eth0"),
        ("-d", "172.16.0.0/12", "-o", "eth0"),
    ]
    assert chains_of(narrow, IPV6) == {}
    assert narrow.flows_queues() == {"ipv4": 8}
    assert NORMALISING.flows_queues() == {"ipv4": 8, "ipv6": 8}
    assert VXLAN.flows_queues() == {}


def test_plain_tcp_of_the_sources_needs_no_program() -> None:
    plain = replace(NORMALISING, plain=True)
    for family, source in ((IPV4, "192.0.2.1/32"), (IPV6, "2001:db8::/64")):
        there, back = (without_programs(chains_of(plain, family)[chain]) for chain in ("FIXER", "FIXER-OUTPUT"))
        assert there[1] == f"-s {source} ! -i lo -p tcp -g FIXER-FLOWS"
        assert back[1] == f"-d {source} ! -o lo -p tcp -g FIXER-FLOWS"
        assert there[0].startswith("! -i lo -p udp -m multiport")
        assert back[0].startswith("! -o lo -p udp -m multiport")
        assert len(back) == 2
    everybody = replace(plain, flows_sources=("0.0.0.0/0",), interface="eth0")
    assert without_programs(chains_of(everybody, IPV4)["FIXER"])[1] == "-i eth0 -p tcp -g FIXER-FLOWS"


def test_plain_sources_within_and_around_those_of_the_rule() -> None:
    sources = ["10.1.0.0/16", "10.2.3.4", "192.0.2.0/24", "2001:db8::/64"]
    plain = replace(NORMALISING, plain=True, flows_sources=tuple(sources))
    plain = replace(
        plain,
        sources=(
            "10.0.0.0/8",
            "192.0.2.128/25",
        ),
    )
    taken = [option(rule, "-s") for rule in chains_of(plain, IPV4)["FIXER"] if "-g" in rule and "tcp" in rule]
    assert taken == ["10.1.0.0/16", "10.2.3.4/32", "192.0.2.128/25"]


def test_suspects_are_chosen_among_what_is_not_normalised() -> None:
    chains = chains_of(replace(NORMALISING, suspects_up_to=1500), IPV4)
    assert [rule[-1] for rule in chains["FIXER"]] == ["FIXER-FLOWS", "FIXER-VXLAN"]
    assert chains["FIXER-VXLAN"] == chains_of(replace(VXLAN, suspects_up_to=1500), IPV4)["FIXER-VXLAN"]


# The real thing


@pytest.mark.root
@pytest.mark.kernels
def test_on_and_off_leave_everybody_elses_rules_alone(netns: Namespace, variant: Any) -> None:
    commands = f"iptables-{variant}", f"ip6tables-{variant}"
    for command in commands:
        for rule in FOREIGN:
            netns.run(command, "-t", "raw", *rule)
    for version in (4, 6):
        netns.send(3, port=53, version=version)
    before = {command: netns.saved(command) for command in commands}
    assert any("[3:" in line for line in before[commands[0]]), "the foreign rules have counted"

    netns.call(turn_on, Host(), VXLAN, variant)
    for command in commands:
        during = netns.saved(command)
        assert [line for line in during if "FIXER" not in line] == before[command]
        hook = [line for line in during if "-A PREROUTING" in line]
        assert hook[-1] == "[0:0] -A PREROUTING -j FIXER"
        assert sum("-j FIXER" in line for line in during) == 1

    said = netns.call(turn_off, Host())
    assert {command: netns.saved(command) for command in commands} == before
    assert said[0].startswith("IPv4: off: removed chain FIXER (1 rule, 0 packets) and 1 jump to it")
    assert netns.call(turn_off, Host()) == ["IPv4: nothing of ours was there", "IPv6: nothing of ours was there"]
    assert {command: netns.saved(command) for command in commands} == before


@pytest.mark.root
def test_looking_makes_no_table(netns: Namespace) -> None:
    assert netns.call(turn_off, Host()) == ["IPv4: nothing of ours was there", "IPv6: nothing of ours was there"]
    assert netns.run("iptables-save").out == netns.run("ip6tables-save").out == ""
    assert netns.call(Host().read, f"{NET}/ip_tables_names") in (None, "")


@pytest.mark.root
def test_on_twice_changes_nothing_and_keeps_the_counters(netns: Namespace, variant: Any) -> None:
    netns.call(turn_on, Host(), VXLAN, variant)
    netns.send(5)
    netns.send(2, version=6)
    before = netns.saved(f"iptables-{variant}")
    said = netns.call(turn_on, Host(), VXLAN, variant)
    assert netns.saved(f"iptables-{variant}") == before
    assert said == [
        f"{family}: already on: UDP to port 4789, 8472 to queue 7; rule 1 of 1 in raw/PREROUTING, last"
        for family in ("IPv4", "IPv6")
    ]
    assert netns.call(rule_packets, Host(), 7) == {"ipv4": 5, "ipv6": 2}
    assert netns.call(rule_packets, Host(), 8) == {"ipv4": None, "ipv6": None}
    assert netns.call(turn_off, Host())[0].startswith("IPv4: off: removed chain FIXER (1 rule, 5 packets)")


@pytest.mark.root
@pytest.mark.kernels
def test_packets_pass_while_nobody_listens(netns: Namespace, variant: Any) -> None:
    import socket

    netns.call(turn_on, Host(), VXLAN, variant)

    def there_and_back() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
            receiver.bind(("127.0.0.1", 4789))
            receiver.settimeout(5)
            netns.send(1)
            return receiver.recv(10)

    assert netns.call(there_and_back) == b"x"
    assert netns.call(rule_packets, Host(), 7)["ipv4"] == 1


@pytest.mark.root
def test_a_changed_configuration_replaces_the_rules(netns: Namespace, variant: Any) -> None:
    netns.call(turn_on, Host(), VXLAN, variant)
    changed = Selection(queue=9, plain=True, sources=("10.0.0.0/8",))
    said = netns.call(turn_on, Host(), changed, variant)
    assert said == [
        "IPv4: on: TCP, UDP, ICMP from 10.0.0.0/8 to queue 9; rule 1 of 1 in raw/PREROUTING, last",
        "IPv6: off: no IPv6 source is given (was on)",
    ]
    ours = [line for line in netns.saved(f"iptables-{variant}") if "-A FIXER" in line]
    assert [line.split("-p ")[1].split()[0] for line in ours] == ["tcp", "udp", "icmp"]
    assert not any("FIXER" in line for line in netns.saved(f"ip6tables-{variant}"))
    assert netns.call(turn_on, Host(), changed, variant)[0].startswith("IPv4: already on")


@pytest.mark.root
def test_another_number_of_queues_replaces_the_rule(netns: Namespace, variant: Any) -> None:
    netns.call(turn_on, Host(), VXLAN, variant)
    two = Selection(queue=7, count=2, ports=(4789, 8472))
    said = netns.call(turn_on, Host(), two, variant)
    assert said[0] == "IPv4: on: UDP to port 4789, 8472 to queues 7 to 8; rule 1 of 1 in raw/PREROUTING, last"
    netns.send(3)
    for queue in (7, 8):
        assert netns.call(rule_packets, Host(), queue) == {"ipv4": 3, "ipv6": 0}
    assert netns.call(rule_packets, Host(), 9) == {"ipv4": None, "ipv6": None}
    said = netns.call(turn_on, Host(), VXLAN, variant)
    assert said[0].startswith("IPv4: on: UDP to port 4789, 8472 to queue 7;")
    netns.call(turn_on, Host(), two, variant)
    assert netns.call(turn_off, Host())[0].startswith("IPv4: off: removed chain FIXER (1 rule, 0 packets)")


@pytest.mark.root
@pytest.mark.parametrize(
    "selection",
    [
        Selection(
            queue=65535,
            plain=True,
            sources=(
                "192.0.2.1",
                "2001:db8::/32",
            ),
        ),
        Selection(queue=0, plain=True, interface="eth0"),
        Selection(
            queue=1,
            ports=tuple(range(1, 16)),
            interface="vxlan+",
            sources=(
                "0.0.0.0/0",
                "::/0",
            ),
        ),
        Selection(queue=2, ports=(4789,), suspects_up_to=1500),
        Selection(queue=65534, count=2, ports=(4789,), plain=True),
        Selection(queue=2, ports=(1, 2), plain=True, interface="eth0", suspects_up_to=65535),
        NORMALISING,
        replace(NORMALISING, plain=True, suspects_up_to=1500),
        replace(
            NORMALISING,
            plain=True,
            interface="eth0",
            sources=(
                "192.0.2.0/24",
                "2001:db8::/32",
            ),
        ),
        replace(
            NORMALISING,
            flows_sources=(
                "0.0.0.0/0",
                "::/0",
            ),
            plain=True,
        ),
    ],
)
def test_iptables_spells_our_rules_as_we_do(netns: Namespace, variant: Any, selection: Selection) -> None:
    """Else every `fixer on` would replace them and set their counters to zero."""
    netns.call(turn_on, Host(), selection, variant)
    again = [line for line in netns.call(turn_on, Host(), selection, variant) if "normalising:" not in line]
    assert all("already on" in line for line in again)


@pytest.mark.root
def test_no_chain_of_the_other_scope_is_left(netns: Namespace, variant: Any) -> None:
    command = f"iptables-{variant}"
    scopes = VXLAN, replace(VXLAN, suspects_up_to=1500, plain=True), replace(VXLAN, suspects_up_to=1500)
    for selection in (*scopes, scopes[0], scopes[2]):
        netns.call(turn_on, Host(), selection, variant)
        chains = [line[1:].split()[0] for line in netns.saved(command) if line.startswith(":FIXER")]
        assert set(chains) == set(chains_of(selection, IPV4))
    netns.run(command, "-t", "raw", "-A", "OUTPUT", "-j", "FIXER-VXLAN")
    netns.call(turn_off, Host())
    assert not any("FIXER" in line for line in netns.saved(command))


@pytest.mark.root
@pytest.mark.parametrize("selection", [NORMALISING, replace(NORMALISING, plain=True, suspects_up_to=1500)])
def test_a_second_jump_leaves_everybody_elses_rules_alone(netns: Namespace, variant: Any, selection: Selection) -> None:
    command = f"iptables-{variant}"
    for rule in FOREIGN:
        netns.run(command, "-t", "raw", *rule)
    netns.send(3, port=53)
    before = netns.saved(command)
    assert sum("[3:" in line for line in before) >= 1
    said = netns.call(turn_on, Host(), selection, variant)
    assert said[1] == (
        "IPv4: normalising: TCP of the configured sources, and the replies to it, to queue 8; "
        "rule 2 of 2 in raw/OUTPUT, last"
    )
    during = netns.saved(command)
    assert [line for line in during if "FIXER" not in line] == before
    for hook, jump in (("PREROUTING", "-j FIXER"), ("OUTPUT", "-j FIXER-OUTPUT")):
        assert [line for line in during if f"-A {hook}" in line][-1] == f"[0:0] -A {hook} {jump}"
    netns.send(2, port=53)
    counted = netns.saved(command)
    assert all(
        "already on" in line or "normalising" in line for line in netns.call(turn_on, Host(), selection, variant)
    )
    assert netns.saved(command) == counted

    said = netns.call(turn_on, Host(), VXLAN, variant)
    assert not any("normalising" in line for line in said)
    ours = [line for line in netns.saved(command) if "FIXER" in line]
    assert len(ours) == 3, "one chain, its jump and its rule"
    netns.call(turn_on, Host(), selection, variant)
    said = netns.call(turn_off, Host())
    assert re.search(r"removed chain FIXER \(\d+ rules, 0 packets\) and 2 jumps to it", said[0])
    assert [re.sub(r"\[\d+:\d+\]", "", line) for line in netns.saved(command)] == [
        re.sub(r"\[\d+:\d+\]", "", line) for line in before
    ]


@pytest.mark.root
def test_the_way_back_is_put_right(netns: Namespace, variant: Any) -> None:
    command = f"iptables-{variant}"

    def leaving() -> list[str]:
        return [line.split("] ")[1] for line in netns.saved(command) if "-A OUTPUT" in line]

    netns.call(turn_on, Host(), NORMALISING, variant)
    netns.run(command, "-t", "raw", "-D", "OUTPUT", "-j", "FIXER-OUTPUT")
    said = netns.call(turn_on, Host(), NORMALISING, variant)
    trouble = "IPv4: our jump was not the only one or not the last in raw/PREROUTING and raw/OUTPUT: put right"
    assert trouble in said
    assert leaving() == ["-A OUTPUT -j FIXER-OUTPUT"]
    netns.run(command, "-t", "raw", "-I", "OUTPUT", "-j", "FIXER-OUTPUT")
    netns.run(command, "-t", "raw", "-A", "OUTPUT", "-p", "tcp", "-j", "CT", "--notrack")
    assert trouble in netns.call(turn_on, Host(), NORMALISING, variant)
    assert leaving() == ["-A OUTPUT -p tcp -j CT --notrack", "-A OUTPUT -j FIXER-OUTPUT"]
    assert trouble not in netns.call(turn_on, Host(), NORMALISING, variant)


@pytest.mark.root
def test_what_keeps_replies_from_us_is_named(netns: Namespace, variant: Any) -> None:
    netns.run(f"iptables-{variant}", "-t", "raw", "-A", "OUTPUT", "-p", "udp", "-j", "ACCEPT")
    said = netns.call(turn_on, Host(), NORMALISING, variant)
    assert said[2].startswith(
        'IPv4: "-A OUTPUT -p udp -j ACCEPT" stands before our jump and ends the walk for all our packets: '
    )
    assert not any("OUTPUT -p udp" in line for line in netns.call(turn_on, Host(), VXLAN, variant))


@pytest.mark.root
@pytest.mark.kernels
def test_both_directions_pass_and_are_counted_while_nobody_listens(netns: Namespace, variant: Any) -> None:
    """Plain TCP over loopback, whose packets leave and arrive: each is counted by where it comes from or goes to."""
    import socket

    here = ("127.0.0.1", "::1")
    selection = replace(NORMALISING, plain=True, interface="lo", flows_sources=here)
    netns.call(turn_on, Host(), selection, variant)

    def talk() -> bytes:
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname(), timeout=5) as client,
            server.accept()[0] as served,
        ):
            served.sendall(b"hello")
            return client.recv(5)

    assert netns.call(talk) == b"hello"
    netns.send(3, port=53)
    found = netns.call(switch.look, Host(), IPV4)[0]
    there, back = found.counted.arrived, found.counted.left
    assert there == back > 5
    assert (found.queues, found.flows_queue) == (range(7, 8), 8)
    saved = netns.run(f"iptables-{variant}-save", "-c", "-t", "raw").out
    assert parse(saved).chains["FIXER-FLOWS"][0].packets == there + back
    assert found.counted.packets == netns.call(rule_packets, Host(), 7)["ipv4"] == 6, (
        "what was sent to port 53, and the answers"
    )


@pytest.mark.root
def test_leftovers_are_put_right(netns: Namespace, variant: Any) -> None:
    command = f"iptables-{variant}"
    netns.call(turn_on, Host(), VXLAN, variant)
    netns.run(command, "-t", "raw", "-A", "PREROUTING", "-p", "udp", "-j", "FIXER")
    netns.run(command, "-t", "raw", "-A", "OUTPUT", "-j", "FIXER")
    netns.run(command, "-t", "raw", "-A", "PREROUTING", "-p", "tcp", "-j", "CT", "--notrack")
    said = netns.call(turn_on, Host(), VXLAN, variant)
    assert "IPv4: our jump was not the only one or not the last in raw/PREROUTING: put right" in said
    rules_now = [line.split("] ")[1] for line in netns.saved(command) if "-A" in line and "-A FIXER" not in line]
    assert rules_now == ["-A PREROUTING -p tcp -j CT --notrack", "-A PREROUTING -j FIXER"]


@pytest.mark.root
def test_a_chain_without_jump_is_removed_by_off(netns: Namespace) -> None:
    netns.run("iptables", "-t", "raw", "-N", "FIXER")
    assert netns.call(turn_off, Host())[0].startswith("IPv4: off: removed chain FIXER (0 rules, 0 packets) and 0 jumps")
    assert not any("FIXER" in line for line in netns.saved())


@pytest.mark.root
def test_two_at_once_end_with_one_jump(netns: Namespace, variant: Any) -> None:
    def at_once() -> None:
        netns.call(turn_on, Host(), VXLAN, variant)

    threads = [threading.Thread(target=at_once) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    saved = netns.saved(f"iptables-{variant}")
    assert sum("-j FIXER" in line for line in saved) == 1
    assert sum("-A FIXER" in line for line in saved) == 1


@pytest.mark.root
def test_a_change_between_reading_and_writing_is_noticed(netns: Namespace) -> None:
    netns.call(turn_on, Host(), VXLAN)

    def meddle(run: Any, argv: Sequence[str], input: str | None) -> None:
        run(["iptables", "-t", "raw", "-D", "PREROUTING", "-j", "FIXER"])
        run(["iptables", "-t", "raw", "-A", "PREROUTING", "-j", "CT", "--notrack"])

    said = netns.call(turn_on, Meddler("iptables-restore", meddle, times=1), Selection(queue=8, ports=(1,)))
    assert said[0] == "IPv4: on: UDP to port 1 to queue 8; rule 2 of 2 in raw/PREROUTING, last"


@pytest.mark.root
@pytest.mark.parametrize("what", ["RULE_DELETE", "RULE_APPEND", "CHAIN_USER_DEL"])
def test_what_another_has_just_removed_is_not_taken_for_lacking(netns: Namespace, what: str) -> None:
    """Two transactions of iptables-nft that meet: the second finds rules gone that it read a moment before."""
    words = f"line 4: {what} failed (No such file or directory): rule in chain PREROUTING"
    met = Completed(4, "", f"iptables-restore v1.8.9 (nf_tables): \n{words}")
    said = netns.call(turn_on, Meddler("iptables-restore", met, times=2), VXLAN)
    assert said[0].startswith("IPv4: on: ")
    assert sum("-j FIXER" in line for line in netns.saved()) == 1


def test_what_another_keeps_removing_is_not_called_lacking_either() -> None:
    host = FakeHost()
    host.answers["iptables-restore"] = Completed(4, "", "line 4: RULE_DELETE failed (No such file or directory): rule")
    with pytest.raises(SystemRefused, match="RULE_DELETE failed"):
        turn_on(host, VXLAN)


@pytest.mark.root
@pytest.mark.parametrize("new", [VXLAN, NORMALISING])
@pytest.mark.parametrize("was_on", [False, True])
def test_if_the_second_family_fails_the_first_is_put_back(
    netns: Namespace, variant: Any, was_on: bool, new: Selection
) -> None:
    old = Selection(
        queue=1,
        plain=True,
        sources=(
            "10.0.0.0/8",
            "2001:db8::/32",
        ),
    )
    if new is VXLAN:
        old = replace(old, ports=(1,), flows_queue=2, flows_sources=NORMALISING.flows_sources)
    commands = f"iptables-{variant}", f"ip6tables-{variant}"
    if was_on:
        netns.call(turn_on, Host(), old, variant)
    else:
        for command in commands:
            netns.run(command, "-t", "raw", "-L")  # the table is there
    before = {command: netns.saved(command) for command in commands}
    own = (
        "ip6tables"
        if Host().run(["ip6tables", "--version"]).out.count("nf_tables") == (variant == "nft")
        else commands[1]
    )
    refusing = Meddler(f"{own}-restore", Completed(4, "", "Another app is currently holding the xtables lock; ...\n"))
    with pytest.raises(SystemRefused, match="another program holds the xtables lock"):
        netns.call(turn_on, refusing, new, variant)
    assert {command: netns.saved(command) for command in commands} == before


@pytest.mark.root
def test_an_interrupt_between_the_families_puts_the_first_back(netns: Namespace) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    netns.run("iptables", "-t", "raw", "-L")
    before = netns.saved()
    with pytest.raises(KeyboardInterrupt):
        netns.call(turn_on, Meddler("ip6tables-restore", interrupt, times=1), VXLAN)
    assert netns.saved() == before


@pytest.mark.root
def test_what_ends_the_walk_is_named_and_the_other_table_is_a_way_out(netns: Namespace, variant: Any) -> None:
    """As in Calico's raw chains. The kernel judges: our rule counts nothing behind it, and all in the other table."""
    other = "legacy" if variant == "nft" else "nft"
    if Host().run(["unshare", "-n", f"iptables-{other}", "-t", "raw", "-L"]).status != 0:
        pytest.skip(f"needs iptables-{other} in the kernel as well")
    netns.run(f"iptables-{variant}", "-t", "raw", "-N", "cali-PREROUTING")
    netns.run(f"iptables-{variant}", "-t", "raw", "-A", "cali-PREROUTING", "-p", "udp", "-j", "ACCEPT")
    netns.run(f"iptables-{variant}", "-t", "raw", "-A", "PREROUTING", "-j", "cali-PREROUTING")
    said = netns.call(turn_on, Host(), VXLAN, variant)
    assert said[1] == (
        'IPv4: "-A PREROUTING -j cali-PREROUTING" stands before our jump and leads to '
        '"-A cali-PREROUTING -p udp -j ACCEPT", which ends the walk for all our packets: move it behind, or use the '
        f"other table, which it does not reach: fixer on --variant {other}"
    )
    netns.send(3)
    assert netns.call(rule_packets, Host(), 7)["ipv4"] == 0

    said = netns.call(turn_on, Host(), VXLAN, other)
    assert said[0].startswith("IPv4: removed what we had left in iptables")
    netns.send(3)
    assert netns.call(rule_packets, Host(), 7)["ipv4"] == 3
    assert netns.call(turn_on, Host(), VXLAN)[0].startswith("IPv4: already on"), "unnamed, the variant is kept"
    netns.call(turn_off, Host())
    for command in ("iptables-nft", "iptables-legacy"):
        assert not any("FIXER" in line for line in netns.saved(command))


# Refusals


def test_without_root_nothing_is_even_looked_at() -> None:
    host = FakeHost()
    host.net_admin = False
    with pytest.raises(NotPermitted, match=r"root .CAP_NET_ADMIN.: sudo fixer on"):
        turn_on(host, VXLAN)
    with pytest.raises(NotPermitted, match="sudo fixer off"):
        turn_off(host)
    assert host.ran == []


def test_a_missing_iptables_names_the_package() -> None:
    host = FakeHost()
    host.answers.clear()
    with pytest.raises(ProgramMissing, match=r"iptables is not installed.*apt-get install iptables"):
        turn_on(host, VXLAN)
    with pytest.raises(ProgramMissing, match="iptables is not installed"):
        turn_off(host)


def test_a_missing_variant_is_said_so() -> None:
    host = FakeHost()
    with pytest.raises(ProgramMissing, match="iptables-legacy is not installed, so there is no --variant legacy here"):
        turn_on(host, VXLAN, "legacy")
    assert host.changed == []


def test_a_kernel_that_cannot_spread_says_what_to_set() -> None:
    host = FakeHost()
    words = 'iptables-restore v1.4.7: unknown option "--queue-cpu-fanout"\nError occurred at line: 3\nTry `iptables -h'
    host.answers["iptables-restore"] = Completed(2, "", words)
    lacking = (
        r"cannot spread packets over queues .--queue-cpu-fanout, Linux 3.10.: set queue.count = 1: .*unknown option"
    )
    with pytest.raises(KernelLacks, match=lacking):
        turn_on(host, Selection(queue=7, count=2, ports=(4789,)))


def test_a_kernel_without_queue_is_quoted() -> None:
    host = FakeHost()
    words = (
        "iptables-restore v1.8.9 (nf_tables): \nline 4: RULE_APPEND failed (No such file or directory): rule in FIXER"
    )
    host.answers["iptables-restore"] = Completed(4, "", words)
    with pytest.raises(KernelLacks, match=r"RULE_APPEND failed .No such file or directory.: rule in FIXER"):
        turn_on(host, VXLAN)
    assert not any(line.startswith("ip6tables-restore") for line in host.ran)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("iptables v1.8.9 (legacy): can't initialize iptables table `raw': Table does not exist", KernelLacks),
        ("iptables-restore v1.8.9 (legacy): iptables-restore: unable to initialize table 'raw'", KernelLacks),
        ("Could not initialize nft: Operation not supported", KernelLacks),
        ("Warning: Extension NFQUEUE revision 0 not supported, missing kernel module?", KernelLacks),
        ("Could not fetch rule set generation id: Permission denied (you must be root)", NotPermitted),
        ("Fatal: can't open lock file /run/xtables.lock: Permission denied", NotPermitted),
        ("Another app is currently holding the xtables lock; still 1s 0us time ahead", SystemRefused),
        ("iptables-restore: line 3 failed", SystemRefused),
        ("", SystemRefused),
    ],
)
def test_a_refusal_is_the_error_it_means(said: str, error: type[Exception]) -> None:
    host = FakeHost()
    host.answers["iptables-restore"] = Completed(4, "", f"# Warning: iptables-legacy tables present\n{said}\n")
    with pytest.raises(error, match=re.escape(said[:20] or "failed with status 4")) as caught:
        turn_on(host, VXLAN)
    assert "\n" not in str(caught.value)
    assert "Warning: iptables-legacy" not in str(caught.value)


ON = """\
*raw
:FIXER - [0:0]
[0:0] -A PREROUTING -j FIXER
[4:40] -A FIXER -p udp -m multiport --dports 4789,8472 -j NFQUEUE --queue-num 7 --queue-bypass
COMMIT
"""


def test_a_host_without_ipv6_is_covered_for_ipv4() -> None:
    host = FakeHost()
    host.answers["iptables-save"] = Completed(0, ON, "")
    for without, reason in (
        ("program", "ip6tables is not installed (apt-get install iptables)"),
        ("kernel", "IPv6 is switched off on this host"),
    ):
        if without == "program":
            answer = host.answers.pop("ip6tables")
        else:
            host.answers["ip6tables"] = answer
            del host.files[f"{NET}/if_inet6"]
        first, second = turn_on(host, VXLAN)
        assert first.startswith("IPv4: already on")
        assert second == f"IPv6: not covered: {reason}"
        assert rule_packets(host, 7) == {"ipv4": 4, "ipv6": None}


def test_a_kernel_without_ip6_raw_is_no_reason_to_leave_ipv4_broken() -> None:
    host = FakeHost()
    host.answers["iptables-save"] = Completed(0, ON, "")
    host.answers["ip6tables-restore"] = Completed(
        3, "", "can't initialize ip6tables table `raw': Table does not exist\n"
    )
    first, second = turn_on(host, VXLAN)
    assert first.startswith("IPv4: already on")
    lacking = "the raw table, multiport, NFQUEUE or (for --scope suspects and to normalise timestamps) bpf"
    assert second.startswith(f"IPv6: not covered: the kernel lacks {lacking} for IPv6: can't")


@pytest.mark.parametrize(
    "said",
    [
        "Table `raw' does not exist",  # iptables-nft
        "iptables-save v1.8.9 (legacy): Cannot initialize: Table does not exist (do you need to insmod?)",
    ],
)
def test_a_table_that_does_not_exist_is_empty(said: str) -> None:
    host = FakeHost()
    host.answers["iptables-save"] = Completed(1, "", f"{said}\n")
    assert not iptables.Iptables(host, IPV4, "nft", "iptables", None).read().is_there


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("iptables-save v1.8.9 (legacy): Cannot initialize: iptables who? (do you need to insmod?)", KernelLacks),
        (
            "iptables-save v1.8.9 (nf_tables): Could not fetch rule set generation id: Operation not supported",
            KernelLacks,
        ),
        ("Failed to initialize nft: Protocol not supported", KernelLacks),
        ("Could not fetch rule set generation id: Permission denied (you must be root)", NotPermitted),
        ("Could not fetch rule set generation id: No buffer space available", SystemRefused),
        ("# Table `raw' is incompatible, use 'nft' tool.", SystemRefused),
        ("", SystemRefused),
    ],
)
def test_a_table_that_cannot_be_read_is_not_empty(said: str, error: type[Exception]) -> None:
    """Who took it for empty would say that our rules are gone, and write them again."""
    host = FakeHost()
    host.answers["iptables-save"] = Completed(1, "", f"{said}\n")
    for look in (lambda: switch.look(host, IPV4), lambda: turn_on(host, VXLAN), lambda: turn_off(host)):
        with pytest.raises(error):
            look()
    assert not any(line.startswith("iptables-restore") for line in host.ran)
    assert rule_packets(host, 7) == ({"ipv6": None} if error is NotPermitted else {"ipv4": None, "ipv6": None})


def test_a_kernel_that_cannot_show_ip6_raw_is_no_reason_to_leave_ipv4_broken() -> None:
    host = FakeHost()
    host.answers["iptables-save"] = Completed(0, ON, "")
    host.answers["ip6tables-save"] = Completed(1, "", "Failed to initialize nft: Protocol not supported\n")
    first, second = turn_on(host, VXLAN)
    assert first.startswith("IPv4: already on")
    assert second.startswith("IPv6: not covered: the kernel lacks")
    assert not any(line.startswith("ip6tables-restore") for line in host.ran)
    host.answers["iptables-save"] = OK
    assert turn_off(host) == ["IPv4: nothing of ours was there", second]


def test_a_variant_that_the_kernel_lacks_does_not_stand_in_the_others_way() -> None:
    host = FakeHost()
    host.answers |= {"iptables-save": Completed(1, "", "Failed to initialize nft: Protocol not supported\n")}
    host.answers |= {"iptables-legacy": OK, "iptables-legacy-save": OK, "iptables-legacy-restore": OK}
    host.files[f"{NET}/ip_tables_names"] = "raw\n"
    del host.files[f"{NET}/if_inet6"]
    with pytest.raises(KernelLacks, match="Protocol not supported"):
        turn_on(host, VXLAN)  # ours may be in the table that was not shown
    state = [OK, Completed(0, ON, "")]
    host.answers["iptables-legacy-save"] = lambda *_: state[0]
    host.answers["iptables-legacy-restore"] = lambda *_: state.reverse() or OK
    assert turn_on(host, VXLAN, "legacy")[0].startswith("IPv4: on: ")
    assert [found.backend for found in switch.look(host, IPV4)] == ["iptables-legacy"]
    assert turn_on(host, VXLAN)[0].startswith("IPv4: already on")
    with pytest.raises(KernelLacks, match="Protocol not supported"):
        turn_on(host, VXLAN, "nft")


def test_a_failing_undo_is_told_with_the_way_out() -> None:
    host = FakeHost()
    state = [OK, Completed(0, ON, "")]

    def save(argv: Sequence[str], input: str | None) -> Completed:
        return state[0]

    def restore(argv: Sequence[str], input: str | None) -> Completed:
        if state[0] is OK:
            state.reverse()
            return OK
        return Completed(1, "", "iptables-restore: line 3 failed\n")

    host.answers |= {"iptables-save": save, "iptables-restore": restore}
    host.answers["ip6tables-restore"] = Completed(1, "", "ip6tables-restore: line 2 failed\n")
    with pytest.raises(
        SystemRefused, match=r"line 2 failed; taking back .* failed too .*line 3 failed.*: run fixer off$"
    ):
        turn_on(host, VXLAN)


def test_somebody_who_keeps_changing_the_table_is_blamed() -> None:
    host = FakeHost()  # restore says yes, and save shows nothing of it
    with pytest.raises(SystemRefused, match="something else keeps changing raw/PREROUTING"):
        turn_on(host, VXLAN)
    assert len(host.changed) == 5


def test_off_goes_on_with_the_second_family() -> None:
    host = FakeHost()
    host.answers["iptables-save"] = Completed(1, "", "iptables-save: Permission denied\n")
    state = [Completed(0, ON, ""), OK]
    host.answers["ip6tables-save"] = lambda *_: state[0]
    host.answers["ip6tables-restore"] = lambda *_: state.pop(0) and OK
    with pytest.raises(NotPermitted, match="Permission denied"):
        turn_off(host)
    assert state == [OK]


def test_counters_never_end_a_daemon() -> None:
    host = FakeHost()
    host.answers["iptables-save"] = Completed(1, "", "Permission denied")
    del host.answers["ip6tables"]
    assert rule_packets(host, 7) == {"ipv6": None}


def test_the_host_waits_for_the_lock_but_not_for_ever() -> None:
    host = FakeHost()
    with pytest.raises(SystemRefused):
        turn_on(host, VXLAN)
    assert set(host.changed) == {f"iptables-restore --noflush -w {iptables._LOCK_SECONDS}"}


def test_the_hosts_variant_is_its_own_word() -> None:
    host = FakeHost()
    host.answers["iptables --version"] = Completed(0, "iptables v1.6.1\n", "")
    host.files[f"{NET}/ip_tables_names"] = "filter\n"
    with pytest.raises(SystemRefused):
        turn_on(host, VXLAN)
    assert "iptables-save -c -t raw" not in host.ran, "looking would have made the table"
    host.files[f"{NET}/ip_tables_names"] = "raw\nfilter\n"
    host.answers["iptables-save"] = Completed(0, ON, "")
    assert turn_on(host, Selection(queue=7, ports=(4789, 8472), sources=("0.0.0.0/0",)))[0].startswith(
        "IPv4: already on"
    )
    assert NFT.out != host.answers["iptables --version"]


# What is remembered


def test_a_refusal_is_none_the_better_for_as_many_rules_as_are_wanted() -> None:
    """Another queue's rule is there, one rule is wanted: their number says nothing once the kernel has said no."""
    host = FakeHost()
    host.answers["iptables-save"] = Completed(0, ON.replace("--queue-num 7", "--queue-num 8"), "")
    host.answers["iptables-restore"] = Completed(1, "", "iptables-restore: line 3 failed")
    with pytest.raises(SystemRefused, match="line 3 failed"):
        turn_on(host, VXLAN)


def test_who_was_refused_because_another_did_the_same_is_done() -> None:
    host = FakeHost()
    state = [Completed(0, ON.replace("--queue-num 7", "--queue-num 8"), ""), Completed(0, ON, "")]
    host.answers["iptables-save"] = lambda *_: state[0]
    host.answers["iptables-restore"] = lambda *_: state.reverse() or Completed(1, "", "line 4: RULE_DELETE failed")
    host.answers["ip6tables-save"] = Completed(0, ON, "")
    assert turn_on(host, VXLAN)[0].startswith("IPv4: on: ")


class Speller(Host):
    """The real host, with an iptables-save that spells our rules in its own way."""

    def __init__(self) -> None:
        self.written = 0

    def run(self, argv: Sequence[str], input: str | None = None, seconds: float | None = 30) -> Completed:
        self.written += "-restore" in argv[0]
        done = super().run(argv, input, seconds)
        return done._replace(out=done.out.replace("--queue-num 7 --queue-bypass", "--queue-bypass --queue-num 7"))


@pytest.mark.root
@pytest.mark.kernels
def test_what_the_kernel_said_of_a_rule_is_how_it_is_known_again(netns: Namespace, variant: Any) -> None:
    host = Speller()
    assert netns.call(turn_on, host, VXLAN, variant)[0].startswith("IPv4: on: ")
    assert host.written == 2
    assert netns.call(turn_on, host, VXLAN, variant)[0].startswith("IPv4: already on: ")
    assert host.written == 2, "it is spelt otherwise than we do, and is the one that we wrote"
    assert [found.selection for found in netns.call(switch.look, host, IPV4) if found.is_there] == [VXLAN]
    netns.run(f"iptables-{variant}", "-t", "raw", "-R", "FIXER", "1", "-j", "NFQUEUE", "--queue-num", "7")
    assert [found.selection for found in netns.call(switch.look, host, IPV4) if found.is_there] == [None]
    said = netns.call(turn_on, host, VXLAN, variant)
    assert said[0].startswith("IPv4: on: ")
    assert said[1].startswith("IPv6: already on: ")
    assert [found.selection for found in netns.call(switch.look, host, IPV4) if found.is_there] == [VXLAN]


@pytest.mark.root
def test_what_was_forgotten_is_remembered_by_the_next_on_and_not_counted_anew(netns: Namespace) -> None:
    host = Host()
    netns.call(turn_on, host, VXLAN)
    noted = netns.call(baseline.read, host)
    assert set(noted.written) == {"ipv4", "ipv6"}
    netns.send(5)
    netns.call(baseline.write, host, Baseline({"ipv4": 3}))
    assert netns.call(turn_on, host, VXLAN)[0].startswith("IPv4: already on")
    assert netns.call(baseline.read, host) == Baseline({"ipv4": 3}, {}, noted.written)
    netns.call(turn_off, host)
    assert netns.call(baseline.read, host) is None


def test_a_selection_survives_being_written_down() -> None:
    every = replace(NORMALISING, interface="eth0", sources=("10.0.0.0/8",), suspects_up_to=1500, syns=True, count=2)
    assert msgspec.json.decode(msgspec.json.encode(every), type=Selection) == every
    with pytest.raises(msgspec.ValidationError, match="'nowhere' does not appear to be an IPv4 or IPv6 network"):
        msgspec.json.decode(b'{"queue": 1, "sources": ["nowhere"]}', type=Selection)


def test_settings_are_a_selection() -> None:
    settings = parse_settings(
        '[vxlan]\nports = [4789]\n[queue]\nnumber = 7\n[timestamps]\nmode = "normalise"\nsources = ["192.0.2.1"]', ""
    )
    narrowed = Selection.of(settings, interface="eth0", sources=[ip_network("10.0.0.0/8")], suspects_up_to=1500)
    assert narrowed == Selection(
        queue=7,
        ports=(4789,),
        interface="eth0",
        sources=("10.0.0.0/8",),
        suspects_up_to=1500,
        flows_queue=8,
        flows_sources=("192.0.2.1",),
    )
    strips = parse_settings('[timestamps]\nmode = "strip"\nsources = ["192.0.2.1"]', "")
    assert (Selection.of(strips).syns, Selection.of(strips).flows_queue) == (True, None)
    with pytest.raises(ConfigWrong, match="not --overlay-ends-here"):
        Selection.of(strips, in_kernel=True, overlay_ends_here=True)
    with pytest.raises(ValueError, match="overlay_ends_here"):
        Selection.of(parse_settings("", ""), overlay_ends_here=True)
