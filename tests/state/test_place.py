"""Where state is kept: names, whole or not at all, and what is cleaned up."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.fakehost import FakeHost

from fixer.errors import SystemRefused
from fixer.host.machine import Host
from fixer.state import leftovers, place, report


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


def test_a_name_says_whose_it_is(host: FakeHost) -> None:
    assert place.path_of(host, "baseline").name == f"{host.netns_inode()}.baseline"
    assert place.path_of(host, "json", 7).name == f"{host.netns_inode()}-7.json"
    assert place.path_of(Host(), "json", 7).parent == Path("/run/fixer")


def test_what_is_not_there_is_none_and_what_cannot_be_read_an_error(host: FakeHost) -> None:
    path = place.path_of(host, "baseline")
    assert place.read(path) is None
    path.mkdir()
    with pytest.raises(SystemRefused, match="cannot be read: Is a directory"):
        place.read(path)
    place.remove(path)
    assert path.is_dir(), "what cannot be removed stays"


def test_a_file_is_written_whole_or_not_at_all(host: FakeHost) -> None:
    """By many at once, and read meanwhile: each look finds the whole of one of them."""
    path = place.path_of(host, "json", 0)
    contents = [bytes([letter]) * 100_000 for letter in b"abcd"]
    place.write(path, contents[0])
    threads = [
        threading.Thread(target=lambda content=content: [place.write(path, content) for _ in range(50)])
        for content in contents
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert place.read(path) in contents
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_what_cannot_be_written_leaves_what_was_there(host: FakeHost) -> None:
    path = place.path_of(host, "json", 0)
    path.mkdir()
    with pytest.raises(SystemRefused, match=r"0\.json cannot be written: Is a directory"):
        place.write(path, b"x")
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    (host.run_directory / "fixer" / "file").touch()
    with pytest.raises(SystemRefused, match="cannot be written: File exists"):
        place.write(host.run_directory / "fixer" / "file" / "x", b"x")


def linked(path: Path, victim: Path) -> str:
    path.symlink_to(victim)
    return "it is a symbolic link"


def hard_linked(path: Path, victim: Path) -> str:
    path.hardlink_to(victim)
    return "it is no ordinary file of one name"


def piped(path: Path, _victim: Path) -> str:
    os.mkfifo(path)
    return "it is no ordinary file of one name"


def strange(path: Path, _victim: Path) -> str:
    if os.geteuid() != 0:
        pytest.skip("no root: only root gives a file to somebody else")
    path.write_bytes(b"{}")
    os.chown(path, 4711, 4711)
    return "it belongs to uid 4711, and not to fixer"


@pytest.mark.parametrize("lay", [linked, hard_linked, piped, strange])
def test_what_others_have_laid_there_is_refused_and_not_waited_for(
    lay: Callable[[Path, Path], str], host: FakeHost, tmp_path: Path
) -> None:
    """The directory may be the service's user's, and root reads and locks there."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    path, lock = place.path_of(host, "intent"), place.path_of(host, "lock")
    why = lay(path, victim)
    with pytest.raises(SystemRefused, match=f"{path.name} cannot be read: {why}"):
        place.read(path)
    lay(lock, victim)
    with pytest.raises(SystemRefused, match=f"{lock.name} cannot be opened: {why}"), place.locked(host):
        pass
    assert victim.read_bytes() == b"precious"


def test_root_does_not_write_through_a_link_that_lies_where_it_will_write(host: FakeHost, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    victim.chmod(0o600)
    path = place.path_of(host, "json", 0)
    path.with_name(f"{path.name}.{threading.get_native_id()}.new").symlink_to(victim)
    path.symlink_to(victim)
    place.write(path, b"ours")
    assert (place.read(path), path.is_symlink()) == (b"ours", False)
    assert (victim.read_bytes(), victim.stat().st_mode & 0o777) == (b"precious", 0o600)


def test_what_the_services_user_has_written_root_reads(host: FakeHost) -> None:
    if os.geteuid() != 0:
        pytest.skip("no root: only root gives a file to somebody else")
    path = place.path_of(host, "json", 0)
    place.write(path, b"theirs")
    for each in (path, path.parent):
        os.chown(each, 4711, 4711)
    assert place.read(path) == b"theirs"
    with place.locked(host):
        place.write(path, b"ours")
    assert place.read(path) == b"ours"


def test_a_directory_of_a_stranger_is_refused_by_who_is_not_root(host: FakeHost) -> None:
    if os.geteuid() != 0:
        pytest.skip("no root: only root gives a directory to somebody else")
    path = place.path_of(host, "json", 0)
    os.chown(path.parent, 4711, 4711)
    host.run_directory.chmod(0o755)
    os.seteuid(4712)
    try:
        with pytest.raises(SystemRefused, match="belongs to uid 4711"):
            place.write(path, b"x")
    finally:
        os.seteuid(0)


def test_off_removes_what_nobody_will_finish_or_read_and_nothing_else(host: FakeHost) -> None:
    here = host.run_directory / "fixer"
    inode = host.netns_inode()
    living = {
        "pid": 4711, "version": "1", "queue": 0, "started": "2026-01-02T03:04:05Z", "updated": "2026-01-02T03:04:05Z",
        "monitor": False, "plain": False, "asked": {}, "flags": {}, "counters": {}, "queue_counters": {},
    }  # fmt: skip
    host.files["/proc/4711"] = ""
    for queue, pid in ((0, 4711), (1, 4712)):
        told = report.msgspec.convert(living | {"queue": queue, "pid": pid}, report.Report)
        report.write(report.path_of(host, queue), told)
    place.path_of(host, "json", 2).write_text("{")
    old = [f"{inode}.baseline.12.new", f"{inode}-0.json.12.new", f"{inode}-0.flows.new", f"{inode}0-0.json.12.new"]
    for name in [*old, f"{inode}-0.json.13.new", f"{inode}0-1.json"]:
        (here / name).touch()
    for name in old:
        os.utime(here / name, (time.time() - 100,) * 2)
    leftovers.remove(host)
    assert sorted(each.name for each in here.iterdir()) == sorted(
        [f"{inode}-0.json", f"{inode}-0.json.13.new", f"{inode}0-0.json.12.new", f"{inode}0-1.json"]
    )


def test_the_packages_remove_the_same_directory() -> None:
    """Their script runs when no fixer is left that could be asked."""
    script = Path(__file__).parents[2] / "packaging" / "scripts" / "left"
    assert f"rm -rf {place.path_of(Host(), 'intent').parent}\n" in script.read_text()
