"""Lanes: a queue, the packet path behind it, and the thread that serves the two; bound all together or not at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from itertools import cycle, islice

from fixer.config import Settings
from fixer.datapath.flows import Flows
from fixer.datapath.pipeline import Pipeline
from fixer.errors import ConfigWrong, KernelLacks, QueueBusy, SystemRefused
from fixer.host import queues
from fixer.host.machine import Host
from fixer.kernel import confined
from fixer.nfqueue.queue import Queue


class Lane(threading.Thread):
    """One queue, bound, with a pipeline and a thread of its own: without the GIL it never waits for the others."""

    def __init__(self, queue: Queue, number: int, pipeline: Pipeline, cpu: int | None) -> None:
        super().__init__(name=f"queue {number}")
        self.number = number
        self.queue = queue
        self.pipeline = pipeline
        self.failure: BaseException | None = None
        """What ended it, if it was not :meth:`stop`."""
        self.confined: tuple[str, ...] = ()
        """What holds its thread, once that has begun."""
        self._cpu = cpu

    def run(self) -> None:
        try:
            if self._cpu is not None:
                os.sched_setaffinity(0, {self._cpu})  # of this thread alone
            self.confined = confined.packet_thread()
            self.queue.run()
        except BaseException as error:  # whatever it is, the main thread must learn of it and end the process
            self.failure = error

    def stop(self) -> None:
        """Have it answer what the queue holds and end; new packets pass from now on. Does not wait."""
        self.queue.stop()


def bind(settings: Settings, host: Host, flows: Flows | None) -> list[Lane]:
    """All lanes, their queues bound and configured, or none and the reason why not.

    With ``flows`` the last one is for what is normalised. Raises :class:`ConfigWrong` and what :func:`bound` does.
    """
    if missing := set(settings.queue.cpus) - os.sched_getaffinity(0):
        raise ConfigWrong(f"queue.cpus: CPU {min(missing)} is not one this process may use: see taskset and nproc")
    paths = pipelines(settings, flows)
    lanes: list[Lane] = []
    try:
        for number, cpu, path in zip(settings.queue.numbers, cpus_of(settings), paths, strict=False):
            lanes.append(Lane(bound(settings, host, number, path, settings.queue.gso), number, path, cpu))
        if flows is not None:
            number, path = settings.timestamps_queue, paths[-1]
            # Without GSO: a merged packet cannot be given back changed. It is beside the queues that packets are spread
            # over, so its thread may run anywhere.
            lanes.append(Lane(bound(settings, host, number, path, gso=False), number, path, None))
    except BaseException:
        for lane in lanes:
            lane.queue.release()
        raise
    return lanes


def pipelines(settings: Settings, flows: Flows | None) -> list[Pipeline]:
    """A packet path for each lane; with ``flows`` the last one is for what is normalised."""
    ordinary = [Pipeline(**settings.datapath()) for _ in settings.queue.numbers]
    if flows is None:
        return ordinary
    return [*ordinary, Pipeline(**settings.datapath() | {"timestamps": "normalise", "flows": flows})]


def bound(settings: Settings, host: Host, number: int, pipeline: Pipeline, gso: bool) -> Queue:
    """One queue; or :class:`KernelLacks`, :class:`QueueBusy` or :class:`SystemRefused`, by what the kernel shows."""
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


def cpus_of(settings: Settings) -> Sequence[int | None]:
    """A CPU for each ordinary queue: the configured ones; else, with several queues, those we may use, in turn."""
    count = settings.queue.count
    if settings.queue.cpus or count == 1:
        return settings.queue.cpus or [None]
    return list(islice(cycle(sorted(os.sched_getaffinity(0))), count))
