"""The service's unit: what it may do, and that systemd understands it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from support.made import ROOT, need, run

UNIT = ROOT / "systemd" / "fixer.service"


def exposure(unit: Path) -> float:
    said = run("systemd-analyze", "security", "--offline=true", "--no-pager", unit)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found, said
    return float(found[1])


def test_the_exposure_is_no_more_than_1_5_and_would_be_seen_to_grow(tmp_path: Path) -> None:
    need("systemd-analyze")
    assert exposure(UNIT) <= 1.5
    weaker = tmp_path / UNIT.name
    weaker.write_text(UNIT.read_text().replace("DynamicUser=yes\n", ""))
    assert exposure(weaker) > 1.5


def test_systemd_knows_every_line_of_every_unit(tmp_path: Path) -> None:
    need("systemd-analyze")
    for unit in (UNIT, ROOT / "systemd/fixer-off.service", ROOT / "systemd/plain/fixer.service"):
        # What is started is not here, and neither is the manual.
        text = unit.read_text().replace("/opt/fixer/bin/fixer", "/bin/true")
        copy = tmp_path / unit.name
        copy.write_text(re.sub("^Documentation=.*\n", "", text, flags=re.MULTILINE))
        (tmp_path / "fixer-off.service").write_text("[Service]\nType=oneshot\nExecStart=/bin/true\n")
        done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
        # RestartMode is of systemd 254; an older one says so and goes on.
        said = [line for line in done.stderr.splitlines() if "RestartMode" not in line and unit.name in line]
        assert said == []
