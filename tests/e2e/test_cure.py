"""What ``fixer cure`` turns off does cure a sender, on a real kernel; and costs what it says."""

from __future__ import annotations

import pytest

from fixer.cure import offloads
from fixer.cure.plan import Setting
from fixer.host.machine import Host
from fixer.lab import traffic
from fixer.lab.net import End, Lab, Layout, Pump

pytestmark = pytest.mark.root


def segments(end: End, device: str) -> str:
    said = end.run("ethtool", "-k", device).out
    return next(line.split(": ")[1] for line in said.splitlines() if line.strip().startswith("tx-tcp-segmentation"))


@pytest.mark.parametrize("device", ["eth0", "vxlan0"])
def test_a_sender_is_cured(machine: Host, device: str) -> None:
    with Lab(Layout(), Pump(), machine) as lab, traffic.serving(lab.right, b"x" * 3000):
        assert traffic.connect(lab.left, lab.right.overlay4, traffic.HTTP_PORT, seconds=0.5) == "timed out"
        for end in (lab.left, lab.right):
            (setting,) = end.call(offloads.chosen, machine, [device] if device != "eth0" else [], [])
            assert setting == Setting(device, ("tx-checksum-ip-generic",))
            assert end.run(*setting.command).status == 0
        assert traffic.connect(lab.left, lab.right.overlay4, traffic.HTTP_PORT) == "connected"
        assert traffic.download(lab.left, lab.right.overlay4).size == 3000


def test_what_it_costs(machine: Host) -> None:
    """Without checksums no TSO: on that device, and on no other."""
    with Lab(Layout(), Pump(), machine) as lab:
        lab.left.run("ethtool", "-K", "eth0", "tso", "on", "gso", "on")
        assert {segments(lab.left, device) for device in ("eth0", "vxlan0")} == {"on"}
        lab.left.run(*Setting("vxlan0", ("tx-checksum-ip-generic",)).command)
        assert (segments(lab.left, "eth0"), segments(lab.left, "vxlan0")[:3]) == ("on", "off")
        lab.left.run(*Setting("eth0", ("tx-checksum-ip-generic",)).command)
        assert segments(lab.left, "eth0").startswith("off")
