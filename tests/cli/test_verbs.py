"""``fixer on``, ``off`` and ``status`` as they are typed, in a real namespace."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.commands import FIXER, started
from support.flowtable import set_normalised
from support.netns import Namespace

from fixer import cli
from fixer.host import machine
from fixer.host.machine import Completed, Host
from fixer.state import flowfile


@pytest.mark.root
def test_on_status_off_in_a_namespace(netns: Namespace) -> None:
    on = started("on", "--netns", netns.name, "--queue", "9")
    assert (on.returncode, on.stderr) == (3, ""), "on, and nobody listens"
    assert on.stdout.splitlines()[0].startswith("IPv4: on: UDP to port 4789, 8472, 6784 to queue 9;")
    assert on.stdout.splitlines()[-1].endswith(f"Next: fixer run --queue 9 --netns {netns.name}")
    assert sum("FIXER" in line for line in netns.saved()) == 3
    status = started("status", "--netns", netns.name, "--json")
    assert status.returncode == 3
    assert json.loads(status.stdout)["queues"] == [9]
    assert json.loads(status.stdout)["rules"]["ipv6"]["on"]
    off = started("off", "--netns", netns.name)
    assert (off.returncode, off.stderr) == (0, "")
    assert not any("FIXER" in line for line in netns.saved())


@pytest.mark.root
def test_looking_at_what_is_in_place_takes_few_processes(netns: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody looks again and again; and a machine in trouble is slow to start them."""
    ran: list[str] = []

    class Counting(Host):
        def run(self, argv: Sequence[str], input: str | None = None, seconds: float | None = 30) -> Completed:
            ran.append(argv[0])
            return super().run(argv, input, seconds)

    def processes(verb: str) -> list[str]:
        ran.clear()
        netns.call(CliRunner().invoke, cli.cli, [verb])
        return sorted(ran)

    monkeypatch.setattr(machine, "Host", Counting)
    netns.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
    netns.run("ip", "address", "add", "192.0.2.1/24", "dev", "eth0")
    netns.run("ip", "link", "set", "eth0", "up")
    processes("on")
    both = ["ip6tables-save", "iptables-save"]
    if not {"nft", "legacy"} & set("-".join(map(str, map(Host().resolved, ("iptables", "ip6tables")))).split("-")):
        both += ["ip6tables", "iptables"]  # asked for their variant, which their files' names do not tell
    if Host().which("nft"):
        both += ["env", "env"]
    assert processes("on") == sorted(both)
    with netns.receiving():  # or it would look for the namespace where VXLAN ends
        assert processes("status") == sorted([*both, "ip", "ethtool"])


@pytest.mark.root
def test_a_drain_in_a_namespace_is_interrupted_and_gone_on_with(netns: Namespace, tmp_path: Path) -> None:
    """With a real daemon and its flow table, in whose header the test says that a connection lives."""
    config = tmp_path / "f.toml"
    config.write_text('[timestamps]\nmode = "normalise"\nsources = ["192.0.2.1/32"]\n')
    inside = ["--netns", netns.name]
    on = started("on", *inside, "--config", str(config))
    assert (on.returncode, on.stderr) == (3, "")
    assert {line.partition("] ")[2] for line in netns.saved() if "-j FIXER" in line} == {
        "-A PREROUTING -j FIXER",
        "-A OUTPUT -j FIXER-OUTPUT",
    }
    table = flowfile.path_of(Host(), 0).with_name(f"{netns.call(Host().netns_inode)}-0.flows")
    daemon = subprocess.Popen([*FIXER, "run", *inside, "--config", str(config)], stdout=subprocess.PIPE, text=True)
    drain = None
    try:
        assert daemon.stdout is not None
        assert "serving queue 0, and queue 1" in daemon.stdout.readline()
        with netns.receiving():  # or it would look for the namespace where VXLAN ends
            assert started("status", *inside, "--config", str(config)).returncode == 0
        set_normalised(table, 1)
        refused = started("off", *inside)
        assert (refused.returncode, refused.stdout) == (4, "")
        drain = subprocess.Popen([*FIXER, "off", "--drain", *inside], stdout=subprocess.PIPE, text=True)
        assert drain.stdout is not None
        assert drain.stdout.readline() == "draining: 1 normalised connection left, new ones are left alone\n"
        drain.send_signal(signal.SIGINT)
        assert drain.stdout.readline().startswith("1 normalised connection left; the rules stay")
        assert drain.wait(10) == 130
        assert "draining: 1 normalised" in " ".join(started("status", *inside, "--config", str(config)).stdout.split())
        set_normalised(table, 0)
        done = started("off", "--drain", *inside)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[0] == "drained: no normalised connection is left"
        assert not any("FIXER" in line for line in netns.saved())
    finally:
        for process in filter(None, (drain, daemon)):
            process.kill()
            process.communicate()
        for leftover in table.parent.glob(f"{table.stem}.*"):
            leftover.unlink()


@pytest.mark.root
def test_plain_with_a_source_covers_only_its_family(netns: Namespace) -> None:
    done = started("on", "--plain", "--netns", netns.name, "--interface", "eth0", "--source", "10.1.0.5")
    assert done.returncode == 3, done.stderr
    ours = [line.partition("] ")[2] for line in netns.saved() if "-A FIXER" in line]
    assert ours == [
        f"-A FIXER -s 10.1.0.5/32 -i eth0 -p {kind} -j NFQUEUE --queue-num 0 --queue-bypass"
        for kind in ("tcp", "udp", "icmp")
    ]
    assert not any("FIXER" in line for line in netns.saved("ip6tables"))
    assert "IPv6: off: no IPv6 source is given" in done.stdout


@pytest.mark.root
@pytest.mark.parametrize("verb", ["on", "off", "status"])
def test_without_capabilities_it_says_so(netns: Namespace, verb: str) -> None:
    """As an ordinary user, for real; in a namespace, so that nothing else is touched if it were not refused."""
    if netns.host.which("setpriv") is None:
        pytest.skip("needs setpriv (util-linux)")
    before = netns.saved()
    command = ["ip", "netns", "exec", netns.name, "setpriv", "--bounding-set=-all", "--inh-caps=-all", *FIXER, verb]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (77, "")
    assert re.fullmatch(r"fixer: error: .*root \(CAP_NET_ADMIN\): sudo fixer \w+\n", done.stderr)
    assert netns.saved() == before
