"""Every path that broke: shown broken first, with the kernel as judge, then with ``fixer`` on both hosts.

A path is built once and shared by its tests; ``Case`` says what it is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from fixer.host.machine import Host
from fixer.lab import bpf, traffic
from fixer.lab.net import End, Lab, Layout, Pump, Wire
from fixer.lab.pump import Fault, Finish
from fixer.lab.service import Service

from . import ovs
from .conftest import Page

pytestmark = pytest.mark.root

VLAN = 100
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
# The sender's kernel sums ICMP and fragments itself: ping works unless an outer checksum, left to the NIC, is wrong.
PING_WORKS, NOTHING_WORKS = True, False


@dataclass(frozen=True)
class Case:
    """A path: its layout, its wire, whether ping works without ``fixer``, and what ``fixer`` is told about it."""

    name: str
    layout: Layout
    wire: Wire
    ping_works: bool
    settings: str = ""
    plain: bool = False


def _pump(finish: Finish) -> Pump:
    return Pump(Fault(finish))


CASES = [
    Case("swarm-outer-off", Layout(), _pump(Finish.NOTHING), PING_WORKS),
    Case("swarm-outer-on", Layout(outer_checksum=True), _pump(Finish.NOTHING), NOTHING_WORKS),
    Case("only-outer-finished", Layout(outer_checksum=True), _pump(Finish.OUTER), PING_WORKS),
    Case("outer-over-unfinished", Layout(outer_checksum=True), _pump(Finish.OUTER_OVER_UNFINISHED), PING_WORKS),
    Case("zero-updated-by-nat", Layout(), _pump(Finish.NAT), NOTHING_WORKS, settings="[vxlan]\nvnis = [4097]\n"),
    Case("flannel-8472-jumbo", Layout(port=8472, mtu=9000, outer_checksum=True), _pump(Finish.NOTHING), NOTHING_WORKS),
    Case("jumbo-outer-off", Layout(mtu=9000), _pump(Finish.NOTHING), PING_WORKS),
    Case("ipv6-outer-on", Layout(underlay=6, outer_checksum=True), _pump(Finish.NOTHING), NOTHING_WORKS),
    Case("ipv6-outer-off", Layout(underlay=6), _pump(Finish.NOTHING), PING_WORKS),
    Case(
        "ipv6-jumbo-outer-over-unfinished",
        Layout(underlay=6, mtu=9000, outer_checksum=True),
        _pump(Finish.OUTER_OVER_UNFINISHED),
        PING_WORKS,
    ),
    Case("vlan-outer-off", Layout(vlan=True), _pump(Finish.NOTHING), PING_WORKS),
    Case("vlan-outer-on", Layout(vlan=True, outer_checksum=True), _pump(Finish.NOTHING), NOTHING_WORKS),
    Case("open-vswitch-outer-off", Layout(), ovs.Switch(), PING_WORKS),
    Case("open-vswitch-outer-on", Layout(outer_checksum=True), ovs.Switch(), NOTHING_WORKS),
    Case("plain", Layout(tunnel=False), _pump(Finish.NOTHING), PING_WORKS, plain=True),
    Case("plain-open-vswitch", Layout(tunnel=False), ovs.Switch(), PING_WORKS, plain=True),
]


@dataclass(frozen=True)
class Path:
    """A standing path with ``fixer`` on it, and what was seen and counted before there was one."""

    case: Case
    left: End
    right: End
    overlay_mtu: int
    without: dict[str, object]
    errors_without: dict[str, int] = field(default_factory=dict)

    def address(self, family: int) -> str:
        return self.right.overlay4 if family == 4 else self.right.overlay6


def _try(left: End, right: End) -> dict[str, object]:
    """What works from ``left`` to ``right``, all tried at once, for what does not work takes its time to say so."""
    attempts: dict[str, Callable[[], object]] = {
        "ping": lambda: traffic.ping(left, right.overlay4),
        "tcp4": lambda: traffic.connect(left, right.overlay4, traffic.HTTP_PORT),
        "tcp6": lambda: traffic.connect(left, right.overlay6, traffic.HTTP_PORT),
        "udp4": lambda: traffic.ask(left, right.overlay4, traffic.ECHO_PORT),
        "udp6": lambda: traffic.ask(left, right.overlay6, traffic.ECHO_PORT),
    }
    with ThreadPoolExecutor(len(attempts)) as together:
        return {name: future.result() for name, future in {n: together.submit(a) for n, a in attempts.items()}.items()}


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def path(request: pytest.FixtureRequest, machine: Host, page: type[Page]) -> Iterator[Path]:
    case: Case = request.param
    if isinstance(case.wire, ovs.Switch) and (lacking := ovs.missing(machine)):
        pytest.skip(lacking)
    if case.layout.vlan:
        request.getfixturevalue("tcx")
    plain = ("--plain",) if case.plain else ()
    with ExitStack() as standing:
        lab = standing.enter_context(Lab(case.layout, case.wire, machine))
        standing.enter_context(traffic.serving(lab.right, page.content))
        for end in (lab.left, lab.right) if case.layout.vlan else ():
            standing.enter_context(bpf.attached(end, end.device, bpf.BPF_TCX_EGRESS, bpf.push_tag(VLAN)))
            standing.enter_context(bpf.attached(end, end.device, bpf.BPF_TCX_INGRESS, bpf.pop_tag(VLAN)))
        without = _try(lab.left, lab.right)
        errors = traffic.checksum_errors(lab.right)
        for end in (lab.left, lab.right):
            standing.enter_context(Service(end, settings=case.settings, on=plain, run=plain))
            end.configure("neighbour flush all")  # an attempt under way asks again only after a second
        yield Path(case, lab.left, lab.right, case.layout.overlay_mtu, without, errors)


def test_it_is_broken_without_fixer(path: Path) -> None:
    assert path.without["ping"] is path.case.ping_works
    assert {path.without["tcp4"], path.without["tcp6"]} <= {"timed out", "unreachable"}
    assert {path.without["udp4"], path.without["udp6"]} == {"lost"}
    # Whether the inner or the outer sum is refused first depends on the path; that the kernel refuses does not.
    assert sum(path.errors_without.values()) >= 2


@FAMILIES
def test_ping(path: Path, family: int) -> None:
    assert traffic.ping(path.left, path.address(family), count=2, seconds=20)


@FAMILIES
def test_download_arrives_as_it_was_sent(path: Path, family: int, page: type[Page]) -> None:
    arrived = traffic.download(path.left, path.address(family))
    assert (arrived.error, arrived.size, arrived.sha256) == ("", len(page.content), page.sha256)


@FAMILIES
def test_udp_is_answered(path: Path, family: int) -> None:
    for size in (1, 32, 1001):
        assert traffic.ask(path.left, path.address(family), traffic.ECHO_PORT, size=size) == "answered"


@FAMILIES
def test_fragmented_udp_is_answered(path: Path, family: int) -> None:
    size = 3 * path.overlay_mtu
    assert traffic.ask(path.left, path.address(family), traffic.ECHO_PORT, size=size) == "answered"


@FAMILIES
def test_closed_port_refuses(path: Path, family: int) -> None:
    assert traffic.connect(path.left, path.address(family), traffic.CLOSED_PORT) == "refused"


@FAMILIES
def test_largest_packet_crosses(path: Path, family: int) -> None:
    headers = 28 if family == 4 else 48  # IP and ICMP
    assert traffic.ping(path.left, path.address(family), size=path.overlay_mtu - headers, whole=True)


@FAMILIES
def test_neighbour_is_found_from_nothing(path: Path, family: int) -> None:
    """ARP, or neighbour discovery: no host knows the other one's MAC address."""
    for end in (path.left, path.right):
        end.configure("neighbour flush all")
        assert path.address(family) not in end.run("ip", "neighbour", "show", "dev", end.device).out
    assert traffic.connect(path.left, path.address(family), traffic.HTTP_PORT) == "connected"


def test_kernel_refuses_nothing_any_more(path: Path, page: type[Page]) -> None:
    before = traffic.checksum_errors(path.left), traffic.checksum_errors(path.right)
    for family in (4, 6):
        assert traffic.download(path.left, path.address(family)).sha256 == page.sha256
        assert traffic.ask(path.left, path.address(family), traffic.ECHO_PORT) == "answered"
    assert (traffic.checksum_errors(path.left), traffic.checksum_errors(path.right)) == before
