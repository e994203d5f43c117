"""What is wanted: read whole or not at all, by whoever may, and never by a namespace that it is not of."""

from __future__ import annotations

import json
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from support.fakehost import FakeHost

from fixer.errors import SystemRefused
from fixer.host.machine import Host
from fixer.host.operator import Operator, operator
from fixer.rules.selection import Selection
from fixer.state import intent, place
from fixer.state.intent import Intent

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
SELECTION = Selection(queue=7, ports=(4789,), interface="eth0", sources=("10.0.0.0/8",))
WANTED = Intent(on=True, selection=SELECTION, since=NOON, by=Operator("root", "alice", "alice"), reason="INC-1")


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


def test_what_was_written_is_read(host: FakeHost) -> None:
    assert intent.read(host, Selection) is None
    intent.write(host, WANTED)
    assert intent.read(host, Selection) == replace(WANTED, netns=host.netns_cookie())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"on": "yes"}, "Expected `bool`"),
        ({"selection": None}, "nothing to take"),
        ({"since": "2026-01-02T12:00:00"}, "timezone"),
        ({"colour": "red"}, "unknown field `colour`"),
        ({"reason": "x" * 201}, "length <= 200"),
        ({"variant": "ebtables"}, "Invalid enum value"),
        ({"selection": {"queue": 70000, "ports": [1]}}, "<= 65535"),
        ({"selection": {"queue": 7, "ports": [0]}}, ">= 1"),
        ({"selection": {"queue": 7, "ports": []}}, "nothing to take"),
        ({"selection": {"queue": 7, "ports": [1], "interface": "a b"}}, "matching regex"),
        ({"selection": {"queue": 7, "ports": [1], "interface": "a\n-F"}}, "matching regex"),
        ({"selection": {"queue": 7, "ports": [1], "sources": ["all"]}}, "does not appear to be"),
        ({"selection": {"queue": 7, "ports": [1], "scope": "all"}}, "unknown field `scope`"),
    ],
)
def test_one_wrong_word_and_nobody_obeys_it(host: FakeHost, change: dict[str, Any], why: str) -> None:
    intent.write(host, WANTED)
    path = intent.path_of(host)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(SystemRefused, match=why) as refused:
        intent.read(host, Selection)
    assert "fixer on or fixer off writes it anew" in str(refused.value)


def test_half_a_file_is_no_intent(host: FakeHost) -> None:
    intent.write(host, WANTED)
    path = intent.path_of(host)
    for length in range(0, path.stat().st_size, 7):
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(SystemRefused):
            intent.read(host, Selection)
        intent.write(host, WANTED)


def test_what_was_wanted_of_a_namespace_that_is_gone_is_not_wanted_of_the_next_with_its_number(host: FakeHost) -> None:
    intent.write(host, WANTED)
    host.netns_cookie = lambda: 4712  # type: ignore[method-assign]
    assert intent.read(host, Selection) is None


def test_it_holds_until_its_time_has_come() -> None:
    ending = replace(WANTED, until=NOON + timedelta(minutes=30))
    assert ending.holds(NOON + timedelta(minutes=29, seconds=59))
    assert not ending.holds(NOON + timedelta(minutes=30))
    assert WANTED.holds(NOON + timedelta(days=300))
    assert not replace(WANTED, on=False).holds(NOON)


def test_a_daemon_that_is_nobody_reads_what_root_wrote_under_any_umask(host: FakeHost) -> None:
    before = os.umask(0o077)
    try:
        intent.write(host, WANTED)
        with place.locked(host):
            pass
    finally:
        os.umask(before)
    assert intent.path_of(host).stat().st_mode & 0o777 == 0o644
    assert place.path_of(host, "lock").stat().st_mode & 0o777 == 0o644


def test_two_do_not_change_it_at_once(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "_LOCK_SECONDS", 0.2)
    with place.locked(host), pytest.raises(SystemRefused, match="another fixer holds"), place.locked(host):
        pass
    with place.locked(host):
        pass


def test_a_process_that_was_forked_meanwhile_does_not_hold_it_on(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one has all descriptors until it executes, however long it waits for a CPU."""
    monkeypatch.setattr(place, "_LOCK_SECONDS", 0.2)
    with place.locked(host):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    try:
        with place.locked(host):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_namespace_has_a_cookie_of_its_own_or_the_kernel_none() -> None:
    assert Host().netns_cookie() in (None, Host().netns_cookie())


@pytest.mark.parametrize(
    ("who", "said"),
    [
        (Operator("root"), "root"),
        (Operator("root", "root"), "root"),
        (Operator("root", "alice"), "root (logged in as alice)"),
        (Operator("root", "alice", "alice"), "root (sudo by alice)"),
    ],
)
def test_who_it_was(who: Operator, said: str) -> None:
    assert str(who) == said


def test_who_it_is(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    assert operator(host) == Operator("root")
    host.files["/proc/self/loginuid"] = "4294967295\n"
    assert operator(host) == Operator("root")
    host.files["/proc/self/loginuid"] = "0\n"
    monkeypatch.setenv("SUDO_USER", "bob")
    assert operator(host) == Operator("root", "root", "bob")
