"""The laboratory leaves nothing behind, however it ends; and the demo tells the truth, or says what it lacks."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from fixer.host.machine import Host
from fixer.lab import net, story, traffic
from fixer.lab.net import Lab, Layout, Pump
from fixer.lab.service import Service

from .conftest import Page

# A lab with everything that it can consist of, in a process of its own; it says so and waits to be ended.
STANDING = """
import signal, sys, time
from fixer.lab import traffic
from fixer.lab.net import Lab, Layout, Pump
from fixer.lab.service import Service
from fixer.host.machine import Host
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
with Lab(Layout(), Pump(), Host()) as lab, traffic.serving(lab.right, b"x"), Service(lab.right):
    print("standing", flush=True)
    time.sleep(60)
"""


def _namespaces(host: Host, pid: int) -> list[str]:
    return [
        line.split()[0] for line in host.run(["ip", "netns", "list"]).out.splitlines() if line.startswith(f"fx-{pid}-")
    ]


def _inside(host: Host, namespaces: list[str]) -> set[int]:
    """The processes in these namespaces."""
    return {int(pid) for name in namespaces for pid in host.run(["ip", "netns", "pids", name]).out.split()}


def _lasting(host: Host, namespaces: list[str]) -> set[int]:
    """Those of them that do not just run a command for a daemon."""
    first = _inside(host, namespaces)
    time.sleep(0.5)
    return first & _inside(host, namespaces)


def _eventually(true: Callable[[], bool], seconds: float = 5.0) -> bool:
    give_up = time.monotonic() + seconds
    while not true():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.root
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_nothing_is_left_however_it_ends(machine: Host, ending: signal.Signals) -> None:
    standing = subprocess.Popen(
        [sys.executable, "-c", STANDING], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with standing:
        assert standing.stdout is not None
        assert standing.stdout.readline() == "standing\n"
        built = _namespaces(machine, standing.pid)
        assert len(built) == 3
        running = _lasting(machine, built)
        assert len(running) == 3, "two directions of the pump and a fixer"
        standing.send_signal(ending)
    assert _eventually(lambda: not any(machine.exists(f"/proc/{pid}") for pid in running)), "what it started has ended"
    if ending is signal.SIGKILL:  # then the next lab cleans up, ours or another process's
        net.sweep(machine)
    assert _namespaces(machine, standing.pid) == []
    assert not list(Path(tempfile.gettempdir()).glob(f"fx-{standing.pid}-*"))


@pytest.mark.root
def test_sweep_leaves_the_living_alone(machine: Host) -> None:
    with Lab(Layout(), Pump(), machine):
        assert len(_namespaces(machine, os.getpid())) >= 3
        swept = net.sweep(machine)
        assert not any(name.startswith(f"fx-{os.getpid()}-") for name in swept)


@pytest.mark.root
def test_a_wire_that_cannot_start_leaves_nothing(machine: Host) -> None:
    before = _namespaces(machine, os.getpid())
    with pytest.raises(net.SystemRefused, match="wire did not start"), Lab(Layout(mtu=1500), _Broken(), machine):
        pass
    assert _namespaces(machine, os.getpid()) == before


class _Broken(Pump):
    """A wire whose legs are gone."""

    def join(self, namespace: net.Namespace, port: int):  # type: ignore[no-untyped-def]
        namespace.configure("link delete left")
        return super().join(namespace, port)


@pytest.mark.root
def test_monitor_tells_and_changes_nothing(machine: Host, page: type[Page]) -> None:
    with Lab(Layout(), Pump(), machine) as lab, traffic.serving(lab.right, page.content):
        with Service(lab.right, run=("--monitor",)) as right:
            assert traffic.connect(lab.left, lab.right.overlay4, traffic.HTTP_PORT) == "timed out"
            assert traffic.checksum_errors(lab.right)["TcpInCsumErrors"] > 0
        counted = right.counters
        assert counted["diagnosis"]["inner_unfinished"] == counted["would"]["repair"] > 0
        assert counted["action"]["repair"] == counted["action"]["drop"] == 0


@pytest.mark.root
def test_demo_shows_the_main_job(machine: Host) -> None:
    shown = machine.run([sys.executable, "-m", "fixer", "demo"], seconds=None)
    assert (shown.status, shown.err) == (0, "")
    for said in ("timed out", "inner checksum never finished", "sha256 as sent", "namespaces removed", "It works"):
        assert said in shown.out


class WithoutRoot(Host):
    """This machine as anybody sees it."""

    def geteuid(self) -> int:
        return 1000


class WithoutPing(Host):
    """This machine with iputils-ping not installed, and root."""

    def geteuid(self) -> int:
        return 0

    def which(self, program: str) -> str | None:
        return None if program == "ping" else f"/usr/bin/{program}"


@pytest.mark.parametrize(
    ("host", "said"), [(WithoutRoot(), "no root"), (WithoutPing(), "apt install iputils-ping")], ids=["root", "ping"]
)
def test_demo_falls_back_on_the_capture_and_says_why(host: Host, said: str) -> None:
    terminal = io.StringIO()
    assert story.tell(Console(file=terminal, width=120), host) == 0
    assert said in terminal.getvalue()
    assert "It works." in terminal.getvalue()


@pytest.mark.root
def test_missing_names_the_part(machine: Host) -> None:
    class WithoutVxlan(Host):
        """This machine with a kernel that knows no VXLAN."""

        def run(self, argv, input=None, **more):  # type: ignore[no-untyped-def]
            return super().run(argv, input=input and input.replace("type vxlan", "type vxlan-is-not-there"), **more)

    before = _namespaces(machine, os.getpid())
    assert "no VXLAN in this kernel" in (net.missing(WithoutVxlan()) or "")
    assert _namespaces(machine, os.getpid()) == before
