"""nftables as a backend: what it writes, what it cannot, and on kernels that have its queue statement, what it does."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace
from support.commands import FIXER, started
from support.fakehost import OK, FakeHost
from support.netns import Namespace

from fixer.errors import KernelLacks
from fixer.host import queues
from fixer.host.machine import Completed, Host
from fixer.host.ruleset import Events, Process
from fixer.lab import net
from fixer.rules import nftables, switch
from fixer.rules.iptables import Variant
from fixer.rules.selection import IPV4, IPV6, Selection
from fixer.state import report

QUEUE = 7
PATIENCE_SECONDS = 300  # an emulated kernel's CPU is many times slower
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
TRIAL = "table ip t { chain c { queue num 0 bypass; }; }\n"
VXLAN = Selection(queue=QUEUE, ports=(4789, 8472))


def say(*arguments: str) -> subprocess.CompletedProcess[str]:
    return started(*arguments, timeout=PATIENCE_SECONDS)


@pytest.fixture
def native(netns: Namespace) -> Namespace:
    """A namespace of a kernel that has the queue statement."""
    if netns.host.which("nft") is None:
        pytest.skip("needs nft (nftables)")
    tried = netns.host.run(["unshare", "-n", "nft", "-f", "-"], input=TRIAL)
    if tried.status != 0:
        pytest.skip(f"no queue statement of nftables in this kernel: {tried.err.splitlines()[0]}")
    return netns


# What it writes


def test_a_table_of_our_own_between_raw_and_conntrack() -> None:
    assert nftables.script(VXLAN, IPV4) == (
        "table ip fixer {\n"
        "\tchain prerouting {\n"
        "\t\ttype filter hook prerouting priority -299; policy accept;\n"
        "\t\tudp dport { 4789, 8472 } counter queue num 7 bypass\n"
        "\t}\n"
        "}\n"
    )


@pytest.mark.parametrize(
    ("selection", "family", "rule"),
    [
        (replace(VXLAN, count=2), IPV4, "udp dport { 4789, 8472 } counter queue num 7-8 bypass,fanout"),
        (replace(VXLAN, interface="eth+"), IPV6, 'iifname "eth*" udp dport { 4789, 8472 } counter queue num 7 bypass'),
        (
            replace(VXLAN, sources=("10.0.0.0/8", "2001:db8::/32")),
            IPV6,
            "ip6 saddr { 2001:db8::/32 } udp dport { 4789, 8472 } counter queue num 7 bypass",
        ),
        (
            Selection(queue=7, plain=True),
            IPV4,
            'iifname != "lo" meta l4proto { tcp, udp, icmp } counter queue num 7 bypass',
        ),
        (
            replace(VXLAN, until=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
            IPV4,
            'meta time >= "2026-01-02 03:04:05" return',
        ),
    ],
)
def test_a_selection_in_its_words(selection: Selection, family: switch.Family, rule: str) -> None:
    assert f"\t\t{rule}\n" in nftables.script(selection, family)


@pytest.mark.parametrize("selection", [replace(VXLAN, suspects_up_to=1500), replace(VXLAN, flows_queue=8)])
def test_what_is_a_program_is_iptables_alone(selection: Selection) -> None:
    with pytest.raises(KernelLacks, match="iptables alone"):
        nftables.script(selection, IPV4)


@pytest.mark.root
def test_a_kernel_without_the_queue_statement_refuses_and_nothing_is_left(netns: Namespace) -> None:
    tried = netns.host.run(["unshare", "-n", "nft", "-f", "-"], input=TRIAL)
    if tried.status == 0:
        pytest.skip("this kernel has the queue statement")
    before = netns.run("nft", "list", "ruleset").out
    done = say("on", "--netns", netns.name, "--backend", "nft")
    assert done.returncode == 69
    assert "lacks the queue statement" in done.stderr
    assert netns.run("nft", "list", "ruleset").out == before
    assert say("on", "--netns", netns.name).returncode == 3, "iptables can"


# Which backend, where nobody asks for one


class Nft:
    """nft on a kernel that has, or lacks, what our table asks for."""

    def __init__(self, host: FakeHost, *, can: bool) -> None:
        self.tables: set[str] = set()
        self._can = can
        host.answers |= {"nft": OK, "env": self._answer}

    def _answer(self, argv: Sequence[str], text: str | None) -> Completed:
        _, _, _, *arguments = argv
        if arguments[0] == "-j":
            said = '{"nftables": [{"table": {"family": "ip"}}]}' if arguments[3] in self.tables else ""
            return Completed(0, said, "") if said else Completed(1, "", "No such file or directory\n")
        if not self._can and "queue" in (text or ""):
            return Completed(1, "", "Error: Could not process rule: No such file or directory\n")
        if arguments[0] == "-f":
            self.tables -= set(re.findall(r"(?m)^delete table (\w+) ", text or ""))
            self.tables |= set(re.findall(r"(?m)^table (\w+) ", text or ""))
        return OK


def on_by_nobodys_choice(host: FakeHost, selection: Selection = VXLAN, variant: Variant | None = None) -> set[str]:
    """The backends that were written to."""
    state = dict.fromkeys(("iptables", "ip6tables"), OK)
    for command in state:
        host.answers[f"{command}-save"] = lambda argv, _: state[argv[0].removesuffix("-save")]

        def restored(argv: Sequence[str], text: str | None) -> Completed:
            state[argv[0].removesuffix("-restore")] = Completed(0, "" if "-X FIXER" in (text or "") else text or "", "")
            return OK

        host.answers[f"{command}-restore"] = restored
    return {change.after.backend for change in switch.on(host, selection, variant).changes if change.after}


@pytest.mark.parametrize(
    ("can", "selection", "variant", "backends"),
    [
        (True, VXLAN, None, {"nft"}),
        (False, VXLAN, None, {"iptables", "ip6tables"}),
        (True, replace(VXLAN, suspects_up_to=1500), None, {"iptables", "ip6tables"}),
        (True, VXLAN, "iptables", {"iptables", "ip6tables"}),
        (True, VXLAN, "native", {"nft"}),
    ],
)
def test_nftables_where_it_can_and_nobody_has_asked_for_another(
    can: bool, selection: Selection, variant: Variant | None, backends: set[str]
) -> None:
    host = FakeHost()
    nft = Nft(host, can=can)
    assert on_by_nobodys_choice(host, selection, variant) == backends
    assert nft.tables == ({"ip", "ip6"} if backends == {"nft"} else set())


def test_what_has_our_rules_is_kept_to() -> None:
    host = FakeHost()
    nft = Nft(host, can=True)
    assert on_by_nobodys_choice(host, variant="iptables") == {"iptables", "ip6tables"}
    host.ran.clear()
    switch.on(host, VXLAN)
    assert not nft.tables
    assert not any("--check" in line for line in host.ran), "nobody asks nft whether it could"


def test_nftables_is_enough_where_the_kernel_has_nothing_for_iptables() -> None:
    host = FakeHost()
    for command in ("iptables", "ip6tables"):
        host.answers[f"{command}-save"] = Completed(1, "", "Failed to initialize nft: Protocol not supported\n")
    nft = Nft(host, can=True)
    switch.on(host, VXLAN)
    assert nft.tables == {"ip", "ip6"}
    with pytest.raises(KernelLacks, match="Protocol not supported"):
        switch.on(host, VXLAN, "iptables")
    host = FakeHost()
    host.answers["iptables-save"] = Completed(1, "", "Failed to initialize nft: Protocol not supported\n")
    Nft(host, can=False)
    with pytest.raises(KernelLacks, match="Protocol not supported"):
        switch.on(host, VXLAN)


@pytest.mark.root
def test_a_trial_leaves_nothing_and_nobody_is_told_of_it(netns: Namespace) -> None:
    if netns.host.which("nft") is None:
        pytest.skip("needs nft (nftables)")

    def tried() -> tuple[bool, list[Process] | None]:
        events = Events()
        try:
            return nftables.Nftables(Host(), IPV4).takes(VXLAN), events.news()
        finally:
            events.close()

    can, news = netns.call(tried)
    assert can is (netns.host.run(["unshare", "-n", "nft", "-f", "-"], input=TRIAL).status == 0)
    assert news == []
    assert netns.run("nft", "list", "ruleset").out == ""


@pytest.mark.root
@pytest.mark.kernels
def test_auto_is_nft_on_a_kernel_that_can_and_iptables_for_what_only_that_can(native: Namespace) -> None:
    for scope, backend, command in (("all", "auto", "nft"), ("suspects", "auto", "iptables"), ("all", "nft", "nft")):
        done = say("on", "--netns", native.name, f"--queue={QUEUE}", "--scope", scope, "--backend", backend)
        assert done.returncode == 3, done.stderr
        said = json.loads(say("status", "--netns", native.name, "--json", f"--queue={QUEUE}").stdout)
        assert said["rules"]["ipv4"]["command"] == command
        assert ("fixer" in native.run("nft", "list", "tables").out) is (command == "nft"), (
            "nothing is left in the other"
        )


# What it does


@pytest.fixture
def served(native: Namespace) -> Iterator[Namespace]:
    """With a daemon, and a rule of nftables itself."""
    daemon = native.start(*FIXER, "run", f"--queue={QUEUE}")
    try:
        wait(lambda: native.call(report.every, Host()), PATIENCE_SECONDS)
        done = say("on", "--netns", native.name, f"--queue={QUEUE}", "--backend", "nft")
        assert done.returncode == 0, done.stderr
        yield native
    finally:
        net.stop(daemon)


def wait(condition: object, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)


def counted(netns: Namespace) -> int:
    return sum(found.counted.packets for found in netns.call(switch.look, Host(), IPV4))


@pytest.mark.root
@pytest.mark.kernels
def test_on_status_and_off(served: Namespace) -> None:
    served.run("nft", "add", "table", "inet", "theirs")
    with served.receiving():
        served.send(5)
        assert counted(served) == 5
        wait(lambda: served.call(queues.bound, Host())[QUEUE].sequence == 5, 10)
        status = say("status", "--netns", served.name, "--json", f"--queue={QUEUE}")
        said = json.loads(status.stdout)
        assert (status.returncode, said["rules"]["ipv4"]["command"]) == (0, "nft"), said["notes"]
        assert said["rules"]["ipv4"]["takes"] == "UDP to port 4789, 8472, 6784 to queue 7"
    again = say("on", "--netns", served.name, f"--queue={QUEUE}", "--backend", "auto")
    assert again.stdout.startswith("IPv4: already on: "), "what is there is kept to"
    assert "priority -299" in served.run("nft", "-y", "list", "table", "ip", "fixer").out
    served.send(5, version=6)
    off = say("off", "--netns", served.name)
    assert off.returncode == 0, off.stderr
    left = served.run("nft", "list", "ruleset").out
    assert "fixer" not in left.lower()
    assert "theirs" in left


@pytest.mark.root
@pytest.mark.kernels
def test_off_loses_no_packet_that_a_daemon_still_holds(served: Namespace) -> None:
    """The kernel drops with a hook what every queue of the namespace holds."""
    [listener] = served.call(lambda: queues.listeners(Host(), [QUEUE]))
    assert listener.pid is not None
    with served.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as receiver:
        receiver.bind(("", 4789))
        receiver.settimeout(30.0)
        os.kill(listener.pid, signal.SIGSTOP)
        try:
            served.send(5)
            events = served.call(Events)
            off = subprocess.Popen([*FIXER, "off", "--netns", served.name], stdout=subprocess.DEVNULL)
            events.wait(PATIENCE_SECONDS)
            assert served.call(queues.bound, Host())[QUEUE].waiting == 5, "the hook is there still"
        finally:
            os.kill(listener.pid, signal.SIGCONT)
        assert [receiver.recv(100) for _ in range(5)] == [b"x"] * 5
        assert off.wait(PATIENCE_SECONDS) == 0
        events.close()
    assert "fixer" not in served.run("nft", "list", "ruleset").out.lower()


@pytest.mark.root
@pytest.mark.kernels
def test_from_one_backend_to_the_other_and_nothing_twice(served: Namespace) -> None:
    for backend, there, gone in (("iptables", "FIXER", "table ip fixer"), ("nft", "table ip fixer", "FIXER")):
        variant = ["--variant", "nft"] if backend == "iptables" else []
        done = say("on", "--netns", served.name, f"--queue={QUEUE}", "--backend", backend, *variant)
        assert done.returncode == 0, done.stderr
        rules = served.run("nft", "list", "ruleset").out
        assert there in rules
        assert gone not in rules


@pytest.mark.root
@pytest.mark.kernels
def test_a_drop_in_raw_that_is_appended_later_stays_closed(served: Namespace) -> None:
    served.send(3)
    assert counted(served) == 3
    served.run("iptables", "-t", "raw", "-A", "PREROUTING", "-p", "udp", "--dport", "4789", "-j", "DROP")
    served.send(3)
    assert counted(served) == 3, "not one packet came past it"


@pytest.mark.root
@pytest.mark.kernels
def test_what_it_takes_is_read_from_its_rules_where_nobody_remembers_what_was_written(native: Namespace) -> None:
    backend = nftables.Nftables(Host(), IPV4)
    for selection in (
        VXLAN,
        replace(VXLAN, ports=(4789,), count=2, interface="eth+", sources=("10.0.0.0/8", "192.0.2.1/32")),
        replace(VXLAN, until=datetime(2100, 1, 1, tzinfo=UTC)),
        Selection(queue=7, plain=True),
    ):
        change = native.call(backend.apply, selection, native.call(backend.read))
        forgotten = native.call(backend.read)
        assert change.after is not None
        assert (change.after.selection, forgotten.selection) == (selection, None)
        for each in ("takes", "takes_plain", "ports", "interface", "queues"):
            assert getattr(forgotten, each) == getattr(change.after, each), (each, selection)
    native.run("nft", "add rule ip fixer prerouting ip ttl 1 queue num 7 bypass")
    assert native.call(backend.read).takes == "what its rules say, to queue 7"


@pytest.mark.root
@pytest.mark.kernels
def test_what_drops_our_packets_before_ours_is_named(served: Namespace) -> None:
    """What another base chain accepts comes to ours all the same: only a drop keeps it from us."""
    lines = (
        "table inet others { chain early { type filter hook prerouting priority raw - 1; policy accept; }; }",
        "add rule inet others early udp dport { 4789, 8472, 6784 } counter accept",
    )
    for line in lines:
        served.run("nft", line)
    served.send(2)
    assert counted(served) == 2
    said = json.loads(say("status", "--netns", served.name, "--json", f"--queue={QUEUE}").stdout)
    assert not [note for note in said["notes"] if "others" in note]
    served.run("nft", "flush", "table", "inet", "others")
    served.run("nft", "add rule inet others early meta nfproto ipv4 udp dport { 4789, 6784, 8472 } counter drop")
    served.send(2)
    assert counted(served) == 2, "not one packet came past it"
    status = say("status", "--netns", served.name, "--json", f"--queue={QUEUE}")
    notes = [note for note in json.loads(status.stdout)["notes"] if "others" in note]
    assert status.returncode == 3
    (note,) = notes
    assert re.match(r"IPv4: handle \d+ in inet others early drops all our packets before our rules meet them", note)


@pytest.mark.root
@pytest.mark.kernels
def test_it_ends_in_the_kernel(native: Namespace) -> None:
    done = say("on", "--netns", native.name, f"--queue={QUEUE}", "--backend", "nft", "--for", "1h")
    assert done.returncode == 3, done.stderr
    assert "the kernel ends it" in done.stdout
    native.send(2)
    assert counted(native) == 2


@pytest.mark.root
@pytest.mark.kernels
def test_everything_is_killed_and_not_one_packet_is_matched_after_the_end(native: Namespace) -> None:
    """While others send all the time, VXLAN and what is none."""
    began = time.monotonic()
    daemon = native.start(*FIXER, "run", f"--queue={QUEUE}")
    try:
        wait(lambda: native.call(report.every, Host()), PATIENCE_SECONDS)
        slowness = time.monotonic() - began
        ends = (datetime.now(UTC) + timedelta(seconds=5 + 4 * slowness)).replace(microsecond=0)
        said = ("--backend", "nft", "--until", ends.isoformat())
        done = say("on", "--netns", native.name, f"--queue={QUEUE}", *said)
        assert done.returncode == 0, done.stderr
        assert "the kernel ends it" in done.stdout
    finally:
        daemon.kill()
        net.stop(daemon)

    def others_send(over: threading.Event) -> None:
        while not over.wait(0.05):
            native.send(1)
            native.send(1, port=53)

    with native.receiving(), net.meanwhile(others_send):
        before = counted(native)
        wait(lambda: counted(native) > before, PATIENCE_SECONDS)
        assert datetime.now(UTC) < ends, "it was matched until then"
        time.sleep(max((ends - datetime.now(UTC)).total_seconds(), 0) + 0.1)
        last = counted(native)
        time.sleep(3)
        assert counted(native) == last > before, "not one packet more"
    assert "priority -299" in native.run("nft", "-y", "list", "table", "ip", "fixer").out, "nobody has removed it"


@pytest.mark.root
@pytest.mark.kernels
@pytest.mark.parametrize(
    "lie",
    [
        "flush ruleset",
        "delete table ip fixer",
        "flush chain ip fixer prerouting",
        "insert rule ip fixer prerouting accept",
    ],
)
def test_the_guard_puts_it_back(served: Namespace, lie: str) -> None:
    before = served.run("nft", "-s", "list", "table", "ip", "fixer").out
    served.run("nft", *lie.split())
    wait(
        lambda: (
            served.host.run(["ip", "netns", "exec", served.name, "nft", "-s", "list", "table", "ip", "fixer"]).out
            == before
        ),
        60,  # an emulated machine's: each look at the rules is a dozen processes
    )
