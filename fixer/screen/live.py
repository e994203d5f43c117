"""``fixer status --watch``: the state and what happens each second, on a screen of 80 × 24, until q is typed."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from textwrap import wrap

from rich.console import Group, RenderableType
from rich.live import Live

from fixer.host.machine import Host
from fixer.now import Now
from fixer.screen import findings
from fixer.screen.changes import moment
from fixer.screen.console import Console, Part, Text, rows, text
from fixer.status.answer import Status

SECONDS = 2.0
"""Between two looks; one takes a few processes."""
LINES = 23
_TICKS = os.sysconf("SC_CLK_TCK")


def watch(look: Callable[[], Status], host: Host, console: Console, seconds: float = SECONDS) -> int:
    """Show it again and again; returns the last one's exit code once q (or Ctrl-C, or the end of input) came."""
    before: tuple[Status, float, float] | None = None
    with _keys() as key, Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            status, now = look(), Now.read().steady
            busy = _busy(host, status)
            found = _findings(before, status, now, console.width)
            live.update(_page(status, _rates(before, status, now, busy), found, console.width), refresh=True)
            before = status, now, busy
            if key(seconds):
                return status.exit_code


def _page(status: Status, rates: list[tuple[str, Part]], found: list[Text], width: int) -> RenderableType:
    """One screen: the state, what happens, and as many findings and reasons as there is room for: half for each."""
    state: Part = ("in order", "green") if status.exit_code == 0 else ("not in order", "red")
    lines: list[tuple[str, Part]] = [("State", state)]
    for name, rule in status.rules.items():
        said = (
            f"{rule.takes}, {rule.packets:,} packets" if rule.on else ("not available" if rule.unavailable else "off")
        )
        lines.append((name.replace("ip", "IP"), said))
    if status.wanted:
        until = f"until {moment(status.wanted.until)}" if status.wanted.until else "without an end"
        lines.append(("Wanted", f"{'on ' + until if status.wanted.on else 'off'}, by {status.wanted.by}"))
    unseen = "unknown" if status.passed_unseen is None else f"{status.passed_unseen:,}"
    waiting = sum(each.waiting for each in status.listeners)
    lines.append(
        ("Queue", f"{waiting:,} waiting, {sum(each.lost for each in status.listeners):,} lost, {unseen} unseen")
    )
    lines += rates
    room = LINES - len(lines) - 2
    told = [line for note in status.notes for line in _wrapped(note, width)]
    half = max(room // 2, room - len(told), 1)
    if len(found) > half:
        found = [*found[: half - 1], text((f"and {len(found) - half + 1} more findings", "dim"))]
    rest = max(room - len(found), 1)
    shown = [text(("! " if is_first else "  ", "yellow"), line) for is_first, line in told[:rest]]
    return Group(rows(lines), text(""), *found, *shown, text(("q leaves", "dim")))


def _findings(before: tuple[Status, float, float] | None, status: Status, now: float, width: int) -> list[Text]:
    """What holds now, the worst first: a line each."""
    if not status.daemon:
        return []
    last = before[0].daemon.findings if before and before[0].daemon else ()
    seconds = max(now - before[1], 0.001) if before else 1.0
    return findings.lines(status.daemon.findings, last, seconds, width)


def _wrapped(note: str, width: int) -> list[tuple[bool, str]]:
    """Its lines, and which of them is the first."""
    return [(at == 0, line) for at, line in enumerate(wrap(note, max(width - 3, 20)))]


def _rates(
    before: tuple[Status, float, float] | None, status: Status, now: float, busy: float
) -> list[tuple[str, Part]]:
    """What happened since the last look, each second."""
    if before is None or not status.daemon or not before[0].daemon or status.daemon.pid != before[0].daemon.pid:
        return [("Each second", "…")]
    last, then, was_busy = before
    seconds = max(now - then, 0.001)
    passed = sum(each.id_sequence for each in status.listeners) - sum(each.id_sequence for each in last.listeners)
    lines: list[tuple[str, Part]] = [("Packets/s", f"{max(passed, 0) / seconds:,.0f}")]
    for title, name in (("Diagnoses/s", "diagnosis"), ("Actions/s", "action")):
        earlier = last.daemon.table(name) if last.daemon else {}
        more = {kind: count - earlier.get(kind, 0) for kind, count in status.daemon.table(name).items()}
        said = ", ".join(
            f"{kind.replace('_', ' ')} {count / seconds:,.0f}" for kind, count in more.items() if count > 0
        )
        lines.append((title, said or "none"))
    lines.append(("CPU", f"{(busy - was_busy) / seconds:.0%} of one"))
    return lines


def _busy(host: Host, status: Status) -> float:
    """Seconds that the daemon has computed so far; 0 if that cannot be seen."""
    said = host.read(f"/proc/{status.daemon.pid}/stat") if status.daemon else None
    if said is None:
        return 0.0
    user, system = said.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / _TICKS


@contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """A function that waits for so many seconds, or for a key, and says whether to leave."""
    descriptor = sys.stdin.fileno()
    is_terminal = os.isatty(descriptor)

    def left(seconds: float) -> bool:
        if not select.select([descriptor], [], [], seconds)[0]:
            return False
        return os.read(descriptor, 64)[:1] in (b"q", b"Q", b"\x03", b"")

    if not is_terminal:
        yield left
        return
    settings = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield left
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, settings)
