"""The captures of field cases, each with the conclusion that an engineer would draw from it."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from support import shared

from fixer.config import Settings
from fixer.findings.finding import Place, Verdict
from fixer.scan import scan_file

FAULT, UNCLEAR, HARMLESS = Verdict

# By file: cause, verdict, packets, place; and for one way --taken-on.
FIELD = {
    "receiver-gro-healthy.pcap": [("unfinished", HARMLESS, 1)],
    "receiver-gro-and-5-broken-syns.pcap": [("unfinished", FAULT, 5), ("unfinished", HARMLESS, 1)],
    "answers-excuse-unanswered-syns.pcap": [("unfinished", FAULT, 20), ("unfinished", HARMLESS, 30)],
    "sender-outer-only.pcap": [("unfinished", HARMLESS, 3)],
    "both-unfinished-and-working.pcap": [("unfinished", HARMLESS, 3), ("unfinished", HARMLESS, 2)],
    "one-way-on-the-sender.pcap": [("unfinished", UNCLEAR, 4)],
    "loopback.pcap": [("unfinished", HARMLESS, 3)],
    "merged-by-lro.pcap": [("sound", HARMLESS, 2)],
    "never-computed-0000.pcap": [("never_computed", FAULT, 5)],
    "outer-ip-header-wrong.pcap": [("outer_ip_header", FAULT, 3)],
    "outer-zero-over-ipv6.pcap": [("outer_zero_over_ipv6", FAULT, 3)],
    "ffff-six-syns.pcap": [("outer_field_ffff", FAULT, 6)],
    "dns-masquerade-random-ports.pcap": [("outer_implied_ports", FAULT, 200)],
    "outer-computed-wrong-by-nic.pcap": [("outer_systematic", FAULT, 400)],
    "two-sections-ethernet-then-cooked.pcapng": [("unfinished", UNCLEAR, 3)],
    "unknown-interface-in-the-middle.pcapng": [("unfinished", UNCLEAR, 3)],
    "bytes-behind-gzip.pcap.gz": [("unfinished", UNCLEAR, 20)],
    "inner-tag-9100.pcap": [("unfinished", UNCLEAR, 1)],
    "with-fcs.pcap": [("unfinished", UNCLEAR, 3)],
}
PLACES = {
    "receiver-gro-healthy.pcap": Place.RECEIVER,
    "receiver-gro-and-5-broken-syns.pcap": Place.RECEIVER,
    "sender-outer-only.pcap": Place.SENDER,
    "both-unfinished-and-working.pcap": Place.ONE_HOST,
    "one-way-on-the-sender.pcap": Place.UNKNOWN,
    "loopback.pcap": Place.ONE_HOST,
}


@pytest.mark.parametrize("name", FIELD)
def test_field_captures_have_the_right_conclusion(name: str) -> None:
    found = scan_file(shared.path(f"field/{name}"), Settings(plain=True)).findings()
    assert [(one.cause, one.verdict, one.packets) for one in found] == FIELD[name]
    if name in PLACES:
        assert {one.taken for one in found} == {PLACES[name]}


@pytest.mark.parametrize(("address", "verdict"), [("192.0.2.52", HARMLESS), ("172.16.8.0", UNCLEAR)])
def test_where_it_was_taken_decides_what_one_direction_does_not(address: str, verdict: Verdict) -> None:
    path = shared.path("field/one-way-on-the-sender.pcap")
    (found,) = scan_file(path, Settings(), taken_on=ip_address(address).packed).findings()
    assert found.verdict is verdict


def test_taken_on_the_receiver_what_came_in_unfinished_is_a_fault() -> None:
    path = shared.path("field/inner-tag-9100.pcap")
    (found,) = scan_file(path, Settings(), taken_on=ip_address("192.168.77.2").packed).findings()
    assert (found.verdict, found.taken) == (FAULT, Place.RECEIVER)
