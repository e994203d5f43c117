"""`fixer on --scope kernel`: what was diagnosed is finished in the kernel, as long as the judge confirms it.

A thread of its own, for a look at interfaces runs a command. It tells the program of an envelope for LIVES seconds from
each packet on that was judged unfinished; the program leaves one packet in SAMPLE_SECONDS to the queue, and that is the
one that is judged. So an entry that nobody confirms ends by itself: the fault has ended, the queue has no listener,
this thread or the daemon is dead. Whatever is in the way, packets come to the queue as they did before.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING

from fixer.config import Settings
from fixer.daemon.attached import Attached
from fixer.datapath.pipeline import Pipeline
from fixer.errors import FixerError
from fixer.host.machine import Host
from fixer.now import Now
from fixer.rules import wanted
from fixer.rules.wanted import Intent
from fixer.state.report import InKernel
from fixer.telemetry import kernel as told
from fixer.telemetry.events import Saying

if TYPE_CHECKING:
    from fixer.kernel.finisher import Finisher

LIVES = 5.0
"""Seconds that an entry lives from the last packet on that confirmed it."""
SAMPLE_SECONDS = 1.0
"""Between two packets of an envelope that go to the judge although there is an entry."""
TICK_SECONDS = 0.25
LOOK_SECONDS = 1.0
"""Between two looks at what is wanted, and at whether the program is where it was put."""
RETRY_SECONDS = 60.0
"""After the kernel refused it."""
IDLE_SECONDS = 600.0
"""Without an entry for so long, there is no use for a program in the kernel."""
SILENT_SECONDS = 60.0
"""A VTEP that comes back within that is not told of again."""
_SECOND = 1_000_000_000
_SHOWN = 20
"""VTEPs that the report names."""
_NAMED = 1024
"""VTEPs whose packets are counted apart, once their entries have ended."""


class Finishing(threading.Thread):
    """One daemon's, for the network namespace of whoever starts it."""

    def __init__(
        self, settings: Settings, host: Host, pipelines: Sequence[Pipeline], say: Callable[[Saying], None]
    ) -> None:
        """``say`` takes a line for the log and does not wait."""
        super().__init__(name="finishing", daemon=True)
        self._settings = settings
        self._host = host
        self._pipelines = pipelines
        self._say = say
        self._over = threading.Event()
        self._anew = False
        self._intent: Intent | None = None
        self._wanted = False
        self._marks = False
        """Whether packets are marked as verified where they can be, and not summed."""
        self._finisher: Finisher | None = None
        self._attached = Attached(host, say)
        self._deadlines: dict[bytes, float] = {}
        """By key: steady seconds."""
        self._confirmed: dict[bytes, dict[int, float]] = {}
        """By key and each way of the outer field: steady seconds until which it is held for so."""
        self._begun: dict[str, float] = {}
        """By VTEP that the log has told of: steady seconds of its last entry."""
        self._done: Counter[str] = Counter()
        """By VTEP: packets of entries that have ended; '' for those that there was no room to name."""
        self._looked = self._busy = float("-inf")
        self._refused = float("-inf")
        self._trouble = ""
        self._report: InKernel | None = None

    def report(self) -> InKernel | None:
        """What the kernel finishes; None while that is not wanted, and nothing was finished. Any thread."""
        return self._report

    def serve_by(self, settings: Settings) -> None:
        """A reload: whoever was diagnosed by other settings is to be diagnosed anew. Any thread."""
        self._settings = settings
        self._anew = True

    def stop(self) -> None:
        """Have it take everything back and end, soon."""
        self._over.set()

    def run(self) -> None:
        try:
            while not self._over.wait(TICK_SECONDS):
                self.look(Now.read())
        finally:
            self._take_back(Now.read(), "the daemon ends")

    def look(self, now: Now) -> None:
        """What was told of since the last look gets its entry, and what nobody confirmed loses it."""
        if now.steady - self._looked >= LOOK_SECONDS or self._anew:
            self._looked = now.steady
            self._look_what_is_wanted(now)
        if not self._wanted:
            return
        fresh = [each for pipeline in self._pipelines for each in pipeline.take_unfinished()]
        if fresh and self._is_ready(now):
            for key, outers in fresh:
                self._confirm(key, outers, now)
        self._forget(now)
        self._report = self._described()

    def _look_what_is_wanted(self, now: Now) -> None:
        try:
            self._intent = wanted.read(self._host)
        except FixerError:
            self._intent = None  # what is not understood nobody obeys
        intent = self._intent
        is_wanted = (
            intent is not None
            and intent.holds(self._host.now())
            and intent.selection is not None
            and intent.selection.in_kernel
            and intent.selection.queue == self._settings.queue.number
            and not self._settings.monitor
        )
        marks = bool(is_wanted and intent and intent.selection and intent.selection.overlay_ends_here)
        is_old = self._anew or marks != self._marks
        if self._anew or (self._wanted and not is_wanted) or marks != self._marks:
            self._anew = False
            self._take_back(now, "it is not wanted any more" if not is_wanted else "it is wanted otherwise")
        self._marks = marks
        if is_wanted != self._wanted:
            for pipeline in self._pipelines:
                pipeline.want_unfinished(is_wanted)
            self._wanted = is_wanted
            is_old = True
            self._report = self._described() if is_wanted or self._done else None
        if is_old:
            for pipeline in self._pipelines:
                pipeline.take_unfinished()  # what was told before was judged by other settings
        if self._finisher is not None and now.steady - self._busy > IDLE_SECONDS:
            self._take_back(now, "there is nobody to finish for")
        if self._finisher is not None and intent and intent.selection:
            self._attached.look(self._finisher, intent.selection.interface, now)

    def _is_ready(self, now: Now) -> bool:
        """Whether the program is in the kernel and somewhere attached; it is put there, if it can be."""
        intent = self._intent
        if intent is None or intent.selection is None:
            return False
        if self._finisher is None:
            if now.steady - self._refused < RETRY_SECONDS:
                return False
            from fixer.kernel.finisher import Finisher  # only here: whoever does not want it does not pay for it

            try:
                self._finisher = Finisher()
            except (OSError, ValueError) as error:
                self._refused = now.steady
                todo = "; the daemon needs CAP_BPF, see docs/kernel.md" if isinstance(error, PermissionError) else ""
                self._complain(f"this kernel does not take the program: {error}{todo}")
                return False
            self._trouble = ""
            self._attached.look(self._finisher, intent.selection.interface, now)
        return bool(self._attached)

    def _complain(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self._say(told.event("kernel-failed", f"{trouble}; what is unfinished goes through the queue"))

    def _confirm(self, key: bytes, outers: int, now: Now) -> None:
        """A packet was judged unfinished: its like may be finished for LIVES seconds, if it is wanted for so long."""
        if self._finisher is None or self._intent is None:
            return
        lives = LIVES
        if self._intent.until is not None:
            lives = min(lives, (self._intent.until - self._host.now()).total_seconds())
        if lives <= 0:
            return
        steady = int(now.steady * _SECOND)
        # A way of the outer field that was seen once is no evidence for as long as the entry is renewed by another one.
        ways = {way: until for way, until in self._confirmed.get(key, {}).items() if until > now.steady}
        ways |= {way: now.steady + lives for way in self._finisher.WAYS if outers & way}
        deadline, sample = steady + int(lives * _SECOND), steady + int(SAMPLE_SECONDS * _SECOND)
        try:
            there = self._finisher.put(
                key,
                sum(ways),
                deadline=deadline,
                sample=sample,
                interval=int(SAMPLE_SECONDS * _SECOND),
                marks=self._marks,
            )
        except OSError as error:
            self._complain(f"the kernel takes no entry: {error.strerror}")
            return
        if not there:
            return
        self._confirmed[key] = ways
        self._deadlines[key] = now.steady + lives
        self._busy = now.steady
        source = source_of(key)
        if now.steady - self._begun.get(source, float("-inf")) > SILENT_SECONDS:
            where = ", ".join(f"{name} ({how})" for name, how in sorted(self._attached.interfaces().items()))
            how = ", marking them as verified: the overlay is said to end here" if self._marks else ""
            message = f"the kernel finishes the packets of VTEP {source}, on {where}{how}"
            self._say(told.event("kernel-began", message, told.of_vtep(source) | told.at(*self._attached.interfaces())))
        self._begun[source] = now.steady

    def _forget(self, now: Now) -> None:
        """Take out what has ended; and say so of a VTEP of which nothing is left for a while."""
        for key in [key for key, deadline in self._deadlines.items() if now.steady >= deadline]:
            self._drop(key)
        living = {source_of(key) for key in self._deadlines}
        over = [source for source, when in self._begun.items() if now.steady - when > SILENT_SECONDS]
        for source in over:
            if source not in living:
                self._say_ended(source, "no packet of it was unfinished lately")

    def _say_ended(self, source: str, why: str) -> None:
        del self._begun[source]
        packets = self._done[source]
        message = f"the kernel finishes nothing of VTEP {source} any more ({packets:,} packets): {why}"
        self._say(told.event("kernel-ended", message, told.of_vtep(source, packets)))

    def _drop(self, key: bytes) -> None:
        del self._deadlines[key]
        self._confirmed.pop(key, None)
        if self._finisher is not None:
            with suppress(OSError):  # it has ended at its deadline, whether or not it can be taken out
                self._done[source_of(key)] += self._finisher.drop(key).packets
        if len(self._done) > _NAMED:  # who made it most packets stays named
            least = min((source for source in self._done if source), key=self._done.__getitem__)
            self._done[""] += self._done.pop(least)

    def _take_back(self, now: Now, why: str) -> None:
        """Nothing of ours is in the kernel any more."""
        self._attached.close()
        for key in list(self._deadlines):
            self._drop(key)
        for source in list(self._begun):
            self._say_ended(source, why)
        if self._finisher is not None:
            with suppress(OSError):
                self._left = left_of(self._finisher, self._left)
            self._finisher.close()
            self._finisher = None
        self._busy = now.steady
        self._report = self._described() if self._done else None

    _left: dict[str, int] = {}  # noqa: RUF012 - replaced, never changed
    """What programs that are gone have left to the queue."""

    def _described(self) -> InKernel:
        by_vtep = self._done.copy()
        left = self._left
        if self._finisher is not None:
            with suppress(OSError):
                for key in self._deadlines:
                    by_vtep[source_of(key)] += self._finisher.finished(key).packets
                left = left_of(self._finisher, left)
        most = sorted(filter(None, by_vtep), key=lambda source: -by_vtep[source])[:_SHOWN]
        return InKernel(
            wanted=self._wanted,
            overlay_ends_here=self._marks,
            interfaces=self._attached.interfaces(),
            ahead=self._attached.ahead(),
            envelopes=len(self._deadlines),
            packets=sum(by_vtep.values()),
            vteps={source: by_vtep[source] for source in most},
            left=left,
            trouble=self._trouble or self._attached.trouble,
        )


def left_of(finisher: Finisher, before: dict[str, int]) -> dict[str, int]:
    """What looked unfinished and was left to the queue, ``before`` and by this program, by why."""
    return {name: before.get(name, 0) + count.packets for name, count in finisher.left().items()}


def source_of(key: bytes) -> str:
    """The VTEP that a key is about, as text."""
    version = int.from_bytes(key[38:40], "little")
    return str(ip_address(key[12:16] if version == 4 else key[:16]))
