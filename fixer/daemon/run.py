"""``fixer run``: settings, lanes, log and chores put together, until a signal says stop.

Threads: one for each lane, the log's, the guard's, the one that has the kernel finish packets, and this one, which
waits for signals and does the chores meanwhile.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue

from fixer.config import Settings
from fixer.daemon import chores, lanes, notify
from fixer.daemon.chores import Chores
from fixer.daemon.exposition import Exposition
from fixer.daemon.finishing import Finishing
from fixer.daemon.guard import Guard
from fixer.daemon.lanes import Lane
from fixer.daemon.metering import Meter
from fixer.daemon.notify import Watchdog
from fixer.daemon.reload import reload
from fixer.daemon.report import Reporter
from fixer.daemon.standing import Standing
from fixer.errors import FixerError, NotPermitted, SystemRefused
from fixer.findings.wire import Wire, watch
from fixer.host.machine import Host
from fixer.now import Now
from fixer.rules import switch
from fixer.state import flowfile, report
from fixer.state.samples import Samples
from fixer.telemetry import outputs
from fixer.telemetry.events import Saying, state_change
from fixer.telemetry.log import Origin, Output, Teller
from fixer.telemetry.packets import happened

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
FINISHING_SECONDS = 2.0
"""How long a stop waits for the kernel to be left as it was."""
LOG_SECONDS = 2.0
"""How long a stop waits for the rest of the log to be written."""


def run(
    settings: Settings,
    host: Host,
    again: Callable[[], Settings],
    *,
    keeps: bool = True,
    show: Callable[[Saying], None] | None = None,
) -> int:
    """Serve the queues in this thread's network namespace until SIGTERM or SIGINT; returns the exit code.

    ``again`` reads the settings anew, for SIGHUP, or raises what reading them raises. ``keeps``: whether the
    rule that is wanted is put back when somebody else removes it. ``show`` shows people each line of the log, which
    then does not go to standard output itself.

    Raises :class:`NotPermitted` and what :func:`fixer.daemon.lanes.bind` and :func:`fixer.state.flowfile.open_flows` do
    before anything was changed.
    """
    signals = received_signals()
    if not host.has_net_admin():
        raise NotPermitted("binding a queue needs root (CAP_NET_ADMIN): run this as root, or with sudo")
    output = opened_log(settings) if not show or settings.log.to != outputs.STDOUT else None
    opened = opened_flows(settings, host)
    flows = opened.flows if opened else None
    serving = lanes.bind(settings, host, flows)
    pipelines = [lane.pipeline for lane in serving]
    standing = Standing(settings.monitor)
    origin = Origin(settings.log.namespace, settings.log.labels, settings.log.tags)
    teller = Teller(lambda: noted(happened(pipelines), standing), output, origin, show)
    finishing = Finishing(settings, host, pipelines, teller.say)
    path = report.path_of(host, settings.queue.number)
    reporter = Reporter(path, settings, serving, flows, finishing.report, teller.counters)
    wire = Wire(watch(pipelines), monitor=settings.monitor)
    samples = Samples(host, settings.queue.number)
    guard = Guard(settings, host, teller.say, keeps=keeps)
    meter = Meter(settings, host, reporter, teller, guard)
    beside = Chores(reporter, standing, serving, opened, meter, wire, samples, teller.say)
    shown = exposed(settings, meter, teller, serving)
    bites = notify.watchdog_seconds()
    watchdog = Watchdog(serving, bites) if bites else None

    def hung_up() -> None:
        nonlocal settings
        notify.reloading()
        try:
            wanted = again()
            keys = reload(settings, wanted, serving, flows)
        except FixerError as error:
            standing.refused = str(error)
            teller.say(state_change("not-reloaded", f"the configuration stays as it was: {error}"))
        else:
            settings, standing.refused, standing.monitor = wanted, "", wanted.monitor
            wire.monitor = wanted.monitor
            reporter.serve_by(settings)
            guard.serve_by(settings)
            finishing.serve_by(settings)
            teller.say(reloaded(keys))
        notify.ready()

    try:
        for lane in serving:
            lane.start()
        reporter.count_from(switch.rule_packets(host, settings.queue.number))
        teller.start()
        teller.say(started(settings, serving))
        beside.begin()
        guard.begin()
        guard.start()
        shown.start()
        finishing.start()
        notify.ready()
        if watchdog:
            watchdog.start()
        asked = wait(signals, serving, beside, hung_up)
        notify.stopping()
    finally:  # whatever went wrong here: what is held is answered, and no thread is left that keeps the process
        guard.stop()
        finishing.stop()
        for lane in serving:
            lane.stop()
        for lane in serving:
            if lane.is_alive():
                lane.join()
        if finishing.is_alive():
            finishing.join(FINISHING_SECONDS)  # else its entries end by themselves
        if watchdog:
            watchdog.stop()
        shown.stop()
    beside.end()

    counted = reporter.counters() | {"log": teller.counters()}
    counters = {f"fixer.counters.{name}": value for name, value in counted.items()}
    if failures := [lane.failure for lane in serving if lane.failure]:
        code, last = SystemRefused.exit_code, state_change("failed", f"a queue failed: {failures[0]}", counters)
    else:
        code, last = 0, state_change("stopped", f"stopped by {asked}; what was held is answered", counters)
    if not teller.finish(LOG_SECONDS, last):
        # Nobody reads the log, or it cannot be written: the interpreter would wait for that write, or try it again.
        os._exit(code)
    return code


def received_signals() -> SimpleQueue[str]:
    """The names of SIGNALS as they come in, from now on.

    `SimpleQueue.put` may be called in a handler, which `Event.set` may not; and `signal.sigtimedwait` returns a signal
    that never was after a SIGSTOP longer than its time-out.
    """
    signals: SimpleQueue[str] = SimpleQueue()
    for number in SIGNALS:
        signal.signal(number, lambda number, _frame: signals.put(signal.Signals(number).name))
    return signals


def opened_log(settings: Settings) -> Output:
    """Where the log goes. Raises :class:`SystemRefused`: a log that was asked for and can never be is a mistake."""
    try:
        return outputs.opened(settings.log.to)
    except OSError as error:
        raise SystemRefused(f"log.to: {settings.log.to} cannot be written: {error.strerror}") from None


def exposed(settings: Settings, meter: Meter, teller: Teller, serving: Sequence[Lane]) -> Exposition:
    """What others may scrape. Raises :class:`SystemRefused`, and then nothing is bound any more."""
    try:
        return Exposition(settings.metrics, meter, teller.delay, teller.say)
    except SystemRefused:
        for lane in serving:
            lane.queue.release()
        raise


def opened_flows(settings: Settings, host: Host) -> flowfile.Opened | None:
    """The flow table, if timestamps are normalised; what a daemon before us left in it is there."""
    if settings.timestamps.mode != "normalise":
        return None
    return flowfile.open_flows(flowfile.path_of(host, settings.queue.number), settings.timestamps.flows)


def noted(happened: Iterable[Saying], standing: Standing) -> Iterator[Saying]:
    """The same lines, of which :class:`Standing` has taken note."""
    now = Now.read()
    for saying in happened:
        standing.note(saying, now)
        yield saying


def wait(signals: SimpleQueue[str], serving: Sequence[Lane], beside: Chores, hung_up: Callable[[], None]) -> str | None:
    """Do the chores until a signal asks for a stop, whose name is returned, or a lane has ended, and it is None.

    SIGHUP is answered by ``hung_up``: a terminal that is closed must not be the end of the repair.
    """
    while all(lane.is_alive() for lane in serving):
        beside.do(Now.read())
        with suppress(Empty):
            asked = signals.get(timeout=chores.SECONDS)
            if asked != "SIGHUP":
                return asked
            hung_up()
    return None


def reloaded(keys: Sequence[str]) -> Saying:
    """The line that says another configuration is in force, and whether the rule should know of it."""
    line = f"the configuration is read again: {', '.join(keys) or 'nothing'} changed"
    if matter := [key for key in keys if key in ("plain", "vxlan.ports", "timestamps.mode")]:
        line += f"; fixer on takes {' and '.join(matter)} into the rule as well"
    return state_change("reloaded", line, {"fixer.changed": list(keys)})


def started(settings: Settings, serving: Sequence[Lane]) -> Saying:
    """The line that says the queues are served from now on."""
    first, last = settings.queue.numbers[0], settings.queue.numbers[-1]
    which = f"queue {first}" if first == last else f"queues {first} to {last}"
    if settings.timestamps.mode == "normalise":
        which += f", and queue {settings.timestamps_queue} for what is normalised"
    return state_change(
        "started",
        f"serving {which}" + (", changing nothing" if settings.monitor else ""),
        {
            "process.pid": os.getpid(),
            "fixer.queue": [lane.number for lane in serving],
            "fixer.timestamps.mode": settings.timestamps.mode,
            "fixer.monitor": settings.monitor,
            "fixer.plain": settings.plain,
            "fixer.ports": list(settings.vxlan.ports),
            "fixer.fail_open": serving[0].queue.flags["fail_open"],
            "fixer.gso": serving[0].queue.flags["gso"],
        },
    )
