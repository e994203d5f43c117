"""The program at the entry of an interface: first, alone taken away, and seen to be gone."""

from __future__ import annotations

import errno
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from support import finishing
from support.commands import FIXER
from support.netns import Namespace

from fixer.daemon.attached import MOST, Attached
from fixer.host.machine import Host
from fixer.kernel import attachment, bpf, clsact
from fixer.kernel.attachment import Attachment, How
from fixer.kernel.finisher import PROGRAM, Finisher
from fixer.lab.bpf import leave
from fixer.now import Now

pytestmark = [pytest.mark.root, pytest.mark.kernels]

BOTH: list[tuple[How, ...]] = [("TCX",), ("clsact",)]


@pytest.fixture
def finisher() -> Iterator[Finisher]:
    if why := finishing.missing():
        pytest.skip(why)
    with Finisher() as found:
        yield found


@pytest.fixture
def wired(netns: Namespace) -> Namespace:
    """A namespace whose eth0 brings Ethernet frames."""
    netns.configure("link add eth0 type veth peer name wire0", "link set eth0 up", "link set wire0 up")
    netns.configure("address add 192.0.2.1/24 dev eth0")
    return netns


def attach(here: Namespace, finisher: Finisher, ways: tuple[How, ...]) -> Attachment:
    try:
        return here.call(lambda: Attachment(finisher, socket.if_nametoindex("eth0"), ways))
    except OSError as error:
        pytest.skip(f"no {ways[0]} in this kernel: {error.strerror}")


def filters(here: Namespace) -> list[clsact.Filter]:
    return here.call(lambda: clsact.filters(socket.if_nametoindex("eth0")))


@pytest.mark.parametrize("ways", BOTH, ids=["tcx", "clsact"])
def test_it_is_there_until_it_is_closed(wired: Namespace, finisher: Finisher, ways: tuple[How, ...]) -> None:
    found = attach(wired, finisher, ways)
    assert (found.how, wired.call(found.is_there), wired.call(found.ahead)) == (ways[0], True, 0)
    wired.call(found.close)
    assert not wired.call(found.is_there)
    assert "clsact" not in wired.run("tc", "qdisc", "show", "dev", "eth0").out


@pytest.mark.parametrize("ways", BOTH, ids=["tcx", "clsact"])
def test_a_device_that_vanishes_takes_it_along(wired: Namespace, finisher: Finisher, ways: tuple[How, ...]) -> None:
    found = attach(wired, finisher, ways)
    wired.configure("link delete eth0")
    assert not wired.call(found.is_there)
    wired.call(found.close)


def test_what_others_have_stays(wired: Namespace, finisher: Finisher) -> None:
    wired.run("tc", "qdisc", "add", "dev", "eth0", "clsact")
    wired.run("tc", "filter", "add", "dev", "eth0", "ingress", "pref", "7", "bpf", "bytecode", "1,6 0 0 0")
    found = attach(wired, finisher, ("clsact",))
    assert filters(wired)[0].name == PROGRAM  # a packet meets ours first
    wired.call(found.close)
    assert [each.preference for each in filters(wired)] == [7]


def test_an_old_ingress_qdisc_does_as_well(wired: Namespace, finisher: Finisher) -> None:
    wired.run("tc", "qdisc", "add", "dev", "eth0", "ingress")
    found = attach(wired, finisher, ("clsact",))
    assert wired.call(found.is_there)
    wired.call(found.close)
    assert "ingress" in wired.run("tc", "qdisc", "show", "dev", "eth0").out


def test_what_a_killed_daemon_left_is_known_and_removed(wired: Namespace, finisher: Finisher) -> None:
    left = attach(wired, finisher, ("clsact",))  # and nobody closes it
    assert wired.call(attachment.remove_left_everywhere) == 1
    assert filters(wired) == []
    assert not wired.call(left.is_there)
    again = attach(wired, finisher, ("clsact",))
    assert attach(wired, finisher, ("clsact",)).how == "clsact"  # a new one takes the place of the old one
    assert len(filters(wired)) == 1
    wired.call(again.close)


def test_off_removes_it_whatever_the_rule_was_since(wired: Namespace, finisher: Finisher) -> None:
    attach(wired, finisher, ("clsact",))
    done = subprocess.run([*FIXER, "off", "--netns", wired.name], capture_output=True, text=True, check=True)
    assert "Removed the program that a daemon before had left in the kernel." in done.stdout
    assert filters(wired) == []


def test_a_preference_that_another_kind_has_is_refused(wired: Namespace, finisher: Finisher) -> None:
    wired.run("tc", "qdisc", "add", "dev", "eth0", "clsact")
    # Of another protocol: a preference has one kind and one protocol.
    wired.run(
        "tc", "filter", "add", "dev", "eth0", "ingress", "pref", "1", "protocol", "ip", "bpf", "bytecode", "1,6 0 0 0"
    )
    with pytest.raises(OSError, match=r"."):
        wired.call(lambda: Attachment(finisher, socket.if_nametoindex("eth0"), ("clsact",)))
    assert [each.preference for each in filters(wired)] == [1]


class Watched:
    """`Attached` in the namespace, at a clock of its own."""

    def __init__(self, here: Namespace, finisher: Finisher) -> None:
        self.said: list[str] = []
        self.here = here
        self.finisher = finisher
        self.attached = Attached(Host(), lambda saying: self.said.append(saying.message))
        self.seconds = 1000.0

    def look(self, interface: str | None = None) -> None:
        self.seconds += 1.0
        now = Now.read()._replace(steady=self.seconds)
        self.here.call(self.attached.look, self.finisher, interface, now)


@pytest.fixture
def watched(wired: Namespace, finisher: Finisher, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """As before Linux 6.6, whatever this kernel has."""

    def refuse(*_: Any, **__: Any) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(bpf, "attach_tcx", refuse)
    found = Watched(wired, finisher)
    found.look()
    yield found
    wired.call(found.attached.close)


def test_it_stands_where_packets_arrive(watched: Watched) -> None:
    assert watched.attached.interfaces() == {"eth0": "clsact"}
    assert (watched.attached.trouble, watched.said) == ("", [])


def test_somebody_deletes_clsact_and_it_is_put_back_but_not_for_ever(watched: Watched) -> None:
    for _ in range(MOST):
        watched.here.run("tc", "qdisc", "del", "dev", "eth0", "clsact")
        watched.look()
        assert [each.name for each in filters(watched.here)] == [PROGRAM]
    watched.here.run("tc", "qdisc", "del", "dev", "eth0", "clsact")
    watched.look()
    assert filters(watched.here) == []
    assert "again and again" in watched.attached.trouble
    assert not watched.attached
    assert len([line for line in watched.said if "is gone" in line]) == MOST + 1


def test_a_device_of_the_same_name_gets_it_too(watched: Watched) -> None:
    watched.here.configure(
        "link delete eth0", "link add eth0 type veth peer name wire0", "address add 192.0.2.1/24 dev eth0"
    )
    watched.here.configure("link set eth0 up", "link set wire0 up")
    watched.look()
    assert [each.name for each in filters(watched.here)] == [PROGRAM]


def test_an_interface_that_comes_later_is_found(watched: Watched) -> None:
    watched.here.configure("link add eth1 type veth peer name wire1", "address add 198.51.100.1/24 dev eth1")
    watched.here.configure("link set eth1 up", "link set wire1 up")
    for _ in range(10):
        watched.look()
    assert set(watched.attached.interfaces()) == {"eth0", "eth1"}
    for _ in range(10):
        watched.look("eth1")
    assert set(watched.attached.interfaces()) == {"eth1"}


def test_below_a_bridge_and_what_else_stands_on_it(watched: Watched) -> None:
    watched.here.configure("link add br0 type bridge", "link set eth0 master br0", "link set br0 up")
    for _ in range(10):
        watched.look("br0")
    assert watched.attached.interfaces() == {"eth0": "clsact"}


def test_no_ethernet_no_program(watched: Watched) -> None:
    if Host().run(["ip", "-n", watched.here.name, "tuntap", "add", "dev", "tun0", "mode", "tun"]).status != 0:
        pytest.skip("no tun in this kernel")
    watched.here.configure("link delete eth0", "address add 10.9.0.1/24 dev tun0", "link set tun0 up")
    watched.look()
    assert watched.attached.interfaces() == {}
    assert "no interface here brings Ethernet frames" in watched.attached.trouble


def test_a_program_that_comes_before_ours_is_said(wired: Namespace, finisher: Finisher) -> None:
    attach(wired, finisher, ("TCX",)).close()  # or skip
    watched = Watched(wired, finisher)
    watched.look()
    assert watched.attached.interfaces() == {"eth0": "TCX"}
    other = bpf.load(leave(0), b"GPL")

    def first() -> int:
        return bpf.attach_tcx(other, socket.if_nametoindex("eth0"), bpf.TCX_INGRESS, first=True)

    wired.call(first)
    for _ in range(10):
        watched.look()
    assert wired.call(watched.attached.ahead) == {"eth0": 1}
    assert [line for line in watched.said if "1 tc program of others came before ours on eth0" in line]
    assert len(watched.said) == 1
    wired.call(watched.attached.close)
