"""What a receiver gets of each state of packet, by each state that a device may say its checksum is in.

Frames are put on a wire by hand, with a real daemon at its end that has diagnosed their sender: what reaches a socket
here or behind a bridge, and what leaves on another wire, is right; what is corrupt reaches nobody. With
--overlay-ends-here the same holds of what stays on this host, and what leaves is as wrong as docs/kernel.md says.
"""

from __future__ import annotations

import itertools
import json
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Self

import pytest
from support import finishing, oracle, quick

from fixer.host.machine import Host
from fixer.lab import bpf
from fixer.lab.net import Lab, Layout, Namespace, own_name
from fixer.lab.service import Service
from fixer.state import report as state

from .test_finishing import KERNEL, MARKS, attached, report_of, until

pytestmark = [pytest.mark.root, pytest.mark.long]

PORT = 7007
VNET_NEEDS_CSUM = 1
PACKET_VNET_HDR = 15
SO_RCVBUFFORCE = 33
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
DEVICES = ("none", "unnecessary", "partial", "complete")
OUT = {4: "10.0.2.77", 6: "fd00:2::77"}
CARRIER_PORT = 4790


class Silent:
    """A wire on which nobody speaks but the test."""

    def join(self, namespace: Namespace, port: int) -> AbstractContextManager[None]:
        return nullcontext()


class Road:
    """From the wire's leg into the left host, and on to a container behind its bridge or a host behind it."""

    def __init__(self, lab: Lab, underlay: int, sums: bool = False) -> None:
        self.lab = lab
        self.underlay = underlay
        version = socket.AF_INET if underlay == 4 else socket.AF_INET6
        self.vteps = socket.inet_pton(version, lab.right.underlay) + socket.inet_pton(version, lab.left.underlay)
        said = lab.left.run("ip", "-json", "link", "show", "dev", "eth0").out
        self.mac = bytes.fromhex(json.loads(said)[0]["address"].replace(":", ""))
        self.sock = lab.between.call(self._opened)
        self.raw: socket.socket | None = None
        """To the device of :func:`summing`, if frames go through it."""
        if sums:
            self.raw = lab.between.call(socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()
        if self.raw is not None:
            self.raw.close()

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
        if self.raw is not None:
            carried = struct.pack(">II", 0x08000000, 9 << 8) + frame
            packet = quick.made(4, "udp", quick.loopback(4), carried, "VERIFIES", port=CARRIER_PORT)
            self.raw.sendto(packet, ("127.0.0.1", 0))
            return
        flags, at = (VNET_NEEDS_CSUM, transport) if partial else (0, 0)
        self.sock.send(struct.pack("=BBHHHH", flags, 0, 0, 0, at, 6 if partial else 0) + frame)


@contextmanager
def receiving(here: Namespace) -> Iterator[socket.socket]:
    def opened() -> socket.socket:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)  # while the daemon is waited for, nobody reads
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


@contextmanager
def claiming(lab: Lab, device: str) -> Iterator[None]:
    """What the wire's end says of every packet: that it has verified it, or the sum of all its bytes."""
    if device == "unnecessary":
        with bpf.attached(lab.between, "left", bpf.BPF_TCX_EGRESS, bpf.claim_verified()):
            yield
    elif device == "complete":
        with summing(lab):
            yield
    else:
        yield


@contextmanager
def summing(lab: Lab) -> Iterator[None]:
    """What comes out of a tunnel whose outer checksum was verified in software is CHECKSUM_COMPLETE, and stays so on
    its way to the wire, at tc. That it is, is what the left host's interface lets pass, and nothing else."""
    lab.between.configure(
        "link set lo up",
        f"link add sums0 type vxlan id 9 local 127.0.0.1 dstport {CARRIER_PORT} nolearning",
        "link set sums0 up",
    )
    onward = bpf.send_on(lab.between.call(socket.if_nametoindex, "left"))
    with (
        bpf.attached(lab.between, "sums0", bpf.BPF_TCX_INGRESS, onward),
        bpf.attached(lab.left, "eth0", bpf.BPF_TCX_INGRESS, bpf.drop_unless_complete()),
    ):
        yield


def place(lab: Lab, box: Namespace, way: str) -> tuple[Namespace, dict[int, str], bytes]:
    """Where packets are received that go this ``way``, by which addresses, and the inner destination MAC for it."""
    if way == "local":
        return lab.left, {4: lab.left.overlay4, 6: lab.left.overlay6}, bytes.fromhex(lab.left.mac.replace(":", ""))
    lab.left.configure(
        f"link add c0 type veth peer name c1 netns {box.name} address 02:00:00:00:01:4d", "link set c0 up"
    )
    # What leaves on this wire is finished on it, as on one that leads out of the host.
    lab.left.run("ethtool", "-K", "c0", "tx", "off")
    if way == "bridged":
        lab.left.configure(
            "link add br0 type bridge", "link set vxlan0 master br0", "link set c0 master br0", "link set br0 up"
        )
        box.configure("address add 10.0.1.77/24 dev c1", "address add fd00:1::77/64 dev c1 nodad", "link set c1 up")
        return box, {4: "10.0.1.77", 6: "fd00:1::77"}, bytes.fromhex("02000000014d")
    lab.left.configure("address add 10.0.2.1/24 dev c0", "address add fd00:2::1/64 dev c0 nodad")
    for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        assert lab.left.run("sysctl", "-q", f"{name}=1").status == 0
    box.configure("address add 10.0.2.77/24 dev c1", "address add fd00:2::77/64 dev c1 nodad", "link set c1 up")
    return box, OUT, bytes.fromhex(lab.left.mac.replace(":", ""))


@contextmanager
def watching(box: Namespace, way: str) -> Iterator[list[bytes]]:
    """The UDP packets that arrive on the box's wire, once the context has ended."""
    found: list[bytes] = []
    if way == "local":
        yield found
        return

    def opened() -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        sock.bind(("c1", 0))
        sock.settimeout(0.2)
        return sock

    with box.call(opened) as sock:
        yield found
        with suppress(TimeoutError):
            while True:
                packet, (_, _, kind, *_) = sock.recvfrom(1 << 16)
                if kind == socket.PACKET_HOST and layer_of(packet).protocol == socket.IPPROTO_UDP:
                    found.append(packet)


def layer_of(packet: bytes) -> oracle.Layer:
    layer = oracle.read_ip(packet, 0, len(packet))
    oracle.read_transport(packet, layer)
    return layer


def is_right(packet: bytes) -> bool:
    """Whether a receiver takes it: UDP over IPv4 may have no checksum."""
    layer = layer_of(packet)
    return layer.verifies(packet) or (layer.version == 4 and packet[layer.field_at : layer.field_at + 2] == bytes(2))


def cells() -> Iterator[tuple[str, str, int, str, bool]]:
    """Way, device, underlay, GRO; and whether packets are marked, which concerns only what nobody else finishes."""
    for way, device, underlay, gro in itertools.product(("local", "bridged", "routed"), DEVICES, (4, 6), ("off", "on")):
        yield way, device, underlay, gro, False
        if way != "routed" and device != "partial":
            yield way, device, underlay, gro, True


@pytest.mark.parametrize(("way", "device", "underlay", "gro", "marks"), list(cells()))
def test_what_arrives_is_right(machine: Host, way: str, device: str, underlay: int, gro: str, marks: bool) -> None:
    if why := finishing.missing():
        pytest.skip(why)
    layout = Layout(underlay=underlay, acquainted=True)
    with Lab(layout, Silent(), machine) as lab, Namespace(f"{own_name()}-box", machine) as box, claiming(lab, device):
        lab.left.run("ethtool", "-K", "eth0", "gro", gro)
        there, to, mac = place(lab, box, way)
        with (
            receiving(there) as sock,
            watching(box, way) as wire,
            Service(lab.left, on=MARKS if marks else KERNEL) as left,
            Road(lab, underlay, device == "complete") as road,
        ):

            def diagnose() -> None:
                """Three packets are enough, and each confirms for five seconds."""
                for state, inner in itertools.product(("ZERO", "PARTIAL", "AGREES"), (4, 6)):
                    for _ in range(4):
                        road.send(*road.frame(inner, ("PARTIAL", state), mac, to[inner], KNOWN), False)

            said = lab.left.call(state.path_of, machine, 0)

            def is_known() -> bool:
                """Whether the daemon says that there is an entry, which on a loaded machine is later than sooner."""
                diagnose()
                found = json.loads(said.read_text(encoding="utf-8")) if said.exists() else {}
                return bool(found.get("kernel", {}).get("envelopes"))

            until(lambda: diagnose() or attached(lab.left), 60)
            heard(sock, 1.0)
            expected, lost, as_they_came = set(), set(), set()
            for number, ((states, arrives), inner, size) in enumerate(
                itertools.product(CASES.items(), (4, 6), (2, 33, 700))
            ):
                if number % 12 == 0:
                    until(is_known, 60)
                token = struct.pack(">H", number) + bytes(size)
                frame, transport = road.frame(inner, states, mac, to[inner], token)
                partial = device == "partial" and states in (("PARTIAL", "ZERO"), ("PARTIAL", "AGREES"))
                road.send(frame, transport, partial)
                # What a device says it has verified nobody sums, unless it looks unfinished (docs/prefilter.md).
                if arrives or states == ("PARTIAL", "WRONG") or device != "unnecessary":
                    (expected if arrives else lost).add(token)
                if states == ("WRONG", "ZERO"):
                    as_they_came.add(token)
            arrived = heard(sock, 2.0) - {KNOWN}
            report = report_of(left)
    assert arrived & lost == set()
    assert expected - arrived == set()
    assert report["packets"] > 10
    assert report["left"]["outer_open"] > 0
    assert (report["left"]["local"] > 0) == (device == "partial")
    left_so = {packet[layer_of(packet).at + 8 :]: is_right(packet) for packet in wire}
    left_so.pop(KNOWN, None)
    if way != "local":
        # A switch or router sums nothing: what the daemon knows to be corrupt goes no further, all else as it came.
        assert expected <= left_so.keys()
        assert not any(left_so.get(token) for token in as_they_came)
        if not marks:
            assert {token for token, is_right in left_so.items() if not is_right} <= as_they_came
    # And marks are what it was: a packet in UDP over IPv6 that only this host takes.
    assert report["overlay_ends_here"] == marks
    if way != "local" and device != "complete":
        assert any(not left_so[token] for token in expected) == marks
