"""What NAT and NICs do to outer checksums: righted by default settings, and never at the price of a wrong byte.

Each path is shown broken first, 0 of 20. Then its memory starts empty: the first two packets that differ are what a new
envelope costs in each direction that is broken; or ping has made the envelope known before, and nothing is lost.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from fixer.datapath.diagnose import Explanation
from fixer.host.machine import Host
from fixer.lab import traffic
from fixer.lab.net import Lab, Layout, Pump
from fixer.lab.pump import Fault, Finish
from fixer.lab.service import Service
from fixer.words import EXPLANATIONS

from .conftest import Page

pytestmark = [pytest.mark.root, pytest.mark.long]

PRICE = 2  # packets of a new envelope, in each direction whose outers are wrong
QUERIES = 20
REPORT_SECONDS = 10.0
FINISHED = Layout(port=8472, outer_checksum=True, unfinished=False, acquainted=True)
UNFINISHED = Layout(port=8472, outer_checksum=True, acquainted=True)
MASQUERADE = "iptables -t nat -A POSTROUTING -o eth0 -p udp --dport 8472 -j MASQUERADE --random-fully"


@dataclass(frozen=True)
class Case:
    """A path whose outers are wrong, and what ``fixer`` is to name as the cause once it has seen enough of them."""

    name: str
    layout: Layout
    finish: Finish
    causes: tuple[Explanation, ...]  # the first one for sure, the others before that is certain
    masquerade: bool = False
    ping_works: bool = False

    @property
    def price(self) -> int:
        return PRICE if self.masquerade else 2 * PRICE


CASES = [
    # The sender's kernel leaves ping's outer sum to later than NAT: it is right. A query has a flow of its own, a
    # download has one: the ports that it implies and the error of the flow are the same finding.
    Case(
        "masquerade-random-fully",
        FINISHED,
        Finish.NOTHING,
        (Explanation.IMPLIED_PORTS, Explanation.FLOW_ERROR),
        masquerade=True,
        ping_works=True,
    ),
    # As long as only one flow was seen, its error may be that flow's.
    Case("readdressed", FINISHED, Finish.READDRESSED, (Explanation.SAME_ERROR, Explanation.FLOW_ERROR)),
    Case(
        "readdressed-unfinished",
        UNFINISHED,
        Finish.READDRESSED,
        (Explanation.SAME_ERROR, Explanation.FLOW_ERROR),
    ),
    Case("computed-wrongly", FINISHED, Finish.WRONGLY, (Explanation.SYSTEMATIC,)),
    Case(
        "ffff",
        Layout(port=8472, unfinished=False, acquainted=True),
        Finish.NAT,
        (Explanation.FIELD_FFFF,),
    ),
    Case("ffff-unfinished", Layout(port=8472, acquainted=True), Finish.NAT, (Explanation.FIELD_FFFF,)),
]
EACH = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
ENVELOPE = pytest.mark.parametrize("known", [False, True], ids=["new-envelope", "known-envelope"])


@contextmanager
def _lab(machine: Host, page: type[Page], case: Case, corrupt: float = 0.0) -> Iterator[Lab]:
    with ExitStack() as standing:
        lab = standing.enter_context(Lab(case.layout, Pump(Fault(case.finish, corrupt)), machine))
        standing.enter_context(traffic.serving(lab.right, page.content))
        if case.masquerade:
            assert lab.left.run(*MASQUERADE.split()).status == 0
        yield lab


@contextmanager
def _fixer(lab: Lab, *, known: bool) -> Iterator[tuple[Service, Service]]:
    """By default settings, on both hosts; ``known``: once ping has shown them the envelope."""
    with Service(lab.left) as left, Service(lab.right) as right:
        if known:
            traffic.ping(lab.left, lab.right.overlay4, count=PRICE * 3, seconds=5)
        yield left, right


def _queries(lab: Lab, count: int = QUERIES, seconds: float = 1.0) -> list[str]:
    """What became of questions as a resolver asks them: each from a port of its own, and none as long as the next."""
    there = lab.right.overlay4, traffic.ECHO_PORT
    return [traffic.ask(lab.left, *there, size=20 + number, seconds=seconds) for number in range(count)]


@EACH
def test_it_is_broken_without_fixer(machine: Host, page: type[Page], case: Case) -> None:
    with _lab(machine, page, case) as lab:
        assert traffic.ping(lab.left, lab.right.overlay4) is case.ping_works
        assert _queries(lab, seconds=0.1).count("lost") == QUERIES
        assert traffic.connect(lab.left, lab.right.overlay4, traffic.HTTP_PORT) == "timed out"
        assert traffic.checksum_errors(lab.right)["UdpInCsumErrors"] > QUERIES


@ENVELOPE
@EACH
def test_every_query_is_answered(machine: Host, page: type[Page], case: Case, known: bool) -> None:
    price = 0 if known else case.price
    with _lab(machine, page, case) as lab, _fixer(lab, known=known):
        assert _queries(lab, price + QUERIES, 0.5) == ["lost"] * price + ["answered"] * QUERIES


@ENVELOPE
@EACH
def test_tcp_connects_and_arrives_as_it_was_sent(machine: Host, page: type[Page], case: Case, known: bool) -> None:
    """By the first retransmission of the SYN, after 1 s; if it has to show the envelope itself, by those that follow.

    SYN-ACKs that nobody finished are all alike: they show nothing, and wait for a packet of another kind, as a ping is.
    """
    alone = case.layout.unfinished and not known
    with _lab(machine, page, case) as lab, _fixer(lab, known=known):
        there = lab.right.overlay4
        if alone:
            assert traffic.connect(lab.left, there, traffic.HTTP_PORT, 6.0) == "timed out"
            traffic.ping(lab.left, there, count=3 * PRICE, seconds=5)
        assert traffic.connect(lab.left, there, traffic.HTTP_PORT, 1.5 if known or alone else 15.0) == "connected"
        arrived = traffic.download(lab.left, there)
        assert (arrived.error, arrived.size, arrived.sha256) == ("", len(page.content), page.sha256)
        assert traffic.connect(lab.left, there, traffic.CLOSED_PORT) == "refused"
        assert traffic.ping(lab.left, there)


@ENVELOPE
@pytest.mark.parametrize("case", [case for case in CASES if not case.layout.unfinished], ids=lambda case: case.name)
def test_not_one_wrong_byte_is_delivered(machine: Host, page: type[Page], case: Case, known: bool) -> None:
    """1 % of the payloads are damaged on the same wire: dropped, and TCP's to send again.

    Not where the inner was never finished: nobody ever summed such a payload, with or without ``fixer``.
    """
    with _lab(machine, page, case, corrupt=0.01) as lab:
        with _fixer(lab, known=known) as (left, _):
            answers = _queries(lab, 100, 0.3)
            arrived = traffic.download(lab.left, lab.right.overlay4, seconds=40.0)
            answers += _queries(lab, 100, 0.3)
            assert answers.count("altered") == 0
            assert answers.count("answered") > 180
            assert (arrived.error, arrived.size, arrived.sha256) == ("", len(page.content), page.sha256)
        # 5 MB are some 3,700 segments.
        assert left.counters["diagnosis"]["corrupt"] == left.counters["action"]["drop"] > 20


@ENVELOPE
@EACH
def test_log_and_status_name_the_cause(machine: Host, page: type[Page], case: Case, known: bool) -> None:
    with _lab(machine, page, case) as lab, _fixer(lab, known=known) as (_, right):
        _queries(lab, 2 * QUERIES, 0.3)
        traffic.download(lab.left, lab.right.overlay4)
        first, *_ = names = [cause.name.lower() for cause in case.causes]
        give_up = time.monotonic() + REPORT_SECONDS
        while not (counted := _counted(right)).get(first):
            assert time.monotonic() < give_up, counted
            time.sleep(0.2)
        shown = right.ask("status").out
        (line,) = [line for line in shown.splitlines() if line.startswith("Cause")]
        # What came before there was enough to tell from has no name; nothing has a wrong one.
        assert _causes_logged(right) <= {EXPLANATIONS[cause] for cause in case.causes}
        assert counted.keys() <= set(names)
        assert all(cause.replace("_", " ") in line for cause in counted)


def _counted(service: Service) -> dict[str, int]:
    """How often the daemon gave each cause, as ``fixer status`` has it."""
    daemon = json.loads(service.ask("status", "--json").out)["daemon"]
    counted = daemon["counters"]["explanation"] if daemon else {}
    return {cause: count for cause, count in counted.items() if count and cause != "unexplained"}


def _causes_logged(service: Service) -> set[str]:
    packets = (event["fixer"] for event in service.events() if event["event"]["dataset"] == "fixer.packet")
    return {packet["explanation"] for packet in packets if "explanation" in packet}
