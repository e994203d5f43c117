"""Every kind of event that can be told is told here, and what stands in it is ECS's, or ours, and of its type.

The one list (`fixer.telemetry.fields`) is held between the code and what is made of it: a field that the code tells and
the list lacks would be refused by Elasticsearch (`dynamic: strict`), and is an error here.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import shared
from support.conversation import ACK, Connection, Node
from support.packets import encapsulate, frame, in_state, segment, tunnelled, vxlan, with_field

sys.path.append(str(Path(__file__).parents[2]))  # behind everything else: fixer stays the one that is installed

from deploy import elastic
from fixer.config import Settings
from fixer.daemon import guard as guarding
from fixer.daemon import run
from fixer.daemon.finishing import Finishing
from fixer.daemon.guard import Guard
from fixer.daemon.lost import Loss
from fixer.daemon.report import Reporter
from fixer.datapath.pipeline import Pipeline
from fixer.datapath.snat import Clock, Sight
from fixer.findings.finding import Fact, Finding, Role, Verdict
from fixer.findings.lifecycle import Case, News, Stage
from fixer.host.machine import Host
from fixer.host.operator import Operator
from fixer.host.ruleset import Process
from fixer.kernel.finisher import OUTCOMES, Finisher
from fixer.nfqueue.queue import Queue
from fixer.now import Now
from fixer.rules.selection import IPV4, Selection
from fixer.state.intent import Intent
from fixer.state.report import InKernel
from fixer.telemetry import findings, snat
from fixer.telemetry.events import CATEGORIES, EVENTS, Saying, event, state_change
from fixer.telemetry.fields import ECS, FIELDS
from fixer.telemetry.flows import FlowWatch
from fixer.telemetry.log import LOST, Origin, Teller
from fixer.telemetry.packets import happened

SECOND = 1_000_000_000
NOW = datetime(2026, 1, 31, 3, 0, tzinfo=UTC)


def packets() -> Iterator[Saying]:
    """Each action, each kind of diagnosis, and what was left out."""
    for states in (("PARTIAL", "AGREES"), ("VERIFIES", "PARTIAL"), ("WRONG", "GOOD"), ("VERIFIES", "WRONG")):
        for inner in (4, 6):
            pipeline = Pipeline(ports=[4789], vnis=[(4097, 4097)], events_per_second=1)
            packet = tunnelled(*states, "tcp", inner=inner)
            for number in range(3):
                pipeline.examine(bytearray(packet), when_ns=NOW_NS + number)
            pipeline.examine(bytearray(with_field(tunnelled("VERIFIES", "GOOD"), 26, 0xFFFF)), when_ns=NOW_NS)
            pipeline.finish(NOW_NS)
            yield from happened([pipeline])
    tagged = encapsulate(vxlan(frame(in_state(segment(4, "tcp"), 4, "tcp", "PARTIAL"), 42)))
    no_ip = encapsulate(vxlan(frame(bytes(28), ethertype=0x0806)), "PARTIAL")
    for packet in (tagged, no_ip):
        pipeline = Pipeline(ports=[4789])
        pipeline.examine(bytearray(packet), when_ns=NOW_NS)
        yield from happened([pipeline])
    plain = Pipeline(ports=[4789], plain=True)
    plain.examine(bytearray(tunnelled("PARTIAL", "GOOD")[50:]), when_ns=NOW_NS)
    yield from happened([plain])


NOW_NS = int(NOW.timestamp()) * SECOND


def daemon() -> Iterator[Saying]:
    """What a daemon says of itself; its last line with everything that it counts."""
    node = Node()
    queue = Queue(Pipeline(ports=[4789]), 9)
    lane: Any = SimpleNamespace(number=9, queue=SimpleNamespace(flags={"fail_open": True, "gso": True}))
    yield run.started(Settings(), [lane])
    yield run.reloaded(["monitor"])
    for action in ("not-reloaded", "degraded", "failed"):
        yield state_change(action, "for a reason")
    lane = SimpleNamespace(number=9, pipeline=node.pipeline, queue=queue)
    lane.queue = SimpleNamespace(flags={"fail_open": True, "gso": True}, counters=queue.counters)
    in_kernel = InKernel(wanted=True, left=dict.fromkeys(OUTCOMES, 0))
    reporter = Reporter(Path("none"), Settings(), [lane], node.flows, lambda: in_kernel)
    counted = reporter.counters() | {"log": Teller(lambda: (), io.StringIO()).counters()}
    yield state_change("stopped", "stopped", {f"fixer.counters.{name}": value for name, value in counted.items()})
    yield state_change("log-lost", "2 lines", {LOST: 2})
    yield state_change("failed", "it cannot go on", {"process.exit_code": 71})


def rules() -> Iterator[Saying]:
    """What an operator says, and what the guard does. The kernel is not asked: its answers are made here."""
    said: list[Saying] = []
    selection = Selection.of(Settings())
    intents: list[Intent[Selection] | None] = []
    fakes = SimpleNamespace(read=lambda host: intents[-1], put=lambda host, intent: None)
    kernel = SimpleNamespace(rule_packets=lambda host, queue: {"ipv4": 12, "ipv6": 3}, off=lambda host: None)

    def intent(on: bool, until: datetime | None = None) -> Intent[Selection]:
        by = Operator("root", login="anna", sudo="anna")
        return Intent(on=on, selection=selection, since=datetime.now(UTC), until=until, by=by, reason="INC-4711")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guarding, "wanted", fakes)
        patch.setattr(guarding, "switch", kernel)
        one = Guard(Settings(), Host(), said.append)
        for each in (intent(True), intent(True, datetime.now(UTC) + timedelta(hours=2)), intent(False)):
            intents.append(each)
            one._tell(each)
        loss, process = Loss(IPV4, "gone", "the rule is gone"), Process(4711, "iptables")
        for second in range(guarding.MOST + 1):
            one._restore(Now(float(second), 0), intent(True), [loss], process)
        one._end(intent(True))
        patch.setattr(fakes, "read", lambda host: raised())
        one.look(Now(100.0, 0), None)
    yield from said
    for action in ("outgoing-begun", "outgoing-ended", "outgoing-failed"):
        yield event("fixer.rule", action, "as fixer.daemon.outgoing says it")


def raised() -> Any:
    from fixer.errors import SystemRefused

    raise SystemRefused("iptables has not ended after 30 s")


def in_kernel() -> Iterator[Saying]:
    """Of the program in the kernel. The kernel is not asked: its answers are made here."""
    said: list[Saying] = []
    one = Finishing(Settings(), Host(), [], said.append)
    one._complain("this kernel does not take the program: Operation not permitted")
    one._attached._there = {"eth0": SimpleNamespace(how="TCX", ahead=lambda: 1)}  # type: ignore[dict-item]
    one._attached._tell_ahead()
    one._intent = SimpleNamespace(until=None)  # type: ignore[assignment]
    one._finisher = type("Taking", (), {"put": lambda *_, **__: True, "WAYS": Finisher.WAYS})()
    key = bytes(12) + bytes([192, 0, 2, 4]) + bytes(22) + (4).to_bytes(2, sys.byteorder)
    one._confirm(key, 1, Now(0.0, 0))
    one._say_ended("192.0.2.4", "it is not wanted any more")
    yield from said


def flows() -> Iterator[Saying]:
    node = Node()
    watch = FlowWatch(node.flows, node.pipeline)
    Connection(node, 1, 5_000).open()
    Connection(node, 2, 0).open()
    yield from watch.at_start(2, ["file: 1 damaged entries"])
    node.memory[32:36] = (1).to_bytes(4, "little")
    yield from watch.news()
    yield from watch.at_stop()


def found() -> Iterator[Saying]:
    """Findings of all who find something, at each stage."""
    clocks = tuple(Clock(hz, 30, NOW_NS, NOW_NS + 60 * SECOND) for hz in (1000.0, 250.0))
    several = [
        Finding(
            "192.0.2.1",
            Role.VTEP,
            "unfinished",
            Verdict.FAULT,
            "It is so.",
            packets=12,
            of=40,
            vnis=(7, 9),
            evidence=(Fact("sent again and never answered", 3, 0),),
            cure="`ethtool -K DEV tx-checksum-ip-generic off`",
            kernel="before 5.7 (ea64d8d6c675)",
        )
    ]
    several.append(a_suspect(clocks))
    node = Node()
    watch = FlowWatch(node.flows, node.pipeline)
    lone = Connection(node, 2, 0)
    lone.syn()
    lone.send(ACK)
    several += watch.findings()
    node = Node()
    watch = FlowWatch(node.flows, node.pipeline)
    for port in range(1, 1025):
        Connection(node, port, 0).open()
    Connection(node, 2000, 0).syn()
    several += watch.findings()
    for finding in several:
        case = Case("00c0ffee00c0ffee", finding, NOW_NS, NOW_NS + SECOND, 0.0, finding, 0.0)
        case.samples = "0123456789abcdef.pcapng"
        yield from (findings.event(News(stage, case)) for stage in Stage)
    yield findings.left_out(3)


def a_suspect(clocks: tuple[Clock, ...]) -> Finding:
    fields = {"version": 4, "source": "192.0.2.7", "destination": "10.0.0.5", "vni": 7, "full": False}
    sight = Sight(**fields, syns=60, fits=57, chance=0.1, refused=20, clocks=clocks)  # type: ignore[arg-type]
    suspect = snat.judge(sight)
    assert suspect is not None
    return snat.finding(suspect)


PRODUCERS: list[Callable[[], Iterator[Saying]]] = [packets, daemon, rules, in_kernel, flows, found]


@pytest.fixture(scope="module")
def documents() -> list[dict[str, Any]]:
    """One of each, as it is written."""
    sayings = [saying for producer in PRODUCERS for saying in producer()]
    stream = io.StringIO()
    Teller(lambda: sayings, stream, Origin("site-a", {"env": "prod"}, ["edge"])).tell()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def flattened(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """By dotted names. ``labels`` are one field, whatever is in them."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, dict) and prefix + key != "labels":
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def test_every_kind_of_event_is_here(documents: list[dict[str, Any]]) -> None:
    told = {(each["event"]["dataset"], each["event"]["action"]) for each in documents}
    assert told == {(dataset, action) for dataset, several in EVENTS.items() for action in several}


def test_every_field_is_in_the_list_and_the_list_is_in_the_template(documents: list[dict[str, Any]]) -> None:
    told = {name for each in documents for name in flattened(each)}
    assert told - FIELDS.keys() == set()
    template = flattened_properties(
        elastic.component_ecs()["template"]["mappings"]["properties"]
        | elastic.component_fixer()["template"]["mappings"]["properties"]
    )
    assert template == {name: field.type for name, field in FIELDS.items()}


def test_what_is_in_the_list_is_told(documents: list[dict[str, Any]]) -> None:
    """A field that nobody tells any more goes from the list."""
    told = {name for each in documents for name in flattened(each)}
    assert FIELDS.keys() - told == set()


def flattened_properties(properties: dict[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, each in properties.items():
        if "properties" in each:
            found |= flattened_properties(each["properties"], f"{prefix}{name}.")
        else:
            found[prefix + name] = each["type"]
    return found


CHECKS: dict[str, Callable[[Any], bool]] = {
    "keyword": lambda value: isinstance(value, str),
    "constant_keyword": lambda value: isinstance(value, str),
    "match_only_text": lambda value: isinstance(value, str),
    "date": lambda value: datetime.fromisoformat(value).tzinfo is not None,
    "ip": lambda value: bool(str(ip_address(value))),
    "long": lambda value: type(value) is int and -(1 << 63) <= value < 1 << 63,
    "float": lambda value: type(value) in (int, float),
    "boolean": lambda value: type(value) is bool,
    "object": lambda value: isinstance(value, dict),
}


def test_every_value_is_of_its_type(documents: list[dict[str, Any]]) -> None:
    for document in documents:
        for name, value in flattened(document).items():
            for each in value if isinstance(value, list) else [value]:
                assert CHECKS[FIELDS[name].type](each), (name, each)


def test_ours_of_ecs_are_ecs_s_with_its_types() -> None:
    with shared.path(shared.ECS_FIELDS).open(newline="") as text:
        types = {row["Field"]: row["Type"] for row in csv.DictReader(text)}
    assert {field.name: field.type for field in ECS} == {field.name: types.get(field.name) for field in ECS}
    assert not [name for name in FIELDS if name in types and not name.startswith("fixer.") and FIELDS[name] not in ECS]


# https://www.elastic.co/docs/reference/ecs/ecs-category-field-values-reference: the types that a category may have.
ALLOWED = {
    "network": {"access", "allowed", "connection", "denied", "end", "info", "protocol", "start"},
    "process": {"access", "change", "end", "info", "start"},
    "configuration": {"access", "change", "creation", "deletion", "info"},
}


def test_categories_have_types_that_ecs_allows() -> None:
    for dataset, several in EVENTS.items():
        for each in several.values():
            assert set(each.types) <= ALLOWED[CATEGORIES[dataset]], (dataset, each)


def test_an_event_that_is_in_no_table_cannot_be_told() -> None:
    with pytest.raises(KeyError):
        state_change("confused", "")
