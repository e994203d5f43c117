"""For Prometheus and Grafana: alerts, what each of them is tested by (``promtool test rules``), a dashboard."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

HEAD = "# Written by `python -m deploy`; see docs/prometheus.md.\n"


class Alert(NamedTuple):
    """``fires`` and ``stays``: series, a value a minute in promtool's notation, for which it must and must not fire."""

    name: str
    expression: str
    minutes: int
    severity: str
    summary: str
    fires: dict[str, str]
    stays: dict[str, str]


_NODE = 'instance="node"'

ALERTS = (
    Alert(
        "FixerBrokenVTEP",
        'sum by (instance, vtep, cause) (fixer_vtep_finding_packets{verdict="fault"}) > 0',
        2,
        "warning",
        "{{ $labels.vtep }} breaks packets for {{ $labels.instance }} ({{ $labels.cause }}): cure it there",
        {f'fixer_vtep_finding_packets{{{_NODE},vtep="192.0.2.1",cause="unfinished",verdict="fault"}}': "12+12x10"},
        {f'fixer_vtep_finding_packets{{{_NODE},vtep="192.0.2.1",cause="unfinished",verdict="harmless"}}': "12+12x10"},
    ),
    Alert(
        "FixerCorruptData",
        'sum by (instance) (increase(fixer_diagnosed_packets_total{diagnosis="corrupt"}[5m])) > 0',
        0,
        "critical",
        "{{ $labels.instance }} receives packets that are provably damaged: a NIC, a cable, a memory",
        {f'fixer_diagnosed_packets_total{{{_NODE},diagnosis="corrupt"}}': "0x4 1 3x6"},
        {f'fixer_diagnosed_packets_total{{{_NODE},diagnosis="inner_unfinished"}}': "0+9x10"},
    ),
    Alert(
        "FixerRuleForgotten",
        "(time() - fixer_rule_since_timestamp_seconds > 86400 and on (instance) fixer_rule_wanted == 1) "
        "unless on (instance) fixer_rule_end_timestamp_seconds",
        5,
        "warning",
        "the rule on {{ $labels.instance }} is on for more than a day, without an end: is it still needed?",
        {
            f"fixer_rule_since_timestamp_seconds{{{_NODE}}}": "-90000x20",
            f"fixer_rule_wanted{{{_NODE}}}": "1x20",
        },
        {
            f"fixer_rule_since_timestamp_seconds{{{_NODE}}}": "-90000x20",
            f"fixer_rule_wanted{{{_NODE}}}": "1x20",
            f"fixer_rule_end_timestamp_seconds{{{_NODE}}}": "90000x20",
        },
    ),
    Alert(
        "FixerRuleLost",
        "increase(fixer_rule_lost_total[10m]) > 0 or fixer_guard_stopped == 1 "
        "or (fixer_rule_wanted == 1 unless on (instance) sum by (instance) (fixer_rule_on) > 0)",
        1,
        "warning",
        "somebody else removes or changes the rule on {{ $labels.instance }}; the log says which process",
        {f"fixer_rule_wanted{{{_NODE}}}": "1x10", f'fixer_rule_on{{{_NODE},family="ipv4"}}': "1x2 0x8"},
        {f"fixer_rule_wanted{{{_NODE}}}": "1x10", f'fixer_rule_on{{{_NODE},family="ipv4"}}': "1x10"},
    ),
    Alert(
        "FixerPassedUnseen",
        "increase(fixer_passed_unseen_packets_total[5m]) > 0",
        0,
        "warning",
        "packets pass {{ $labels.instance }} unseen: its queue is full. More queues, or `fixer on --scope suspects`",
        {f"fixer_passed_unseen_packets_total{{{_NODE}}}": "0x4 100x6"},
        {f"fixer_passed_unseen_packets_total{{{_NODE}}}": "100x10"},
    ),
    Alert(
        "FixerGoneWhileRuleOn",
        '(fixer_up == 0 or on (instance, job) up{job="fixer"} == 0) '
        "and on (instance) sum by (instance) (last_over_time(fixer_rule_on[1h])) > 0",
        1,
        "critical",
        "no daemon serves {{ $labels.instance }}, and its rule is on: packets pass unrepaired. `systemctl start fixer`",
        {f'up{{{_NODE},job="fixer"}}': "1x4 0x6", f'fixer_rule_on{{{_NODE},job="fixer",family="ipv4"}}': "1x4 stale"},
        {f'up{{{_NODE},job="fixer"}}': "1x4 0x6", f'fixer_rule_on{{{_NODE},job="fixer",family="ipv4"}}': "0x4 stale"},
    ),
    Alert(
        "FixerTextfileStale",
        'time() - node_textfile_mtime_seconds{file=~".*fixer.prom"} > 120 and on (instance) fixer_up == 1',
        1,
        "critical",
        "fixer on {{ $labels.instance }} was killed: its textfile is not written any more",
        {
            f'node_textfile_mtime_seconds{{{_NODE},file="/x/fixer.prom"}}': "0x10",
            f"fixer_up{{{_NODE}}}": "1x10",
        },
        {
            f'node_textfile_mtime_seconds{{{_NODE},file="/x/fixer.prom"}}': "0+60x10",
            f"fixer_up{{{_NODE}}}": "1x10",
        },
    ),
    Alert(
        "FixerPAWSPassive",
        "increase(fixer_tcp_paws_passive_rejected_total[5m]) > 0",
        0,
        "warning",
        "{{ $labels.instance }} refuses SYNs for their timestamps: `fixer doctor timestamps` says what helps",
        {f"fixer_tcp_paws_passive_rejected_total{{{_NODE}}}": "0x4 7+7x6"},
        {f"fixer_tcp_paws_passive_rejected_total{{{_NODE}}}": "7x10"},
    ),
)
MINUTE = 8
"""When the tests look."""


def _text(text: str) -> str:
    """As a YAML scalar."""
    return json.dumps(text, ensure_ascii=False)


def alerts() -> str:
    lines = [HEAD, "groups:", "  - name: fixer", "    rules:"]
    for alert in ALERTS:
        lines += [
            f"      - alert: {alert.name}",
            f"        expr: {_text(alert.expression)}",
            f"        for: {alert.minutes}m",
            f"        labels: {{severity: {alert.severity}}}",
            f"        annotations: {{summary: {_text(alert.summary)}}}",
        ]
    return "\n".join(lines) + "\n"


def tests() -> str:
    """promtool compares an alert's labels and annotations whole; so the expression is asked, and the alert's name."""
    lines = [HEAD, "rule_files: [alerts.yml]", "evaluation_interval: 1m", "tests:"]
    for alert in ALERTS:
        for series, fires in ((alert.fires, True), (alert.stays, False)):
            lines += [
                f"  - name: {alert.name} {'fires' if fires else 'does not fire'}",
                "    interval: 1m",
                "    input_series:",
            ]
            for name, values in series.items():
                lines += [f"      - series: {_text(name)}", f"        values: {_text(values)}"]
            state = f'count(ALERTS{{alertname="{alert.name}",alertstate="firing"}})'
            samples = "[{labels: '{}', value: 1}]" if fires else "[]"
            lines += [
                "    promql_expr_test:",
                f"      - expr: {_text(state)}",
                f"        eval_time: {MINUTE}m",
                f"        exp_samples: {samples}",
            ]
    return "\n".join(lines) + "\n"


PANELS = (
    ("Diagnosed, packets a second", "sum by (diagnosis) (rate(fixer_diagnosed_packets_total[5m])) > 0", "pps"),
    ("Repaired, dropped, passed", "sum by (action) (rate(fixer_action_packets_total[5m]))", "pps"),
    ("Findings that are open", "sum by (cause, verdict) (fixer_findings_open)", "short"),
    ("VTEPs, by packets of their findings", "topk(10, sum by (vtep, cause) (fixer_vtep_finding_packets))", "short"),
    ("Rule on, by node and family", "fixer_rule_on", "short"),
    ("Rule taken away by others, and put back", "increase(fixer_rule_put_back_total[1h])", "short"),
    ("Packets that wait in the queue", "fixer_queue_waiting_packets", "short"),
    ("Lost by the kernel, a second", "rate(fixer_queue_dropped_packets_total[5m])", "pps"),
    ("Passed unseen, a second", "rate(fixer_passed_unseen_packets_total[5m])", "pps"),
    ("Lines lost, a second", 'rate(fixer_log_lines_total{fate="lost"}[5m])', "short"),
    (
        "Packet to log, 99 of 100 within",
        "histogram_quantile(0.99, sum by (instance, le) (rate(fixer_log_delay_seconds_bucket[5m])))",
        "s",
    ),
    ("Flow table, in use", 'fixer_flow_table_entries{state="used"}', "short"),
    ("SYNs refused for their timestamps, a second", "rate(fixer_tcp_paws_passive_rejected_total[5m])", "short"),
    ("Memory", "process_resident_memory_bytes", "bytes"),
)


def dashboard() -> dict[str, Any]:
    """For Grafana 9 and newer."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    panels = [
        {
            "id": number + 1,
            "type": "timeseries",
            "title": title,
            "datasource": source,
            "gridPos": {"x": 12 * (number % 2), "y": 8 * (number // 2), "w": 12, "h": 8},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
            "targets": [{"refId": "A", "expr": _of_instance(expression), "datasource": source}],
        }
        for number, (title, expression, unit) in enumerate(PANELS)
    ]
    query = {"query": "label_values(fixer_build_info, instance)", "refId": "instances"}
    variables = [
        {"name": "datasource", "type": "datasource", "query": "prometheus"},
        {"name": "instance", "type": "query", "datasource": source, "query": query, "multi": True, "includeAll": True},
    ]
    return {
        "uid": "fixer",
        "title": "fixer",
        "tags": ["fixer", "vxlan"],
        "schemaVersion": 37,
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": variables},
        "panels": panels,
    }


def _of_instance(expression: str) -> str:
    """The same, of the nodes that are chosen."""
    return re.sub(
        r"\b((?:fixer|process)_[a-z_]+)(\{([^}]*)\})?",
        lambda found: f'{found[1]}{{instance=~"$instance"{"," + found[3] if found[3] else ""}}}',
        expression,
    )


SCRAPE = f"""{HEAD}# metrics.listen = "127.0.0.1:9479" of each node, as Prometheus' scrape_configs have it.
scrape_configs:
  - job_name: fixer
    scrape_interval: 15s
    static_configs:
      - targets: ["node1:9479", "node2:9479"]
"""

GROUP, SOCKETS, TEXTFILES = "prometheus", "/run/fixer-metrics", "/var/lib/prometheus/node-exporter"

SERVICE = """# /etc/systemd/system/fixer.service.d/metrics.conf: what metrics.listen = "127.0.0.1:9479" needs beside.
[Service]
RestrictAddressFamilies=AF_INET AF_INET6
IPAddressAllow=localhost
"""

SHARED = f"""# /etc/systemd/system/fixer.service.d/metrics.conf: what a unix socket or a textfile needs beside.
# The service's user is made anew at every start, so it writes in a directory of the group of whoever reads:
#   the socket:    fixer-metrics.tmpfiles as /etc/tmpfiles.d/fixer-metrics.conf, and systemd-tmpfiles --create
#   the textfile:  chgrp {GROUP} {TEXTFILES}; chmod 2775 {TEXTFILES}
[Service]
SupplementaryGroups={GROUP}
ReadWritePaths=-{SOCKETS} -{TEXTFILES}
"""

TMPFILES = f"""# /etc/tmpfiles.d/fixer-metrics.conf: where metrics.listen = "unix:{SOCKETS}/fixer.sock" may be.
d {SOCKETS} 2770 root {GROUP}
"""


def files() -> dict[str, str]:
    return {
        "alerts.yml": alerts(),
        "alerts_test.yml": tests(),
        "grafana.json": json.dumps(dashboard(), indent=1) + "\n",
        "scrape.yml": SCRAPE,
        "fixer.service.conf": SERVICE,
        "shared.service.conf": SHARED,
        "fixer-metrics.tmpfiles": TMPFILES,
    }
