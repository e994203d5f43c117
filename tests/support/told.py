"""What tests have to say at the end of a run, beside whether they passed."""

from __future__ import annotations

import pytest

confusion_told = pytest.StashKey[list[str]]()
"""Conclusions that are right by those that were drawn, a line each."""
