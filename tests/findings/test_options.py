"""What TCP options say of packets that wait: a selective block, an echo; and options that nobody ought to send."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.dialogue import ACK, PUSH, SYN, Capture, Connection

from fixer.findings.finding import Verdict

FAULT, UNCLEAR, HARMLESS = Verdict
NOP = b"\x01\x01"


def tcp(capture: Capture, connection: Connection, side: int, flags: int, options: bytes, **more: object) -> None:
    """A segment with these options, padded; of no payload where none is given."""
    payload, state = bytes(more.get("payload", b"")), str(more.get("state", "finished"))  # type: ignore[call-overload]
    acknowledged = int(more.get("acknowledged", connection.numbers[1 - side]))  # type: ignore[call-overload]
    options += bytes(-len(options) % 4)
    ports = (connection.port, 80) if side == 0 else (80, connection.port)
    numbers = connection.numbers[side] % 2**32, acknowledged % 2**32
    head = struct.pack(">HHIIBBHHH", *ports, *numbers, (20 + len(options)) // 4 << 4, flags, 512, 0, 0)
    connection.numbers[side] += len(payload) + (flags & SYN != 0)
    capture.put(side, head + options + payload, 6, state)


def blocks(*edges: int) -> bytes:
    return NOP + struct.pack(f">BB{len(edges)}I", 5, 2 + 4 * len(edges), *(edge % 2**32 for edge in edges))


def stamps(value: int, echoed: int) -> bytes:
    return NOP + struct.pack(">BBII", 8, 10, value, echoed)


@pytest.mark.parametrize(("first", "last", "expected"), [(0, 100, HARMLESS), (1, 100, FAULT), (0, 99, FAULT)])
@pytest.mark.parametrize("block", [0, 1])
def test_a_selective_block_excuses_what_it_covers_whole(first: int, last: int, block: int, expected: Verdict) -> None:
    capture = Capture()
    connection = Connection(capture).open()
    begin = connection.numbers[0]
    connection.numbers[0] += 500  # a hole before it
    tcp(capture, connection, 0, ACK | PUSH, b"", payload=bytes(100), state="unfinished")
    edges = (begin + 500 + first, begin + 500 + last)
    other = (begin + 900, begin + 950)
    tcp(capture, connection, 1, ACK, blocks(*(edges + other if block == 0 else other + edges)), acknowledged=begin)
    verdicts = {one.verdict for one in capture.findings() if one.cause == "unfinished"}
    assert verdicts == {expected}


@pytest.mark.parametrize(("echoed", "expected"), [(7000, HARMLESS), (7001, UNCLEAR)])
def test_an_echo_excuses_what_has_no_byte_to_acknowledge(echoed: int, expected: Verdict) -> None:
    capture = Capture()
    connection = Connection(capture).open()
    tcp(capture, connection, 0, ACK, stamps(7000, 1), state="unfinished")
    tcp(capture, connection, 1, ACK, stamps(2, echoed))
    assert [one.verdict for one in capture.findings()] == [expected]


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=40), st.binary(max_size=40))
def test_whatever_the_options_are_nothing_is_read_beyond_them_and_nobody_is_accused(there: bytes, back: bytes) -> None:
    capture = Capture()
    connection = Connection(capture).open()
    tcp(capture, connection, 0, ACK | PUSH, there, payload=b"question", state="unfinished")
    tcp(capture, connection, 1, ACK, back)
    assert {one.verdict for one in capture.findings()} <= {HARMLESS}
