"""The wire's faults, packet by packet, against scapy: what is claimed to be broken is, and nothing else is touched."""

from __future__ import annotations

import random

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from fixer.lab.pump import Damage, Fault, Finish, layers, spoil, unfinished

# Named, or scapy would ask this machine's network for the right MAC address.
ETHERNET = Ether(src="02:00:00:00:00:04", dst="02:00:00:00:00:05")
UNDERLAYS = {
    "ipv4": IP(src="192.168.102.4", dst="192.168.102.5"),
    "ipv6": IPv6(src="fd00:102::4", dst="fd00:102::5"),
}
OVERLAYS = {
    "ipv4": IP(src="10.0.1.4", dst="10.0.1.5"),
    "ipv6": IPv6(src="fd00:1::4", dst="fd00:1::5"),
}
SEGMENTS = {
    "tcp": TCP(sport=1, dport=2, flags="PA") / Raw(b"odd number of bytes"),
    "udp": UDP(sport=3, dport=4) / Raw(b"an even number of bytes!"),
}
EVERY = [
    pytest.param(underlay, overlay, segment, id=f"{segment}-over-{overlay}-over-{underlay}")
    for underlay in UNDERLAYS
    for overlay in OVERLAYS
    for segment in SEGMENTS
]


def _sound(underlay: str, overlay: str, segment: str, *, tag: bool = False) -> bytes:
    """A frame that is right in both layers, by scapy's sums."""
    inner = ETHERNET / Dot1Q(vlan=100) if tag else ETHERNET
    inner = inner / OVERLAYS[overlay] / SEGMENTS[segment]
    return bytes(ETHERNET / UNDERLAYS[underlay] / UDP(sport=39697, dport=4789) / VXLAN(vni=4097, flags=8) / inner)


def _left_to_the_nic(frame: bytes, *, outer: bool = False) -> bytearray:
    """``frame`` as an AF_PACKET socket reads it at the sender: the inner field, and ``outer`` too, hold their P."""
    given = bytearray(frame)
    for segment in layers(given, 4789)[0 if outer else 1 :]:
        assert segment is not None
        while segment.pseudo > 0xFFFF:
            segment = segment._replace(pseudo=(segment.pseudo & 0xFFFF) + (segment.pseudo >> 16))
        given[segment.field : segment.field + 2] = segment.pseudo.to_bytes(2)
    return given


def _sums(frame: bytes) -> tuple[int, int]:
    """(outer, inner) checksum fields."""
    outer, inner = layers(bytearray(frame), 4789)
    assert outer is not None
    assert inner is not None
    return tuple(int.from_bytes(frame[layer.field : layer.field + 2]) for layer in (outer, inner))


def _spoilt(frame: bytearray, fault: Fault) -> bytes:
    given = bytearray(frame)
    spoil(given, fault, 4789, random.Random(1))
    return bytes(given)


def _recomputed(frame: bytes) -> bytes:
    """``frame`` with its outer UDP checksum by scapy, over the packet as it stands."""
    packet = Ether(frame)
    payload = bytes(packet[UDP].payload)
    remade: Packet = packet.copy()
    remade[UDP].remove_payload()
    remade[UDP].chksum = None
    return bytes(remade / Raw(payload))


@pytest.mark.parametrize(("underlay", "overlay", "segment"), EVERY)
def test_a_healthy_wire_restores_what_the_nic_left_out(underlay: str, overlay: str, segment: str) -> None:
    sound = _sound(underlay, overlay, segment)
    given = _left_to_the_nic(sound, outer=True)
    assert given != sound
    assert all(unfinished(given, layer) for layer in layers(given, 4789) if layer)
    assert _spoilt(given, Fault(Finish.EVERYTHING)) == sound


@pytest.mark.parametrize(("underlay", "overlay", "segment"), EVERY)
def test_outer_over_unfinished_sums_the_packet_as_it_stands(underlay: str, overlay: str, segment: str) -> None:
    given = _left_to_the_nic(_sound(underlay, overlay, segment))
    assert _spoilt(given, Fault(Finish.OUTER_OVER_UNFINISHED)) == _recomputed(given) != given


def test_only_outer_leaves_lco_alone_and_finishes_its_own() -> None:
    sound = _sound("ipv4", "ipv4", "tcp")
    lco = _left_to_the_nic(sound)
    assert _spoilt(lco, Fault(Finish.OUTER)) == lco
    both = _left_to_the_nic(sound, outer=True)
    assert _spoilt(both, Fault(Finish.OUTER)) == _recomputed(both)


def test_nat_updates_a_zero_outer_and_nothing_else() -> None:
    given = _left_to_the_nic(_sound("ipv4", "ipv4", "udp"))
    assert _spoilt(given, Fault(Finish.NAT)) == given
    given[40:42] = b"\0\0"
    assert _sums(_spoilt(given, Fault(Finish.NAT))) == (0xFFFF, _sums(given)[1])


@pytest.mark.parametrize("outer", [False, True], ids=["lco", "left-to-the-nic"])
def test_rewritten_addresses_are_one_error_whatever_the_packet(outer: bool) -> None:
    errors = set()
    for segment in SEGMENTS:
        right = _sound("ipv4", "ipv4", segment)
        given = _left_to_the_nic(right, outer=True) if outer else bytearray(right)
        expected = _spoilt(given, Fault(Finish.OUTER))
        spoilt = _spoilt(given, Fault(Finish.READDRESSED))
        assert (spoilt[:40], spoilt[42:]) == (expected[:40], expected[42:])
        errors.add((_sums(spoilt)[0] - _sums(expected)[0]) % 0xFFFF)
    assert errors == {0x97CC}


def test_an_outer_computed_wrongly_is_never_right_and_never_wrong_alike() -> None:
    right, chance = _sound("ipv4", "ipv4", "tcp"), random.Random(1)
    errors = set()
    for _ in range(100):
        frame = bytearray(right)
        spoil(frame, Fault(Finish.WRONGLY), 4789, chance)
        errors.add((_sums(frame)[0] - _sums(right)[0]) % 0xFFFF)
    assert 0 not in errors
    assert len(errors) > 90


def test_a_tag_inside_the_tunnel_hides_nothing() -> None:
    sound = _sound("ipv4", "ipv6", "tcp", tag=True)
    assert _spoilt(_left_to_the_nic(sound, outer=True), Fault(Finish.EVERYTHING)) == sound


@pytest.mark.parametrize("damage", Damage)
def test_damage_is_one_byte_of_the_payload(damage: Damage) -> None:
    sound = _sound("ipv4", "ipv4", "udp")
    hurt = _spoilt(bytearray(sound), Fault(Finish.EVERYTHING, corrupt=1.0, damage=damage))
    outer, inner = layers(bytearray(sound), 4789)
    assert outer is not None
    assert inner is not None
    changed = [at for at, (was, is_now) in enumerate(zip(sound, hurt, strict=True)) if was != is_now]
    if damage is Damage.BEFORE:  # then the outer sum vouches for it
        assert set(changed[:-1]) <= {outer.field, outer.field + 1}
        assert hurt == _recomputed(hurt)
        changed = changed[-1:]
    assert len(changed) == 1
    assert inner.start + 8 <= changed[0] < inner.end


@pytest.mark.parametrize(
    "frame",
    [
        ETHERNET / UNDERLAYS["ipv4"] / UDP(dport=53) / Raw(b"not the port"),
        ETHERNET / IP(src="192.168.102.4", dst="192.168.102.5", flags="MF") / UDP(dport=4789) / Raw(b"first fragment"),
        ETHERNET / UNDERLAYS["ipv4"] / ICMP(),
        Ether(src=ETHERNET.src, dst=ETHERNET.dst, type=0x0806) / Raw(bytes(28)),
    ],
    ids=["other-port", "fragment", "icmp", "arp"],
)
def test_what_is_no_vxlan_crosses_unchanged(frame: Packet) -> None:
    given = bytearray(bytes(frame))
    for finish in Finish:
        assert _spoilt(given, Fault(finish, corrupt=1.0)) == given
