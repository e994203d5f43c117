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
from hypothesis import given, settings
from hypothesis import strategies as st
from support.captures import (
    ETHERNET,
    IP,
    WHEN_NS,
    Read,
    block,
    cooked,
    cooked2,
    enhanced,
    ethernet,
    interface,
    modified,
    obsolete,
    option,
    pcap,
    read_pcap,
    read_pcapng,
    section,
    simple,
)

from fixer.capture.frames import LATEST_NS, Frame
from fixer.capture.link import NOT_IP, find_ip
from fixer.capture.open import Capture
from fixer.capture.write import CaptureWriter
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


def test_pcapng_sections_have_interfaces_of_their_own(file: Path) -> None:
    """Number 0 of each section, in its byte order: an earlier section's would name another link layer."""
    file.write_bytes(
        b"".join(
            section(order) + interface(link_type, order=order) + enhanced(data, order=order)
            for order, link_type, data in [("<", 1, ethernet(IP)), (">", 113, cooked(IP, 4)), ("<", 101, IP)]
        )
    )
    assert [(f.data, f.link_type, f.ip_at) for f in frames(file)] == [
        (ethernet(IP), 1, 14),
        (cooked(IP, 4), 113, 16),
        (IP, 101, 0),
    ]
    file.write_bytes(section() + interface() + section() + enhanced(ethernet(IP)))
    with pytest.raises(CaptureDamaged, match="interface 0 of 0"):
        frames(file)


def test_frames_of_a_link_type_that_is_not_read_are_counted_and_passed_over(file: Path) -> None:
    usb = enhanced(b"\0" * 64, number=1)
    file.write_bytes(section() + interface(1) + interface(220) + usb + enhanced(ethernet(IP)) + usb)
    with Capture(file) as capture:
        assert [(f.link_type, f.ip_at) for f in capture] == [(220, NOT_IP), (1, 14), (220, NOT_IP)]
    assert (capture.frames, capture.unread) == (3, {220: 2})


@pytest.mark.parametrize("order", ["<", ">"])
def test_modified_pcap(file: Path, order: str) -> None:
    file.write_bytes(modified([(ethernet(IP), 0), (ethernet(IP)[:20], 4)], order))
    coming, going = frames(file)
    when = WHEN_NS // 1000 * 1000
    assert coming == Frame(ethernet(IP), 34, when, 1, 14, False)
    assert going == Frame(ethernet(IP)[:20], 20, when, 1, 14, True)


def test_pcapng_packets_of_the_obsolete_kind(file: Path) -> None:
    file.write_bytes(section() + interface(1) + interface(101) + obsolete(IP, number=1))
    assert frames(file) == [Frame(IP, 20, WHEN_NS, 101, 0, None)]


def test_pcapng_lengths_without_their_padding(file: Path) -> None:
    """Some writers forget it in both lengths."""
    packet = enhanced(ethernet(IP))  # 34 bytes and 2 of padding
    total = struct.pack("<I", len(packet) - 2)
    file.write_bytes(section() + interface() + (packet[:4] + total + packet[8:-4] + total) * 2)
    assert [frame.data for frame in frames(file)] == [ethernet(IP)] * 2


@pytest.mark.parametrize(
    ("resolution", "ticks", "offset", "when_ns"),
    [
        (b"\x06", 5, 0, 5000),
        (b"\x00", 7, 0, 7 * 10**9),
        (b"\x09", WHEN_NS, 3600, WHEN_NS + 3600 * 10**9),
        (b"\x09", WHEN_NS, -3600, WHEN_NS - 3600 * 10**9),
        (b"\x09", 5, -3600, 0),
        (b"\x09", 5, -(1 << 63), 0),
        (b"\x09", 5, (1 << 63) - 1, LATEST_NS),
        (b"\x00", (1 << 64) - 1, 0, LATEST_NS),
        (b"\x0c", 1_700_000_000_123_456_789, 0, 1_700_000_000_123_456),
        (b"\x13", (1 << 64) - 1, 0, 1_844_674_407),
        (b"\x14", 1, 0, 0),
        (b"\xa0", 3 << 31, 0, 1_500_000_000),
        (b"\xbf", 3 << 62, 0, 1_500_000_000),
        (b"\xc0", 1, 0, 0),
        (b"\xff", 1, 0, 0),
    ],
)
def test_pcapng_clocks(file: Path, resolution: bytes, ticks: int, offset: int, when_ns: int) -> None:
    described = interface(resolution=resolution, options=option(14, struct.pack("<q", offset)))
    file.write_bytes(section() + described + enhanced(ethernet(IP), ticks=ticks))
    assert abs(frames(file)[0].when_ns - when_ns) <= 1


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


def read(path: Path) -> tuple[list[Read], bool]:
    """As the twins in support.captures read it."""
    found: list[Read] = []
    try:
        with Capture(path) as capture:
            found.extend((f.data, f.wire_length, f.when_ns, f.link_type, f.outgoing) for f in capture)
    except CaptureDamaged:
        return found, True
    except FileUnreadable:  # nothing of a link type that is read
        pass
    return found, False


def agrees(mine: tuple[list[Read], bool], twins: tuple[list[Read], bool]) -> bool:
    """Whether two have read the same; times to a nanosecond, directions but for what the link layer says."""
    close = all(
        (a[:2], a[3:]) == (b[:2], b[3:]) and abs(a[2] - b[2]) <= (1 if b[2] < 1 << 62 else 1 << 62)
        for a, b in zip(mine[0], twins[0], strict=False)
    )
    return close and len(mine[0]) == len(twins[0]) and mine[1] == twins[1]


@st.composite
def sections(draw: st.DrawFn) -> bytes:
    """A pcapng file, well made."""
    out = b""
    for _ in range(draw(st.integers(1, 3))):
        order = draw(st.sampled_from("<>"))
        out += section(order)
        for _ in range(draw(st.integers(1, 3))):
            offset = option(14, struct.pack(order + "q", draw(st.sampled_from([0, 5, -5, 1 << 40]))), order)
            resolution = bytes([draw(st.sampled_from([0, 3, 6, 9, 12, 19, 20, 0x80, 0x8A, 0xA2, 0xBF, 0xC0]))])
            out += interface(
                draw(st.sampled_from([1, 101, 220])),
                draw(st.sampled_from([0, 20, 96])),
                resolution,
                order,
                draw(st.sampled_from([b"", offset])),
            )
            frame = draw(st.binary(max_size=50))
            out += draw(
                st.sampled_from(
                    [
                        enhanced(frame, draw(st.integers(0, 1 << 62)), flags=draw(st.integers(0, 3)), order=order),
                        obsolete(frame, draw(st.integers(0, 1 << 62)), order=order),
                        simple(frame, order),
                        block(0x0BAD, frame, order),
                    ]
                )
            )
    return out


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_pcapng_is_read_as_its_twin_reads_it(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    file = tmp_path_factory.getbasetemp() / "in.pcapng"
    made = bytearray(data.draw(sections()))
    for _ in range(data.draw(st.integers(0, 3))):
        made[data.draw(st.integers(4, len(made) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(made)
    assert agrees(read(file), read_pcapng(bytes(made)))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_pcap_is_read_as_its_twin_reads_it(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    file = tmp_path_factory.getbasetemp() / "in.pcap"
    bodies = data.draw(st.lists(st.binary(max_size=50), max_size=5))
    order, nano = data.draw(st.sampled_from("<>")), data.draw(st.booleans())
    made = bytearray(
        modified([(body, len(body) % 5) for body in bodies], order)
        if data.draw(st.booleans())
        else pcap(bodies, order=order, nano=nano)
    )
    for _ in range(data.draw(st.integers(0, 3))):
        made[data.draw(st.integers(4, len(made) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(made)
    assert agrees(read(file), read_pcap(bytes(made)))


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
        writer.write(frame)
        writer.write(frame)
        assert not out.exists()  # it has its name only when it is complete
    again = [(f.data, f.wire_length, f.when_ns, f.link_type) for f in frames(out)]
    assert again == [(frame.data, 9000, WHEN_NS, link_type)] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["out.pcap"]


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out.pcap"
    out.write_bytes(b"what stood there before")

    def interrupted() -> None:
        with CaptureWriter(out, 1) as writer:
            writer.write(Frame(IP, 20, 0, 1, 14, None))
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
                writer.write(frame)

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
