"""``fixer cure`` with the real udevd, NetworkManager and ifupdown: they boot, over this machine's own root."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.container import boot, overlaid

pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.timeout(400)]
DEBS = Path(os.environ.get("DEBS", "build/cure"))
NEEDED = ("udev", "ifupdown", "network-manager")


def test_it_is_kept_by_who_is_in_charge_and_undone(tmp_path: Path) -> None:
    missing = [name for name in NEEDED if not list(DEBS.glob(f"{name}_*.deb"))]
    if missing:
        pytest.skip(f"needs Debian's {', '.join(missing)} in {DEBS}: make cure")
    with overlaid(Path("/"), tmp_path) as root:
        for deb in sorted(DEBS.glob("*.deb")):
            # Into /usr/lib where /lib leads there; dpkg-deb -x would put a directory in the link's place.
            files = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], check=True, capture_output=True).stdout
            subprocess.run(["tar", "-x", "--keep-directory-symlink", "-C", root], input=files, check=True)
        # Nothing of this machine is to start in there.
        for name in ("fixer.service", "NetworkManager.service", "networking.service", "ssh.service"):
            (root / "etc/systemd/system" / name).unlink(missing_ok=True)
        (root / "root/run").write_text(f"#!/bin/sh\nexec /root/node {sys.executable} -m fixer\n")
        (root / "root/run").chmod(0o755)
        status, said = boot(root, {"node": Path(__file__).with_name("node")}, "run", 300)
    print(said)
    assert status == 0, said[-3000:]
    assert said.count("ok: ") == 13
