"""Until when: what people type, as a moment in UTC."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import click
import pytest

from fixer.cli.when import until_of

NOW = datetime(2026, 1, 2, 12, 0, 0, 500, tzinfo=UTC)


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("span", "seconds"), [("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1d", 86400), ("90s", 90), ("1d2h3m4s", 93784)]
)
def test_a_span(span: str, seconds: int) -> None:
    assert until_of(span, None, NOW) == NOW.replace(microsecond=0) + timedelta(seconds=seconds)


@pytest.mark.parametrize("span", ["", "30", "m", "-5m", "0s", "1.5h", "30m1h", "400d", "1w"])
def test_no_span(span: str) -> None:
    with pytest.raises(click.BadParameter):
        until_of(span, None, NOW)


@pytest.mark.usefixtures("in_berlin")
@pytest.mark.parametrize(
    ("clock", "moment"),
    [
        ("14:30", datetime(2026, 1, 2, 13, 30, tzinfo=UTC)),
        ("13:00", datetime(2026, 1, 3, 12, 0, tzinfo=UTC)),  # it is that now: tomorrow
        ("9:05", datetime(2026, 1, 3, 8, 5, tzinfo=UTC)),
        ("13:00:01", datetime(2026, 1, 2, 12, 0, 1, tzinfo=UTC)),
        ("2026-07-02T14:30", datetime(2026, 7, 2, 12, 30, tzinfo=UTC)),  # in summer
        ("2026-01-02 14:30", datetime(2026, 1, 2, 13, 30, tzinfo=UTC)),
        ("2026-01-02T14:30+00:00", datetime(2026, 1, 2, 14, 30, tzinfo=UTC)),
    ],
)
def test_a_time_by_this_hosts_clock(clock: str, moment: datetime) -> None:
    assert until_of(None, clock, NOW) == moment


@pytest.mark.parametrize("clock", ["25:00", "soon", "2026-01-01T00:00", "2028-01-01T00:00", "14:61"])
def test_no_time(clock: str) -> None:
    with pytest.raises(click.BadParameter):
        until_of(None, clock, NOW)


def test_both_are_one_too_many_and_neither_is_no_end() -> None:
    with pytest.raises(click.UsageError):
        until_of("1h", "14:30", NOW)
    assert until_of(None, None, NOW) is None
