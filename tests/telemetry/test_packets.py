"""Log lines: ECS documents, whole and parseable, in whatever state the packets were."""

import io
import json
import os
import socket
import time
from typing import Any

import pytest
from support import shared
from support.packets import encapsulate, field, frame, in_state, segment, tunnelled, vxlan, with_field

from fixer import words as names
from fixer.datapath.diagnose import Diagnosis, Explanation, InnerState, OuterState, Vouch
from fixer.datapath.pipeline import Pipeline
from fixer.datapath.repair import Action
from fixer.datapath.walk import Reason
from fixer.telemetry.events import state_change, timestamp
from fixer.telemetry.log import Teller
from fixer.telemetry.packets import document, endpoint, happened, sentence

MILLISECOND = 1_000_000

PACKETS = {
    "unfinished": tunnelled("PARTIAL", "AGREES"),
    "unfinished, IPv6": tunnelled("PARTIAL", "GOOD", "udp", inner=6, outer=6),
    "outer unfinished": tunnelled("VERIFIES", "PARTIAL", "icmp"),
    "outer wrong": tunnelled("VERIFIES", "WRONG"),
    "outer IP header wrong": with_field(tunnelled("VERIFIES", "GOOD"), 10, 1),
    "outer zero over IPv6": tunnelled("VERIFIES", "ZERO", outer=6),
    "corrupt": tunnelled("WRONG", "GOOD"),
    "stale": with_field(tunnelled("VERIFIES", "GOOD"), 26, 0xFFFF),
    "VLAN": encapsulate(vxlan(frame(in_state(segment(4, "tcp"), 4, "tcp", "PARTIAL"), 42))),
    "ARP": encapsulate(vxlan(frame(bytes(28), ethertype=0x0806)), "PARTIAL"),
    "plain": in_state(segment(4, "tcp"), 4, "tcp", "PARTIAL"),
}


def told(packet: bytes, **settings: Any) -> dict[str, Any]:
    """The log line of one packet, parsed."""
    pipeline = Pipeline(ports=[4789], plain=True, vnis=[(4097, 4097)], **settings)
    pipeline.examine(bytearray(packet), when_ns=1_700_000_000_123 * MILLISECOND)
    stream = io.StringIO()
    Teller(lambda: happened([pipeline]), stream).tell()
    (line,) = stream.getvalue().splitlines()
    parsed: dict[str, Any] = json.loads(line)
    return parsed


def flattened(parsed: dict[str, Any], prefix: str = "") -> set[str]:
    found = set()
    for key, value in parsed.items():
        found |= flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key}
    return found


@pytest.mark.parametrize("packet", PACKETS.values(), ids=PACKETS.keys())
def test_every_field_is_ecs_s_or_under_fixer(packet: bytes) -> None:
    assert {name for name in flattened(told(packet)) if not name.startswith("fixer.")} <= shared.ecs_fields()


def test_a_line_says_everything_about_an_unfinished_packet() -> None:
    line = told(PACKETS["unfinished"])
    inner, outer = line["fixer"].pop("inner"), line["fixer"].pop("outer")
    assert line == {
        "@timestamp": "2023-11-14T22:13:20.123Z",
        "log.level": "info",
        "message": line["message"],
        "ecs.version": line["ecs.version"],
        "event": {
            "action": "repair",
            "category": ["network"],
            "dataset": "fixer.packet",
            "kind": "event",
            "module": "fixer",
            "reason": "inner checksum never finished",
            "type": ["allowed", "info"],
            "id": line["event"]["id"],
            "sequence": 1,
        },
        "host": {"name": socket.gethostname()},
        "data_stream": {"type": "logs", "dataset": "fixer.packet", "namespace": "default"},
        "source": {"ip": "10.0.1.176", "port": 37648},
        "destination": {"ip": "10.0.1.192", "port": 80},
        "network": {"transport": "tcp", "type": "ipv4", "iana_number": "6"},
        "service": {"name": "fixer", "version": line["service"]["version"]},
        "fixer": {
            "diagnosis": "inner_unfinished",
            "packet": {"bytes": len(PACKETS["unfinished"])},
            "packets_left_out": 0,
            "payload": {"verified": False},
            "policy": "repair",
            "vni": 4097,
            "vtep": {
                "source": {"ip": "192.0.2.4", "port": 60690},
                "destination": {"ip": "192.0.2.5", "port": 4789},
            },
        },
    }
    whole, at = tunnelled("VERIFIES", "GOOD"), 20 + 8 + 8 + 14 + 20 + 16
    found, right = field(PACKETS["unfinished"], at), field(whole, at)
    assert inner == {"state": "partial", "checksum": {"found": f"{found:04x}", "right": f"{right:04x}"}}
    same = f"{field(whole, 26):04x}"
    assert outer == {"state": "agrees", "checksum": {"found": same, "right": same}}


def test_a_sentence_for_who_reads_the_log_itself() -> None:
    line = told(PACKETS["corrupt"])
    assert line["log.level"] == "warning"
    assert line["event"]["type"] == ["denied"]
    assert line["message"].startswith("corrupt; inner ")
    assert line["message"].endswith("10.0.1.176:37648 > 10.0.1.192:80 tcp in 192.0.2.4 > 192.0.2.5 VNI 4097; dropped")


def test_a_monitor_says_what_it_would_do() -> None:
    line = told(PACKETS["corrupt"], monitor=True)
    assert line["event"]["action"] == "pass"
    assert line["fixer"]["policy"] == "drop"
    assert line["message"].endswith("would be dropped")


@pytest.mark.parametrize(
    ("name", "states"),
    [("outer unfinished", ("good", "partial")), ("stale", ("good", "stale")), ("ARP", ("none", "partial"))],
)
def test_states_are_named_as_scan_names_them(name: str, states: tuple[str, str]) -> None:
    line = told(PACKETS[name])
    assert (line["fixer"]["inner"]["state"], line["fixer"]["outer"]["state"]) == states


def test_what_is_not_there_is_not_told() -> None:
    assert "source" not in told(PACKETS["ARP"])
    assert "vtep" not in told(PACKETS["plain"])["fixer"]
    assert told(PACKETS["VLAN"])["network"]["inner"]["vlan"]["id"] == "42"
    assert "nf_nat" in told(PACKETS["stale"])["fixer"]["explanation"]
    assert "vouch" not in told(PACKETS["outer wrong"])["fixer"]


def test_who_vouches_is_told_with_what_is_righted() -> None:
    line = told(PACKETS["stale"])
    assert (line["event"]["action"], line["fixer"]["vouch"]) == ("repair", names.VOUCHES[Vouch.OPERATOR])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("outer IP header wrong", "outer IP header checksum wrong"),
        ("outer zero over IPv6", "outer checksum zero over IPv6"),
    ],
)
def test_what_a_receiver_discards_unseen_is_told_as_that(name: str, said: str) -> None:
    line = told(PACKETS[name])
    assert (line["event"]["action"], line["event"]["reason"]) == ("pass", said)
    assert line["message"].startswith(f"{said}; 10.0.1.176:37648 > 10.0.1.192:80 tcp in ")


def test_what_was_left_out_has_a_line() -> None:
    pipeline = Pipeline(ports=[4789], events_per_second=1)
    for _ in range(3):
        pipeline.examine(bytearray(PACKETS["unfinished"]), when_ns=MILLISECOND)
    pipeline.finish(MILLISECOND)
    _, summary = pipeline.drain()
    assert sentence(summary) == "inner checksum never finished: 2 more from 192.0.2.4, not told"
    assert document(summary)["fixer.packets_left_out"] == 2


def test_a_log_that_nobody_reads_delays_no_packet_and_no_end() -> None:
    """A pipe that is full: the teller hangs in its write, the ring fills and counts, the packets go on."""
    reading, writing = os.pipe()
    try:
        with open(writing, "w") as stream:  # noqa: PTH123 — a descriptor has no path
            pipeline = Pipeline(ports=[4789], events_per_second=1_000_000)
            teller = Teller(lambda: happened([pipeline]), stream)
            teller.start()
            begun = time.monotonic()
            for when in range(20_000):
                pipeline.examine(bytearray(PACKETS["unfinished"]), when_ns=when)
            assert time.monotonic() - begun < 5
            assert pipeline.counters()["events_lost"] > 0
            begun = time.monotonic()
            assert not teller.finish(0.2, state_change("stopped", "the end"))
            assert time.monotonic() - begun < 2
            assert teller.is_alive(), "the pipe was not full: nothing was shown"
            while teller.is_alive():
                os.read(reading, 1 << 16)
                teller.join(0.001)
    finally:
        os.close(reading)


def test_a_log_that_cannot_be_written_ends_nothing() -> None:
    with open("/dev/full", "w") as stream:  # noqa: PTH123 — as the shell opens a log
        teller = Teller(lambda: happened([Pipeline(ports=[4789])]), stream)
        teller.say(state_change("started", "on a full disk"))
        teller.start()
        assert not teller.finish(5, state_change("stopped", "the end"))
        assert not teller.is_alive()
        assert teller.failed
        with pytest.raises(OSError, match="No space left"):
            stream.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def test_every_enumerator_has_a_name() -> None:
    tables = {
        Diagnosis: names.DIAGNOSES,
        Reason: names.REASONS,
        Explanation: names.EXPLANATIONS,
        Vouch: names.VOUCHES,
        InnerState: names.INNER_STATES,
        OuterState: names.OUTER_STATES,
        Action: names.ACTIONS,
    }
    for enumeration, table in tables.items():
        assert list(table) == list(enumeration), enumeration.__name__


def test_small_things() -> None:
    assert endpoint("10.0.0.1", 80) == "10.0.0.1:80"
    assert endpoint("2001:db8::1", 80) == "[2001:db8::1]:80"
    assert endpoint("2001:db8::1", 0) == "2001:db8::1"
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"
    failed = state_change("failed", "a queue failed", {"fixer.counters.packets": 3})
    assert (failed.level, failed.fields["event.outcome"], failed.fields["fixer.counters.packets"]) == (
        "error",
        "failure",
        3,
    )
    with pytest.raises(KeyError):
        state_change("confused", "")
