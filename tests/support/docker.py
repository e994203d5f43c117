"""A Docker engine of our own in a host of the laboratory: its processes, files and cgroups end with the context."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from support.made import run

from fixer.lab.net import Namespace

START_SECONDS = 60.0
CGROUPS = Path("/sys/fs/cgroup")
# With a /run of its own it neither meets nor leaves anything of an engine that the machine has. cgroupfs, vfs and the
# limit are what works everywhere: without systemd, on an overlay, and where nobody may raise a limit.
START = """set -eu
mount -t tmpfs tmpfs /run
hostname "$1"
exec dockerd --host="unix://$2/docker.sock" --data-root="$2/data" --storage-driver=vfs \
    --exec-opt=native.cgroupdriver=cgroupfs --default-ulimit=nofile=20000:20000 --cgroup-parent="/$3"
"""


class Engine:
    """What a ``docker`` command on that host is asked, and answers."""

    def __init__(self, hostname: str, room: Path) -> None:
        self.hostname = hostname
        self.room = room

    def command(self, *words: str) -> list[str]:
        return ["docker", "--host", f"unix://{self.room}/docker.sock", *words]

    def __call__(self, *words: str, **options: object) -> str:
        """The output of a docker command; it must succeed."""
        return run(*self.command(*words), **options).strip()

    def tries(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*words), capture_output=True, text=True, check=False)

    def said(self) -> str:
        """The end of dockerd's own log."""
        return (self.room / "log").read_text(errors="replace")[-2000:]


@contextmanager
def engine(here: Namespace, hostname: str, room: Path) -> Iterator[Engine]:
    """dockerd in ``here``'s network while the context lasts; RuntimeError with its own words if it does not start.

    It is the first process of a PID namespace: whatever it has started ends with it.
    """
    room.mkdir()
    ours = Engine(hostname, room)
    # Not by `ip netns exec`, which would hide the cgroups.
    command = ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--net=/run/netns/{here.name}"]
    command += ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command += ["sh", "-c", START, "sh", hostname, str(room), here.name]
    with (room / "log").open("w") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        give_up = time.monotonic() + START_SECONDS
        while ours.tries("info").returncode != 0:
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(ours.said())
            time.sleep(0.2)
        yield ours
    finally:
        process.kill()  # unshare ignores SIGTERM; with it goes the namespace
        process.wait()
        for controller in CGROUPS.glob(f"*/{here.name}"):
            remove_cgroup(controller)
        shutil.rmtree(room, ignore_errors=True)


def remove_cgroup(group: Path) -> None:
    """Remove a cgroup and those below it; its processes are dead or dying."""
    for child in group.iterdir():
        if child.is_dir():
            remove_cgroup(child)
    for _ in range(50):
        with suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.1)
