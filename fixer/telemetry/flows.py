"""What is said of normalised connections: found again, left behind at a stop; and, as findings, what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from fixer.datapath.flows import Flows
from fixer.datapath.pipeline import Pipeline
from fixer.findings.finding import Finding, Role, Verdict
from fixer.telemetry.events import Saying, event

_COUNTED_BY = {
    "way_back_missing": ("one_way", "no_way_back"),
    "flows_full": ("full",),
    "syn_flood": ("evicted",),
    "flows_damaged": ("damaged",),
}


def saying(action: str, message: str, **fields: Any) -> Saying:
    """A line of ours; ``fields`` are put under ``fixer.timestamps``."""
    ours = {f"fixer.timestamps.{name}": value for name, value in fields.items()}
    return event("fixer.timestamps", action, message, ours)


def _found(
    cause: str, text: str, connections: int, *, who: str = "", verdict: Verdict = Verdict.FAULT, **beside: Any
) -> Finding:
    """A finding about connections that are or were to be normalised; ``beside`` is put under ``fixer.timestamps``."""
    fields = {"connections": connections} | beside | ({"source.ip": who} if who else {})
    named = {f"fixer.timestamps.{name}": value for name, value in fields.items()}
    return Finding(who, Role.HOST, cause, verdict, text, packets=connections, beside=named)


class FlowWatch:
    """Compares the counters of a flow table, and of the packet path that uses it, with what they were."""

    def __init__(self, flows: Flows, pipeline: Pipeline) -> None:
        self._flows = flows
        self._pipeline = pipeline
        self._before = self._counted()
        self._next: dict[str, float] = {}
        self._was_draining = False

    def at_start(self, taken: int, warnings: Iterable[str]) -> Iterator[Saying]:
        """What was found in the file of a daemon before."""
        for warning in warnings:
            yield saying("flows-damaged", warning)
        live = self._flows.counters()["normalised"]
        if taken:
            yield saying(
                "flows-found",
                f"{taken} connections found again, {live} of them normalised",
                flows=taken,
                normalised=live,
            )

    def at_stop(self) -> Iterator[Saying]:
        """What a stop leaves behind."""
        if live := self._flows.counters()["normalised"]:
            yield saying(
                "flows-left",
                f"{live} normalised connections stall until fixer runs again, which finds them: start it soon",
                normalised=live,
            )

    def news(self) -> Iterator[Saying]:
        """What has come up since it was last asked and is no finding. To be called about once a second."""
        yield from self._drained()

    def findings(self) -> list[Finding]:
        """What is wrong, counted since it was forgotten. To be called about once a second."""
        counted = self._counted()
        grown = {name: counted[name] - self._before[name] for name in counted}
        looks = (self._no_way_back(grown), self._full(grown), self._flood(grown), self._damaged(grown))
        return [finding for finding in looks if finding]

    def forget(self, finding: Finding) -> None:
        """It is over: whatever comes now is counted anew."""
        counted = self._counted()
        for name in _COUNTED_BY.get(finding.cause, ()):
            self._before[name] = counted[name]

    def _counted(self) -> dict[str, int]:
        """The counters that findings are made of."""
        flows, outcomes = self._flows.counters(), self._pipeline.counters()["timestamps"]
        return {name: flows[name] for name in ("one_way", "evicted", "damaged")} | {
            "no_way_back": outcomes["no_way_back"],
            "full": outcomes["full"] + outcomes["stripped"],
        }

    def _no_way_back(self, grown: dict[str, int]) -> Finding | None:
        if not grown["one_way"] and not grown["no_way_back"]:
            return None
        source = self._flows.one_way_source()
        return _found(
            "way_back_missing",
            f"replies to {source or 'a source'} do not pass this node's OUTPUT and the flows queue: its connections "
            "keep their own timestamps, and a server with tcp_tw_recycle goes on refusing some. See fixer status; run "
            "fixer on again; if replies leave through another node, normalising cannot work here",
            max(grown["one_way"], grown["no_way_back"]),
            who=source or "",
        )

    def _full(self, grown: dict[str, int]) -> Finding | None:
        if not grown["full"]:
            return None
        flows = self._flows.counters()
        return _found(
            "flows_full",
            f"no room for {grown['full']} new connections ({flows['used']} of {flows['capacity']} flows): passed or "
            "stripped, as timestamps.when_full says; raise timestamps.flows and restart",
            grown["full"],
            used=flows["used"],
            capacity=flows["capacity"],
        )

    def _flood(self, grown: dict[str, int]) -> Finding | None:
        if not grown["evicted"]:
            return None
        return _found(
            "syn_flood",
            f"{grown['evicted']} half-open connections gave way to newer ones: a flood of SYNs? Established ones are "
            "not touched",
            grown["evicted"],
            verdict=Verdict.UNCLEAR,
        )

    def _damaged(self, grown: dict[str, int]) -> Finding | None:
        if not grown["damaged"]:
            return None
        return _found(
            "flows_damaged",
            f"{grown['damaged']} entries of the flow table failed their check and are left out: who writes to its "
            "file?",
            grown["damaged"],
        )

    def _drained(self) -> Iterator[Saying]:
        flows = self._flows.counters()
        draining = bool(flows["draining"])
        if draining and not self._was_draining:
            yield saying(
                "draining",
                f"draining: new connections are left alone, {flows['normalised']} normalised ones are served to the "
                "end",
                normalised=flows["normalised"],
            )
        self._was_draining = draining
