"""The laboratory as fixtures: skipped by the name of the missing part, and never left standing."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator
from random import Random
from types import FrameType

import pytest

from fixer.host.machine import Host
from fixer.lab import bpf


@pytest.fixture(scope="session", autouse=True)
def _leave_nothing_behind() -> Iterator[None]:
    """SIGTERM unwinds like Ctrl-C, so that every lab is removed."""

    def leave(number: int, _: FrameType | None) -> None:
        pytest.exit("terminated", returncode=128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def machine() -> Host:
    """This machine, which has all that the mark ``root`` asks for: what goes wrong from here on is a failure."""
    return Host()


@pytest.fixture(scope="session")
def tcx(machine: Host) -> None:
    """Skips where eBPF programs cannot be attached."""
    if lacking := bpf.missing(machine):
        pytest.skip(lacking)


@pytest.fixture
def backend(request: pytest.FixtureRequest, machine: Host) -> str:
    """Whose rules, as `fixer on --backend` names it; skips where the kernel has no queue statement of nftables."""
    wanted: str = request.param
    if wanted == "nft":
        if machine.which("nft") is None:
            pytest.skip("needs nft (nftables)")
        trial = "table ip t { chain c { queue num 0 bypass; }; }\n"
        if machine.run(["unshare", "-n", "nft", "-f", "-"], input=trial).status != 0:
            pytest.skip("no queue statement of nftables in this kernel")
    return wanted


class Page:
    """5 MB that compress badly, and what they must look like on arrival."""

    content = Random(4097).randbytes(5 << 20)
    sha256 = hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="session")
def page() -> type[Page]:
    return Page
