"""A table in a document that is made of what was seen, a row at a time, and stands between two marks."""

from __future__ import annotations

import re
from pathlib import Path


class Table:
    """Its rows are known by their first two cells: one that is seen again takes the place of what was there."""

    def __init__(self, document: Path, name: str) -> None:
        self._document = document
        self._marks = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"

    def put(self, *cells: str) -> None:
        """Write a row, and print it."""
        row = f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
        print(row, flush=True)
        before, head, rows, after = self._parts()
        key = self._key(row)
        keys = [self._key(each) for each in rows]
        if key in keys:
            rows[keys.index(key)] = row
        else:
            rows.append(row)
        self._document.write_text(before + "\n".join([*head, *rows, ""]) + after, encoding="utf-8")

    def _parts(self) -> tuple[str, list[str], list[str], str]:
        """Up to the mark, heading and line, the rows, and from the other mark on."""
        first, last = map(re.escape, self._marks)
        found = re.fullmatch(f"(.*{first})(.*)({last}.*)", self._document.read_text(encoding="utf-8"), re.DOTALL)
        assert found, f"no marks in {self._document}"
        lines = found[2].strip("\n").split("\n")
        return found[1], ["", *lines[:2]], lines[2:], "\n" + found[3]

    @staticmethod
    def _key(row: str) -> list[str]:
        return row.split(" | ")[:2]
