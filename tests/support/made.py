"""What the packages' tests share: what `make wheels`, `make bundle` and `make release` left in dist.

Only where DIST names that directory, as the make targets do that build it first: `make test` has no business with what
somebody once left there. A test of something that is not there is skipped by its name.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixer.lab.net import Namespace

ROOT = Path(__file__).parents[2]
DIST = Path(os.environ.get("DIST", "/nowhere"))
BUILD = Path(os.environ.get("BUILD", ROOT / "build" / "packaging"))
NODE = ROOT / "tests" / "release" / "node"
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


def has_our_rule(end: Namespace) -> bool:
    """Whether there is a table or a chain of fixer's in ``end``, in whichever backend's words."""
    need("nft")
    rules = (end.run(*command).out for command in (("nft", "list", "ruleset"), ("iptables-legacy-save",)))
    return "fixer" in "".join(rules).lower()


BPF = 247
"""<elf.h>: the machine of what is for the kernel, whatever it runs on."""


def elf_files(directory: Path) -> Iterator[Path]:
    """Every program and shared object below a directory that is for a processor."""
    for path in sorted(directory.rglob("*")):
        start = path.read_bytes()[:20] if path.is_file() and not path.is_symlink() else b""
        if start.startswith(b"\x7fELF") and int.from_bytes(start[18:], "little") != BPF:
            yield path


def elf_machine(path: Path) -> str:
    return {62: "x86_64", 183: "aarch64"}[int.from_bytes(path.read_bytes()[18:20], "little")]


def glibc_asked(path: Path) -> tuple[int, ...]:
    """The newest version of glibc whose symbols an ELF file asks for; () if it asks for none."""
    asked = re.findall(r"\(?GLIBC_([0-9.]+)\)?", run("objdump", "-T", path))
    return max((tuple(int(part) for part in version.split(".")) for version in asked), default=())


def on_this_machine(root: Path, libc: Path = BUILD / "roots" / "aarch64") -> list[str]:
    """How to start the Python of ``root``/opt/fixer here; an emulated one finds its C library in ``libc``."""
    python = root / "opt/fixer/bin/python3.13"
    if elf_machine(python) == "x86_64":
        return [str(python), "-IB"]
    need("qemu-aarch64-static")
    if not libc.exists():
        pytest.skip("there is no C library for aarch64: packaging/roots")
    return ["qemu-aarch64-static", "-L", str(libc), str(python), "-IB"]


def newer(kind: str, directory: Path) -> Path:
    """The same tree as a package of a later version; gzip, for that is quicker."""
    recipe = (BUILD / "nfpm-x86_64.yaml").read_text().replace("compression: xz", "compression: gzip")
    (directory / "nfpm.yaml").write_text(re.sub(r"^version: .*", 'version: "99.0"', recipe, flags=re.MULTILINE))
    nfpm = BUILD / "tools/bin/nfpm"
    run(nfpm, "package", "-f", directory / "nfpm.yaml", "-p", kind, "-t", directory / f"newer.{kind}", cwd=ROOT)
    return directory / f"newer.{kind}"
