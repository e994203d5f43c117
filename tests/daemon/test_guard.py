"""What is wanted, and a daemon that is started: a real one, in a real namespace."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.commands import FIXER, started, wait_for
from support.netns import Namespace

from fixer.host.machine import Host
from fixer.lab import net
from fixer.rules import wanted
from fixer.state import intent, report

QUEUE = 9


def say(netns: Namespace, verb: str, *more: str) -> subprocess.CompletedProcess[str]:
    return started(verb, "--netns", netns.name, *more)


@contextmanager
def daemon(netns: Namespace, *more: str) -> Iterator[subprocess.Popen[str]]:
    """One that listens, and has done what is wanted."""
    process = netns.start(*FIXER, "run", f"--queue={QUEUE}", *more)
    try:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert first["event"]["action"] == "started"
        netns.call(wait_for_report)
        yield process
    finally:
        net.stop(process)


def wait_for_report() -> None:
    """The guard's first work is done before the second report."""
    path = report.path_of(Host(), QUEUE)
    seen: set[Any] = set()

    def is_second() -> bool:
        if found := report.read(path):
            seen.add(found.updated)
        return len(seen) >= 2

    wait_for(is_second)


def is_on(netns: Namespace) -> list[bool]:
    return [any("-j FIXER" in line for line in netns.saved(command)) for command in ("iptables", "ip6tables")]


@pytest.mark.root
def test_a_daemon_that_starts_obeys_what_was_said_last(netns: Namespace) -> None:
    assert say(netns, "on", f"--queue={QUEUE}", "--interface", "eth0", "--reason", "INC-1").returncode == 3
    netns.run("iptables", "-t", "raw", "-F")
    netns.run("ip6tables", "-t", "raw", "-F")
    with daemon(netns):
        assert is_on(netns) == [True, True]
        assert any("-i eth0" in line for line in netns.saved())
        found = netns.call(wanted.read, Host())
        assert found is not None
        assert (found.on, found.reason, found.selection.interface) == (True, "INC-1", "eth0")
        assert say(netns, "on", f"--queue={QUEUE}").returncode == 0, "it listens now"
    assert say(netns, "off").returncode == 0
    with daemon(netns):
        assert is_on(netns) == [False, False]


@pytest.mark.root
def test_without_a_word_it_leaves_the_rules_alone_unless_it_is_to_put_them_in_place_at_boot(
    netns: Namespace, tmp_path: Path
) -> None:
    with daemon(netns):
        assert is_on(netns) == [False, False]
    config = tmp_path / "f.toml"
    config.write_text("[rule]\nat_boot = true\n")
    with daemon(netns, "--config", str(config)):
        assert is_on(netns) == [True, True]
    assert say(netns, "off").returncode == 0
    with daemon(netns, "--config", str(config)):
        assert is_on(netns) == [False, False], "somebody has said off since"


@pytest.mark.root
def test_what_is_wanted_of_another_queue_is_another_daemons(netns: Namespace) -> None:
    say(netns, "on", "--queue=8")
    netns.run("iptables", "-t", "raw", "-F")
    with daemon(netns):
        assert is_on(netns)[0] is False


@pytest.mark.root
def test_a_word_that_is_not_understood_is_obeyed_by_nobody_and_said(netns: Namespace) -> None:
    say(netns, "on", f"--queue={QUEUE}")
    netns.run("iptables", "-t", "raw", "-F")
    path = netns.call(intent.path_of, Host())
    path.write_text(path.read_text().replace('"queue":9', '"queue":-9'))
    with daemon(netns) as process:
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        assert line["event"]["action"] == "degraded"
        assert "is not what this version of fixer writes" in line["message"]
        assert is_on(netns)[0] is False
