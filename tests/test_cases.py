"""Every folder of tests/cases through the datapath: states, diagnosis, action, reason, and the bytes that leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support import oracle
from support.make_swarm import FILE as SWARM_FILE
from support.make_swarm import swarm

from fixer.capture.open import Capture
from fixer.config import Settings
from fixer.datapath.diagnose import Diagnosis, InnerState, OuterState, Vouch
from fixer.datapath.pipeline import Pipeline
from fixer.datapath.repair import Action
from fixer.datapath.walk import Reason

FOLDERS = sorted(path for path in (Path(__file__).parent / "cases").iterdir() if path.is_dir())


def packets(folder: Path) -> list[tuple[bytes, str, dict[str, Any]]]:
    """(in, out as it is written, expected) of each packet."""
    expected = json.loads((folder / "expected.json").read_text())["packets"]
    lines = (folder / "in.hex").read_text().split(), (folder / "out.hex").read_text().split()
    return [(bytes.fromhex(data), out, said) for data, out, said in zip(*lines, expected, strict=True)]


def settings(folder: Path) -> Settings:
    return msgspec.convert(json.loads((folder / "expected.json").read_text())["settings"], Settings)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_case(folder: Path) -> None:
    pipeline = Pipeline(**settings(folder).datapath())
    for number, (data, out, said) in enumerate(packets(folder), 1):
        packet = bytearray(data)
        result = pipeline.examine(
            packet, wire_length=said.get("wire_length", 0), skb_info=said.get("skb_info", 0), when_ns=number * 10**9
        )
        found = {
            "inner": result.inner.name,
            "outer": result.outer.name,
            "diagnosis": result.diagnosis.name,
            "action": result.action.name,
            "reason": result.reason.name,
            "vouch": result.vouch.name,
            "unverified": result.unverified,
        }
        assert found == {key: said[key] for key in found}, f"packet {number}"
        if result.action is Action.DROP:
            assert out == "dropped"
            assert packet == data, f"packet {number}: a dropped packet was changed"
        else:
            assert packet.hex() == out, f"packet {number}"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_oracle_agrees(folder: Path) -> None:
    plain, fill = settings(folder).plain, settings(folder).policy.outer_absent6 == "repair"
    for data, out, said in packets(folder):
        if said.get("skb_info") or said["reason"] == "DEVICE_VERIFIED":
            continue  # what is claimed of a packet is not in the packet
        vouched = said["vouch"] != "NOBODY"
        verdict = oracle.judge(data, said.get("wire_length", 0), plain=plain, vouched=vouched, fill=fill)
        judged = said.keys() - {"wire_length", "vouch"}
        assert {key: getattr(verdict, key) for key in judged} == {key: said[key] for key in judged}
        assert out == ("dropped" if verdict.action == "DROP" else verdict.mended.hex())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_what_leaves_needs_nothing_more(folder: Path) -> None:
    """A repaired packet is sound and stays as it is; what was not looked into, or not to be filled in, is still so."""
    plain = settings(folder).plain
    for _, out, said in packets(folder):
        if said["action"] == "REPAIR":
            packet = bytearray.fromhex(out)
            result = Pipeline(ports=[4789, 8472, 6784], plain=plain).examine(packet, said.get("wire_length", 0))
            left = "UNCHECKABLE" if said["reason"] == "NOT_IP" else "SOUND"
            if said["outer"] == "ZERO6" and said["diagnosis"] != "OUTER_ABSENT6":
                left = "OUTER_ABSENT6"
            assert (result.diagnosis.name, result.action) == (left, Action.PASS)
            assert packet.hex() == out


def test_every_name_and_every_cell_has_a_case() -> None:
    said = [expected for folder in FOLDERS for _, _, expected in packets(folder)]
    for key, names in (
        ("inner", InnerState),
        ("outer", OuterState),
        ("diagnosis", Diagnosis),
        ("reason", Reason),
        ("vouch", Vouch),
    ):
        assert {name.name for name in names} == {expected[key] for expected in said}
    cells = {(expected["inner"], expected["outer"]) for expected in said}
    for inner, row in oracle.MATRIX.items():
        for outer, diagnosis in zip(oracle.OUTERS, row.split(), strict=True):
            # A wrong outer over a wrong inner is not explained to be stale: corrupt either way.
            if diagnosis != "-" and (inner, outer) != ("WRONG", "STALE"):
                assert (inner, outer) in cells
        assert (inner, "ZERO6") in cells
    assert all((folder / "README.md").read_text().strip() for folder in FOLDERS)


def test_the_shipped_capture_holds_the_swarm_case() -> None:
    assert SWARM_FILE.read_bytes() == swarm()
    with Capture(SWARM_FILE) as capture:
        frames = [frame.data[frame.ip_at :] for frame in capture]
    (folder,) = (folder for folder in FOLDERS if folder.name == "swarm")
    assert frames == [data for data, _, _ in packets(folder)]
