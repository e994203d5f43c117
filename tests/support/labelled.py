"""Captures of every kind that a sender can be seen in, each with the conclusion that is right."""

from __future__ import annotations

from collections.abc import Callable

from support.dialogue import ACK, FIN, HOSTS, MSS, PUSH, RST, SYN, VTEPS, Capture, Connection

from fixer.findings.finding import Place, Verdict

FAULT, UNCLEAR, HARMLESS = Verdict
LEFT, RIGHT = VTEPS
Label = dict[tuple[str, Verdict], int]
"""By VTEP and verdict: packets. Who is not named is sound."""

LABELLED: dict[str, tuple[Callable[[Capture], None], Label, Place | None, int | None]] = {}


def label(
    expected: Label, place: Place | None = None, told: int | None = None
) -> Callable[[Callable[[Capture], None]], Callable[[Capture], None]]:
    def remember(build: Callable[[Capture], None]) -> Callable[[Capture], None]:
        LABELLED[build.__name__.replace("_", " ")] = build, expected, place, told
        return build

    return remember


def answered(capture: Capture, first: str, second: str = "finished", port: int = 4000) -> None:
    """A whole connection with a question and an answer; LEFT sends 5 packets of it, RIGHT 4."""
    connection = Connection(capture, port).open(first, second)
    connection.say(0, first, b"question", second).say(1, second, b"answer", first)
    connection.send(1, FIN | ACK, second)
    connection.send(0, FIN | ACK, first)


@label({})
def all_is_finished(capture: Capture) -> None:
    answered(capture, "finished")


@label({(LEFT, HARMLESS): 5}, Place.SENDER)
def on_the_sender(capture: Capture) -> None:
    answered(capture, "unfinished")


@label({(LEFT, HARMLESS): 5}, Place.SENDER)
def any_on_the_sender(capture: Capture) -> None:
    capture.marks = (True, False)
    answered(capture, "unfinished")


@label({(LEFT, HARMLESS): 3}, Place.SENDER)
def any_on_the_sender_and_nobody_answers(capture: Capture) -> None:
    capture.marks = (True, False)
    Connection(capture).knock()


@label({(LEFT, HARMLESS): 5, (RIGHT, HARMLESS): 4}, Place.ONE_HOST)
def one_host_for_both(capture: Capture) -> None:
    answered(capture, "unfinished", "unfinished")


@label({(LEFT, HARMLESS): 5, (RIGHT, HARMLESS): 4}, Place.ONE_HOST)
def one_host_marked_as_incoming(capture: Capture) -> None:
    capture.marks = (False, False)
    answered(capture, "unfinished", "unfinished")


@label({(LEFT, HARMLESS): 5, (RIGHT, HARMLESS): 4}, Place.ONE_HOST)
def one_host_from_one_end_of_the_veth(capture: Capture) -> None:
    """What one side sends is marked as outgoing, the other's came in, and nobody ever finished either."""
    capture.marks = (False, True)
    answered(capture, "unfinished", "unfinished")


@label({(LEFT, HARMLESS): 5}, Place.RECEIVER)
def repaired_behind_this_point(capture: Capture) -> None:
    capture.marks = (False, True)
    answered(capture, "unfinished")


@label({(LEFT, HARMLESS): 1}, Place.RECEIVER)
def merged_by_the_receivers_gro(capture: Capture) -> None:
    Connection(capture).open().say(0, "unfinished", bytes(7000)).say(0, "finished", b"end")


@label({(LEFT, HARMLESS): 1}, Place.RECEIVER)
def merged_by_gro_of_less_than_a_wire(capture: Capture) -> None:
    """Two short ones in one, shorter than the MSS: nothing but its acknowledgement excuses it."""
    Connection(capture).open().say(0, "unfinished", bytes(600)).say(0, "finished", b"end")


@label({(LEFT, HARMLESS): 1})
def merged_and_not_acknowledged_by_the_end(capture: Capture) -> None:
    Connection(capture).open().send(0, ACK | PUSH, "unfinished", bytes(7000))


@label({(LEFT, HARMLESS): 1})
def merged_and_its_handshake_is_not_here(capture: Capture) -> None:
    connection = Connection(capture).say(0, "finished", bytes(1300))
    connection.send(0, ACK | PUSH, "unfinished", bytes(5200))


@label({(LEFT, FAULT): 15, (LEFT, HARMLESS): 20}, Place.RECEIVER)
def a_broken_nic_among_merged_traffic(capture: Capture) -> None:
    connection = Connection(capture).open()
    for _ in range(20):
        connection.say(0, "unfinished", bytes(2820))
    for port in range(5000, 5005):
        Connection(capture, port).knock()


@label({(LEFT, FAULT): 3, (LEFT, HARMLESS): 1}, Place.RECEIVER)
def a_broken_nic_among_merged_traffic_without_handshake(capture: Capture) -> None:
    Connection(capture).say(0, "finished", b"1").say(0, "unfinished", bytes(2820)).say(0, "finished", b"2")
    Connection(capture, 5000).knock()


@label({(LEFT, FAULT): 3}, Place.RECEIVER)
def any_on_the_receiver_of_a_broken_sender(capture: Capture) -> None:
    capture.marks = (False, True)
    Connection(capture).knock()


@label({(LEFT, FAULT): 3}, Place.BEHIND)
def some_finished_and_some_never_answered(capture: Capture) -> None:
    answered(capture, "finished")
    Connection(capture, 5000).knock()


@label({(LEFT, UNCLEAR): 3}, Place.UNKNOWN)
def on_the_sender_whose_kernel_acknowledges_in_time_wait(capture: Capture) -> None:
    """Its acknowledgements of a FIN that comes again are finished before any NIC."""
    old = Connection(capture, 4100)
    for number in range(3):
        old.send(1, FIN | ACK, "finished", again=number > 0)
        old.send(0, ACK, "finished")
    Connection(capture).knock()


@label({(LEFT, UNCLEAR): 3}, Place.UNKNOWN)
def on_the_sender_where_a_guest_asks_for_an_address(capture: Capture) -> None:
    """DHCP's clients finish what they write; the guest's SYNs are its NIC's to finish, and a filter eats them."""
    for _ in range(3):
        capture.udp(0, "finished", b"discover", 68, 67)
    Connection(capture).knock()


@label({(LEFT, FAULT): 4}, Place.BEHIND)
def only_what_was_cut_is_unfinished(capture: Capture) -> None:
    """Handshake and short segments are finished, full ones are not: no MTU, though only long packets are lost."""
    connection = Connection(capture).open().say(0, "finished", b"question")
    for number in range(4):
        connection.send(0, ACK | PUSH, "unfinished", bytes(1400), again=number > 0)


@label({(LEFT, FAULT): 1}, Place.BEHIND)
def acknowledged_only_after_it_came_again_and_was_finished(capture: Capture) -> None:
    connection = Connection(capture).open()
    connection.send(0, ACK | PUSH, "unfinished", b"data")
    connection.send(0, ACK | PUSH, "finished", b"data", again=True)
    connection.send(1, ACK, "finished")


@label({(LEFT, UNCLEAR): 3}, Place.UNKNOWN)
def one_direction_and_nothing_else(capture: Capture) -> None:
    Connection(capture).knock()


@label({(LEFT, HARMLESS): 3}, Place.SENDER, told=0)
def one_direction_and_told_that_on_the_sender(capture: Capture) -> None:
    Connection(capture).knock()


@label({(LEFT, FAULT): 3}, Place.RECEIVER, told=1)
def one_direction_and_told_that_on_the_receiver(capture: Capture) -> None:
    Connection(capture).knock()


@label({(LEFT, UNCLEAR): 3, (RIGHT, UNCLEAR): 3})
def both_are_broken(capture: Capture) -> None:
    knock_both(capture)


@label({(LEFT, HARMLESS): 3, (RIGHT, FAULT): 3}, told=0)
def both_are_broken_and_told_where(capture: Capture) -> None:
    knock_both(capture)


def knock_both(capture: Capture) -> None:
    Connection(capture).knock()
    back = Connection(capture, 6000)
    for number in range(3):
        back.send(1, SYN, "unfinished", again=number > 0)


@label({(LEFT, HARMLESS): 5, (LEFT, UNCLEAR): 3}, Place.SENDER)
def on_the_sender_and_one_port_is_filtered(capture: Capture) -> None:
    answered(capture, "unfinished")
    Connection(capture, 5000).knock()


@label({(LEFT, HARMLESS): 1}, Place.SENDER)
def on_the_sender_and_the_port_is_closed(capture: Capture) -> None:
    connection = Connection(capture)
    connection.send(0, SYN, "unfinished")
    connection.send(1, RST | ACK, "finished")


@label({(LEFT, HARMLESS): 1}, Place.SENDER)
def on_the_sender_and_the_udp_port_is_closed(capture: Capture) -> None:
    capture.udp(0, "unfinished")
    capture.unreachable(1)


@label({(LEFT, HARMLESS): 2}, Place.SENDER)
def udp_is_answered(capture: Capture) -> None:
    for _ in range(2):
        capture.udp(0, "unfinished")
        capture.udp(1, "finished")


@label({(LEFT, UNCLEAR): 2})
def udp_one_way(capture: Capture) -> None:
    """Nothing would answer it, and a sender's own host may forward what is finished."""
    answered(capture, "finished")
    for number in range(2):
        capture.udp(0, "unfinished", b"log %d" % number)


@label({(LEFT, HARMLESS): 2}, Place.SENDER)
def of_two_dns_queries_one_is_answered(capture: Capture) -> None:
    """The one that is answered shows where this was taken."""
    capture.udp(0, "unfinished", b"\0\1 a", to=53)
    capture.udp(0, "unfinished", b"\0\2 aaaa", to=53)
    capture.udp(1, "finished", b"\0\1 yes", to=53)


@label({(LEFT, HARMLESS): 2}, Place.SENDER)
def outer_left_to_the_nic_and_echoes_answered(capture: Capture) -> None:
    for number in range(2):
        capture.echo(0, number, outer="partial")
        capture.echo(1, number)


@label({(LEFT, UNCLEAR): 4}, Place.UNKNOWN)
def outer_left_to_the_nic_and_one_direction(capture: Capture) -> None:
    for number in range(4):
        capture.echo(0, number, outer="partial")


@label({(LEFT, FAULT): 1})
def damage(capture: Capture) -> None:
    connection = Connection(capture).open()
    connection.send(0, ACK | PUSH, "wrong", b"data")
    connection.send(0, ACK | PUSH, "finished", b"data", again=True)
    connection.send(1, ACK, "finished")


@label({})
def merged_by_a_nics_lro(capture: Capture) -> None:
    """Without a tunnel, where NICs do it: the checksum is that of the first segment, and nobody can verify it."""
    capture.plain = True
    connection = Connection(capture).open()
    for _ in range(3):
        connection.say(0, "lro", bytes(4380))


@label({(HOSTS[0], HARMLESS): 2})
def a_container_behind_a_veth(capture: Capture) -> None:
    """Without a tunnel: on one host nobody finishes anything."""
    capture.plain = True
    Connection(capture).open("unfinished")


@label({(LEFT, FAULT): 3}, Place.BEHIND)
def two_tenants_of_the_same_addresses_and_one_is_broken(capture: Capture) -> None:
    capture.vni = 1
    Connection(capture).knock()
    capture.vni = 2
    Connection(capture).open().say(0, "finished", b"hello")


@label({(LEFT, HARMLESS): 3}, Place.SENDER)
def the_way_back_has_a_vni_of_its_own(capture: Capture) -> None:
    connection = Connection(capture)
    for side, flags, state in ((0, SYN, "unfinished"), (1, SYN | ACK, "finished"), (0, ACK, "unfinished")):
        capture.vni = 1 + side
        connection.send(side, flags, state, mss=MSS)
    capture.vni = 1
    connection.send(0, ACK | PUSH, "unfinished", b"hello")
    capture.vni = 2
    connection.send(1, ACK, "finished")


@label({(LEFT, FAULT): 4})
def long_packets_do_not_arrive(capture: Capture) -> None:
    """An MTU that is too large, and no checksum that is wrong: after the first of it the handshake is acknowledged."""
    connection = Connection(capture).open()
    for number in range(5):
        connection.send(0, ACK | PUSH, "finished", bytes(MSS), again=number > 0)
        connection.numbers[0] -= MSS
        connection.send(1, ACK, "finished")
        connection.numbers[0] += MSS


@label({(LEFT, UNCLEAR): 4})
def sound_and_nothing_answers(capture: Capture) -> None:
    Connection(capture).knock("finished", times=4)
