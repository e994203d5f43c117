"""For Kibana: a data view, a visualisation or saved search for each panel, the dashboard of them, and alert rules.

They can only be checked as files here: there is no Kibana among what our registries have. The visualisations are of the
kind that Kibana has read since 7 ("aggregation based"), and the alert rules come switched off, as Kibana imports them.
"""

from __future__ import annotations

import json
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from .panels import PANELS, Panel

VIEW = "logs-fixer"
COLUMNS, HEIGHT = 48, 15


def identity(name: str) -> str:
    """The same object has the same id in every version, so that importing it again replaces it."""
    return str(uuid5(NAMESPACE_URL, f"https://fixer.invalid/kibana/{name}"))


def reference(name: str, kind: str, of: str) -> dict[str, str]:
    return {"name": name, "type": kind, "id": of}


_INDEX = "kibanaSavedObjectMeta.searchSourceJSON.index"


def data_view() -> dict[str, Any]:
    return {
        "type": "index-pattern",
        "id": VIEW,
        "attributes": {"title": "logs-fixer.*-*", "name": "fixer", "timeFieldName": "@timestamp"},
        "references": [],
    }


def source(kuery: str) -> dict[str, str]:
    query = {"query": kuery, "language": "kuery"}
    return {"searchSourceJSON": json.dumps({"query": query, "filter": [], "indexRefName": _INDEX})}


def search(panel: Panel) -> dict[str, Any]:
    return {
        "type": "search",
        "id": identity(panel.title),
        "attributes": {
            "title": f"fixer: {panel.title}",
            "columns": list(panel.columns),
            "sort": [["@timestamp", "desc"]],
            "kibanaSavedObjectMeta": source(panel.kuery()),
        },
        "references": [reference(_INDEX, "index-pattern", VIEW)],
    }


def visualisation(panel: Panel) -> dict[str, Any]:
    """Documents and those that they stand for are two series: Kibana does not add them."""
    kind = "histogram" if panel.shape == "line" else "table"
    aggregations: list[dict[str, Any]] = [
        {"id": "1", "enabled": True, "type": "count", "schema": "metric", "params": {}}
    ]
    terms = {"field": panel.split, "size": 20, "order": "desc", "orderBy": "1"}
    by = "group" if panel.shape == "line" else "bucket"
    if panel.shape == "line":
        time = {"field": "@timestamp", "interval": "auto", "min_doc_count": 1}
        aggregations.append({"id": "2", "enabled": True, "type": "date_histogram", "schema": "segment", "params": time})
    aggregations.append({"id": "3", "enabled": True, "type": "terms", "schema": by, "params": terms})
    if panel.weigh and kind == "table":
        more = {"field": panel.weigh, "customLabel": "and not told"}
        aggregations.append({"id": "4", "enabled": True, "type": "sum", "schema": "metric", "params": more})
    state = {"title": f"fixer: {panel.title}", "type": kind, "aggs": aggregations, "params": {"type": kind}}
    return {
        "type": "visualization",
        "id": identity(panel.title),
        "attributes": {
            "title": state["title"],
            "visState": json.dumps(state),
            "uiStateJSON": "{}",
            "kibanaSavedObjectMeta": source(panel.kuery()),
        },
        "references": [reference(_INDEX, "index-pattern", VIEW)],
    }


def shown(panel: Panel) -> dict[str, Any]:
    return search(panel) if panel.shape == "documents" else visualisation(panel)


def dashboard() -> dict[str, Any]:
    """Two panels a row."""
    panels, references = [], []
    for number, panel in enumerate(PANELS):
        where = {"x": COLUMNS // 2 * (number % 2), "y": HEIGHT * (number // 2), "w": COLUMNS // 2, "h": HEIGHT}
        name = f"panel_{number}"
        panels.append(
            {
                "panelIndex": str(number),
                "gridData": where | {"i": str(number)},
                "panelRefName": name,
                "embeddableConfig": {},
                "version": "8.0.0",
            }
        )
        references.append(reference(name, shown(panel)["type"], identity(panel.title)))
    return {
        "type": "dashboard",
        "id": identity("dashboard"),
        "attributes": {
            "title": "fixer",
            "description": "VXLAN checksums: what is broken, who sends it, what was done, by whom",
            "panelsJSON": json.dumps(panels),
            "optionsJSON": json.dumps({"useMargins": True}),
            "timeRestore": False,
            "kibanaSavedObjectMeta": {"searchSourceJSON": json.dumps({"query": {"query": "", "language": "kuery"}})},
        },
        "references": references,
    }


RULES = {
    "a VTEP's packets are broken": "event.action : finding-opened and fixer.finding.verdict : fault",
    "corrupt packets": "event.dataset : fixer.packet and fixer.diagnosis : corrupt",
    "the rule is lost": "event.dataset : fixer.rule and event.action : (rule-lost or guard-stopped or guard-failed)",
    "fixer has failed": "event.dataset : fixer.daemon and event.action : (failed or degraded or log-lost)",
}
"""What somebody is to be woken for: any document of it within five minutes."""


def rule(name: str, kuery: str) -> dict[str, Any]:
    query = {"query": {"query": kuery, "language": "kuery"}, "filter": [], "index": VIEW}
    params = {
        "searchType": "searchSource",
        "searchConfiguration": query,
        "timeField": "@timestamp",
        "timeWindowSize": 5,
        "timeWindowUnit": "m",
        "threshold": [0],
        "thresholdComparator": ">",
        "size": 10,
        "excludeHitsFromPreviousRun": True,
    }
    return {
        "type": "alert",
        "id": identity(f"rule {name}"),
        "attributes": {
            "name": f"fixer: {name}",
            "alertTypeId": ".es-query",
            "consumer": "alerts",
            "enabled": False,
            "schedule": {"interval": "1m"},
            "tags": ["fixer"],
            "params": params,
            "actions": [],
        },
        "references": [reference("param:kibanaSavedObjectMeta.searchSourceJSON.index", "index-pattern", VIEW)],
    }


def objects() -> list[dict[str, Any]]:
    rules = [rule(name, kuery) for name, kuery in RULES.items()]
    return [data_view(), *(shown(panel) for panel in PANELS), dashboard(), *rules]


def files() -> dict[str, str]:
    return {"kibana.ndjson": "".join(json.dumps(each) + "\n" for each in objects())}
