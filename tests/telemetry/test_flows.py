"""What is said of normalised connections: once, with numbers, and what to do."""

from __future__ import annotations

import sys

from support.conversation import ACK, CLIENT, Connection, Node

from fixer.findings.finding import Finding, Role, Verdict
from fixer.telemetry.flows import FlowWatch


def watched(node: Node) -> FlowWatch:
    return FlowWatch(node.flows, node.pipeline)


def only(watch: FlowWatch) -> Finding:
    [found] = watch.findings()
    return found


def test_nothing_is_said_of_what_is_well() -> None:
    node = Node()
    watch = watched(node)
    Connection(node, 1, 5_000).open()
    one = Connection(node, 2, 0)
    one.open()
    assert watch.findings() == []
    one.close()
    assert list(watch.at_stop()) == []
    assert list(watch.at_start(0, ())) == []


def test_a_missing_way_back_names_the_source_and_what_to_do() -> None:
    node = Node()
    watch = watched(node)
    lone = Connection(node, 2, 0)
    lone.syn()
    lone.send(ACK)
    found = only(watch)
    assert (found.role, found.cause, found.verdict) == (Role.HOST, "way_back_missing", Verdict.FAULT)
    assert f"replies to {CLIENT} do not pass" in found.text
    assert "fixer on again" in found.text
    assert found.who == found.beside["fixer.timestamps.source.ip"] == CLIENT
    assert found.packets == found.beside["fixer.timestamps.connections"] == 1


def test_it_is_counted_until_it_is_over_and_then_anew() -> None:
    node = Node()
    watch = watched(node)
    for port in (2, 3):
        lone = Connection(node, port, 0)
        lone.syn()
        lone.send(ACK)
        assert only(watch).packets == 1
        watch.forget(only(watch))
        assert watch.findings() == []


def test_a_full_table_and_a_flood() -> None:
    node = Node()
    watch = watched(node)
    for port in range(1, 300):
        Connection(node, port, 0).syn()
    found = only(watch)
    assert (found.cause, found.verdict) == ("syn_flood", Verdict.UNCLEAR)
    assert found.beside["fixer.timestamps.connections"] == 299 - 256
    node = Node()
    watch = watched(node)
    for port in range(1, 1025):
        Connection(node, port, 0).open()
    Connection(node, 2000, 0).syn()
    found = only(watch)
    assert found.cause == "flows_full"
    assert "no room for 1 new connections (1024 of 1024 flows)" in found.text
    assert "timestamps.flows" in found.text


def test_damage() -> None:
    node = Node()
    watch = watched(node)
    one = Connection(node, 1, 0)
    one.open()
    for at in range(4096 + 64 * 136, len(node.memory) - 64, 64):
        node.memory[at + 44] ^= 1
    one.send(ACK)
    assert only(watch).cause == "flows_damaged"


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
    [said] = watch.news()
    assert said.message.startswith("draining: new connections are left alone, 1 normalised ones")
    assert list(watch.news()) == []
