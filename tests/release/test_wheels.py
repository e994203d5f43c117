"""`make wheels`: they install where there is no compiler, no network and an old glibc."""

from __future__ import annotations

import re
import shutil
import sys
import sysconfig
import tomllib
import zipfile
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from support.made import GLIBC, MACHINES, ROOT, SWARM, elf_files, elf_machine, glibc_asked, made, need, need_root, run

WHEEL = re.compile(
    r"(?P<name>\w+)-[\d.]+-cp(?P<python>\d+)-cp\d+-[\w.]*manylinux_2_17_(?P<machine>x86_64|aarch64)\.whl"
)


@pytest.fixture(params=["vxlan_fixer", "netfilterqueue"])
def wheels(request: pytest.FixtureRequest) -> list[Path]:
    return made(f"{request.param}-*.whl", "wheels")


def test_there_is_one_for_each_python_and_machine(wheels: list[Path]) -> None:
    found = {(match["python"], match["machine"]) for path in wheels if (match := WHEEL.fullmatch(path.name))}
    assert found == {(python, machine) for python in ("311", "312", "313") for machine in MACHINES}
    assert len(wheels) == len(found), "a wheel whose name promises something else"


def test_none_asks_for_more_than_glibc_2_17_and_each_is_for_its_machine(wheels: list[Path], tmp_path: Path) -> None:
    need("objdump")
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tmp_path / wheel.name)
        objects = list(elf_files(tmp_path / wheel.name))
        assert objects
        for path in objects:
            assert glibc_asked(path) <= GLIBC, path
            assert elf_machine(path) in wheel.name, path
            # Built with sanitizers (zig does, when nobody asks for -O), an extension is five times as long.
            assert b"ubsan" not in path.read_bytes(), path


def test_the_bound_would_be_seen_to_be_broken() -> None:
    need("objdump")
    ours = Path(sys.executable).resolve()
    shared = Path(sysconfig.get_config_var("LIBDIR")) / (sysconfig.get_config_var("INSTSONAME") or "")
    asked = max(glibc_asked(path) for path in (ours, shared) if path.is_file())
    if asked <= GLIBC:
        pytest.skip("this machine's Python asks for no newer glibc either")
    assert asked > GLIBC


@pytest.mark.timeout(300)
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_wheelhouse_installs_without_a_network_and_judges_a_capture(python: str, tmp_path: Path) -> None:
    [house] = made("fixer-*-wheelhouse-x86_64.tar", "wheels")
    need("unshare")
    need_root()  # for a network namespace with nothing in it
    builder = ROOT / "build" / "packaging" / f"python-{python}" / "bin" / "python"
    if not builder.exists():
        pytest.skip(f"no Python {python} here")
    run("tar", "-xf", house, "-C", tmp_path)
    run(builder, "-m", "venv", tmp_path / "venv")
    fixer = tmp_path / "venv" / "bin" / "fixer"
    install = (tmp_path / "venv" / "bin" / "pip", "install", "-q", "--no-index", "--only-binary", ":all:")
    run("unshare", "--net", *install, "--find-links", tmp_path / "wheelhouse-x86_64", "vxlan-fixer")
    unshare = shutil.which("unshare") or ""
    said = run(unshare, "--net", fixer, "scan", SWARM, cwd=tmp_path, env={"PATH": "/nowhere", "COLUMNS": "100"})
    assert "sends unfinished inner checksums" in said or "never finished" in said


def test_the_locked_requirements_are_those_of_the_package() -> None:
    """And nothing else: each is one that fixer asks for, or one that these ask for."""
    locked = dict(
        re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "packaging" / "requirements.txt").read_text(), flags=re.MULTILINE)
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    left = [Requirement(one) for one in project["dependencies"]]
    reached = set()
    while left:
        wanted = left.pop()
        if wanted.marker and not any(wanted.marker.evaluate({"extra": extra}) for extra in wanted.extras or {""}):
            continue
        name = re.sub("[-_.]+", "-", wanted.name).lower()
        assert name in locked, f"packaging/requirements.txt lacks {wanted}: its first lines say how it is made"
        assert wanted.specifier.contains(locked[name]), f"{wanted} is not {locked[name]}, which is locked"
        if name not in reached:
            reached.add(name)
            with suppress(metadata.PackageNotFoundError):  # without libnetfilter_queue that one is not installed
                left += [Requirement(one) for one in metadata.requires(name) or []]
    assert set(locked) == reached
