"""Capture files in, frames out; damage is found wherever it is; a written file is whole or absent."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import resource
import signal
import struct
import zlib
from pathlib import Path

import pytest
from support.captures import (
    ETHERNET,
    IP,
    WHEN_NS,
    block,
    cooked,
    cooked2,
    enhanced,
    ethernet,
    interface,
    pcap,
    section,
    simple,
)

from fixer.capture.link import NOT_IP, find_ip
from fixer.capture.open import Capture, CaptureWriter, Frame
from fixer.errors import CaptureDamaged, FileUnreadable, SystemRefused


def frames(path: Path) -> list[Frame]:
    with Capture(path) as capture:
        return list(capture)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "in.pcap"


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("nano", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_pcap(file: Path, order: str, nano: bool, zipped: bool) -> None:
    data = pcap([ethernet(IP), ethernet(IP)[:20]], order=order, nano=nano, wire_lengths=[34, 1500])
    file.write_bytes(gzip.compress(data) if zipped else data)
    first, second = frames(file)
    when = WHEN_NS if nano else WHEN_NS // 1000 * 1000
    assert first == Frame(ethernet(IP), 34, when, 1, 14, None)
    assert second == Frame(ethernet(IP)[:20], 1500, when + 10**9, 1, 14, None)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng(file: Path, order: str, zipped: bool) -> None:
    data = b"".join(
        [
            section(order),
            interface(1, order=order),
            interface(101, resolution=b"\x06", order=order),
            block(0x0BAD, b"an unknown block is stepped over", order),
            enhanced(ethernet(IP), flags=1, order=order),
            enhanced(ethernet(IP), flags=2, wire=9000, order=order),
            enhanced(ethernet(IP), flags=0, order=order),
            enhanced(IP, ticks=WHEN_NS // 1000, number=1, order=order),
            simple(ethernet(IP), order),
        ]
    )
    file.write_bytes(gzip.compress(data) if zipped else data)
    coming, going, unknown, raw, untimed = frames(file)
    assert coming == Frame(ethernet(IP), 34, WHEN_NS, 1, 14, False)
    assert going == Frame(ethernet(IP), 9000, WHEN_NS, 1, 14, True)
    assert unknown.outgoing is None
    assert raw == Frame(IP, 20, WHEN_NS // 1000 * 1000, 101, 0, None)
    assert untimed == Frame(ethernet(IP), 34, 0, 1, 14, None)


def test_pcapng_sections_may_change_byte_order(file: Path) -> None:
    file.write_bytes(b"".join(section(o) + interface(order=o) + enhanced(ethernet(IP), order=o) for o in "<><"))
    with Capture(file) as capture:
        # scapy goes on counting interfaces across sections; each packet here names its section's first one.
        assert [frame.data for frame in capture] == [ethernet(IP)] * 3


def test_pcapng_binary_clock_and_no_snapshot_limit(file: Path) -> None:
    file.write_bytes(
        section()
        + interface(limit=0, resolution=b"\x94")
        + enhanced(ethernet(IP), ticks=3 << 19)
        + simple(ethernet(IP))
    )
    timed, untimed = frames(file)
    assert timed.when_ns == 1_500_000_000  # 2^20 ticks a second
    assert untimed.data == ethernet(IP)


@pytest.mark.parametrize(
    ("link_type", "frame", "at", "outgoing"),
    [
        (1, ethernet(IP), 14, None),
        (1, ethernet(IP, (0x8100, 7)), 18, None),
        (1, ethernet(IP, (0x88A8, 7), (0x8100, 9)), 22, None),
        (1, ethernet(bytes([0x60]) + bytes(39)), 14, None),
        (1, ETHERNET + b"\x08\x06" + bytes(28), NOT_IP, None),
        (1, ETHERNET + b"\x00\x26" + bytes(38), NOT_IP, None),  # 802.3: a length, not an Ethertype
        (1, ETHERNET + b"\x08", NOT_IP, None),
        (1, ETHERNET + b"\x08\x00", NOT_IP, None),
        (1, ETHERNET + b"\x81\x00\x00\x07", NOT_IP, None),
        (1, b"", NOT_IP, None),
        (113, cooked(IP, 0), 16, False),
        (113, cooked(IP, 4), 16, True),
        (113, cooked(bytes.fromhex("00070800") + IP, 4, 0x8100), 20, True),
        (113, cooked(IP, 0, 0x0806), NOT_IP, False),
        (113, b"\x00\x04", NOT_IP, True),
        (276, cooked2(IP, 0), 20, False),
        (276, cooked2(IP, 4), 20, True),
        (276, b"\x08\x00", NOT_IP, False),
        (12, IP, 0, None),
        (101, IP, 0, None),
        (228, IP, 0, None),
        (229, bytes([0x60]) + bytes(39), 0, None),
        (101, b"", NOT_IP, None),
        (0, b"\x02\x00\x00\x00" + IP, 4, None),
        (0, b"\x00\x00\x00\x1e" + IP, 4, None),
        (0, b"\x00\x00\x00\x07" + IP, NOT_IP, None),
        (0, b"\x02\x00", NOT_IP, None),
        (108, b"\x00\x00\x00\x02" + IP, 4, None),
    ],
)
def test_link_layers(link_type: int, frame: bytes, at: int, outgoing: bool | None) -> None:
    assert find_ip(link_type, frame) == (at, outgoing)


def test_big_tcp_frames_are_not_cut(file: Path) -> None:
    """scapy's own iterator ends a frame at 65,535 bytes."""
    for size in (200_000, 300_000):  # scapy 2.8 cuts pcap records at 262,140 bytes wherever they are read
        frame = ethernet(IP + bytes(size))
        file.write_bytes(pcap([frame, ethernet(IP)]))
        assert [len(f.data) for f in frames(file)] == [len(frame), 34]
        file.write_bytes(section() + interface() + enhanced(frame) + enhanced(ethernet(IP)))
        assert [len(f.data) for f in frames(file)] == [len(frame), 34]


def test_link_type_without_its_frame_check_bits(file: Path) -> None:
    file.write_bytes(pcap([ethernet(IP)], link_type=1 | 0x24000000))
    assert frames(file)[0].link_type == 1


PCAP = pcap([ethernet(IP), ethernet(IP), ethernet(IP)])
PCAP_ENDS = [24 + 50 * n for n in range(4)]
PCAPNG_BLOCKS = [section() + interface(), enhanced(ethernet(IP)), enhanced(ethernet(IP)), simple(ethernet(IP))]
PCAPNG = b"".join(PCAPNG_BLOCKS)
PCAPNG_ENDS = list(itertools.accumulate(len(part) for part in PCAPNG_BLOCKS))


@pytest.mark.parametrize(("data", "ends"), [(PCAP, PCAP_ENDS), (PCAPNG, PCAPNG_ENDS)], ids=["pcap", "pcapng"])
def test_a_file_cut_anywhere_says_so(file: Path, data: bytes, ends: list[int]) -> None:
    assert ends[-1] == len(data)
    for cut in range(len(data) + 1):
        file.write_bytes(data[:cut])
        whole = sum(end <= cut for end in ends[1:])
        seen: list[Frame] = []
        if cut < 4:
            with pytest.raises(FileUnreadable):
                Capture(file)
        elif cut in (*ends, len(section()) * (data is PCAPNG)):
            assert len(frames(file)) == whole
        else:
            with pytest.raises(CaptureDamaged) as damage, Capture(file) as capture:
                seen.extend(capture)
            assert len(seen) == whole
            assert "\n" not in str(damage.value)
            assert str(file) in str(damage.value)


def test_a_gzip_stream_cut_or_damaged_anywhere_says_so(file: Path) -> None:
    zipped = gzip.compress(PCAP)
    for cut in range(18, len(zipped)):
        file.write_bytes(zipped[:cut])
        with pytest.raises(CaptureDamaged, match="gzip"):
            frames(file)
    for at in range(10, len(zipped)):
        damaged = zipped[:at] + bytes([zipped[at] ^ 0x40]) + zipped[at + 1 :]
        file.write_bytes(damaged)
        with contextlib.suppress(OSError, EOFError, zlib.error):
            if gzip.decompress(damaged) == PCAP:
                continue  # a bit that deflate does not use
        with pytest.raises((CaptureDamaged, FileUnreadable)):
            frames(file)


@pytest.mark.parametrize("data", [PCAP, PCAPNG], ids=["pcap", "pcapng"])
def test_no_byte_can_make_it_fail_otherwise(file: Path, data: bytes) -> None:
    """Every byte of the headers set to 0, 255 and its complement: frames, or one of our errors, and nothing else."""
    for at in range(len(data)):
        for value in (0, 0xFF, data[at] ^ 0xFF):
            file.write_bytes(data[:at] + bytes([value]) + data[at + 1 :])
            with contextlib.suppress(CaptureDamaged, FileUnreadable):
                frames(file)


def test_a_record_of_four_gigabytes_is_not_believed(file: Path) -> None:
    file.write_bytes(PCAP + struct.pack("<IIII", 0, 0, 0xFFFFFFFF, 0xFFFFFFFF) + bytes(100))
    with pytest.raises(CaptureDamaged, match="after frame 3"):
        frames(file)
    file.write_bytes(PCAPNG + struct.pack("<II", 6, 0xFFFFFFF0) + bytes(100))
    with pytest.raises(CaptureDamaged, match="after frame 3"):
        frames(file)


def test_a_packet_of_an_unknown_interface_is_damage(file: Path) -> None:
    file.write_bytes(section() + interface() + enhanced(ethernet(IP), number=4))
    with pytest.raises(CaptureDamaged, match="interface 4 of 1"):
        frames(file)


def test_what_is_no_capture(tmp_path: Path, file: Path) -> None:
    with pytest.raises(FileUnreadable, match="no such file"):
        Capture(file)
    with pytest.raises(FileUnreadable, match="is a directory"):
        Capture(tmp_path)
    for data, words in [
        (b"", "empty"),
        (b"hello, this is a letter", "not a capture"),
        (gzip.compress(b"hello, this is a letter"), "not a capture"),
        (gzip.compress(b""), "empty"),
        (pcap([b"abc"], link_type=127), "link type 127"),
    ]:
        file.write_bytes(data)
        with pytest.raises(FileUnreadable, match=words) as error:
            frames(file)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("link_type", [0, 1, 113, 276, 101])
def test_what_is_written_is_read_again(tmp_path: Path, link_type: int) -> None:
    out = tmp_path / "out.pcap"
    frame = Frame(b"\x02\x00\x00\x00" + IP, 9000, WHEN_NS, link_type, 4, None)
    with CaptureWriter(out, link_type) as writer:
        writer.write(frame, frame.data)
        writer.write(frame, bytearray(frame.data))
        assert not out.exists()  # it has its name only when it is complete
    again = [(f.data, f.wire_length, f.when_ns, f.link_type) for f in frames(out)]
    assert again == [(frame.data, 9000, WHEN_NS, link_type)] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["out.pcap"]


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out.pcap"
    out.write_bytes(b"what stood there before")

    def interrupted() -> None:
        with CaptureWriter(out, 1) as writer:
            writer.write(Frame(IP, 20, 0, 1, 14, None), IP)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert out.read_bytes() == b"what stood there before"
    assert [path.name for path in tmp_path.iterdir()] == ["out.pcap"]


def test_a_name_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(SystemRefused, match="no such file"):
        CaptureWriter(tmp_path / "absent" / "out.pcap", 1)
    with pytest.raises(SystemRefused, match="not a regular file"):
        CaptureWriter(Path("/dev/null"), 1)
    with pytest.raises(SystemRefused, match="not a regular file"):
        CaptureWriter(tmp_path, 1)


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    frame = Frame(bytes(3000), 3000, 0, 1, 14, None)

    def fill() -> None:
        with CaptureWriter(tmp_path / "out.pcap", 1) as writer:
            for _ in range(100):
                writer.write(frame, frame.data)

    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, old[1]))
    try:
        with pytest.raises(SystemRefused, match="file too large"):
            fill()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())
