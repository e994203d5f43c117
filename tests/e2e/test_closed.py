"""`--plain` beside what Docker 28 does for a container: a DROP in raw, appended while the repair is on, closes it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.commands import wait_for

from fixer.host.machine import Host
from fixer.lab import traffic
from fixer.lab.net import Lab, Layout, Pump
from fixer.lab.pump import Fault, Finish
from fixer.lab.service import Service

pytestmark = [pytest.mark.root, pytest.mark.kernels]

PATIENCE_SECONDS = 60  # an emulated machine's: each look at the rules is a dozen processes


@pytest.fixture
def lab(machine: Host) -> Iterator[Lab]:
    with (
        Lab(Layout(tunnel=False, acquainted=True), Pump(Fault(Finish.EVERYTHING)), machine) as built,
        traffic.serving(built.right, b"a page"),
    ):
        yield built


@pytest.mark.parametrize("backend", ["iptables", "nft"], indirect=True)
def test_what_is_closed_later_is_closed(lab: Lab, backend: str) -> None:
    right = lab.right

    def is_open() -> bool:
        return traffic.connect(lab.left, right.overlay4, traffic.HTTP_PORT) == "connected"

    with Service(right, on=("--plain", "--backend", backend), run=("--plain",)) as service:
        said = service.ask("on", "--plain", "--backend", backend).out
        assert ("Docker 28" in said) is (backend == "iptables"), "where there is a gap it is named"
        assert is_open()
        right.run(*f"iptables -t raw -A PREROUTING -d {right.overlay4} ! -i docker0 -j DROP".split())
        if backend == "iptables":
            wait_for(
                lambda: "rule-put-back" in [event["event"]["action"] for event in service.events()], PATIENCE_SECONDS
            )
        assert not is_open(), "not one packet came past it"
        if backend == "iptables":
            said = " ".join(service.ask("status").out.split())
            assert "stands before our jump" in said, "it is closed to what we would repair, too"
        right.run(*f"iptables -t raw -R PREROUTING 1 -d {right.overlay4}9 ! -i docker0 -j DROP".split())
        assert is_open()
        assert service.ask("status").status == 0, "another's address is none of ours"
