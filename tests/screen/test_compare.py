"""What the screen shows of two captures, and what the command says and ends with."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from support.crossings import MS, NOON, Sight, around, inner, write

from fixer import cli
from fixer.compare import compare
from fixer.config import Settings
from fixer.screen.compare import show


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Nine packets there, of which the fifth is lost and the sixth damaged; nine back, of which nothing is."""
    left, right = [], []
    for number in range(1, 10):
        for back, here, there in ((False, left, right), (True, right, left)):
            payload = b"payload %d" % number
            here.append(Sight(NOON + number * 10 * MS, around(inner(number, payload, back=back), back=back)))
            if back or number != 5:
                came = payload[::-1] if number == 6 and not back else payload
                there.append(Sight(NOON + number * 10 * MS + MS, around(inner(number, came, back=back), back=back)))
    by_time = [sorted(sights, key=lambda sight: sight.when) for sights in (left, right)]
    return write(tmp_path / "left.pcap", by_time[0]), write(tmp_path / "right.pcap", by_time[1])


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli.cli, ["compare", *map(str, arguments)])


@pytest.mark.parametrize("width", [80, 120])
def test_one_table_and_three_sentences(files: tuple[Path, Path], width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    show(compare(*files, Settings()), console)
    out = console.file.getvalue()  # type: ignore[attr-defined]
    # A file's name is broken nowhere, however long it is.
    assert all(len(line.rstrip()) <= width for line in out.splitlines() if str(files[0].parent) not in line)
    said = " ".join(out.split())
    assert (
        f"From {files[0]} to {files[1]}: of 9 sent 8 arrived; 1 is lost (fault); 1 arrived with another payload" in said
    )
    assert f"From {files[1]} to {files[0]}: of 9 sent 9 arrived; nothing is lost or broken." in said
    assert "fault: it happens between the two points of capture" in said
    assert "a packet takes at least 1.000 ms" in said
    row = ["192.0.2.4", "192.0.2.5", "there", "9", "8", "1", "0", "0"]
    assert row in [line.split()[:8] for line in out.splitlines()]
    assert "payload 1" in said


def test_json_is_one_object(files: tuple[Path, Path]) -> None:
    done = invoke("--json", *files)
    assert done.exit_code == 0
    found = json.loads(done.output)
    assert found["verdict"] == "fault"
    back, there = found["legs"]  # the busiest first
    assert (there["way"], there["told_by"], there["lost"], there["first_lost"]) == ("there", "time", 1, 9)
    assert (back["way"], back["sent"], back["lost"]) == ("back", 9, 0)
    assert found["clock"] == {"offset_ns": 0, "delay_ns": 1_000_000, "packets": 17}


def test_a_name_that_is_not_utf8_is_no_reason_to_stop(files: tuple[Path, Path], tmp_path: Path) -> None:
    named = [file.rename(tmp_path / name) for file, name in zip(files, ("\udcff.pcap", "\x9b31m.pcap"), strict=True)]
    result = invoke("--json", *named)
    assert result.exit_code == 0, result
    assert result.output.isascii()
    told = json.loads(result.output)
    assert [Path(told[side]["file"]).name for side in ("sender", "receiver")] == ["\ufffd.pcap", "\x9b31m.pcap"]


def test_a_damaged_capture_is_compared_to_where_it_is(files: tuple[Path, Path]) -> None:
    left, right = files
    right.write_bytes(right.read_bytes()[:-5])
    done = invoke(left, right)
    assert done.exit_code == 65
    assert "1 not counted, before the other capture began or after it ended" in " ".join(done.stdout.split())
    assert "damaged after frame" in done.stderr
    assert json.loads(invoke("--json", left, right).stdout)["error"].startswith(f"{right}: damaged")


def test_the_same_file_twice_is_a_wrong_command(files: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "again.pcap").symlink_to(files[0])
    done = invoke(files[0], tmp_path / "again.pcap")
    assert done.exit_code == 2
    assert "is given twice" in done.stderr


def test_a_missing_file_is_named(files: tuple[Path, Path]) -> None:
    done = invoke(files[0], "nowhere.pcap")
    assert (done.exit_code, done.stdout) == (66, "")
    assert done.stderr == "fixer: error: nowhere.pcap: cannot be read: no such file or directory\n"
