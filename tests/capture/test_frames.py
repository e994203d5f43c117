"""Frames counted in compiled code say what each says by itself, whatever file they come from and however it is cut.

And nothing that can stand in a file makes the counting read beyond it, or take memory for what is not there.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from support import shared
from support.captures import cooked, cooked2, enhanced, ethernet, interface, pcap, section
from support.packets import in_state, segment, talk, tunnelled

from fixer import scan
from fixer.capture import open as capture
from fixer.capture.frames import Frames
from fixer.capture.link import NOT_IP, LinkType
from fixer.capture.pcap import LARGEST_RECORD, Pcap
from fixer.capture.pcapng import PcapNg
from fixer.capture.source import PIECE
from fixer.config import Settings
from fixer.datapath.pipeline import Pipeline
from fixer.findings import tally
from fixer.findings.census import Census
from fixer.findings.tally import Tally
from fixer.scan import as_object, scan_file
from fixer.screen.scan import show

STATES = [(inner, outer) for inner in ("VERIFIES", "PARTIAL", "WRONG") for outer in ("GOOD", "AGREES", "ZERO", "WRONG")]
PACKETS = [
    *(tunnelled(*state, inner=version, outer=version) for state in STATES for version in (4, 6)),
    *(talk(flags, back, state) for flags in ("S", "A") for back in (False, True) for state in ("VERIFIES", "PARTIAL")),
    tunnelled("ABSENT", "GOOD", "udp"),
    tunnelled("PARTIAL", "PARTIAL", payload=bytes(10000)),
    tunnelled("VERIFIES", "GOOD", port=53),
    tunnelled("VERIFIES", "GOOD")[:50],
    in_state(segment(4, "tcp"), 4, "tcp", "PARTIAL"),
]
FRAMES = [ethernet(packet) for packet in PACKETS] + [b"", b"\x01", bytes(60), ethernet(PACKETS[0], (0x8100, 5))]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "in.pcap"


def said(path: Path, *, plain: bool = False) -> tuple[str, str]:
    """All that `scan` says of a file, as JSON and as text."""
    report = scan_file(path, Settings(plain=plain))
    out = io.StringIO()
    show(report, Console(file=out, width=100))
    return json.dumps(as_object(report)), out.getvalue()


def said_briefly(path: Path) -> str:
    return json.dumps(as_object(scan_file(path, Settings())))


def judge_each(frames: Frames, pipeline: Pipeline, census: Census, tally: Tally) -> None:
    """`scan.judge`, a frame at a time and by way of Python."""
    for number in range(len(frames)):
        frame = frames[number]
        if frame.link_type not in list(LinkType):
            continue
        if census.full:
            tally.take(census)
        if frame.ip_at == NOT_IP:
            census.add_other()
            continue
        packet = bytearray(frame.data[frame.ip_at :])
        result = pipeline.examine(packet, frame.wire_length - frame.ip_at, when_ns=frame.when_ns)
        census.add(result, frame.outgoing, packet)


@contextmanager
def frame_by_frame() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "judge", judge_each)
        yield


def is_the_same_frame_by_frame(path: Path) -> bool:
    """Whether nothing depends on how a file is read; for many small files."""
    counted = said_briefly(path)
    with frame_by_frame():
        return said_briefly(path) == counted


@pytest.mark.parametrize("plain", [False, True])
def test_captures_of_others(plain: bool) -> None:
    for path in shared.captures():
        counted = said(path, plain=plain)
        with frame_by_frame():
            assert said(path, plain=plain) == counted, path.name


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("nano", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_form_of_a_file(file: Path, order: str, nano: bool, zipped: bool) -> None:
    lengths = [len(frame) + (100 if n % 7 == 0 else 0) for n, frame in enumerate(FRAMES)]
    lengths[5] = 1  # less than was captured: what was captured counts
    data = pcap(FRAMES * 3, order=order, nano=nano, wire_lengths=lengths * 3)
    file.write_bytes(gzip.compress(data) if zipped else data)
    for plain in (False, True):
        counted = said(file, plain=plain)
        assert json.loads(counted[0])["frames"] == 3 * len(FRAMES)
        with frame_by_frame():
            assert said(file, plain=plain) == counted


@pytest.mark.parametrize("link_type", list(LinkType))
def test_every_link_layer(file: Path, link_type: LinkType) -> None:
    frames = []
    for number, packet in enumerate(PACKETS):
        ethertype = 0x86DD if packet[0] >> 4 == 6 else 0x0800
        family = struct.pack("<I" if link_type is LinkType.BSD_LOOP else ">I", 2 if ethertype == 0x0800 else 30)
        direction = 4 if number % 3 else 0
        frames.append(
            {
                LinkType.ETHERNET: ethernet(packet),
                LinkType.SLL: cooked(packet, direction, ethertype),
                LinkType.SLL2: cooked2(packet, direction, ethertype),
                LinkType.BSD_LOOP: family + packet,
                LinkType.LOOP: family + packet,
            }.get(link_type, packet)
        )
    file.write_bytes(pcap(frames, link_type))
    counted = said(file)
    assert json.loads(counted[0])["repairable"]
    with frame_by_frame():
        assert said(file) == counted


def test_the_same_frames_as_pcapng(tmp_path: Path) -> None:
    file = tmp_path / "in"
    file.write_bytes(pcap(FRAMES, nano=True))
    counted = said(file)
    when = 1_700_000_000_123_456_789
    blocks = [enhanced(frame, when + number * 10**9) for number, frame in enumerate(FRAMES)]
    file.write_bytes(section() + interface() + b"".join(blocks))
    assert said(file) == counted


@pytest.mark.parametrize("block", [16, 17, 100, 1000, 20000])
def test_records_across_blocks(file: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_bytes(pcap(FRAMES * 2))
    whole = said(file)
    monkeypatch.setattr(capture, "BLOCK", block)
    assert said(file) == whole


def test_memory_for_one_kind_is_enough_to_count(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What became of a packet is not told of one that was taken out before."""
    file.write_bytes(pcap(FRAMES * 2))
    whole = json.loads(said(file)[0])
    monkeypatch.setattr(tally, "MOST_KINDS", 1)
    found = json.loads(said(file)[0])
    assert found.pop("findings")
    del whole["findings"]
    assert found == whole


def test_conversations_beyond_the_limit_prove_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def of(port: int) -> list[bytes]:
        states = ((False, "PARTIAL"), (True, "VERIFIES"))
        return [ethernet(talk("", back, state, "udp", port=port)) for back, state in states] * 2

    file.write_bytes(pcap(of(4000) + of(4001)))
    assert "the other side answers them" in said(file)[0]
    monkeypatch.setattr(tally, "MOST_CONVERSATIONS", 1)
    file.write_bytes(pcap([ethernet(talk("", True, "VERIFIES", "udp", port=3999)), *of(4000), *of(4001)]))
    assert "the other side answers them" not in said(file)[0]


def test_who_waits_sees_it_move_and_may_interrupt(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_bytes(pcap(FRAMES * 4))
    monkeypatch.setattr(capture, "BLOCK", 4096)
    steps: list[tuple[int, int]] = []
    scan_file(file, Settings(), step=lambda done, of: steps.append((done, of)))
    assert len(steps) >= file.stat().st_size // 20000
    assert steps == sorted(steps)
    assert steps[-1] == (file.stat().st_size,) * 2

    def interrupt(_done: int, _of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan_file(file, Settings(), step=interrupt)


# --- what is no whole file --------------------------------------------------------------------------------------------

SHORT = pcap([frame for frame in FRAMES if len(frame) < 200][:6])


def test_what_was_inflated_before_the_damage_counts(file: Path) -> None:
    deflate = zlib.compressobj(wbits=31)
    data = deflate.compress(pcap([ethernet(PACKETS[0])] * 3000)) + deflate.flush(zlib.Z_FULL_FLUSH)
    file.write_bytes(data + b"\x07" * 8)  # a block of the type that there is not (RFC 1951 §3.2.3)
    found = json.loads(said(file)[0])
    assert "gzip stream is damaged" in found["error"]
    lost = (3000 - found["frames"]) * (16 + len(ethernet(PACKETS[0])))
    assert lost <= PIECE + 200


@pytest.mark.parametrize("claimed", [1, 1 << 20, LARGEST_RECORD, LARGEST_RECORD + 1, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_length_that_lies(file: Path, claimed: int) -> None:
    file.write_bytes(SHORT + struct.pack("<IIII", 0, 0, claimed, claimed))
    tracemalloc.start()
    counted = said_briefly(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * LARGEST_RECORD
    assert "damaged after frame 6" in counted
    assert is_the_same_frame_by_frame(file)


def new_census(**more: int) -> Census:
    return Census(common_mtu=1500, largest_mtu=9216, **more)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=400), st.sampled_from(list(LinkType)), st.booleans())
def test_any_bytes_are_counted_within_their_bounds(body: bytes, link_type: LinkType, big_endian: bool) -> None:
    """Each block is an allocation of its own size, for the sanitizer to see what is read beyond it."""
    order = ">I" if big_endian else "<I"
    reader, frames, census = Pcap(pcap([], link_type, order[0])), Frames(), new_census()
    at = count = 0
    while len(body) - at >= 16 and (size := 16 + struct.unpack_from(order, body, at + 8)[0]) <= len(body) - at:
        at += size
        count += 1
    if not count and len(body) >= 16 and struct.unpack_from(order, body, 8)[0] > LARGEST_RECORD:
        with pytest.raises(ValueError, match="claims"):
            reader.parse(bytearray(body), 0, len(body), frames)
        return
    assert reader.parse(bytearray(body), 0, len(body), frames) == at
    assert frames.count(Pipeline(ports=[4789]), census, 0) == len(frames) == census.frames == count
    left = len(body) - at
    assert reader.claimed == (16 + struct.unpack_from(order, body, at + 8)[0] if left >= 16 else 0)


def test_a_place_that_is_not_in_the_block() -> None:
    for reader in (Pcap(pcap([])), PcapNg()):
        for at, end in ((0, 11), (5, 4), (11, 11)):
            with pytest.raises(ValueError, match="not inside"):
                reader.parse(bytearray(10), at, end, Frames())
    frames = Frames(1)
    frames.begin(bytearray(10))
    for at, captured in ((11, 0), (0, 11), (5, 6), (0xFFFFFFFF, 5)):
        with pytest.raises(ValueError, match="not in the block"):
            frames.put(at, captured, captured, 1)
    frames.put(4, 6, 6, 1)
    with pytest.raises(ValueError, match="no room"):
        frames.put(4, 6, 6, 1)
    with pytest.raises(IndexError):
        frames[1]


def test_it_stops_where_the_census_is_full_and_goes_on_from_there() -> None:
    body = bytearray(SHORT[24:])
    reader, frames, taken = Pcap(SHORT[:24]), Frames(), new_census(most_kinds=1)
    assert reader.parse(body, 0, len(body), frames) == len(body)
    at, counts = 0, []
    while at < len(frames):
        at = frames.count(Pipeline(ports=[4789]), taken, at)
        counts += [count for *_, count in taken.drain()]
    assert sum(counts) + taken.not_ip == taken.frames == 6


def test_a_reader_goes_on_where_there_was_no_more_room_for_frames() -> None:
    for reader, body in (
        (Pcap(SHORT[:24]), SHORT[24:]),
        (PcapNg(), section() + interface() + b"".join(enhanced(frame) for frame in FRAMES[:6])),
    ):
        for most in (1, 2, 5, 6, 7):
            at, frames, sizes = 0, Frames(most), []
            while True:
                at = reader.parse(bytearray(body), at, len(body), frames)
                if not len(frames):
                    break
                sizes.append(len(frames))
            assert (at, sum(sizes), max(sizes)) == (len(body), 6, min(most, 6))
