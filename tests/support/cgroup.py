"""A control group of our own, of version 1 or 2, that bounds a process's memory or its share of the CPUs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

from fixer.lab.net import own_name

ROOT = Path("/sys/fs/cgroup")
PERIOD = 100_000  # microseconds


class Group:
    """Made and removed by ``group``."""

    def __init__(self, controller: Literal["memory", "cpu"]) -> None:
        self._old = (ROOT / controller).is_dir()
        self._parent = ROOT / controller if self._old else ROOT
        if not self._old and controller not in (ROOT / "cgroup.subtree_control").read_text().split():
            try:
                (ROOT / "cgroup.subtree_control").write_text(f"+{controller}")
            except OSError as error:
                pytest.skip(f"needs the cgroup controller {controller} of the kernel: {error.strerror}")
        self._path = self._parent / own_name()
        self._path.mkdir()

    def hold_memory(self, size: int) -> None:
        """Who needs more than ``size`` bytes in here is killed."""
        (self._path / ("memory.limit_in_bytes" if self._old else "memory.max")).write_text(str(size))

    def hold_cpu(self, share: float) -> None:
        """All in here together get this share of one CPU."""
        quota = f"{share * PERIOD:.0f}"
        if self._old:
            (self._path / "cpu.cfs_period_us").write_text(str(PERIOD))
            (self._path / "cpu.cfs_quota_us").write_text(quota)
        else:
            (self._path / "cpu.max").write_text(f"{quota} {PERIOD}")

    def take(self, pid: int) -> None:
        """The process with all its threads."""
        (self._path / "cgroup.procs").write_text(str(pid))

    @property
    def killed(self) -> int:
        """How many the kernel has killed here for want of memory."""
        lines = (self._path / ("memory.oom_control" if self._old else "memory.events")).read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))

    def remove(self) -> None:
        for pid in (self._path / "cgroup.procs").read_text().split():
            (self._parent / "cgroup.procs").write_text(pid)
        self._path.rmdir()


@contextmanager
def group(controller: Literal["memory", "cpu"]) -> Iterator[Group]:
    made = Group(controller)
    try:
        yield made
    finally:
        made.remove()
