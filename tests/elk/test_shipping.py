"""The log in a real Elasticsearch, shipped by a real rsyslog as `deploy/elk` has it: once, all of it, whatever stops.

Of what the server of :mod:`support.elastic` lacks, three things are replaced: an index of its own for each data stream,
``text`` for ``match_only_text``, ``keyword`` for ``constant_keyword``. The rest of the template is as shipped, strict.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support import elastic, shipping
from support.elastic import Server
from support.netns import Namespace
from support.road import QUEUE, Road
from support.shipping import Rsyslog

from deploy import panels
from fixer.host.machine import Host
from fixer.lab import net

pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.timeout(2400)]

EVENTS = int(os.environ.get("FIXER_ELK_EVENTS", "100000"))
VTEPS = [f"192.0.2.{number}" for number in range(101, 121)]
KINDS = ["inner_unfinished"] * 10 + ["corrupt"] * 10
SHIPPED_SECONDS = 900.0


class Shipped(NamedTuple):
    """What there is in the end: every line of the log, and the server that was sent it."""

    lines: list[dict[str, Any]]
    server: Server
    while_down: tuple[int, int]
    """Packets that were sent and that came out while the server was down."""
    open_lines: list[dict[str, Any]]
    """The lines so far, at a moment when the daemon followed findings …"""
    open_there: list[dict[str, Any]]
    """… and what the server answered then to who asks which are open."""
    refused: str


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


class Flood:
    """Packets from twenty VTEPs until the log has so many lines; what comes out at the other end is counted."""

    def __init__(self, road: Road, log: Path) -> None:
        self._road, self._log = road, log
        self._read = self._lines = self._number = 0
        self.sent = self.came = 0

    def lines(self) -> int:
        with self._log.open("rb") as file:
            file.seek(self._read)
            while block := file.read(1 << 20):
                self._lines += block.count(b"\n")
            self._read = file.tell()
        return self._lines

    def up_to(self, count: int) -> None:
        deadline = time.monotonic() + 600
        while self.lines() < count:
            assert time.monotonic() < deadline, f"only {self._lines} lines"
            for _ in range(50):  # as many as the ring holds
                shipping.flood(self._road, VTEPS, KINDS, self._number)
                self._number += 1
                self.sent += len(VTEPS)
            self._drain()

    def _drain(self) -> None:
        """Corrupt packets are dropped: half of them come out."""
        while self.came < self.sent // 2:
            before = self.came
            while True:
                try:
                    data = self._road.outlet.recv(65535)
                except BlockingIOError:
                    break
                assert data[:-4] != shipping.PAYLOADS["inner_unfinished"], "unrepaired"
                self.came += 1
            if self.came == before:
                time.sleep(0.01)
                if not self._road.held():
                    time.sleep(0.2)
                    if self.came == before and not self._pending():
                        return

    def _pending(self) -> bool:
        return bool(select.select([self._road.outlet], [], [], 0)[0])


def read(log: Path) -> list[dict[str, Any]]:
    """The whole lines of it: the daemon may be writing one."""
    return [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]


def is_opened(line: dict[str, Any]) -> bool:
    return bool(line["event"]["action"] == "finding-opened")


def last_of_findings(server: Server, sequence: int = 2**62) -> list[dict[str, Any]]:
    """Of each finding the last event up to that line: one that is not closed is open."""
    until_then = {"range": {"event.sequence": {"lte": sequence}}}
    body = {
        "query": {"bool": {"filter": [*panels.FINDINGS.must(), until_then, {"exists": {"field": "fixer.finding.id"}}]}},
        "collapse": {"field": "fixer.finding.id"},
        "sort": [{"event.sequence": "desc"}],
        "size": 1000,
    }
    return [hit["_source"] for hit in server.search(body)["hits"]["hits"]]


@pytest.fixture(scope="module")
def shipped() -> Iterator[Shipped]:
    """A daemon that is flooded, a shipper, and a server that goes away in the middle and comes back."""
    elastic.archive()
    host, name = Host(), net.own_name()
    folder = Path(tempfile.mkdtemp(prefix="fixer-elk-"))  # below pytest's directory the server's user may not go
    folder.chmod(0o755)
    log = folder / "fixer.json"
    config = folder / "fixer.toml"
    config.write_text(f'[log]\nto = "{log}"\nper_second = 1000\nlabels = {{ site = "fra1" }}\ntags = ["edge"]\n')
    (folder / "es").mkdir()
    (folder / "rsyslog").mkdir()
    with (
        Namespace(f"{name}-elk", host) as there,
        net.Namespace(f"{name}-left", host) as sender,
        net.Namespace(f"{name}-right", host) as receiver,
    ):
        road = Road(sender, receiver)
        server = Server(folder / "es", 9200, there)
        rsyslog = Rsyslog(there, folder / "rsyslog", log, 9200)
        daemon = None
        try:
            server.start()
            server.ask("PUT", "/_index_template/logs-fixer", elastic.plain_template())
            rsyslog.start()
            command = (sys.executable, "-m", "fixer")
            options = (f"--queue={QUEUE}",)
            daemon = receiver.start(*command, "run", *options, f"--config={config}")
            flood = Flood(road, log)
            until(log.exists, 30, "no log")
            assert receiver.run(*command, "on", *options, "--reason", "INC-4711: no TCP").status == 0
            flood.up_to(EVENTS * 3 // 10)
            server.stop()
            sent, came = flood.sent, flood.came
            flood.up_to(EVENTS * 7 // 10)
            while_down = flood.sent - sent, flood.came - came
            server.start()
            flood.up_to(EVENTS)
            until(lambda: sum(map(is_opened, read(log))) >= len(VTEPS), 60, "the daemon has not found all of them")
            open_lines = read(log)
            until(lambda: server.count() >= len(open_lines), SHIPPED_SECONDS, "not everything came")
            open_there = last_of_findings(server, open_lines[-1]["event"]["sequence"])
            assert receiver.run(*command, "off", "--reason", "cured").status == 0
            time.sleep(2)  # the guard looks once a second
            net.stop(daemon)
            lines = read(log)
            until(lambda: server.count() >= len(lines), SHIPPED_SECONDS, "not everything came")
            refused = rsyslog.refused.read_text() if rsyslog.refused.exists() else ""
            yield Shipped(lines, server, while_down, open_lines, open_there, refused)
        finally:
            if daemon:
                net.stop(daemon)
            rsyslog.stop()
            server.stop()
            shipping.close(road)
            road.inlet.close()
            road.outlet.close()
            shutil.rmtree(folder, ignore_errors=True)


def packets(shipped: Shipped) -> list[dict[str, Any]]:
    return [line for line in shipped.lines if line["event"]["dataset"] == "fixer.packet"]


def test_every_line_is_there_once_under_its_id(shipped: Shipped) -> None:
    there = list(shipped.server.identities())
    assert len(shipped.lines) >= EVENTS
    assert sorted(there) == sorted(line["event"]["id"] for line in shipped.lines)
    assert shipped.refused == ""


def test_no_packet_waited_for_a_server_that_was_down(shipped: Shipped) -> None:
    """All that are repaired came out while it was down, and nothing was lost by a queue."""
    sent, came = shipped.while_down
    assert came == sent // 2 > 0
    counted = shipped.lines[-1]["fixer"]["counters"]
    assert counted["log"]["lost"] == counted["overruns"] == counted["unsent"] == 0


def test_a_line_that_is_sent_again_is_no_second_document(shipped: Shipped) -> None:
    line = shipped.lines[0]
    index = f"logs-{line['event']['dataset']}-default"
    before = shipped.server.count()
    action = {"create": {"_index": index, "_id": line["event"]["id"]}}
    answer = shipped.server.ask("POST", "/_bulk", f"{json.dumps(action)}\n{json.dumps(line)}\n")
    assert [item["create"]["status"] for item in answer["items"]] == [409]
    assert shipped.server.count() == before


def test_a_field_that_is_not_in_the_list_is_refused(shipped: Shipped) -> None:
    with pytest.raises(AssertionError, match="strict_dynamic_mapping_exception"):
        shipped.server.ask("POST", "/logs-fixer.packet-default/_create/new", {"fixer": {"invented": 1}})


def test_a_vtep_s_faults(shipped: Shipped) -> None:
    told = Counter(line["fixer"]["vtep"]["source"]["ip"] for line in packets(shipped) if "vtep" in line["fixer"])
    answer = shipped.server.search(panels.VTEPS.search())["aggregations"]["split"]["buckets"]
    assert {bucket["key"]: bucket["doc_count"] for bucket in answer} == told
    assert told.keys() >= set(VTEPS)


def test_a_vtep_s_faults_over_time(shipped: Shipped) -> None:
    body = panels.DIAGNOSES.search("10s")
    body["query"]["bool"]["filter"].append({"term": {"fixer.vtep.source.ip": VTEPS[0]}})
    found: Counter[tuple[int, str]] = Counter()
    for bucket in shipped.server.search(body)["aggregations"]["time"]["buckets"]:
        found.update({(bucket["key"] // 10_000, each["key"]): each["doc_count"] for each in bucket["split"]["buckets"]})
    told: Counter[tuple[int, str]] = Counter()
    for line in packets(shipped):
        if line["fixer"].get("vtep", {}).get("source", {}).get("ip") == VTEPS[0]:
            seconds = int(time.mktime(time.strptime(line["@timestamp"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone)
            told[seconds // 10, line["fixer"]["diagnosis"]] += 1
    assert found == told


@pytest.mark.parametrize(
    ("field", "cidr"),
    [("source.ip", "10.0.1.0/24"), ("source.ip", "10.9.0.0/16"), ("fixer.vtep.source.ip", "192.0.2.96/28")],
)
def test_who_is_in_a_network(shipped: Shipped, field: str, cidr: str) -> None:
    def address(line: dict[str, Any]) -> str | None:
        found: Any = line
        for step in field.split("."):
            found = found.get(step, {}) if isinstance(found, dict) else {}
        return found or None

    told = sum(bool(address(line)) and ip_address(address(line)) in ip_network(cidr) for line in shipped.lines)
    body = {"query": {"term": {field: cidr}}, "size": 0, "track_total_hits": True}
    assert shipped.server.search(body)["hits"]["total"]["value"] == told


def test_what_is_open(shipped: Shipped) -> None:
    """While the daemon follows findings, those; a daemon that stops closes all of its own."""

    def last(lines: list[dict[str, Any]]) -> dict[str, tuple[str, str, str]]:
        return {
            finding["id"]: (line["event"]["action"], finding["who"], finding["cause"])
            for line in lines
            for finding in [line["fixer"].get("finding", {})]
            if "id" in finding
        }

    opened = last(shipped.open_there)
    assert opened == last(shipped.open_lines)
    open_now = {who: cause for action, who, cause in opened.values() if action != "finding-closed"}
    assert open_now.keys() >= set(VTEPS)
    assert len({open_now[vtep] for vtep in VTEPS}) == len(set(KINDS)), "one cause for each kind of fault"
    ended = last(last_of_findings(shipped.server))
    assert ended == last(shipped.lines)
    assert ended.keys() >= opened.keys()
    assert {action for action, _, _ in ended.values()} == {"finding-closed"}


def test_who_has_switched_the_rule(shipped: Shipped) -> None:
    hits = [hit["_source"] for hit in shipped.server.search(panels.RULE.search())["hits"]["hits"]]
    switched = [(hit["event"]["action"], hit["event"].get("reason"), hit["user"]["name"]) for hit in reversed(hits)]
    assert ("rule-on", "INC-4711: no TCP", "root") in switched
    assert switched[-1] == ("rule-off", "cured", "root")


def test_the_answers_that_the_dashboard_shows(shipped: Shipped) -> None:
    """Kept for the picture in docs/elk.md: `python -m deploy.picture build/elk/answers.json docs/img/elk.png`."""
    answers = {panel.title: shipped.server.search(panel.search("5s")) for panel in panels.PANELS}
    assert all(answer["timed_out"] is False and answer["_shards"]["failed"] == 0 for answer in answers.values())
    assert answers[panels.ACTIONS.title]["hits"]["total"]["value"] == len(packets(shipped))
    elastic.CACHE.mkdir(parents=True, exist_ok=True)
    (elastic.CACHE / "answers.json").write_text(json.dumps(answers))
