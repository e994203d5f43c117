"""Normalised timestamps: what a server and its clients see of them, rule by rule and in random play."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP
from scapy.packet import Raw
from support import oracle
from support.conversation import (
    ACK,
    CLIENT,
    FIN,
    PUSH,
    RST,
    SERVER,
    SERVER_B,
    SYN,
    SYN_ACK,
    WRAP,
    Connection,
    Node,
    segment,
    stamps_of,
)
from support.packets import encapsulate, frame, in_state, vxlan

from fixer.state import flowfile

DAY = 86_400


def unfinished(packet: bytes) -> bytes:
    """A TCP packet over IPv4 whose checksum field holds its pseudo-header's sum."""
    layer = oracle.read_ip(packet, 0, len(packet))
    oracle.read_transport(packet, layer)
    pseudo = packet[12:20] + struct.pack("!HH", 6, len(packet) - 20)
    total = sum(struct.unpack("!6H", pseudo))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return oracle.with_field(packet, layer.field_at, total)


def test_a_client_behind_its_source_s_clock_gets_a_delta() -> None:
    node = Node()
    ahead, behind = Connection(node, 1, 5_000_000), Connection(node, 2, 1_000)
    assert ahead.open() == 0
    assert behind.open() == 5_000_000 - 1_000
    assert behind.send(ACK | PUSH) == ahead.send(ACK)
    assert behind.answer(ACK) == behind.sent[-1]
    assert ahead.answer(ACK) == ahead.sent[-1]
    assert node.flows.counters()["normalised"] == 1
    assert node.counted() == {"unchanged": 3, "translated": 3}
    assert node.counted("replies") == {"unchanged": 2, "translated": 2}


def test_a_client_ahead_moves_the_clock_and_has_no_delta() -> None:
    node = Node()
    assert Connection(node, 1, 1_000).open() == 0
    assert Connection(node, 2, 0x7FFF_FFFF).open() == 0
    assert Connection(node, 3, 1_000).open() == 0x7FFF_FFFF - 1_000


@pytest.mark.parametrize("clock", [0xFFFF_FFFF - 1_000_500, 0xFFFF_FFFF - 1_000_000, 0x8000_0000])
def test_the_clock_wraps(clock: int) -> None:
    """Just before 2^32, and signed arithmetic all the way."""
    node = Node()
    first = Connection(node, 1, clock)
    assert first.open() == 0
    node.uptime += 1
    last = first.send(ACK)
    assert last is not None
    first.answer(ACK)
    second = Connection(node, 2, clock - 70_000)
    assert second.open() == 70_000
    assert (second.seen_by_server[0] - last) % WRAP < 0x8000_0000
    for _ in range(3):
        node.uptime += 1
        second.send(ACK)
        assert second.answer(ACK) == second.sent[-1]
    steps = [(b - a) % WRAP for a, b in zip(second.seen_by_server, second.seen_by_server[1:], strict=False)]
    assert max(steps) <= 1000


@pytest.mark.parametrize("distance", [0x7FFF_FFFE, 0x7FFF_FFFF, 0x8000_0000, 0x8000_0001, 0xFFFF_FFFF])
def test_a_delta_is_less_than_two_to_the_31(distance: int) -> None:
    node = Node()
    Connection(node, 1, distance).open()
    assert Connection(node, 2, 0).open() == (distance if distance < 0x8000_0000 else 0)


def test_a_retransmitted_syn_keeps_its_delta() -> None:
    node = Node()
    ahead = Connection(node, 1, 5_000_000)
    ahead.open()
    behind = Connection(node, 2, 0)
    delta = (behind.syn() - behind.sent[-1]) % WRAP
    for number, seconds in enumerate((1, 2, 4, 8, 16, 32, 60), 10):
        node.uptime += seconds
        Connection(node, number, number * 1_000_000).open()  # the clock goes on faster than time
        assert (behind.syn() - behind.sent[-1]) % WRAP == delta
    assert behind.answer() == behind.sent[-1]
    assert behind.syn() - behind.sent[-1] == delta, "the SYN-ACK was lost"
    assert node.flows.counters()["used"] == 9


def test_the_clock_never_goes_back() -> None:
    """Neither for a connection that was there before, nor for a segment that was overtaken."""
    node = Node()
    ahead = Connection(node, 1, 5_000_000)
    ahead.open()
    last = ahead.seen_by_server[-1]
    Connection(node, 2, 3_000_000).send(ACK)
    node.through(segment(CLIENT, SERVER, (1, 80), ACK, (last - 2_000_000, 1), 5001))
    assert Connection(node, 3, 0).syn() == last


def test_a_reused_port_gets_a_delta_of_its_own() -> None:
    node = Node()
    first = Connection(node, 1, 0)
    first.open()
    first.close()
    ahead = Connection(node, 2, 8_000)
    ahead.open()
    again = Connection(node, 1, 2_000, isn=77_000)
    assert again.open() == 6_000
    assert again.answer(ACK) == again.sent[-1]


def test_a_stray_syn_does_no_harm_to_a_connection_that_lives() -> None:
    """Another initial sequence number: the server answers with a challenge ACK (RFC 5961 §4), or not at all."""
    node = Node()
    Connection(node, 9, 90_000).open()
    living = Connection(node, 1, 0)
    assert living.open() == 90_000
    stray = Connection(node, 1, 40_000, isn=123_456)
    assert stray.syn() == stray.sent[-1] + 50_000
    assert living.send(ACK) == living.sent[-1] + 90_000
    assert living.answer(ACK) == living.sent[-1]
    assert living.send(ACK) == living.sent[-1] + 90_000
    assert node.flows.counters()["normalised"] == 2 - 1


def test_a_second_attempt_is_the_connection_once_the_server_has_answered_it() -> None:
    """The client was restarted and took the same port, while the server still has the old connection."""
    node = Node()
    Connection(node, 9, 90_000).open()
    old = Connection(node, 1, 0)
    assert old.open() == 90_000
    new = Connection(node, 1, 60_000, isn=123_456)
    assert new.open() == 30_000
    assert new.send(ACK) == new.sent[-1] + 30_000
    assert new.answer(ACK) == new.sent[-1]
    assert node.flows.counters()["normalised"] == 1
    refused = Connection(node, 1, 10_000, isn=999_999)
    refused.syn()
    refused.answer(RST | ACK)
    assert new.send(ACK) == new.sent[-1] + 30_000
    refused.send(ACK)  # whatever that is, nobody goes on with it
    assert new.send(ACK) == new.sent[-1] + 30_000
    assert node.flows.counters()["one_way"] == 0


@pytest.mark.parametrize("flags", [ACK, SYN_ACK], ids=["challenge", "another-syn-ack"])
def test_a_syn_that_is_sent_again_behind_a_rst_is_a_connection_that_lives(flags: int) -> None:
    """The server had the five-tuple in TIME_WAIT, or half open: it challenges, the client resets and tries again.

    Counted as closed it was cut by `off --drain`, and forgotten after two minutes without a word.
    """
    node = Node()
    Connection(node, 9, 90_000).open()
    again = Connection(node, 1, 0)
    again.syn()
    again.answer(flags)
    again.send(RST, 1 << 30)  # the number that the challenge acknowledged
    node.uptime += 1
    # A server that was half open keeps what it has seen; one that only challenged has seen nothing.
    shift = again.open()
    assert shift == (90_000 if flags & SYN else 89_000)
    assert again.seen_by_server == sorted(again.seen_by_server)
    assert node.flows.counters()["normalised"] == 1
    node.uptime += 3_000
    for _ in range(64):
        node.sweep()
    assert again.send(ACK) == again.sent[-1] + shift
    assert again.answer(ACK) == again.sent[-1]


def test_a_syn_that_is_sent_again_behind_a_rst_is_brought_up_to_a_clock_that_has_moved() -> None:
    """The server remembers what others have shown meanwhile, and refused the same SYN until its client gave up."""
    node = Node()
    Connection(node, 9, 90_000).open()
    again = Connection(node, 1, 0)
    again.syn()
    again.answer(ACK)
    again.send(RST, 1 << 30)
    Connection(node, 10, 1 << 30).open()  # whose clock is far ahead
    assert again.open() == 1 << 30


def test_a_drain_keeps_the_shift_of_a_syn_that_is_sent_again_behind_a_rst() -> None:
    node = Node()
    Connection(node, 9, 90_000).open()
    again = Connection(node, 1, 0)
    again.syn()
    again.answer(ACK)
    again.send(RST, 1 << 30)
    struct.pack_into("=I", node.memory, flowfile._DRAINING, 1)  # as `fixer off --drain` does in the file
    assert again.open() == 90_000


def test_what_was_there_before_is_left_alone_and_moves_the_clock() -> None:
    node = Node()
    before = Connection(node, 1, 70_000)
    assert before.send(ACK) == before.sent[-1]
    assert before.answer(ACK) == before.sent[-1]
    assert Connection(node, 2, 0).open() == 70_000
    assert node.counted()["untracked"] == 1


def test_a_syn_alone_moves_no_clock() -> None:
    """A flood of them, with any TSvals, would turn the clock round and round."""
    node = Node()
    Connection(node, 1, 5_000).open()
    for port in range(2, 200):
        Connection(node, port, port * 0x0400_0000).syn()
    assert Connection(node, 1000, 0).open() == 5_000


FAR = 0x7FFF_0000


@pytest.mark.parametrize("how", ["ack", "syn and ack", "wrong ack", "fin"])
def test_who_does_not_see_the_answers_moves_no_clock(how: str) -> None:
    """Three strays with far TSvals would turn a source's clock round; none of them shows that a server believed it."""
    node = Node()
    Connection(node, 1, 5_000).open()
    for number, port in enumerate((1000, 1001, 1002)):
        stray = Connection(node, port, (number + 1) * FAR, server="10.0.0.99" if how == "syn and ack" else SERVER)
        if "syn" in how or how == "wrong ack":
            stray.syn()
        if how == "wrong ack":
            stray.answer()
        stray.send(ACK | FIN if how == "fin" else ACK, acknowledged=123_456)
        stray.send(ACK, 2, acknowledged=123_456)
    assert Connection(node, 2, 0).open() == 5_000


def test_what_a_server_has_echoed_moves_the_clock() -> None:
    """Whether we could tell the handshake to be right or not, and for a connection that was there before as well."""
    node = Node()
    Connection(node, 1, 5_000).open()
    late = Connection(node, 2, 90_000)
    late.syn()
    late.answer()
    late.send(ACK, acknowledged=123_456)  # of a SYN-ACK that was sent again with another number: SYN cookies
    assert Connection(node, 3, 0).open() == 5_000
    late.answer(ACK)
    assert Connection(node, 4, 0).open() == 90_000
    assert Connection(node, 5, 700_000).send(ACK) is not None
    assert Connection(node, 6, 0).open() == 90_000


def test_strays_fill_no_table() -> None:
    """Of sources, of which there is room for 64 here."""
    node = Node()
    for number in range(1, 250):
        stray = Connection(node, 1, 5_000, client=f"192.0.2.{number}", server="10.0.0.99")
        stray.send(ACK)
        stray.syn()
        stray.send(ACK)
    for number in range(1, 20):
        assert Connection(node, 2, 9_000, client=f"192.0.2.{number}").open() == 0
        assert Connection(node, 3, 0, client=f"192.0.2.{number}").open() == 9_000
    assert "full" not in node.counted()


def test_sources_and_networks_have_clocks_of_their_own() -> None:
    node = Node()
    Connection(node, 1, 5_000).open()
    assert Connection(node, 1, 0, client="192.0.2.8").open() == 0
    assert Connection(node, 1, 0, server=SERVER_B).open() == 0, "a server that remembers nothing of the source"
    assert Connection(node, 2, 0, server=SERVER_B).open() == 5_000, "the same source to another server"
    assert Connection(node, 1, 0, client="198.51.100.1").send(SYN, 0) is not None
    assert node.counted()["not_concerned"] == 1


def test_ip6_and_tunnels() -> None:
    node = Node()
    ends = ("2001:db8::7", "2001:db8:1::80")

    def carry(packet: bytes, vni: int, outgoing: bool = False) -> bytes:
        whole = encapsulate(vxlan(frame(packet), vni=vni), "GOOD", 6)
        out = node.through(whole, outgoing)
        at = out.index(packet[:40])
        return out[at : at + len(packet)]

    def handshake(port: int, clock: int, vni: int) -> int:
        syn = carry(segment(*ends, (port, 80), SYN, (clock, 0), 7), vni)
        value = stamps_of(syn, 6)[0]
        reply = carry(segment(*ends[::-1], (80, port), SYN_ACK, (4242, value), 9, 8), vni, outgoing=True)
        assert stamps_of(reply, 6) == (4242, clock)
        carry(segment(*ends, (port, 80), ACK, (clock, 4242), 8, 10), vni)
        return value - clock

    assert handshake(1, 5_000, 7) == 0
    assert handshake(2, 1_000, 7) == 4_000
    assert handshake(3, 1_000, 8) == 0, "the same address in another VNI is somebody else"


@pytest.mark.parametrize("inner", ["VERIFIES", "PARTIAL"])
@pytest.mark.parametrize("outer", ["GOOD", "AGREES", "ZERO", "PARTIAL"])
def test_unfinished_and_translated_comes_out_right_in_both(inner: str, outer: str) -> None:
    node = Node()
    Connection(node, 1, 5_000).open()
    # The same source inside a tunnel is another one: give it a clock there, and a way back.
    for port, clock in ((1, 5_000), (2, 1_000)):
        whole = segment(CLIENT, SERVER, (port, 80), SYN, (clock, 0), 7)
        asked = whole if inner == "VERIFIES" else unfinished(whole)
        packet = encapsulate(vxlan(frame(asked)), outer, finished=vxlan(frame(whole)))
        data = bytearray(packet)
        node.pipeline.examine(data, uptime=node.uptime)
        after = oracle.judge(bytes(data), plain=True)
        assert (after.inner, after.diagnosis) == ("VERIFIES", "SOUND")
        at = bytes(data).index(b"\x08\x0a\x00\x00") + 2
        assert struct.unpack_from("!I", data, at)[0] == 5_000
        back = segment(SERVER, CLIENT, (80, port), SYN_ACK, (4242, 5_000), 9, 8)
        node.through(encapsulate(vxlan(frame(back)), outer if outer == "ZERO" else "GOOD"), outgoing=True)
        ack = segment(CLIENT, SERVER, (port, 80), ACK, (clock, 4242), 8, 10)
        node.through(encapsulate(vxlan(frame(ack)), "GOOD"))


@pytest.mark.parametrize(("inner", "outer"), [("VERIFIES", "WRONG"), ("PARTIAL", "WRONG"), ("VERIFIES", "PARTIAL")])
def test_of_what_the_kernel_would_finish_nothing_else_is_mended(inner: str, outer: str) -> None:
    """An outer of P is finished, as the kernel would have done; a wrong one is not made right."""
    node = Node()
    for port, clock, state in ((1, 5_000, "GOOD"), (2, 1_000, outer)):
        whole = segment(CLIENT, SERVER, (port, 80), SYN, (clock, 0), 7)
        asked = unfinished(whole) if inner == "PARTIAL" and port == 2 else whole
        packet = encapsulate(vxlan(frame(asked)), state, finished=vxlan(frame(whole)))
        found = node.through(packet, skb_info=int(port == 2))
        back = segment(SERVER, CLIENT, (80, port), SYN_ACK, (4242, 5_000), 9, 8)
        node.through(encapsulate(vxlan(frame(back))), outgoing=True)
        ack = segment(CLIENT, SERVER, (port, 80), ACK, (clock, 4242), 8, 10)
        if port == 1:
            node.through(encapsulate(vxlan(frame(ack))))
    if outer == "WRONG":
        assert found == packet
        assert node.counted()["incomplete"] == 1
    else:
        assert found != packet, "translated, and sound: the node looks at that"


def test_a_wrong_checksum_stays_wrong_and_teaches_nothing() -> None:
    node = Node(actions={"corrupt": "pass"})
    Connection(node, 1, 5_000).open()
    packet = in_state(segment(CLIENT, SERVER, (1, 80), ACK, (0x0FFF_0000, 0), 5001), 4, "tcp", "WRONG")
    data = bytearray(packet)
    node.pipeline.examine(data, uptime=node.uptime)
    assert data == packet
    assert Connection(node, 2, 0).open() == 5_000
    reply = in_state(segment(SERVER, CLIENT, (80, 2), ACK, (1, 6_000), 5001), 4, "tcp", "WRONG")
    data = bytearray(reply)
    node.pipeline.examine(data, uptime=node.uptime, outgoing=True)
    assert stamps_of(bytes(data)) == (1, 1_000)
    before, after = oracle.judge(reply, plain=True), oracle.judge(bytes(data), plain=True)
    assert after.diagnosis == before.diagnosis == "CORRUPT"
    assert (after.inner_right - after.inner_found) % 0xFFFF == (before.inner_right - before.inner_found) % 0xFFFF


def test_what_cannot_be_given_back_changed_passes() -> None:
    gso, not_ready = 2, 1
    node = Node()
    Connection(node, 1, 5_000).open()
    behind = Connection(node, 2, 0)
    behind.open()
    packet = segment(CLIENT, SERVER, (2, 80), ACK, (1, 1), 5001)
    assert node.through(packet, skb_info=gso) == packet
    back = segment(SERVER, CLIENT, (80, 2), ACK, (1, 6_000), 5001)
    assert node.through(back, outgoing=True, skb_info=gso) == back
    assert node.through(back, outgoing=True, skb_info=not_ready) == back
    assert node.counted()["incomplete"] == 1
    assert node.counted("replies")["incomplete"] == 2


def test_echo_zero_is_not_translated() -> None:
    node = Node()
    Connection(node, 1, 5_000).open()
    behind = Connection(node, 2, 0)
    behind.open()
    assert behind.answer(ACK, echo=0) == 0
    assert behind.answer(ACK, echo=5_000) == 0


def test_echo_zero_moves_no_clock() -> None:
    """Of a clock in the upper half of the circle zero would be ahead."""
    node = Node()
    Connection(node, 1, 0xC000_0000).open()
    assert Connection(node, 2, 0xB000_0000).open() == 0x1000_0000
    Connection(node, 3, 1).answer(ACK, echo=0)
    assert Connection(node, 4, 0xB000_0000).open() == 0x1000_0000


def test_selective_acknowledgements_stay() -> None:
    node = Node()
    Connection(node, 1, 5_000).open()
    behind = Connection(node, 2, 0)
    behind.open()
    sack = bytes([1, 1, 5, 10]) + struct.pack("!II", 111, 222)
    packet = segment(CLIENT, SERVER, (2, 80), ACK, (behind.now, 77), 5001)
    header = bytearray(packet[20:]) + sack
    header[12] = (len(header) // 4) << 4
    bare = bytes(IP(src=CLIENT, dst=SERVER, proto=6) / Raw(bytes(header)))
    layer = oracle.read_ip(bare, 0, len(bare))
    oracle.read_transport(bare, layer)
    whole = oracle.with_field(bare, layer.field_at, layer.right(bare))
    out = node.through(whole)
    assert out.endswith(sack)
    assert stamps_of(out) == (behind.now + 5_000, 77)


def test_without_timestamps_there_is_nothing_to_normalise() -> None:
    node = Node()
    Connection(node, 1, 5_000).open()
    bare = Connection(node, 2, 0)
    bare.send(SYN, 0, stamped=False)
    bare.send(ACK, stamped=False)
    assert node.flows.counters()["used"] == 1
    assert node.counted()["without"] == 2


def test_an_authenticated_connection_is_left_alone() -> None:
    node = Node()
    Connection(node, 1, 5_000).open()
    ao = bytes([29, 16]) + bytes(14)
    packet = segment(CLIENT, SERVER, (2, 80), SYN, (0, 0), 5000)
    header = bytearray(packet[20:]) + ao
    header[12] = (len(header) // 4) << 4
    bare = bytes(IP(src=CLIENT, dst=SERVER, proto=6) / Raw(bytes(header)))
    layer = oracle.read_ip(bare, 0, len(bare))
    oracle.read_transport(bare, layer)
    whole = oracle.with_field(bare, layer.field_at, layer.right(bare))
    assert node.through(whole) == whole
    assert node.counted()["authenticated"] == 1
    assert node.flows.counters()["used"] == 1


def test_a_monitor_normalises_nothing() -> None:
    node = Node(monitor=True)
    Connection(node, 1, 5_000).open()
    assert Connection(node, 2, 0).open() == 0
    assert node.flows.counters()["used"] == 0


# The way back


def test_without_replies_there_is_no_delta() -> None:
    """One that passes untouched, and whose replies take another way: each of them would be refused by its client."""
    node = Node()
    for port, clock in ((1, 70_000), (2, 0)):
        lone = Connection(node, port, clock)
        assert lone.syn() == lone.sent[-1]
        assert lone.send(ACK) == lone.sent[-1]
    assert node.flows.counters()["one_way"] == 2
    assert node.flows.one_way_source() == CLIENT


def test_replies_of_one_server_say_nothing_of_another_s() -> None:
    node = Node()
    Connection(node, 1, 5_000).open()
    for port in (2, 3):
        lone = Connection(node, port, 0, server=SERVER_B)
        assert lone.syn() == lone.sent[-1]
        lone.send(ACK)
        assert Connection(node, 10 + port, 0).open() == 5_000
    assert node.flows.counters()["one_way"] == 2
    assert node.counted()["no_way_back"] == 1


@pytest.mark.parametrize("servers", [64, 300])
def test_of_more_servers_than_there_is_room_for_some_are_left_alone(servers: int) -> None:
    """Who is forgotten is taken for one that remembers nothing; who has just replied is not forgotten."""
    node = Node()
    Connection(node, 1, 900_000).open()
    addresses = [f"10.0.{number // 200}.{number % 200 + 1}" for number in range(servers)]
    for address in addresses:
        Connection(node, 2, 0, server=address).open()
    assert Connection(node, 3, 0, server=addresses[-1]).syn() == 900_000 + 1_000_000
    shifted = 0
    for address in addresses:
        late = Connection(node, 4, 0, server=address)
        shifted += late.syn() != late.sent[-1]
    assert shifted >= min(servers, 64) * 0.7


@pytest.mark.parametrize("flags", [ACK, RST, RST | ACK])
def test_replies_that_stop_are_found_out_by_the_first_handshake(flags: int) -> None:
    """The client goes on, or refuses, what we have not seen to be answered."""
    node = Node()
    Connection(node, 1, 5_000).open()
    assert Connection(node, 2, 0).open() == 5_000
    lost = Connection(node, 3, 0)
    assert lost.syn() == lost.sent[-1] + 5_000
    lost.send(flags, acknowledged=0 if flags == RST else 1)
    assert node.flows.counters()["one_way"] == 1
    following = Connection(node, 4, 0)
    assert following.syn() == following.sent[-1]
    following.answer()
    assert Connection(node, 5, 0).open() == 5_000, "and they are back"


def test_a_server_that_replies_to_others_has_a_way_back() -> None:
    """It has refused one SYN without a word, or somebody made that up: nobody else pays for it."""
    node = Node()
    Connection(node, 1, 5_000).open()
    stray = Connection(node, 2, 0)
    stray.syn()
    node.uptime += 1
    Connection(node, 3, 9_000).open()
    stray.send(ACK)
    assert node.flows.counters()["one_way"] == 1
    assert Connection(node, 4, 0).open() > 0


def test_a_second_attempt_without_a_way_back_takes_no_old_delta() -> None:
    node = Node()
    Connection(node, 9, 90_000).open()
    old = Connection(node, 1, 0)
    assert old.open() == 90_000
    lost = Connection(node, 8, 0, isn=1)
    lost.syn()
    lost.send(ACK)
    again = Connection(node, 1, 0, isn=600_000)
    assert again.syn() == again.sent[-1]
    assert again.send(ACK) == again.sent[-1]


def test_a_source_that_was_silent_for_long_misses_nothing() -> None:
    """No server remembers it any more."""
    node = Node()
    Connection(node, 1, 5_000).open()
    node.uptime += 121
    late = Connection(node, 2, 0)
    assert late.syn() == late.sent[-1]
    assert "no_way_back" not in node.counted()


# Times


def used(node: Node) -> int:
    found = node.flows.counters()["used"]
    assert isinstance(found, int)
    return found


@pytest.mark.parametrize(
    ("reached", "seconds"),
    [
        ("syn", 130),
        ("syn-ack", 130),
        ("established", 5 * DAY),
        ("half-closed", 3600),
        ("closed", 120),
        ("reset by the client", 120),
        ("reset by the server", 120),
    ],
)
def test_time_outs(reached: str, seconds: int) -> None:
    """To the second: a segment after as many belongs to the connection, a second later to none."""
    for late in (0, 1):
        node = Node()
        Connection(node, 9, 90_000).open()
        one = Connection(node, 1, 0)
        if reached == "syn":
            one.syn()
        elif reached == "syn-ack":
            one.syn()
            one.answer()
        else:
            one.open()
        if reached == "half-closed":
            one.send(FIN | ACK)
        elif reached == "closed":
            one.close()
        elif reached == "reset by the client":
            one.send(RST, 1)
        elif reached == "reset by the server":
            one.answer(RST)
        node.uptime += seconds + late
        assert (one.send(ACK, 2) == one.sent[-1]) == bool(late)


def test_a_rst_that_the_server_does_not_believe() -> None:
    node = Node()
    Connection(node, 9, 90_000).open()
    one = Connection(node, 1, 0)
    one.open()
    one.send(RST, 40_000)
    assert node.flows.counters()["normalised"] == 0
    one.answer(ACK)  # may have been on its way
    assert node.flows.counters()["normalised"] == 0
    node.uptime += 1
    one.send(ACK, 2)
    node.uptime += 1
    one.answer(ACK)
    assert node.flows.counters()["normalised"] == 1
    node.uptime += DAY
    assert one.send(ACK) == one.sent[-1] + 90_000


def test_what_is_over_goes_by_itself() -> None:
    node = Node()
    for port in range(1, 101):
        connection = Connection(node, port, port * 100)
        connection.open()
        connection.close()
    assert used(node) == 100
    node.uptime += 120
    node.sweep()
    assert used(node) == 100
    node.uptime += 1
    node.sweep()
    assert used(node) == 0
    assert node.flows.counters()["expired"] == 100


# Room


def test_when_it_is_full() -> None:
    for when_full, expected in (("pass", "full"), ("strip", "stripped")):
        node = Node(when_full=when_full)
        many = [Connection(node, port, 0) for port in range(1, 1025)]
        for each in many:
            each.open()
        assert used(node) == 1024
        late = Connection(node, 2000, 0)
        packet = segment(CLIENT, SERVER, (2000, 80), SYN, (late.now, 0), 5000)
        out = node.through(packet)
        assert node.counted()[expected] == 1
        assert (b"\x08\x0a" in out[40:]) == (when_full == "pass")
        many[5].close()
        node.uptime += 121
        node.sweep()
        assert late.syn() >= late.sent[-1]
        assert node.counted()[expected] == 1, "there is room again"


def test_a_flood_of_syns_evicts_nothing_that_is_established() -> None:
    node = Node()
    Connection(node, 60_000, 900_000).open()
    living = [Connection(node, port, port * 10) for port in range(1, 501)]
    deltas = [each.open() for each in living]
    assert min(deltas) > 0
    for number in range(5000):
        node.through(segment(CLIENT, SERVER, (1 + number % 4000, 81), SYN, (number * 0x0123_4567, 0), number * 77))
        assert used(node) <= 501 + 256
    assert node.flows.counters()["evicted"] > 4000
    for each, delta in zip(living, deltas, strict=True):
        assert each.send(ACK) == (each.sent[-1] + delta) % WRAP
        assert each.answer(ACK) == each.sent[-1]


# Random play


@dataclass
class Server:
    """A server with tcp_tw_recycle: what it remembers of a source, and what PAWS says of each connection."""

    remembered: tuple[int, int] | None = None  # value, uptime
    connections: dict[int, int] = field(default_factory=dict)  # port: ts_recent

    def takes(self, value: int, now: int) -> bool:
        if self.remembered is None or now - self.remembered[1] >= 60:
            return True
        behind = (self.remembered[0] - value) % WRAP
        return not 1 < behind < 0x8000_0000

    def paws(self, port: int, value: int) -> bool:
        recent = self.connections[port]
        if (value - recent) % WRAP >= 0x8000_0000:
            return False
        self.connections[port] = value
        return True

    def remember(self, port: int, now: int) -> None:
        value = self.connections.pop(port)
        if (
            self.remembered is None
            or (self.remembered[0] - value) % WRAP in range(0x8000_0000, WRAP)
            or self.remembered[0] == value
            or now - self.remembered[1] > 60
        ):
            self.remembered = (value, now)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(0, WRAP - 1), min_size=2, max_size=6),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 11), st.integers(0, 4)), min_size=5, max_size=120),
    st.booleans(),
    st.booleans(),
)
def test_no_server_refuses_and_no_client_is_told_a_lie(
    clocks: list[int], steps: list[tuple[int, int, int]], random_offsets: bool, data_at_the_end: bool
) -> None:
    """Clients with any clocks, or another one for each connection, open, use and close connections in any order."""
    node, server = Node(), Server()
    rng = random.Random(clocks[0])
    living: dict[int, Connection] = {}
    isn = 0
    for who, port, what in steps:
        node.uptime += 0 if what == 1 else what * 3
        isn += 100_000
        which = who % len(clocks)
        port += 1 + 100 * which
        if port not in living:
            connection = Connection(node, port, rng.randrange(WRAP) if random_offsets else clocks[which], isn)
            value = connection.syn()
            assert server.takes(value, node.uptime)
            server.connections[port] = value
            assert connection.answer() == connection.sent[-1]
            living[port] = connection
            assert server.paws(port, connection.send(ACK) or 0)
        elif what > 1:
            connection = living[port]
            assert server.paws(port, connection.send(ACK | PUSH) or 0)
            assert connection.answer(ACK) == connection.sent[-1]
        elif what == 1:  # the client closes first, and the server remembers nothing
            connection = living.pop(port)
            assert server.paws(port, connection.send(FIN | ACK, acknowledged=9000) or 0)
            assert connection.answer(FIN | ACK) == connection.sent[-1]
            assert server.paws(port, connection.send(ACK, 2, acknowledged=9001) or 0)
            server.connections.pop(port)
        else:
            connection = living.pop(port)
            assert connection.answer(FIN | ACK) == connection.sent[-1]
            if data_at_the_end:  # was under way: it does not answer the FIN yet
                assert server.paws(port, connection.send(ACK, acknowledged=9000) or 0)
                late = Connection(node, 10_000 + port, rng.randrange(WRAP), isn)
                assert server.takes(late.syn(), node.uptime)
            assert server.paws(port, connection.send(FIN | ACK, acknowledged=9001) or 0)
            server.remember(port, node.uptime)
            assert connection.answer(ACK) == connection.sent[-1]


def test_what_the_server_remembers_has_the_last_word() -> None:
    """Each client is ahead of the one before by nearly half of the circle, and stays: only the first is remembered."""
    node = Node()
    first = Connection(node, 1, 0)
    first.open()
    first.answer(FIN | ACK)
    first.send(FIN | ACK, acknowledged=9001)
    remembered = first.seen_by_server[-1]
    Connection(node, 2, 0x7000_0000).open()
    third = Connection(node, 3, 0xE000_0000)
    assert third.syn() == remembered, "what is further ahead than half of the circle is behind"
    assert third.answer() == third.sent[-1]
    node.uptime += 61
    forgotten = Connection(node, 4, 0xE000_0000)
    assert forgotten.syn() == forgotten.sent[-1], "and after a minute nothing is"


def test_a_connection_that_the_client_closes_is_not_remembered() -> None:
    node = Node()
    first = Connection(node, 1, 0)
    first.open()
    first.send(FIN | ACK, acknowledged=9000)
    first.answer(FIN | ACK)
    first.send(ACK, 2, acknowledged=9001)
    Connection(node, 2, 0x7000_0000).open()
    third = Connection(node, 3, 0xE000_0000)
    assert third.syn() == third.sent[-1]


@pytest.mark.parametrize("servers", [8, 9])
def test_each_server_has_a_memory_of_its_own(servers: int) -> None:
    """What one remembers says nothing of the others, eight of which are followed."""
    node = Node()
    closed = [Connection(node, 1, number * 0x1000_0000, server=f"10.0.0.{number + 1}") for number in range(servers)]
    for each in closed:
        node.uptime += 1
        each.open()
        each.answer(FIN | ACK)
        each.send(FIN | ACK, acknowledged=9001)
    for each in closed:
        late = Connection(node, 2, 0x8800_0000, server=each.server)
        too_far = each is closed[0] and servers == 8
        assert late.syn() == (each.seen_by_server[-1] if too_far else late.sent[-1])


def test_what_a_server_remembers_of_a_connection_that_was_there_before() -> None:
    node = Node()
    before = Connection(node, 1, 0)
    before.send(FIN | ACK)
    before.answer(ACK)
    Connection(node, 2, 0x7000_0000).open()
    assert Connection(node, 3, 0xE000_0000).syn() == before.seen_by_server[-1]


def test_more_sources_than_there_is_room_for() -> None:
    """Who is there stays, until nobody has heard of it for longer than a server remembers."""
    node = Node()
    for number in range(1, 200):
        one = Connection(node, 1, 5_000, client=f"192.0.2.{number}")
        one.syn()
        one.answer()
        one.send(ACK)
    assert node.counted()["full"] > 50
    for number in range(1, 5):
        assert Connection(node, 2, 0, client=f"192.0.2.{number}").open() == 5_000
    node.uptime += 301
    late = Connection(node, 1, 5_000, client="192.0.2.250")
    assert late.open() == 0
    assert Connection(node, 2, 0, client="192.0.2.250").open() == 5_000


def test_a_monitor_leaves_alone_what_another_daemon_has_normalised() -> None:
    node = Node()
    Connection(node, 1, 5_000).open()
    one = Connection(node, 2, 0)
    one.open()
    one.node = Node(flows=node.flows, monitor=True)
    one.node.uptime = node.uptime
    assert one.send(ACK) == one.sent[-1]
    assert one.answer(ACK, echo=7_000) == 7_000


def test_the_server_remembers_once_its_fin_is_acknowledged_and_not_the_data_before_it() -> None:
    node = Node()
    first = Connection(node, 1, 0)
    first.open()
    fin = segment(SERVER, CLIENT, (80, 1), FIN | ACK, (4242, first.seen_by_server[-1]), 9000, 5001, b"x" * 1000)
    node.through(fin, outgoing=True)
    first.send(ACK, acknowledged=9500)
    Connection(node, 2, 0x7000_0000).open()
    third = Connection(node, 3, 0xE000_0000)
    assert third.syn() == third.sent[-1], "of the data"
    first.send(ACK, acknowledged=10_000)
    assert Connection(node, 4, 0xE000_0000).syn() == third.sent[-1], "all of the data"
    first.send(ACK, acknowledged=10_001)
    assert Connection(node, 5, 0xE000_0000).syn() == first.seen_by_server[-1], "and the FIN"
