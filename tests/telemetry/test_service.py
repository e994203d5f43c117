"""The service under the real systemd, in its sandbox, with each drop-in of docs/elk.md and docs/prometheus.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.container import boot, overlaid
from support.made import ROOT, need, need_root

pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.timeout(300)]
PYTHON = "/usr/bin/python3"
"""The service may not look below /root and /home, where the tests' own may be."""


def test_every_recommended_drop_in_does_what_it_says(tmp_path: Path) -> None:
    need_root()
    need("systemd-nspawn")
    places = ":".join([str(ROOT), *(each for each in sys.path if each.endswith("site-packages"))])
    asked = [PYTHON, "-c", "import fixer.datapath.pipeline"]
    if subprocess.run(asked, env={"PYTHONPATH": places}, capture_output=True, check=False).returncode:
        pytest.skip(f"needs a {PYTHON} of the version that compiled fixer")
    with overlaid(Path("/"), tmp_path) as root:
        # Nothing of this machine is to start in there.
        for name in ("fixer.service", "NetworkManager.service", "networking.service", "ssh.service", "docker.service"):
            (root / "etc/systemd/system" / name).unlink(missing_ok=True)
        (root / "root/run").write_text(f"#!/bin/sh\nexec /root/service {ROOT} {places}\n")
        (root / "root/run").chmod(0o755)
        status, said = boot(root, {"service": Path(__file__).with_name("service")}, "run", 240)
    print(said)
    assert status == 0, said[-3000:]
    assert said.count("ok: ") == 12
