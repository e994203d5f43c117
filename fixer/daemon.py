"""``fixer run``: configuration, queue, datapath and log put together, until a signal says stop.

Three threads: the queue's (without the GIL, it never waits for the others), the log's, and this one, which waits for
signals and once a second writes down what ``fixer status`` reads.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
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
LOG_SECONDS = 2.0
"""How long a stop waits for the rest of the log to be written."""


def run(settings: Settings, host: Host) -> int:
    """Serve one queue in the calling thread's network namespace until SIGTERM, SIGINT or SIGHUP. Returns the exit code.

    Raises :class:`NotPermitted`, :class:`QueueBusy`, :class:`KernelLacks` or :class:`SystemRefused` before anything was
    changed.
    """
    # Blocked before any thread begins: only `sigtimedwait` below ever sees them, and a stop during start-up is kept.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    pipeline = Pipeline(**settings.datapath())
    matched = rules.rule_packets(host, settings.queue.number)
    queue = bound_queue(settings, host, pipeline)
    report = Report(report_path(host, settings.queue.number), settings, pipeline, queue, matched)
    log = events.logger(sys.stdout)
    teller = events.Teller(pipeline, log)
    failure: list[BaseException] = []
    server = threading.Thread(target=serve, args=(queue, failure), name="queue")
    server.start()
    teller.start()
    log.info(
        f"serving queue {settings.queue.number}" + (", changing nothing" if settings.monitor else ""),
        **events.state_change(
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
    if trouble := report.write():
        log.warning(
            f"fixer status will not show what the daemon counted: {report.path} cannot be written: {trouble.strerror}",
            **events.state_change("degraded"),
        )
    received = None
    while server.is_alive() and received is None:
        received = signal.sigtimedwait(STOP_SIGNALS, 1.0)
        report.write()
    queue.stop()
    server.join()
    report.remove()
    teller.finish(LOG_SECONDS)
    counters: dict[str, Any] = {
        f"fixer.counters.{name}": value for name, value in (pipeline.counters() | queue.counters()).items()
    }
    if failure:
        log.error(f"the queue failed: {failure[0]}", **events.state_change("failed", **counters))
        return SystemRefused.exit_code
    why = signal.Signals(received.si_signo).name if received else "the queue ended"
    log.info(f"stopped: {why}; every packet held was answered", **events.state_change("stopped", **counters))
    return 0


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
