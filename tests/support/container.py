"""A system that boots: systemd-nspawn on an overlay over a bare root, with a network of its own, gone afterwards."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.made import run

UNIT = """[Unit]
After=multi-user.target systemd-tmpfiles-setup.service
[Service]
Type=oneshot
Environment=HOME=/root
ExecStart=/bin/sh -c '/root/{command} >/root/said 2>&1; echo $? >/root/status; systemctl --no-block poweroff'
[Install]
WantedBy=default.target
"""


@contextmanager
def overlaid(bare: Path, room: Path) -> Iterator[Path]:
    """A root that can be written to, while ``bare`` stays as it is. Its upper half is a tmpfs: overlays want xattrs."""
    layers, root = room / "layers", room / "root"
    layers.mkdir()
    root.mkdir()
    run("mount", "-t", "tmpfs", "fixer-test", layers)
    try:
        (layers / "upper").mkdir()
        (layers / "work").mkdir()
        options = f"lowerdir={bare},upperdir={layers}/upper,workdir={layers}/work"
        run("mount", "-t", "overlay", "-o", options, "fixer-test", root)
        try:
            yield root
        finally:
            run("umount", root)
    finally:
        run("umount", layers)


def boot(root: Path, files: dict[str, Path], command: str, seconds: int) -> tuple[int, str]:
    """Boot ``root`` with ``files`` (by name) in its /root, run ``/root/command`` there; its status and what it said."""
    for name, source in files.items():
        shutil.copy(source, root / "root" / name)
    unit = root / "etc/systemd/system/fixer-test.service"
    unit.write_text(UNIT.format(command=command))
    wants = root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / unit.name).symlink_to(f"/etc/systemd/system/{unit.name}")
    options = ["--register=no", "--keep-unit", "--private-network", "--capability=all", "--boot"]
    options += ["--system-call-filter=bpf"]  # the kernel scope: nspawn forbids it else
    try:
        said = subprocess.run(
            ["systemd-nspawn", "-q", "-D", root, *options],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        ).stdout
    except subprocess.TimeoutExpired as error:
        said = f"it did not power off in {seconds} s: {error.stdout!r:.2000}"
    status, told = root / "root/status", root / "root/said"
    story = told.read_text(errors="replace") if told.exists() else f"the test's unit did not start:\n{said[-3000:]}"
    return (int(status.read_text()) if status.exists() else -1), story
