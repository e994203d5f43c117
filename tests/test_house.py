"""Who may import whom, and who may touch what (docs/design.md): the sources themselves are read."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fixer"  # the sources, wherever fixer is installed
PYTHON = sorted(PACKAGE.rglob("*.py"))
CYTHON = sorted([*PACKAGE.rglob("*.pyx"), *PACKAGE.rglob("*.pxd")])
OURS = re.compile(r"^\s*(?:from|import|cimport)\s+(fixer[.\w]*)", re.MULTILINE)

# Each compiled module may lean on those before it, and on nothing else of ours.
LAYERS = ["_csum", "wire", "walk", "diagnose", "history", "repair", "ring", "pipeline", "netlink", "queue"]


def ids(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def test_there_is_something_to_read() -> None:
    assert {path.stem for path in CYTHON} >= set(LAYERS)
    assert PACKAGE / "node" / "host.py" in PYTHON


@pytest.mark.parametrize("path", CYTHON, ids=ids)
def test_compiled_modules_lean_only_on_what_a_packet_met_before(path: Path) -> None:
    used = {module.rpartition(".")[2] for module in OURS.findall(path.read_text(encoding="utf-8"))}
    if path.stem == "__init__":
        assert not used
    else:
        assert used <= set(LAYERS[: LAYERS.index(path.stem) + 1])


@pytest.mark.parametrize("path", CYTHON, ids=ids)
def test_only_repair_writes_to_a_packet(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    takes = re.findall(r"(?<!const )uint8_t \*packet\b", source)
    if path.stem in ("repair", "pipeline"):  # pipeline hands it on
        assert takes
    else:
        assert not takes


@pytest.mark.parametrize("path", PYTHON, ids=ids)
def test_only_the_host_runs_commands(path: Path) -> None:
    calls = {
        f"{node.func.value.id}.{node.func.attr}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name)
    }
    runs = {call for call in calls if call in ("os.system", "os.popen") or call.startswith(("subprocess.", "os.exec"))}
    assert runs == ({"subprocess.run", "subprocess.Popen"} if path == PACKAGE / "node" / "host.py" else set())


@pytest.mark.parametrize("path", PYTHON, ids=ids)
def test_only_the_host_reads_proc_and_sys(path: Path) -> None:
    """A path of /proc may be named elsewhere, to be read through `Host`; nothing else opens one."""
    if path == PACKAGE / "node" / "host.py":
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in ("open", "Path"):
            words = [value.value for value in ast.walk(node) if isinstance(value, ast.Constant)]
            assert not any(str(word).startswith(("/proc", "/sys")) for word in words), ast.unparse(node)


def test_telemetry_reads_the_ring_and_never_a_packet() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (PACKAGE / "telemetry").glob("*.py")]
    assert any(".drain(" in source for source in sources)
    assert not any(".examine(" in source for source in sources)
