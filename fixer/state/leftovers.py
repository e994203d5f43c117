"""What is of no use to anybody once the rules are gone, and its daemon."""

from __future__ import annotations

from fixer.host.machine import Host
from fixer.state import flowfile, place, report, samples


def forget(host: Host) -> None:
    """Remove whatever there is of the host's network namespace, which is about to go."""
    remove(host)
    samples.remove(host)
    for kind in ("baseline", "intent", "lock"):
        place.remove(place.path_of(host, kind))


def remove(host: Host, *, comes_back: bool = False) -> None:
    """Remove it, of the host's network namespace. What a daemon uses, and what cannot be removed, stays.

    ``comes_back``: another daemon may follow, and the connections that are normalised go on with what is remembered.
    """
    if not comes_back:
        flowfile.remove_unused(host)
    report.remove_unused(host)
    place.remove_unfinished(host)
