"""VXLAN over eth0, a VLAN, a bond and through WireGuard: broken, and repaired by what its operator would type."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from random import Random

import pytest

from fixer.host.machine import Host
from fixer.lab import traffic
from fixer.lab.carrier import Carrier
from fixer.lab.net import Lab, Layout, Pump
from fixer.lab.pump import Fault, Finish
from fixer.lab.service import Service

pytestmark = [pytest.mark.root, pytest.mark.kernels]

PAGE = Random(51820).randbytes(1 << 19)
SHA256 = hashlib.sha256(PAGE).hexdigest()
HANDSHAKE_SECONDS = 20  # WireGuard tries again after five; what came before the repair is lost


@pytest.fixture
def carrier(request: pytest.FixtureRequest, machine: Host) -> Carrier:
    wanted: Carrier = request.param
    if lacking := wanted.missing(machine):
        pytest.skip(lacking)
    return wanted


@pytest.fixture
def underlay() -> int:
    return 4


@pytest.fixture
def lab(carrier: Carrier, underlay: int, finish: Finish, machine: Host) -> Iterator[Lab]:
    with (
        Lab(Layout(carrier=carrier, underlay=underlay), Pump(Fault(finish)), machine) as built,
        traffic.serving(built.right, PAGE),
    ):
        yield built


def crosses(lab: Lab) -> bool:
    """Whether all that a user does works from left to right, in both families."""
    return all(
        traffic.download(lab.left, address, seconds=60).sha256 == SHA256
        and traffic.ask(lab.left, address, traffic.ECHO_PORT, size=3 * lab.layout.overlay_mtu, seconds=3) == "answered"
        and traffic.connect(lab.left, address, traffic.CLOSED_PORT) == "refused"
        for address in (lab.right.overlay4, lab.right.overlay6)
    )


@pytest.mark.parametrize("finish", [Finish.NOTHING])
@pytest.mark.parametrize(
    ("carrier", "underlay", "backend"),
    [
        (Carrier.ETH0, 4, "iptables"),
        (Carrier.ETH0, 4, "nft"),
        (Carrier.ETH0, 6, "iptables"),
        (Carrier.ETH0, 6, "nft"),
        (Carrier.VLAN, 4, "iptables"),
        (Carrier.BOND, 4, "iptables"),
    ],
    indirect=["carrier", "backend"],
)
def test_a_broken_wire_below_it_is_cured(lab: Lab, backend: str) -> None:
    assert traffic.ping(lab.left, lab.right.overlay4, seconds=20)
    assert traffic.connect(lab.left, lab.right.overlay4, traffic.HTTP_PORT) == "timed out"
    on = ("--backend", backend)
    with Service(lab.left, on=on), Service(lab.right, on=on) as right:
        assert crosses(lab)
        assert right.ask("status").status == 0
        assert (lab.right.run("nft", "list", "table", "ip", "fixer").status == 0) is (backend == "nft")
    assert right.counters["diagnosis"]["inner_unfinished"] > 100
    assert right.counters["action"]["repair"] > 100


@pytest.mark.parametrize("finish", [Finish.NOTHING])
@pytest.mark.parametrize("carrier", [Carrier.WIREGUARD], indirect=True)
def test_wireguards_own_packets_are_cured_as_those_of_no_tunnel(lab: Lab) -> None:
    """Its UDP checksum is what the card should have finished: no handshake, and so not even a ping, gets through."""
    assert not traffic.ping(lab.left, lab.right.overlay4, seconds=3)
    with Service(lab.left, on=("--plain",), run=("--plain",)), Service(lab.right, on=("--plain",), run=("--plain",)):
        assert traffic.ping(lab.left, lab.right.overlay4, seconds=HANDSHAKE_SECONDS)
        assert crosses(lab)


@pytest.mark.parametrize("finish", [Finish.EVERYTHING])
@pytest.mark.parametrize("carrier", [Carrier.WIREGUARD], indirect=True)
def test_in_wireguard_vxlan_is_sound(lab: Lab) -> None:
    """A sender has to finish what it encrypts: there is nothing for a card to leave unfinished."""
    with Service(lab.left), Service(lab.right) as right:
        assert traffic.ping(lab.left, lab.right.overlay4, seconds=HANDSHAKE_SECONDS)
        assert crosses(lab)
    assert right.counters["received"] > 100
    assert right.counters["action"]["repair"] == 0
