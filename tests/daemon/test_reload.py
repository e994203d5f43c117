"""SIGHUP: a new configuration is taken between two packets, a wrong one is not and the log says why."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support.road import Road

from fixer.config import Settings, parse
from fixer.daemon.reload import changed, needs_start


def reload(process: subprocess.Popen[str]) -> Any:
    """Send SIGHUP; the line of the log that answers it."""
    process.send_signal(signal.SIGHUP)
    assert process.stdout is not None
    lines = (json.loads(line) for line in process.stdout)
    return next(line for line in lines if line["event"]["action"] in ("reloaded", "not-reloaded"))


@pytest.mark.root
def test_a_terminal_that_is_closed_ends_and_changes_nothing(road: Road) -> None:
    with road.daemon() as process:
        line = reload(process)
        assert (line["event"]["action"], line["message"]) == (
            "reloaded",
            "the configuration is read again: nothing changed",
        )
        road.send(0, 10)
        assert road.received(2.0, most=10) == dict.fromkeys(range(10), True)
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert json.loads(process.stdout.readlines()[-1])["message"].startswith("stopped by SIGTERM")
        assert process.wait(10) == 0


@pytest.mark.root
def test_in_a_flood_no_packet_is_lost_and_from_one_on_all_are_repaired(road: Road, tmp_path: Path) -> None:
    config = tmp_path / "fixer.toml"
    config.write_text("monitor = true\n")
    over = threading.Event()
    sent = 0

    def flood() -> None:
        nonlocal sent
        while not over.is_set():
            road.send(sent, 20)
            sent += 20

    with road.daemon(f"--config={config}") as process:
        sender = threading.Thread(target=flood)
        sender.start()
        found = road.received(0.1, most=500)
        assert not any(found.values())
        config.write_text("")
        answer: list[Any] = []
        asker = threading.Thread(target=lambda: answer.append(reload(process)))
        asker.start()
        while asker.is_alive():
            found |= road.received(0.001, most=1000)
        after = sent + 1000
        while sent < after:
            found |= road.received(0.001, most=1000)
        over.set()
        sender.join()
        found |= road.received()
        assert answer[0]["message"].startswith("the configuration is read again: monitor changed")
        assert list(found) == list(range(sent)), "every packet, and in order"
        first = list(found.values()).index(True)
        assert first >= 500
        assert all(repaired for number, repaired in found.items() if number >= first)
        process.terminate()
        assert process.stdout is not None
        counters = json.loads(process.stdout.readlines()[-1])["fixer"]["counters"]
        assert counters["packets"] == sent, "what was counted before is not forgotten"


@pytest.mark.root
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nonsense = 1\n", "unknown key nonsense"),
        ("[vxlan\n", "not TOML"),
        ("[policy]\ncorrupt = 'repair'\n", "policy.corrupt"),
        ("monitor = true\n[queue]\nlength = 100\n", "queue.length: only a start can change that"),
        ("[timestamps]\nmode = 'normalise'\nsources = ['192.0.2.1/32']\n", "timestamps.mode, timestamps.sources: only"),
        (None, "no such file"),
    ],
)
def test_what_cannot_be_taken_changes_nothing_and_is_said(
    road: Road, tmp_path: Path, text: str | None, why: str
) -> None:
    config = tmp_path / "fixer.toml"
    config.write_text("")
    with road.daemon(f"--config={config}") as process:
        if text is None:
            config.unlink()
        else:
            config.write_text(text)
        line = reload(process)
        assert (line["event"]["action"], line["log.level"]) == ("not-reloaded", "warning")
        assert why in line["message"]
        road.send(0, 10)
        assert road.received(2.0, most=10) == dict.fromkeys(range(10), True)
        config.write_text(
            "[policy]\nboth_unfinished = 'pass'\n"
        )  # a local veth leaves the outer one to the device, too
        assert reload(process)["fixer"]["changed"] == ["policy.both_unfinished"]
        road.send(10, 10)
        assert road.received(2.0, most=10) == dict.fromkeys(range(10, 20), False)


@pytest.mark.root
def test_what_the_command_line_said_is_said_still(road: Road, tmp_path: Path) -> None:
    config = tmp_path / "fixer.toml"
    config.write_text("")
    with road.daemon(f"--config={config}", "--monitor") as process:
        config.write_text("[vxlan]\nports = [4789]\n")
        line = reload(process)
        assert line["fixer"]["changed"] == ["vxlan.ports"]
        assert "fixer on takes vxlan.ports into the rule as well" in line["message"]
        road.send(0, 5)
        assert road.received(2.0, most=5) == dict.fromkeys(range(5), False)


@pytest.mark.root
def test_hundreds_of_them_one_upon_the_other(road: Road, tmp_path: Path) -> None:
    config = tmp_path / "fixer.toml"
    config.write_text("[queue]\ncount = 2\ncpus = [0, 0]\n")
    with road.daemon(f"--config={config}") as process:
        for _ in range(300):
            process.send_signal(signal.SIGHUP)
            time.sleep(0.002)
        reload(process)
        road.send(0, 100)
        assert road.received(1.0) == dict.fromkeys(range(100), True)
        for _ in range(40):  # those that are still to come are worked off
            before = cpu_seconds(process.pid)
            time.sleep(0.5)
            if cpu_seconds(process.pid) - before < 0.1:
                break
        else:
            pytest.fail("a wake-up that nobody took keeps a thread turning")


def cpu_seconds(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / 100


def test_what_differs_and_what_of_it_takes_a_start() -> None:
    old, new = Settings(), parse("plain = true\n[queue]\ncount = 2\n[vxlan]\nvnis = [7]\n[log]\nper_second = 1\n", "")
    assert changed(old, old) == []
    assert changed(old, new) == ["plain", "vxlan.vnis", "queue.count", "log.per_second"]
    assert [key for key in changed(old, new) if needs_start(key, old, new)] == ["queue.count"]
    strip = parse("[timestamps]\nmode = 'strip'\nsources = ['192.0.2.1/32']\n", "")
    assert not any(needs_start(key, old, strip) for key in changed(old, strip))
