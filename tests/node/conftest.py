"""A network namespace of one's own, for tests marked ``root``; both iptables in it, as far as they are there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from netns import Namespace

from fixer.lab import net
from fixer.node.host import Host


@pytest.fixture
def netns() -> Iterator[Namespace]:
    with Namespace(net.own_name(), Host()) as here:
        yield here
        for left in Path("/run/fixer").glob(f"{here.call(Host().netns_inode)}-*.baseline"):
            left.unlink()


@pytest.fixture(params=["nft", "legacy"])
def variant(request: pytest.FixtureRequest, netns: Namespace) -> str:
    """Both iptables, as far as this machine and its kernel have them."""
    name: str = request.param
    for command in (f"iptables-{name}", f"ip6tables-{name}"):
        if netns.host.which(command) is None:
            pytest.skip(f"needs {command}")
        # In a namespace of its own, so that looking (which makes the table) is not what a test sees.
        tried = netns.host.run(["unshare", "-n", command, "-t", "raw", "-L"])
        if tried.status != 0:
            pytest.skip(f"needs {command} in the kernel: {tried.err.strip()}")
    return name
