"""The service's unit: what it may do, and that systemd understands it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from support.made import ROOT, need, run

UNIT = ROOT / "systemd" / "fixer.service"
OFF = ROOT / "systemd" / "fixer-off.service"
PLAIN = ROOT / "systemd" / "plain" / "fixer.service"
KERNEL = ROOT / "systemd" / "kernel.conf"
RHEL_7 = 219
SINCE = {
    "Unit": {
        "Description": 0,
        "Documentation": 0,
        "After": 0,
        "Before": 0,
        "Wants": 0,
        "OnFailure": 0,
        "StartLimitInterval": 229,
        "StartLimitBurst": 229,
        "StartLimitIntervalSec": 230,
    },
    "Service": {
        "Type": 0,
        "ExecStart": 0,
        "ExecStartPost": 0,
        "ExecReload": 0,
        "ExecStop": 0,
        "ExecStopPost": 0,
        "TimeoutStopSec": 0,
        "Restart": 0,
        "RestartSec": 0,
        "LimitCORE": 0,
        "StartLimitInterval": 0,
        "StartLimitBurst": 0,
        "CapabilityBoundingSet": 0,
        "PrivateTmp": 0,
        "NoNewPrivileges": 187,
        "RestartPreventExitStatus": 189,
        "WatchdogSec": 207,
        "PrivateDevices": 209,
        "RestrictAddressFamilies": 211,
        "RuntimeDirectory": 211,
        "ProtectSystem": 214,
        "ProtectHome": 214,
        "AmbientCapabilities": 229,
        "DynamicUser": 232,
    },
    "Install": {"WantedBy": 0},
}
"""The version of systemd that knows a directive first, in each section, by its NEWS; 0: older than 187."""


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
    for unit in (UNIT, OFF, PLAIN):
        # What is started is not here, and neither is the manual.
        text = unit.read_text().replace("/opt/fixer/bin/fixer", "/bin/true")
        copy = tmp_path / unit.name
        copy.write_text(re.sub("^Documentation=.*\n", "", text, flags=re.MULTILINE))
        (tmp_path / "fixer-off.service").write_text("[Service]\nType=oneshot\nExecStart=/bin/true\n")
        done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
        # RestartMode is of systemd 254; an older one says so and goes on.
        said = [line for line in done.stderr.splitlines() if "RestartMode" not in line and unit.name in line]
        assert said == []


def directives(text: str) -> Iterator[tuple[str, str, str]]:
    """Section, name and value of each."""
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            yield section, *line.split("=", 1)


def too_new(text: str) -> list[str]:
    """What the systemd of RHEL 7 does not know, or nobody has said since when it is known."""
    values = {"ProtectSystem=strict", "Type=exec", "ProtectHome=tmpfs"}  # of 232, 240 and 239
    return [
        f"[{section}] {name}={value}"
        for section, name, value in directives(text)
        if SINCE.get(section, {}).get(name, RHEL_7 + 1) > RHEL_7
        or f"{name}={value}" in values
        or (name.startswith("Exec") and value[0] in "+!:")
    ]


def test_the_plain_unit_asks_nothing_of_rhel_7s_systemd_that_it_does_not_know() -> None:
    assert too_new(PLAIN.read_text()) == []
    assert too_new(OFF.read_text()) == []
    assert "[Service] DynamicUser=yes" in too_new(UNIT.read_text())
    assert "[Unit] StartLimitBurst=10" in too_new(UNIT.read_text())


def test_the_service_of_the_kernel_scope_may_little_more(tmp_path: Path) -> None:
    need("systemd-analyze")
    both = tmp_path / UNIT.name
    more = KERNEL.read_text()
    both.write_text(UNIT.read_text().replace("[Install]", f"{more}\n[Install]"))
    assert exposure(UNIT) < exposure(both) <= 1.5
