"""``fixer demo``: the fault and its repair, shown."""

from __future__ import annotations

import sys

import click


@click.command(short_help="Show the fault and its repair.")
def demo() -> None:
    """Show the fault and its repair on two hosts in network namespaces, joined by a wire that finishes no checksum.

    Under a minute; everything is removed at the end. Without root, or where the kernel lacks a part, it says which, and
    judges an embedded capture instead.

    \b
    Exit codes: 0 the main job was shown to work, 130 interrupted, anything else: it did not work.
    """
    from fixer import lab
    from fixer.screen.console import console_on

    sys.exit(lab.demo(console_on()))
