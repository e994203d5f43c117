"""What was sampled over a long time, as one picture: a panel for each figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from deploy.picture import SHADES


class Panel(NamedTuple):
    key: str
    title: str


def draw(samples: Sequence[dict[str, float]], panels: Sequence[Panel], path: Path) -> None:
    """Two panels a row, over minutes, each from zero."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    minutes = [each["seconds"] / 60 for each in samples]
    rows = (len(panels) + 1) // 2
    figure, axes = pyplot.subplots(rows, 2, figsize=(9, 1.7 * rows), sharex=True, layout="constrained")
    for panel, axis in zip(panels, axes.flat, strict=False):
        axis.plot(minutes, [each[panel.key] for each in samples], color=SHADES[0], linewidth=1)
        axis.set_title(panel.title, loc="left", size=9)
        axis.set_ylim(0, 1.15 * max(1.0, *(each[panel.key] for each in samples)))
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("minutes", size=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
