"""What the log says of normalised connections: found again, no way back, no room, damage, left behind at a stop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from fixer.datapath.flows import Flows
from fixer.datapath.pipeline import Pipeline
from fixer.now import Now
from fixer.telemetry.log import Level, Saying, header

QUIET_SECONDS = 60
"""How long nothing more is said of a finding that goes on."""


def saying(level: Level, action: str, message: str, **fields: Any) -> Saying:
    """A line of ours in ECS; ``fields`` are put under ``fixer.timestamps``."""
    head = header("fixer.timestamps", action, kind="event" if level == "info" else "alert")
    return Saying(level, message, head | {f"fixer.timestamps.{name}": value for name, value in fields.items()})


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
            yield saying("warning", "flows-damaged", warning)
        live = self._flows.counters()["normalised"]
        if taken:
            yield saying(
                "info",
                "flows-found",
                f"{taken} connections found again, {live} of them normalised",
                flows=taken,
                normalised=live,
            )

    def at_stop(self) -> Iterator[Saying]:
        """What a stop leaves behind."""
        if live := self._flows.counters()["normalised"]:
            yield saying(
                "warning",
                "flows-left",
                f"{live} normalised connections stall until fixer runs again, which finds them: start it soon",
                normalised=live,
            )

    def news(self, now: Now) -> Iterator[Saying]:
        """What has come up since it was last asked. To be called about once a second."""
        counted = self._counted()
        grown = {name: counted[name] - self._before[name] for name in counted}
        for name, found in (
            ("no_way_back", self._no_way_back(grown)),
            ("full", self._full(grown)),
            ("evicted", self._flood(grown)),
            ("damaged", self._damaged(grown)),
        ):
            if found and now.steady >= self._next.get(name, now.steady):
                self._next[name] = now.steady + QUIET_SECONDS
                for each in ("one_way", "no_way_back") if name == "no_way_back" else (name,):
                    self._before[each] = counted[each]
                yield found
        yield from self._drained()

    def _counted(self) -> dict[str, int]:
        """The counters that findings are made of."""
        flows, outcomes = self._flows.counters(), self._pipeline.counters()["timestamps"]
        return {name: flows[name] for name in ("one_way", "evicted", "damaged")} | {
            "no_way_back": outcomes["no_way_back"],
            "full": outcomes["full"] + outcomes["stripped"],
        }

    def _no_way_back(self, grown: dict[str, int]) -> Saying | None:
        if not grown["one_way"] and not grown["no_way_back"]:
            return None
        source = self._flows.one_way_source()
        return saying(
            "warning",
            "way-back-missing",
            f"replies to {source or 'a source'} do not pass this node's OUTPUT and the flows queue: its connections "
            "keep their own timestamps, and a server with tcp_tw_recycle goes on refusing some. See fixer status; run "
            "fixer on again; if replies leave through another node, normalising cannot work here",
            connections=max(grown["one_way"], grown["no_way_back"]),
            **{"source.ip": source} if source else {},
        )

    def _full(self, grown: dict[str, int]) -> Saying | None:
        if not grown["full"]:
            return None
        flows = self._flows.counters()
        return saying(
            "warning",
            "flows-full",
            f"no room for {grown['full']} new connections ({flows['used']} of {flows['capacity']} flows): passed or "
            "stripped, as timestamps.when_full says; raise timestamps.flows and restart",
            connections=grown["full"],
            used=flows["used"],
            capacity=flows["capacity"],
        )

    def _flood(self, grown: dict[str, int]) -> Saying | None:
        if not grown["evicted"]:
            return None
        return saying(
            "warning",
            "syn-flood",
            f"{grown['evicted']} half-open connections gave way to newer ones: a flood of SYNs? Established ones are "
            "not touched",
            connections=grown["evicted"],
        )

    def _damaged(self, grown: dict[str, int]) -> Saying | None:
        if not grown["damaged"]:
            return None
        return saying(
            "warning",
            "flows-damaged",
            f"{grown['damaged']} entries of the flow table failed their check and are left out: who writes to its "
            "file?",
            connections=grown["damaged"],
        )

    def _drained(self) -> Iterator[Saying]:
        flows = self._flows.counters()
        draining = bool(flows["draining"])
        if draining and not self._was_draining:
            yield saying(
                "info",
                "draining",
                f"draining: new connections are left alone, {flows['normalised']} normalised ones are served to the "
                "end",
                normalised=flows["normalised"],
            )
        self._was_draining = draining
