"""``fixer status``: what the kernel shows in a real namespace, and every odd state on a fake host."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from netfilterqueue import NetfilterQueue
from rich.console import Console
from support.commands import wait_for
from support.fakehost import OK, FakeHost
from support.flowtable import header
from support.netns import Namespace
from support.switching import turn_off, turn_on

from fixer.errors import NotPermitted, SystemRefused
from fixer.host.machine import NET, Completed, Host, Owner
from fixer.host.queues import Handed, Listener, listeners
from fixer.lab import traffic
from fixer.lab.service import Service
from fixer.rules.chains import chains_of
from fixer.rules.rawtable import parse, spelt
from fixer.rules.selection import IPV4, Selection
from fixer.screen.status import show
from fixer.state import baseline, flowfile, place
from fixer.state.baseline import Baseline, Written
from fixer.state.report import every as report_every
from fixer.state.report import path_of
from fixer.status.answer import FlowsRule, OutgoingRule, Status, collect

ON = """\
*raw
[0:0] -A PREROUTING -j FIXER
[100:6400] -A FIXER -p udp -m multiport --dports 4789 -j NFQUEUE --queue-num 7 --queue-bypass
COMMIT
"""
QUEUES = """\
    5    111     0 2 65531     0     0        3  1
    7   4242    12 2 65531     0     0       95  1
"""
SOCKETS = """\
sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
0000000000000000 0   4242       00000000 0        0        0     2        99       555
0000000000000000 12  4242       00000000 0        0        0     2        0        777
"""


def report(**changes: Any) -> str:
    return json.dumps(
        {
            "pid": 4711,
            "version": "0.1.0",
            "queue": 7,
            "started": "2026-01-02T03:00:00+00:00",
            "updated": "2026-01-02T03:04:04+00:00",
            "monitor": False,
            "plain": False,
            "rule_packets_at_start": {"ipv4": 5, "ipv6": None},
            "asked": {"fail_open": True, "gso": True},
            "flags": {"fail_open": True, "gso": True},
            "counters": {
                "packets": 86,
                "diagnosis": {"sound": 80, "inner_unfinished": 6, "corrupt": 0},
                "action": {"pass": 80, "repair": 6, "drop": 0},
                "would": {"pass": 1},
                "reason": {"none": 86, "fragment": 0},
            },
            "queue_counters": {"receives": 3},
            **changes,
        }
    )


def serving() -> FakeHost:
    """Rule on for IPv4, a daemon on queue 7."""
    host = FakeHost()
    host.answers["iptables-save"] = Completed(0, ON, "")
    host.files |= {
        f"{NET}/netfilter/nfnetlink_queue": QUEUES,
        f"{NET}/netlink": SOCKETS,
        "/proc/4711": "",
    }
    host.owners[777] = Owner(4711, "fixer")
    set_report()(host)
    return host


def shown(status: Status) -> str:
    out = io.StringIO()
    show(status, Console(file=out, width=200))
    return out.getvalue()


def test_all_is_well() -> None:
    status = collect(serving(), 0)
    assert status.exit_code == 0
    assert status.queues == [7], "the rule says which queue, whatever the configuration says"
    assert status.listeners == [
        Listener(
            queue=7,
            portid=4242,
            pid=4711,
            process="fixer",
            waiting=12,
            copies="packets",
            copy_range=65531,
            queue_dropped=0,
            user_dropped=0,
            id_sequence=95,
            socket_drops=0,
            socket=777,
        )
    ]
    assert status.passed_unseen == 100 - 5 - 95
    assert status.notes == []
    assert msgspec.json.decode(msgspec.json.encode(status))["rules"]["ipv4"]["packets"] == 100
    table = shown(status)
    for part in (
        "on: UDP to port 4789 to queue 7; rule 1 of 1 in raw/PREROUTING, last (iptables)",
        "100 packets, 6.4 kB",
        "fixer (pid 4711) on queue 7",
        "copies packets up to 65,531 bytes; 12 waiting",
        "95 packets; passed unseen 0",
        "queue full 0, not delivered 0, did not fit the socket 0",
        "sound 80, inner unfinished 6",
        "pass 80, repair 6",
        "fail-open granted, gso granted",
    ):
        assert part in table, (part, table)
    assert "corrupt" not in table, "what did not happen is not shown"
    assert "Would do" not in table


def losing() -> FakeHost:
    """As `serving`, with nine packets unseen, four of which did not fit the socket, and thirteen lost."""
    host = serving()
    host.files[f"{NET}/netfilter/nfnetlink_queue"] = QUEUES.replace("0     0       95", "6     7       90")
    host.files[f"{NET}/netlink"] = SOCKETS.replace("2        0        777", "2        4        777")
    return host


def test_what_was_lost_is_no_promise_kept() -> None:
    host = losing()
    status = collect(host, 0)
    assert status.exit_code == 3
    assert status.passed_unseen == 100 - 5 - 90 + 4
    assert [note.partition(":")[0] for note in status.notes] == [
        "13 packets were lost at the queue since the daemon listens",
        "9 packets passed unseen",
    ]
    assert "queue full 6, not delivered 7, did not fit the socket 4" in shown(status)


def test_without_root_there_is_no_half_a_status() -> None:
    host = serving()
    host.net_admin = False
    with pytest.raises(NotPermitted, match="sudo fixer status"):
        collect(host, 0)
    host.net_admin = True
    host.files[f"{NET}/netfilter/nfnetlink_queue"] = NotPermitted("cannot be read: run this as root")
    with pytest.raises(NotPermitted):
        collect(host, 0)


def without(path: str) -> Callable[[FakeHost], None]:
    return lambda host: host.files.__delitem__(path)


def set_report(**changes: Any) -> Callable[[FakeHost], None]:
    return report_says(report(**changes))


def report_says(text: str) -> Callable[[FakeHost], None]:
    def change(host: FakeHost) -> None:
        report_of(host).write_text(text)

    return change


def report_of(host: FakeHost) -> Path:
    return path_of(host, 7)


def raw(text: str, command: str = "iptables") -> Callable[[FakeHost], None]:
    def change(host: FakeHost) -> None:
        host.answers[f"{command}-save"] = Completed(0, text, "")
        host.answers.setdefault(command, host.answers["iptables"])

    return change


PLAIN = ON.replace("-p udp -m multiport --dports 4789", "! -i lo -p tcp")


@pytest.mark.parametrize(
    ("change", "exit_code", "note"),
    [
        (without(f"{NET}/netfilter/nfnetlink_queue"), 3, "nobody listens on queue 7: packets pass as if"),
        (raw("*raw\n:FIXER - [0:0]\nCOMMIT"), 3, "IPv4: a chain or a jump of ours is left over"),
        (raw(ON + "[0:0] -A PREROUTING -j LOG"), 3, "IPv4: our jump is not last in raw/PREROUTING"),
        (raw(ON + "[0:0] -A OUTPUT -j FIXER"), 3, "IPv4: more than one jump leads to our chain"),
        (raw("[0:0] -A PREROUTING -j ACCEPT\n" + ON), 3, '"-A PREROUTING -j ACCEPT" stands before our jump'),
        (raw(ON, "iptables-legacy"), 3, "IPv4: our rules are in iptables-legacy too, so packets are queued twice"),
        (
            raw(ON.replace("num 7", "num 8"), "ip6tables"),
            3,
            "the two families send to different queues (queue 7, queue 8)",
        ),
        (raw(PLAIN), 3, "the rule takes plain packets, the daemon judges VXLAN only. Next: fixer run --plain"),
        (
            set_report(monitor=True),
            3,
            "monitor mode, which the configuration does not ask for: the daemon reports and changes nothing",
        ),
        (set_report(updated="2026-01-02T03:03:00Z"), 3, "the daemon (pid 4711) has not reported for 65 s"),
        (set_report(updated="yesterday"), 3, "is not a report of a fixer daemon; it is ignored"),
        (report_says("{"), 3, "is not a report of a fixer daemon"),
    ],
)
def test_what_is_odd_is_noted(change: Callable[[FakeHost], None], exit_code: int, note: str) -> None:
    host = serving()
    host.files[f"{NET}/ip_tables_names"] = "raw\n"
    change(host)
    status = collect(host, 0)
    assert status.exit_code == exit_code
    assert any(note in line for line in status.notes), status.notes
    assert note.replace("[", "") in " ".join(shown(status).split())


def test_a_listener_without_rule() -> None:
    host = serving()
    raw("")(host)
    status = collect(host, 7)
    assert (status.exit_code, status.on, status.listening) == (3, False, True)
    assert status.notes == ["no rule sends packets to the queue. Next: fixer on"]


def test_a_listener_on_another_queue_is_found() -> None:
    host = serving()
    raw("")(host)
    status = collect(host, 0)
    assert status.exit_code == 3
    assert status.notes == ["somebody listens on queue 5, 7. See: fixer status --queue 5"]


def test_nothing_at_all_says_what_to_type() -> None:
    status = collect(FakeHost(), 0)
    assert status.exit_code == 3
    assert status.notes == ["nothing is set up here. Next: fixer on, then fixer run"]


def test_no_iptables_is_no_reason_to_hide_the_listener() -> None:
    """`fixer run` works without `fixer on`: with a rule of nftables, say."""
    host = serving()
    for command in ("iptables", "ip6tables"):
        del host.answers[command]
        del host.answers[f"{command} --version"]
    status = collect(host, 7)
    assert status.listening
    assert "iptables is not installed" in (status.rules["ipv4"].unavailable or "")
    assert "not available: iptables is not installed" in shown(status)


def test_a_table_that_cannot_be_read_is_not_said_to_be_without_rules() -> None:
    host = serving()
    host.answers["iptables-save"] = Completed(1, "", "Could not fetch rule set generation id: Operation not supported")
    status = collect(host, 7)
    assert (status.exit_code, status.listening) == (3, True)
    assert "Operation not supported" in (status.rules["ipv4"].unavailable or "")
    set_report(rule_packets_at_start={"ipv4": 0, "ipv6": None})(host)
    assert status.passed_unseen is collect(host, 7).passed_unseen is None
    assert "not available: the kernel lacks" in shown(status)


@pytest.mark.parametrize(
    "change",
    [
        without("/proc/4711"),  # killed: its report stays
        lambda host: host.owners.__setitem__(777, Owner(1, "other")),  # and another took the queue
        lambda host: report_of(host).unlink(),
    ],
)
def test_a_report_that_is_nobodys_is_not_believed(change: Callable[[FakeHost], None]) -> None:
    host = serving()
    change(host)
    status = collect(host, 0)
    assert status.daemon is None
    assert status.passed_unseen is None
    assert "passed unseen unknown" in shown(status)
    assert status.exit_code == 3, "somebody listens, and nobody knows what it does"
    assert status.listening


def test_an_owner_that_cannot_be_seen() -> None:
    host = serving()
    host.owners.clear()
    status = collect(host, 0)
    assert status.daemon is not None, "in a container the listener's process may be invisible, its report is not"
    assert "netlink port 4242, process not visible" in shown(status)


@pytest.mark.parametrize(
    ("at_start", "matched", "sequence", "unseen"),
    [
        (0, 100, 100, 0),
        (None, 100, 97, 3),
        (60, 100, 30, 10),
        (200, 100, 30, None),  # the rule is younger than the daemon's figure
        (0, 100, 110, 0),  # super-packets: one for the rule, several for the queue
        (0, (1 << 32) + 50, 20, 30),  # the sequence has wrapped
    ],
)
def test_passed_unseen(at_start: int | None, matched: int, sequence: int, unseen: int | None) -> None:
    host = serving()
    raw(ON.replace("[100:", f"[{matched}:"))(host)
    host.files[f"{NET}/netfilter/nfnetlink_queue"] = f"7 4242 0 2 65531 0 0 {sequence} 1\n"
    host.files[f"{NET}/netlink"] = SOCKETS
    set_report(rule_packets_at_start={"ipv4": at_start, "ipv6": None})(host)
    assert collect(host, 0).passed_unseen == unseen


def test_what_the_daemon_could_not_read_at_its_start_is_not_taken_for_zero() -> None:
    """Without root it cannot read its rule's counter: what the rule had counted before it began is not unseen by it."""
    host = serving()
    raw(ON.replace("[100:", "[5551:"))(host)
    host.files[f"{NET}/netfilter/nfnetlink_queue"] = "7 4242 0 2 65531 0 0 12 1\n"
    host.files[f"{NET}/netlink"] = SOCKETS
    set_report(rule_packets_at_start={})(host)
    assert collect(host, 0).passed_unseen is None


TWO = ON.replace("--queue-num 7 --queue-bypass", "--queue-balance 7:8 --queue-bypass --queue-cpu-fanout")
TWO_QUEUES = QUEUES + "    8   4243     5 2 65531     0     0       10  1\n"
TWO_SOCKETS = SOCKETS + SOCKETS.splitlines()[-1].replace("4242", "4243").replace("777", "778") + "\n"


def serving_two() -> FakeHost:
    """Rule on for IPv4 and both families' queues 7 and 8 served; no interface is known."""
    host = serving()
    raw(TWO)(host)
    host.owners[778] = Owner(4711, "fixer")
    host.files |= {f"{NET}/netfilter/nfnetlink_queue": TWO_QUEUES, f"{NET}/netlink": TWO_SOCKETS}
    set_report(queues=2)(host)
    return host


def test_several_queues_each_have_a_line_and_are_summed() -> None:
    host = serving_two()
    host.files[f"{NET}/netfilter/nfnetlink_queue"] = TWO_QUEUES.replace(" 95  1", " 85  1")
    status = collect(host, 0)
    assert (status.exit_code, status.queues, [each.queue for each in status.listeners]) == (0, [7, 8], [7, 8])
    assert status.passed_unseen == 100 - 5 - 85 - 10
    assert status.notes == []
    table = shown(status)
    for part in (
        "on: UDP to port 4789 to queues 7 to 8;",
        "fixer (pid 4711) on queue 7: 85 packets, 12 waiting, 0 lost",
        "fixer (pid 4711) on queue 8: 10 packets, 5 waiting, 0 lost",
        "copies packets up to 65,531 bytes; 17 waiting",
        "95 packets; passed unseen 0",
        "queue full 0, not delivered 0, did not fit the socket 0",
    ):
        assert part in table, (part, table)


def test_a_queue_that_nobody_listens_on_is_not_listening() -> None:
    host = serving_two()
    host.files[f"{NET}/netfilter/nfnetlink_queue"] = QUEUES
    set_report(queues=1)(host)
    status = collect(host, 0)
    assert (status.exit_code, status.listening) == (3, False)
    assert status.notes == [
        "nobody listens on queue 8: those packets pass as if fixer were not there. Next: fixer run with queue.count = 2"
    ]
    assert "none on queue 8" in shown(status)
    host.files[f"{NET}/netfilter/nfnetlink_queue"] = ""
    status = collect(host, 0)
    assert status.notes == ["nobody listens on queues 7 to 8: packets pass as if fixer were not there. Next: fixer run"]


def test_a_rule_that_leaves_queues_of_the_daemon_out_is_noted() -> None:
    host = serving_two()
    raw(ON)(host)
    assert collect(host, 0).notes == ["the daemon serves queues 7 to 8, the rule sends to queue 7. Next: fixer on"]


def test_without_a_rule_the_configured_queues_are_asked_about() -> None:
    host = serving_two()
    raw("")(host)
    assert collect(host, 7, 2).notes == ["no rule sends packets to the queue. Next: fixer on"]
    assert collect(host, 7, 3).notes[0].startswith("nobody listens on queue 9: ")


def test_what_the_kernel_refused_is_said_and_makes_a_figure_a_lower_bound() -> None:
    host = losing()
    set_report(flags={"fail_open": False, "gso": False})(host)
    status = collect(host, 0)
    assert status.notes[2:] == [
        "a full queue loses packets, for this kernel cannot let them pass (queue.fail_open is refused)",
        "this kernel hands merged packets over in segments, with checksums of its own: that costs more, and they count "
        "as sound though nobody verified what came (queue.gso is refused)",
    ]
    assert "fail-open refused, gso refused" in shown(status)
    assert "passed unseen at least 9" in shown(status)
    set_report(flags={"fail_open": True, "gso": False}, asked={"fail_open": True, "gso": False})(host)
    status = collect(host, 0)
    assert len(status.notes) == 2, "nobody asked for it"
    assert "fail-open granted, gso off" in shown(status)
    assert "passed unseen at least 9" in shown(status)


def test_interfaces_that_keep_flows_together_are_noted_with_several_queues() -> None:
    host = serving_two()
    host.answers["ip"] = interfaces("eth0", "eth1")
    masks = "eth0/queues/rx-0/rps_cpus:0\neth1/queues/rx-0/rps_cpus:3\n"
    host.answers["unshare"] = Completed(0, masks, "")
    status = collect(host, 0)
    cure = "echo 3 > /sys/class/net/eth0/queues/rx-0/rps_cpus"
    assert [note.partition("Next: ")[2] for note in status.notes] == [cure]
    assert status.spread == {"eth0": status.notes[0], "eth1": None}
    assert "eth1: the flows of one VTEP pair reach several queues" in shown(status)
    raw(ON)(host)
    assert collect(host, 0).spread == {}, "with one queue there is nothing to spread over"


SUSPECTS = Selection(queue=7, ports=(4789,), interface="eth0", suspects_up_to=1500)
MET = {"FIXER": [1000], "FIXER-VXLAN": [300, 0, 400, 200, 0, 100]}
"""How many packets have met each rule: of those that pass, the third is for what is merged."""


def written(selection: Selection, met: dict[str, list[int]], *, remembered: bool = True) -> Callable[[FakeHost], None]:
    """These rules are in iptables, as `fixer on` has written them."""

    def change(host: FakeHost) -> None:
        lines = ["[0:0] -A PREROUTING -j FIXER"]
        for chain, ours in chains_of(selection, IPV4).items():
            lines += [f"[{met[chain][at]}:6400] -A {chain} {spelt(words)}" for at, words in enumerate(ours)]
        raw("\n".join(lines))(host)
        said = parse("\n".join(lines)).said()
        memory = Written("iptables", said, msgspec.Raw(msgspec.json.encode(selection)))
        baseline.write(host, Baseline(written={"ipv4": memory} if remembered else {}))

    return change


def test_the_share_that_is_looked_at() -> None:
    host = serving()
    written(SUSPECTS, MET)(host)
    status = collect(host, 0)
    rule = status.rules["ipv4"]
    assert (rule.scope, rule.packets, rule.finished, rule.merged, rule.longest) == ("suspects", 100, 500, 400, 1500)
    assert rule.looked_at == 0.1
    assert status.passed_unseen == 100 - 5 - 95, "what was not to be queued is not missing"
    table = shown(status)
    assert "100 packets, 6.4 kB (10.00% of the path); not looked at: 500 finished, 400 merged ones" in table
    assert "(longer than 1,500 bytes)" in table
    assert "of the path" not in shown(collect(serving(), 0)), "with scope all there is no share to tell"


def changed(host: FakeHost) -> None:
    """Somebody has taken a rule out."""
    text = host.answers["iptables-save"].out
    raw("\n".join(line for line in text.splitlines() if not line.startswith("[0:6400]")))(host)


@pytest.mark.parametrize("change", [changed, written(SUSPECTS, MET, remembered=False)])
def test_what_is_not_as_it_was_written_is_told_by_its_words_alone(change: Callable[[FakeHost], None]) -> None:
    host = serving()
    written(SUSPECTS, MET)(host)
    change(host)
    rule = collect(host, 0).rules["ipv4"]
    assert (rule.scope, rule.packets, rule.finished, rule.merged) == ("suspects", 100, 500, 400)
    assert (rule.longest, rule.syns) == (None, False)


def test_syns_that_pass_a_daemon_which_strips_timestamps_are_noted() -> None:
    host = serving()
    written(SUSPECTS, MET)(host)
    for mode, noted in (("off", False), ("strip", True), ("normalise", False)):
        set_report(timestamps=mode)(host)
        notes = [note for note in collect(host, 0).notes if "SYN" in note]
        expected = "the daemon strips timestamps, the rule lets SYNs pass. Next: fixer on --scope suspects"
        assert notes == [expected] * noted
    written(replace(SUSPECTS, syns=True), MET)(host)
    status = collect(host, 0)
    assert (status.rules["ipv4"].scope, status.rules["ipv4"].syns) == ("suspects", True)
    assert not any("SYN" in note for note in status.notes)
    raw(ON)(host)
    assert not any("SYN" in note for note in collect(host, 0).notes), "with scope all they are queued anyway"


NORMALISING = """\
*raw
[0:0] -A PREROUTING -j FIXER
[0:0] -A OUTPUT -j FIXER-OUTPUT
[40:1] -A FIXER -p udp -m multiport --dports 4789 -m bpf --bytecode "1,6 0 0 1" -g FIXER-FLOWS
[100:6400] -A FIXER -p udp -m multiport --dports 4789 -j NFQUEUE --queue-num 7 --queue-bypass
[30:1] -A FIXER-OUTPUT -p udp -m multiport --dports 4789 -m bpf --bytecode "1,6 0 0 1" -g FIXER-FLOWS
[70:2] -A FIXER-FLOWS -j NFQUEUE --queue-num 8 --queue-bypass
COMMIT
"""
JUMP = "[0:0] -A OUTPUT -j FIXER-OUTPUT\n"


@pytest.fixture
def normalising() -> FakeHost:
    """Rules for both directions, a daemon on queues 7 and 8, and its flow table."""
    host = serving_two()
    raw(NORMALISING)(host)
    flows = {"capacity": 2048, "used": 512, "normalised": 3, "draining": False, "expired": 9, "damaged": 0}
    outcomes = {"not_concerned": 5, "translated": 7, "untracked": 0}
    counters = {**json.loads(report())["counters"], "timestamps": outcomes, "replies": {"unchanged": 6}}
    set_report(timestamps="normalise", flows=flows, counters=counters)(host)
    write_table(host)
    return host


def write_table(host: FakeHost, draining: int = 0) -> None:
    table = header(capacity=2048, normalised=3, used=512, draining=draining)
    flowfile.path_of(host, 7).write_bytes(table)


def test_what_is_normalised_is_shown_beside_the_rest(normalising: FakeHost) -> None:
    status = collect(normalising, 0)
    assert (status.exit_code, status.queues, status.notes) == (0, [7], [])
    assert status.passed_unseen == 100 - 5 - 95, "what goes to the other queue is not missing"
    assert status.rules["ipv4"].packets == 100
    assert status.rules["ipv4"].flows == FlowsRule(queue=8, arrived=40, left=30, position=1, of=1, hook="raw/OUTPUT")
    assert status.flows is not None
    assert (status.flows.queue, status.flows.used, status.flows.capacity) == (8, 512, 2048)
    assert (status.flows.normalised, status.flows.draining) == (3, False)
    assert (status.flows.listener and status.flows.listener.id_sequence) == 10
    as_json = msgspec.json.decode(msgspec.json.encode(status))
    assert as_json["flows"]["listener"]["socket_drops"] == 0
    assert as_json["rules"]["ipv4"]["flows"]["left"] == 30
    table = shown(status)
    for part in (
        "normalising: 40 packets from the sources, 30 replies to queue 8; rule 1 of 1 in raw/OUTPUT, last",
        "fixer (pid 4711) on queue 8: 10 packets, 5 waiting, 0 lost",
        "flow table: 512 of 2,048 (25.0%), 3 normalised",
        "translated 7",
        "unchanged 6",
        "expired 9",
    ):
        assert part in table, (part, table)
    assert "not concerned" not in table
    assert collect(serving(), 0).flows is None


def unheard(host: FakeHost) -> None:
    host.files[f"{NET}/netfilter/nfnetlink_queue"] = QUEUES


def drained(host: FakeHost) -> None:
    write_table(host, draining=1)


def other_mode(host: FakeHost) -> None:
    unheard(host)
    set_report(timestamps="strip")(host)


def killed(host: FakeHost) -> None:
    host.files[f"{NET}/netfilter/nfnetlink_queue"] = ""
    report_of(host).unlink()


@pytest.mark.parametrize(
    ("change", "exit_code", "note"),
    [
        (raw(ON), 3, "the daemon normalises timestamps, but not all rules lead them to it. Next: fixer on"),
        (
            raw(NORMALISING.replace(JUMP, "")),
            3,
            "IPv4: the way back is missing: no jump to FIXER-OUTPUT in raw/OUTPUT, so no timestamps are normalised. "
            "Next: fixer on",
        ),
        (
            raw(NORMALISING + "[0:0] -A OUTPUT -j LOG\n"),
            3,
            "IPv4: our jump is not last in raw/OUTPUT, what we take never",
        ),
        (raw(JUMP + NORMALISING), 3, "IPv4: more than one jump leads to our chain. Next: fixer on"),
        (raw("[0:0] -A OUTPUT -j ACCEPT\n" + NORMALISING), 3, '"-A OUTPUT -j ACCEPT" stands before our jump and ends'),
        (
            unheard,
            3,
            "nobody listens on queue 8: no timestamps are normalised, and 3 connections stall. Next: start fixer run "
            'again, with timestamps.mode = "normalise"',
        ),
        (other_mode, 3, "or fixer on if the mode is another now"),
        (
            killed,
            3,
            "nobody listens on queue 8: no timestamps are normalised, and 3 connections stall. Next: fixer run",
        ),
        (
            drained,
            0,
            "draining: 3 normalised connections left, new ones are left alone. Next: fixer off --drain waits for them, "
            "fixer on ends it",
        ),
        (lambda host: flowfile.path_of(host, 7).write_bytes(b"foreign"), 3, "7.flows cannot be read: it is too short"),
    ],
)
def test_what_is_odd_about_normalising_is_noted(
    normalising: FakeHost, change: Callable[[FakeHost], None], exit_code: int, note: str
) -> None:
    change(normalising)
    status = collect(normalising, 7)
    assert status.exit_code == exit_code
    assert any(note in line for line in status.notes), status.notes
    # As it is shown, wherever the lines are broken.
    assert "".join(note.split()) in "".join(shown(status).split())


def test_a_table_that_is_not_there_has_no_figures(normalising: FakeHost) -> None:
    flowfile.path_of(normalising, 7).unlink()
    status = collect(normalising, 0)
    assert status.flows is not None
    assert (status.flows.used, status.flows.draining, status.exit_code) == (None, False, 3)
    [note] = status.notes
    assert "7.flows is not there: connections that are normalised stall when the daemon ends" in note
    assert "flow table:" not in shown(status)
    raw(NORMALISING.replace(JUMP, ""))(normalising)
    assert "no way back: no jump in raw/OUTPUT" in shown(collect(normalising, 0))


def test_the_share_of_no_packet_is_none() -> None:
    host = serving()
    written(SUSPECTS, {chain: [0] * len(met) for chain, met in MET.items()})(host)
    rule = collect(host, 0).rules["ipv4"]
    assert rule.looked_at is None
    assert "0 packets, 6.4 kB; not looked at: 0 finished" in shown(collect(host, 0))


def interfaces(*names: str, mtu: int = 1500) -> Completed:
    found = [{"ifname": "lo", "mtu": 65536, "flags": ["UP"], "link_type": "loopback"}]
    found += [{"ifname": name, "mtu": mtu, "flags": ["UP"], "link_type": "ether"} for name in names]
    return Completed(0, json.dumps(found), "")


@pytest.mark.parametrize(
    ("said", "merging", "told"),
    [
        (
            ["on"],
            {"eth0": True},
            "on: eth0; what it merges nobody can verify; to have every packet verified: ethtool -K",
        ),
        (["off"], {"eth0": False}, "off: eth0; every packet can be verified in software"),
        ([""], {"eth0": None}, "unknown: eth0"),
        (["on", "off"], {"eth0": True, "eth1": False}, "gro off / off: eth1; every packet can"),
        ([], {}, "unknown: no interface to ask about"),
    ],
)
def test_whether_every_packet_can_be_verified(said: list[str], merging: dict[str, bool | None], told: str) -> None:
    host = serving()
    host.answers["ip"] = interfaces(*merging)
    for name, word in zip(merging, said, strict=True):
        text = f"Features for {name}:\ngeneric-receive-offload: {word}\nlarge-receive-offload: off [fixed]\n"
        host.answers[f"ethtool -k {name}"] = Completed(0, text if word else "", "")
        host.answers["ethtool"] = OK
    status = collect(host, 0)
    assert status.merging == merging
    assert told in shown(status)


def test_packets_that_are_too_long_for_the_rule_are_noted() -> None:
    host = serving()
    written(SUSPECTS, MET)(host)
    host.answers["ip"] = interfaces("eth0", mtu=9000)
    assert collect(host, 0).notes == [
        "packets longer than 1,500 bytes are not looked at, but eth0 may bring some of 9,000. "
        "Next, unless no VXLAN comes that way: fixer on --scope suspects --mtu 9000"
    ]
    host.answers["ip"] = Completed(0, interfaces("eth0", mtu=9000).out[:-1] + "," + interfaces("eth1").out[1:], "")
    written(replace(SUSPECTS, interface="eth1"), MET)(host)
    assert collect(host, 0).notes == [], "nothing of it arrives there"
    baseline.remove(host)
    raw(ON)(host)
    assert collect(host, 0).notes == [], "with scope all, whatever comes is looked at"


# The real thing


class Reporting(Host):
    """The real host, with a report that was never written to this machine's /run."""

    def __init__(self, directory: Path) -> None:
        self.run_directory = directory


def bound(buffer: int | None = None) -> NetfilterQueue:
    """Queue 7, bound in this thread's namespace and never read; the library's copies are 4,016 bytes at most."""
    queue = NetfilterQueue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # that the buffer is not as asked for: it need only be small
        queue.bind(7, lambda packet: packet.accept(), 100_000, sock_len=buffer or 1 << 20)
    return queue


@pytest.mark.root
def test_the_kernels_own_figures(netns: Namespace, tmp_path: Path) -> None:
    netns.call(turn_on, Host(), Selection(queue=7, ports=(4789,)))
    assert netns.call(collect, Host(), 0).exit_code == 3
    netns.send(5)  # nobody listens: they pass, and only the rule counts them
    queue = netns.call(bound)
    try:
        netns.send(3)
        (owner,) = netns.call(listeners, Host(), [7])
        assert (owner.pid, owner.process) == (os.getpid(), Host().read("/proc/self/comm").strip())
        assert (owner.waiting, owner.copies, owner.copy_range) == (3, "packets", 4016)
        assert (owner.queue_dropped, owner.user_dropped, owner.socket_drops) == (0, 0, 0)
        assert netns.call(listeners, Host(), [8]) == []

        reporting = Reporting(tmp_path)
        place.write(
            netns.call(path_of, reporting, 7),
            report(pid=os.getpid(), rule_packets_at_start={"ipv4": 0, "ipv6": 0}).encode(),
        )
        status = netns.call(collect, reporting, 0)
        assert [note.partition(":")[0] for note in status.notes if "passed" in note] == ["5 packets passed unseen"]
        assert status.exit_code == 3
        assert (status.rules["ipv4"].packets, status.listeners[0].id_sequence, status.passed_unseen) == (8, 3, 5)

        netns.call(turn_off, Host())
        assert netns.call(collect, Host(), 7).notes == ["no rule sends packets to the queue. Next: fixer on"]
    finally:
        queue.unbind()
    assert netns.call(listeners, Host(), [7]) == []


@pytest.mark.root
def test_a_socket_that_overflows_is_counted_where_the_kernel_shows_it(netns: Namespace) -> None:
    netns.call(turn_on, Host(), Selection(queue=7, ports=(4789,)))
    queue = netns.call(bound, 4096)
    try:
        netns.send(300)
        (heard,) = netns.call(listeners, Host(), [7])
        assert heard.socket_drops > 0
        assert heard.socket_drops + heard.waiting == 300
    finally:
        queue.unbind()


@pytest.mark.root
@pytest.mark.parametrize("gso", [True, False])
def test_what_passed_unseen_is_exact_where_merged_packets_come_whole(netns: Namespace, gso: bool) -> None:
    """The rule counts a merged packet once, and without GSO the queue counts each of its segments."""
    selection = Selection(queue=7, plain=True, interface="lo")
    settings = f"plain = true\n[queue]\nnumber = 7\ngso = {str(gso).lower()}\n"
    content = bytes(1 << 20)
    netns.run("ip", "link", "set", "lo", "mtu", "1500")  # what is longer is merged, and segmented for who did not ask
    with Service(netns, settings=settings, on=None) as service, traffic.serving(netns, content):
        netns.call(turn_on, Host(), selection)
        assert traffic.download(netns, "127.0.0.1").size == len(content)
        status = json.loads(service.ask("status", "--json").out)
        table = service.ask("status").out
    (heard,) = status["listeners"]
    assert status["daemon"]["asked"] == status["daemon"]["flags"] == {"fail_open": True, "gso": gso}
    assert (heard["id_sequence"] == status["rules"]["ipv4"]["packets"]) is gso
    assert status["passed_unseen"] == 0
    assert f"passed unseen {'' if gso else 'at least '}0" in table
    assert ("gso granted" if gso else "gso off") in table


def stopped(service: Service) -> int:
    """The daemon, stopped for a moment: what comes now fills its queue, and passes once it is full."""
    (heard,) = json.loads(service.ask("status", "--json").out)["listeners"]
    os.kill(heard["pid"], signal.SIGSTOP)
    for thread in Path(f"/proc/{heard['pid']}/task").iterdir():
        while "State:\tT" not in (thread / "status").read_text():
            time.sleep(0.01)
    return int(heard["pid"])


@pytest.mark.root
@pytest.mark.parametrize("how", ["flushed", "emptied", "changed", "off"])
def test_what_passes_unseen_is_counted_from_where_the_rule_was_put_back(netns: Namespace, how: str) -> None:
    """A new rule begins at 0, its daemon's queue does not."""
    settings = "[queue]\nnumber = 7\nlength = 1000\n"
    selection = Selection(queue=7, ports=(4789,))

    def unseen() -> int | None:
        return netns.call(collect, Host(), 7).passed_unseen

    def ours() -> set[Path]:
        """All of this namespace; of another one with its number, which is no more, a damaged table may be there."""
        return set(Path("/run/fixer").glob(f"{netns.call(Host().netns_inode)}*"))

    before = ours()
    with netns.receiving(), Service(netns, settings=settings, on=None, off=("--force",)) as service:
        netns.call(turn_on, Host(), selection)
        pid = stopped(service)
        try:
            netns.send(1200)
            assert unseen() == 200
            netns.call(turn_on, Host(), selection)
            assert unseen() == 200, "what is on already is not written again"
            if how == "off":
                netns.call(turn_off, Host())
            elif how == "changed":
                selection = Selection(queue=7, ports=(4789, 8472))
            else:
                netns.run("iptables", "-t", "raw", "-F", *(["FIXER"] if how == "emptied" else []))
            netns.call(turn_on, Host(), selection)
            assert unseen() == 0
            netns.send(100)
            netns.send(50, version=6)
            assert unseen() == 150
        finally:
            os.kill(pid, signal.SIGCONT)
        # The family that was not touched has its old counter, and what is queued from here on is not missing.
        while netns.call(listeners, Host(), [7])[0].waiting:
            time.sleep(0.05)
        netns.send(30)
        netns.send(20, version=6)
        assert unseen() == 150
        netns.call(turn_off, Host())
    assert ours() <= before, "off and stop leave nothing"


@pytest.mark.root
def test_a_daemon_that_is_started_after_the_rule_counts_from_its_own_start(netns: Namespace) -> None:
    with Service(netns, settings="[queue]\nnumber = 7\n", on=None) as service:
        netns.call(turn_on, Host(), Selection(queue=7, ports=(4789,)))
        netns.send(30)
        service.kill()
        netns.send(1000)
        service.start_again()
        wait_for(lambda: netns.call(report_every, Host()))  # until then nobody knows where its counting begins
        netns.send(40)
        found = netns.call(collect, Host(), 7)
        assert (found.rules["ipv4"].packets, found.listeners[0].id_sequence, found.passed_unseen) == (1070, 40, 0)


@pytest.mark.root
def test_what_passes_while_a_daemon_is_started_passed_since_nobody_listened(netns: Namespace) -> None:
    """And not since its queue was full, however soon before it listens."""
    over = threading.Event()

    def send() -> None:
        while not over.is_set():
            netns.send(20)

    with Service(netns, settings="[queue]\nnumber = 7\n", on=None) as service:
        netns.call(turn_on, Host(), Selection(queue=7, ports=(4789,)))
        sender = threading.Thread(target=send)
        sender.start()
        try:
            service.kill()
            service.start_again()
            wait_for(lambda: netns.call(report_every, Host()))
        finally:
            over.set()
            sender.join()
        wait_for(lambda: netns.call(listeners, Host(), [7])[0].waiting == 0)
        found = netns.call(collect, Host(), 7)
        assert (found.listeners[0].id_sequence > 100, found.passed_unseen) == (True, 0)


@pytest.mark.root
def test_a_family_that_is_put_back_after_a_failure_is_noted_too(netns: Namespace) -> None:
    class Refusing(Host):
        def run(self, argv: Sequence[str], input: str | None = None, seconds: float | None = 30) -> Completed:
            if argv[0] == "ip6tables-restore":
                return Completed(4, "", "Another app is currently holding the xtables lock")
            return super().run(argv, input)

    queue = netns.call(bound)
    try:
        netns.call(turn_on, Host(), Selection(queue=7, ports=(4789,)))
        netns.send(10)
        with pytest.raises(SystemRefused, match="xtables lock"):
            netns.call(turn_on, Refusing(), Selection(queue=9, plain=True))
        noted = netns.call(baseline.read, Host())
        assert noted.rule_packets == {"ipv4": 0, "ipv6": 0}
        assert [handed.sequence for handed in noted.handed.values()] == [10]
    finally:
        queue.unbind()


def noted(socket: int, ipv4: int | None, sequence: int, drops: int = 0) -> Callable[[FakeHost], None]:
    def change(host: FakeHost) -> None:
        baseline.write(host, Baseline({"ipv4": ipv4, "ipv6": None}, {socket: Handed(sequence, drops)}))

    return change


@pytest.mark.parametrize(
    ("change", "unseen"),
    [
        (noted(777, 0, 60), 100 - (90 - 60) + 4),
        (noted(777, 0, 60, drops=3), 100 - (90 - 60) + 1),
        (noted(777, 50, 89), 50 - 1 + 4),
        (noted(777, None, (1 << 32) - 5), 100 - 95 + 4),  # the sequence has wrapped
        (noted(777, 200, 60), None),  # put back once more, and by somebody else
        (noted(776, 0, 60), 100 - 5 - 90 + 4),  # another socket's: the daemon was started again
        (lambda host: baseline.path_of(host).write_text("{"), 100 - 5 - 90 + 4),
    ],
)
def test_the_note_of_a_rule_holds_for_the_socket_that_was_bound_then(
    change: Callable[[FakeHost], None], unseen: int | None
) -> None:
    host = losing()
    change(host)
    assert collect(host, 0).passed_unseen == unseen


def test_a_queue_that_is_bound_after_the_rule_was_written_counts_from_0() -> None:
    host = serving_two()
    host.files[f"{NET}/netlink"] = TWO_SOCKETS.replace("0        778", "0        779")
    noted(777, 0, 60)(host)
    assert collect(host, 0).passed_unseen == 100 - (95 - 60) - 10


def test_a_note_that_cannot_be_written_does_not_undo_the_rule() -> None:
    host = FakeHost()
    baseline.path_of(host).mkdir()
    for command in ("iptables", "ip6tables"):
        state = [OK, Completed(0, ON, "")]
        host.answers[f"{command}-save"] = lambda *_, state=state: state[0]
        host.answers[f"{command}-restore"] = lambda *_, state=state: state.reverse() or OK
    *_, last = turn_on(host, Selection(queue=7, ports=(4789,)))
    assert last == (
        f"fixer status cannot tell what passes unseen: {baseline.path_of(host)} cannot be written: Is a directory"
    )


def test_lines_of_the_log_that_were_lost_are_told() -> None:
    host = serving()
    set_report(log={"written": 9000, "lost": 1234})(host)
    status = collect(host, 0)
    assert "1,234 lines of the log were lost" in shown(status)
    assert msgspec.json.decode(msgspec.json.encode(status))["daemon"]["log"] == {"written": 9000, "lost": 1234}
    set_report(log={"written": 9000, "lost": 0})(host)
    assert "lines of the log" not in shown(collect(host, 0))


JSON = {
    "": "daemon flows listeners listening merging notes on outgoing passed_unseen queues reasons rules spread tunnels "
    "wanted wire",
    "daemon": "asked confined counters findings flags flows log monitor pid plain ports queue queue_counters queues "
    "rule_packets_at_start started timestamps updated version",
    "flows": "capacity draining listener normalised queue used",
    "listeners": "copies copy_range id_sequence pid portid process queue queue_dropped socket socket_drops "
    "user_dropped waiting",
    "rules": "ipv4 ipv6",
    "rules.ipv4": "bytes command finished flows hook interface longest merged of on outgoing packets position scope "
    "syns takes unavailable",
    "rules.ipv4.flows": "arrived hook left of position queue",
}


def test_programs_find_the_same_keys(normalising: FakeHost) -> None:
    document = msgspec.json.decode(msgspec.json.encode(collect(normalising, 0)))
    for path, keys in JSON.items():
        found = document
        for step in filter(None, path.split(".")):
            found = found[step]
        found = found[0] if isinstance(found, list) else found
        assert sorted(found) == keys.split(), path
    assert document["daemon"]["flags"] == {"fail_open": True, "gso": True}
    assert document["daemon"]["counters"]["diagnosis"] == {"sound": 80, "inner_unfinished": 6, "corrupt": 0}
    assert document["daemon"]["flows"]["expired"] == 9
    assert document["daemon"]["started"].startswith("2026-01-02T03:00:00")


OUTGOING = """\
*raw
[0:0] -A PREROUTING -j FIXER
[0:0] -A OUTPUT -j FIXER-OUTPUT
[100:6400] -A FIXER -p udp -m multiport --dports 4789 -j NFQUEUE --queue-num 7 --queue-bypass
[50:9] -A FIXER-OUTPUT -p udp -m multiport --dports 4789 -j NFQUEUE --queue-num 8 --queue-bypass
COMMIT
"""


@pytest.fixture
def completing() -> FakeHost:
    """Rules for what arrives and for what leaves, and a daemon on both queues."""
    host = serving_two()
    raw(OUTGOING)(host)
    set_report(queues=1)(host)
    return host


def test_what_leaves_is_shown_beside_the_rest(completing: FakeHost) -> None:
    status = collect(completing, 0)
    assert (status.exit_code, status.listening, status.queues, status.notes) == (0, True, [7], [])
    assert status.passed_unseen == 100 - 5 - 95, "what leaves is not missing"
    rule = status.rules["ipv4"].outgoing
    assert rule == OutgoingRule(queue=8, packets=50, position=1, of=1, hook="raw/OUTPUT")
    assert status.outgoing is not None
    assert status.outgoing.queue == 8
    table = shown(status)
    assert "completing: 50 packets that left, to queue 8; rule 1 of 1 in raw/OUTPUT, last" in table
    assert "fixer (pid 4711) on queue 8; the kernel completes what leaves, nothing waits" in table
    assert collect(serving(), 0).outgoing is None


def in_monitor_mode(host: FakeHost) -> None:
    unheard(host)
    set_report(queues=1, monitor=True)(host)


def foreign(host: FakeHost) -> None:
    host.owners[778] = Owner(99, "suricata")


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (unheard, "nobody has queue 8 open: what leaves is not completed. Next: fixer on --outgoing, and look into"),
        (
            in_monitor_mode,
            "what leaves is not completed, for a daemon in monitor mode changes nothing",
        ),
        (killed, "nobody has queue 8 open: what leaves is not completed. Next: fixer run"),
        (
            foreign,
            "queue 8 is held by suricata (pid 99), which is no fixer and is fed all that leaves. Next:",
        ),
        (
            raw(OUTGOING.replace(JUMP, "")),
            "no jump to FIXER-OUTPUT in raw/OUTPUT, so what leaves is not completed. Next: fixer on",
        ),
        (raw("[0:0] -A OUTPUT -j ACCEPT\n" + OUTGOING), '"-A OUTPUT -j ACCEPT" stands before our jump and ends'),
    ],
)
def test_what_is_odd_about_what_leaves_is_said(
    completing: FakeHost, change: Callable[[FakeHost], None], note: str
) -> None:
    change(completing)
    status = collect(completing, 7)
    assert status.exit_code == 3
    assert any(note in line for line in status.notes), status.notes
