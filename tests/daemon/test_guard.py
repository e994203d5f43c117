"""What is wanted, and a daemon that is started: a real one, in a real namespace."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.commands import FIXER, started, wait_for
from support.netns import Namespace

from fixer.config import Settings
from fixer.daemon.guard import Guard
from fixer.errors import NotPermitted
from fixer.host import xtables
from fixer.host.machine import Host
from fixer.lab import net
from fixer.now import Now
from fixer.rules import switch, wanted
from fixer.state import intent, report
from fixer.state.baseline import Baseline, Written

QUEUE = 9


def say(netns: Namespace, verb: str, *more: str) -> subprocess.CompletedProcess[str]:
    return started(verb, "--netns", netns.name, *more)


@contextmanager
def daemon(netns: Namespace, *more: str) -> Iterator[subprocess.Popen[str]]:
    """One that listens, and has done what is wanted."""
    process = netns.start(*FIXER, "run", f"--queue={QUEUE}", *more)
    try:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert first["event"]["action"] == "started"
        netns.call(wait_for_report)
        yield process
    finally:
        net.stop(process)


def wait_for_report() -> None:
    """The guard's first work is done before the second report."""
    path = report.path_of(Host(), QUEUE)
    seen: set[Any] = set()

    def is_second() -> bool:
        if found := report.read(path):
            seen.add(found.updated)
        return len(seen) >= 2

    wait_for(is_second)


def is_on(netns: Namespace) -> list[bool]:
    return [any("-j FIXER" in line for line in netns.saved(command)) for command in ("iptables", "ip6tables")]


@pytest.mark.root
def test_a_daemon_that_starts_obeys_what_was_said_last(netns: Namespace) -> None:
    assert say(netns, "on", f"--queue={QUEUE}", "--interface", "eth0", "--reason", "INC-1").returncode == 3
    netns.run("iptables", "-t", "raw", "-F")
    netns.run("ip6tables", "-t", "raw", "-F")
    with daemon(netns):
        assert is_on(netns) == [True, True]
        assert any("-i eth0" in line for line in netns.saved())
        found = netns.call(wanted.read, Host())
        assert found is not None
        assert (found.on, found.reason, found.selection.interface) == (True, "INC-1", "eth0")
        assert say(netns, "on", f"--queue={QUEUE}").returncode == 0, "it listens now"
    assert say(netns, "off").returncode == 0
    with daemon(netns):
        assert is_on(netns) == [False, False]


@pytest.mark.root
def test_without_a_word_it_leaves_the_rules_alone_unless_it_is_to_put_them_in_place_at_boot(
    netns: Namespace, tmp_path: Path
) -> None:
    with daemon(netns):
        assert is_on(netns) == [False, False]
    config = tmp_path / "f.toml"
    config.write_text("[rule]\nat_boot = true\n")
    with daemon(netns, "--config", str(config)):
        assert is_on(netns) == [True, True]
    assert say(netns, "off").returncode == 0
    with daemon(netns, "--config", str(config)):
        assert is_on(netns) == [False, False], "somebody has said off since"


@pytest.mark.root
def test_what_is_wanted_of_another_queue_is_another_daemons(netns: Namespace) -> None:
    say(netns, "on", "--queue=8")
    netns.run("iptables", "-t", "raw", "-F")
    with daemon(netns):
        assert is_on(netns)[0] is False


@pytest.mark.parametrize(("backend", "seconds"), [("iptables-legacy", 1.0), ("iptables-nft", 10.0)])
def test_who_may_not_read_which_tables_there_are_looks_after_its_own_rules(
    monkeypatch: pytest.MonkeyPatch, backend: str, seconds: float
) -> None:
    """The service is nobody, and of iptables-legacy there are no events."""

    def refused(_: Host) -> tuple[bytes | None, ...]:
        raise NotPermitted("ip_tables_names is root's")

    written = {"ipv4": Written(backend, ("-A PREROUTING -j FIXER",), msgspec.Raw(b"{}"))}
    monkeypatch.setattr(xtables, "digests", refused)
    monkeypatch.setattr(switch, "remembered", lambda _: Baseline(written=written))
    guard = Guard(Settings(), Host(), lambda _: None, keeps=True)
    guard._looked = 100.0
    now = Now.read()
    assert not guard._is_due(now._replace(steady=100.0 + seconds - 0.01), [])
    assert guard._is_due(now._replace(steady=100.0 + seconds), [])


@pytest.mark.root
def test_a_word_that_is_not_understood_is_obeyed_by_nobody_and_said(netns: Namespace) -> None:
    say(netns, "on", f"--queue={QUEUE}")
    netns.run("iptables", "-t", "raw", "-F")
    path = netns.call(intent.path_of, Host())
    path.write_text(path.read_text().replace('"queue":9', '"queue":-9'))
    with daemon(netns) as process:
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        assert line["event"]["action"] == "degraded"
        assert "is not what this version of fixer writes" in line["message"]
        assert is_on(netns)[0] is False


# The guard


RAW = "iptables -t raw"
LOSSES = {
    "flush of the ruleset": ("nft flush ruleset", "gone", "nft"),
    "flush of raw": (f"{RAW} -F", "gone", "iptables"),
    "a restore without ours": ("printf '*raw\\nCOMMIT\\n' | iptables-restore", "gone", "iptables-restor"),
    "ours deleted": (f"{RAW} -D PREROUTING -j FIXER", "gone", "iptables"),
    "chain emptied": (f"{RAW} -F FIXER", "gone", "iptables"),
    "a rule of ours changed": (f"{RAW} -R FIXER 1 -p udp -j NFQUEUE --queue-num 9", "changed", "iptables"),
    "a rule appended behind ours": (f"{RAW} -A PREROUTING -p udp --dport 1 -j DROP", "not last", "iptables"),
    "a second jump": (f"{RAW} -I PREROUTING -j FIXER", "twice", "iptables"),
    "ip6tables alone": ("ip6tables -t raw -F", "gone", "ip6tables"),
    "a leftover of the other variant": (
        "iptables-legacy -t raw -N FIXER; iptables-legacy -t raw -A PREROUTING -j FIXER",
        "leftover",
        None,
    ),
    "another queue": (f"{RAW} -R FIXER 1 -p udp -j NFQUEUE --queue-num 11 --queue-bypass", "changed", "iptables"),
    "a chain of ours removed": (f"{RAW} -F; {RAW} -X", "gone", "iptables"),
}


class Log:
    """What a daemon says, as it says it. How soon it acts is measured by `make guard`, on a machine that is its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.events: list[dict[str, Any]] = []
        self._process = process
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.events.append(json.loads(line))

    def wait_for(self, action: str, count: int = 1, seconds: float = 60.0) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while True:
            found = [event for event in self.events if event["event"]["action"] == action]
            if len(found) >= count:
                return found[count - 1]
            assert time.monotonic() < deadline, (action, self.events)
            time.sleep(0.02)

    def has(self, action: str) -> bool:
        return any(event["event"]["action"] == action for event in self.events)


@pytest.mark.root
@pytest.mark.parametrize("name", LOSSES)
def test_each_way_of_losing_the_rule_is_seen_and_put_right(netns: Namespace, name: str) -> None:
    command, kind, process = LOSSES[name]
    with daemon(netns) as running:
        log = Log(running)
        assert say(netns, "on", f"--queue={QUEUE}").returncode == 0
        log.wait_for("rule-on")
        netns.run(*f"{RAW} -I PREROUTING -p udp --dport 53 -j ACCEPT".split())
        wanted_rules = [line.partition("] ")[2] for line in netns.saved()]
        if "legacy" in command and netns.host.run(["unshare", "-n", "iptables-legacy", "-t", "raw", "-L"]).status:
            pytest.skip("needs iptables-legacy in the kernel")
        netns.run("sh", "-c", command)
        # Less than the ten seconds of a guard that hears of nothing; two are held by `make guard`.
        lost = log.wait_for("rule-lost", seconds=8)
        assert lost["fixer"]["rule"]["lost"][0] == kind
        if process:
            assert lost["process"]["name"] == process
            assert f"after {process} (pid " in lost["message"]
        log.wait_for("rule-put-back")
        assert is_on(netns) == [True, True]
        assert netns.saved()[-2].partition("] ")[2].startswith("-A FIXER")
        ours = {line for line in wanted_rules if "FIXER" in line}
        assert ours <= {line.partition("] ")[2] for line in netns.saved()}
        assert say(netns, "off").returncode == 0
        log.wait_for("rule-off")
        assert is_on(netns) == [False, False], "what is not wanted is not put back"


@pytest.mark.root
def test_what_others_do_beside_the_rule_is_no_loss(netns: Namespace) -> None:
    with daemon(netns) as running:
        log = Log(running)
        say(netns, "on", f"--queue={QUEUE}")
        log.wait_for("rule-on")
        for command in (
            f"{RAW} -I PREROUTING -p udp --dport 53 -j ACCEPT",
            f"{RAW} -A OUTPUT -j RETURN",
            f"{RAW} -Z",
            "iptables -t mangle -F",
            "nft add table inet theirs",
            "ip link add eth0 type veth peer name eth1",
        ):
            netns.run(*command.split())
        say(netns, "on", f"--queue={QUEUE}", "--interface", "eth0")
        log.wait_for("rule-on", count=2)
        time.sleep(1.5)
        assert not log.has("rule-lost")


@pytest.mark.root
def test_somebody_as_stubborn_wins_after_five_times_and_that_is_said(netns: Namespace) -> None:
    with daemon(netns) as running:
        log = Log(running)
        say(netns, "on", f"--queue={QUEUE}")
        log.wait_for("rule-on")
        for count in range(1, 6):
            netns.run(*f"{RAW} -F".split())
            log.wait_for("rule-put-back", count=count)
        netns.run(*f"{RAW} -F".split())
        assert "put back 5 times in a minute, and not once more" in log.wait_for("guard-stopped")["message"]
        time.sleep(1.5)
        assert is_on(netns) == [False, True]
        say(netns, "on", f"--queue={QUEUE}")
        assert is_on(netns) == [True, True]
        time.sleep(1.5)
        netns.run(*f"{RAW} -F".split())
        log.wait_for("rule-put-back", count=6)


@pytest.mark.root
def test_an_interface_that_is_not_there_any_more_is_said_once(netns: Namespace) -> None:
    netns.configure("link add eth0 type veth peer name eth1")
    with daemon(netns) as running:
        log = Log(running)
        say(netns, "on", f"--queue={QUEUE}", "--interface", "eth0")
        log.wait_for("rule-on")
        netns.configure("link set eth1 name eth2")
        time.sleep(1.5)
        assert not log.has("rule-lost"), "another one's name is nothing to us"
        for name in ("eth9", "eth0", "eth8"):
            netns.configure(f"link set {'eth9' if name == 'eth0' else 'eth0'} name {name}")
            time.sleep(2.5)
        log.wait_for("rule-lost", count=2)
        lost = [event for event in log.events if event["event"]["action"] == "rule-lost"]
        assert len(lost) == 2
        assert lost[0]["fixer"]["rule"]["lost"] == ["no interface"]
        assert not log.has("rule-put-back")


@pytest.mark.root
def test_without_the_guard_a_rule_that_is_gone_stays_so(netns: Namespace) -> None:
    with daemon(netns, "--no-guard") as running:
        log = Log(running)
        say(netns, "on", f"--queue={QUEUE}")
        log.wait_for("rule-on")
        netns.run(*f"{RAW} -F".split())
        time.sleep(2.0)
        assert is_on(netns) == [False, True]
        assert not log.has("rule-lost")


@contextmanager
def daemon_of_nobody(netns: Namespace) -> Iterator[Log]:
    """As the service runs it: another user, with CAP_NET_ADMIN alone."""
    nobody = ("--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all,+net_admin")
    caps = ("--inh-caps=-all,+net_admin", "--ambient-caps=-all,+net_admin")
    place = Path("/run/fixer")
    owner = place.stat().st_uid
    os.chown(place, 65534, -1)  # the service's directory is its user's
    try:
        process = netns.start("setpriv", *nobody, *caps, *FIXER, "run", f"--queue={QUEUE}")
        try:
            log = Log(process)
            log.wait_for("started")
            netns.call(wait_for_report)
            yield log
        finally:
            net.stop(process)
    finally:
        os.chown(place, owner, -1)


@pytest.mark.root
def test_a_daemon_that_is_nobody_guards_too(netns: Namespace) -> None:
    if "nf_tables" not in netns.run("iptables", "--version").out:
        pytest.skip("needs an iptables that is nft: the other one needs root")
    with daemon_of_nobody(netns) as log:
        assert say(netns, "on", f"--queue={QUEUE}").returncode == 0
        log.wait_for("rule-on")
        netns.run(*f"{RAW} -F".split())
        log.wait_for("rule-put-back")
        assert is_on(netns) == [True, True]


@pytest.mark.root
def test_what_nobody_cannot_see_he_does_not_say_to_be_missing(netns: Namespace, variant: str) -> None:
    """iptables-legacy needs root even to look."""
    assert say(netns, "on", f"--queue={QUEUE}", "--variant", variant).returncode == 3
    with daemon_of_nobody(netns) as log:
        if variant == "legacy":
            assert "cannot be guarded" in log.wait_for("guard-failed")["message"]
        assert not any("not in place" in event["message"] for event in log.events), log.events


# Until when


@pytest.mark.root
def test_a_rule_ends_in_the_kernel_though_everybody_is_dead(netns: Namespace, variant: str) -> None:
    with daemon(netns) as running:
        assert say(netns, "on", f"--queue={QUEUE}", "--for", "5s", "--variant", variant).returncode == 0
        ends = time.time() + 5
        running.kill()
        running.wait()

    def matched() -> int:
        return sum(int(line[1:].split(":")[0]) for line in saved(netns, variant) if "NFQUEUE" in line)

    netns.send(3)
    assert matched() == 3
    time.sleep(max(ends + 1 - time.time(), 0))
    netns.send(5)
    assert matched() == 3, "not one packet more"


def saved(netns: Namespace, variant: str) -> list[str]:
    return netns.run(f"iptables-{variant}-save", "-c", "-t", "raw").out.splitlines()


@pytest.mark.root
def test_who_lives_then_removes_it_and_a_prolonged_one_stays(netns: Namespace) -> None:
    with daemon(netns) as running:
        log = Log(running)
        say(netns, "on", f"--queue={QUEUE}", "--for", "9s", "--reason", "INC-1")
        first = log.wait_for("rule-on")
        assert first["event"]["reason"] == "INC-1"
        assert say(netns, "on", f"--queue={QUEUE}", "--for", "12s").returncode == 0
        log.wait_for("rule-prolonged")
        assert log.events[-1]["event"]["reason"] == "INC-1", "why is as it was, unless somebody says something else"
        ended = log.wait_for("rule-ended")
        assert ended["fixer"]["rule"]["seconds"] >= 12, "not at the first end"
        assert is_on(netns) == [False, False]
        assert not log.has("rule-lost")
