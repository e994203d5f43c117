"""What systemd is told, by a daemon that is one: readiness, words, and signs of life that a stuck thread ends."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.packets import tunnelled
from support.road import QUEUE, Road

from fixer.daemon import notify
from fixer.host import queues
from fixer.lab import net

PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207
BITES = 1.5


class ServiceManager:
    """Systemd's end of the socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def close(self) -> None:
        self._socket.close()

    def hear(self, begins: str, seconds: float = 10.0) -> str:
        """The next line that begins so; those before it are passed over."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                lines = self._socket.recv(4096).decode().splitlines()
            except TimeoutError:
                break
            for line in lines:
                if line.startswith(begins):
                    return line
        pytest.fail(f"nothing said {begins} in {seconds} s")

    def count(self, line: str, seconds: float) -> int:
        """How often the line is said in this time."""
        found = 0
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                found += self._socket.recv(4096).decode().splitlines().count(line)
            except TimeoutError:
                break
        return found


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceManager]:
    made = ServiceManager(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    yield made
    made.close()


@contextmanager
def stuck(thread: int) -> Iterator[None]:
    """Stop one thread of another process, and it alone (SIGSTOP stops all)."""
    over, begun, failed = threading.Event(), threading.Event(), []

    def trace() -> None:  # what one thread traces, no other may let go
        ptrace = ctypes.CDLL(None, use_errno=True).ptrace
        ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        for request in (PTRACE_SEIZE, PTRACE_INTERRUPT):
            if ptrace(request, thread, None, None) != 0:
                failed.append(os.strerror(ctypes.get_errno()))
        if not failed:
            os.waitpid(thread, 0x40000000)  # __WALL
        begun.set()
        over.wait()
        ptrace(PTRACE_DETACH, thread, None, None)

    tracer = threading.Thread(target=trace)
    tracer.start()
    begun.wait()
    try:
        if failed:
            pytest.skip(f"this kernel lets us trace no thread: {failed[0]}")
        yield
    finally:
        over.set()
        tracer.join()


def threads_of(pid: int) -> list[int]:
    """In the order in which they were started: the main thread, one for each queue, the log's, the watchdog's."""
    return sorted(int(task.name) for task in Path(f"/proc/{pid}/task").iterdir())


@pytest.mark.root
def test_it_is_ready_once_the_queue_is_bound_and_says_in_words_what_it_does(
    road: Road, manager: ServiceManager
) -> None:
    with road.daemon() as process:
        manager.hear("READY=1")
        assert QUEUE in road.receiver.call(queues.bound, road.host)
        assert manager.hear("STATUS=") == "STATUS=listening; no packet has come yet"
        road.inlet.send(tunnelled("VERIFIES", "ZERO")[28:])
        assert manager.hear("STATUS=") == "STATUS=listening; 1 packet, none to repair"
        road.send(0, 3)
        assert manager.hear("STATUS=repairing for VTEP") == "STATUS=repairing for VTEP 192.0.2.1; 3 packets"
        process.terminate()
        manager.hear("STOPPING=1")


@pytest.mark.root
def test_who_cannot_bind_is_never_ready(road: Road, manager: ServiceManager, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.delenv("NOTIFY_SOCKET")
        first = road.start()
        assert first.stdout is not None
        first.stdout.readline()
    second = road.start()
    try:
        assert second.wait(20) == 75
        assert manager.count("READY=1", 0.5) == 0
    finally:
        net.stop(second)
        net.stop(first)


@pytest.mark.root
def test_an_idle_daemon_gives_signs_of_life_and_one_with_a_stuck_thread_does_not(
    road: Road, manager: ServiceManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "fixer.toml"
    config.write_text("[queue]\ncount = 2\ncpus = [0, 0]\n")
    monkeypatch.setenv("WATCHDOG_USEC", f"{BITES * 1e6:.0f}")
    with road.daemon(f"--config={config}") as process:
        manager.hear("READY=1")
        for _ in range(4):
            manager.hear("WATCHDOG=1", BITES)
        _main, first, second, *_others = threads_of(process.pid)
        for thread in (first, second):
            with stuck(thread):
                manager.count("WATCHDOG=1", 2 * BITES / notify.LOOKS)  # what it had turned before
                assert manager.count("WATCHDOG=1", 2 * BITES) == 0
            manager.hear("WATCHDOG=1", BITES)
        with stuck(process.pid):  # the main thread, which may wait for iptables: no packet waits for it
            road.send(0, 5)
            assert road.received() == dict.fromkeys(range(5), True)
            assert manager.count("WATCHDOG=1", 2 * BITES) >= 2
        process.send_signal(signal.SIGSTOP)
        manager.count("WATCHDOG=1", 0.2)
        assert manager.count("WATCHDOG=1", 2 * BITES) == 0


@pytest.mark.root
def test_without_a_watchdog_none_is_fed(road: Road, manager: ServiceManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    monkeypatch.setenv("WATCHDOG_PID", "1")  # it is another process's
    with road.daemon():
        manager.hear("READY=1")
        assert manager.count("WATCHDOG=1", 1.5) == 0


@pytest.mark.parametrize(
    ("microseconds", "pid", "seconds"),
    [
        (None, None, None),
        ("3000000", None, 3.0),
        pytest.param("3000000", str(os.getpid()), 3.0, id="ours"),
        ("3000000", "1", None),
        ("0", None, None),
        ("-3", None, None),
        ("soon", None, None),
    ],
)
def test_the_watchdogs_time(
    microseconds: str | None, pid: str | None, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WATCHDOG_USEC", microseconds), ("WATCHDOG_PID", pid)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert notify.watchdog_seconds() == seconds


def test_an_abstract_address_and_one_where_nobody_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = f"fixer-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.bind(f"\0{name}")
        there.settimeout(2)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        notify.ready()
        assert there.recv(100) == b"READY=1"
    for nobody in (str(tmp_path / "nobody"), "vsock:2:1234", ""):
        monkeypatch.setenv("NOTIFY_SOCKET", nobody)
        notify.ready()
