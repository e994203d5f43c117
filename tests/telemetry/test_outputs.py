"""Where the log goes: nothing of a line is lost or torn, and what cannot be written is counted and said."""

from __future__ import annotations

import io
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from fixer.telemetry import outputs
from fixer.telemetry.events import state_change
from fixer.telemetry.log import SAID_MOST, Origin, Teller

Opened = Callable[[object], Any]


def told(teller: Teller, message: str = "a line") -> bool:
    """Whether one line could be written."""
    lost = teller.lost
    teller.say(state_change("started", message))
    teller._tell_said()
    return teller.lost == lost


def teller_to(output: Any, origin: Origin | None = None) -> Teller:
    return Teller(lambda: (), output, origin)


@pytest.fixture
def opened() -> Iterator[Opened]:
    """`outputs.opened` of a path, closed in the end."""
    with ExitStack() as stack:
        yield lambda where: stack.enter_context(closing(outputs.opened(str(where))))


def documents(text: str | bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_file_that_was_rotated_is_opened_anew_and_no_line_is_lost(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "fixer.json"
    teller = teller_to(opened(path))
    assert told(teller, "one")
    path.rename(tmp_path / "fixer.json.1")
    assert told(teller, "two")
    path.unlink()
    assert told(teller, "three")
    assert [each["message"] for each in documents((tmp_path / "fixer.json.1").read_text())] == ["one"]
    assert [each["message"] for each in documents(path.read_text())] == ["three"]


def test_a_file_that_is_there_is_gone_on_with(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "fixer.json"
    path.write_text('{"message": "of another run"}\n')
    assert told(teller_to(opened(path)), "one")
    assert [each["message"] for each in documents(path.read_text())] == ["of another run", "one"]


def test_lines_that_found_no_directory_are_counted_and_said_once_it_is_there(tmp_path: Path, opened: Opened) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    teller = teller_to(opened(folder / "fixer.json"))
    (folder / "fixer.json").unlink()
    folder.rmdir()
    assert not told(teller)
    assert not told(teller)
    folder.mkdir()
    assert told(teller, "three")
    third, lost = documents((folder / "fixer.json").read_text())
    assert (third["message"], third["event"]["sequence"]) == ("three", 3)
    assert (lost["event"]["action"], lost["fixer"]["log"]["lost"]) == ("log-lost", 2)
    assert teller.counters() == {"written": 2, "lost": 2}


def test_a_file_that_cannot_be_is_known_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        outputs.opened(f"{tmp_path}/none/fixer.json")


def test_after_a_disk_was_full_the_next_line_begins_a_line(
    tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fixer.json"
    output = opened(path)
    real = output._handler.stream

    class Full:
        """A disk with room for five bytes."""

        def write(self, data: bytes) -> int:
            return int(real.write(data[:5]))

        def flush(self) -> None: ...

    output._handler.stream = Full()
    with pytest.raises(OSError, match="only 5 of"):
        output.write("a line\n")
    output._handler.stream = real
    output.write("another\n")
    assert path.read_text() == "a lin\nanother\n"


class Reader:
    """A shipper: listens on a unix socket, and reads when it is told to."""

    def __init__(self, path: Path) -> None:
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listening.bind(str(path))
        self.listening.listen()
        self.listening.settimeout(5)

    def accept(self) -> socket.socket:
        connection, _ = self.listening.accept()
        connection.settimeout(0.2)
        return connection


def everything(connection: socket.socket) -> bytes:
    found = bytearray()
    try:
        while data := connection.recv(1 << 20):
            found += data
    except TimeoutError:
        pass
    return bytes(found)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has the time to wait for who is behind."""
    monkeypatch.setattr(outputs, "SEND_SECONDS", 0.05)
    monkeypatch.setattr(outputs, "AGAIN_SECONDS", 0.0)


@pytest.mark.usefixtures("at_once")
def test_a_socket_is_asked_for_again_until_somebody_listens(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "socket"
    teller = teller_to(opened(f"unix:{path}"))
    assert not told(teller, "before")
    reader = Reader(path)
    with reader.listening:
        assert told(teller, "one")
        with reader.accept() as connection:
            found = documents(everything(connection))
        assert [each["event"]["action"] for each in found] == ["started", "log-lost"]
        while told(teller):  # what is sent into a connection that is closed shows only with the next one
            pass
        assert told(teller, "two")
        with reader.accept() as connection:
            assert documents(everything(connection))[0]["message"] == "two"


@pytest.mark.usefixtures("at_once")
def test_a_reader_that_is_behind_gets_whole_lines_and_the_number_of_the_others(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "socket"
    reader = Reader(path)
    teller = teller_to(opened(f"unix:{path}"))
    with reader.listening:
        written = 0
        while told(teller, "x" * 10_000):
            written += 1
        assert written > 3
        assert not told(teller)
        with reader.accept() as connection:
            found = bytearray(everything(connection))
            assert told(teller, "the end")
            found += everything(connection)
    lines = documents(bytes(found))
    assert lines[-1]["fixer"]["log"]["lost"] == teller.lost
    sequences = [each["event"]["sequence"] for each in lines]
    assert sequences == sorted(sequences)
    assert sequences[-1] - len(sequences) == teller.lost, "a gap for each line that is lost, and for no other"


def test_what_the_daemon_says_while_the_log_is_stuck_is_bounded_and_counted() -> None:
    teller = teller_to(io.StringIO())
    for _ in range(SAID_MOST + 5):
        teller.say(state_change("degraded", "again"))
    assert teller.counters() == {"written": 0, "lost": 5}


def test_a_document_is_told_from_all_others_and_says_where_it_is_from() -> None:
    streams = io.StringIO(), io.StringIO()
    for stream in streams:
        teller = teller_to(stream, Origin("site-a", {"env": "prod"}, ["edge"]))
        assert told(teller)
        assert told(teller)
    lines = [each for stream in streams for each in documents(stream.getvalue())]
    assert len({each["event"]["id"] for each in lines}) == 4
    first = lines[0]
    assert first["host"] == {"name": socket.gethostname()}
    assert first["data_stream"] == {"type": "logs", "dataset": "fixer.daemon", "namespace": "site-a"}
    assert (first["labels"], first["tags"]) == ({"env": "prod"}, ["edge"])


def test_a_stuck_file_is_no_reason_for_a_thread_to_stay(tmp_path: Path) -> None:
    """A FIFO that nobody reads: opening it for writing would wait for ever, so it is not a file that can be named."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    done = threading.Event()

    def attempt() -> None:
        with pytest.raises(OSError, match="No such device"):
            outputs.opened(str(fifo))
        done.set()

    threading.Thread(target=attempt, daemon=True).start()
    assert done.wait(2)


def test_a_pipe_whose_reader_is_behind_takes_no_line_and_ends_no_thread(tmp_path: Path) -> None:
    path = tmp_path / "log"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with closing(outputs.File(str(path))) as out:
        out.write("x" * 65_000 + "\n")
        with pytest.raises(OSError, match="bytes were written"):
            out.write("x" * 10_000 + "\n")
    os.close(reader)
