"""The gate is the kernel's: net/ipv4/tcp_metrics.c before and since a26552afe894, told case by case."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from .gate import Gate, Variant, ahead

EVERY_VARIANT = pytest.mark.parametrize("variant", Variant)


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Server:
    """A gate, and packets for it; ``version`` 4 or 6."""

    def __init__(self, variant: Variant, version: int = 4) -> None:
        self.clock = Clock()
        self.gate = Gate(variant, clock=self.clock)
        self._version = version
        self._ports = iter(range(1024, 65536))

    def packet(self, flags: str, timestamp: int | None, port: int, *, client: int = 4, back: bool = False) -> bytes:
        ends = [f"10.0.1.{client}", "10.0.1.6"] if self._version == 4 else [f"fd00:1::{client}", "fd00:1::6"]
        ports = [port, 443]
        if back:
            ends.reverse()
            ports.reverse()
        ip = (IP if self._version == 4 else IPv6)(src=ends[0], dst=ends[1])
        options = [("NOP", None), ("NOP", None), ("Timestamp", (timestamp, 0))] if timestamp is not None else []
        return bytes(ip / TCP(sport=ports[0], dport=ports[1], flags=flags, options=options))

    def syn(self, timestamp: int | None, client: int = 4) -> bool:
        return self.gate.comes_in(self.packet("S", timestamp, next(self._ports), client=client))

    def serve(self, first: int | None, last: int | None, *, closes: str = "server", answered: bool = True) -> bool:
        """A connection whose SYN shows ``first`` and whose FIN shows ``last``; whether it came to be."""
        port = next(self._ports)
        if not self.gate.comes_in(self.packet("S", first, port)):
            return False
        self.gate.goes_out(self.packet("SA", 7 if answered else None, port, back=True))
        if closes == "server":
            self.gate.goes_out(self.packet("FA", 7, port, back=True))
        assert self.gate.comes_in(self.packet("FA", last, port))
        if closes == "client":
            self.gate.goes_out(self.packet("FA", 7, port, back=True))
        return True


@EVERY_VARIANT
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("last", [1000, 0, 0xFFFFFFFF, 0x80000000], ids=hex)
def test_syn_of_a_source_that_went_back(variant: Variant, version: int, last: int) -> None:
    server = Server(variant, version)
    assert server.serve(last - 5 & 0xFFFFFFFF, last)
    refused = [-0x7FFFFFFF, -5, -2]
    for by in (-1, 0, 1, 0x7FFFFFFF):  # the window is one tick; half of all values are later
        assert server.syn(last + by & 0xFFFFFFFF)
    for by in refused:
        assert not server.syn(last + by & 0xFFFFFFFF)
    assert server.gate.paws_passive == len(refused)
    assert server.syn(last - 5 & 0xFFFFFFFF, client=9), "another source"


def test_syn_without_a_timestamp_is_where_the_kernels_differ() -> None:
    for variant, passes in ((Variant.BEFORE, True), (Variant.SINCE, False)):
        server = Server(variant)
        assert server.syn(None)
        assert server.serve(1000, 2000)
        assert server.syn(None) is passes
        assert server.gate.paws_passive == (not passes)
        server.clock.now += 60
        assert server.syn(None)


@EVERY_VARIANT
def test_sixty_seconds(variant: Variant) -> None:
    server = Server(variant)
    server.clock.now += 0.9  # whole seconds are what it counts
    assert server.serve(1000, 2000)
    server.clock.now += 59.0
    assert not server.syn(1000)
    server.clock.now += 0.1
    assert server.syn(1000)


@EVERY_VARIANT
@pytest.mark.parametrize(
    ("first", "last", "closes", "answered"),
    [(1000, 2000, "client", True), (1000, 2000, "server", False), (None, None, "server", True)],
    ids=["client-closed-first", "server-without", "client-without"],
)
def test_what_is_not_remembered(
    variant: Variant, first: int | None, last: int | None, closes: str, answered: bool
) -> None:
    server = Server(variant)
    assert server.serve(first, last, closes=closes, answered=answered)
    assert server.gate.remembered == {}


@EVERY_VARIANT
def test_reset_connection_is_not_remembered(variant: Variant) -> None:
    server = Server(variant)
    for back in (False, True):
        assert server.gate.comes_in(server.packet("S", 1000, 1))
        server.gate.goes_out(server.packet("FA", 7, 1, back=True))
        (server.gate.goes_out if back else server.gate.comes_in)(server.packet("R", None, 1, back=back))
        assert server.gate.comes_in(server.packet("FA", 2000, 1))
    assert server.gate.remembered == {}


@EVERY_VARIANT
def test_remembered_is_what_is_newest_until_it_no_longer_counts(variant: Variant) -> None:
    server = Server(variant)

    def remembered() -> int:
        return next(iter(server.gate.remembered.values())).value

    open_ports = {timestamp: port for port, timestamp in enumerate((900, 901, 902), 1)}
    for timestamp, port in open_ports.items():
        assert server.gate.comes_in(server.packet("S", timestamp, port))

    def close(timestamp: int) -> None:
        server.gate.goes_out(server.packet("FA", 7, open_ports[timestamp], back=True))
        assert server.gate.comes_in(server.packet("FA", timestamp, open_ports[timestamp]))

    assert server.serve(2000, 2000)
    close(900)
    assert remembered() == 2000
    server.clock.now += 60  # more than 60 is what lets an older one follow
    close(901)
    assert remembered() == 2000
    server.clock.now += 1
    close(902)
    assert remembered() == 902


@EVERY_VARIANT
def test_fin_that_went_back_moves_nothing(variant: Variant) -> None:
    """PAWS: the server drops it; ts_recent stays what the SYN showed."""
    server = Server(variant)
    assert server.serve(1000, 500)
    assert next(iter(server.gate.remembered.values())).value == 1000


def test_ahead_is_signed() -> None:
    assert [ahead(*pair) for pair in ((5, 3), (3, 5), (0, 0xFFFFFFFF), (0x80000000, 0))] == [2, -2, 1, -0x80000000]
