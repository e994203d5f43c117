"""What `scan` shows: of many senders the worst, commands to copy, others' names, on terminals that show little."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.captures import pcap
from support.make_swarm import FILE as SWARM
from support.packets import in_state, segment, tunnelled

from fixer.cli.scan import scan_each
from fixer.config import Settings
from fixer.findings import tally


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "in.pcap"


def as_text(file: Path, width: int = 100, *, plain: bool = False) -> str:
    out = io.StringIO()
    scan_each([file], Settings(plain=plain), console=Console(file=out, width=width))
    return out.getvalue()


def of_packets(file: Path, packets: list[bytes]) -> dict[str, Any]:
    """The JSON of a capture of these packets, raw IP."""
    file.write_bytes(pcap(packets, link_type=101))
    out = io.StringIO()
    scan_each([file], Settings(), as_json=True, console=Console(file=out))
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def flat(text: str) -> str:
    return " ".join(text.split())


def from_vtep(number: int, packet: bytes) -> bytes:
    """From another outer source: its IPv4 header checksum follows (RFC 1624 §3)."""
    source = struct.pack(">I", 0x0A000000 + number)
    old, new = (struct.unpack(">HH", each) for each in (packet[12:16], source))
    total = sum(new) - sum(old) + (~int.from_bytes(packet[10:12], "big") & 0xFFFF)
    return packet[:10] + struct.pack(">H", ~(total % 0xFFFF) & 0xFFFF) + source + packet[16:]


def test_senders_are_shown_by_harm(file: Path) -> None:
    sound, broken = tunnelled("VERIFIES", "ZERO"), tunnelled("PARTIAL", "ZERO")
    packets = (
        [from_vtep(1, sound)] * 9 + [from_vtep(2, broken)] * 2 + [from_vtep(3, broken)] * 5 + [from_vtep(4, sound)]
    )
    found = of_packets(file, packets)
    assert [finding["text"].split(":")[0] for finding in found["findings"]] == ["VTEP 10.0.0.3", "VTEP 10.0.0.2"]
    text = as_text(file).split("VTEP")[0]
    assert [text.index(f"10.0.0.{n}") for n in (3, 2, 1, 4)] == sorted(text.index(f"10.0.0.{n}") for n in range(1, 5))


@pytest.mark.parametrize("most", [1, 30, 1 << 12])
def test_of_many_senders_the_worst_are_named_and_all_are_counted(
    file: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """One is broken all the time, amid many that speak once: it stands first with every packet of its own."""
    monkeypatch.setattr(tally, "IN_FILE", tally.IN_FILE._replace(senders=most))
    once, always = tunnelled("PARTIAL", "ZERO"), from_vtep(0xFFFFFF, tunnelled("PARTIAL", "ZERO"))
    packets = []
    for number in range(1000):
        packets += [from_vtep(number, once), always] if number % 3 else [from_vtep(number, once)]
    found = of_packets(file, packets)
    assert found["vxlan"] == found["repairable"] == len(packets)
    assert "VTEP 10.255.255.255: unfinished inner checksums (VNI 4097) in all 666" in found["findings"][0]["text"]
    shown = [finding["text"] for finding in found["findings"]]
    assert len(shown) <= 22
    assert found.get("others", {"vteps": {"vxlan": 0}})["vteps"]["vxlan"] == len(packets) - sum(
        vtep["vxlan"] for vtep in found["vteps"].values()
    )
    if most >= 30:
        assert "And 981 others: all 981 packets not sound." in shown
        assert "981 others" in as_text(file)
    assert len(found["vteps"]) <= most


def test_what_excuses_one_of_the_others_excuses_no_other(file: Path) -> None:
    """Twenty of two packets are told; then one whose packet was merged here, and ten whose only packet is broken."""
    broken, merged = tunnelled("PARTIAL", "ZERO"), tunnelled("PARTIAL", "PARTIAL", payload=bytes(7000))
    packets = [from_vtep(number, broken) for number in range(20)] * 2
    packets += [merged, *(from_vtep(number, broken) for number in range(40, 50))]
    assert "And 11 others: 10 of 11 packets not sound." in [
        finding["text"] for finding in of_packets(file, packets)["findings"]
    ]


def test_a_flood_of_sources_takes_bounded_memory_and_time(file: Path) -> None:
    packet = tunnelled("PARTIAL", "ZERO")
    record = struct.pack("<IIII", 1_700_000_000, 0, len(packet), len(packet))
    with file.open("wb") as out:
        out.write(pcap([], link_type=101))
        for number in range(100_000):
            out.write(record + from_vtep(number, packet))
    probe = """
import resource, sys
from pathlib import Path
from fixer.cli import main
try:
    main()
finally:
    memory = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
    print(memory, resource.getrusage(resource.RUSAGE_SELF).ru_utime, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", probe, "scan", str(file)], capture_output=True, text=True, check=True)
    assert "And 99,980 others" in done.stdout
    kilobytes, seconds = map(float, done.stderr.split())
    assert kilobytes < 150_000
    assert seconds < 8


def test_vnis_beyond_memory_are_not_counted_as_if_they_were_all(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "IN_FILE", tally.IN_FILE._replace(vnis=10))
    packet = tunnelled("VERIFIES", "ZERO")
    of_packets(file, [packet[:32] + struct.pack(">I", vni << 8) + packet[36:] for vni in range(40)])
    assert "over 10 VNIs" in as_text(file)


@pytest.mark.parametrize("width", [40, 61, 80, 100])
def test_no_command_is_broken_by_a_line(file: Path, width: int) -> None:
    found = of_packets(file, [tunnelled("PARTIAL", "AGREES"), tunnelled("WRONG", "GOOD"), segment(4, "tcp")])
    commands = {command for finding in found["findings"] for command in finding["text"].split("`")[1::2]}
    assert len(commands) > 2
    lines = as_text(file, width=width).splitlines()
    for command in commands:
        assert any(f"`{command}`" in line for line in lines), command


def test_an_address_of_ipv6_is_whole_where_there_is_room(file: Path) -> None:
    packet = bytearray(tunnelled("PARTIAL", "AGREES", outer=6))
    packet[8:24] = bytes.fromhex("20010db8aaaabbbbccccddddeeee0004")
    address = "2001:db8:aaaa:bbbb:cccc:dddd:eeee:4"
    of_packets(file, [bytes(packet)])
    for width in (100, 120):
        assert address in as_text(file, width=width).split("VTEP")[0]
    folded = as_text(file, width=80).split("VTEP")[0]
    assert address not in folded
    assert max(map(len, folded.splitlines()[1:])) <= 80


def test_plain_packets_have_no_inner_layer(file: Path) -> None:
    packets = [in_state(segment(4, "tcp"), 4, "tcp", "PARTIAL"), in_state(segment(4, "udp"), 4, "udp", "ABSENT")]
    packets += [in_state(segment(4, "tcp"), 4, "tcp", "WRONG"), bytes(segment(4, "tcp"))[:-1], b"\x45"]
    file.write_bytes(pcap(packets, link_type=101))
    text = as_text(file, plain=True)
    assert "checksum never finished" in flat(text)
    assert "unfinished checksums in 1 of" in flat(text)
    assert "inner" not in text


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "fixer", "scan", *arguments],
        capture_output=True,
        check=False,
        env=os.environ | {"COLUMNS": "100"} | environment,
    )


@pytest.mark.parametrize(
    "environment", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}]
)
def test_what_is_not_utf8_gets_ascii(environment: dict[str, str]) -> None:
    for more in ([], ["--show", "1"]):
        done = command(str(SWARM), *more, **environment)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.isascii()
        assert b"179e" in done.stdout


def test_a_reader_that_has_enough(file: Path) -> None:
    """`fixer scan … | head -1`: as a shell reports a command that SIGPIPE ended."""
    file.write_bytes(pcap([from_vtep(n, tunnelled("PARTIAL", "ZERO")) for n in range(100)], link_type=101))
    for more in ([], ["--json"]):
        read, write = os.pipe()
        os.close(read)
        with os.fdopen(write, "wb") as pipe:
            done = subprocess.run(
                [sys.executable, "-m", "fixer", "scan", str(file), *more], stdout=pipe, stderr=subprocess.PIPE
            )
        assert (done.returncode, done.stderr) == (141, b"")


def test_who_pastes_is_told_how_to_end() -> None:
    """On a terminal, from which `fixer scan -` reads."""
    master, terminal = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "fixer", "scan", "-"], stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as scanning:
        os.close(terminal)
        dump = "".join(
            f"\t0x{at:04x}:  {SWARM.read_bytes()[40:150][at : at + 16].hex(' ', 2)}\n" for at in range(0, 110, 16)
        )
        os.write(master, dump.encode() + b"\x04")  # Ctrl-D at the beginning of a line
        out, said = scanning.communicate(timeout=30)
        os.close(master)
    assert b"then Ctrl-D" in said
    assert out.startswith(b"standard input: 1 frame, 1 VXLAN")


def test_a_files_name_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    for name in (b"\x1b[2J.pcap", b"\xff\x9b31m", b"two\nlines", "\u202egnp.exe".encode()):
        file = os.fsencode(tmp_path) + b"/" + name
        Path(os.fsdecode(file)).write_bytes(SWARM.read_bytes()[:-1])
        for more in ([], ["--show", "9"], ["--write", os.fsdecode(file) + ".out"]):
            done = command(os.fsdecode(file), *more)
            for said in (done.stdout, done.stderr):
                assert all(line.isprintable() for line in said.decode().splitlines()), said
            assert done.stderr.count(b"\n") == 1
