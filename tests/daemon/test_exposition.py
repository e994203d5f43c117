"""Metrics to whoever reads them, where readers are slow, stopping comes in between, or two ask at once."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.commands import wait_for

from fixer.config import Metrics
from fixer.daemon import exposition
from fixer.daemon.exposition import Exposition
from fixer.daemon.metering import Meter
from fixer.telemetry.metrics import Delay


class FakeMeter:
    """Says whether it serves; ``gate`` holds back the thread that writes the textfile."""

    def __init__(self) -> None:
        self.serves = True
        self.gate = threading.Event()
        self.gate.set()
        self.asked = 0

    def sample(self) -> dict[str, Any]:
        serves = self.serves
        if threading.current_thread().name == "textfile":
            self.asked += 1
            self.gate.wait(10)
        return {"up": {(): int(serves)}}


def exposed(meter: FakeMeter, **where: str) -> Exposition:
    made: Any = meter
    return Exposition(Metrics(**where), made, Delay(), lambda saying: None)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Exposition, str]]:
    path = str(tmp_path / "m.sock")
    shown = exposed(FakeMeter(), listen=f"unix:{path}")
    shown.start()
    yield shown, path
    shown.stop()


def connected(path: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(10)
    client.connect(path)
    return client


def scraped(path: str) -> bytes:
    with connected(path) as client:
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_a_stop_waits_for_no_client(served: tuple[Exposition, str]) -> None:
    shown, path = served
    with connected(path) as silent, connected(path):  # one that is served, and one that waits
        silent.sendall(b"GET /metr")
        time.sleep(0.2)
        began = time.monotonic()
        shown.stop()
        assert time.monotonic() - began < exposition.WAIT_SECONDS / 2


def test_who_sends_byte_for_byte_is_given_up_for_the_next_one(
    served: tuple[Exposition, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path = served
    monkeypatch.setattr(exposition, "WAIT_SECONDS", 0.5)
    over = threading.Event()

    def trickle(client: socket.socket) -> bool:
        """Whether it was ended."""
        while not over.wait(0.1):
            try:
                client.sendall(b"G")
            except OSError:
                return True
        return False

    with connected(path) as client, ThreadPoolExecutor(1) as pool:
        ended = pool.submit(trickle, client)
        time.sleep(0.2)
        assert b"fixer_up 1.0" in scraped(path)
        time.sleep(0.3)
        over.set()
        assert ended.result()


def test_the_last_textfile_stays_though_another_was_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposition, "TEXTFILE_SECONDS", 0.05)
    path, meter = tmp_path / "fixer.prom", FakeMeter()
    shown = exposed(meter, textfile=str(path))
    shown.start()
    meter.gate.clear()
    asked = meter.asked
    wait_for(lambda: meter.asked > asked)  # it has seen that the daemon serves, and has not written it yet
    with ThreadPoolExecutor(1) as pool:
        stopped = pool.submit(shown.stop)
        wait_for(lambda: not meter.serves)
        time.sleep(0.2)
        meter.gate.set()
        stopped.result(10)
    time.sleep(0.3)
    assert "fixer_up 0.0" in path.read_text()


def test_whoever_runs_node_exporter_may_read_the_textfile(tmp_path: Path) -> None:
    """The service's umask is 0077."""
    path, before = tmp_path / "fixer.prom", os.umask(0o077)
    try:
        exposed(FakeMeter(), textfile=str(path)).stop()
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_textfile_that_cannot_be_put_in_place_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path, said = tmp_path / "fixer.prom", []
    path.mkdir()
    meter: Any = FakeMeter()
    Exposition(Metrics(textfile=str(path)), meter, Delay(), said.append).stop()
    assert [each.message for each in said] == [f"metrics.textfile: {path} cannot be written: Is a directory"]
    assert list(tmp_path.iterdir()) == [path]


def test_two_who_ask_at_once_are_answered_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = object.__new__(Meter)
    meter._sampling = threading.Lock()
    inside, most = [0], [0]

    def sample(_: Meter) -> dict[str, Any]:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.05)
        inside[0] -= 1
        return {}

    monkeypatch.setattr(Meter, "_sample", sample)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(meter.sample) for _ in range(4)]:
            done.result()
    assert most == [1]
