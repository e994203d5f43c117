"""docs/log.md: every kind of event, and every field; docs/metrics.md: every metric, every alert."""

from __future__ import annotations

from collections.abc import Iterator

from fixer.telemetry.events import EVENTS
from fixer.telemetry.fields import ECS, OURS, Field
from fixer.telemetry.metrics import METRICS

from .alerts import ALERTS

HEAD = """# The log

JSON lines by the [Elastic Common Schema](https://www.elastic.co/guide/en/ecs/current/index.html), on standard output,
into a file or into a socket (`log.to`); what takes them to Elasticsearch is in [elk.md](elk.md). At most 5 packet
events a second for each diagnosis and VTEP (`log.per_second`), and 100 for all; how many were left out is said. Writing
never delays a packet: what a slow or dead reader costs is lines, and they are counted (`log-lost`).

This page is made from the code by `python -m deploy`.
"""
CUT = "fixer.counters."


def log() -> str:
    return "\n".join((HEAD, *events(), *fields()))


def events() -> Iterator[str]:
    yield "## Events\n"
    yield "| `event.dataset` | `event.action` | | `log.level` |"
    yield "|---|---|---|---|"
    for dataset, several in EVENTS.items():
        for action, event in several.items():
            yield f"| `{dataset}` | `{action}` | {event.words} | {event.level} |"
    yield ""
    yield "A packet that is corrupt is a warning; a finding that is harmless is for information.\n"


def fields() -> Iterator[str]:
    yield "## Fields of ECS\n"
    yield from table(ECS)
    for dataset, several in OURS.items():
        yield f"## Fields of `{dataset}`\n"
        yield from table([each for each in several if not each.name.startswith(CUT)])
    yield f"`{CUT}*` of the last line is what the daemon has counted: what `fixer status --json` has under `daemon`.\n"


def table(several: list[Field] | tuple[Field, ...]) -> Iterator[str]:
    yield "| field | type | |"
    yield "|---|---|---|"
    for field in several:
        yield f"| `{field.name}` | {field.type} | {field.words} |"
    yield ""


def metrics() -> str:
    lines = [
        "# Metrics and alerts",
        "",
        "This page is made from the code by `python -m deploy`; how to have them is in [prometheus.md](prometheus.md).",
        "",
    ]
    lines += ["| metric | kind | labels | |", "|---|---|---|---|"]
    lines += [
        f"| `fixer_{each.name}` | {each.kind} | {', '.join(f'`{label}`' for label in each.labels)} | {each.words} |"
        for each in METRICS
    ]
    lines += ["", "`process_*` are the daemon's own: CPU, memory, descriptors, start.", ""]
    lines += ["| alert | after | severity | says |", "|---|---|---|---|"]
    lines += [f"| `{each.name}` | {each.minutes} min | {each.severity} | {each.summary} |" for each in ALERTS]
    return "\n".join(lines) + "\n"
