"""The guard: what the operator wants of the rules is done when the daemon starts, and stays so whatever others do.

A thread of its own, for a look is half a dozen processes, and one that waits for a lock may take long. It asks
nf_tables for its events, which cost nothing, and looks when there is one. Where there are none (iptables-legacy) it
asks the kernel for the table itself, four times a second and without a process, and looks when that is another.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from msgspec.structs import replace

from fixer.config import Settings
from fixer.daemon.lost import NO_INTERFACE, Loss, losses
from fixer.daemon.outgoing import Outgoing
from fixer.errors import FixerError, KernelLacks, NotPermitted, ProgramMissing
from fixer.host import interfaces, xtables
from fixer.host.machine import Host
from fixer.host.operator import operator
from fixer.host.ruleset import Events, Process
from fixer.now import Now
from fixer.rules import switch, wanted
from fixer.rules.installed import Installed
from fixer.rules.selection import FAMILIES, Family, Selection
from fixer.rules.wanted import Intent
from fixer.state import place
from fixer.telemetry import rules as told
from fixer.telemetry.events import Saying, state_change

LOOK_SECONDS = 1.0
"""Between two looks at what is wanted; and at the rules, where nobody tells whether they have changed."""
LEGACY_SECONDS = 0.25
"""Between two questions whether a raw table of iptables-legacy has changed, where there is one."""
PAUSE_SECONDS = 0.5
"""At least so long between two looks, however many events there are."""
ANYWAY_SECONDS = 10.0
"""Between two looks at the rules although there was no event."""
MOST, MOST_SECONDS = 5, 60.0
"""So often in so many seconds the guard puts the rule back, then it stops: somebody else is as stubborn."""


class Guard(threading.Thread):
    """One daemon's, for the rule that leads to its queues, in the network namespace of whoever starts it."""

    def __init__(self, settings: Settings, host: Host, say: Callable[[Saying], None], *, keeps: bool = True) -> None:
        """``say`` takes a line for the log and does not wait. Unless it ``keeps``, what is wanted is only told."""
        super().__init__(name="guard", daemon=True)
        self._settings = settings
        self._host = host
        self._say = say
        self._keeps = keeps
        self._over = threading.Event()
        self._events: Events | None = None
        self._last: Intent | None = None
        self._packets: dict[str, int | None] = {}
        self._put_back: deque[float] = deque()
        self.lost = 0
        """Times that somebody else had removed or changed the rule …"""
        self.put_back = 0
        """… and that it was put right."""
        self.has_stopped = False
        """Whether it was put back too often, and is not again."""
        self._is_without_interface = False
        self._complained = ""
        self._looked = 0.0
        self._legacy: tuple[bytes | None, ...] = ()
        self._outgoing = Outgoing(settings, host, say)

    def serve_by(self, settings: Settings) -> None:
        """A reload: its queues are the same."""
        self._outgoing.serve_by(settings)

    def begin(self) -> None:
        """Once the queues are bound: do what is wanted. Whatever is in the way, packets are served."""
        try:
            self._last = wanted.read(self._host)
            if self._last is None and self._settings.rule.at_boot:
                selection = Selection.of(self._settings)
                wanted.on(self._host, selection, by=operator(self._host), reason="rule.at_boot")
                self._last = wanted.read(self._host)
            elif self._is_ours(self._last):
                wanted.obey(self._host)
            self._outgoing.follow(self._last)
        except NotPermitted:
            pass  # iptables-legacy, and a user that is not root: whether it is there nobody knows, which `look` says
        except FixerError as error:
            self._say(state_change("degraded", f"the rule that is wanted is not in place: {error}"))

    def stop(self) -> None:
        """Have it end soon. Does not wait: it may be waiting for somebody's lock."""
        self._over.set()

    def run(self) -> None:
        self._events = _events()
        try:
            while not self._over.is_set():
                if self._events:
                    self._events.wait(LEGACY_SECONDS if any(self._legacy) else LOOK_SECONDS)
                    news = self._events.news()
                else:
                    self._over.wait(LOOK_SECONDS)
                    news = None
                if not self._over.is_set() and self.look(Now.read(), news) and self._events:
                    # Others who change rules all the time must not keep an operator from the lock.
                    self._over.wait(PAUSE_SECONDS)
        finally:
            self._outgoing.close()
            if self._events:
                self._events.close()

    def look(self, now: Now, news: list[Process] | None) -> bool:
        """What was said since the last look is told; and the rules are put right, if there is reason to look at them:
        whether there was.

        ``news``: who has changed the ruleset since then; None: that cannot be told.
        """
        is_due = False
        try:
            intent = wanted.read(self._host)
            self._outgoing.follow(intent)
            self._tell(intent)
            self._tell_of_interface(intent)
            is_due = self._is_ours(intent) and self._is_due(now, news)
            if is_due:
                self._looked = now.steady
                with place.locked(self._host):  # or what an operator is about to do would look like a loss
                    self._put_right(now, news[-1] if news else None)
            self._complained = ""
        except FixerError as error:
            self._legacy = ()  # tried again at the next look
            if str(error) != self._complained:
                self._complained = str(error)
                self._say(told.event("guard-failed", f"the rules cannot be guarded: {error}"))
        return is_due

    def _is_ours(self, intent: Intent | None) -> bool:
        """Whether it is about our queues, and about rules that are or were to be in place."""
        return (
            intent is not None
            and intent.on
            and intent.selection is not None
            and (intent.selection.queue == self._settings.queue.number)
        )

    def _is_due(self, now: Now, news: list[Process] | None) -> bool:
        # What it is now is asked first: a change while the rules are looked at is another one.
        has_changed = self._has_legacy_changed(now)
        return news is None or bool(news) or has_changed or now.steady - self._looked >= ANYWAY_SECONDS

    def _has_legacy_changed(self, now: Now) -> bool:
        """Whether there are other rules than at the last question where there are no events: ours, or others'."""
        try:
            before, self._legacy = self._legacy, xtables.digests(self._host)
        except NotPermitted:  # a service that is nobody may not read which tables there are, but knows of ours
            return now.steady - self._looked >= LOOK_SECONDS and self._wrote_legacy()
        except OSError:
            return now.steady - self._looked >= LOOK_SECONDS
        return before != self._legacy

    def _wrote_legacy(self) -> bool:
        return any("legacy" in each.backend for each in switch.remembered(self._host).written.values())

    def _tell_of_interface(self, intent: Intent | None) -> None:
        """A rule for an interface that was renamed or removed takes nothing: whose it is now only an operator knows."""
        interface = intent.selection.interface if intent and intent.selection else None
        lacks = self._is_ours(intent) and interface is not None and not interfaces.is_there(self._host, interface)
        if lacks and not self._is_without_interface:
            what = f"the rule is for what arrives on {interface}, and there is no such interface"
            self._say(told.event("rule-lost", f"{what}: fixer on --interface IF", {"fixer.rule.lost": [NO_INTERFACE]}))
        self._is_without_interface = lacks

    def _tell(self, intent: Intent | None) -> None:
        """What the operator has said since the last look."""
        before, self._last = self._last, intent
        if intent is None or intent == before:
            return
        self.has_stopped = False
        self._put_back.clear()
        if before and replace(intent, said=None) == replace(before, said=None):
            return  # the same once more
        packets = switch.rule_packets(self._host, self._settings.queue.number)
        fields = told.who_and_why(intent.by.user, intent.by.login, intent.by.sudo, intent.reason)
        fields |= told.counted("before", self._packets) | told.counted("after", packets)
        self._packets = packets
        start = before.since if before and before.on else intent.since
        fields |= told.how_long(start, intent.until, self._host.now())
        if not intent.on:
            if before and before.on:
                self._say(told.event("rule-off", f"off, as {intent.by} wanted", fields))
        elif before and before.on and before.until != intent.until:
            end = f"until {intent.until.isoformat()}" if intent.until else "without an end"
            self._say(told.event("rule-prolonged", f"on {end}, as {intent.by} wanted", fields))
        else:
            self._say(told.event("rule-on", f"on, as {intent.by} wanted", fields))

    def _put_right(self, now: Now, process: Process | None) -> None:
        """The rules as they are wanted: put back, or removed when their time is over."""
        intent = wanted.read(self._host)
        if intent is None or intent.selection is None or not self._is_ours(intent):
            return
        self._packets = switch.rule_packets(self._host, self._settings.queue.number)
        found = {family: _look(self._host, family) for family in FAMILIES}
        if intent.is_over(self._host.now()):
            if any(each.is_there for installed in found.values() for each in installed):
                self._end(intent)
        elif self._keeps and not self.has_stopped:
            lost = [loss for family in FAMILIES for loss in losses(family, found[family], intent.selection)]
            if lost:
                # Who has changed it while it was looked at comes later than who made us look.
                later = self._events.news() if self._events else None
                process = later[-1] if later else process
                self._restore(now, intent, lost, process)

    def _end(self, intent: Intent) -> None:
        """The kernel has let it end; what is left of it is removed."""
        switch.off(self._host)
        fields = told.who_and_why(intent.by.user, intent.by.login, intent.by.sudo, intent.reason)
        fields |= told.how_long(intent.since, intent.until, self._host.now()) | told.counted("before", self._packets)
        self._say(told.event("rule-ended", "its time is over: the rule is removed", fields))

    def _restore(self, now: Now, intent: Intent, lost: list[Loss], process: Process | None) -> None:
        """Put the rule back, unless that was done too often of late."""
        while self._put_back and now.steady - self._put_back[0] >= MOST_SECONDS:
            self._put_back.popleft()
        what = "; ".join(map(str, lost))
        by = f", after {process.name} (pid {process.pid}) changed the ruleset" if process and process.name else ""
        fields = told.by_process(process.name, process.pid) if process else {}
        fields["fixer.rule.lost"] = [each.kind for each in lost]
        self.lost += 1
        if len(self._put_back) >= MOST:
            self.has_stopped = True
            message = f"{what}{by}: put back {MOST} times in a minute, and not once more; fixer on begins anew"
            self._say(told.event("guard-stopped", message, fields))
            return
        self._put_back.append(now.steady)
        self._say(told.event("rule-lost", f"{what}{by}", fields))
        wanted.put(self._host, intent)
        self.put_back += 1
        self._say(told.event("rule-put-back", f"put right: {what}", fields))


def _look(host: Host, family: Family) -> list[Installed]:
    try:
        return switch.look(host, family)
    except (KernelLacks, ProgramMissing):
        return []


def _events() -> Events | None:
    try:
        return Events()
    except OSError:
        return None
