"""Faults that look like a checksum's and are none, each with what looks the same and is not."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from support import shared
from support.captures import pcap
from support.dialogue import ACK, HOSTS, MSS, PUSH, SECOND, SYN, VTEPS, Capture, Connection
from support.wire import Wire, ip_header, right

from fixer.config import Settings
from fixer.datapath.pipeline import Pipeline
from fixer.findings.census import Census
from fixer.findings.finding import Finding, Verdict
from fixer.findings.sentences import findings
from fixer.findings.tally import Tally
from fixer.scan import scan_file

FAULT, UNCLEAR, HARMLESS = Verdict
LEFT, RIGHT = VTEPS


def of(capture: Capture, cause: str) -> list[Finding]:
    return [one for one in capture.findings() if one.cause == cause]


def stuck(capture: Capture, size: int = MSS, *, times: int = 4, port: int = 4000, heard: bool = True) -> Connection:
    """A segment that comes again and again and is never acknowledged; heard: the other side still acknowledges the
    handshake, as it does for each segment behind the lost one."""
    connection = Connection(capture, port).open()
    for number in range(times):
        connection.send(0, ACK | PUSH, "finished", bytes(size), again=number > 0)
        if heard:
            numbers = connection.numbers[0]
            connection.numbers[0] = numbers - size
            connection.send(1, ACK, "finished")
            connection.numbers[0] = numbers
    return connection


# --- an MTU that is too large -----------------------------------------------------------------------------------------


def test_long_segments_in_vain_while_the_handshake_passes() -> None:
    capture = Capture()
    stuck(capture)
    (one,) = of(capture, "mtu")
    assert (one.verdict, one.who) == (FAULT, LEFT)
    assert "1,410 bytes or more again" in one.text
    assert "while the handshake is acknowledged" in one.text
    assert "no checksum is wrong" in one.text
    assert "ip link set VXLANDEV mtu" in one.cure
    assert one.evidence[0].frame > 0


def test_what_passes_is_said() -> None:
    capture = Capture()
    connection = Connection(capture, 4001).open()
    for _ in range(3):
        connection.say(0, "finished", bytes(536))
    for number in range(4):
        connection.send(0, ACK | PUSH, "finished", bytes(MSS), again=number > 0)
    (one,) = of(capture, "mtu")
    assert "while up to 536 bytes are acknowledged" in one.text
    assert one.verdict is UNCLEAR, "the other side may have gone: nothing was heard of it since"
    assert "Or the other side has gone" in one.text


@pytest.mark.parametrize("times", [1, 2, 3])
def test_who_sends_again_once_or_twice_has_no_mtu_fault(times: int) -> None:
    capture = Capture()
    stuck(capture, times=times)
    assert of(capture, "mtu") == []


def test_short_segments_in_vain_are_no_mtu_fault() -> None:
    capture = Capture()
    stuck(capture, 500)
    assert of(capture, "mtu") == []


def test_what_gets_through_in_the_end_is_no_fault() -> None:
    capture = Capture()
    stuck(capture).send(1, ACK, "finished")
    assert of(capture, "mtu") == []


def test_beside_one_as_long_that_was_acknowledged_it_is_no_mtu_fault() -> None:
    capture = Capture()
    connection = Connection(capture).open().say(0, "finished", bytes(MSS))
    for number in range(5):
        connection.send(0, ACK | PUSH, "finished", bytes(MSS), again=number > 0)
        connection.send(1, ACK, "finished")
    assert of(capture, "mtu") == []


def test_a_long_segment_behind_a_hole_that_was_acknowledged_selectively_speaks_against_it() -> None:
    """Segments of full size are missing and one of full size is there: ordinary loss."""
    for length, expected in ((MSS, []), (200, [FAULT])):
        capture = Capture()
        connection = Connection(capture).open()
        begin = connection.numbers[0]
        connection.send(0, ACK | PUSH, "finished", bytes(MSS))
        connection.send(0, ACK | PUSH, "finished", bytes(length))
        for _ in range(4):
            sacked(capture, connection, begin, begin + MSS, begin + MSS + length)
            connection.numbers[0] = begin + MSS
            connection.send(0, ACK | PUSH, "finished", bytes(MSS), again=True)
        assert [one.verdict for one in of(capture, "mtu")] == expected


def sacked(capture: Capture, connection: Connection, upto: int, begin: int, end: int) -> None:
    """RIGHT acknowledges `upto`, and a block behind it."""
    options = struct.pack(">BBBBII", 1, 1, 5, 10, begin % 2**32, end % 2**32)
    head = struct.pack(
        ">HHIIBBHHH", 80, connection.port, connection.numbers[1] % 2**32, upto % 2**32, 8 << 4, ACK, 512, 0, 0
    )
    capture.put(1, head + options, 6, "finished")


def test_unfinished_segments_in_vain_are_a_checksums_fault_and_no_mtus() -> None:
    capture = Capture()
    connection = Connection(capture).open().say(0, "finished", b"hello")
    for number in range(5):
        connection.send(0, ACK | PUSH, "unfinished", bytes(1200), again=number > 0)
    assert of(capture, "mtu") == []
    assert [one.verdict for one in capture.findings()] == [FAULT]


def too_long(source: str, quoted: tuple[str, str], mtu: int) -> bytes:
    body = (
        struct.pack(">BBHHH", 3, 4, 0, 0, mtu) + ip_header(*quoted, 17, 1400, 9) + struct.pack(">HHHH", 1, 4789, 0, 0)
    )
    return ip_header(source, quoted[0], 1, len(body), 7) + body


@pytest.mark.parametrize("in_vain", [False, True])
def test_a_router_of_the_underlay_that_says_so_is_heard(in_vain: bool) -> None:
    capture = Capture()
    if in_vain:
        stuck(capture, heard=False)
    else:
        Connection(capture).open()
    capture.packets.append((capture.now, too_long("198.51.100.1", VTEPS, 1400), None))
    (one,) = of(capture, "mtu")
    assert one.verdict is (FAULT if in_vain else UNCLEAR)
    assert "a router says so, 1 time (ICMP, only 1,400 bytes pass)" in one.text


def test_a_router_that_speaks_of_others_says_nothing_here() -> None:
    capture = Capture()
    Connection(capture).open()
    capture.packets.append((capture.now, too_long("198.51.100.1", ("198.51.100.7", "198.51.100.8"), 1400), None))
    assert of(capture, "mtu") == []


def cut(packet: bytes, at: int, *, rest: bool = True) -> list[bytes]:
    """A packet of the underlay in two fragments, of which the second may be missing; its IP identification stays."""
    number = int.from_bytes(packet[4:6])
    parts = [(0, packet[20 : 20 + at])] + ([(at, packet[20 + at :])] if rest else [])
    found = []
    for offset, part in parts:
        last = offset + len(part) == len(packet) - 20
        flags = offset // 8 | (0 if last else 0x2000)
        header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(part), number, flags, 64, 17, 0) + packet[12:20]
        header = header[:10] + right(b"", header).to_bytes(2) + header[12:]
        found.append(header + part)
    return found


def in_fragments(*, rest: bool, acknowledged: bool = False) -> Capture:
    """A conversation whose long packets are cut to fragments on the underlay, and what comes behind to pass the end."""
    whole, capture = Capture(), Capture()
    when, connection = whole.now, Connection(whole).open()
    for number in range(4):
        connection.send(0, ACK | PUSH, "finished", bytes(1420), again=number > 0 and not acknowledged)
        if acknowledged:
            connection.send(1, ACK, "finished")
    for when, packet, mark in whole.packets:
        parts = [packet] if len(packet) < 1000 else cut(packet, 1400, rest=rest)
        capture.packets += [(when, part, mark) for part in parts]
    for number in range(9):
        capture.now = when + SECOND
        capture.echo(0, number)
        capture.echo(1, number)
    return capture


def test_long_packets_that_are_cut_and_never_acknowledged_are_a_fault() -> None:
    (one,) = of(in_fragments(rest=True), "mtu")
    assert one.verdict is FAULT
    assert "4 packets of up to 1,510 bytes cut to fragments" in one.text
    (one,) = of(in_fragments(rest=False), "mtu")
    assert one.verdict is FAULT
    assert "4 packets cut to fragments of which the rest never comes" in one.text
    assert "a filter by port leaves it out" in one.text


def test_fragments_of_which_all_is_well_are_harmless() -> None:
    (one,) = of(in_fragments(rest=True, acknowledged=True), "mtu")
    assert one.verdict is HARMLESS
    assert "It works here" in one.text


def test_a_filter_by_port_leaves_the_rest_out_and_that_is_no_fault() -> None:
    (one,) = of(in_fragments(rest=False, acknowledged=True), "mtu")
    assert one.verdict is UNCLEAR


# --- nothing answers --------------------------------------------------------------------------------------------------


def test_sound_questions_without_an_answer_ask_for_a_second_capture() -> None:
    capture = Capture()
    Connection(capture).knock("finished", times=4)
    (one,) = of(capture, "unanswered")
    assert (one.verdict, one.who, one.packets) == (UNCLEAR, LEFT, 4)
    assert "nothing whatever comes back" in one.text
    assert "fixer compare" in one.text


def test_in_both_directions_it_is_said_once() -> None:
    capture = Capture()
    Connection(capture).knock("finished", times=4)
    back = Connection(capture, 6000)
    for number in range(3):
        back.send(1, SYN, "finished", again=number > 0)
    (one,) = of(capture, "unanswered")
    assert "in neither direction" in one.text


def test_where_anything_is_answered_a_silent_port_is_not_worth_a_word() -> None:
    capture = Capture()
    Connection(capture, 5000).open().say(0, "finished", b"hello")
    Connection(capture).knock("finished", times=4)
    assert of(capture, "unanswered") == []


def test_who_is_broken_is_not_told_to_look_elsewhere() -> None:
    capture = Capture()
    Connection(capture).knock("unfinished")
    Connection(capture, 4001).knock("finished")
    assert of(capture, "unanswered") == []


# --- two tenants, the same addresses ----------------------------------------------------------------------------------


def in_vni(packet: bytes, vni: int) -> bytes:
    return packet[:32] + (vni << 8).to_bytes(4) + packet[36:]


def test_what_is_answered_in_another_vni_excuses_nobody() -> None:
    """Two tenants with the same addresses and ports: of one nothing unfinished arrives, the other one works."""
    broken, works, capture = Capture(), Capture(), Capture()
    Connection(broken).knock(times=3)
    Connection(works).open().say(0, "finished", b"hello")
    capture.packets = [(when, in_vni(packet, 1), mark) for when, packet, mark in broken.packets]
    capture.packets += [(when + 1, in_vni(packet, 2), mark) for when, packet, mark in works.packets]
    capture.packets.sort(key=lambda each: each[0])
    (one,) = of(capture, "unfinished")
    assert (one.verdict, one.packets, one.vnis) == (FAULT, 3, (1,))


def test_answers_that_come_back_in_a_vni_of_their_own_are_answers() -> None:
    """A router at either end: each direction has the VNI of where it goes (RFC 9135 §4.1)."""
    spoken, capture = Capture(), Capture()
    Connection(spoken).open("unfinished").say(0, "unfinished", b"hello")
    capture.packets = [
        (when, in_vni(packet, 1 if packet[12:16] == bytes([192, 0, 2, 4]) else 2), mark)
        for when, packet, mark in spoken.packets
    ]
    assert {one.verdict for one in capture.findings()} == {HARMLESS}


# --- other tunnels, other ports ---------------------------------------------------------------------------------------


def findings_of(packets: list[bytes], tmp_path: Path, **settings: object) -> list[Finding]:
    path = tmp_path / "one.pcap"
    path.write_bytes(pcap(packets, link_type=101))
    return scan_file(path, Settings(**settings)).findings()  # type: ignore[arg-type]


def on_port(port: int) -> bytes:
    packet = Wire(outer="zero").bytes()
    return packet[:22] + port.to_bytes(2) + packet[24:]


def test_vxlan_on_another_port_is_known_by_its_shape(tmp_path: Path) -> None:
    found = findings_of([on_port(7777)] * 3 + [on_port(9000)], tmp_path)
    (one,) = (each for each in found if each.cause == "odd_port")
    assert one.packets == 4
    assert "UDP 7777 (3) and 9000 (1)" in one.text
    assert "`fixer scan --port 7777 --port 9000`" in one.text
    assert [
        each.cause
        for each in findings_of([on_port(7777)] * 3, tmp_path, vxlan=Settings().overridden(ports=[7777]).vxlan)
    ] == ["sound"]


def test_what_only_begins_like_vxlan_is_none(tmp_path: Path) -> None:
    packet = on_port(7777)
    for at, value in ((28, 0x09), (35, 1), (48, 0x12), (50, 0x65)):
        other = packet[:at] + bytes([value]) + packet[at + 1 :]
        assert "odd_port" not in {one.cause for one in findings_of([other], tmp_path)}, at


@pytest.mark.parametrize(
    ("protocol", "port", "name", "cause"),
    [
        (50, 0, "ESP (IPsec)", "other_tunnel"),
        (47, 0, "GRE", "other_tunnel"),
        (17, 6081, "Geneve", "geneve"),
        (17, 51820, "WireGuard", "other_tunnel"),
    ],
)
@pytest.mark.parametrize("plain", [False, True])
def test_another_tunnel_is_named(tmp_path: Path, protocol: int, port: int, name: str, cause: str, plain: bool) -> None:
    body = struct.pack(">HHHH", 1000, port, 24, 0) + bytes(16) if port else bytes(24)
    packet = ip_header("192.0.2.1", "192.0.2.2", protocol, len(body), 1) + body
    found = findings_of([packet] * 2, tmp_path, plain=plain)
    (one,) = (each for each in found if each.cause == cause)
    assert one.text.startswith(f"2 packets of {name}, which is another tunnel than VXLAN")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fragments-mtu.pcap", [("mtu", FAULT)]),
        ("odd-port.pcap", [("odd_port", UNCLEAR)]),
    ],
)
def test_field_captures_have_the_right_conclusion(name: str, expected: list[tuple[str, Verdict]]) -> None:
    found = scan_file(shared.path(f"field/{name}"), Settings()).findings()
    assert [(one.cause, one.verdict) for one in found] == expected


def test_the_field_capture_on_an_odd_port_is_read_with_its_option() -> None:
    settings = Settings().overridden(ports=[7777, 4799])
    report = scan_file(shared.path("field/odd-port.pcap"), settings)
    assert report.tally.total.vxlan == 6
    assert "odd_port" not in {one.cause for one in report.findings()}
    assert HOSTS[0] not in report.tally.vteps


# --- what there is no room for ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kinds", "conversations"), [(2, 64), (64, 1)])
def test_packets_whose_fate_finds_no_room_are_said(kinds: int, conversations: int) -> None:
    capture = Capture()
    for port in range(4000, 4004):
        Connection(capture, port).open("unfinished").say(0, "unfinished", b"hello")
    pipeline, tally = Pipeline(ports=[4789]), Tally()
    census = Census(common_mtu=1500, largest_mtu=9216, most_kinds=kinds, most_conversations=conversations)
    for when, packet, outgoing in capture.packets:
        if census.full:
            tally.take(census)
        census.add(pipeline.examine(bytearray(packet), when_ns=when), outgoing, packet)
    tally.finish(census)
    (one,) = (each for each in findings(tally, [4789], plain=False) if each.cause == "not_followed")
    assert one.verdict is UNCLEAR
    assert 0 < one.packets <= 16
    assert "What became of" in one.text
    assert of(capture, "not_followed") == [], "there is room for all of them"
