"""The road that the daemon's tests send packets over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.road import Road

from fixer.host.machine import Host
from fixer.lab import net


@pytest.fixture
def road() -> Iterator[Road]:
    host, name = Host(), net.own_name()
    with net.Namespace(f"{name}-left", host) as sender, net.Namespace(f"{name}-right", host) as receiver:
        made = Road(sender, receiver)
        with made.inlet, made.outlet:
            yield made
