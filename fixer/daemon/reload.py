"""Another configuration for a daemon that serves: taken as a whole between two batches of packets, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

from fixer.config import Settings, every_key
from fixer.daemon.lanes import Lane, pipelines
from fixer.datapath.flows import Flows
from fixer.errors import ConfigWrong, SystemRefused

TAKE_SECONDS = 2.0
"""How long a queue's thread may take for the batch that it is at."""


def reload(serving: Settings, wanted: Settings, lanes: Sequence[Lane], flows: Flows | None) -> list[str]:
    """Have every lane judge by ``wanted`` from its next batch on; the keys that changed.

    No packet is lost, and what was learnt, counted and not yet told stays. Raises :class:`ConfigWrong` before anything
    is changed if some of it can only be had by a start, and :class:`SystemRefused` if a thread is stuck.
    """
    keys = changed(serving, wanted)
    if fixed := [key for key in keys if needs_start(key, serving, wanted)]:
        raise ConfigWrong(f"{', '.join(fixed)}: only a start can change that, so restart fixer; nothing was changed")
    taken = [lane.queue.adopt(path) for lane, path in zip(lanes, pipelines(wanted, flows), strict=True)]
    for lane, done in zip(lanes, taken, strict=True):
        if not done.wait(TAKE_SECONDS):
            raise SystemRefused(f"the thread of queue {lane.number} has not turned for {TAKE_SECONDS:g} s: it is stuck")
    return keys


def changed(one: Settings, other: Settings) -> list[str]:
    """The keys, dotted, whose values differ."""
    return [key for key in every_key() if _value(one, key) != _value(other, key)]


def needs_start(key: str, serving: Settings, wanted: Settings) -> bool:
    """Queues are bound once, as the log is opened; and the flow table's connections live by the settings that they
    began under."""
    normalising = "normalise" in (serving.timestamps.mode, wanted.timestamps.mode)
    fixed = key.startswith(("queue.", "metrics.")) or (key.startswith("log.") and key != "log.per_second")
    return fixed or (normalising and key.startswith("timestamps."))


def _value(settings: Settings, key: str) -> Any:
    return reduce(getattr, key.split("."), settings)
