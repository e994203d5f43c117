"""Sample packets of findings: what is in the file, who may read it, and that there are never too many."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.fakehost import FakeHost
from support.packets import tunnelled

from fixer.config import Settings
from fixer.scan import scan_file
from fixer.state import place, samples
from fixer.state.samples import MOST, MOST_FILES, Sample, Samples

NOW = 1_700_000_000_123_456_789
CAME, LEFT = tunnelled("PARTIAL", "AGREES"), tunnelled("VERIFIES", "GOOD")


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


def sample(came: bytes = CAME, left: bytes | None = LEFT, comment: str = "inner checksum never finished") -> Sample:
    return Sample(NOW, len(came), came, left, comment)


def test_a_file_holds_each_packet_as_it_came_and_as_it_left(host: FakeHost) -> None:
    kept = Samples(host, 7)
    path = Path(kept.add("00ff", sample(), "VTEP 192.0.2.4 sends such"))
    assert kept.add("00ff", sample(left=None), "…") == str(path)
    report = scan_file(path, Settings())
    assert report.error is None
    assert report.tally.frames == 3
    [(vtep, sender)] = report.tally.vteps.items()
    assert vtep == "192.0.2.4"
    assert sorted(row.inner.name for row in sender.rows) == ["PARTIAL", "VERIFIES"]


@pytest.mark.skipif(shutil.which("tshark") is None, reason="needs tshark")
def test_tshark_reads_it_whole(host: FakeHost) -> None:
    path = Samples(host, 7).add("00ff", sample(CAME[:-3], LEFT[:-3]), "a comment → of a file")
    fields = ("frame.interface_name", "frame.time_epoch", "frame.len", "frame.comment", "vxlan.vni")
    asked = [part for name in fields for part in ("-e", name)]
    done = subprocess.run(
        ["tshark", "-r", path, "-T", "fields", "-E", "separator=|", *asked], capture_output=True, text=True, check=True
    )
    time = "1700000000.123456789"
    assert done.stdout.splitlines() == [
        f"came|{time}|{len(CAME) - 3}|inner checksum never finished|4097",
        f"left|{time}|{len(CAME) - 3}|inner checksum never finished|4097",
    ]
    assert "malformed" not in done.stderr


def test_only_root_and_the_daemon_may_read_it_and_its_name_says_nothing_of_a_packet(host: FakeHost) -> None:
    before = os.umask(0)
    try:
        path = Path(Samples(host, 7).add("00ff", sample(), ""))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.name == f"{host.netns_inode()}-7-00ff.pcapng"


def test_ten_packets_of_a_finding_are_kept(host: FakeHost) -> None:
    kept = Samples(host, 7)
    for _ in range(MOST + 5):
        path = Path(kept.add("00ff", sample(), ""))
    assert scan_file(path, Settings()).tally.frames == 2 * MOST


def test_the_oldest_files_give_way(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Samples(host, 7)
    paths = []
    for number in range(MOST_FILES + 3):
        paths.append(Path(kept.add(f"{number:04x}", sample(), "")))
        os.utime(paths[-1], (number, number))
    assert [path.exists() for path in paths] == [False] * 3 + [True] * MOST_FILES
    monkeypatch.setattr(samples, "MOST_BYTES", 5 * paths[-1].stat().st_size)
    kept.add("ffff", sample(), "")
    assert len(place.every(host, "pcapng")) == 5
    assert paths[-1].exists()


def test_what_cannot_be_written_is_no_error(host: FakeHost) -> None:
    kept = Samples(host, 7)
    path = Path(kept.add("00ff", sample(), ""))
    path.unlink()
    path.mkdir()
    assert kept.add("00ff", sample(), "") == ""


def test_they_go_with_their_network_namespace(host: FakeHost) -> None:
    path = Path(Samples(host, 7).add("00ff", sample(), ""))
    samples.remove(host)
    assert not path.exists()
