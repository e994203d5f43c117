"""What is said of normalised connections: once, with numbers, and what to do."""

from __future__ import annotations

import sys

from support.conversation import ACK, CLIENT, Connection, Node

from fixer.now import Now
from fixer.telemetry.flows import QUIET_SECONDS, FlowWatch
from fixer.telemetry.log import Saying


def actions(sayings: object) -> list[str]:
    return [saying.fields["event.action"] for saying in sayings]  # type: ignore[attr-defined]


def watched(node: Node) -> FlowWatch:
    return FlowWatch(node.flows, node.pipeline)


def only(watch: FlowWatch, now: float) -> Saying:
    [found] = news(watch, now)
    return found


def news(watch: FlowWatch, now: float) -> list[Saying]:
    return list(watch.news(Now(now, 0)))


def test_nothing_is_said_of_what_is_well() -> None:
    node = Node()
    watch = watched(node)
    Connection(node, 1, 5_000).open()
    one = Connection(node, 2, 0)
    one.open()
    assert news(watch, 1.0) == []
    one.close()
    assert list(watch.at_stop()) == []
    assert list(watch.at_start(0, ())) == []


def test_a_missing_way_back_names_the_source_and_what_to_do() -> None:
    node = Node()
    watch = watched(node)
    lone = Connection(node, 2, 0)
    lone.syn()
    lone.send(ACK)
    found = only(watch, 1.0)
    assert found.level == "warning"
    assert f"replies to {CLIENT} do not pass" in found.message
    assert "fixer on again" in found.message
    assert found.fields["fixer.timestamps.source.ip"] == CLIENT
    assert found.fields["fixer.timestamps.connections"] == 1


def test_what_goes_on_is_said_again_after_a_while_with_all_of_it() -> None:
    node = Node()
    watch = watched(node)
    Connection(node, 1, 70_000).send(ACK)
    for port in range(2, 5):
        Connection(node, port, 0).syn()
        found = news(watch, float(port))
        assert actions(found) == (["way-back-missing"] if port == 2 else [])
    assert only(watch, 2.0 + QUIET_SECONDS).fields["fixer.timestamps.connections"] == 2
    assert news(watch, 4.0 + 2 * QUIET_SECONDS) == []


def test_a_full_table_and_a_flood() -> None:
    node = Node()
    watch = watched(node)
    for port in range(1, 300):
        Connection(node, port, 0).syn()
    found = only(watch, 1.0)
    assert found.fields["event.action"] == "syn-flood"
    assert found.fields["fixer.timestamps.connections"] == 299 - 256
    node = Node()
    watch = watched(node)
    for port in range(1, 1025):
        Connection(node, port, 0).open()
    Connection(node, 2000, 0).syn()
    found = only(watch, 1.0)
    assert found.fields["event.action"] == "flows-full"
    assert "no room for 1 new connections (1024 of 1024 flows)" in found.message
    assert "timestamps.flows" in found.message


def test_damage() -> None:
    node = Node()
    watch = watched(node)
    one = Connection(node, 1, 0)
    one.open()
    for at in range(4096 + 64 * 136, len(node.memory) - 64, 64):
        node.memory[at + 44] ^= 1
    one.send(ACK)
    assert only(watch, 1.0).fields["event.action"] == "flows-damaged"


def test_found_again_and_left_behind() -> None:
    node = Node()
    watch = watched(node)
    Connection(node, 1, 5_000).open()
    Connection(node, 2, 0).open()
    found, lost = watch.at_start(2, ["file: 1 damaged entries"]), watch.at_stop()
    assert [(each.level, each.message) for each in found] == [
        ("warning", "file: 1 damaged entries"),
        ("info", "2 connections found again, 1 of them normalised"),
    ]
    [left] = lost
    assert left.level == "warning"
    assert left.message.startswith("1 normalised connections stall until fixer runs again")


def test_draining_is_said_once() -> None:
    node = Node()
    watch = watched(node)
    Connection(node, 1, 5_000).open()
    Connection(node, 2, 0).open()
    node.memory[32:36] = (1).to_bytes(4, sys.byteorder)  # as `fixer off --drain` writes it
    assert only(watch, 1.0).message.startswith("draining: new connections are left alone, 1 normalised ones")
    assert news(watch, 2.0) == []
