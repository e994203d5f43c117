"""``fixer run``: configuration, queue, datapath and log put together, until a signal says stop.

Threads: one for each queue (without the GIL, it never waits for the others), the log's, and this one, which waits for
signals and once a second writes down what ``fixer status`` reads.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle, islice
from queue import Empty, SimpleQueue
from typing import NamedTuple

from fixer.config import Settings
from fixer.daemon.report import Reporter
from fixer.datapath.pipeline import Pipeline
from fixer.errors import ConfigWrong, KernelLacks, NotPermitted, QueueBusy, SystemRefused
from fixer.host import queues
from fixer.host.machine import Host
from fixer.nfqueue.queue import Queue
from fixer.now import Now
from fixer.rules import switch as rules
from fixer.state import flowfile
from fixer.state.report import path_of
from fixer.telemetry.flows import FlowWatch
from fixer.telemetry.log import Saying, Teller, state_change
from fixer.telemetry.packets import happened
from fixer.telemetry.snat import SnatWatch

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
REPORT_SECONDS = 1.0
LOG_SECONDS = 2.0
"""How long a stop waits for the rest of the log to be written."""


class Lane(NamedTuple):
    """One queue and the packet path behind it; a thread and a CPU are its own."""

    number: int
    queue: Queue
    pipeline: Pipeline


def run(settings: Settings, host: Host) -> int:
    """Serve the queues in this thread's network namespace until SIGTERM, SIGINT or SIGHUP; returns the exit code.

    Raises :class:`NotPermitted`, :class:`QueueBusy`, :class:`KernelLacks` or :class:`SystemRefused` before anything was
    changed.
    """
    requests = stop_requests()
    matched = rules.rule_packets(host, settings.queue.number)
    opened = opened_flows(settings, host)
    lanes = bound_lanes(settings, host, opened)
    flows = opened.flows if opened else None
    report = Reporter(path_of(host, settings.queue.number), settings, lanes, matched, flows)
    pipelines = [lane.pipeline for lane in lanes]
    teller = Teller(lambda: happened(pipelines), sys.stdout)
    failures: list[BaseException] = []
    threads = [
        threading.Thread(target=serve, args=(lane.queue, cpu, failures), name=f"queue {lane.number}")
        for lane, cpu in zip(lanes, cpus_of(settings, len(lanes)), strict=True)
    ]
    for thread in threads:
        thread.start()
    teller.start()
    teller.say(started(settings, lanes))
    if trouble := report.write():
        teller.say(state_change("degraded", f"fixer status will not show what this daemon counts: {trouble}"))
    watch = FlowWatch(flows, lanes[-1].pipeline) if flows else None
    if opened and watch:
        for said in watch.at_start(opened.taken, opened.warnings):
            teller.say(said)
    snat = SnatWatch(pipelines)
    asked = None
    while all(thread.is_alive() for thread in threads) and asked is None:
        report.write()
        now = Now.read()
        for said in (*(watch.news(now) if watch else ()), *snat.news(now)):
            teller.say(said)
        with suppress(Empty):
            asked = requests.get(timeout=REPORT_SECONDS)
    for lane in lanes:
        lane.queue.stop()
    for thread in threads:
        thread.join()
    report.remove()
    for said in watch.at_stop() if watch else ():
        teller.say(said)

    counters = {f"fixer.counters.{name}": value for name, value in report.counters().items()}
    if failures:
        code, last = SystemRefused.exit_code, state_change("failed", f"a queue failed: {failures[0]}", counters)
    else:
        code, last = 0, state_change("stopped", f"stopped by {asked}; what was held is answered", counters)
    if not teller.finish(LOG_SECONDS, last):
        # Nobody reads the log, or it cannot be written: the interpreter would wait for that write, or try it again.
        os._exit(code)
    return code


def stop_requests() -> SimpleQueue[str]:
    """The names of STOP_SIGNALS as they come in, from now on.

    `SimpleQueue.put` may be called in a handler, which `Event.set` may not; and `signal.sigtimedwait` returns a signal
    that never was after a SIGSTOP longer than its time-out.
    """
    requests: SimpleQueue[str] = SimpleQueue()
    for number in STOP_SIGNALS:
        signal.signal(number, lambda number, _frame: requests.put(signal.Signals(number).name))
    return requests


def started(settings: Settings, lanes: Sequence[Lane]) -> Saying:
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
            "fixer.queue": [lane.number for lane in lanes],
            "fixer.timestamps.mode": settings.timestamps.mode,
            "fixer.monitor": settings.monitor,
            "fixer.plain": settings.plain,
            "fixer.ports": list(settings.vxlan.ports),
            "fixer.fail_open": lanes[0].queue.flags["fail_open"],
            "fixer.gso": lanes[0].queue.flags["gso"],
        },
    )


def cpus_of(settings: Settings, lanes: int) -> Sequence[int | None]:
    """A CPU for each queue's thread: the configured ones; else, with several queues, those we may use, in turn.

    The queue of what is normalised is beside those that packets are spread over: its thread may run anywhere.
    """
    count = settings.queue.count
    beside = [None] * (lanes - count)
    if settings.queue.cpus or count == 1:
        return [*(settings.queue.cpus or [None]), *beside]
    return [*islice(cycle(sorted(os.sched_getaffinity(0))), count), *beside]


def serve(queue: Queue, cpu: int | None, failures: list[BaseException]) -> None:
    """A queue's thread; what ends it other than `stop` is handed over in ``failures``."""
    try:
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})  # of this thread alone
        queue.run()
    except BaseException as error:  # whatever it is, the main thread must learn of it and end the process
        failures.append(error)


def opened_flows(settings: Settings, host: Host) -> flowfile.Opened | None:
    """The flow table, if timestamps are normalised; what a daemon before us left in it is there."""
    if settings.timestamps.mode != "normalise":
        return None
    if not host.has_net_admin():
        raise NotPermitted("binding a queue needs root (CAP_NET_ADMIN): run this as root, or with sudo")
    return flowfile.open_flows(flowfile.path_of(host, settings.queue.number), settings.timestamps.flows)


def bound_lanes(settings: Settings, host: Host, opened: flowfile.Opened | None) -> list[Lane]:
    """All queues, bound and configured, or none and the reason why not. Last, if flows are opened, the one for them."""
    if not host.has_net_admin():
        raise NotPermitted("binding a queue needs root (CAP_NET_ADMIN): run this as root, or with sudo")
    if missing := set(settings.queue.cpus) - os.sched_getaffinity(0):
        raise ConfigWrong(f"queue.cpus: CPU {min(missing)} is not one this process may use: see taskset and nproc")
    lanes: list[Lane] = []
    try:
        for number in settings.queue.numbers:
            pipeline = Pipeline(**settings.datapath())
            lanes.append(Lane(number, bound_queue(settings, host, number, pipeline, settings.queue.gso), pipeline))
        if opened:
            number = settings.timestamps_queue
            pipeline = Pipeline(**settings.datapath() | {"timestamps": "normalise", "flows": opened.flows})
            # Without GSO: a merged packet cannot be given back changed.
            lanes.append(Lane(number, bound_queue(settings, host, number, pipeline, gso=False), pipeline))
    except BaseException:
        for lane in lanes:
            lane.queue.release()
        raise
    return lanes


def bound_queue(settings: Settings, host: Host, number: int, pipeline: Pipeline, gso: bool) -> Queue:
    """One queue; or the reason why not, as an error that says whose fault it is."""
    queue = Queue(pipeline, number)
    try:
        queue.bind(
            length=settings.queue.length,
            receive_buffer=settings.queue.receive_buffer,
            fail_open=settings.queue.fail_open,
            gso=gso,
        )
    except OSError as error:
        if not queues.are_there(host):
            raise KernelLacks(
                "this kernel has no NFQUEUE: modprobe nfnetlink_queue, or take one with CONFIG_NETFILTER_NETLINK_QUEUE"
            ) from error
        if number in queues.bound(host):
            raise QueueBusy(
                f"queue {number} is held by another process; see fixer status, or choose another with --queue N"
            ) from error
        raise SystemRefused(f"the kernel refused queue {number}: {error}") from error
    return queue
