"""Who may import whom, and who may write into a packet: the rules of docs/design.md, held."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fixer"
COMPILED = sorted([*PACKAGE.rglob("*.pyx"), *PACKAGE.rglob("*.pxd")])
PYTHON = sorted(PACKAGE.rglob("*.py"))

# The datapath's modules, from the ground up: each may cimport those before it.
DATAPATH = (
    *("wire", "hash", "zeroed", "sets", "traits", "walk", "diagnose", "memory", "envelopes", "regimes", "evidence"),
    *("repair", "clocks", "flows", "timestamps", "snat", "unfinished", "ring", "witness", "result", "pipeline"),
)
# Each compiled module, and the ones of ours it may cimport.
MAY_CIMPORT: dict[str, set[str]] = {
    "_csum": set(),
    **{
        f"datapath.{name}": {"_csum", *(f"datapath.{before}" for before in DATAPATH[:place])}
        for place, name in enumerate(DATAPATH)
    },
    "capture.link": {"datapath.wire", "datapath.pipeline"},
    "findings.table": {"datapath.hash", "datapath.zeroed"},
    "findings.progress": set(),
    "findings.options": {"datapath.wire"},
    "findings.roads": {"datapath.hash", "datapath.ring", "datapath.wire", "findings.progress", "findings.table"},
    "findings.strangers": {"datapath.wire", "datapath.zeroed"},
    "findings.conversations": {
        *("datapath.wire", "datapath.diagnose", "datapath.hash", "datapath.ring", "datapath.zeroed"),
        *("findings.options", "findings.progress", "findings.roads", "findings.table"),
    },
    "findings.census": {
        "datapath.wire",
        "datapath.hash",
        "datapath.diagnose",
        "datapath.ring",
        "datapath.result",
        "datapath.pipeline",
        "datapath.walk",
        "findings.conversations",
        "findings.roads",
        "findings.strangers",
        "findings.table",
    },
    "findings.ledger": {
        *("datapath.diagnose", "datapath.hash", "datapath.pipeline", "datapath.repair", "datapath.result"),
        *("datapath.ring", "datapath.walk", "datapath.witness", "datapath.zeroed", "findings.census"),
    },
    "findings.identity": {"datapath.hash", "datapath.wire", "datapath.walk", "datapath.diagnose"},
    "findings.match": {
        "datapath.walk",
        "datapath.diagnose",
        "datapath.pipeline",
        "findings.table",
        "findings.identity",
    },
    "findings.fates": {"datapath.diagnose", "findings.table", "findings.identity", "findings.match"},
    "capture.frames": {
        *("datapath.wire", "datapath.ring", "datapath.pipeline", "capture.link"),
        *("findings.census", "findings.match"),
    },
    "capture.pcap": {"datapath.wire", "datapath.pipeline", "capture.frames"},
    "capture.pcapng": {"datapath.wire", "datapath.pipeline", "capture.frames"},
    "nfqueue.netlink": set(),
    "nfqueue.queue": {"nfqueue.netlink", "datapath.zeroed", "datapath.pipeline", "datapath.repair"},
}
# Each room, and the rooms it may import from: from the ground up (docs/design.md).
GROUND = {"errors", "now", "words", "config", "datapath", "_csum"}
MAY_IMPORT = {
    "errors": set(),
    "now": set(),
    "_csum": set(),
    "datapath": {"_csum"},
    "words": {"datapath"},
    "config": {"errors", "datapath"},
    "capture": {"errors", "datapath", "findings"},
    "nfqueue": {"errors", "datapath"},
    "host": {"errors", "kernel"},
    "kernel": set(),
    "findings": {"now", "datapath", "words"},
    "state": {"errors", "datapath", "host", "config"},
    "cure": {"errors", "host"},
    "doctor": {"errors", "host", "config", "findings", "rules", "cure"},
    "rules": {"errors", "config", "host", "state"},
    "telemetry": {"now", "words", "datapath", "findings"},
    "status": {"errors", "rules", "state", "host"},
    "scan": GROUND | {"capture", "findings"},
    "compare": GROUND | {"capture", "findings", "scan"},
    "daemon": GROUND | {"nfqueue", "kernel", "host", "state", "rules", "telemetry", "findings"},
    "screen": GROUND
    | {"telemetry", "capture", "state", "status", "rules", "host", "findings", "doctor", "cure", "scan", "compare"},
}
ANYTHING = {"cli", "lab", "data", "__main__", "__init__"}
# And who in the pipeline hands it to those two, and who hands it to the pipeline.
MAY_WRITE = {
    "datapath.repair": "mend",
    "datapath.timestamps": "apply",
    "datapath.pipeline": "process|stamp|send",
}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def ids(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def test_every_compiled_module_has_its_place() -> None:
    assert {name_of(path) for path in COMPILED if path.stem != "__init__"} == set(MAY_CIMPORT)


@pytest.mark.parametrize("path", COMPILED, ids=ids)
def test_compiled_code_depends_downwards_and_on_no_python_of_ours(path: Path) -> None:
    text = path.read_text()
    found = set(re.findall(r"^\s*from fixer\.([\w.]+) cimport", text, re.MULTILINE))
    assert found - {name_of(path)} <= MAY_CIMPORT.get(name_of(path), set())
    imported = set(re.findall(r"^\s*(?:from|import) fixer\.?([\w.]*) import", text, re.MULTILINE))
    assert imported <= set(MAY_CIMPORT), "only the enumerations of compiled modules"


@pytest.mark.parametrize("path", COMPILED, ids=ids)
def test_the_packet_is_const_but_where_it_is_mended(path: Path) -> None:
    for declaration in re.findall(r"^\s*cdef [^=\n]*?\w+\((?:[^)]|\n)*?\)[^:\n]*", path.read_text(), re.MULTILINE):
        if re.search(r"(?<!const )uint8_t \*packet", declaration):
            assert re.search(rf"\b({MAY_WRITE.get(name_of(path), 'nobody')})\(", declaration)


@pytest.mark.parametrize("path", [path for path in COMPILED if "datapath" in path.parts], ids=ids)
def test_the_packet_path_holds_no_lock_takes_no_gil_and_asks_for_no_memory(path: Path) -> None:
    text = path.read_text()
    assert "with gil" not in text
    bodies = re.findall(r"^( *)cdef [^\n]*(?:\n[^\n]*?)?nogil:\n((?:(?:\1 +[^\n]*)?\n)+)", text, re.MULTILINE)
    for _indent, body in bodies:
        assert not re.search(r"\b(malloc|calloc|realloc|free|fopen|printf)\(|\braise\b", body)


def rooms_imported_by(path: Path) -> set[str]:
    """The rooms that a file imports from: `rules` for `fixer.rules.switch` and for `from fixer import rules`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("fixer.")}
    return found - {"__version__"}


@pytest.mark.parametrize("path", PYTHON, ids=ids)
def test_each_room_imports_from_the_floors_below_it(path: Path) -> None:
    room = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if room not in ANYTHING:
        assert rooms_imported_by(path) - {room} <= MAY_IMPORT[room]


def test_every_room_has_its_floor() -> None:
    rooms = {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in [*PYTHON, *COMPILED]}
    assert rooms == set(MAY_IMPORT) | ANYTHING


def packages_imported_by(path: Path) -> set[str]:
    """The packages that a file imports, ours or not, at its top, in a function or for its types."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).partition(".")[0])
    return found


@pytest.mark.parametrize(("package", "rooms"), [("click", {"cli"}), ("rich", {"screen"})])
def test_one_room_imports_what_talks_to_people(package: str, rooms: set[str]) -> None:
    importers = {
        path.relative_to(PACKAGE).with_suffix("").parts[0] for path in PYTHON if package in packages_imported_by(path)
    }
    assert importers == rooms


def test_scapy_is_imported_where_packets_are_taken_apart_for_people_and_made() -> None:
    importers = {name_of(path) for path in PYTHON if "scapy" in packages_imported_by(path)}
    assert {name for name in importers if not name.startswith("lab.")} == {"screen.frame"}


@pytest.mark.parametrize("path", PYTHON, ids=ids)
def test_only_the_host_runs_commands(path: Path) -> None:
    calls = {
        f"{node.func.value.id}.{node.func.attr}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name)
    }
    runs = {call for call in calls if call in ("os.system", "os.popen") or call.startswith(("subprocess.", "os.exec"))}
    assert runs == ({"subprocess.run", "subprocess.Popen"} if path == PACKAGE / "host" / "machine.py" else set())


@pytest.mark.parametrize("path", PYTHON, ids=ids)
def test_only_the_host_reads_proc_and_sys(path: Path) -> None:
    """A path of /proc may be named elsewhere, to be read through `Host`; nothing else opens one."""
    if path == PACKAGE / "host" / "machine.py":
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in ("open", "Path"):
            words = [value.value for value in ast.walk(node) if isinstance(value, ast.Constant)]
            assert not any(str(word).startswith(("/proc", "/sys")) for word in words), ast.unparse(node)


def test_telemetry_reads_the_ring_and_never_a_packet() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (PACKAGE / "telemetry").glob("*.py")]
    assert any(".drain(" in source for source in sources)
    assert not any(".examine(" in source for source in sources)


@pytest.mark.parametrize("path", PYTHON, ids=ids)
def test_only_the_state_writes_below_run(path: Path) -> None:
    """Who neither spells the directory nor asks the host for it has to ask `fixer.state`."""
    if path.parent.name == "state" or path == PACKAGE / "host" / "machine.py":
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert getattr(node, "attr", "") != "run_directory"
        if isinstance(node, ast.Call):
            words = [value.value for value in ast.walk(node) if isinstance(value, ast.Constant)]
            assert not any(str(word).startswith("/run/fixer") for word in words), ast.unparse(node)
