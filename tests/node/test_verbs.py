"""``fixer on``, ``off`` and ``status`` as they are typed, in a real namespace."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from netns import Namespace

FIXER = [sys.executable, "-m", "fixer"]


def started(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*FIXER, *arguments], capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.root
def test_on_status_off_in_a_namespace(netns: Namespace) -> None:
    on = started("on", "--netns", netns.name, "--queue", "9")
    assert (on.returncode, on.stderr) == (0, "")
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
def test_plain_with_a_source_covers_only_its_family(netns: Namespace) -> None:
    done = started("on", "--plain", "--netns", netns.name, "--interface", "eth0", "--source", "10.1.0.5")
    assert done.returncode == 0, done.stderr
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
