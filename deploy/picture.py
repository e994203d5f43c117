"""What the dashboard is to show, drawn from a real server's answers: ``python -m deploy.picture ANSWERS.json OUT.png``.

There is no Kibana among what our registries have. ``make test-elk`` leaves the answers in ``build/elk/answers.json``.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .panels import PANELS, Panel

SHADES = ("#0b6e4f", "#b5433a", "#4a7fb5", "#d08c34", "#9a9a9a", "#6b4f9a")
MOST_ROWS = 8


def draw(answers: dict[str, Any], path: Path) -> None:
    """One picture, two panels a row, as on the dashboard."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    rows = (len(PANELS) + 1) // 2
    figure, axes = pyplot.subplots(rows, 2, figsize=(12, 2.7 * rows), layout="constrained")
    for panel, axis in zip(PANELS, axes.flat, strict=False):
        axis.set_title(panel.title, loc="left", size=10)
        answer = answers[panel.title]
        {"line": lines, "rows": bars, "documents": table}[panel.shape](axis, panel, answer)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def weight(bucket: dict[str, Any]) -> float:
    """Events that were told, and those that they stand for."""
    return float(bucket["doc_count"] + bucket.get("more", {}).get("value", 0))


def lines(axis: Any, _panel: Panel, answer: dict[str, Any]) -> None:
    buckets = answer["aggregations"]["time"]["buckets"]
    when = [datetime.fromtimestamp(bucket["key"] / 1000, tz=UTC) for bucket in buckets]
    found = [{each["key"]: weight(each) for each in bucket["split"]["buckets"]} for bucket in buckets]
    names = sorted({name for each in found for name in each})
    for shade, name in zip(SHADES * 3, names, strict=False):
        axis.plot(when, [each.get(name, 0) for each in found], color=shade, label=name, marker=".", linewidth=1)
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=7, frameon=False)
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)


def bars(axis: Any, _panel: Panel, answer: dict[str, Any]) -> None:
    buckets = sorted(answer["aggregations"]["split"]["buckets"], key=weight)[-MOST_ROWS:]
    axis.barh(
        [bucket["key"] for bucket in buckets], [weight(bucket) for bucket in buckets], color=SHADES[0], height=0.7
    )
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)


def table(axis: Any, panel: Panel, answer: dict[str, Any]) -> None:
    """As text: a document a line."""
    axis.set_axis_off()
    hits = [hit["_source"] for hit in answer["hits"]["hits"]][:MOST_ROWS]
    for number, hit in enumerate(hits):
        cells = [hit["@timestamp"][11:19], *(str(value_of(hit, column)) for column in panel.columns)]
        axis.text(0, 1 - (number + 1) / (MOST_ROWS + 1), "  ".join(cells)[:104], size=6.5, family="monospace")
    if not hits:
        axis.text(0, 0.5, "none", size=8)


def value_of(document: dict[str, Any], name: str) -> Any:
    if name in document:
        return document[name]
    found: Any = document
    for step in name.split("."):
        found = found.get(step, "") if isinstance(found, dict) else ""
    return found


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
