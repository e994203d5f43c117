"""``fixer run``: configuration, queue, datapath and log put together, until a signal says stop.

Three threads: the queue's (without the GIL, it never waits for the others), the log's, and this one, which waits for
signals and once a second writes down what ``fixer status`` reads.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from fixer.config import Settings
from fixer.datapath.pipeline import Pipeline
from fixer.errors import KernelLacks, NotPermitted, QueueBusy, SystemRefused
from fixer.nfqueue.queue import Queue
from fixer.node import rules
from fixer.node.host import NET, Host
from fixer.node.status import report_path
from fixer.telemetry import events
from fixer.telemetry.report import Report

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
REPORT_SECONDS = 1.0
LOG_SECONDS = 2.0
"""How long a stop waits for the rest of the log to be written."""


def run(settings: Settings, host: Host) -> int:
    """Serve one queue in the calling thread's network namespace until SIGTERM, SIGINT or SIGHUP. Returns the exit code.

    Raises :class:`NotPermitted`, :class:`QueueBusy`, :class:`KernelLacks` or :class:`SystemRefused` before anything was
    changed.
    """
    requests = stop_requests()
    pipeline = Pipeline(**settings.datapath())
    matched = rules.rule_packets(host, settings.queue.number)
    queue = bound_queue(settings, host, pipeline)
    report = Report(report_path(host, settings.queue.number), settings, pipeline, queue, matched)
    teller = events.Teller(pipeline, sys.stdout)
    failure: list[BaseException] = []
    server = threading.Thread(target=serve, args=(queue, failure), name="queue")
    server.start()
    teller.start()
    message, fields = started(settings, queue)
    teller.say("info", message, **fields)
    if trouble := report.write():
        teller.say(
            "warning",
            f"fixer status will not show what this daemon counts: {report.path} cannot be written: {trouble.strerror}",
            **events.state_change("degraded"),
        )
    asked = None
    while server.is_alive() and asked is None:
        report.write()
        with suppress(Empty):
            asked = requests.get(timeout=REPORT_SECONDS)
    queue.stop()
    server.join()
    report.remove()

    counters = {f"fixer.counters.{name}": value for name, value in (pipeline.counters() | queue.counters()).items()}
    if failure:
        code = SystemRefused.exit_code
        teller.say("error", f"the queue failed: {failure[0]}", **events.state_change("failed", **counters))
    else:
        code = 0
        message = f"stopped by {asked}; what was held is answered"
        teller.say("info", message, **events.state_change("stopped", **counters))
    if not teller.finish(LOG_SECONDS):
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


def started(settings: Settings, queue: Queue) -> tuple[str, dict[str, Any]]:
    """Message and fields of the line that says the queue is served from now on."""
    return (
        f"serving queue {settings.queue.number}" + (", changing nothing" if settings.monitor else ""),
        events.state_change(
            "started",
            **{
                "process.pid": os.getpid(),
                "fixer.queue": settings.queue.number,
                "fixer.monitor": settings.monitor,
                "fixer.plain": settings.plain,
                "fixer.ports": list(settings.vxlan.ports),
                "fixer.fail_open": queue.flags["fail_open"],
            },
        ),
    )


def serve(queue: Queue, failure: list[BaseException]) -> None:
    """The queue's thread; what ends it other than `stop` is handed over in ``failure``."""
    try:
        queue.run()
    except BaseException as error:  # whatever it is, the main thread must learn of it and end the process
        failure.append(error)


def bound_queue(settings: Settings, host: Host, pipeline: Pipeline) -> Queue:
    """The queue, bound and configured; or the reason why not, as an error that says whose fault it is."""
    number = settings.queue.number
    if not host.has_net_admin():
        raise NotPermitted("binding a queue needs root (CAP_NET_ADMIN): run this as root, or with sudo")
    queue = Queue(pipeline, number)
    try:
        queue.bind(
            length=settings.queue.length,
            receive_buffer=settings.queue.receive_buffer,
            fail_open=settings.queue.fail_open,
        )
    except OSError as error:
        table = host.read(f"{NET}/netfilter/nfnetlink_queue")
        if table is None:
            raise KernelLacks(
                "this kernel has no NFQUEUE: modprobe nfnetlink_queue, or take one with CONFIG_NETFILTER_NETLINK_QUEUE"
            ) from error
        if any(line.split()[:1] == [str(number)] for line in table.splitlines()):
            raise QueueBusy(
                f"queue {number} is held by another process; see fixer status, or choose another with --queue N"
            ) from error
        raise SystemRefused(f"the kernel refused queue {number}: {error}") from error
    return queue
