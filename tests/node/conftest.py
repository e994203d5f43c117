"""A network namespace of one's own, removed whatever happens; skipped by the name of what is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from netns import Namespace

from fixer.node.host import NET, Host


@pytest.fixture
def netns() -> Iterator[Namespace]:
    host = Host()
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    if host.which("iptables") is None:
        pytest.skip("needs iptables")
    here = Namespace(host)
    added = host.run(["ip", "netns", "add", here.name])
    if added.status != 0:
        pytest.skip(f"needs network namespaces: {added.err.strip()}")
    try:
        here.run("ip", "link", "set", "lo", "up")
        if not here.call(host.exists, f"{NET}/netfilter/nfnetlink_queue"):
            pytest.skip("needs NFQUEUE in the kernel (nfnetlink_queue)")
        yield here
    finally:
        host.run(["ip", "netns", "delete", here.name])


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
