"""A capture however it is packed, from a file or a pipe; and what is said of one that is not read."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import random
import shlex
import shutil
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib
from pathlib import Path

import pytest
from support.captures import ethernet, interface, pcap, section
from support.packets import tunnelled

from fixer.capture import source
from fixer.capture.open import Capture
from fixer.errors import CaptureDamaged, FileUnreadable

NOT_SANITIZED = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
PLAIN = pcap([ethernet(tunnelled("PARTIAL", "AGREES", payload=random.Random(n).randbytes(40))) for n in range(500)])
PACKED = {"gz": gzip.compress(PLAIN), "bz2": bz2.compress(PLAIN), "xz": lzma.compress(PLAIN)}
ZSTD = b"\x28\xb5\x2f\xfd" + bytes(20)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "in.pcap"


def read(path: Path) -> tuple[int, str]:
    with Capture(path) as capture:
        return len(list(capture)), capture.warning


@pytest.mark.parametrize("kind", PACKED)
def test_each_way_to_pack(file: Path, kind: str) -> None:
    file.write_bytes(PACKED[kind])
    assert read(file) == (500, "")
    packed = PACKED[kind]
    file.write_bytes(packed[:-30])
    with pytest.raises(CaptureDamaged, match="stream is cut short"):
        read(file)
    file.write_bytes(packed[: len(packed) // 2] + bytes(40) + packed[len(packed) // 2 + 40 :])
    with pytest.raises(CaptureDamaged):  # by the stream's own sums, or before that by a record that cannot be
        read(file)


@pytest.mark.parametrize("kind", PACKED)
def test_what_stands_behind_a_packed_stream(file: Path, kind: str) -> None:
    whole = PACKED[kind]
    file.write_bytes(whole + b"rotated by a script\n")
    count, warning = read(file)
    assert count == 500
    assert "bytes behind the end" in warning
    file.write_bytes(whole + bytes(100_000))  # padding, as tapes and xz have it
    assert read(file) == (500, "")
    # Two streams in a row are one file: `cat a.gz b.gz`.
    pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[kind]
    file.write_bytes(pack(PLAIN[:1000]) + bytes(8 if kind == "xz" else 0) + pack(PLAIN[1000:]))
    assert read(file) == (500, "")


def test_zstd_where_python_has_it_and_else_the_command(file: Path) -> None:
    file.write_bytes(ZSTD)
    try:
        source.PACKINGS[-1].stream()
    except ImportError:
        with pytest.raises(FileUnreadable, match="zstd") as error:
            Capture(file)
        assert f"`zstd -dc {file} | fixer scan -`" in str(error.value)
        return
    with pytest.raises(CaptureDamaged, match="zstd stream is damaged"):
        Capture(file)


def test_xz_that_asks_for_gigabytes_is_refused(file: Path) -> None:
    # The dictionary's size is one byte of the block header (§5.3.1 of the file format), under the header's CRC32.
    packed = bytearray(lzma.compress(PLAIN))
    end = 12 + (packed[12] + 1) * 4
    packed[packed.index(b"\x21\x01", 12, end) + 2] = 38  # 2 GiB
    packed[end - 4 : end] = zlib.crc32(packed[12 : end - 4]).to_bytes(4, "little")
    file.write_bytes(packed)
    with pytest.raises(CaptureDamaged, match="xz stream"):
        read(file)


ERF = b"".join(
    struct.pack("<Q", (1_700_000_000 + n) << 32) + struct.pack(">BBHHH", 2, 4, 80, 0, 60) + bytes(64) for n in range(3)
)
OTHERS = {
    "snoop": b"snoop\0\0\0\0\0\0\2\0\0\0\4" + bytes(60),
    "ERF": ERF,
    "Network Monitor": b"GMBU" + bytes(60),
    "lz4": b"\x04\x22\x4d\x18" + bytes(60),
    "zip": b"PK\x03\x04" + bytes(60),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_format_that_is_not_read_is_named_with_the_command_that_converts_it(tmp_path: Path, name: str) -> None:
    file = tmp_path / "my capture"
    file.write_bytes(OTHERS[name])
    with pytest.raises(FileUnreadable, match=name) as error:
        Capture(file)
    command = str(error.value).split("`")[1]
    assert shlex.quote(str(file)) in command
    assert command.endswith(("capture.pcap", "| fixer scan -"))


def test_random_bytes_are_not_taken_for_erf(file: Path) -> None:
    for seed in range(300):
        file.write_bytes(b"\xff\0" + random.Random(seed).randbytes(300))
        with pytest.raises(FileUnreadable, match="neither pcap nor pcapng"):
            Capture(file)


@pytest.mark.skipif(shutil.which("editcap") is None, reason="editcap is not installed")
def test_the_command_does_what_it_is_named_for(tmp_path: Path) -> None:
    raw = PLAIN[24 + 16 :][:92]
    snoop = b"snoop\0\0\0" + struct.pack(">II", 2, 4) + struct.pack(">IIIIII", 92, 92, 116, 0, 1, 2) + raw
    file = tmp_path / "in.snoop"
    file.write_bytes(snoop)
    with pytest.raises(FileUnreadable) as error:
        Capture(file)
    command = shlex.split(str(error.value).split("`")[1])
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, env=NOT_SANITIZED)
    assert read(tmp_path / "capture.pcap")[0] == 1


def test_standard_input(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (PLAIN, *PACKED.values()):
        file.write_bytes(data)
        with file.open() as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            assert read(Path("-")) == (500, "")
            os.fstat(stdin.fileno())  # is still open
    with file.open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        stdin.read = None  # type: ignore[method-assign, assignment]
        os.lseek(stdin.fileno(), 0, os.SEEK_END)
        with pytest.raises(FileUnreadable, match="standard input: empty"):
            Capture(Path("-"))


def test_a_pipe_that_gives_a_little_at_a_time(file: Path) -> None:
    """And longer in all than a pipe holds."""
    file.write_bytes(PLAIN)
    feed = "import sys, time\nwith open(sys.argv[1], 'rb') as f:\n"
    feed += "    while data := f.read(7919): sys.stdout.buffer.write(data); sys.stdout.flush(); time.sleep(0.01)"
    with subprocess.Popen([sys.executable, "-c", feed, str(file)], stdout=subprocess.PIPE) as feeder:
        done = subprocess.run(
            [sys.executable, "-m", "fixer", "scan", "--json", "-"], stdin=feeder.stdout, capture_output=True, check=True
        )
    assert b'"frames": 500' in done.stdout


def test_five_million_interfaces_in_a_small_file_take_no_memory(file: Path) -> None:
    blocks = interface() * 50_000
    with gzip.open(file, "wb", compresslevel=6) as out:
        out.write(section())
        for _ in range(100):
            out.write(blocks)
    assert file.stat().st_size < 1_000_000
    begun = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(CaptureDamaged, match="more than 16384 interfaces"):
            read(file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 << 20
    assert time.monotonic() - begun < 10
