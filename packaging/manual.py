"""Write the manual pages and the shells' completion from the commands themselves: they cannot say anything else.

packaging/manual.py DIRECTORY    -> man/man1/fixer*.1, man/man5/fixer.toml.5, completion/{fixer.bash,_fixer,fixer.fish}
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
from click.shell_completion import ShellComplete, get_completion_class

from fixer import __version__
from fixer.cli import cli

VERBATIM = "\b"
"""click's mark on a paragraph whose lines are not to be filled"""


def escaped(text: str) -> str:
    r"""Text as troff prints it: a backslash is ``\e``, a minus a minus, and no line is taken for a request."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("`", r"\(ga")
    return "\n".join(rf"\&{line}" if line.startswith((".", "'")) else line for line in text.splitlines())


def body(help_text: str) -> Iterator[str]:
    """The paragraphs of a command's help."""
    for paragraph in inspect.cleandoc(help_text).split("\n\n"):
        if paragraph.startswith(VERBATIM):
            yield f".PP\n.nf\n{escaped(paragraph.removeprefix(VERBATIM).strip(chr(10)))}\n.fi"
        else:
            yield f".PP\n{escaped(paragraph)}"


def title(name: str, section: int) -> str:
    day = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), UTC).date()
    return f'.TH "{name.upper()}" {section} "{day}" "fixer {__version__}" "fixer"\n.nh\n.ad l'


def page(context: click.Context) -> str:
    """The manual page of one command, with all that its ``--help`` says."""
    command = context.command
    words = context.command_path
    usage = " ".join(command.collect_usage_pieces(context))
    parts = [
        title(words.replace(" ", "-"), 1),
        f".SH NAME\n{escaped(words.replace(' ', '-'))} \\- {escaped(command.get_short_help_str(200).rstrip('.'))}",
        f".SH SYNOPSIS\n.B {escaped(words)}\n{escaped(usage)}",
        ".SH DESCRIPTION",
        *body(command.help or ""),
    ]
    records = [record for one in command.get_params(context) if (record := one.get_help_record(context))]
    if records:
        parts.append(".SH OPTIONS")
        parts += [f".TP\n.B {escaped(names)}\n{escaped(about)}" for names, about in records]
    if isinstance(command, click.Group):
        parts.append(".SH COMMANDS")
        parts += [
            f".TP\n.BR {escaped(f'{words} {name}').replace(' ', '-')} (1)\n{escaped(one.get_short_help_str(200))}"
            for name, one in command.commands.items()
        ]
    others = "fixer.toml (5)" if context.parent is None else "fixer (1),\n.BR fixer.toml (5)"
    parts.append(f".SH SEE ALSO\n.BR {others}")
    return "\n".join(parts) + "\n"


def contexts(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[click.Context]:
    """Each command of the tree, the root first."""
    context = click.Context(command, info_name=name, parent=parent, color=False, terminal_width=200)
    yield context
    if isinstance(command, click.Group):
        for verb, one in command.commands.items():
            yield from contexts(one, verb, context)


def configuration(example: str) -> str:
    """fixer.toml(5): the example, which says all."""
    parts = [
        title("fixer.toml", 5),
        ".SH NAME\nfixer.toml \\- configuration of fixer",
        ".SH SYNOPSIS\n/etc/fixer/fixer.toml",
        f".SH DESCRIPTION\n.nf\n{escaped(example)}\n.fi",
        ".SH SEE ALSO\n.BR fixer (1)",
    ]
    return "\n".join(parts) + "\n"


def completion(shell: str) -> str:
    """The script that this shell reads. (click would run a bash to see whether it is new enough.)"""
    kind = get_completion_class(shell)
    if kind is None:
        raise LookupError(f"click does not know {shell}")
    return ShellComplete.source(kind(cli, {}, "fixer", "_FIXER_COMPLETE"))


def main(directory: Path) -> None:
    for folder in ("man/man1", "man/man5", "completion"):
        (directory / folder).mkdir(parents=True, exist_ok=True)
    for context in contexts(cli, "fixer"):
        (directory / "man/man1" / f"{context.command_path.replace(' ', '-')}.1").write_text(page(context))
    (directory / "man/man5/fixer.toml.5").write_text(configuration((directory / "fixer.toml").read_text()))
    for shell, file in (("bash", "fixer.bash"), ("zsh", "_fixer"), ("fish", "fixer.fish")):
        (directory / "completion" / file).write_text(completion(shell))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
