"""Hex dumps as people paste them are read as the packets that they were made of."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.captures import IP, cooked, cooked2, ethernet, pcap
from support.packets import tunnelled

from fixer.capture.open import Capture
from fixer.errors import CaptureDamaged, FileUnreadable

PACKETS = [
    tunnelled("PARTIAL", "AGREES"),
    tunnelled("VERIFIES", "ZERO", inner=6, outer=6),
    tunnelled("PARTIAL", "ZERO", payload=b"abcd ef01 2345 face"),  # its text looks like more bytes
    tunnelled("VERIFIES", "GOOD", payload=b"face"),
]
SUMMARY = "12:30:01.123456 IP 192.0.2.4.60690 > 192.0.2.5.4789: VXLAN, flags [I] (0x08), vni 4097\n"


def ascii_of(data: bytes) -> str:
    return "".join(chr(each) if 32 < each < 127 else "." for each in data)


def tcpdump(data: bytes, text: bool = False) -> str:
    """As print-ascii.c prints it: `-x`, and `-X` with `text`."""
    out = SUMMARY
    for at in range(0, len(data), 16):
        line = data[at : at + 16]
        groups = " ".join(line[n : n + 2].hex() for n in range(0, len(line), 2))
        out += f"\t0x{at:04x}:  " + (f"{groups:<39}  {ascii_of(line)}" if text else groups) + "\n"
    return out


def tshark(data: bytes) -> str:
    """As `tshark -x` prints it."""
    lines = [data[at : at + 16] for at in range(0, len(data), 16)]
    return "".join(f"{16 * n:04x}  {line.hex(' '):<47}   {ascii_of(line)}\n" for n, line in enumerate(lines)) + "\n"


FORMS: dict[str, Callable[[bytes], str]] = {
    "tcpdump -x": tcpdump,
    "tcpdump -X": lambda data: tcpdump(data, text=True),
    "quoted": lambda data: "".join(f"> {line}" for line in tcpdump(data, text=True).splitlines(keepends=True)),
    "pasted": lambda data: tcpdump(data, text=True).replace("\t", "        ").replace("\n", "\r\n"),
    "capitals": lambda data: tcpdump(data).upper().replace("0X", "0x"),
    "tshark -x": tshark,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pasted.txt"


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_a_dump(file: Path, form: str) -> None:
    file.write_text("Hello,\nthis is what I see:\n\n" + "".join(map(FORMS[form], PACKETS)) + "\nRegards\n", newline="")
    with Capture(file) as capture:
        assert [frame.data for frame in capture] == PACKETS
    assert capture.frames == len(PACKETS)


@pytest.mark.parametrize(
    ("data", "link_type", "at"),
    [
        (PACKETS[0], 101, 0),
        (PACKETS[1], 101, 0),
        (ethernet(PACKETS[0]), 1, 14),
        (ethernet(PACKETS[1], (0x8100, 5)), 1, 18),
        (cooked(PACKETS[0]), 113, 16),
        (cooked2(PACKETS[1], ethertype=0x86DD), 276, 20),
        (b"\x45" + ethernet(PACKETS[0])[1:], 1, 14),  # an address that looks like the beginning of IPv4
        (PACKETS[0][:10] + b"\xab\xcd" + PACKETS[0][12:], 101, 0),  # its header checksum is wrong
        (ethernet(PACKETS[0])[:12] + b"\x08\x06" + bytes(28), 1, -1),
    ],
)
def test_the_link_layer_is_found_out(file: Path, data: bytes, link_type: int, at: int) -> None:
    file.write_text(tcpdump(data))
    with Capture(file) as capture:
        (frame,) = capture
    assert (frame.data, frame.link_type, frame.ip_at) == (data, link_type, at)


def test_a_dump_that_shows_less_than_there_was_is_a_copy_cut_short(file: Path) -> None:
    for packet in PACKETS[:2]:
        file.write_text(tcpdump(packet[:64]))
        with Capture(file) as capture:
            (frame,) = capture
        assert (len(frame.data), frame.wire_length) == (64, len(packet))


def test_a_line_that_is_missing_is_damage_and_what_stands_before_is_read(file: Path) -> None:
    lines = tcpdump(PACKETS[0]).splitlines(keepends=True)
    file.write_text(tcpdump(PACKETS[1]) + "".join(lines[:3] + lines[4:]))
    with Capture(file) as capture:
        frames = iter(capture)
        assert next(frames).data == PACKETS[1]
        with pytest.raises(CaptureDamaged, match=r"after frame 1: .*0x0030 where 0x0020 was due"):
            next(frames)


def test_text_without_a_dump(file: Path) -> None:
    for words in (SUMMARY * 3, "deadbeef\n0010 is sixteen\n", "0040  45 00\n", "Hello\n"):
        file.write_text(words)
        with pytest.raises(FileUnreadable, match="`tcpdump -xx` prints one"):
            Capture(file)


def test_a_dump_without_an_end_takes_no_memory(file: Path) -> None:
    file.write_text("".join(f"\t0x{at:04x}:  {'4500 ' * 8}\n" for at in range(0, 1 << 19, 16)))
    with pytest.raises(CaptureDamaged, match="longer than"), Capture(file) as capture:
        list(capture)
    file.write_text(tcpdump(IP) + "x" * (1 << 20) + "\n" + tcpdump(IP))
    with Capture(file) as capture:
        assert [frame.data for frame in capture] == [IP, IP]


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=300) | st.text("0123456789abcdefx: \n", max_size=300))
def test_no_text_can_make_it_fail_otherwise(tmp_path_factory: pytest.TempPathFactory, words: str) -> None:
    file = tmp_path_factory.getbasetemp() / "any.txt"
    file.write_text(tcpdump(IP) + words, errors="surrogatepass", newline="")
    try:
        with Capture(file) as capture:
            assert next(iter(capture)).data[:20] == IP
            list(capture)
    except (CaptureDamaged, FileUnreadable):
        pass


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_what_tshark_prints(tmp_path: Path, file: Path) -> None:
    (tmp_path / "in.pcap").write_bytes(pcap([ethernet(packet) for packet in PACKETS]))
    clean = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # of the sanitizers
    command = ["tshark", "-x", "-r", str(tmp_path / "in.pcap")]
    file.write_bytes(subprocess.run(command, capture_output=True, check=True, env=clean).stdout)
    with Capture(file) as capture:
        assert [frame.data for frame in capture] == [ethernet(packet) for packet in PACKETS]
