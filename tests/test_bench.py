"""The benchmark's own parts: what it measures with, what it measures against, and how it judges."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from math import comb
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fixer.datapath.diagnose import Diagnosis
from fixer.datapath.pipeline import Pipeline
from fixer.errors import SystemRefused
from fixer.host.machine import Host
from fixer.lab import bpf, net
from fixer.lab.net import stop
from fixer.state import flowfile

sys.path.append(str(Path(__file__).parents[1]))  # behind everything else: fixer stays the one that is installed

from bench import cases, datapath, packets, profile, ratio, receivers, report, scan
from bench.cable import OVERLAY, PORT, Cable, Run, Traffic
from bench.compare import Compared
from bench.datapath import Normalising, Pace, Watching
from bench.latency import MOST_RATIO, Latency, quantile
from bench.memory import Memory, Sample
from bench.ratio import Interval

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler to build loop.c with")


@pytest.mark.parametrize("count", range(6, 60))
def test_the_interval_has_the_confidence_it_claims_and_no_rank_further_in_has(count: int) -> None:
    def confidence(k: int) -> Fraction:
        """Of the k-th smallest to the k-th largest: that neither fewer than k are above the median, nor below."""
        return 1 - 2 * Fraction(sum(comb(count, below) for below in range(k)), 2**count)

    k = ratio.rank(count)
    assert confidence(k) >= Fraction(95, 100)
    assert confidence(k + 1) < Fraction(95, 100)


def test_the_interval_of_fifteen_is_from_the_fourth_to_the_twelfth() -> None:
    assert ratio.interval([*range(15, 0, -1)]) == Interval(8, 4, 12)
    assert ratio.interval([3.0, 1.0, 2.0]) == Interval(2, 1, 3)


def test_a_ratio_is_one_of_pairs() -> None:
    """A machine that was three times slower in one round was so for both."""
    assert ratio.ratios([10, 20, 10], to=[5, 10, 5]) == Interval(2, 2, 2)


def run(gbit: float = 1.0, own_us: float = 1.0) -> Run:
    return Run(gbit, packets=1000, merged=1.0, machine_us=2.0, own_us=own_us, queued=1000, unseen=0)


@pytest.mark.parametrize(
    ("ours", "least", "most", "reached"),
    [
        ([0.90, 0.95, 0.98], 0.97, None, True),  # inside the interval
        ([0.90, 0.95, 0.96], 0.97, None, False),
        ([1.10, 1.20, 1.30], 0.97, None, True),
        ([1.00, 1.10, 1.20], None, 1.05, True),
        ([1.06, 1.10, 1.20], None, 1.05, False),
        ([0.10, 0.20, 0.30], None, 1.05, True),
    ],
)
def test_a_bound_is_reached_if_the_interval_reaches_it(
    ours: list[float], least: float | None, most: float | None, reached: bool
) -> None:
    bound = cases.Bound("clean", receivers.FIXER_ALL, receivers.LOOP, "gbit_per_second", least, most)
    runs = {receivers.FIXER_ALL.name: [run(gbit) for gbit in ours], receivers.LOOP.name: [run()] * len(ours)}
    assert cases.judged(bound, runs).reached is reached


def test_every_bound_is_about_receivers_that_are_measured() -> None:
    measured = {case.name: set(case.receivers) for case in cases.CASES}
    assert all({bound.receiver, bound.to} <= measured[bound.case] for bound in cases.BOUNDS)


def results() -> report.Results:
    found = report.Results(rounds=2, seconds=1, machine={"cpus": 2}, began="2026-01-02T03:04:05Z")
    found.cases = {
        case.name: {receiver.name: [run(1.0), run(2.0)] for receiver in case.receivers} for case in cases.CASES
    }
    waits = {"no rule": [[40.0, 50.0]], "fixer, suspects": [[40.0, 60.0]], "fixer": [[80.0, 90.0]]}
    found.latency = Latency(waits, waits, 3)
    found.paces = [Pace(64, 114, "sound", Interval(90, 80, 100), Interval(6, 5, 7))]
    found.normalising = Normalising(
        9, Interval(70, 60, 80), Interval(90, 90, 90), Interval(95, 91, 99), Interval(50, 40, 60)
    )
    found.watching = [Watching(64, Interval(90, 80, 100), *[Interval(1, 0, 2)] * 3)]
    found.scan = scan.Scanned(1000, 100_000, (1.0, 1.0), (30.0, 25.0), (0.5, 0.5), (20.0, 18.0))
    found.compare = Compared(1000, 2.5, 2.4, 290.0)
    found.memory = Memory(tuple(Sample(packets=number, mib=31.0) for number in range(10, 110, 10)))
    return found


def test_the_document_is_json_and_has_every_run_and_every_verdict(tmp_path: Path) -> None:
    read = json.loads(report.save(results(), tmp_path).read_text())
    assert read.keys() >= {
        "fixer",
        "machine",
        "rounds",
        "seconds",
        "cases",
        "latency",
        "datapath",
        "normalising",
        "watching",
        "scan",
        "compare",
        "memory",
        "bounds",
    }
    assert read["cases"].keys() == {case.name for case in cases.CASES}
    assert read["cases"]["clean"]["no rule"][1] == run(2.0)._asdict()
    assert read["scan"]["ratio"] == {"median": 27.5, "low": 25.0, "high": 30.0}
    assert read["scan"]["cpu_ratio"] == {"median": 38.0, "low": 36.0, "high": 40.0}
    assert read["normalising"]["lookup"] == {"median": 70, "low": 60, "high": 80}
    assert len(read["bounds"]) == len(cases.BOUNDS) + 6
    assert all(bound.keys() == {"what", "must_be", "is", "reached"} for bound in read["bounds"])


def test_what_was_not_measured_is_not_judged() -> None:
    assert not list(report.verdicts(report.Results(rounds=1, seconds=1, machine={}, began="")))


def test_every_part_has_a_table() -> None:
    console = Console(width=200, record=True)
    for table in report.tables(results()):
        console.print(table)
    shown = console.export_text()
    assert all(case.title in shown for case in cases.CASES)
    assert "27.5 (25.0–30.0)" in shown
    assert "31.00 MiB" in shown
    assert "1.20 (1.20–1.20)" in shown
    assert "3 questions had no answer" in shown
    assert "a lookup among 9 connections" in shown
    assert "70 (60–80)" in shown


def test_a_quantile_is_what_so_many_do_not_exceed() -> None:
    hundred = [float(number) for number in range(100, 0, -1)]
    assert [quantile(hundred, share) for share in (0.5, 0.99, 0.999, 1.0)] == [50, 99, 100, 100]
    assert quantile([7.0], 0.5) == 7


def test_a_wait_is_judged_by_what_it_is_without_a_rule() -> None:
    judged = [(what, reached) for what, _, _, reached in report.verdicts(results()) if "questions" in what]
    assert MOST_RATIO == 1.5
    assert judged == [
        ("alone, 99 of 100 questions: fixer, suspects to no rule", True),
        ("alone, 99 of 100 questions: fixer to no rule", False),
    ]


def test_a_comparison_that_takes_too_long_or_too_much_is_not_reached() -> None:
    assert Compared(1000, 9.9, 2.4, 470.0).reached
    assert not Compared(1000, 10.1, 2.4, 470.0).reached
    assert not Compared(1000, 9.9, 2.4, 480.0).reached


def test_memory_that_grows_is_not_flat() -> None:
    grows = Memory(tuple(Sample(packets=number, mib=30 + number / 50) for number in range(10, 110, 10)))
    assert not grows.reached
    assert results().memory.reached  # type: ignore[union-attr]


@pytest.mark.parametrize("inner", [40, 41, 64, 1450, 9000, 64000])
@pytest.mark.parametrize("number", [0, 1, 207, 65535])
def test_made_packets_are_sound_or_unfinished_as_asked(inner: int, number: int) -> None:
    pipeline = Pipeline(ports=[PORT])
    for unfinished, diagnosis in ((False, Diagnosis.SOUND), (True, Diagnosis.INNER_UNFINISHED)):
        made = list(islice(packets.flow(inner, number, unfinished), 50))
        assert len(set(made)) == (50 if inner > 40 else 1)
        for packet in made:
            assert len(packet) == inner + packets.AROUND
            assert pipeline.examine(bytearray(packet)).diagnosis is diagnosis


def test_made_conversations_go_both_ways_and_are_sound() -> None:
    pipeline = Pipeline(ports=[PORT])
    results = [pipeline.examine(bytearray(packet)) for packet in islice(packets.conversation(1450, 7), 30)]
    assert {result.diagnosis for result in results} == {Diagnosis.SOUND}
    back = [result for result in results if result.inner_source_port == 50000]
    assert len(back) == 10
    assert {result.length for result in back} == {packets.AROUND + 40}


def test_a_lookup_that_takes_longer_is_not_reached() -> None:
    found = results()
    assert found.normalising is not None
    assert found.normalising.reached
    found.normalising = found.normalising._replace(lookup=Interval(120, 100, 140))
    assert ["no" if not reached else "yes" for what, *_, reached in report.verdicts(found) if "lookup" in what] == [
        "no"
    ]


def test_the_connection_that_is_measured_is_translated_both_ways() -> None:
    path, there, back = datapath.normalised_connection()
    assert len(there) == len(back) == datapath.BATCH
    assert {len(packet) for packet in there} == {packets.AROUND + 1450}
    assert path.counters()["diagnosis"]["sound"] == 3
    for sent, outgoing in ((there, False), (back, True)):
        for packet in sent:
            mended = bytearray(packet)
            path.examine(mended, outgoing=outgoing)
            assert mended != packet
            assert Pipeline(ports=[PORT]).examine(mended).diagnosis is Diagnosis.SOUND
    counted = path.counters()
    assert counted["timestamps"]["translated"] == 2 + datapath.BATCH  # the SYN and the ACK after it
    assert counted["replies"]["translated"] == 1 + datapath.BATCH


@pytest.fixture(scope="module")
def spin(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("Cython", reason="what is measured has to be compiled, as `make bench` does")
    return datapath.compiled(tmp_path_factory.mktemp("spin"))


@needs_cc
def test_every_lookup_that_is_measured_finds_its_connection(spin: Any) -> None:
    found = datapath.normalising(spin, lambda _: None, repetitions=1, connections=500)
    assert found.connections == 500
    assert all(0 < figure.median < 100_000 for figure in (found.lookup, found.off, found.there, found.back))


@needs_cc
def test_who_is_watched_is_told_of_and_nobody_else(spin: Any) -> None:
    [found] = datapath.watching(spin, lambda _: None, repetitions=4, sizes=[64])
    assert 0 < found.off.median < 100_000
    assert found.followed.median > max(found.asleep.median, found.beside.median)


def test_the_capture_holds_what_it_is_said_to(tmp_path: Path) -> None:
    capture = tmp_path / "made.pcap"
    assert scan.write_capture(capture, 1234) == 12
    done = Host().run([*scan.FIXER, str(capture)])
    read = json.loads(done.out)
    assert (read["frames"], read["vxlan"], read["repairable"], read["corrupt"]) == (1234, 1234, 12, 0)


@needs_cc
def test_the_loop_says_how_it_is_called(tmp_path: Path) -> None:
    loop = receivers.compiled_loop(Host(), tmp_path)
    done = subprocess.run([loop, "--unknown"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage: loop [--queue N] [--gso] [--repair]" in done.stderr


@pytest.fixture
def broken_cable() -> Iterator[Cable]:
    host = Host()
    if lacking := bpf.missing(host):
        pytest.skip(lacking)
    with Cable(Traffic(broken=True, outer_checksum=True), host) as cable, cable.breaking(True):
        yield cable


SENT = bytes(range(256)) * 400


def transferred(cable: Cable) -> bytes:
    """SENT, as far as it has come over TCP from left to right."""
    server = cable.right.call(socket.create_server, (OVERLAY["right"], 4000))
    client = cable.left.call(socket.socket)
    with server, client:
        server.settimeout(5)
        client.settimeout(1.5)
        client.connect((OVERLAY["right"], 4000))
        accepted, _ = server.accept()
        with accepted:
            accepted.settimeout(5)
            client.sendall(SENT)
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: accepted.recv(65536), b""))


@pytest.mark.root
@needs_cc
def test_the_sender_breaks_every_packet_and_the_loop_repairs_them(broken_cable: Cable, tmp_path: Path) -> None:
    with pytest.raises(TimeoutError):
        transferred(broken_cable)
    loop = receivers.compiled_loop(Host(), tmp_path)
    table = receivers.table_of(broken_cable, receivers.LOOP_REPAIRS, [3], tmp_path)
    listener = broken_cable.right.start(str(loop), "--queue", "3", "--repair")
    try:
        receivers.wait_until(lambda: receivers.bound(broken_cable, [3]), "loop")
        with receivers.in_place(broken_cable, table):
            assert transferred(broken_cable) == SENT
        listener.send_signal(signal.SIGTERM)
        counted = json.loads(listener.communicate(timeout=5)[0])
    finally:
        stop(listener)
    assert counted["repaired"] >= len(SENT) // 1400
    assert counted["received"] == counted["repaired"] + counted["verified"]
    assert (counted["wrong"], counted["failed"]) == (0, 0)


@pytest.mark.root
@needs_cc
def test_receivers_that_share_a_command_share_a_listener(broken_cable: Cable, tmp_path: Path) -> None:
    loop = receivers.compiled_loop(Host(), tmp_path)
    everyone = (receivers.NO_RULE, receivers.FIXER_ALL, receivers.FIXER_SUSPECTS, receivers.LOOP_TWICE)
    with receivers.listening(broken_cable, everyone, loop, tmp_path) as standing:
        assert standing.keys() == {receiver.name for receiver in everyone[1:]}
        assert standing["fixer"].pids == standing["fixer, suspects"].pids
        assert "-m bpf" in standing["fixer, suspects"].table
        assert len(standing["C loop, twice"].pids) == 2
        assert broken_cable.queues().keys() == {0, 1, 2}
        with receivers.in_place(broken_cable, standing["fixer, suspects"].table):
            assert transferred(broken_cable) == SENT
    assert not broken_cable.queues()


@pytest.fixture
def clean_cable() -> Iterator[Cable]:
    host = Host()
    if lacking := net.missing(host):
        pytest.skip(lacking)
    with Cable(Traffic(one_clock=True), host) as cable:
        yield cable


@pytest.mark.root
def test_a_sender_whose_clock_was_put_ahead_is_translated_and_others_are_not(
    clean_cable: Cable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cable = clean_cable
    everyone = (receivers.FIXER_NORMALISES, receivers.FIXER_OTHERS)
    with receivers.listening(cable, everyone, tmp_path, tmp_path) as standing:
        ours, others = (standing[receiver.name] for receiver in everyone)
        assert (ours.queues, others.queues) == ((0, 1), (2, 3))
        assert "-g FIXER-FLOWS" in ours.table
        with receivers.in_place(cable, ours.table):
            cable.put_clock_ahead(1)
            assert transferred(cable) == SENT
        sent = run()._replace(packets=len(SENT) // 1400)
        receivers.must_have_translated(cable, ours, [sent])
        live = {path: flowfile.look(path) for path in cable.right.call(flowfile.paths, cable.host)}
        assert sorted(table.used for table in live.values() if table) == [0, 2], "the stream and what was echoed"
        with receivers.in_place(cable, others.table):
            assert transferred(cable) == SENT
        assert cable.queues()[3].sequence == 0
        assert cable.queues()[2].sequence >= len(SENT) // 1400
        monkeypatch.setattr("bench.cable.WAIT_SECONDS", 1.5)
        with pytest.raises(SystemRefused, match="in vain for 98% of"):
            receivers.must_have_translated(cable, others, [sent])
    assert cable.right.call(flowfile.paths, cable.host) == []


PROFILED = """
    60.00%          4000  [k] pv_native_safe_halt                     -      -
    30.00%           400  [k] csum_partial                            -      -
     6.00%            40  [k] csum_partial
     3.00%            20  [.] _copy_to_iter    -      -
"""


def test_a_profile_is_time_a_packet_whatever_stands_behind_a_name_and_without_idleness() -> None:
    """440 samples of 4,000 a second are 110 ms, which 1,000,000 packets share."""
    assert profile.times(PROFILED, 1_000_000) == pytest.approx({"csum_partial": 110.0, "_copy_to_iter": 5.0})


def test_of_a_function_that_a_round_has_not_seen_it_took_no_time() -> None:
    assert profile.medians([{"a": 3.0}, {"a": 5.0, "b": 2.0}, {"a": 4.0}]) == {"a": 4.0, "b": 0.0}
