"""The programs that lead TCP of configured sources to a queue of its own, against the datapath's own opinion.

They run in an interpreter of our own on packets of every kind, and in the kernel against the interpreter.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from support import oracle
from support.bpf_interpreter import parse, run
from support.netns import Namespace
from support.oracle import PORTS
from support.quick import ADDRESSES, HEADERS, KINDS, loopback, made, over_loopback, tunnelled, version_of
from support.switching import raw_table, turn_on

from fixer.datapath.pipeline import Pipeline
from fixer.host.machine import Host
from fixer.rules import sources
from fixer.rules.chains import chains_of
from fixer.rules.iptables import COMMANDS
from fixer.rules.rawtable import HOOK, OUTPUT
from fixer.rules.selection import FAMILIES, Network, Selection
from fixer.rules.suspects import Version

SYN, SYN_ACK = 0x02, 0x12
STAMPED = bytes.fromhex("0101080a0000000100000000")
MINE: list[Network] = [ip_network("10.0.1.176/28"), ip_network("192.0.2.1"), ip_network("2001:db8::/60")]


def segment(version: int, addresses: bytes, flags: int = SYN, payload: bytes = b"payload") -> bytes:
    """TCP with a timestamp option and these flags."""
    header = HEADERS["tcp"][:12] + bytes([0x80, flags]) + HEADERS["tcp"][14:]
    return made(version, "tcp", addresses, STAMPED + payload, "VERIFIES", header=header)


def matches(packet: bytes, networks: Sequence[Network], back: bool = False) -> bool:
    """Whether one of the programs matches a packet that goes to a VXLAN port."""
    return any(run(program, packet) for program in programs(version_of(packet), tuple(networks), back))


@cache
def programs(underlay: Version, networks: tuple[Network, ...], back: bool) -> list[str]:
    return sources.tunnelled(underlay, networks, back)


def is_concerned(packet: bytes, networks: Sequence[Network]) -> bool:
    """Whether the datapath takes a packet for the SYN of one of these sources, or for the SYN-ACK to one."""
    policy = [(each.network_address.packed, each.prefixlen) for each in networks]
    pipeline = Pipeline(ports=PORTS, timestamps="strip", sources=policy, syn_ack=True)
    pipeline.examine(bytearray(packet))
    counters = pipeline.counters()
    outcomes = [*counters["timestamps"].items(), *counters["replies"].items()]
    return any(count for outcome, count in outcomes if outcome != "not_concerned")


def networks_of(version: int) -> st.SearchStrategy[list[Network]]:
    """Networks of every length, many of them around the addresses of the packets below."""
    bits = 32 if version == 4 else 128
    near = int.from_bytes(ADDRESSES[version][: bits // 8], "big")
    address = (
        st.integers(0, (1 << bits) - 1) | st.integers(0, bits - 1).map(lambda bit: near ^ 1 << bit) | st.just(near)
    )

    def network(value: int, length: int) -> Network:
        kind = IPv4Network if version == 4 else IPv6Network
        return kind((value >> (bits - length) << (bits - length), length))

    return st.lists(st.builds(network, address, st.integers(0, bits)), max_size=8)


def address_of(version: int) -> st.SearchStrategy[bytes]:
    """Addresses a bit or none away from those that the networks above lie around."""
    size = len(ADDRESSES[version]) // 2
    near = int.from_bytes(ADDRESSES[version][:size], "big")
    one = st.integers(0, size * 8 - 1).map(lambda bit: (near ^ 1 << bit).to_bytes(size, "big"))
    return one | st.just(near.to_bytes(size, "big")) | st.binary(min_size=size, max_size=size)


NETWORKS = st.tuples(networks_of(4), networks_of(6)).map(lambda both: both[0] + both[1])
PAIRS = {version: st.tuples(address_of(version), address_of(version)).map(b"".join) for version in (4, 6)}


@settings(max_examples=2000, deadline=None)
@given(
    NETWORKS, st.sampled_from([4, 6]), st.sampled_from([4, 6]), st.sampled_from([(), (7,)]), st.booleans(), st.data()
)
def test_a_program_matches_what_the_datapath_takes_for_a_source(
    networks: list[Network], version: int, underlay: int, tags: tuple[int, ...], back: bool, data: st.DataObject
) -> None:
    addresses = data.draw(PAIRS[version])
    packet = tunnelled(segment(version, addresses, SYN_ACK if back else SYN), "ZERO", underlay, *tags)
    assert matches(packet, networks, back) == is_concerned(packet, networks)


@pytest.mark.parametrize("underlay", [4, 6])
@pytest.mark.parametrize("version", [4, 6])
def test_no_packet_but_tcp_matches_and_every_tcp_segment_does(version: int, underlay: int) -> None:
    everybody: list[Network] = [ip_network("0.0.0.0/0"), ip_network("::/0")]
    for tags in ((), (7,)):
        for back in (False, True):
            for kind in KINDS[version]:
                inner = made(version, kind, ADDRESSES[version], b"payload", "VERIFIES")
                assert matches(tunnelled(inner, "ZERO", underlay, *tags), everybody, back) is (kind == "tcp")
            for flags in range(256):
                packet = tunnelled(segment(version, ADDRESSES[version], flags), "ZERO", underlay, *tags)
                assert matches(packet, everybody, back)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from([4, 6]), st.sampled_from([4, 6]), st.data())
def test_a_damaged_packet_is_no_more_than_a_packet(version: int, underlay: int, data: st.DataObject) -> None:
    """Cut, or with any byte changed: what the datapath takes for a source's, the programs do, whatever else they do."""
    packet = bytearray(tunnelled(segment(version, ADDRESSES[version]), "ZERO", underlay))
    at = data.draw(st.integers(len(packet) - len(segment(version, ADDRESSES[version])) - 14, len(packet) - 1))
    packet[at] ^= data.draw(st.integers(1, 255))
    cut = bytes(packet[: data.draw(st.sampled_from([len(packet), at]))])
    if is_concerned(cut, MINE):
        assert matches(cut, MINE)


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("underlay", [4, 6])
def test_what_is_between_the_headers(underlay: int, back: bool) -> None:
    flags = SYN_ACK if back else SYN
    concerned: list[tuple[str, bytes]] = []
    with_options = bytearray(segment(4, ADDRESSES[4], flags))
    with_options[0], with_options[2:4] = 0x46, (len(with_options) + 4).to_bytes(2, "big")
    with_options[20:20] = bytes([1, 1, 1, 1])
    with_options[10:12] = bytes(2)
    with_options[10:12] = (0xFFFF - oracle.ones_sum(bytes(with_options[:24]))).to_bytes(2, "big")
    concerned.append(("IPv4 options", bytes(with_options)))
    for number in (0, 43, 60, 44):
        extended = bytearray(segment(6, ADDRESSES[6], flags))
        extended[4:6] = (len(extended) - 40 + 8).to_bytes(2, "big")
        extended[6] = number
        extended[40:40] = bytes([6, 0, 1 if number in (0, 60) else 0, 4 if number in (0, 60) else 0, 0, 0, 0, 0])
        concerned.append((f"extension header {number}", bytes(extended)))
    everybody: list[Network] = [ip_network("0.0.0.0/0"), ip_network("::/0")]
    for what, inner in concerned:
        for tags in ((), (7,)):
            packet = tunnelled(inner, "ZERO", underlay, *tags)
            assert is_concerned(packet, everybody), what
            assert matches(packet, everybody, back), what


def test_what_is_not_followed_stays_where_it_was() -> None:
    whole = segment(4, ADDRESSES[4])
    outer_options = bytearray(tunnelled(whole))
    outer_options[20:20] = bytes(4)
    outer_options[0] = 0x46
    extended = bytearray(tunnelled(whole, "ZERO", 6))
    extended[40:40] = bytes.fromhex("1100010400000000")
    extended[6] = 60
    for packet in (
        bytes(outer_options),
        bytes(extended),
        tunnelled(whole, "ZERO", 4, 7, 8),
        tunnelled(whole, ethertype=0x0806),
        tunnelled(whole[:12]),
    ):
        assert not matches(packet, [ip_network("0.0.0.0/0"), ip_network("::/0")])


# The programs


def many(count: int, seed: int) -> list[Network]:
    chance = random.Random(seed)
    found: list[Network] = []
    while len(found) < count:
        if chance.random() < 0.5:
            found.append(IPv4Network((chance.randbytes(4), 32)).supernet(new_prefix=chance.randint(8, 32)))
        else:
            found.append(IPv6Network((chance.randbytes(16), 128)).supernet(new_prefix=chance.randint(16, 128)))
    return found


@pytest.mark.parametrize("underlay", [4, 6])
@pytest.mark.parametrize("count", [1, 7, 64])
def test_programs_fit_the_kernel_and_old_iptables(underlay: Any, count: int) -> None:
    for networks in (many(count, 1), [ip_network((0xFFFFFF00 - 2 * each, 32)) for each in range(count)]):
        for back in (False, True):
            for program in sources.tunnelled(underlay, networks, back):
                parse(program)
                assert len(program) < 1024


def test_a_few_networks_are_one_program_and_many_are_as_few_as_can_be() -> None:
    assert len(sources.tunnelled(6, MINE)) == 1
    assert len(sources.tunnelled(4, [ip_network(f"192.0.2.{each}") for each in range(1, 64, 2)])) == 1
    assert len(sources.tunnelled(4, [ip_network(each * 0x01000193 % (1 << 32)) for each in range(64)])) == 2
    assert len(sources.tunnelled(4, many(64, 2))) < 16
    assert len(sources.tunnelled(4, [ip_network(f"192.0.2.{each}") for each in range(64)])) == 1
    assert sources.collapsed([ip_network("192.0.2.0"), ip_network("192.0.2.1")]) == [ip_network("192.0.2.0/31")]
    assert sources.tunnelled(4, []) == []


def test_each_of_many_networks_is_found_and_nothing_beside_them() -> None:
    networks = many(64, 3)
    for underlay in (4, 6):
        for each in networks:
            for address in (each.network_address, each.broadcast_address):
                for near in (int(address) - 1, int(address), int(address) + 1):
                    if not 0 <= near < 1 << each.max_prefixlen:
                        continue
                    inside = any(_holds(one, each.version, near) for one in networks)
                    packed = near.to_bytes(each.max_prefixlen // 8, "big")
                    inner = segment(each.version, packed + ADDRESSES[each.version][: len(packed)])
                    assert matches(tunnelled(inner, "ZERO", underlay), networks) is inside


def _holds(network: Network, version: int, address: int) -> bool:
    first, last = int(network.network_address), int(network.broadcast_address)
    return network.version == version and first <= address <= last


# In the kernel


@pytest.mark.root
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_kernel_does_what_the_interpreter_does(netns: Namespace, variant: Any, family: Any, plain: bool) -> None:
    """Packets over loopback meet OUTPUT and then PREROUTING: each counts there and on its way in."""
    own = loopback(family.version)[: 4 if family.version == 4 else 16]
    networks = [*MINE, ip_network(ip_address(own))] if plain else MINE
    narrowed = Selection(queue=7, ports=PORTS, plain=plain, interface="lo", suspects_up_to=1500)
    selection = replace(narrowed, flows_queue=9, flows_sources=tuple(map(str, networks)))
    netns.call(turn_on, Host(), selection, variant)
    # Seen and gone: no answers to count.
    netns.run(f"{COMMANDS[family]}-{variant}", "-t", "mangle", "-A", "PREROUTING", "-j", "DROP")
    packets = []
    there = back = 0
    for inside in (4, 6):
        for addresses in (ADDRESSES[inside], ADDRESSES[inside][::-1], bytes(len(ADDRESSES[inside]))):
            for kind in KINDS[inside]:
                for tags in ((), (7,), (7, 8)):
                    inner = made(inside, kind, addresses, b"payload", "VERIFIES")
                    packets.append(tunnelled(inner, "ZERO", family.version, *tags))
            inner = made(inside, "tcp", addresses, b"payload", "VERIFIES")
            half = len(addresses) // 2
            turned = made(inside, "tcp", addresses[half:] + addresses[:half], b"payload", "VERIFIES")
            packets += [tunnelled(inner, "ZERO", family.version), tunnelled(turned, "ZERO", family.version)]
    there = sum(matches(packet, networks) for packet in packets)
    back = sum(matches(packet, networks, back=True) for packet in packets)
    assert there > 2
    assert back > 2
    if plain:
        there, back = there + 3, back + 3
    packets = [over_loopback(packet) for packet in packets]
    packets += [made(family.version, "tcp", own + own, b"plain", "VERIFIES")] * 3
    netns.send_raw(packets, family.version)
    table = raw_table(netns, family, variant)
    assert table.own_chains() == chains_of(selection, family), "iptables spells them as we do"
    counted = {hook: sum(rule.packets for rule in table.normalising(hook)) for hook in (HOOK, OUTPUT)}
    assert counted == {HOOK: there, OUTPUT: back}
    assert (table.flows_queue, table.chains["FIXER-FLOWS"][0].packets) == (9, there + back)
    assert table.queues == range(7, 8)
