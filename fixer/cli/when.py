"""Until when: ``--for 1h30m`` and ``--until 14:30`` as a moment."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_SPAN = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_MOST = timedelta(days=366)


def until_of(span: str | None, clock: str | None, now: datetime) -> datetime | None:
    """The moment, in UTC and to the second; None if neither is given. ``now`` is in UTC too."""
    if span is not None and clock is not None:
        raise click.UsageError("--for and --until both say when it ends: give one of them")
    if span is not None:
        return now.replace(microsecond=0) + _span(span)
    return None if clock is None else _clock(clock, now)


def _span(text: str) -> timedelta:
    found = _SPAN.fullmatch(text)
    if found is None or not any(found.groups()):
        raise click.BadParameter(f"{text} is no span such as 30m, 2h, 1h30m or 1d", param_hint="'--for'")
    span = timedelta(**{_UNITS[unit]: int(number or 0) for unit, number in zip("dhms", found.groups(), strict=True)})
    if not timedelta(0) < span <= _MOST:
        raise click.BadParameter(f"{text} is not between a second and {_MOST.days} days", param_hint="'--for'")
    return span


def _clock(text: str, now: datetime) -> datetime:
    """In this host's time: the next time that the clock shows it, or that date."""
    try:
        if re.fullmatch(r"\d\d?:\d\d(:\d\d)?", text):
            parts = [int(part) for part in text.split(":")]
            here = now.astimezone().replace(tzinfo=None, microsecond=0)
            wanted = here.replace(hour=parts[0], minute=parts[1], second=parts[2] if len(parts) > 2 else 0)
            wanted += timedelta(days=wanted <= here)
        else:
            wanted = datetime.fromisoformat(text)
    except ValueError:
        message = f"{text} is neither a time such as 14:30 nor a date and time such as 2026-01-31T14:30"
        raise click.BadParameter(message, param_hint="'--until'") from None
    moment = wanted.astimezone(UTC).replace(microsecond=0)
    if not now < moment <= now + _MOST:
        message = f"{text} is not in the future, or more than {_MOST.days} days away"
        raise click.BadParameter(message, param_hint="'--until'")
    return moment
