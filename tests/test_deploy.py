"""deploy/ and the manual are what the lists in the code make of them; and what is made there hangs together.

Kibana, Filebeat, Elastic Agent, Fluent Bit and Vector are not to be had here: their files are read as files, and the
fields that they name are held against the list. rsyslog, promtool and Elasticsearch read theirs (``make test-elk``).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.append(str(Path(__file__).parents[1]))  # behind everything else: fixer stays the one that is installed

import deploy.__main__ as command
from deploy import alerts, kibana, shippers
from deploy.panels import PANELS
from fixer.telemetry.events import EVENTS
from fixer.telemetry.fields import FIELDS
from fixer.telemetry.metrics import BY_NAME

MADE = command.files()


@pytest.mark.parametrize("name", MADE)
def test_each_file_is_as_it_would_be_made_now(name: str) -> None:
    assert (command.ROOT / name).read_text(encoding="utf-8") == MADE[name], "run: python -m deploy"


def test_nothing_lies_there_that_nobody_makes() -> None:
    folders = [command.ROOT / "deploy" / part for part in ("elk", "prometheus")]
    lying = {str(path.relative_to(command.ROOT)) for folder in folders for path in folder.iterdir()}
    assert lying <= MADE.keys()


def test_check_names_what_differs_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(command, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["deploy", "--check"])
    assert command.main() == 1
    assert capsys.readouterr().out.split() == list(MADE)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(sys, "argv", ["deploy"])
    assert command.main() == 0
    assert (tmp_path / "deploy/elk/install").stat().st_mode & 0o111
    monkeypatch.setattr(sys, "argv", ["deploy", "--check"])
    assert command.main() == 0


@pytest.mark.parametrize("name", [name for name in MADE if name.endswith((".yml", ".yaml"))])
def test_yaml_is_yaml(name: str) -> None:
    assert isinstance(yaml.safe_load(MADE[name]), dict)


def test_the_script_is_a_script() -> None:
    subprocess.run(["sh", "-n"], input=MADE["deploy/elk/install"], text=True, check=True)


# What is asked of the log


def test_questions_are_about_fields_and_events_that_there_are() -> None:
    actions = {action for several in EVENTS.values() for action in several}
    for panel in PANELS:
        named = {*panel.filters, *panel.columns, *filter(None, (panel.split, panel.weigh))}
        assert named <= FIELDS.keys(), panel.title
        assert not panel.weigh or FIELDS[panel.weigh].type == "long"
        for name, value in panel.filters.items():
            for each in value if isinstance(value, list) else [value]:
                assert name != "event.action" or each in actions
                assert name != "event.dataset" or each in EVENTS


def kueries() -> Iterator[str]:
    yield from (panel.kuery() for panel in PANELS)
    yield from kibana.RULES.values()


def test_kibana_asks_for_fields_and_events_that_there_are() -> None:
    actions = {action for several in EVENTS.values() for action in several}
    for kuery in kueries():
        for name, value in re.findall(r"([\w.@]+) : (\([^)]*\)|[\w.-]+)", kuery):
            assert name in FIELDS, kuery
            for each in re.findall(r"[\w.-]+", value.replace(" or ", " ")):
                assert name != "event.action" or each in actions, kuery
                assert name != "event.dataset" or each in EVENTS, kuery


def test_saved_objects_refer_to_each_other() -> None:
    objects = [json.loads(line) for line in MADE["deploy/elk/kibana.ndjson"].splitlines()]
    there = {(each["type"], each["id"]) for each in objects}
    assert len(there) == len(objects)
    for each in objects:
        for reference in each["references"]:
            assert (reference["type"], reference["id"]) in there, each["attributes"]
    [dashboard] = [each for each in objects if each["type"] == "dashboard"]
    panels = json.loads(dashboard["attributes"]["panelsJSON"])
    assert {panel["panelRefName"] for panel in panels} == {each["name"] for each in dashboard["references"]}


# Those who carry it


def test_each_data_set_has_an_output_where_a_shipper_needs_one_for_each() -> None:
    outputs = yaml.safe_load(shippers.FLUENT_BIT)["pipeline"]["outputs"]
    assert [each["match"] for each in outputs] == list(EVENTS)
    assert {each["index"] for each in outputs} == {f"logs-{dataset}-default" for dataset in EVENTS}
    [rule] = [each["rule"] for each in yaml.safe_load(shippers.FLUENT_BIT)["pipeline"]["filters"]]
    assert all(re.search(rule.split()[1], dataset) for dataset in EVENTS)


def test_every_shipper_takes_the_documents_own_id() -> None:
    asked = {
        shippers.RSYSLOG: "%$!event!id%",
        shippers.FILEBEAT_FILE: "fields: [event.id]",
        shippers.FILEBEAT_JOURNALD: "fields: [event.id]",
        shippers.FLUENT_BIT: "id_key: $event['id']",
        shippers.VECTOR: "id_key: event.id",
        MADE["deploy/elk/agent-pipeline.json"]: "{{event.id}}",
    }
    for text, words in asked.items():
        assert words in text
    assert "event.id" in FIELDS


@pytest.mark.skipif(shutil.which("rsyslogd") is None, reason="needs rsyslogd (rsyslog-elasticsearch)")
def test_rsyslog_understands_its_file(tmp_path: Path) -> None:
    path = tmp_path / "rsyslog.conf"
    path.write_text(f'global(workDirectory="{tmp_path}")\n' + shippers.RSYSLOG)
    done = subprocess.run(["rsyslogd", "-N1", "-f", str(path)], capture_output=True, text=True, check=False)
    if "could not load module" in done.stderr:
        pytest.skip("needs omelasticsearch (rsyslog-elasticsearch)")
    assert (done.returncode, [line for line in done.stderr.splitlines() if "error" in line.lower()]) == (0, [])


# Prometheus


def expressions() -> Iterator[str]:
    yield from (alert.expression for alert in alerts.ALERTS)
    yield from (expression for _, expression, _ in alerts.PANELS)


@pytest.mark.parametrize("expression", list(expressions()))
def test_expressions_are_about_metrics_and_labels_that_there_are(expression: str) -> None:
    for name in re.findall(r"\bfixer_(\w+)", expression):
        assert re.sub(r"_bucket$", "", name) in BY_NAME, name
    for name, matchers in re.findall(r"\bfixer_(\w+)\{([^}]*)\}", expression):
        assert {each.partition("=")[0] for each in matchers.split(",")} <= set(BY_NAME[name].labels)


def test_the_dashboard_asks_for_the_nodes_that_are_chosen() -> None:
    for panel in json.loads(MADE["deploy/prometheus/grafana.json"])["panels"]:
        [target] = panel["targets"]
        metrics = re.findall(r"\b(?:fixer|process)_\w+", target["expr"])
        assert target["expr"].count('instance=~"$instance"') == len(metrics) > 0


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    if shutil.which("promtool") is None:
        pytest.skip("needs promtool (prometheus)")
    for name in ("alerts.yml", "alerts_test.yml"):
        (tmp_path / name).write_text(MADE[f"deploy/prometheus/{name}"])
    return tmp_path


def promtool(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False)


def test_alerts_fire_when_they_must_and_only_then(rules: Path) -> None:
    assert promtool(rules, "check", "rules", "alerts.yml").returncode == 0
    done = promtool(rules, "test", "rules", "alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("never", ["vector(1)", "absent(vector(1))"])
def test_an_alert_that_always_or_never_fires_is_found(rules: Path, never: str) -> None:
    for alert in alerts.ALERTS:
        text = MADE["deploy/prometheus/alerts.yml"].replace(json.dumps(alert.expression), json.dumps(never))
        (rules / "alerts.yml").write_text(text)
        done = promtool(rules, "test", "rules", "alerts_test.yml")
        assert done.returncode != 0, alert.name
