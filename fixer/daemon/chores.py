"""What is due beside the packets: at the start, about once a second, and at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fixer.daemon import notify
from fixer.daemon.findings import Findings
from fixer.daemon.lanes import Lane
from fixer.daemon.metering import Meter
from fixer.daemon.report import Reporter
from fixer.daemon.standing import Standing
from fixer.findings.wire import Wire
from fixer.now import Now
from fixer.state.flowfile import Opened
from fixer.state.samples import Samples
from fixer.telemetry.events import Saying, state_change
from fixer.telemetry.flows import FlowWatch
from fixer.telemetry.snat import SnatWatch

SECONDS = 1.0
"""Between two times that the chores are done."""


class Chores:
    """What ``fixer status`` and ``systemctl status`` show is written down, and what has come up is said."""

    def __init__(
        self,
        reporter: Reporter,
        standing: Standing,
        lanes: Sequence[Lane],
        opened: Opened | None,
        meter: Meter,
        wire: Wire,
        samples: Samples,
        say: Callable[[Saying], None],
    ) -> None:
        """``opened``: the flow table, which the last lane uses. ``say`` takes a line for the log and does not wait."""
        self._meter = meter
        self._reporter = reporter
        self._standing = standing
        self._shown = ""
        self._opened = opened
        self._say = say
        self._flows = FlowWatch(opened.flows, lanes[-1].pipeline) if opened else None
        snat = SnatWatch([lane.pipeline for lane in lanes])
        self._findings = Findings(self._flows, snat, wire, samples, self._in_kernel_by_vtep)

    def begin(self) -> None:
        if trouble := self._reporter.write():
            self._say(state_change("degraded", f"fixer status will not show what this daemon counts: {trouble}"))
        if self._flows and self._opened:
            for saying in self._flows.at_start(self._opened.taken, self._opened.warnings):
                self._say(saying)

    def do(self, now: Now) -> None:
        for saying in (*(self._flows.news() if self._flows else ()), *self._findings.news(now)):
            self._say(saying)
        self._meter.findings = self._findings.open
        self._reporter.write(self._findings.cases)
        if (line := self._standing.words(self._reporter.packets(), now, self._in_kernel())) != self._shown:
            notify.status(line)
            self._shown = line

    def _in_kernel(self) -> int:
        """How many packets the kernel has finished."""
        found = self._reporter.in_kernel()
        return found.packets if found else 0

    def _in_kernel_by_vtep(self) -> dict[str, int]:
        """The same of the busiest VTEPs."""
        found = self._reporter.in_kernel()
        return found.vteps if found else {}

    def end(self) -> None:
        """Once nothing is served any more."""
        self._reporter.remove()
        for saying in (*(self._flows.at_stop() if self._flows else ()), *self._findings.at_stop()):
            self._say(saying)
