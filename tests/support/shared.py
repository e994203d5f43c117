"""What lies beside the checkout, in ``../shared``, and is no part of it: a test that asks for it is skipped without it.

``captures``: other people's; ``field``: made after field cases, with the right conclusion in its README;
``hostile``: packets that are made to be mended wrongly; ``data``: lists.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[3] / "shared"
ECS_FIELDS = "data/ecs-fields.csv"


def path(name: str) -> Path:
    """The file or folder ``captures/…``, ``field/…``, ``hostile/…`` or ``data/…``."""
    found = SHARED / name
    if not found.exists():
        missing = name if SHARED.is_dir() else "which is no part of the checkout"
        pytest.skip(f"needs ../shared, {missing}")
    return found


def captures(folder: str = "captures") -> list[Path]:
    """All captures of a folder, never none."""
    found = sorted(each for each in path(folder).iterdir() if ".pcap" in each.name)
    assert found, folder
    return found


def ecs_fields() -> set[str]:
    """The names of all fields of the Elastic Common Schema."""
    with path(ECS_FIELDS).open(newline="") as text:
        return {row["Field"] for row in csv.DictReader(text)}
