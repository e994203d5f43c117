"""``fixer run`` as a process: what it says when it cannot begin, and that its end loses nothing."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support.commands import wait_for
from support.fakehost import FakeHost
from support.packets import tunnelled
from support.road import QUEUE, UNFINISHED, Road, pause

from fixer.config import Settings
from fixer.daemon.lanes import bound
from fixer.datapath.pipeline import Pipeline
from fixer.errors import KernelLacks, NotPermitted, QueueBusy, SystemRefused
from fixer.nfqueue.queue import Queue


@pytest.mark.root
def test_a_stop_loses_none_of_the_hundreds_that_are_held(road: Road) -> None:
    with road.daemon() as process:
        road.send(0, 10)
        assert road.received() == dict.fromkeys(range(10), True)
        pause(process)  # a reader so slow that it does not read
        road.send(10, 900)
        wait_for(lambda: road.held() >= 900)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        number = 910
        while process.poll() is None:
            road.send(number, 10)
            number += 10
            time.sleep(0.001)
        assert process.returncode == 0
    found = road.received()
    assert list(found) == list(range(10, number)), "every packet, and in order"
    assert all(found[each] for each in range(10, 910)), "what was held is repaired"


@pytest.mark.root
def test_a_fault_of_ours_beside_the_packets_leaves_no_thread_behind(road: Road) -> None:
    """The queues' threads keep a process alive that no signal ends any more, unless they are stopped as well."""
    fault = "from fixer.daemon.chores import Chores; from fixer.cli import main; Chores.do = None; main()"
    done = road.receiver.run(sys.executable, "-c", fault, "run", f"--queue={QUEUE}")
    assert done.status == 1
    assert done.err.endswith("TypeError: 'NoneType' object is not callable\n")
    road.send(0, 5)
    assert road.received() == dict.fromkeys(range(5), False), "nobody holds the queue"


@pytest.mark.root
@pytest.mark.parametrize("fail_open", [True, False])
def test_from_a_stop_on_new_packets_pass_at_once(road: Road, fail_open: bool) -> None:
    """Closing the queue drops what it holds: between the last answer and the close nothing may get into it."""
    queue = Queue(Pipeline(ports=[4789]), QUEUE)
    road.receiver.call(lambda: queue.bind(fail_open=fail_open))
    road.send(0, 5)
    wait_for(lambda: road.held() == 5)
    queue.let_new_pass()
    road.send(5, 5)
    queue.release()
    found = road.received()
    assert found == {number: number < 5 for number in range(10)}


@pytest.mark.root
@pytest.mark.parametrize("attempt", range(3))
def test_a_stop_in_a_flood_loses_nothing(road: Road, attempt: int) -> None:
    """Packets keep coming between the last one answered and the queue's end: those must pass at once."""
    sent = 0
    over = threading.Event()

    def flood() -> None:
        nonlocal sent
        while not over.is_set():
            road.send(sent, 20)
            sent += 20

    with road.daemon() as process:
        sender = threading.Thread(target=flood)
        sender.start()
        found = {}
        deadline = time.monotonic() + 0.2 + 0.05 * attempt
        while process.poll() is None:
            found |= road.received(0.001, most=1000)  # a flood has no silence to wait for
            if time.monotonic() > deadline:
                process.terminate()
                deadline += 60
        over.set()
        sender.join()
    found |= road.received()
    lost = sorted(set(range(sent)) - found.keys())
    assert (len(lost), lost[:3]) == (0, [])


@pytest.mark.root
def test_a_batch_of_changed_jumbo_packets(road: Road) -> None:
    """Their verdicts are more than one send may carry (EMSGSIZE would lose all of them)."""
    unfinished, finished = (tunnelled(state, "ZERO", payload=bytes(8900))[28:] for state in ("PARTIAL", "VERIFIES"))
    with road.daemon() as process:
        pause(process)
        for _ in range(64):
            road.inlet.send(unfinished)
        wait_for(lambda: road.held() == 64)
        process.send_signal(signal.SIGCONT)
        for _ in range(64):
            assert select.select([road.outlet], [], [], 2)[0]
            assert road.outlet.recv(65535) == finished


@pytest.mark.root
@pytest.mark.parametrize(("size", "changed"), [(65_000, True), (65_507, False)])
def test_a_packet_put_together_by_conntrack(road: Road, size: int, changed: bool) -> None:
    """Longer than any MTU and no super-packet: it is repaired, unless it is longer than a copy can be."""
    tracking = "-A INPUT -m conntrack --ctstate INVALID -j ACCEPT"
    assert road.receiver.run("iptables", *tracking.split()).status == 0
    payload = bytes(size - len(UNFINISHED) + len(b"payload!"))
    unfinished, finished = (tunnelled(state, "ZERO", payload=payload)[28:] for state in ("PARTIAL", "VERIFIES"))
    assert len(unfinished) == size
    with road.daemon():
        road.inlet.send(unfinished)
        assert select.select([road.outlet], [], [], 2)[0]
        assert road.outlet.recv(65535) == (finished if changed else unfinished)


@pytest.mark.root
def test_when_it_is_killed_packets_pass_unrepaired(road: Road) -> None:
    with road.daemon() as process:
        process.kill()
        process.wait()
        road.send(0, 50)
        assert road.received() == dict.fromkeys(range(50), False)


@pytest.mark.root
@pytest.mark.kernels
def test_a_full_queue_lets_packets_pass_unseen(road: Road, tmp_path: Path) -> None:
    config = tmp_path / "fixer.toml"
    config.write_text("[queue]\nlength = 100\n")
    with road.daemon(f"--config={config}") as process:
        pause(process)
        road.send(0, 500)
        wait_for(lambda: road.held() == 100)
        passed = road.received()
        assert list(passed) == list(range(100, 500))
        assert not any(passed.values())
        process.send_signal(signal.SIGCONT)
        assert road.received() == dict.fromkeys(range(100), True)


@pytest.mark.root
def test_fail_closed_is_a_choice(road: Road, tmp_path: Path) -> None:
    config = tmp_path / "fixer.toml"
    config.write_text("[queue]\nlength = 100\nfail_open = false\n")
    with road.daemon(f"--config={config}") as process:
        pause(process)
        road.send(0, 500)
        wait_for(lambda: road.held() == 100)
        assert road.received() == {}
        process.send_signal(signal.SIGCONT)
        assert list(road.received()) == list(range(100))


@pytest.mark.root
def test_a_queue_that_is_held_is_left_alone(road: Road) -> None:
    with road.daemon():
        second = road.receiver.run(sys.executable, "-m", "fixer", "run", f"--queue={QUEUE}")
        assert second.status == QueueBusy.exit_code
        assert json.loads(second.out)["event"]["action"] == "failed"
        assert second.err.count("\n") == 1
        assert f"queue {QUEUE} is held by another process" in second.err
        road.send(0, 5)
        assert len(road.received()) == 5


@pytest.mark.root
def test_without_the_capability_it_says_so(road: Road) -> None:
    without = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-all"]
    done = road.receiver.run(*without, sys.executable, "-m", "fixer", "run", f"--queue={QUEUE}")
    assert done.status == NotPermitted.exit_code
    assert done.err.count("\n") == 1
    assert "root" in done.err


@pytest.mark.root
def test_a_log_that_nobody_reads_holds_up_neither_packets_nor_a_stop(road: Road, tmp_path: Path) -> None:
    config = tmp_path / "fixer.toml"
    config.write_text("[log]\nper_second = 1000\n")
    with road.daemon(f"--config={config}") as process:
        for first in range(0, 20_000, 500):
            road.send(first, 500)
            assert len(road.received(2.0, most=500)) == 500
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert time.monotonic() - begun > 1, "the pipe was not full: nothing was shown"


@pytest.mark.root
def test_a_log_that_is_closed_ends_nothing(road: Road) -> None:
    with road.daemon() as process:
        assert process.stdout is not None
        process.stdout.close()
        road.send(0, 20)
        assert len(road.received()) == 20
        time.sleep(0.3)
        road.send(20, 20)
        assert road.received() == dict.fromkeys(range(20, 40), True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.mark.root
@pytest.mark.kernels
@pytest.mark.parametrize("gso", [True, False])
def test_super_packets_come_whole_where_that_is_asked_for(road: Road, tmp_path: Path, gso: bool) -> None:
    """A local veth's TCP: merged (TSO) and unfinished, which is no fault of a packet that never met a wire."""
    config = tmp_path / "fixer.toml"
    config.write_text(f"plain = true\n[queue]\ngso = {str(gso).lower()}\n")
    rule = f"-t raw -A PREROUTING -p tcp -j NFQUEUE --queue-num {QUEUE}"
    assert road.receiver.run("iptables", *rule.split()).status == 0
    content = random.Random(1).randbytes(5 << 20)
    with road.daemon(f"--config={config}") as process:
        assert received_over_tcp(road, content) == content
        process.terminate()
        assert process.stdout is not None
        counters = json.loads(process.stdout.readlines()[-1])["fixer"]["counters"]
    assert (counters["reason"]["super_packet"] > 0) == gso
    assert counters["changed"] == counters["dropped"] == 0
    assert counters["packets"] == counters["reason"]["super_packet"] + counters["inner"]["verifies"] + (
        counters["inner"]["partial"] if gso else 0
    )


def received_over_tcp(road: Road, content: bytes) -> bytes:
    """What arrives of `content` when it is sent over one connection to the receiver."""
    listener: socket.socket = road.receiver.call(socket.create_server, ("192.0.2.2", 8080))
    client: socket.socket = road.sender.call(socket.create_connection, ("192.0.2.2", 8080), 5)
    with listener, client, listener.accept()[0] as server:
        sender = threading.Thread(target=lambda: (client.sendall(content), client.close()))
        sender.start()
        found = bytearray()
        while data := server.recv(1 << 16):
            found += data
        sender.join()
        return bytes(found)


@pytest.mark.root
def test_several_queues_each_keep_their_order(road: Road, tmp_path: Path) -> None:
    """--queue-cpu-fanout takes the queue of the CPU a packet arrives on; over veth that is the sender's."""
    allowed = sorted(os.sched_getaffinity(0))[:2]
    if allowed != [0, 1]:
        pytest.skip("the CPUs 0 and 1 are not both ours to use")
    config = tmp_path / "fixer.toml"
    config.write_text("[queue]\ncount = 2\n")
    road.receiver.run("iptables", "-t", "raw", "-F")
    fanout = f"--queue-balance {QUEUE}:{QUEUE + 1} --queue-cpu-fanout --queue-bypass"
    rule = f"-t raw -A PREROUTING -p udp --dport 4789 -j NFQUEUE {fanout}"
    assert road.receiver.run("iptables", *rule.split()).status == 0

    def send_on(cpu: int) -> None:
        os.sched_setaffinity(0, {cpu})  # of this thread alone
        road.send(cpu << 16, 1000)

    with road.daemon(f"--config={config}") as process:
        senders = [threading.Thread(target=send_on, args=(cpu,)) for cpu in allowed]
        for sender in senders:
            sender.start()
        found = road.received()
        for cpu, sender in zip(allowed, senders, strict=True):
            sender.join()
            mine = [number for number in found if number >> 16 == cpu]
            assert mine == list(range(cpu << 16, (cpu << 16) + 1000))
        assert all(found.values())
        table = road.receiver.call(road.host.read, "/proc/thread-self/net/netfilter/nfnetlink_queue")
        sequences = {int(line.split()[0]): int(line.split()[7]) for line in table.splitlines()}
        assert set(sequences) == {QUEUE, QUEUE + 1}
        assert min(sequences.values()) > 500
        process.terminate()
        assert process.stdout is not None
        assert json.loads(process.stdout.readlines()[-1])["fixer"]["counters"]["changed"] == 2000


@pytest.mark.root
def test_the_report_that_status_reads(road: Road) -> None:
    def status() -> Any:
        done = road.receiver.run(sys.executable, "-m", "fixer", "status", "--json", f"--queue={QUEUE}")
        return json.loads(done.out)

    with road.daemon() as process:
        road.send(0, 7)
        road.received()
        wait_for(lambda: status()["daemon"]["counters"]["action"]["repair"] == 7, 10)
        assert status()["daemon"]["pid"] == process.pid
        assert status()["daemon"]["flags"] == {"fail_open": True, "gso": True}
    assert status()["daemon"] is None


@pytest.mark.root
def test_it_starts_in_half_a_second_and_stays_under_40_mb(road: Road) -> None:
    """The half second is the processor's, and the best of three: what others do here meanwhile is not ours."""
    spent = []
    for _ in range(3):
        with road.daemon() as process:
            words = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            spent.append((int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK"))
    assert min(spent) < 0.5
    with road.daemon() as process:
        pause(process)
        road.send(0, 1000)  # whole batches: every buffer is touched
        process.send_signal(signal.SIGCONT)
        assert len(road.received(1.0, most=1000)) == 1000
        assert resident(process.pid) < 40 << 20


def resident(pid: int) -> int:
    """The most bytes of memory that a process had so far."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) << 10


def test_it_loads_nothing_that_only_people_or_packet_makers_need() -> None:
    """A node's memory and a restart's time. (asyncio is there because structlog knows it.)"""
    probe = "import sys, fixer.cli, fixer.daemon.run as run; run.Teller(list, sys.stdout); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"fixer.nfqueue.queue", "structlog.dev", "ecs_logging"} <= loaded
    assert not {"rich", "pygments", "scapy", "sqlite3", "unittest", "pyroute2"} & loaded
    assert not {
        name for name in loaded if name.startswith(("fixer.screen", "fixer.capture", "fixer.lab", "fixer.doctor"))
    }


@pytest.mark.parametrize(
    ("table", "error"),
    [
        (None, KernelLacks),
        (f"{QUEUE} 4711 0 2 65531 0 0 0 1\n", QueueBusy),
        ("3 4711 0 2 65531 0 0 0 1\n", SystemRefused),
    ],
)
def test_a_refusal_is_told_by_what_the_kernel_shows(
    table: str | None, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    class RefusedQueue:  # a mock: what a kernel lacks cannot be taken from this one
        def __init__(self, *_: object) -> None:
            pass

        def bind(self, **_: object) -> None:
            raise OSError("Failed to create queue")

    monkeypatch.setattr("fixer.daemon.lanes.Queue", RefusedQueue)
    host = FakeHost()
    if table is not None:
        host.files["/proc/thread-self/net/netfilter/nfnetlink_queue"] = table
    with pytest.raises(error) as raised:
        bound(Settings(), host, QUEUE, Pipeline(ports=[4789]), gso=True)
    assert "\n" not in str(raised.value)
