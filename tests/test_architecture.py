"""Who may import whom, and who may write into a packet: the rules of docs/design.md, held."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fixer"
COMPILED = sorted([*PACKAGE.rglob("*.pyx"), *PACKAGE.rglob("*.pxd")])
PYTHON = sorted(PACKAGE.rglob("*.py"))

# Each compiled module, and the ones of ours it may cimport.
MAY_CIMPORT = {
    "_csum": set(),
    "datapath.wire": set(),
    "datapath.walk": {"_csum", "datapath.wire"},
    "datapath.diagnose": {"_csum", "datapath.wire", "datapath.walk"},
    "datapath.history": {"_csum", "datapath.wire", "datapath.walk", "datapath.diagnose"},
    "datapath.repair": {"datapath.wire", "datapath.walk", "datapath.diagnose"},
    "datapath.ring": {"datapath.wire", "datapath.walk", "datapath.diagnose"},
    "datapath.timestamps": {"_csum", "datapath.wire", "datapath.walk"},
    "datapath.pipeline": {
        f"datapath.{step}" for step in ("walk", "diagnose", "history", "repair", "timestamps", "ring")
    },
    "nfqueue.netlink": set(),
    "nfqueue.queue": {"nfqueue.netlink", "datapath.pipeline", "datapath.repair"},
}
# And who in the pipeline hands it to those two.
MAY_WRITE = {"datapath.repair": "mend", "datapath.timestamps": "strip", "datapath.pipeline": "process|strip_syn"}
TOUCHES_HOST = {"subprocess", "shutil"}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def test_every_compiled_module_has_its_place() -> None:
    assert {name_of(path) for path in COMPILED if path.stem != "__init__"} == set(MAY_CIMPORT)


@pytest.mark.parametrize("path", COMPILED, ids=str)
def test_compiled_code_depends_downwards_and_on_no_python_of_ours(path: Path) -> None:
    text = path.read_text()
    found = set(re.findall(r"^\s*from fixer\.([\w.]+) cimport", text, re.MULTILINE))
    assert found - {name_of(path)} <= MAY_CIMPORT.get(name_of(path), set())
    imported = set(re.findall(r"^\s*(?:from|import) fixer\.?([\w.]*) import", text, re.MULTILINE))
    assert imported <= set(MAY_CIMPORT), "only the enumerations of compiled modules"


@pytest.mark.parametrize("path", COMPILED, ids=str)
def test_the_packet_is_const_but_where_it_is_mended(path: Path) -> None:
    for declaration in re.findall(r"^\s*cdef [^=\n]*?\w+\((?:[^)]|\n)*?\)[^:\n]*", path.read_text(), re.MULTILINE):
        if re.search(r"(?<!const )uint8_t \*packet", declaration):
            assert re.search(rf"\b({MAY_WRITE.get(name_of(path), 'nobody')})\(", declaration)


@pytest.mark.parametrize("path", [path for path in COMPILED if "datapath" in path.parts], ids=str)
def test_the_packet_path_holds_no_lock_takes_no_gil_and_asks_for_no_memory(path: Path) -> None:
    text = path.read_text()
    assert "with gil" not in text
    for body in re.findall(r"^ *cdef [^\n]*(?:\n[^\n]*?)?nogil:\n((?:(?: +[^\n]*)?\n)+)", text, re.MULTILINE):
        assert not re.search(r"\b(malloc|calloc|realloc|free|fopen|printf)\(|\braise\b", body)


@pytest.mark.parametrize("path", PYTHON, ids=str)
def test_only_the_host_runs_commands(path: Path) -> None:
    imported = {
        alias.name.partition(".")[0]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    if name_of(path) == "node.host":
        assert imported >= TOUCHES_HOST
    elif "subprocess" in imported:
        # A type, for who holds what the host has started.
        assert not re.search(r"subprocess\.(run|Popen|call|check_\w+|getoutput)\(", path.read_text())


@pytest.mark.parametrize("path", sorted((PACKAGE / "telemetry").glob("*.py")), ids=str)
def test_telemetry_never_sees_a_packet(path: Path) -> None:
    assert "examine" not in path.read_text()
