"""One life for each finding: opened at once, updated once a minute while it grows, closed five minutes after it."""

from __future__ import annotations

from dataclasses import replace

from fixer.findings.finding import Finding, Role, Verdict
from fixer.findings.lifecycle import (
    CLOSE_SECONDS,
    MOST_OPEN,
    MOST_OPENED,
    UPDATE_SECONDS,
    End,
    LifeCycle,
    News,
    Stage,
)
from fixer.now import Now

SECOND = 1_000_000_000


def finding(packets: int, who: str = "192.0.2.1", verdict: Verdict = Verdict.FAULT, cause: str = "corrupt") -> Finding:
    return Finding(who, Role.VTEP, cause, verdict, f"{packets} of {who}", packets=packets)


class Told:
    """Shows a life cycle what is found, at seconds; remembers what is told of it."""

    def __init__(self) -> None:
        self.life = LifeCycle()

    def at(self, second: float, *found: Finding) -> list[tuple[Stage, int]]:
        return [(news.stage, news.case.finding.packets) for news in self.news(second, *found)]

    def news(self, second: float, *found: Finding) -> list[News]:
        return list(self.life.look(found, Now(100 + second, int(second * SECOND))))


def test_it_is_opened_at_once_and_updated_at_most_once_a_minute_while_it_grows() -> None:
    told = Told()
    lines = {second: told.at(second, finding(1 + second)) for second in range(150)}
    assert {second: line for second, line in lines.items() if line} == {
        0: [(Stage.OPENED, 1)],
        60: [(Stage.UPDATED, 61)],
        120: [(Stage.UPDATED, 121)],
    }
    assert UPDATE_SECONDS == 60


def test_what_does_not_grow_is_not_updated_and_closed_five_minutes_after_its_last_packet() -> None:
    told = Told()
    told.at(0, finding(1))
    assert told.at(10, finding(7)) == []
    lines = {second: told.at(second, finding(7)) for second in range(11, 700)}
    assert {second: line for second, line in lines.items() if line} == {
        60: [(Stage.UPDATED, 7)],
        10 + int(CLOSE_SECONDS): [(Stage.CLOSED, 7)],
    }
    assert told.life.open == []


def test_it_is_closed_if_it_is_not_shown_any_more_as_well() -> None:
    told = Told()
    told.at(0, finding(1))
    assert told.at(CLOSE_SECONDS - 1) == []
    [news] = told.news(CLOSE_SECONDS)
    assert (news.stage, news.end) == (Stage.CLOSED, End.OVER)
    assert (news.case.since_ns, news.case.last_ns) == (0, 0)


def test_what_is_over_begins_anew_with_its_next_packet_and_another_name() -> None:
    told = Told()
    [first] = told.news(0, finding(5))
    told.at(CLOSE_SECONDS, finding(5))
    assert told.at(CLOSE_SECONDS + 1, finding(5)) == []
    [again] = told.news(CLOSE_SECONDS + 2, finding(6))
    assert again.stage is Stage.OPENED
    assert again.case.id != first.case.id


def test_another_verdict_is_news() -> None:
    told = Told()
    told.at(0, finding(5, verdict=Verdict.UNCLEAR))
    assert told.at(1, finding(5)) == []
    assert told.at(60, finding(5)) == [(Stage.UPDATED, 5)]


def test_each_sender_role_and_cause_has_its_own_and_the_worst_reading_counts() -> None:
    told = Told()
    one, other = finding(1), finding(1, "192.0.2.2")
    assert len(told.at(0, one, other, replace(one, role=Role.PATH), replace(one, cause="unfinished"))) == 4
    assert told.at(1, one, replace(one, verdict=Verdict.HARMLESS, packets=900)) == []


def test_the_others_are_one_whatever_they_are_called() -> None:
    told = Told()
    assert len(told.at(0, finding(9, "3 others", cause="others"))) == 1
    assert told.at(1, finding(12, "4 others", cause="others")) == []


def test_a_flood_opens_a_few_at_a_time_the_worst_first_and_no_more_than_there_is_room_for() -> None:
    told = Told()
    flood = [finding(1, f"198.51.100.{number}", Verdict.UNCLEAR) for number in range(250)]
    flood[200] = finding(3, "192.0.2.1")
    first = told.news(0, *flood)
    assert len(first) == MOST_OPENED
    assert first[0].case.finding.who == "192.0.2.1"
    lines = [len(told.at(second, *flood)) for second in range(1, 60)]
    assert sum(lines) == MOST_OPEN - MOST_OPENED
    assert told.life.left_out == 250 - MOST_OPEN


def test_a_worse_one_takes_the_place_of_the_least_and_equals_do_not() -> None:
    told = Told()
    small = [finding(4, f"198.51.100.{number}") for number in range(MOST_OPEN)]
    for second in range(5):
        told.at(second, *small)
    assert told.at(10, *small, finding(8, "192.0.2.1")) == []
    opened = told.news(11, *small, finding(9, "192.0.2.1"))
    assert [(news.stage, news.end) for news in opened] == [(Stage.CLOSED, End.GAVE_WAY), (Stage.OPENED, End.OVER)]
    assert told.life.open[0].finding.who == "192.0.2.1"
    assert len(told.life.open) == MOST_OPEN


def test_a_stop_closes_all() -> None:
    told = Told()
    told.at(0, finding(1), finding(1, "192.0.2.2"))
    assert [(news.stage, news.end) for news in told.life.stop()] == [(Stage.CLOSED, End.STOPPED)] * 2
    assert told.life.open == []
