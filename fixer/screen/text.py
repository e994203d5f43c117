"""Text for a terminal: what others named must not act there, and what it cannot show gives way to what it can."""

from __future__ import annotations

import codecs
import os
from typing import TextIO

ERRORS = "fixer.plain"
"""The name of the error handler by which :func:`settle` encodes."""

# One for one, so that columns stay where they are.
_PLAIN = {"→": ">", "─": "-", "…": ".", "×": "x", "–": "-", "−": "-"}


def printable(text: str) -> str:
    """The text as one line that is only shown: control characters and undecodable bytes become escapes.

    Processes, interfaces and files are named by others, who may put an escape sequence of a terminal there.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)


def settle(stream: TextIO) -> TextIO:
    """The stream, from now on without an error for what it cannot encode; ASCII where LC_ALL asks for no more.

    Python itself takes the locale C for UTF-8 (PEP 538), which a serial console may not show.
    """
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(encoding="ascii" if os.environ.get("LC_ALL") in ("C", "POSIX") else None, errors=ERRORS)
    return stream


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(each, "?") for each in error.object[error.start : error.end]), error.end


codecs.register_error(ERRORS, _plain)
