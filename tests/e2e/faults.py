"""``make faults``: what goes wrong with the daemon and around it, under traffic over a broken wire; a table.

Not collected with the rest, for it takes minutes (one row is in `test_faults`). Each row is written into
docs/reliability.md when it has been seen; ``ARGS="-k SIGSTOP"`` sees one anew.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.cgroup import group
from support.commands import wait_for
from support.load import PATIENCE_SECONDS, Noticed
from support.supervised import Restart, directive
from support.table import Table

from fixer.errors import QueueBusy
from fixer.host import queues
from fixer.rules import switch

from .guard import BY_VARIANT, load, needs
from .scene import Scene, scene

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(600),
    # Where a transfer is given up, asyncio leaves its sockets to the garbage collector, and that says so.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

UNATTENDED_SECONDS = 2.0
"""The longest pause where nobody has to act."""
START_SECONDS = 1.0
"""What a start may take."""
RESTART_SECONDS = float(directive("RestartSec")) + START_SECONDS
WATCHDOG_SECONDS = 2 * float(directive("WatchdogSec")) + RESTART_SECONDS
TRAFFIC = {False: "as it is", True: "normalised"}
"""Each fault meets both: with shifted timestamps a connection needs the daemon and what it remembers."""
TALKATIVE = "[log]\nper_second = 1000\n"
DOWN_SECONDS = 0.5
STARVED_SECONDS = 10.0
"""As long may the path be closed: who gets no CPU repairs nothing (docs/reliability.md names it)."""
OFTEN = 10
"""How many times more an overrun queue is sent than it can take."""

ATTEMPTS = 3
"""Starts in vain after which somebody comes and mends what prevents them."""
HELD = 5
"""Packets that may be in the queue at a moment without load."""

TABLE = Table(Path(__file__).parents[2] / "docs" / "reliability.md", "faults")


@dataclass(frozen=True)
class Fault:
    """``act`` does it, returns when all is well again, and says how that came about.

    ``most``: seconds that the path may be closed. ``settings`` are the daemon's, and it is started ``through`` other
    words, with {room} in them. ``beside`` is laid out before, and given to the scene.
    """

    name: str
    act: Callable[[Scene], str]
    most: float = UNATTENDED_SECONDS
    settings: str = ""
    through: tuple[str, ...] = ()
    beside: Callable[[Path], AbstractContextManager[Any]] = nullcontext
    not_reached: str = ""
    """Why, with normalised timestamps, a connection may be lost all the same or the pause be longer."""


def by_the_unit(restart: Restart) -> str:
    why = "the watchdog ended it" if restart.bitten else f"it ended by {restart.ended}"
    return f"{why}; the unit had it back {restart.seconds:.1f} s later"


# --- the process -----------------------------------------------------------------------------------------------------


def killed(here: Scene) -> str:
    os.kill(here.pid, signal.SIGKILL)
    return by_the_unit(here.supervisor.restarted())


def stopped(here: Scene) -> str:
    """Nobody sends SIGCONT: for 60 s or for ever is the same, for the watchdog is sooner."""
    os.kill(here.pid, signal.SIGSTOP)
    return by_the_unit(here.supervisor.restarted())


def out_of_memory(here: Scene) -> str:
    """Beside somebody who takes all there is in their group, the kernel's first choice."""
    with group("memory") as narrow:
        narrow.hold_memory(64 << 20)
        narrow.take(here.pid)
        Path(f"/proc/{here.pid}/oom_score_adj").write_text("1000")
        greedy = "import os, time; open(f'/proc/self/cgroup'); time.sleep(0.5); bytearray(1 << 30)"
        with subprocess.Popen([sys.executable, "-c", greedy]) as other:
            narrow.take(other.pid)
            restart = here.supervisor.restarted()
            assert other.wait(30) == -signal.SIGKILL
        assert narrow.killed >= 2
    return by_the_unit(restart)


def upgraded(here: Scene) -> str:
    before = here.pid
    restart = here.supervisor.restart()
    assert here.pid != before
    return f"stopped and started as `systemctl restart` does: {restart.seconds:.1f} s in all"


def twice(here: Scene) -> str:
    second = here.service.ask("run")
    assert second.status == QueueBusy.exit_code
    time.sleep(1)
    return f"the second ends with status {second.status} and one line"


def starved(here: Scene) -> str:
    """On a CPU that somebody else wants all the time, and runs only when nobody does."""
    threads = [int(task.name) for task in Path(f"/proc/{here.pid}/task").iterdir()]
    cpu = min(os.sched_getaffinity(0))
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        os.sched_setaffinity(busy.pid, {cpu})
        for thread in threads:
            with suppress(ProcessLookupError):  # one that has ended meanwhile
                os.sched_setaffinity(thread, {cpu})
                os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
        time.sleep(STARVED_SECONDS)
    finally:
        busy.kill()
        busy.wait()
    restarts = len(here.supervisor.restarts)
    for thread in threads:
        with suppress(ProcessLookupError):
            os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
            os.sched_setaffinity(thread, os.sched_getaffinity(0))
    return "it got what was left of that CPU for 10 s" + f", {restarts} restarts by the watchdog" * bool(restarts)


# --- what it writes and is asked for ---------------------------------------------------------------------------------


@contextmanager
def pipe(room: Path) -> Iterator[list[int]]:
    """A pipe as standard output, which we hold open and do not read."""
    os.mkfifo(room / "pipe")
    held = [os.open(room / "pipe", os.O_RDWR)]
    try:
        yield held
    finally:
        for descriptor in held:
            os.close(descriptor)


TO_THE_PIPE = ("sh", "-c", 'exec "$@" >"$0"', "{room}/pipe")


def log_blocked(here: Scene) -> str:
    """Until what happens does not find room in the ring any more."""
    here.counts("events_lost")
    time.sleep(1)
    return f"packets do not wait for it: {here.report().numbers()['events_lost']} events were lost, and are counted"


def log_without_reader(here: Scene) -> str:
    os.close(here.beside.pop())
    time.sleep(3)
    assert here.service.process.poll() is None
    return "lines are given up and counted"


@contextmanager
def small_disk(room: Path) -> Iterator[None]:
    (room / "disk").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", room / "disk"], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", room / "disk"], check=True)


def disk_full(here: Scene) -> str:
    log = here.room / "disk" / "log"
    with (here.room / "disk" / "junk").open("wb", buffering=0) as junk, suppress(OSError):
        while junk.write(bytes(1024)):
            pass
    time.sleep(3)
    (here.room / "disk" / "junk").unlink()
    log.unlink()  # or it is full of what it says
    wait_for(lambda: log.exists() and b'"log-lost"' in log.read_bytes(), 10)
    return "lines are given up; with room again one says how many"


def scraped(here: Scene) -> str:
    """By eight at once, again and again, and one who begins and never asks."""
    over, scrapes = threading.Event(), [0]

    def scrape() -> None:
        while not over.is_set():
            scrapes[0] += here.scrape()

    threads = [threading.Thread(target=scrape, daemon=True) for _ in range(8)]
    with socket.socket(socket.AF_UNIX) as idle:
        idle.connect(str(here.room / "metrics"))
        for thread in threads:
            thread.start()
        time.sleep(10)
        over.set()
        for thread in threads:
            thread.join(15)
    assert scrapes[0] > 20
    return f"{scrapes[0]} scrapes in 10 s, and packets do not wait for them"


def misconfigured(here: Scene) -> str:
    good = here.service.config.read_text()
    here.service.config.write_text("[queue\nnumber = [")
    here.service.process.send_signal(signal.SIGHUP)
    here.log.event("not-reloaded")
    time.sleep(0.5)
    here.service.config.write_text(good)
    here.service.process.send_signal(signal.SIGHUP)
    here.log.event("reloaded")
    return "what was in force stays, and the log says why"


def state_damaged(damage: Callable[[Path], None]) -> Callable[[Scene], str]:
    """Every file of this network namespace; then the daemon is killed, so that the next one meets them."""

    def act(here: Scene) -> str:
        right = here.lab.right
        inode = right.call(right.host.netns_inode)
        files = [path for path in (right.host.run_directory / "fixer").iterdir() if path.name.startswith(f"{inode}")]
        assert len(files) >= 3, files
        process = here.service.process
        try:
            for path in files:
                damage(path)
            time.sleep(1)
            # What it has mapped may have ended it before us, and the unit have started another one.
            if here.service.process is process and process.poll() is None:
                here.service.kill()
            wait_for(lambda: here.supervisor.restarts or here.supervisor.attempts >= ATTEMPTS, 60)
        finally:
            for path in files:
                subprocess.run(["chattr", "-f", "-i", path], check=False)
        wait_for(lambda: here.supervisor.restarts, 60)
        restart = here.supervisor.restarts[0]
        by_hand = f", once they could be written again, after {restart.attempts} starts in vain" * bool(
            restart.attempts
        )
        return by_the_unit(restart) + by_hand

    return act


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def make_foreign(path: Path) -> None:
    path.write_bytes(b"#!/bin/sh\necho this is another program's\n")


def fill_with_zeros(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))


def make_read_only(path: Path) -> None:
    """For root too: it can be neither written nor replaced."""
    done = subprocess.run(["chattr", "+i", path], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the kernel makes no file of this file system immutable: {done.stderr}")


# --- the host --------------------------------------------------------------------------------------------------------


def overrun(here: Scene) -> str:
    """By a queue that has 2 % of a CPU, and whole packets of somebody else, ten times as many as it takes."""
    right = here.lab.right

    def counted() -> tuple[int, int]:
        """What the rule has sent to the queue, and what the queue had room for."""
        sent = right.call(switch.rule_packets, right.host, 0)
        return sum(each or 0 for each in sent.values()), right.call(queues.bound, right.host)[0].sequence

    with group("cpu") as slow:
        slow.hold_cpu(0.02)
        slow.take(here.pid)
        before, began = counted(), time.monotonic()
        here.flood(5)
        (sent, taken), seconds = (
            (now - then for now, then in zip(counted(), before, strict=True)),
            time.monotonic() - began,
        )
    assert sent >= OFTEN * taken, f"{sent} were sent, and {taken} taken: no overrun"
    return f"{sent / seconds:,.0f} packets a second for {seconds:.0f} s, of which it took {taken / seconds:,.0f}"


def interface_down(here: Scene) -> str:
    here.lab.right.configure("link set eth0 down")
    time.sleep(DOWN_SECONDS)
    here.lab.right.configure("link set eth0 up")
    return f"{DOWN_SECONDS:g} s of it the interface was down"


def namespace_deleted(here: Scene) -> str:
    """Its name goes; it stays while somebody is in it, and is given its name again for the tests' sake."""
    right = here.lab.right
    right.remove()
    here.traffic.goes_on()
    time.sleep(2)
    done = right.host.run(["ip", "netns", "attach", right.name, str(here.pid)])
    assert done.status == 0, done.err
    return "it stays, as long as the daemon is in it"


def clock_set(here: Scene) -> str:
    moments = []
    for ahead in (86_400, -86_400, 0):
        set_clock(here.room, ahead)
        time.sleep(2)
        here.service.process.send_signal(signal.SIGHUP)
        moments.append(here.log.event("reloaded")["@timestamp"])
    assert moments[1] < moments[2] < moments[0], moments
    return "a day ahead, a day back and right again: packets do not go by that clock"


def set_clock(room: Path, ahead: int) -> None:
    with (room / "clock").open("r+b" if (room / "clock").exists() else "wb") as file:
        file.write(struct.pack("=q", ahead))


def compiled(room: Path, name: str) -> None:
    """Something of tests/support, to be loaded before all other libraries."""
    source = Path(__file__).parents[1] / "support" / f"{name}.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", room / f"{name}.so", source, "-ldl"], check=True)


@contextmanager
def another_clock(room: Path) -> Iterator[None]:
    compiled(room, "clockset")
    set_clock(room, 0)
    yield


@contextmanager
def unkind(room: Path) -> Iterator[None]:
    compiled(room, "unkind")
    yield


def netlink_unkind(here: Scene) -> str:
    """What it could not say after several attempts it says a moment later: nothing waits in the queue for ever."""
    right = here.lab.right
    for name in ("unreadable", "overruns", "unsent"):
        here.counts_of_queue(name)
    time.sleep(5)
    assert min(right.call(queues.bound, right.host)[0].waiting for _ in range(50)) < HELD
    counters = here.report().queue_counters
    return (
        f"calls are made again; {counters['unsent']} verdicts came a moment later, packets as they were; "
        f"{counters['unreadable']} messages were passed over"
    )


NOT_REACHED = "**Not reached**: "
TABLE_LOST = "by how much the transfer was shifted stood in the file that was destroyed"
SET = ("env", "LD_PRELOAD={room}/clockset.so", "CLOCK_AHEAD={room}/clock")

FAULTS = (
    Fault("kill -9", killed, RESTART_SECONDS),
    Fault("SIGSTOP", stopped, WATCHDOG_SECONDS),
    Fault("out of memory in its control group", out_of_memory, RESTART_SECONDS),
    Fault("an upgrade: another process", upgraded),
    Fault("a second daemon on the queue", twice),
    Fault("no CPU: SCHED_IDLE beside a busy loop", starved, STARVED_SECONDS + UNATTENDED_SECONDS),
    Fault("the log's pipe blocked, the event ring full", log_blocked, 2.0, TALKATIVE, TO_THE_PIPE, pipe),
    Fault("the log's reader gone", log_without_reader, 2.0, TALKATIVE, TO_THE_PIPE, pipe),
    Fault("the log's disk full", disk_full, 2.0, '[log]\nto = "{room}/disk/log"\nper_second = 1000\n', (), small_disk),
    Fault("metrics scraped without end", scraped, 2.0, '[metrics]\nlisten = "unix:{room}/metrics"\n'),
    Fault("a configuration broken at a reload", misconfigured),
    Fault("state files cut off, and kill -9", state_damaged(truncate), RESTART_SECONDS, not_reached=TABLE_LOST),
    Fault(
        "state files of somebody else, and kill -9",
        state_damaged(make_foreign),
        RESTART_SECONDS,
        not_reached=TABLE_LOST,
    ),
    Fault(
        "state files full of zeros, and kill -9",
        state_damaged(fill_with_zeros),
        RESTART_SECONDS,
        not_reached=TABLE_LOST,
    ),
    Fault("state files read-only, and kill -9", state_damaged(make_read_only), RESTART_SECONDS),
    Fault(f"the queue overrun {OFTEN} times", overrun),
    Fault("the interface down and up", interface_down),
    Fault("the network namespace deleted", namespace_deleted),
    Fault("the clock set", clock_set, 2.0, "", SET, another_clock),
    Fault(
        "netlink fails, and says garbled things",
        netlink_unkind,
        2.0,
        "",
        ("env", "LD_PRELOAD={room}/unkind.so"),
        unkind,
    ),
)


def told(name: str, normalised: bool, noticed: Noticed, how: str) -> None:
    TABLE.put(
        name,
        TRAFFIC[normalised],
        f"{noticed.unanswered} of {noticed.asked}",
        f"{noticed.lost} of {noticed.visits + 1}",
        f"{noticed.pause:.2f} s",
        f"{noticed.stall:.1f} s",
        f"{noticed.wait:.1f} s",
        how,
    )


def endured(fault: Fault, normalised: bool, room: Path) -> tuple[Noticed, str]:
    """One fault under traffic: what was noticed of it, and how all was well again."""
    with ExitStack() as undo:
        beside = undo.enter_context(fault.beside(room))
        here = undo.enter_context(
            scene(room, normalised=normalised, settings=fault.settings, through=fault.through, beside=beside)
        )
        time.sleep(1)  # of good days
        began = time.monotonic()
        how = fault.act(here)
        try:
            here.traffic.goes_on()
        except AssertionError:
            if not (normalised and fault.not_reached):
                raise
            here.traffic.another_transfer()  # the one that stands still is given up, and counted
            here.traffic.goes_on(2 * PATIENCE_SECONDS)
        time.sleep(1)
        here.traffic.finish()
        return here.traffic.noticed(began), how


@pytest.mark.parametrize("normalised", TRAFFIC, ids=TRAFFIC.values())
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_no_connection_is_lost_and_the_pause_is_short(fault: Fault, normalised: bool, tmp_path: Path) -> None:
    noticed, how = endured(fault, normalised, tmp_path)
    reached = noticed.lost == 0 and noticed.pause <= fault.most + load()
    excused = normalised and not reached and fault.not_reached
    if excused and NOT_REACHED not in how:
        how += f". {NOT_REACHED}{fault.not_reached}"
    told(fault.name, normalised, noticed, how)
    assert reached or excused, noticed


@pytest.mark.parametrize("normalised", TRAFFIC, ids=TRAFFIC.values())
@pytest.mark.parametrize("variant", BY_VARIANT)
def test_each_way_of_losing_the_rule(variant: str, normalised: bool, tmp_path: Path) -> None:
    needs(variant)
    on = ("--backend", "nft") if variant == "native" else ("--variant", variant)
    spans: list[tuple[str, float, float, str]] = []
    with scene(tmp_path, normalised=normalised, on=on) as here:
        for name, way in BY_VARIANT[variant].items():
            if "legacy" in way.command:
                needs("legacy")
            assert here.service.ask("on", *on, "--reason", name).status == 0  # so that the guard counts anew
            here.log.event("rule-on")
            here.traffic.goes_on()
            began = time.monotonic()
            done = here.lab.right.run("sh", "-c", way.command.format(v=variant))
            assert done.status == 0, done.err
            lost = here.log.event("rule-lost")
            here.log.event("rule-put-back")
            here.traffic.goes_on()
            spans.append((name, began, time.monotonic(), f"the guard: `{lost['message']}`"))
        time.sleep(1)
        here.traffic.finish()
    where = "nftables" if variant == "native" else f"iptables-{variant}"
    found = [(name, here.traffic.noticed(began, until), how) for name, began, until, how in spans]
    for name, noticed, how in found:
        told(f"{name} ({where})", normalised, noticed, how)
    assert [noticed.failures for _, noticed, _ in found if noticed.lost] == []
    assert max(noticed.pause for _, noticed, _ in found) <= UNATTENDED_SECONDS + load()
