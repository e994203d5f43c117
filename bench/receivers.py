"""Who listens at the receiving host, and the rule that feeds it. All listen at once; the rule says whose turn it is."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

from fixer.host.machine import Host
from fixer.kernel.attachment import Attachment
from fixer.kernel.finisher import Finisher
from fixer.lab import net
from fixer.state import flowfile, report

from .cable import OVERLAY, PORT, Cable, Run, must, wait_until

HERE = Path(__file__).parent
FIXER = (sys.executable, "-m", "fixer")
TRANSLATED_SHARE = 0.98  # of the packets of who normalises; what passes a full queue is not translated
CFLAGS = ("-O3", "-Wall", "-Wextra", "-Werror")


@dataclass(frozen=True)
class Receiver:
    """``command``: the listener's words, {queue} its queue's number, {loop} the compiled loop.c; none: no rule.

    ``turn_on`` are the words of the fixer verb that makes its rule; without them it is one plain rule. With several
    ``queues``, a command of fixer serves all of them, of others each is started once for each queue. fixer normalises
    the timestamps of a ``source``, if one is named, on one queue more, the last.
    """

    name: str
    command: tuple[str, ...] = ()
    turn_on: tuple[str, ...] = ()
    queues: int = 1
    source: str = ""
    acts: bool = False
    """Whether its daemon acts by what is wanted, so that the verb itself has to turn it on and off."""

    gated: bool = False
    """Whether every packet meets the program of --scope kernel, which has no entry: what all others pay for it."""

    as_busy: bool = False
    """Whether its sender, which is sound, does the work of the one that is broken here: a real one has none of it."""

    @property
    def translates(self) -> bool:
        """Whether it is the sender whose timestamps are normalised."""
        return self.source == OVERLAY["left"]


class Standing(NamedTuple):
    """A receiver that listens: its processes, its queues, and the raw table that feeds it, for iptables-restore."""

    pids: tuple[int, ...]
    queues: tuple[int, ...]
    table: str


# The rules are changed here by hand, and no guard is to put them back.
RUN = (*FIXER, "run", "--no-guard")
NO_RULE = Receiver("no rule")
CALLBACK = Receiver("callback", (sys.executable, str(HERE / "accept.py"), "{queue}"))
SCAPY = Receiver("scapy", (sys.executable, str(HERE / "recompute.py"), "{queue}"))
LOOP = Receiver("C loop", ("{loop}", "--queue", "{queue}"))
LOOP_GSO = Receiver("C loop, GSO", (*LOOP.command, "--gso"))
LOOP_REPAIRS = Receiver("C loop, repairs", (*LOOP.command, "--repair"))
LOOP_TWICE = Receiver("C loop, twice", LOOP.command, queues=2)
NOBODY_LISTENS = 3
"""How ``fixer on`` ends before ``fixer run`` is there."""

FIXER_ALL = Receiver("fixer", RUN, ("on",))
FIXER_SUSPECTS = Receiver("fixer, suspects", RUN, ("on", "--scope", "suspects"))
FIXER_KERNEL = Receiver("fixer, kernel", RUN, ("on", "--scope", "kernel"), acts=True)
FIXER_MARKS = Receiver("fixer, marks", RUN, ("on", "--scope", "kernel", "--overlay-ends-here"), acts=True)
AS_BUSY = Receiver("sound, sender as busy", as_busy=True)
GATE = Receiver("sound, the gate", gated=True)
FIXER_TWICE = Receiver("fixer, 2 queues", RUN, ("on",), queues=2)
FIXER_NORMALISES = Receiver("fixer, normalises", RUN, ("on",), source=OVERLAY["left"])
# One clock alone is never shifted: the same packets both ways, and none of them changed.
FIXER_UNSHIFTED = Receiver("fixer, delta 0", RUN, ("on",), source=f"{OVERLAY['left']}/32")
FIXER_OTHERS = Receiver("fixer, normalises others", RUN, ("on",), source="192.0.2.1")


def compiled_loop(host: Host, into: Path) -> Path:
    """loop.c, compiled into the directory ``into``; ProgramMissing without a compiler."""
    into.mkdir(parents=True, exist_ok=True)
    loop = into / "loop"
    must(host.run(["cc", *CFLAGS, "-o", str(loop), str(HERE / "loop.c")], seconds=None), "compiling loop.c")
    return loop


@contextmanager
def listening(cable: Cable, receivers: Sequence[Receiver], loop: Path, scratch: Path) -> Iterator[dict[str, Standing]]:
    """All ``receivers`` (but NO_RULE) on ``cable.right``, by name, and no rule in place, while the context lasts.

    Those with the same command are one process. ``scratch`` is a directory for fixer's configuration.
    """
    standing: dict[str, Standing] = {}
    started: dict[tuple[tuple[str, ...], int, str, bool], tuple[tuple[int, ...], tuple[int, ...]]] = {}
    with ExitStack() as undo:
        silent = undo.enter_context(Path(os.devnull).open("w"))
        number = 0
        for receiver in receivers:
            if not receiver.command:
                continue
            kind = receiver.command, receiver.queues, receiver.source, receiver.acts
            if kind not in started:
                queues = tuple(range(number, number + receiver.queues + bool(receiver.source)))
                number += len(queues)
                pids = []
                if receiver.source:  # what outlives a daemon is of no use to a namespace that will be gone
                    undo.callback(cable.right.call(flowfile.path_of, cable.host, queues[0]).unlink, missing_ok=True)
                for command in commands(receiver, queues, loop, scratch):
                    process = cable.right.start(*command, stdout=silent)
                    undo.callback(net.stop, process)
                    pids.append(process.pid)
                wait_until(partial(bound, cable, queues), f"{receiver.name} to listen")
                started[kind] = tuple(pids), queues
            pids_and_queues = started[kind]
            standing[receiver.name] = Standing(*pids_and_queues, table_of(cable, receiver, pids_and_queues[1], scratch))
        yield standing


def bound(cable: Cable, queues: Sequence[int]) -> bool:
    """Whether somebody listens on all of ``queues``."""
    return set(queues) <= cable.queues().keys()


def commands(receiver: Receiver, queues: Sequence[int], loop: Path, scratch: Path) -> list[list[str]]:
    """What has to be started for ``receiver``, word by word."""
    if receiver.command[: len(FIXER)] == FIXER:
        return [[*receiver.command, "--config", str(configuration(receiver, queues, scratch))]]
    words = [[word.format(queue=queue, loop=loop) for word in receiver.command] for queue in queues]
    if len(queues) == 1:
        return words
    cpus = sorted(os.sched_getaffinity(0))  # a CPU for each, as fixer does it
    return [["taskset", "--cpu-list", str(cpu), *one] for cpu, one in zip(cycle(cpus), words, strict=False)]


def configuration(receiver: Receiver, queues: Sequence[int], scratch: Path) -> Path:
    """A fixer.toml for these queues and otherwise the defaults, so that one of the machine's own is not read."""
    path = scratch / f"fixer-{queues[0]}.toml"
    lines = ["[queue]", f"number = {queues[0]}", f"count = {receiver.queues}"]
    if receiver.source:
        lines += ["[timestamps]", 'mode = "normalise"', f'sources = ["{receiver.source}"]', f"queue = {queues[-1]}"]
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return path


def must_have_translated(cable: Cable, standing: Standing, runs: Sequence[Run]) -> None:
    """SystemRefused unless the daemon says that it has translated the packets of ``runs``, and replies to them."""
    path = cable.right.call(report.path_of, cable.host, standing.queues[0])
    packets = sum(run.packets for run in runs)

    def counted() -> bool:
        counters = json.loads(path.read_text(encoding="utf-8"))["counters"]
        there, back = (counters[direction]["translated"] for direction in ("timestamps", "replies"))
        return bool(there >= packets * TRANSLATED_SHARE and back)

    # The report is up to a second old.
    wait_until(counted, f"{TRANSLATED_SHARE:.0%} of {packets:,} packets, and replies, to be reported as translated")


def table_of(cable: Cable, receiver: Receiver, queues: Sequence[int], scratch: Path) -> str:
    """The raw table that feeds ``receiver``; none is in place afterwards."""
    if receiver.turn_on:
        turned_on = cable.right.run(*FIXER, *receiver.turn_on, *configured(receiver, queues, scratch))
        if turned_on.status != NOBODY_LISTENS:
            must(turned_on, "fixer on")
    else:
        to: tuple[str, ...] = ("--queue-num", str(queues[0]))
        if len(queues) > 1:
            to = ("--queue-balance", f"{queues[0]}:{queues[-1]}", "--queue-cpu-fanout")
        match = ("-A", "PREROUTING", "-p", "udp", "-m", "multiport", "--dports", str(PORT))
        queue = ("-j", "NFQUEUE", *to, "--queue-bypass")
        must(cable.right.run("iptables", "-t", "raw", *match, *queue), "iptables")
    table = must(cable.right.run("iptables-save", "-t", "raw"), "iptables-save").out
    clear(cable)
    return table


def clear(cable: Cable) -> None:
    """No rule, and no chain of ours; at most the empty ones that belong to the table."""
    for word in ("-F", "-X"):
        for command in ("iptables", "ip6tables"):
            must(cable.right.run(command, "-t", "raw", word), command)


@contextmanager
def wanted(cable: Cable, receiver: Receiver, standing: Standing, scratch: Path) -> Iterator[None]:
    """``receiver``, whose daemon acts by it, is turned on while the context lasts; nothing is left of it."""
    must(cable.right.run(*FIXER, *receiver.turn_on, *configured(receiver, standing.queues, scratch)), "fixer on")
    try:
        yield
    finally:
        must(cable.right.run(*FIXER, "off"), "fixer off")


def configured(receiver: Receiver, queues: Sequence[int], scratch: Path) -> tuple[str, str]:
    return "--config", str(configuration(receiver, queues, scratch))


@contextmanager
def gate(cable: Cable, receiver: Receiver) -> Iterator[None]:
    """The program of --scope kernel, without an entry, is where packets arrive, if ``receiver`` is gated."""
    if not receiver.gated:
        yield
        return
    with Finisher() as finisher:
        attachment = cable.right.call(lambda: Attachment(finisher, socket.if_nametoindex("eth0")))
        try:
            yield
        finally:
            cable.right.call(attachment.close)


@contextmanager
def in_place(cable: Cable, table: str | None) -> Iterator[None]:
    """The raw table of ``right`` is ``table`` while the context lasts."""
    if table is not None:
        restored = cable.host.run(["ip", "netns", "exec", cable.right.name, "iptables-restore"], input=table)
        must(restored, "iptables-restore")
    try:
        yield
    finally:
        clear(cable)
