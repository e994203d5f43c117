"""What is found while packets come: put together once a second, followed from its first packet to its end, and told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from fixer.findings.finding import Fact, Finding, Role
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

    def __init__(
        self,
        flows: FlowWatch | None,
        snat: SnatWatch,
        wire: Wire,
        samples: Samples,
        in_kernel: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        """``in_kernel``: how many packets the kernel has finished, by the VTEP that sent them."""
        self._flows = flows
        self._in_kernel = in_kernel
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
        finished = self._in_kernel()
        yield from (with_finished(found, finished) for found in self._wire.findings(now))
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


def with_finished(found: Finding, finished: Mapping[str, int]) -> Finding:
    """The same, with what the kernel has ``finished`` of its sender: the queue counts only the samples of that."""
    count = finished.get(found.who, 0) if found.role is Role.VTEP and found.cause == "unfinished" else 0
    if not count:
        return found
    fact = Fact("finished in the kernel, beside those counted here", count, 0)
    text = f"{found.text} {count:,} more were finished in the kernel."
    return replace(found, text=text, evidence=(*found.evidence, fact))
