"""What the other files of this room draw with: a console, text in colours, lines, rows."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from textwrap import wrap
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fixer.screen.text import printable, settle

__all__ = ["Console", "Part", "Table", "Text", "console_on", "exactly", "rows", "say", "table", "text"]

_COMMAND = re.compile(r"`[^`]+`")
_UNBROKEN = "\ue000"  # stands for a blank while lines are broken; `printable` lets none through

Part = str | Text | tuple[str, str]
"""Text; or text and its style."""


def console_on(stream: TextIO | None = None) -> Console:
    """A console on the stream (stdout), in characters that it can show."""
    return _Console(file=settle(stream or sys.stdout))


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """rich would end the process with 1; whoever runs the command says what `| head` ends it with."""
        raise


def text(*parts: Part) -> Text:
    """The parts as one text. Nothing in them is read as markup, an emoji's name or a terminal's command.

    That is why a `str` never goes to rich as it is: it would take `[/red]` for the end of a colour, and `::b:` in an
    address for an emoji.
    """
    whole = Text()
    for part in parts:
        if isinstance(part, Text):
            whole.append_text(part)
        elif isinstance(part, str):
            whole.append(printable(part))
        else:
            whole.append(printable(part[0]), part[1])
    return whole


def say(console: Console, *parts: Part, indent: int = 0) -> None:
    """The parts as a paragraph, wrapped at the console's width, but never inside `a command`, which is to be copied."""
    whole = text(*parts)
    unbroken = _COMMAND.sub(lambda found: found[0].replace(" ", _UNBROKEN), whole.plain)
    at = 0
    for line in wrap(unbroken, max(console.width - indent, 1), break_long_words=False, break_on_hyphens=False) or [""]:
        at = unbroken.index(line, at)
        console.print(text(" " * indent, whole[at : at + len(line)]), soft_wrap=True)
        at += len(line)


def exactly(console: Console, *lines: Part) -> None:
    """Lines to copy and paste, or that begin with a file's name: not wrapped."""
    for line in lines:
        console.print(text(line), soft_wrap=True)


def rows(lines: Iterable[tuple[str, Part]], title: str = "bold") -> Table:
    """A table without borders: titles, and what stands behind each."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style=title)
    grid.add_column()
    for name, line in lines:
        grid.add_row(text(name), text(line))
    return grid


def table(title: str, columns: Iterable[str], lines: Iterable[Iterable[Part]]) -> Table:
    """A table with borders."""
    drawn = Table(title=text(title), title_justify="left")
    for column in columns:
        drawn.add_column(text(column))
    for line in lines:
        drawn.add_row(*map(text, line))
    return drawn
