"""The judge of `make launder`: that what it makes and damages is what it says, and that it can find something."""

from __future__ import annotations

import re
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support import finishing, oracle

from fixer.datapath.diagnose import Diagnosis
from fixer.datapath.pipeline import Pipeline

sys.path.append(str(Path(__file__).parents[1]))  # behind everything else: fixer stays the one that is installed

from launder import __main__ as command
from launder import build, report, runs
from launder.kernel import Node
from launder.runs import HARMS, KINDS, PORT, SUMMED, Run

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler to build the judge with")

ROOT = Path(__file__).parents[1]
WORLD = {"kinds": KINDS, "pairs": 4, "envelopes": 4, "flows": 300, "options": 200, "tagged": 300}


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("Cython", reason="the judge has to be compiled, as `make launder` does")
    return build.compiled(tmp_path_factory.mktemp("launder"))


@pytest.mark.parametrize(
    ("sent", "unfinished", "expected"),
    [
        ("good", 0, {"complete": {Diagnosis.SOUND}, "none": {Diagnosis.SOUND}}),
        ("zero", 0, {sort: {Diagnosis.SOUND, Diagnosis.OUTER_ABSENT6} for sort in ("complete", "none")}),
        ("lco", 1000, {"unfinished": {Diagnosis.INNER_UNFINISHED}}),
        ("good", 1000, {"unfinished": {Diagnosis.INNER_UNFINISHED}}),
        ("pseudo", 500, {"complete": {Diagnosis.OUTER_UNFINISHED}, "unfinished": {Diagnosis.BOTH_UNFINISHED}}),
    ],
)
def test_what_is_made_is_what_it_is_said_to_be(
    trial: Any, sent: str, unfinished: int, expected: dict[str, set[Diagnosis]]
) -> None:
    maker = trial.Trial(seed=1, **WORLD, sent={sent: 1}, unfinished=unfinished)
    path, found = Pipeline(ports=[PORT]), dict[str, set[Diagnosis]]()
    for _ in range(3000):
        meant, came, harm, about = maker.sample()
        assert (meant, harm) == (came, "none")
        found.setdefault(about["inner"], set()).add(path.examine(bytearray(came)).diagnosis)
    assert expected.items() <= found.items()


@pytest.mark.parametrize("cause", ["ffff", "field", "port", "address", "nic"])
def test_each_cause_makes_a_wrong_outer_over_a_sound_inner(trial: Any, cause: str) -> None:
    maker = trial.Trial(seed=1, **WORLD, causes={cause: 1})
    fields, errors = set(), set()
    for _ in range(300):
        meant, *_, about = maker.sample()
        verdict = oracle.judge(meant, ports=(PORT,))
        assert about["cause"] == cause
        assert verdict.outer == "WRONG"
        assert verdict.inner in ("VERIFIES", "NONE", "ABSENT")
        fields.add(verdict.outer_found)
        errors.add((verdict.outer_right - verdict.outer_found) % 0xFFFF)
    assert len(fields) in {"ffff": [1], "field": range(1, 5)}.get(cause, range(100, 301))
    assert len(errors) in {"address": range(1, 5)}.get(cause, range(100, 301))


SEEN = {"VERIFIES": "good", "PARTIAL": "pseudo", "WRONG": "bad", "NONE": "none", "ABSENT": "none", "GOOD": "good",
        "AGREES": "agrees", "ZERO": "zero", "ZERO6": "zero"}  # fmt: skip


def test_the_receiver_and_the_oracle_see_the_same_in_damaged_packets(trial: Any) -> None:
    """Where both read them. They share no line, and neither shares one with the datapath."""
    maker = trial.Trial(seed=3, **WORLD, unfinished=300, sent={"good": 2, "lco": 1, "zero": 1, "pseudo": 1},
                        damaged=0.95, harms=HARMS)  # fmt: skip
    met: Counter[tuple[str, str]] = Counter()
    for _ in range(6000):
        _, came, *_ = maker.sample()
        outer, inner, taken = trial.seen(came)
        verdict = oracle.judge(came, ports=(PORT,))
        met[outer, inner] += 1
        if inner != "unreadable":
            assert SEEN.get(verdict.inner, "unreadable") == inner or verdict.inner == "UNCHECKABLE", came.hex()
        elif verdict.diagnosis not in ("CORRUPT", "UNCHECKABLE", "OUTER_IP_WRONG"):
            assert verdict.inner in ("NONE", "PARTIAL") or not any(verdict.layers[1].source), came.hex()
        if outer not in ("unreadable", "pseudo", "bad") and verdict.outer != "UNCHECKABLE":
            assert SEEN.get(verdict.outer) == outer, came.hex()
        if taken and verdict.inner != "UNCHECKABLE":
            assert verdict.diagnosis in ("SOUND", "OUTER_ABSENT6") or verdict.reason == "NOT_IP", came.hex()
    assert len(met) > 15


def test_each_damage_hits_what_it_is_named_after(trial: Any) -> None:
    """Of packets over IPv4 without options or tags: VXLAN at 28, inner Ethernet at 36."""
    places = {"vni-bit": range(32, 35), "mac-bit": range(36, 48), "source-bit": range(12, 16), "torn": range(50)}
    for name in HARMS | {"torn": 1}:
        maker = trial.Trial(
            seed=5, flows=50, kinds=KINDS, underlay6=0, options=0, tagged=0, damaged=1.0, harms={name: 1}
        )
        bits = set()
        for _ in range(500):
            meant, came, harm, _ = maker.sample()
            assert harm in (name, "none")
            changed = [at for at, (was, now) in enumerate(zip(meant, came, strict=False)) if was != now]
            assert bool(changed) or len(meant) != len(came) or harm == "none"
            assert set(changed) <= set(places.get(name, range(len(meant))))
            bits.add(sum((was ^ now).bit_count() for was, now in zip(meant, came, strict=False)))
            if name == "swap":
                assert oracle.ones_sum(meant) == oracle.ones_sum(came)
        if name.endswith("bit") or name == "payload":
            assert bits <= {0, 1}


def test_a_packet_that_is_sent_again_is_damaged_again_in_the_same_way(trial: Any) -> None:
    maker = trial.Trial(seed=2, flows=5, damaged=0.02, harms={"mac-bit": 1}, again=5, underlay6=0, options=0)
    damages = Counter()
    for _ in range(5000):
        meant, came, harm, _ = maker.sample()
        if harm != "none":
            damages[int.from_bytes(meant, "big") ^ int.from_bytes(came, "big"), len(meant)] += 1
    assert max(damages.values()) >= 5
    assert all(changed for changed, _ in damages)


def run(**traffic: Any) -> Run:
    return Run("a group", "a run", 50_000, {"flows": 100, **traffic})


def test_it_finds_what_a_setting_launders_that_is_known_to(trial: Any) -> None:
    """Any outer over a verifying inner: what only the outer covers comes out as damaged, and with a right checksum."""
    world = {"kinds": SUMMED, "flows": 100, "options": 0, "damaged": 0.5, "harms": HARMS}
    trusting = Run("a group", "a run", 50_000, world, {"stale": "inner-verifies"})
    outcome = command.ran(trusting, trial.Trial, 1, 1)
    laundered = outcome.found["fates"]["laundered"]
    assert laundered["vni-bit"] > 1000
    assert laundered["mac-bit"] > 1000
    assert not {"payload", "cell"} & laundered.keys(), "what the inner checksum covers"
    [fault] = report.faults(outcome)
    assert re.fullmatch(r"a group: a run: [\d,]+ laundered \(bit \d+, .*\)", fault)
    fate, harm, _, meant, came, left = next(one for one in outcome.shown if one[0] == "laundered")
    assert (fate, harm in HARMS) == ("laundered", True)
    assert trial.seen(meant)[2]
    assert not trial.seen(came)[2]
    assert trial.seen(left)[2]


def test_without_a_belief_in_wrong_outers_nothing_is_laundered(trial: Any) -> None:
    world = {"kinds": KINDS, "flows": 100, "unfinished": 300, "damaged": 0.9, "harms": HARMS}
    world["sent"] = {"good": 1, "lco": 1, "zero": 1, "pseudo": 1}
    disbelieving = Run("a group", "a run", 300_000, world, {"stale": "off"})
    outcome = command.ran(disbelieving, trial.Trial, 1, 1)
    assert not list(report.faults(outcome))
    assert outcome.count("unvouched") > 10_000
    assert outcome.count("neutral") > 100
    assert outcome.count("dropped") > 10_000
    assert outcome.found["damaged"] == sum(
        outcome.count(fate) for fate in (*report.EXPLAINED, "dropped", "passed", "invisible", "whole")
    )


def test_what_no_internet_checksum_sees_is_nobodys_fault(trial: Any) -> None:
    """Two words of a translated packet change places. The sender's sum sees that only of words that are not all in it:
    of the IP header it has the addresses."""
    world = {"kinds": SUMMED, "flows": 100, "underlay6": 0, "options": 0, "causes": {"address": 1}, "damaged": 0.5}
    swaps = Run("a group", "a run", 50_000, world | {"harms": {"swap": 1}}, {"stale": "inner-verifies"})
    outcome = command.ran(swaps, trial.Trial, 1, 1)
    assert outcome.count("neutral") > 1000
    laundered = [(meant, came) for fate, _, _, meant, came, _ in outcome.shown if fate == "laundered"]
    assert laundered
    assert all(meant[:20] != came[:20] and meant[20:] == came[20:] for meant, came in laundered)


def test_what_is_righted_of_the_undamaged_is_counted(trial: Any) -> None:
    outcome = command.ran(Run("a group", "a run", 50_000, {"flows": 100, "causes": {"address": 1}}), trial.Trial, 1, 1)
    whole, mended, stopped = outcome.found["causes"]["address"]
    assert whole == outcome.found["packets"]
    assert 0 < mended <= whole
    assert stopped == 0
    assert outcome.found["first"][0] >= 3
    assert outcome.found["never"] == 0


def test_the_same_seed_makes_the_same_run(trial: Any) -> None:
    once, again = (command.ran(run(damaged=0.5, harms=HARMS), trial.Trial, 9, 1).found for _ in range(2))
    assert once == again
    assert command.ran(run(damaged=0.5, harms=HARMS), trial.Trial, 8, 1).found != once


def test_every_run_can_be_run_and_together_they_damage_100_million(trial: Any) -> None:
    names = [f"{one.group}: {one.name}" for one in runs.all_runs()]
    assert len(set(names)) == len(names)
    damaged = 0.0
    for one in runs.all_runs():
        damaged += one.packets * one.traffic["damaged"]
        found = command.ran(one, trial.Trial, 1, max(1, one.packets // (20 if one.memory == 1 else 3000)))
        assert found.found["packets"] > 0
    assert damaged > 100_000_000


def outcome(laundered: int, remains: str = "", chance: int = 0) -> report.Outcome:
    names = (*report.EXPLAINED, *report.WORSE, "dropped", "passed", "invisible", "whole")
    fates: dict[str, dict[str, int]] = {name: {} for name in names}
    fates |= {"laundered": {"bit": laundered} if laundered else {}, "chance": {"bit": chance}}
    found = {"packets": 1000, "damaged": 500, "fates": fates, "first": [3, 5], "never": 1,
             "causes": {"straight": (1, 0, 0), "port": (400, 300, 7)}}  # fmt: skip
    return report.Outcome(Run("a group", "a run", 1000, {}, remains=remains), found, [], 1.0)


def test_what_cannot_be_told_from_nat_is_named_and_fails_nothing() -> None:
    assert list(report.faults(outcome(7))) == ["a group: a run: 7 laundered (bit 7)"]
    assert not list(report.faults(outcome(7, remains="every packet is damaged")))
    assert not list(report.faults(outcome(0)))


def test_more_than_chance_is_not_chance() -> None:
    assert not list(report.faults(outcome(0, chance=9)))
    assert list(report.faults(outcome(0, chance=30))) == [
        "a group: a run: 30 looked unfinished, which is more than chance"
    ]


def test_the_tables_go_behind_the_mark_and_nothing_else_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    path.write_text(f"Prose.\n\n{report.MARK}\n\nold tables\n")
    report.write(path, [outcome(0), outcome(7, remains="every packet is damaged")])
    text = path.read_text()
    assert text.startswith(f"Prose.\n\n{report.MARK}\n\n2,000 packets, 1,000 of them damaged: **0 laundered**.")
    assert "old tables" not in text
    assert "| a run | 1,000 | 500 | 0 | 0 | 0 | 0 | 0 | named: 7 |" in text
    assert "| a run | 7 | every packet is damaged |" in text
    assert "| a run | port | 400 | 300 | 75.00% | 7 | 4, 5 | 1 |" in text
    assert report.MARK in (ROOT / "docs" / "launder.md").read_text()


@pytest.mark.root
@pytest.mark.parametrize("marks", [False, True], ids=["sums", "marks"])
def test_nothing_is_laundered_with_the_program_in_the_kernel_before_it(trial: Any, marks: bool) -> None:
    if why := finishing.missing():
        pytest.skip(why)
    run = next(run for run in runs.kernel() if run.name == "all outers, any damage")
    subject = trial.Trial(seed=1, **run.traffic)
    with Node(command.path(run, 1), marks=marks) as node:
        subject.put_by(node.examine, 4000)
        assert node.finished > 200
    assert not list(report.faults(report.Outcome(run, subject.found(), subject.shown(), 0.0)))
