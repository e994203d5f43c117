"""The host: commands, files, namespaces."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from support.fakehost import FakeHost
from support.netns import Namespace

from fixer.errors import FileUnreadable, ProgramMissing, SystemRefused
from fixer.host.machine import Host


def test_a_failing_command_is_a_status() -> None:
    done = Host().run(["sh", "-c", "cat; echo oops >&2; exit 3"], input="hello")
    assert done == (3, "hello", "oops\n")


def test_a_fake_host_asks_no_machine() -> None:
    with pytest.raises(AssertionError, match=r"^FakeHost has no start: it would ask this machine$"):
        FakeHost().start(["true"])


def test_a_command_never_waits_for_the_terminal() -> None:
    assert Host().run(["sh", "-c", "read line; echo $?"]).out == "1\n"


def test_a_command_that_does_not_end_is_killed_and_named() -> None:
    began = time.monotonic()
    with pytest.raises(SystemRefused, match=r"^sleep has not ended after 0\.1 s and was killed: try again$"):
        Host().run(["sleep", "60"], seconds=0.1)
    assert time.monotonic() - began < 30


def test_commands_speak_one_language(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert Host().run(["sh", "-c", "echo $LC_ALL"]).out == "C\n"


@pytest.mark.parametrize(
    ("program", "package"), [("no-such-program", "no-such-program"), ("ip6tables-nosuch", "iptables")]
)
def test_a_missing_program_names_its_package(program: str, package: str) -> None:
    with pytest.raises(ProgramMissing, match=f"{program} is not installed.*apt-get install {package}"):
        Host().run([program])


def test_sbin_is_searched_even_if_the_path_leaves_it_out() -> None:
    done = Host().run(["sh", "-c", "echo $PATH"])
    assert {"/usr/sbin", "/sbin"} <= set(done.out.strip().split(":"))


def test_reading(tmp_path: Path) -> None:
    assert Host().read("/proc/thread-self/comm")
    assert Host().read(f"{tmp_path}/nowhere") is None
    with pytest.raises(SystemRefused, match="Is a directory"):
        Host().read(str(tmp_path))


def test_where_only_root_may_look_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As /run/docker is for everybody else."""

    def refused(self: Path, **_: object) -> NoReturn:
        raise PermissionError(13, "Permission denied", str(self))

    everything = Path.iterdir

    def listing(self: Path) -> Iterator[Path]:
        return everything(self) if self == Path("/proc") else refused(self)

    monkeypatch.setattr(Path, "iterdir", listing)
    assert Host().listed("/run/docker/netns") == []
    assert all(option.startswith("--pid ") for option, _ in Host().other_namespaces())
    monkeypatch.setattr(Path, "stat", refused)
    assert not Host().exists("/var/lib/rancher/rke2")


def test_what_is_read_exactly_is_written_as_it_was(tmp_path: Path) -> None:
    """Latin-1, other line ends, a mode, and a link that leads elsewhere."""
    real, link = tmp_path / "real", tmp_path / "etc" / "link"
    content = b"# caf\xe9\r\nA=1\nB=2"
    real.write_bytes(content)
    real.chmod(0o600)
    link.parent.mkdir()
    link.symlink_to("../real")
    text = Host().read_exactly(str(link))
    assert text is not None
    Host().write(str(link), f"{text}\r\n")
    assert (link.is_symlink(), real.read_bytes(), real.stat().st_mode & 0o777) == (True, content + b"\r\n", 0o600)
    assert Host().read(str(link)) == "# caf\N{REPLACEMENT CHARACTER}\nA=1\nB=2\n"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["etc", "real"]


@pytest.mark.root
def test_a_file_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    os.chown(path, 65534, 65534)
    Host().write(str(path), "x")
    assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65534)


def test_a_glimpse_of_what_cannot_be_read_is_nothing(tmp_path: Path) -> None:
    assert Host().peek(str(tmp_path)) == Host().peek(f"{tmp_path}/nowhere") == ""
    (tmp_path / "file").write_text("x")
    assert Host().peek(f"{tmp_path}/file") == "x"


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "made" / "file"
    Host().write(str(path), "one\n", 0o755)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("one\n", 0o755)
    Host().write(str(path), "two\n", 0o644)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("two\n", 0o644)
    assert Host().listed(str(path.parent)) == ["file"]
    with pytest.raises(SystemRefused, match="cannot be written: File exists"):
        Host().write(f"{path}/below", "x")
    Host().remove(str(path))
    Host().remove(str(path))
    assert Host().listed(str(path.parent)) == []


@pytest.mark.root
def test_what_is_in_another_namespace_is_looked_at_there_and_we_stay_here(netns: Namespace) -> None:
    host, here = Host(), Host().netns_inode()
    there = host.within(Path("/run/netns", netns.name), lambda other: other.netns_inode())
    assert there == netns.call(host.netns_inode) != here
    assert host.netns_inode() == here
    with pytest.raises(FileUnreadable):
        host.within(Path("/run/netns/gone"), lambda _: None)


def test_capabilities_are_the_threads_own(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host()
    for effective, has in (("0000000000001000", True), ("000001ffffffefff", False)):
        monkeypatch.setattr(host, "read", lambda _, text=effective: f"Name:\tx\nCapEff:\t{text}\n")
        assert host.has_net_admin() is has


def test_a_socket_has_an_owner() -> None:
    with socket.socket() as sock:
        owner = Host().socket_owner(os.fstat(sock.fileno()).st_ino)
    assert owner is not None
    assert owner.pid == os.getpid()
    assert Host().socket_owner(1) is None


def test_a_namespace_that_is_not_there() -> None:
    with pytest.raises(FileUnreadable, match="there is no network namespace fx-nowhere; see: ip netns list"):
        Host().enter_netns("fx-nowhere")
    with pytest.raises(FileUnreadable, match="there is no process 4194304999"):
        Host().enter_netns(pid=4194304999)


@pytest.mark.root
def test_entering_by_name_by_path_and_by_pid(netns: Namespace) -> None:
    host = Host()
    outside = host.netns_inode()
    inside = netns.call(host.netns_inode)
    assert inside != outside
    assert host.netns_inode() == outside, "only the thread that entered has moved"

    def there_and_back() -> list[int]:
        seen = []
        host.enter_netns(f"/run/netns/{netns.name}")
        seen.append(host.netns_inode())
        host.enter_netns(pid=os.getpid())  # the process is where its first thread is
        seen.append(host.netns_inode())
        return seen

    assert netns.call(there_and_back) == [inside, outside]


@pytest.mark.root
def test_what_is_no_namespace_is_said_so(netns: Namespace, tmp_path: Path) -> None:
    plain_file = tmp_path / "file"
    plain_file.touch()
    with pytest.raises(SystemRefused, match="cannot be entered as a network namespace: Invalid argument"):
        netns.call(Host().enter_netns, str(plain_file))


@pytest.mark.root
def test_commands_run_in_the_namespace_entered(netns: Namespace) -> None:
    where = ["readlink", "/proc/self/ns/net"]
    assert netns.call(Host().run, where).out.strip() == f"net:[{netns.call(Host().netns_inode)}]"
    assert Host().run(where).out.strip() == f"net:[{Host().netns_inode()}]"
