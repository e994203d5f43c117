"""Every kind of capture with the conclusion that is right: no healthy sender is accused, and no fault is missed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import pages
from support.dialogue import Capture, Connection
from support.labelled import LABELLED, LEFT, answered
from support.told import TOLD

from fixer.findings.finding import Verdict

FAULT, UNCLEAR, HARMLESS = Verdict


@pytest.mark.parametrize("name", LABELLED)
def test_each_capture_has_its_conclusion(name: str) -> None:
    _, expected, place, _ = LABELLED[name]
    found, places = pages.concluded(name)
    assert found == expected
    if place is not None:
        assert places == {place}


def test_no_false_accusation_and_no_missed_fault(record_property: Callable[[str, object], None]) -> None:
    """The confusion, told at the end of the run, and kept in docs/conclusions.md."""
    for line in pages.table_of_confusion():
        record_property(TOLD, f"conclusions: {line}")
    counts = pages.confusion()
    assert all(row == column for row, column in counts), counts
    assert all(counts[name, name] >= 3 for name in pages.VERDICTS), "each is tried"


@pytest.mark.parametrize("name", pages.PAGES)
def test_the_page_in_the_documents_is_what_is_in_the_tree(name: str) -> None:
    assert (pages.DOCS / name).read_text(encoding="utf-8") == pages.PAGES[name](), "write it again: make pages"


# --- whatever is said -------------------------------------------------------------------------------------------------

STATES = st.sampled_from(["finished", "unfinished"])
SPOKEN = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 4000)), max_size=8)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(STATES, STATES, SPOKEN), min_size=1, max_size=5), st.sampled_from([None, False, True]))
def test_where_everything_is_acknowledged_nobody_is_accused(
    connections: list[tuple[str, str, list[tuple[int, int]]]], mark: bool | None
) -> None:
    capture = Capture(marks=(mark, None if mark is None else not mark))
    for port, (first, second, said) in enumerate(connections, 4000):
        connection = Connection(capture, port).open(first, second)
        for side, size in said:
            connection.say(side, (first, second)[side], bytes(size), (first, second)[1 - side])
    assert {one.verdict for one in capture.findings()} <= {HARMLESS}


@settings(deadline=None, max_examples=60)
@given(st.lists(st.one_of(SPOKEN, st.integers(2, 6)), min_size=1, max_size=8), st.booleans())
def test_over_a_wire_on_which_nothing_unfinished_arrives_somebody_is_accused(
    connections: list[list[tuple[int, int]] | int], marked: bool
) -> None:
    """Each connection is finished and works, or its SYN is not and comes again and again."""
    capture = Capture(marks=(False, True) if marked else (None, None))
    answered(capture, "finished", port=3999)
    broken = 0
    for port, what in enumerate(connections, 4000):
        if isinstance(what, int):
            Connection(capture, port).knock(times=what)
            broken += what
        else:
            connection = Connection(capture, port).open()
            for side, size in what:
                connection.say(side, "finished", bytes(size))
    found = [(one.who, one.packets) for one in capture.findings() if one.verdict is FAULT]
    assert found == ([(LEFT, broken)] if broken else [])
