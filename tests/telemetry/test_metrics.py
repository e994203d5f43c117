"""What Prometheus reads: the one list, in its own words, of a daemon that serves; nothing that nobody asked for."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from support.commands import wait_for
from support.conversation import Node
from support.road import QUEUE, Road

from fixer.daemon import metering
from fixer.host.machine import Host
from fixer.lab import net
from fixer.lab.net import Namespace
from fixer.telemetry.metrics import DELAYS, METRICS, Collector, Delay, worst

LISTEN = "127.0.0.1:9479"


@pytest.fixture
def road() -> Any:
    host, name = Host(), net.own_name()
    with Namespace(f"{name}-left", host) as sender, Namespace(f"{name}-right", host) as receiver:
        made = Road(sender, receiver)
        with made.inlet, made.outlet:
            yield made


def families(text: str) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(text: str) -> dict[str, float]:
    """Each series as it is written."""
    found = {}
    for family in families(text).values():
        for sample in family.samples:
            labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def scraped(road: Road, *more: str) -> str:
    return road.receiver.run("curl", "-sS", "--fail", "-m", "10", *(more or (f"http://{LISTEN}/metrics",))).out


def test_names_are_as_prometheus_has_them() -> None:
    for metric in METRICS:
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.words.endswith("."), metric.name
    assert len({metric.name.removesuffix("_total") for metric in METRICS}) == len(METRICS), "so OpenMetrics calls them"


def test_counters_become_series_of_the_list_and_promtool_agrees() -> None:
    node = Node()
    counted = node.pipeline.counters() | dict.fromkeys(("refused", "unsent", "unreadable", "overruns"), 0)
    sample = metering.of_packets(counted | {"flows": node.flows.counters()})
    registry = CollectorRegistry()
    registry.register(Collector(lambda: sample, Delay()))
    text = generate_latest(registry).decode()
    found = {name.removeprefix("fixer_") for name in values(text) for name in [name.partition("{")[0]]}
    assert sample.keys() <= found
    labels = {metric.name: metric.labels for metric in METRICS}
    for name, series in sample.items():
        assert all(len(key) == len(labels[name]) for key in series), name
    if shutil.which("promtool"):
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_the_worst_are_named_and_the_others_added_up() -> None:
    findings = [("a", "x", "fault", 9), ("b", "x", "fault", 8), ("a", "y", "unclear", 7), ("c", "x", "fault", 6)]
    findings.append(("d", "x", "fault", 5))
    assert worst(findings, 2) == {
        ("a", "x", "fault"): 9,
        ("b", "x", "fault"): 8,
        ("a", "y", "unclear"): 7,
        ("other", "x", "fault"): 11,
    }
    assert worst(findings, 0) == {("other", "x", "fault"): 28, ("other", "y", "unclear"): 7}


def test_delays_are_cumulated() -> None:
    delay = Delay()
    for seconds in (0.01, 0.06, 0.06, 99.0, -1.0):
        delay.note(seconds)
    buckets, total = delay.buckets()
    assert [bound for bound, _ in buckets] == [*map(str, DELAYS), "+Inf"]
    assert [count for _, count in buckets] == [2, 4, 4, 4, 4, 4, 4, 4, 5]
    assert total == pytest.approx(99.13)


@pytest.mark.root
def test_a_daemon_is_scraped_and_tells_what_it_has_done(road: Road, tmp_path: Path) -> None:
    config, textfile = tmp_path / "fixer.toml", tmp_path / "fixer.prom"
    config.write_text(f'[metrics]\nlisten = "{LISTEN}"\n')
    with road.daemon(f"--config={config}", f"--textfile={textfile}") as process:
        road.send(0, 40)
        assert road.received(2.0, most=40) == dict.fromkeys(range(40), True)
        wait_for(lambda: values(scraped(road))["fixer_log_delay_seconds_count"] > 0)
        found = values(scraped(road))
        assert found['fixer_diagnosed_packets_total{diagnosis="both_unfinished"}'] == 40, "veth finishes nothing either"
        assert found['fixer_action_packets_total{action="repair"}'] == 40
        assert found["fixer_packets_total"] == 40
        assert found[f'fixer_queue_waiting_packets{{queue="{QUEUE}"}}'] == 0
        assert found["fixer_rule_wanted"] == 0
        assert found["fixer_up"] == 1
        assert found["process_resident_memory_bytes"] < 60e6
        known = {f"fixer_{metric.name.removesuffix('_total')}" for metric in METRICS}
        assert {name for name in families(scraped(road)) if name.startswith("fixer_")} <= known
        assert values(textfile.read_text())["fixer_up"] == 1
        process.terminate()
        assert process.wait(10) == 0
    last = values(textfile.read_text())
    assert (last["fixer_up"], last["fixer_packets_total"]) == (0, 40)


@pytest.mark.root
def test_a_client_that_says_nothing_delays_no_packet(road: Road, tmp_path: Path) -> None:
    """Many that are connected and silent: the packets go on, and the next scrape comes once the first is given up."""
    config = tmp_path / "fixer.toml"
    config.write_text(f'[metrics]\nlisten = "{LISTEN}"\n')

    def silent() -> list[socket.socket]:
        return [socket.create_connection(("127.0.0.1", 9479)) for _ in range(3)]

    with road.daemon(f"--config={config}"):
        connections = road.receiver.call(silent)
        road.send(0, 100)
        assert road.received(2.0, most=100) == dict.fromkeys(range(100), True)
        for connection in connections:
            connection.close()
        assert values(scraped(road))["fixer_packets_total"] == 100


@pytest.mark.root
def test_a_unix_socket_that_was_left_behind_is_taken_again_and_removed(road: Road, tmp_path: Path) -> None:
    config, path = tmp_path / "fixer.toml", tmp_path / "metrics.sock"
    config.write_text(f'[metrics]\nlisten = "unix:{path}"\n')
    with road.daemon(f"--config={config}") as process:
        process.kill()
        process.wait()
    assert path.exists()
    with road.daemon(f"--config={config}"):
        url = ("--unix-socket", str(path), "http://fixer/metrics")
        assert values(scraped(road, *url))["fixer_up"] == 1
    assert not path.exists()


@pytest.mark.root
def test_an_address_that_is_not_ours_ends_the_daemon_before_anything_is_bound(road: Road, tmp_path: Path) -> None:
    config = tmp_path / "fixer.toml"
    config.write_text('[metrics]\nlisten = "203.0.113.1:9479"\n')
    done = road.receiver.run(sys.executable, "-m", "fixer", "run", f"--queue={QUEUE}", f"--config={config}")
    assert done.status == 71
    assert done.err == "fixer: error: metrics.listen: 203.0.113.1:9479: Cannot assign requested address\n"


def test_who_asks_for_no_metrics_does_not_pay_for_them() -> None:
    lines = (
        "import json, sys",
        "from fixer.config import Metrics",
        "import fixer.daemon.run",
        "from fixer.daemon.exposition import Exposition",
        "Exposition(Metrics(), None, None, None).start()",
        "print(json.dumps([name for name in ('prometheus_client', 'logging.handlers') if name in sys.modules]))",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
