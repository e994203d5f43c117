"""A daemon whose packet threads have given up what they do not need repairs a path, and its guard puts a rule back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import wait_for

from fixer.host.machine import Host
from fixer.lab import traffic
from fixer.lab.net import Lab, Layout, Pump
from fixer.lab.pump import Fault, Finish
from fixer.lab.service import Service

from .conftest import Page

pytestmark = [pytest.mark.root, pytest.mark.kernels]

SETTINGS = "[queue]\ncount = 2\n"
CAP_NET_ADMIN = 1 << 12


def threads(process: int) -> list[dict[str, str]]:
    """The status of each thread."""
    return [
        {key: value.strip() for key, _, value in (line.partition(":") for line in each.read_text().splitlines())}
        for each in Path(f"/proc/{process}/task").glob("*/status")
    ]


def told(service: Service) -> list[str]:
    """What holds them, as ``fixer status`` has it, whose report is up to a second old."""
    found: list[str] = json.loads(service.ask("status", "--json").out)["daemon"]["confined"]
    return found


def test_a_path_is_repaired_by_threads_that_can_do_nothing_else(machine: Host, page: type[Page]) -> None:
    with (
        Lab(Layout(acquainted=True), Pump(Fault(Finish.OUTER)), machine) as lab,
        traffic.serving(lab.right, page.content),
        Service(lab.left),
        Service(lab.right, settings=SETTINGS) as service,
    ):
        if not Path("/proc/sys/kernel/seccomp").exists():
            pytest.skip("this kernel has no seccomp filters")
        assert traffic.download(lab.left, lab.right.overlay4).sha256 == page.sha256
        every = threads(service.process.pid)
        locked = [thread for thread in every if thread["Seccomp"] == "2"]
        assert len(locked) == 2 < len(every)
        assert {(int(thread["CapEff"], 16), thread["NoNewPrivs"]) for thread in locked} == {(CAP_NET_ADMIN, "1")}
        wait_for(lambda: {"capabilities", "seccomp"} == set(told(service)) - {"landlock"})
        lab.right.run("iptables", "-t", "raw", "-F", "PREROUTING")
        wait_for(lambda: "rule-put-back" in [event["event"]["action"] for event in service.events()])
        assert traffic.download(lab.left, lab.right.overlay4).sha256 == page.sha256
    assert service.counters["action"]["repair"] > 0
