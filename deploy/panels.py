"""What an engineer on call asks of the log: each question once, for the dashboard, the tests, and the picture."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple


class Panel(NamedTuple):
    """A question. ``filters``: what documents must have, by field, one value or several.

    ``split``: the field that makes the lines or rows; a ``line`` is over time. ``weigh``: the field that says how many
    more a document stands for.
    """

    title: str
    shape: Literal["line", "rows", "documents"]
    filters: dict[str, str | list[str]]
    split: str = ""
    weigh: str = ""
    columns: tuple[str, ...] = ()

    def must(self) -> list[dict[str, Any]]:
        """The filters in Elasticsearch's words."""
        return [
            {"terms": {name: value}} if isinstance(value, list) else {"term": {name: value}}
            for name, value in self.filters.items()
        ]

    def kuery(self) -> str:
        """And in Kibana's."""
        return " and ".join(
            f"{name} : ({' or '.join(each for each in value)})" if isinstance(value, list) else f"{name} : {value}"
            for name, value in self.filters.items()
        )

    def search(self, interval: str = "1m", size: int = 50) -> dict[str, Any]:
        """The request that answers it."""
        query = {"bool": {"filter": self.must()}}
        if self.shape == "documents":
            return {"query": query, "size": size, "sort": [{"@timestamp": "desc"}, {"event.sequence": "desc"}]}
        inner: dict[str, Any] = {"more": {"sum": {"field": self.weigh}}} if self.weigh else {}
        split: dict[str, Any] = {"split": {"terms": {"field": self.split, "size": size}, "aggs": inner}}
        if self.shape == "line":
            time = {"field": "@timestamp", "fixed_interval": interval}
            split = {"time": {"date_histogram": time, "aggs": split}}
        return {"query": query, "size": 0, "track_total_hits": True, "aggs": split}


_PACKETS: dict[str, str | list[str]] = {"event.dataset": "fixer.packet"}
_SWITCHED = ["rule-on", "rule-off", "rule-prolonged", "rule-ended", "rule-lost", "rule-put-back", "guard-stopped"]

DIAGNOSES = Panel("Diagnoses over time", "line", _PACKETS, "fixer.diagnosis", "fixer.packets_left_out")
ACTIONS = Panel("Repaired, dropped, passed", "line", _PACKETS, "event.action", "fixer.packets_left_out")
VTEPS = Panel("VTEPs, by what they send", "rows", _PACKETS, "fixer.vtep.source.ip", "fixer.packets_left_out")
FINDINGS = Panel(
    "Findings",
    "documents",
    {"event.dataset": "fixer.finding"},
    columns=("event.action", "fixer.finding.who", "fixer.finding.cause", "fixer.finding.verdict", "message"),
)
RULE = Panel(
    "The rule: by whom, why, and what became of it",
    "documents",
    {"event.dataset": "fixer.rule", "event.action": _SWITCHED},
    columns=("host.name", "event.action", "user.name", "event.reason", "message"),
)
TROUBLE = Panel(
    "What needs somebody",
    "documents",
    {"log.level": ["warning", "error"]},
    columns=("host.name", "log.level", "event.dataset", "message"),
)

PANELS = (DIAGNOSES, ACTIONS, VTEPS, FINDINGS, RULE, TROUBLE)
