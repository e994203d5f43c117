"""Findings as ECS events: opened, updated, closed. `fixer.finding.*` has what `--json` has; the message is the text."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

from fixer.findings.finding import Finding, Verdict
from fixer.findings.lifecycle import CLOSE_SECONDS, End, News, Stage
from fixer.telemetry.events import Level, Saying, header, timestamp

ENDS = {
    End.OVER: f"over, none for {CLOSE_SECONDS / 60:.0f} minutes",
    End.GAVE_WAY: "not followed any more, others are worse",
    End.STOPPED: "not followed any more, fixer stops",
}
"""What `event.reason` says of one that is closed."""


def event(news: News) -> Saying:
    """One event of a finding's life."""
    stage, case, end = news
    finding, harmless = case.finding, case.finding.verdict is Verdict.HARMLESS
    level: Level = "info" if harmless or stage is Stage.CLOSED else "warning"
    fields = header("fixer.finding", f"finding-{stage}", kind="event" if level == "info" else "alert")
    fields |= {"event.start": timestamp(case.since_ns)} | of_finding(finding) | {"fixer.finding.id": case.id}
    if case.samples:
        fields["fixer.finding.samples"] = case.samples
    message = finding.text
    if stage is Stage.CLOSED:
        fields |= {
            "event.end": timestamp(case.last_ns),
            "event.duration": max(case.last_ns - case.since_ns, 0),
            "event.reason": ENDS[end],
        }
        message = f"{ENDS[end]}: {message}"
    return Saying(level, message, fields)


def of_finding(finding: Finding) -> dict[str, Any]:
    """The fields of a finding; what there is none of is left out."""
    said = finding.as_object()
    del said["text"]
    said["evidence"] = [f"{fact.packets} {fact.what}" for fact in finding.evidence]
    fields = {f"fixer.finding.{name}": value for name, value in said.items() if value not in ("", [])}
    return fields | _addresses([finding.who]) | finding.beside


def left_out(count: int) -> Saying:
    """There were more than are followed."""
    fields = header("fixer.finding", "findings-left-out") | {"fixer.finding.left_out": count}
    return Saying("info", f"{count} more findings, not so bad as those that are told", fields)


def _addresses(names: Iterable[str]) -> dict[str, Any]:
    found = []
    for name in names:
        try:
            found.append(str(ip_address(name)))
        except ValueError:
            continue  # nobody, or several
    return {"related.ip": found} if found else {}
