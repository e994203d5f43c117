"""What the packages' tests share: what `make wheels`, `make bundle` and `make release` left in dist.

A test of something that is not there is skipped by its name; each has a make target that builds it first.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DIST = Path(os.environ.get("DIST", ROOT / "dist"))
BUILD = Path(os.environ.get("BUILD", ROOT / "build" / "packaging"))
SWARM = ROOT / "fixer" / "data" / "swarm.pcap"
MACHINES = ("x86_64", "aarch64")
GLIBC = (2, 17)


def made(pattern: str, target: str) -> list[Path]:
    """What there is of ``pattern`` in dist; skips the test if nothing is."""
    found = sorted(DIST.glob(pattern))
    if not found:
        pytest.skip(f"there is no dist/{pattern}: make {target}")
    return found


def need(*programs: str) -> None:
    """Skip the test, naming the first program that is missing."""
    for program in programs:
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
            pytest.skip(f"no program {program} here")


def need_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("no root here")


def bare_system(suite: str) -> Path:
    """A Debian without Python, only to be read."""
    bare = BUILD / "roots" / suite
    if not bare.exists():
        pytest.skip(f"there is no bare {suite}: packaging/roots")
    return bare


def run(*argv: str | Path, **options: object) -> str:
    """A command's standard output; it must succeed."""
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return str(done.stdout)


def elf_files(directory: Path) -> Iterator[Path]:
    """Every program and shared object below a directory."""
    for path in sorted(directory.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.read_bytes().startswith(b"\x7fELF"):
            yield path


def elf_machine(path: Path) -> str:
    return {62: "x86_64", 183: "aarch64"}[int.from_bytes(path.read_bytes()[18:20], "little")]


def glibc_asked(path: Path) -> tuple[int, ...]:
    """The newest version of glibc whose symbols an ELF file asks for; () if it asks for none."""
    asked = re.findall(r"\(?GLIBC_([0-9.]+)\)?", run("objdump", "-T", path))
    return max((tuple(int(part) for part in version.split(".")) for version in asked), default=())
