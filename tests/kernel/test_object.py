"""The object in the tree is what clang makes of the source, and the loader understands it and nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest

from fixer.kernel import elf, finisher

SOURCE = Path(__file__).parents[2] / "fixer" / "kernel" / "finish.bpf.c"
COMPILER = "clang version 14.0.6"
"""Debian 12's: another one may make other bytes, which would not be wrong."""


def content() -> bytes:
    return resources.files("fixer.kernel").joinpath("finish.bpf.o").read_bytes()


def test_clang_makes_the_same_bytes_again(tmp_path: Path) -> None:
    made = SOURCE.parents[2] / "tools" / "finish"
    for program in ("clang", "llvm-strip"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}: apt-get install clang-14 llvm-14; nothing else checks the object's origin")
    said = subprocess.run(["clang", "--version"], capture_output=True, text=True, check=True).stdout
    if COMPILER not in said:
        pytest.skip(f"this is no {COMPILER}, which made the object: {said.splitlines()[0]}")
    subprocess.run([made, tmp_path / "again.o"], check=True)
    assert (tmp_path / "again.o").read_bytes() == content(), "make finish, and commit the object with its source"


def test_the_numbers_are_those_of_the_source() -> None:
    source = SOURCE.read_text(encoding="utf-8")
    found = elf.read(content(), "tc")
    outcomes = re.findall(
        r"^\t([A-Z_]+)[,\t]", re.findall(r"enum outcome \{(.*?)\}", source, re.DOTALL)[0], re.MULTILINE
    )
    assert tuple(name.lower() for name in outcomes if name != "OUTCOMES") == finisher.OUTCOMES
    assert found.maps == {
        "entries": (1, finisher.KEY_BYTES, 32, finisher.ENTRIES),
        "counted": (6, 4, 16, finisher.ENTRIES + len(finisher.OUTCOMES)),
    }
    assert found.licence == b"GPL"
    assert f"OUTER_ZERO = {finisher.ZERO}, OUTER_PSEUDO = {finisher.PSEUDO}, OUTER_AGREES = {finisher.AGREES}" in source


def test_the_code_refers_to_the_maps_that_it_is_linked_with() -> None:
    found = elf.read(content(), "tc")
    assert {name for _, name in found.refers} == {"entries", "counted"}
    linked = found.linked({"entries": 1000, "counted": 70000})
    changed = {at - at % 8 for at in range(len(linked)) if linked[at] != found.code[at]}
    assert changed == {at for at, _ in found.refers}
    for at, name in found.refers:
        assert linked[at + 1] >> 4 == elf.BPF_PSEUDO_MAP_FD
        assert int.from_bytes(linked[at + 4 : at + 8], "little") == {"entries": 1000, "counted": 70000}[name]


@pytest.mark.parametrize(
    "harm",
    [
        lambda whole: b"",
        lambda whole: whole[:40],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: b"\x7fELF\x01" + whole[5:],
        lambda whole: whole[:18] + b"\x3e\0" + whole[20:],
        lambda whole: whole.replace(b"maps\0", b"nams\0"),
        lambda whole: whole.replace(b"license\0", b"licence\0"),
        lambda whole: whole.replace(b"reltc\0", b"reltx\0"),
    ],
    ids=["nothing", "no-sections", "half", "32-bit", "x86", "no-maps", "no-licence", "no-program"],
)
def test_anything_else_is_refused(harm: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        elf.read(harm(content()), "tc")  # type: ignore[operator]
