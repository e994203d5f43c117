"""The compiled modules of this directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import launder
from bench.build import compiled as compiled_of

MODULES = ("world", "receiver", "damage", "judge", "trial")  # each may cimport those before it


def compiled(build: Path) -> Any:
    """The module ``trial``, compiled below ``build``."""
    return compiled_of(launder, MODULES, build)
