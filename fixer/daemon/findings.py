"""What is found while packets come: put together once a second, followed from its first packet to its end, and told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fixer.findings.finding import Finding
from fixer.findings.lifecycle import UPDATE_SECONDS, Case, End, LifeCycle, News, Stage
from fixer.findings.wire import Wire
from fixer.now import Now
from fixer.state.samples import Sample, Samples
from fixer.telemetry import findings as told
from fixer.telemetry.events import Saying
from fixer.telemetry.flows import FlowWatch
from fixer.telemetry.packets import sentence
from fixer.telemetry.snat import SnatWatch


class Findings:
    """Of all who find something, with one life cycle."""

    def __init__(self, flows: FlowWatch | None, snat: SnatWatch, wire: Wire, samples: Samples) -> None:
        self._flows = flows
        self._snat = snat
        self._wire = wire
        self._samples = samples
        self._life = LifeCycle()
        self._left_out_at = float("-inf")

    @property
    def cases(self) -> list[Case]:
        """What holds now, and since when: the worst first."""
        return self._life.open

    def news(self, now: Now) -> Iterator[Saying]:
        """What has come up since it was last asked. To be called about once a second."""
        yield from self._told(self._life.look(self._found(now), now))
        self._keep()
        if self._life.left_out and now.steady - self._left_out_at >= UPDATE_SECONDS:
            self._left_out_at = now.steady
            yield told.left_out(self._life.left_out)

    @property
    def open(self) -> list[Finding]:
        """The worst first."""
        return [case.finding for case in self._life.open]

    def at_stop(self) -> Iterator[Saying]:
        """Nobody follows them any more."""
        yield from self._told(self._life.stop())

    def _keep(self) -> None:
        """Some packets of what is open."""
        for key, (result, came, left) in self._wire.samples():
            if case := self._life.case(key):
                sample = Sample(result.when_ns, result.length, came, left, sentence(result))
                case.samples = self._samples.add(case.id, sample, case.finding.text) or case.samples

    def _found(self, now: Now) -> Iterator[Finding]:
        yield from self._wire.findings(now)
        yield from self._flows.findings() if self._flows else ()
        yield from self._snat.findings(now)

    def _told(self, news: Iterable[News]) -> Iterator[Saying]:
        for each in news:
            if each.stage is Stage.CLOSED:
                self._samples.close(each.case.id)
            if each.stage is Stage.CLOSED and each.end is not End.STOPPED:
                self._wire.forget(each.case.finding)
                if self._flows:
                    self._flows.forget(each.case.finding)
            yield told.event(each)
