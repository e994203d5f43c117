"""What the kernel cannot end, a timer of systemd's does: in a system that boots, over this machine's own root."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from support.container import boot, overlaid

pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.timeout(300)]


def test_the_rule_ends_though_no_daemon_lives(tmp_path: Path) -> None:
    if shutil.which("systemd-nspawn") is None:
        pytest.skip("needs systemd-nspawn (systemd-container)")
    with overlaid(Path("/"), tmp_path) as root:
        # Nothing of this machine is to start in there.
        for wants in (root / "etc/systemd/system").glob("*.wants"):
            shutil.rmtree(wants)
        (root / "root/run").write_text(f"#!/bin/sh\nexec /root/ended {sys.executable} -m fixer\n")
        (root / "root/run").chmod(0o755)
        status, said = boot(root, {"ended": Path(__file__).with_name("ended")}, "run", 200)
    print(said)
    assert status == 0, said[-3000:]
    assert "ok: it was removed at " in said
