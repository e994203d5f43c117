"""The flow table's file: found again after any end, never believed unchecked, and one daemon's at a time."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import random
import resource
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest
from support.conversation import Connection, Node
from support.fakehost import FakeHost

from fixer.datapath.flows import Flows
from fixer.errors import QueueBusy, SystemRefused
from fixer.state import flowfile

HEADER, CLOCK, FLOW = 4096, 648, 64
DELTA, SEEN, STATE = 44, 52, 56  # in a flow
CLOCKS = 1024 // 16


def uptime() -> int:
    return int(time.monotonic())


def filled(connections: int = 20, flows: int = 1024) -> tuple[Node, list[Connection]]:
    """A table with connections of every kind, at this machine's uptime."""
    node = Node(flows)
    node.uptime = uptime()
    Connection(node, 60_000, 900_000).open()
    made = [Connection(node, port, port * 7) for port in range(1, connections + 1)]
    for each in made:
        each.open()
    return node, made


def put_aside(path: Path) -> int:
    """A file with connections whose daemon is no more; how many."""
    node, _ = filled()
    flowfile.open_flows(path, 1024)
    path.write_bytes(bytes(node.memory))
    return int(node.flows.counters()["used"])


def taken_over(memory: bytes | bytearray, flows: int = 1024) -> tuple[Node, tuple[int, int, int]]:
    node = Node(flows)
    node.uptime = uptime()
    return node, node.flows.adopt(memory, node.uptime)


def goes_on(node: Node, connection: Connection, delta: int) -> bool:
    connection.node = node
    return (connection.send(16) or 0) - connection.sent[-1] == delta and connection.answer(16) == connection.sent[-1]


def delta_of(connection: Connection) -> int:
    return connection.seen_by_server[-1] - connection.sent[-1]


@pytest.mark.parametrize("flows", [1024, 4096, 1_000_000])
def test_everything_is_found_again_whatever_the_size(flows: int) -> None:
    before, connections = filled()
    deltas = [delta_of(each) for each in connections]
    after, counts = taken_over(before.memory, flows)
    assert counts == (21, 0, 0)
    assert after.flows.counters()["normalised"] == before.flows.counters()["normalised"] == 20
    assert all(goes_on(after, each, delta) for each, delta in zip(connections, deltas, strict=True))
    assert Connection(after, 777, 0).open() == max(c.seen_by_server[-1] for c in connections) - after.uptime * 1000


def test_second_attempts_are_found_again() -> None:
    """One that has taken the connection's place, and one that still waits for its answer."""
    before, _ = filled(1)
    taken, waiting = (Connection(before, port, 0) for port in (100, 101))
    for each in (taken, waiting):
        each.open()
    again = Connection(before, 100, 40_000, isn=123_456)
    delta = again.open()
    assert delta > 0
    late = Connection(before, 101, 80_000, isn=654_321)
    late.syn()
    after, counts = taken_over(before.memory)
    assert counts == (4, 0, 0)
    assert goes_on(after, again, delta)
    assert goes_on(after, waiting, delta_of(waiting))
    late.node = after
    assert late.answer() == late.sent[-1]
    assert goes_on(after, late, delta_of(late))


def test_too_many_for_the_new_size() -> None:
    before, connections = filled(2000, 4096)
    for each in connections[:500]:
        each.close()
    after, (taken, damaged, left) = taken_over(before.memory, 1024)
    assert (taken, damaged, left) == (1024, 0, 2001 - 1024)
    assert after.flows.counters()["normalised"] == 1023, "those that live come first"


def test_what_is_over_is_not_taken_over() -> None:
    before, connections = filled()
    for each in connections:
        each.close()
    after = Node()
    assert after.flows.adopt(before.memory, before.uptime + 121) == (1, 0, 0)


def test_what_was_seen_later_than_now_is_not_taken_over() -> None:
    """Of a machine that was up for longer: a reboot, and a runtime directory that outlived it."""
    before, connections = filled()
    after = Node()
    assert after.flows.adopt(before.memory, before.uptime - 1) == (0, len(connections) + 1 + 1, 0), "and one clock"


@pytest.mark.parametrize("part", ["flow", "clock", "header"])
def test_every_damaged_bit_is_found_or_does_no_harm(part: str) -> None:
    """No bit that is flipped in one entry makes a delta or an address another one."""
    node = Node()
    node.uptime = uptime()
    Connection(node, 9, 900_000).open()
    one = Connection(node, 1, 0)
    one.open()
    delta = delta_of(one)
    memory = bytes(node.memory)
    flows = range(HEADER + CLOCKS * CLOCK, len(memory), FLOW)
    entry = next(at for at in flows if memory[at + 36 : at + 38] == b"\x00\x01" and memory[at + STATE])
    clock = next(at for at in range(HEADER, HEADER + CLOCKS * CLOCK, CLOCK) if memory[at + 36])
    begin, length = {"flow": (entry, FLOW), "clock": (clock, CLOCK), "header": (0, 32)}[part]
    for bit in range(8 * length):
        broken = bytearray(memory)
        broken[begin + bit // 8] ^= 1 << bit % 8
        if part == "header":
            with pytest.raises(ValueError, match="flow table"):
                taken_over(broken)
            continue
        after, (_taken, damaged, left) = taken_over(broken)
        assert left == 0
        one.node = after
        shifted = (one.send(16) or 0) - one.sent[-1]
        assert shifted in ((0, delta) if part == "flow" else (delta,))
        assert shifted == delta or damaged == 1 or (part == "flow" and bit >= SEEN * 8)


def test_damage_while_it_is_in_use() -> None:
    node, connections = filled()
    rng = random.Random(5)
    flows = range(HEADER + CLOCKS * CLOCK, HEADER + CLOCKS * CLOCK + 1536 * FLOW, FLOW)
    used = [at for at in flows if node.memory[at + STATE]]
    assert len(used) == 21
    for at in used[::3]:
        node.memory[at + DELTA] ^= 0x40
    for _ in range(20):
        node.memory[rng.choice(used) + rng.randrange(FLOW)] ^= rng.randrange(256)
    deltas = {delta_of(each) for each in connections} | {0}
    for each in connections:
        assert (each.send(16) or 0) - each.sent[-1] in deltas
    assert node.flows.counters()["damaged"] > 0
    assert node.flows.counters()["normalised"] <= 20


@pytest.mark.parametrize("content", [b"", b"x", bytes(100_000), os.urandom(100_000), b"FIXFLOWS" + bytes(8192)])
def test_a_foreign_file_is_set_aside_with_a_warning(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "1-0.flows"
    path.write_bytes(content)
    opened = flowfile.open_flows(path, 1024)
    assert opened.taken == 0
    assert "set aside as 1-0.flows.damaged" in opened.warnings[0]
    assert (tmp_path / "1-0.flows.damaged").read_bytes() == content
    assert flowfile.look(path) == flowfile.Live(0, False, 0, 1024)


def test_the_header_is_what_the_datapath_says(tmp_path: Path) -> None:
    path = tmp_path / "1-0.flows"
    assert flowfile.look(path) is None
    opened = flowfile.open_flows(path, 1024)
    del opened
    node, _ = filled()
    path.write_bytes(node.memory)
    assert flowfile.look(path) == flowfile.Live(20, False, 21, 1024)
    flowfile.set_draining(path, True)
    assert flowfile.look(path) == flowfile.Live(20, True, 21, 1024)
    opened = flowfile.open_flows(path, 2048)
    assert opened.flows.counters()["draining"] is True
    assert opened.taken == 21
    del opened
    for wrong in (b"short", b"foreign!" * 100):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match="it is"):
            flowfile.look(path)


def test_draining_leaves_new_connections_alone_and_serves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "1-0.flows"
    path.write_bytes(bytes(Flows.size(1024)))
    with path.open("r+b") as file:
        node = Node(memory=mmap.mmap(file.fileno(), 0))  # type: ignore[arg-type]
    Connection(node, 60_000, 900_000).open()
    one = Connection(node, 1, 0)
    delta = one.open()
    assert delta == 900_000
    flowfile.set_draining(path, True)
    new = Connection(node, 2, 0)
    assert new.open() == 0
    assert node.counted()["drained"] == 1
    assert goes_on(node, one, delta)
    assert flowfile.look(path) == flowfile.Live(1, True, 2, 1024)
    one.close()
    assert flowfile.look(path) == flowfile.Live(0, True, 2, 1024)
    flowfile.set_draining(path, False)
    assert Connection(node, 3, 0).open() == 900_000


def test_one_daemon_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "1-0.flows"
    first = flowfile.open_flows(path, 1024)
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(QueueBusy, match="another daemon uses"):
            flowfile.open_flows(path, 2048)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["1-0.flows"]
    del first
    assert flowfile.open_flows(path, 2048).flows.counters()["capacity"] == 2048


def test_what_cannot_be_made_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "1-0.flows"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, before[1]))
    try:
        with pytest.raises(SystemRefused, match=r"timestamps.flows = 65536\) cannot be made: File too large"):
            flowfile.open_flows(path, 65_536)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_where_no_file_can_be_made_what_is_there_goes_on_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path = tmp_path / "1-0.flows"
    used = put_aside(path)
    content = path.read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", refuse)
        opened = flowfile.open_flows(path, 2048)
    assert opened.taken == used == opened.flows.counters()["used"] > 0
    assert opened.warnings[0].startswith(f"the flow table {path} cannot be kept: {os.strerror(code)}; ")
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == content


@pytest.mark.root
def test_one_that_cannot_be_written_is_taken_over_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "1-0.flows"
    used = put_aside(path)
    if subprocess.run(["chattr", "+i", path], capture_output=True, check=False).returncode:
        pytest.skip("the kernel makes no file of this file system immutable")
    try:
        opened = flowfile.open_flows(path, 1024)
    finally:
        subprocess.run(["chattr", "-i", path], check=True)
    assert (opened.taken, len(opened.warnings)) == (used, 1)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    before = flowfile.open_flows(victim, 1024)
    del before
    content = victim.read_bytes()
    path = tmp_path / "1-0.flows"
    path.symlink_to(victim)
    with pytest.raises(SystemRefused, match="it is a symbolic link"):
        flowfile.open_flows(path, 1024)
    with pytest.raises(OSError, match="it is a symbolic link"):
        flowfile.set_draining(path, True)
    assert victim.read_bytes() == content


def test_a_pipe_in_its_place_is_not_waited_for(tmp_path: Path) -> None:
    """Whoever the directory belongs to could hold off, status and the daemon's start with it."""
    path = tmp_path / "1-0.flows"
    os.mkfifo(path)
    with pytest.raises(SystemRefused, match="it is no ordinary file"):
        flowfile.open_flows(path, 1024)
    with pytest.raises(OSError, match="it is no ordinary file"):
        flowfile.look(path)


def test_killed_anywhere_it_is_whole(tmp_path: Path) -> None:
    """A process that opens, uses and closes connections as fast as it can, killed at random moments."""
    rng = random.Random(9)
    path = tmp_path / "1-0.flows"
    busy = 0
    for _ in range(30):
        child = os.fork()
        if child == 0:
            try:
                opened = flowfile.open_flows(path, 1024)
                node = Node(flows=opened.flows)
                node.uptime = uptime()
                isn = 0
                while True:
                    for port in range(1, 200):
                        isn += 7919
                        connection = Connection(node, port, port * 1000, isn)
                        connection.open()
                        if port % 3:
                            connection.close()
            finally:
                os._exit(1)
        time.sleep(0.05 + rng.random() * 0.1)
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        if path.exists():
            after, (taken, damaged, left) = taken_over(path.read_bytes())
            assert (damaged, left) == (0, 0)
            assert after.flows.counters()["used"] == taken
            busy += taken > 0
    assert busy > 20


def test_paths() -> None:
    host = FakeHost()
    here = flowfile.path_of(host, 7).parent
    assert flowfile.path_of(host, 7).name == f"{host.netns_inode()}-7.flows"
    for name in (f"{host.netns_inode()}-0.flows", f"{host.netns_inode()}-0.flows.damaged", "999-0.flows"):
        (here / name).touch()
    assert flowfile.paths(host) == [here / f"{host.netns_inode()}-0.flows"]


def test_only_what_nobody_has_open_is_removed() -> None:
    host = FakeHost()
    here = flowfile.path_of(host, 0).parent
    used, unused = (flowfile.path_of(host, queue) for queue in (0, 1))
    foreign = here / "999-0.flows"
    foreign.write_bytes(b"another namespace's")
    opened = flowfile.open_flows(used, 1024)
    flowfile.open_flows(unused, 1024)
    flowfile.remove_unused(host)
    assert sorted(here.iterdir()) == sorted([used, foreign])
    del opened
    flowfile.remove_unused(host)
    assert list(here.iterdir()) == [foreign]


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "1-0.flows"
    child = os.fork()
    if child == 0:
        flowfile.open_flows(path, 1024)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert struct.unpack_from("=I", path.read_bytes(), 8) == (2,)
