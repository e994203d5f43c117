"""``make kernels`` without an emulator: the table that it writes, and the file system that it boots from."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))  # behind everything else: fixer stays the one that is installed

from kernels import debian, initrd, table
from kernels.debian import Kernel
from kernels.guest import UNSEEN, Outcome
from kernels.probes import PROBES

KERNEL = Kernel("sid", "9.1-1", "9.1-amd64", Path("vmlinuz"), Path("modules"), {"BONDING": "m"})
WORKED = Outcome(
    release="9.1-amd64",
    probes={probe.title: None for probe in PROBES},
    tests={"tests/a.py::one": "passed", "tests/a.py::two": "skipped: Skipped: no TCX in this kernel"},
    seconds=61.0,
    finished=True,
)


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_what_was_seen_in_a_guest_was_run() -> None:
    lacking = replace(WORKED, probes=WORKED.probes | {"8021q": "Unknown device type"})
    row = dict(zip(table.TITLES, cells(table.row("sid", KERNEL, lacking)), strict=True))
    assert row["how we know"] == "run: 1 passed, 1 skipped"
    assert (row["8021q"], row["bonding"]) == ("no", "yes")


def test_what_did_not_come_up_is_read_from_the_configuration() -> None:
    row = dict(zip(table.TITLES, cells(table.row("sid", KERNEL, UNSEEN)), strict=True))
    assert row["how we know"] == "read: its configuration"
    assert (row["8021q"], row["bonding"]) == ("(no)", "(yes)")
    assert not UNSEEN.worked


@pytest.mark.parametrize(
    ("came", "finished", "worked"), [("passed", True, True), ("failed", True, False), ("passed", False, False)]
)
def test_a_guest_that_fails_or_dies_has_not_worked(came: str, finished: bool, worked: bool) -> None:
    assert replace(WORKED, tests={"tests/a.py::one": came}, finished=finished).worked is worked


def test_a_row_is_replaced_but_not_by_less_and_everything_else_stays(tmp_path: Path) -> None:
    document = tmp_path / "compatibility.md"
    document.write_text(f"before\n{table.BEGIN}\n{table.END}\nafter\n", encoding="utf-8")
    first, second = (package.name for package in debian.packages()[:2])
    for name in (second, first):
        table.note(document, name, KERNEL, WORKED)
    table.note(document, first, KERNEL, replace(WORKED, tests={"tests/a.py::one": "failed"}))
    table.note(document, second, KERNEL, replace(WORKED, probes={}))
    lines = document.read_text(encoding="utf-8").splitlines()
    assert (lines[0], lines[1], lines[-2], lines[-1]) == ("before", table.BEGIN, table.END, "after")
    assert [cells(line)[0] for line in lines[2:-2]] == ["kernel", "---", first, second]
    assert [cells(line)[2] for line in lines[4:-2]] == ["run: 1 failed", "run: 1 passed, 1 skipped"]


def test_the_table_in_the_documentation_knows_the_kernels_that_are_tried() -> None:
    _, _, rest = table.DOCUMENT.read_text(encoding="utf-8").partition(f"{table.BEGIN}\n")
    head, _, *rows = rest.partition(table.END)[0].splitlines()
    assert cells(head) == list(table.TITLES)
    assert [cells(row)[0] for row in rows] == [package.name for package in debian.packages()]


def test_an_archive_is_what_cpio_reads(tmp_path: Path) -> None:
    """The kernel's documentation: 110 bytes of head in hexadecimal, name and content padded to four bytes each."""
    files = {"init": b"#!/bin/sh\n", "modules/00-a.ko": b"abc"}
    packed = initrd.packed([("modules", initrd.DIRECTORY, b"")] + [(n, initrd.FILE, c) for n, c in files.items()])
    found: dict[str, bytes] = {}
    at = 0
    while True:
        assert packed[at : at + 6] == b"070701"
        numbers = [int(packed[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name = packed[at + 110 : at + 110 + numbers[11] - 1].decode()
        content = at + 110 + numbers[11] + 3 & ~3
        if name == "TRAILER!!!":
            break
        found[name] = packed[content : content + numbers[6]]
        assert numbers[1] == (initrd.DIRECTORY if name == "modules" else initrd.FILE)
        at = content + numbers[6] + 3 & ~3
    assert found == {"modules": b""} | files


def test_init_is_a_script_that_a_shell_reads() -> None:
    assert subprocess.run(["sh", "-n", initrd.INIT], check=False).returncode == 0
