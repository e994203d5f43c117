"""A status of 0 that would be a lie: each way, with the case that looks the same and is none; real rules, real VXLAN.

A row breaks one promise of a site where all is well. What comes first of the reasons names it, and what it says to type
is what mends it.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from netfilterqueue import NetfilterQueue
from support.commands import FIXER, started, wait_for
from support.netns import Namespace

from fixer.host import queues
from fixer.host.machine import Host
from fixer.lab import bpf, net
from fixer.state import leftovers, report

QUEUE = 7
ON = (f"--queue={QUEUE}",)


class Site:
    """Two hosts with VXLAN between them, sound as it is; `here` has rule and daemon."""

    def __init__(self, here: Namespace, there: Namespace) -> None:
        self.here, self.there = here, there
        here.configure(
            f"link add eth0 type veth peer name eth0 netns {there.name}", "link add eth1 type veth peer name eth1p"
        )
        for number, end in enumerate((here, there), 1):
            other = 3 - number
            end.configure(
                f"address add 192.0.2.{number}/24 dev eth0",
                f"address add 2001:db8::{number}/64 dev eth0 nodad",
                "link set eth0 up",
                f"link add vxlan0 type vxlan id 7 local 192.0.2.{number} remote 192.0.2.{other} dstport 4789 dev eth0",
                f"address add 10.9.0.{number}/24 dev vxlan0",
                "link set vxlan0 up",
            )

    def fixer(self, verb: str, *more: str) -> subprocess.CompletedProcess[str]:
        return started(verb, "--netns", self.here.name, *more, timeout=60)

    def on(self, *more: str) -> None:
        done = self.fixer("on", *ON, *more)
        assert done.returncode == 0, (done.stdout, done.stderr)

    def reasons(self) -> list[str]:
        done = self.fixer("status", "--json", f"--queue={QUEUE}", *self.config)
        said = json.loads(done.stdout)
        bad = [each for each in said["reasons"] if each["severity"] != "note"]
        assert done.returncode == (3 if bad else 0), (done.stdout, done.stderr)
        return said["notes"][: len(bad)]

    config: tuple[str, ...] = ()

    @contextmanager
    def daemon(self, *more: str) -> Iterator[subprocess.Popen[str]]:
        process = self.here.start(*FIXER, "run", f"--queue={QUEUE}", "--no-guard", *more)
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["event"]["action"] == "started"
            wait_for(lambda: self.here.call(report.every, Host()))
            yield process
        finally:
            net.stop(process)

    @contextmanager
    def traffic(self) -> Iterator[None]:
        """Packets from there through the tunnel, ten a second."""
        ping = self.there.start("ping", "-i", "0.1", "10.9.0.1", stdout=subprocess.DEVNULL)
        try:
            time.sleep(0.5)
            yield
        finally:
            net.stop(ping)


@pytest.fixture
def site() -> Iterator[Site]:
    name = net.own_name()
    with Namespace(f"{name}-here", Host()) as here, Namespace(f"{name}-there", Host()) as there:
        yield Site(here, there)
        here.call(leftovers.forget, Host())
        there.call(leftovers.forget, Host())


@dataclass(frozen=True)
class Row:
    """``lie``: what breaks a promise, and ``first``, what the first line begins with; ``twin``: what breaks none."""

    first: str
    lie: str
    twin: str
    on: tuple[str, ...] = ()


RAW = "iptables -t raw"
ITSELF = shlex.join(FIXER)
ROWS = {
    "flushed": Row("IPv4: the rule is gone", f"{RAW} -F; {RAW} -X", "iptables -t mangle -F"),
    "ipv6 alone": Row(
        "IPv6: the rule is gone", "ip6tables -t raw -F; ip6tables -t raw -X", "ip6tables -t raw -N other"
    ),
    "jump deleted": Row("IPv4: the rule is gone", f"{RAW} -D PREROUTING -j FIXER", f"{RAW} -N FIXERS"),
    "emptied": Row("IPv4: the rule is gone", f"{RAW} -F FIXER", f"{RAW} -N X; {RAW} -F X"),
    "changed": Row(
        "packets came out of vxlan0 in 2 s, and none met the rule: it is not as fixer on wrote it",
        f"{RAW} -R FIXER 1 -p udp --dport 9 -j NFQUEUE --queue-num 7 --queue-bypass",
        f"{RAW} -Z FIXER",
    ),
    "not last": Row(
        "IPv4: our jump is not last",
        f"{RAW} -A PREROUTING -j MARK --set-mark 1",
        f"{RAW} -I PREROUTING -j MARK --set-mark 1",
    ),
    "twice": Row("IPv4: more than one jump", f"{RAW} -I PREROUTING -j FIXER", f"{RAW} -A OUTPUT -j RETURN"),
    "renamed": Row(
        "the rule is for what arrives on eth0, and there is no such interface",
        "ip link set eth0 down; ip link set eth0 name eth9; ip link set eth9 up",
        "ip link set eth1 name eth8",
        on=("--interface", "eth0"),
    ),
    "another port": Row(
        "vxlan9 receives VXLAN on port 4790, which the rule does not take",
        "ip link add vxlan9 type vxlan id 9 dstport 4790 dev eth0; ip link set vxlan9 up",
        "ip link add vxlan9 type vxlan id 9 dstport 8472 dev eth0; ip link set vxlan9 up; "
        "ip link add vxlan8 type vxlan id 8 dstport 4790 dev eth0",  # which is down
    ),
    "accepted before": Row(
        "packets came out of vxlan0 in 2 s, and none met the rule: a rule before ours ends the walk",
        f"{RAW} -I PREROUTING -p udp --dport 4789 -j ACCEPT",
        f"{RAW} -I PREROUTING -p udp --dport 53 -j ACCEPT",
    ),
    "another interface": Row(
        "packets came out of vxlan0 in 2 s, and none met the rule: they do not arrive on eth1",
        "true",
        f"{ITSELF} on --queue=7 --interface eth+",
        on=("--interface", "eth1"),
    ),
    "off, and put back": Row(
        "the rule is there, and root",
        f"iptables-save -t raw > /tmp/fx-lie-$$; {ITSELF} off; iptables-restore /tmp/fx-lie-$$; rm /tmp/fx-lie-$$",
        "iptables-save -t raw > /tmp/fx-lie-$$; iptables-restore /tmp/fx-lie-$$; rm /tmp/fx-lie-$$",
    ),
}


@pytest.mark.root
@pytest.mark.parametrize("name", ROWS)
def test_a_promise_that_is_broken_is_said_first(site: Site, name: str) -> None:
    row = ROWS[name]
    with site.daemon(), site.traffic():
        if name != "another interface":
            site.on(*row.on)
            assert site.reasons() == [], "all is well"
            site.here.run("sh", "-c", row.twin)
            assert site.reasons() == [], "it looks the same, and is none"
            if "ip link" in row.twin:
                site.here.run("sh", "-c", "ip link del vxlan9; ip link del vxlan8; true")
        else:
            site.here.run("sh", "-c", row.twin)
            assert site.reasons() == []
            site.on(*row.on)
        site.here.run("sh", "-c", row.lie)
        found = site.reasons()
        assert found, "it said that all is well"
        assert row.first in found[0], found


@pytest.mark.root
@pytest.mark.parametrize(
    ("point", "eaten", "first"),
    [
        (bpf.BPF_TCX_INGRESS, 4789, "VXLAN packets arrived in 2 s, none came out of vxlan0, and none met the rule"),
        (bpf.BPF_TCX_INGRESS, 4790, None),
        (bpf.BPF_XDP, 4789, None),  # what that takes, nobody can count
    ],
)
def test_vxlan_that_an_ebpf_program_takes_before_us(site: Site, point: int, eaten: int, first: str | None) -> None:
    if lacking := bpf.missing(Host()):
        pytest.skip(lacking)
    program = (bpf.eat_at_xdp if point == bpf.BPF_XDP else bpf.eat)(eaten)
    with site.daemon(), site.traffic():
        site.on()
        assert site.reasons() == []
        with bpf.attached(site.here, "eth0", point, program):
            found = site.reasons()
            if first:
                assert first in found[0]
                assert "an eBPF program (TCX lab) on eth0 sees them first. See: bpftool net show" in found[0]
            else:
                assert found == []
            said = json.loads(site.fixer("status", "--json", f"--queue={QUEUE}").stdout)
            assert any("(XDP) on eth0 takes, nobody sees" in note for note in said["notes"]) is (point == bpf.BPF_XDP)
        assert site.reasons() == []


@pytest.mark.root
def test_ipv6_without_a_rule_is_no_fault_where_no_source_is_of_it(site: Site) -> None:
    with site.daemon():
        site.on("--source", "192.0.2.0/24")
        assert site.reasons() == []


@pytest.mark.root
def test_ipv6_that_carries_vxlan_needs_its_rule_more_than_one_that_does_not(site: Site) -> None:
    def gone() -> str:
        site.here.run("ip6tables", "-t", "raw", "-F")
        done = site.fixer("status", "--json", f"--queue={QUEUE}")
        return next(str(each["severity"]) for each in json.loads(done.stdout)["reasons"] if "gone" in each["what"])

    with site.daemon():
        site.on()
        assert gone() == "warning"
        site.here.configure(
            "link add vxlan6 type vxlan id 6 local 2001:db8::1 remote 2001:db8::2 dstport 4789 dev eth0"
        )
        site.here.configure("link set vxlan6 up")
        site.on()
        assert site.reasons() == []
        assert gone() == "down"


@pytest.mark.root
def test_a_queue_that_another_program_took_is_fed_all_vxlan(site: Site) -> None:
    with site.daemon():
        site.on()
        assert site.reasons() == []

    def bound() -> NetfilterQueue:
        queue = NetfilterQueue()
        queue.bind(QUEUE, lambda packet: packet.accept())
        return queue

    queue = site.here.call(bound)
    try:
        first, *_ = site.reasons()
        assert first.startswith(f"queue {QUEUE} is held by ")
        assert "no fixer" in first
    finally:
        queue.unbind()
    assert site.reasons()[0].startswith(f"nobody listens on queue {QUEUE}")
    with site.daemon():
        assert site.reasons() == []


@pytest.mark.root
@pytest.mark.parametrize(
    ("settings", "first"),
    [
        ("[vxlan]\nports = [4789]\n", "the rule takes port 6784, 8472, which the daemon does not read as VXLAN"),
        ("[vxlan]\nports = [4789, 8472, 6784, 4790]\n", None),
    ],
)
def test_rule_and_daemon_on_different_ports(site: Site, tmp_path: Path, settings: str, first: str | None) -> None:
    config = tmp_path / "f.toml"
    config.write_text(settings)
    with site.daemon("--config", str(config)):
        site.on()
        found = site.reasons()
        assert [line.partition(". Next")[0] for line in found] == ([first] if first else [])


@pytest.mark.root
@pytest.mark.parametrize("configured", [False, True])
def test_monitor_mode_repairs_nothing_and_is_well_only_if_the_configuration_asks_for_it(
    site: Site, tmp_path: Path, configured: bool
) -> None:
    config = tmp_path / "f.toml"
    config.write_text(f"monitor = {str(configured).lower()}\n")
    site.config = ("--config", str(config))
    with site.daemon("--monitor"):
        site.on()
        assert [line.partition(",")[0] for line in site.reasons()] == ([] if configured else ["monitor mode"])


@pytest.mark.root
def test_a_rule_in_the_wrong_namespace(site: Site) -> None:
    """A container without VXLAN, beside one where it ends."""
    with Namespace(f"{net.own_name()}-empty", Host()) as empty:
        wrong = Site.__new__(Site)
        wrong.here, wrong.there = empty, site.there
        with wrong.daemon():
            wrong.on()
            assert wrong.reasons() == [], "another's VXLAN, into which no interface of ours leads"
            empty.configure(f"link add eth0 type veth peer name eth7 netns {site.here.name}")
            first, *_ = wrong.reasons()
            assert first.startswith("VXLAN (port 4789, 6784, 8472) ends in another network namespace than the rule's")
            assert "fixer on --netns " in first
            with empty.receiving():
                assert wrong.reasons() == []
        empty.call(leftovers.forget, Host())


@pytest.mark.root
def test_a_daemon_that_is_too_slow_lost_sight_of_packets(site: Site, tmp_path: Path) -> None:
    import signal

    config = tmp_path / "f.toml"
    config.write_text("[queue]\nlength = 100\n")
    with site.daemon("--config", str(config)) as process:
        site.on()
        site.here.send(50)
        assert site.reasons() == [], "as many packets, at a pace that it keeps up with"
        process.send_signal(signal.SIGSTOP)
        try:
            wait_for(lambda: site.here.call(stopped, process.pid))
            site.here.send(150)
        finally:
            process.send_signal(signal.SIGCONT)
        wait_for(lambda: site.here.call(queues.bound, Host())[QUEUE].waiting == 0)
        said = site.reasons()[0]
        assert 45 <= int(said.split()[0]) <= 50, said  # what came between the counters' two readings counts as given
        assert "packets passed unseen" in said


def stopped(pid: int) -> bool:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return all("State:\tT" in (task / "status").read_text() for task in tasks)
