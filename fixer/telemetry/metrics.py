"""Every metric there is: its name, kind and labels; and what a sample of them is to Prometheus.

The one list: alerts, dashboard and docs/prometheus.md are made from it or held against it (``python -m deploy``). Names
are as Prometheus has them: base units, ``_total`` for what only grows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from prometheus_client import Metric as Family

Sample = Mapping[str, Mapping[tuple[str, ...], float]]
"""Values by metric (without ``fixer_``) and by its labels' values."""

DELAYS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 30.0)
"""Upper bounds of the histogram's buckets, seconds."""


class Metric(NamedTuple):
    """``name`` without the prefix."""

    name: str
    kind: Literal["counter", "gauge", "info", "histogram"]
    words: str
    labels: tuple[str, ...] = ()


METRICS = (
    Metric("build_info", "gauge", "Always 1.", ("version",)),
    Metric("up", "gauge", "1 while the queues are served; a textfile that is left behind says 0."),
    Metric("start_time_seconds", "gauge", "When the daemon began, seconds since the epoch."),
    Metric("monitor", "gauge", "1: nothing is changed, only reported."),
    Metric("packets_total", "counter", "Packets that were looked at."),
    Metric("bytes_total", "counter", "Their bytes, from the first IP header on."),
    Metric("vxlan_packets_total", "counter", "Packets that are VXLAN."),
    Metric("layer_packets_total", "counter", "By the state of a layer's checksum.", ("layer", "state")),
    Metric("diagnosed_packets_total", "counter", "By diagnosis.", ("diagnosis",)),
    Metric("action_packets_total", "counter", "By what was done.", ("action",)),
    Metric("policy_packets_total", "counter", "By what the policy says, done or not.", ("action",)),
    Metric("unverified_repairs_total", "counter", "Repairs whose payload nothing vouches for."),
    Metric("reason_packets_total", "counter", "Why a layer could not be judged.", ("reason",)),
    Metric("explained_packets_total", "counter", "What made outer checksums wrong.", ("explanation",)),
    Metric("vouched_packets_total", "counter", "Why wrong outer checksums were righted.", ("vouch",)),
    Metric("timestamps_packets_total", "counter", "What became of TCP timestamps.", ("direction", "outcome")),
    Metric("findings_open", "gauge", "Conclusions that hold now.", ("cause", "verdict")),
    Metric("vtep_finding_packets", "gauge", "Packets of an open finding, by whom.", ("vtep", "cause", "verdict")),
    Metric("events_total", "counter", "Packet events: told, left_out (over the limit), lost (ring full).", ("fate",)),
    Metric("log_lines_total", "counter", "Lines of the log: written, lost.", ("fate",)),
    Metric("log_delay_seconds", "histogram", "From a packet's arrival to its line in the log."),
    Metric("queue_waiting_packets", "gauge", "Packets that wait in the kernel's queue.", ("queue",)),
    Metric("queue_dropped_packets_total", "counter", "Lost by the kernel: queue, copy, socket.", ("queue", "where")),
    Metric("queue_verdict_errors_total", "counter", "Verdicts refused or unsent, messages unreadable.", ("kind",)),
    Metric("passed_unseen_packets_total", "counter", "The queue was full, or nobody listened: they passed unseen."),
    Metric("rule_wanted", "gauge", "1: an operator wants the rule."),
    Metric("rule_on", "gauge", "1: the rule that leads to our queue is there.", ("family",)),
    Metric("rule_packets_total", "counter", "Packets that the rule has counted.", ("family",)),
    Metric("rule_since_timestamp_seconds", "gauge", "Since when it is wanted."),
    Metric("rule_end_timestamp_seconds", "gauge", "When it ends; absent without an end."),
    Metric("rule_lost_total", "counter", "Times that somebody else removed or changed it."),
    Metric("rule_put_back_total", "counter", "Times that the guard put it right."),
    Metric("guard_stopped", "gauge", "1: it was put back too often, and is not again."),
    Metric(
        "kernel_packets_total",
        "counter",
        "Unfinished packets that met the program in the kernel: finished, or why they were left.",
        ("outcome",),
    ),
    Metric("flow_table_entries", "gauge", "Entries of the flow table: capacity, used, normalised.", ("state",)),
    Metric("flow_fates_total", "counter", "What became of flows: evicted, expired, damaged, one_way.", ("fate",)),
    Metric("tcp_paws_passive_rejected_total", "counter", "PAWSPassive: SYNs refused for their timestamps."),
    Metric("tcp_listen_drops_total", "counter", "ListenDrops of this network namespace."),
)
BY_NAME = {metric.name: metric for metric in METRICS}


class Delay:
    """From arrival to log, as a histogram; counted by the log's thread, read by anybody."""

    def __init__(self) -> None:
        self._counts = [0] * (len(DELAYS) + 1)
        self._sum = 0.0

    def note(self, seconds: float) -> None:
        self._counts[next((place for place, most in enumerate(DELAYS) if seconds <= most), len(DELAYS))] += 1
        self._sum += max(seconds, 0.0)

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulated, as Prometheus wants them; and the sum."""
        counts, found, total = list(self._counts), [], 0
        for bound, count in zip([*map(str, DELAYS), "+Inf"], counts, strict=True):
            total += count
            found.append((bound, float(total)))
        return found, self._sum


class Collector:
    """What ``prometheus_client`` asks at each scrape."""

    def __init__(self, sample: Callable[[], Sample], delay: Delay) -> None:
        self._sample = sample
        self._delay = delay

    def collect(self) -> Iterator[Family]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        sample = self._sample()
        for metric in METRICS:
            name = f"fixer_{metric.name}"
            if metric.kind == "histogram":
                buckets, total = self._delay.buckets()
                yield HistogramMetricFamily(name, metric.words, buckets=buckets, sum_value=total)
                continue
            made: Any = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = made(name, metric.words, labels=metric.labels)
            for labels, value in sample.get(metric.name, {}).items():
                family.add_metric(labels, value)
            if metric.name in sample:
                yield family


def worst(findings: list[tuple[str, str, str, int]], most: int) -> dict[tuple[str, ...], float]:
    """(who, cause, verdict, packets), the worst first: of the first ``most`` each; of all others, who are ``other``."""
    found: dict[tuple[str, ...], float] = {}
    named: list[str] = []
    for who, cause, verdict, packets in findings:
        if who not in named and len(named) < most:
            named.append(who)
        key = (who if who in named else "other", cause, verdict)
        found[key] = found.get(key, 0) + packets
    return found
