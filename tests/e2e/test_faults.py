"""One row of ``make faults``, and what its figures are made with."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.load import longest_wait
from support.table import Table

from .faults import FAULTS, endured
from .guard import load


@pytest.mark.root
def test_killed_it_comes_back_and_no_connection_is_lost(tmp_path: Path) -> None:
    """With normalised timestamps, so that what the next daemon remembers is needed as well."""
    killed = next(fault for fault in FAULTS if fault.name == "kill -9")
    noticed, how = endured(killed, True, tmp_path)
    assert noticed.lost == 0, noticed.failures
    assert 0 < noticed.unanswered < noticed.asked, "the gap is to be felt, or nothing is shown"
    assert noticed.pause <= killed.most + load()
    assert "SIGKILL" in how


def test_a_wait_is_from_what_was_sent_to_the_next_sign_of_life() -> None:
    assert longest_wait([1.0, 2.0, 3.0], [1.1, 4.0], until=9.0) == 2.0
    assert longest_wait([1.0], [0.5], until=9.0) == 8.0
    assert longest_wait([], [1.0], until=9.0) == 0.0


def test_a_row_that_is_seen_again_takes_its_own_place(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text("before\n\n<!-- x -->\n\n| a | b | c |\n|---|---|---|\n\n<!-- /x -->\n\nafter\n")
    table = Table(document, "x")
    for row in (("one", "as", "1"), ("two", "as", "2"), ("one", "as", "3 | 4")):
        table.put(*row)
    rows = ["| one | as | 3 / 4 |", "| two | as | 2 |"]
    assert [line for line in document.read_text().splitlines() if " as " in line] == rows
    assert document.read_text().endswith("\n\n<!-- /x -->\n\nafter\n")
