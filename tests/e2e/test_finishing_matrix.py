"""What a receiver gets of each state of packet, by each state that a device may say its checksum is in.

Frames are put on a wire by hand, with a real daemon at its end that has diagnosed their sender: what reaches a socket
here, and what leaves on another wire, is right; what is corrupt reaches nobody.
"""

from __future__ import annotations

import itertools
import json
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
from support import finishing, quick

from fixer.host.machine import Host
from fixer.lab import bpf
from fixer.lab.net import Lab, Layout, Namespace, own_name
from fixer.lab.service import Service

from .test_finishing import KERNEL, attached, report_of, until

pytestmark = [pytest.mark.root, pytest.mark.long]

PORT = 7007
VNET_NEEDS_CSUM = 1
PACKET_VNET_HDR = 15
# Inner state, outer state: whether the packet is to arrive, and right.
CASES = {
    ("PARTIAL", "ZERO"): True,
    ("PARTIAL", "PARTIAL"): True,
    ("PARTIAL", "AGREES"): True,
    ("PARTIAL", "GOOD"): True,  # by the queue
    ("PARTIAL", "WRONG"): False,
    ("VERIFIES", "ZERO"): True,
    ("VERIFIES", "GOOD"): True,
    ("WRONG", "ZERO"): False,
}
KNOWN = bytes(40)
DEVICES = ("none", "unnecessary", "partial")


class Silent:
    """A wire on which nobody speaks but the test."""

    def join(self, namespace: Namespace, port: int) -> AbstractContextManager[None]:
        return nullcontext()


class Road:
    """From the wire's leg into the left host, and on to a container behind its bridge or a host behind it."""

    def __init__(self, lab: Lab, underlay: int) -> None:
        self.lab = lab
        self.underlay = underlay
        version = socket.AF_INET if underlay == 4 else socket.AF_INET6
        self.vteps = socket.inet_pton(version, lab.right.underlay) + socket.inet_pton(version, lab.left.underlay)
        said = lab.left.run("ip", "-json", "link", "show", "dev", "eth0").out
        self.mac = bytes.fromhex(json.loads(said)[0]["address"].replace(":", ""))
        self.sock = lab.between.call(self._opened)

    def _opened(self) -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        sock.setsockopt(263, PACKET_VNET_HDR, 1)
        sock.bind(("left", 0))
        return sock

    def frame(self, inner: int, states: tuple[str, str], mac: bytes, to: str, token: bytes) -> tuple[bytes, int]:
        """The frame, and where its inner UDP header begins."""
        family = socket.AF_INET if inner == 4 else socket.AF_INET6
        source = self.lab.right.overlay4 if inner == 4 else self.lab.right.overlay6
        addresses = socket.inet_pton(family, source) + socket.inet_pton(family, to)

        def built(state: str) -> bytes:
            packet = quick.made(inner, "udp", addresses, token, state, port=PORT)
            ethernet = mac + bytes.fromhex("020000000105") + (b"\x08\x00" if inner == 4 else b"\x86\xdd")
            return struct.pack(">II", 0x08000000, 4097 << 8) + ethernet + packet

        payload, whole = built(states[0]), built("VERIFIES")
        outer = {"GOOD": "VERIFIES", "AGREES": "VERIFIES"}.get(states[1], states[1])
        over = whole if states[1] == "AGREES" else payload
        packet = quick.made(self.underlay, "udp", self.vteps, over, outer, port=4789)
        packet = packet[: -len(payload)] + payload
        ethertype = b"\x08\x00" if self.underlay == 4 else b"\x86\xdd"
        start = len(packet) - len(token) - 8
        return self.mac + bytes.fromhex("020000000005") + ethertype + packet, 14 + start

    def send(self, frame: bytes, transport: int, partial: bool) -> None:
        flags, at = (VNET_NEEDS_CSUM, transport) if partial else (0, 0)
        self.sock.send(struct.pack("=BBHHHH", flags, 0, 0, 0, at, 6 if partial else 0) + frame)


@contextmanager
def receiving(here: Namespace) -> Iterator[socket.socket]:
    def opened() -> socket.socket:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", PORT))
        sock.settimeout(0.05)
        return sock

    with here.call(opened) as sock:
        yield sock


def heard(sock: socket.socket, patience: float) -> set[bytes]:
    """What arrives until nothing has come for so long."""
    found, deadline = set(), time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            found.add(sock.recv(1 << 16))
        except TimeoutError:
            continue
    return found


def claiming(lab: Lab, device: str) -> AbstractContextManager[None]:
    """Whether the wire's end says of every packet that it has verified it."""
    if device != "unnecessary":
        return nullcontext()
    return bpf.attached(lab.between, "left", bpf.BPF_TCX_EGRESS, bpf.claim_verified())


@pytest.mark.parametrize("gro", ["off", "on"])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("underlay", [4, 6])
@pytest.mark.parametrize("way", ["local", "bridged"])
def test_what_arrives_is_right(machine: Host, way: str, underlay: int, device: str, gro: str) -> None:
    if why := finishing.missing():
        pytest.skip(why)
    layout = Layout(underlay=underlay, acquainted=True)
    with Lab(layout, Silent(), machine) as lab, Namespace(f"{own_name()}-box", machine) as box, claiming(lab, device):
        lab.left.run("ethtool", "-K", "eth0", "gro", gro)
        there, to = lab.left, {4: lab.left.overlay4, 6: lab.left.overlay6}
        mac = bytes.fromhex(lab.left.mac.replace(":", ""))
        if way == "bridged":
            there, to, mac = box, {4: "10.0.1.77", 6: "fd00:1::77"}, bytes.fromhex("02000000014d")
            lab.left.configure(
                "link add br0 type bridge",
                "link set vxlan0 master br0",
                f"link add c0 type veth peer name c1 netns {box.name} address 02:00:00:00:01:4d",
                "link set c0 master br0",
                "link set c0 up",
                "link set br0 up",
            )
            box.configure("address add 10.0.1.77/24 dev c1", "address add fd00:1::77/64 dev c1 nodad", "link set c1 up")
        with receiving(there) as sock, Service(lab.left, on=KERNEL) as left:
            road = Road(lab, underlay)

            def diagnose() -> None:
                """Three packets are enough, and each confirms for five seconds."""
                for state, inner in itertools.product(("ZERO", "PARTIAL", "AGREES"), (4, 6)):
                    for _ in range(4):
                        road.send(*road.frame(inner, ("PARTIAL", state), mac, to[inner], KNOWN), False)

            until(lambda: diagnose() or attached(lab.left), 60)
            heard(sock, 1.0)
            expected, lost = set(), set()
            for number, ((states, arrives), inner, size) in enumerate(
                itertools.product(CASES.items(), (4, 6), (2, 33, 700))
            ):
                if number % 12 == 0:
                    diagnose()
                    time.sleep(0.3)
                token = struct.pack(">H", number) + bytes(size)
                frame, transport = road.frame(inner, states, mac, to[inner], token)
                partial = device == "partial" and states in (("PARTIAL", "ZERO"), ("PARTIAL", "AGREES"))
                road.send(frame, transport, partial)
                # What a device says it has verified nobody sums, unless it looks unfinished (docs/prefilter.md).
                if arrives or states == ("PARTIAL", "WRONG") or device != "unnecessary":
                    (expected if arrives else lost).add(token)
            arrived = heard(sock, 2.0) - {KNOWN}
            report = report_of(left)
            road.sock.close()
    assert arrived & lost == set()
    assert expected - arrived == set()
    assert report["packets"] > 10
    assert report["left"]["outer_open"] > 0
    assert (report["left"]["local"] > 0) == (device == "partial")
