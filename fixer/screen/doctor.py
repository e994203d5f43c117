"""What ``fixer doctor`` found, for people; ``--json`` prints :class:`fixer.doctor.timestamps.Verdict` itself."""

from __future__ import annotations

from collections.abc import Iterator

from fixer.doctor.kernels import Mode
from fixer.doctor.server import Server
from fixer.doctor.timestamps import Verdict
from fixer.screen.console import Console, exactly, rows, say, text

_TITLES = {
    "affected": ("Affected:", "bold red"),
    "unaffected": ("Not affected:", "bold green"),
    "unknown": ("Not known:", "bold yellow"),
}


def show(found: Verdict, console: Console) -> None:
    """The verdict, why, the cure, and what to configure until then."""
    exactly(console, text(_TITLES[found.verdict], f" {found.because}"))
    console.print(rows(_facts(found.server)))
    for note in found.notes:
        say(console, f"- {note}")
    if found.cure:
        first, second = found.cure
        unless = " (if tcp_tw_recycle is on)" if found.verdict == "unknown" else ""
        say(console)
        say(console, ("The cure", "bold"), f"{unless}, on the server, at once and without a reboot:")
        exactly(console, f"  {first}")
        say(console, "and so that it stays, take it out of the file that sets it:")
        exactly(console, f"  {second}")
    if found.configuration is None:
        return
    say(console)
    say(console, ("Until then", "bold"), f", mode {found.mode}, on the server's node:")
    console.print(rows([("  strip", found.strip), ("  normalise", found.normalise)], title=""))
    exactly(console, "", "# /etc/fixer/fixer.toml", *found.configuration.splitlines(), "")
    exactly(console, "Then:", *(f"  {command}" for command in found.then))
    say(console, _needs(found.mode))


def _needs(mode: Mode | None) -> str:
    if mode == "strip":
        return (
            "If fixer runs already, start it again; the rule can stay, unless its scope is suspects. Connections that "
            "exist keep their timestamps. If PAWSPassive still grows after a minute, use normalise."
        )
    return (
        "Both directions must pass this node. Run `fixer on` again even if it is on: replies need a rule of their own. "
        "What the server remembered before is refused for up to 60 s more."
    )


def _facts(server: Server) -> Iterator[tuple[str, str]]:
    yield "Kernel", server.release or "unknown"
    recycle = _shown(server.tw_recycle, "not there" if server.has_test is False else "unknown")
    yield "Settings", f"tcp_tw_recycle {recycle}, tcp_timestamps {_shown(server.timestamps, 'unknown')}"
    for title, counted in (("Counters", server.counters), ("Growth", server.growth)):
        if counted:
            values = {
                "PAWSPassive": counted.paws_passive,
                "ListenDrops": counted.listen_drops,
                "ListenOverflows": counted.listen_overflows,
            }
            yield title, ", ".join(f"{name} {_shown(value, 'not counted')}" for name, value in values.items())


def _shown(value: int | None, otherwise: str) -> str:
    return otherwise if value is None else f"{value:,}"
