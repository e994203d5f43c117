"""What the daemon measures, for whoever scrapes: gathered when it is asked for, from counters that need no lock."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fixer import __version__
from fixer.config import Settings
from fixer.daemon.guard import Guard
from fixer.daemon.report import Reporter
from fixer.errors import FixerError
from fixer.findings.finding import Finding
from fixer.host import queues
from fixer.host.machine import NET, Host
from fixer.now import Now
from fixer.rules import switch, wanted
from fixer.state import baseline
from fixer.state.baseline import Baseline
from fixer.telemetry.log import Teller
from fixer.telemetry.metrics import worst

RULES_SECONDS = 5.0
"""So long what the rules have counted is not asked again: that is a process or two."""

Values = dict[tuple[str, ...], float]

_TABLES = {
    "diagnosed_packets_total": "diagnosis",
    "action_packets_total": "action",
    "policy_packets_total": "would",
    "reason_packets_total": "reason",
    "explained_packets_total": "explanation",
    "vouched_packets_total": "vouch",
}
_NUMBERS = {
    "packets_total": "packets",
    "bytes_total": "bytes",
    "vxlan_packets_total": "vxlan",
    "unverified_repairs_total": "unverified",
}


class Meter:
    """One daemon's. :meth:`sample` is for any thread; it never asks a packet's."""

    def __init__(self, settings: Settings, host: Host, reporter: Reporter, teller: Teller, guard: Guard) -> None:
        self._settings = settings
        self._host = host
        self._reporter = reporter
        self._teller = teller
        self._guard = guard
        self._started = time.time()
        self.findings: Sequence[Finding] = ()
        """What is open, the worst first; put there by whoever finds it."""
        self.serves = True
        self._rules: dict[str, int | None] = {}
        self._rules_at = float("-inf")
        self._unseen = 0
        self._sampling = threading.Lock()

    def sample(self) -> dict[str, Values]:
        """All of it, now. What cannot be read is left out. Who comes while another asks waits for its turn."""
        with self._sampling:
            return self._sample()

    def _sample(self) -> dict[str, Values]:
        found: dict[str, Values] = {
            "build_info": {(__version__,): 1},
            "up": {(): int(self.serves)},
            "start_time_seconds": {(): self._started},
            "monitor": {(): int(self._settings.monitor)},
        }
        counted = self._reporter.counters()
        found |= of_packets(counted) | self._of_log(counted) | self._of_findings()
        for part in (self._of_queues, self._of_rules, self._of_tcp):
            try:
                found |= part()
            except FixerError:  # somebody may not read that here: the rest is worth having
                continue
        return found

    def _of_log(self, counted: Mapping[str, Any]) -> dict[str, Values]:
        events: Values = {(fate,): counted[f"events_{fate}"] for fate in ("told", "left_out", "lost")}
        return {"events_total": events, "log_lines_total": by_name(self._teller.counters())}

    def _of_findings(self) -> dict[str, Values]:
        findings = list(self.findings)
        opened: Counter[tuple[str, ...]] = Counter((each.cause, str(each.verdict)) for each in findings)
        by_whom = [(each.who or "none", each.cause, str(each.verdict), each.packets) for each in findings]
        return {
            "findings_open": dict(opened.items()),
            "vtep_finding_packets": worst(by_whom, self._settings.metrics.vteps),
        }

    def _of_queues(self) -> dict[str, Values]:
        numbers = [lane.number for lane in self._reporter.lanes]
        ours = {number: line for number, line in queues.bound(self._host).items() if number in numbers}
        waiting: Values = {(str(number),): line.waiting for number, line in ours.items()}
        dropped: Values = {(str(number), "queue"): line.queue_dropped for number, line in ours.items()}
        dropped |= {(str(number), "copy"): line.user_dropped for number, line in ours.items()}
        dropped |= {("all", "socket"): sum(each.drops for each in queues.handed(self._host, numbers).values())}
        return {"queue_waiting_packets": waiting, "queue_dropped_packets_total": dropped}

    def _of_rules(self) -> dict[str, Values]:
        now = Now.read()
        if now.steady - self._rules_at >= RULES_SECONDS:
            self._rules = switch.rule_packets(self._host, self._settings.queue.number)
            self._rules_at = now.steady
        on: Values = {(family,): int(count is not None) for family, count in self._rules.items()}
        packets: Values = {(family,): count for family, count in self._rules.items() if count is not None}
        found: dict[str, Values] = {
            "rule_on": on,
            "rule_packets_total": packets,
            "rule_lost_total": {(): float(self._guard.lost)},
            "rule_put_back_total": {(): float(self._guard.put_back)},
            "guard_stopped": {(): float(self._guard.has_stopped)},
        }
        if (unseen := self._passed_unseen()) is not None:
            self._unseen = max(self._unseen, unseen)
            found["passed_unseen_packets_total"] = {(): self._unseen}
        intent = wanted.read(self._host)
        found["rule_wanted"] = {(): int(intent is not None and intent.holds(self._host.now()))}
        if intent and intent.on:
            found["rule_since_timestamp_seconds"] = {(): intent.since.timestamp()}
            if intent.until:
                found["rule_end_timestamp_seconds"] = {(): intent.until.timestamp()}
        return found

    def _passed_unseen(self) -> int | None:
        """Since the daemon serves, or since the rule was written, if that was later; None if it cannot be known."""
        heard = queues.handed(self._host, [lane.number for lane in self._reporter.lanes])
        since = baseline.read(self._host)
        if not (since and since.handed.keys() & heard.keys()):
            since = Baseline(self._reporter.rule_packets_at_start)
        matched = 0
        for family, count in self._rules.items():
            if count is None:
                continue
            if not heard or family not in since.rule_packets or count < (since.rule_packets[family] or 0):
                return None  # it may not be read, or somebody has put it there anew
            matched += count - (since.rule_packets[family] or 0)
        return baseline.not_handed(since, matched, heard.items())

    def _of_tcp(self) -> dict[str, Values]:
        names = {"PAWSPassive": "tcp_paws_passive_rejected_total", "ListenDrops": "tcp_listen_drops_total"}
        lines = [line.split() for line in (self._host.read(f"{NET}/netstat") or "").splitlines()]
        for keys, values in zip(lines[::2], lines[1::2], strict=False):
            if keys[0] == "TcpExt:":
                counted = dict(zip(keys[1:], values[1:], strict=False))
                return {names[key]: {(): float(counted[key])} for key in names if key in counted}
        return {}


def of_packets(counted: Mapping[str, Any]) -> dict[str, Values]:
    """``Reporter.counters()`` as metrics."""
    found: dict[str, Values] = {name: {(): counted[key]} for name, key in _NUMBERS.items()}
    found |= {name: by_name(counted[key]) for name, key in _TABLES.items()}
    layers = [(layer, state, count) for layer in ("inner", "outer") for state, count in counted[layer].items()]
    found["layer_packets_total"] = {(layer, state): count for layer, state, count in layers}
    directions = {"there": "timestamps", "back": "replies"}
    found["timestamps_packets_total"] = {
        (direction, outcome): count for direction, key in directions.items() for outcome, count in counted[key].items()
    }
    errors = ("refused", "unsent", "unreadable", "overruns")
    found["queue_verdict_errors_total"] = {(kind,): counted[kind] for kind in errors}
    if kernel := counted.get("kernel"):
        left = {name: count for name, count in kernel.items() if name != "packets"}
        found["kernel_packets_total"] = by_name({"finished": kernel["packets"], **left})
    if flows := counted.get("flows"):
        found["flow_table_entries"] = {(name,): flows[name] for name in ("capacity", "used", "normalised")}
        found["flow_fates_total"] = {(name,): flows[name] for name in ("evicted", "expired", "damaged", "one_way")}
    return found


def by_name(counted: Mapping[str, float]) -> Values:
    return {(name,): count for name, count in counted.items()}
