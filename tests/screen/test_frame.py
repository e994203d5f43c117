"""A frame taken apart: both layers' right sums stand beside what was found, and say what `scan` says."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from rich.console import Console
from support.captures import cooked, cooked2, ethernet, pcap
from support.make_swarm import FILE as SWARM
from support.packets import in_state, segment, tunnelled

from fixer.cli.scan import show_one
from fixer.config import Settings
from fixer.errors import CaptureDamaged, CommandWrong


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "in.pcap"


def shown(file: Path, number: int, *, plain: bool = False) -> list[str]:
    out = io.StringIO()
    show_one(file, number, Settings(plain=plain), Console(file=out, width=100))
    return out.getvalue().splitlines()


def test_show_sets_both_layers_right_sums_beside_what_was_found() -> None:
    lines = shown(SWARM, 1)
    assert lines[0] == "Frame 1: 110 bytes"
    fields = [line.split("=")[1].strip() for line in lines if "chksum" in line]
    assert fields[1] == "0x9c61  ← right once the inner one is"
    assert fields[3] == "0x179e  ← never finished, right is 483c"
    assert [line.split()[0] for line in lines[-4:]] == ["diagnosis", "inner", "outer", "fixer"]
    assert "found 179e, right 483c" in lines[-3]


@pytest.mark.parametrize(
    ("inner", "outer", "words"), [("WRONG", "GOOD", "wrong, right is"), ("VERIFIES", "ZERO", "none")]
)
def test_show_says_of_each_layer_what_scan_says(file: Path, inner: str, outer: str, words: str) -> None:
    packet = tunnelled(inner, outer)
    for data in (
        pcap([ethernet(packet)]),
        pcap([cooked(packet)], link_type=113),
        pcap([cooked2(packet)], link_type=276),
        pcap([packet], link_type=101),
    ):
        file.write_bytes(data)
        assert sum(words in line for line in shown(file, 1)) == 1


def test_show_judges_a_packet_after_all_those_before_it(file: Path) -> None:
    stale = tunnelled("VERIFIES", "ZERO")
    stale = stale[:26] + b"\xff\xff" + stale[28:]
    others = [tunnelled("VERIFIES", "ZERO", payload=b"number %d" % number) for number in range(3)]
    file.write_bytes(pcap([*others * 3000, stale], link_type=101))
    assert shown(file, 9001)[0].startswith("Frame 9001: 2023-11-15 0")
    assert any("0xffff  ← stale, right is" in line for line in shown(file, 9001))


def test_show_of_what_is_no_vxlan(file: Path) -> None:
    file.write_bytes(pcap([in_state(segment(4, "tcp"), 4, "tcp", "PARTIAL"), bytes(3)], link_type=101))
    assert "not UDP to a VXLAN port" in " ".join(shown(file, 1))
    plain = shown(file, 1, plain=True)
    assert sum("← never finished, right is" in line for line in plain) == 1
    assert not any("inner" in line or "outer" in line for line in plain)
    file.write_bytes(pcap([b"\xff" * 12 + b"\x08\x06" + bytes(28)]))
    assert any("ARP" in line for line in shown(file, 1))
    assert not any("diagnosis" in line for line in shown(file, 1))


def test_show_of_any_bytes_is_shown(file: Path) -> None:
    for seed in range(60):
        rng = random.Random(seed)
        packet = bytearray(ethernet(tunnelled("PARTIAL", "AGREES", payload=b"\x1b[2J")))
        for _ in range(seed):
            packet[rng.randrange(len(packet))] = rng.randrange(256)
        file.write_bytes(pcap([bytes(packet[: rng.randrange(1, len(packet))]) if seed % 2 else bytes(packet)]))
        assert all(line.isprintable() for line in shown(file, 1))


def test_show_of_a_frame_that_is_not_there(file: Path) -> None:
    with pytest.raises(CommandWrong, match="has 2 frames"):
        shown(SWARM, 3)
    file.write_bytes(SWARM.read_bytes()[:-1])
    assert shown(file, 1)
    with pytest.raises(CaptureDamaged):
        shown(file, 2)
