"""``fixer on --scope suspects``: whatever the datapath would repair by what stands in a packet is queued.

The programs run in an interpreter of our own against the compiled diagnosis, on made packets, cases and captures; then
in the kernel, against the interpreter.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import oracle, shared
from support.bpf_interpreter import parse, run
from support.netns import Namespace
from support.packets import frame, vxlan
from support.quick import (
    ADDRESSES,
    ANY_ADDRESSES,
    HEADERS,
    INNER_STATES,
    KINDS,
    OUTER_STATES,
    PORTS,
    Made,
    loopback,
    made,
    over_loopback,
    packets,
    tunnelled,
    version_of,
)
from support.switching import option, raw_table, turn_on

from fixer.capture.open import Capture
from fixer.datapath.diagnose import Diagnosis
from fixer.datapath.pipeline import Pipeline
from fixer.datapath.repair import Action
from fixer.host.machine import Host
from fixer.rules import bytecode
from fixer.rules import suspects as prefilter
from fixer.rules.chains import chains_of
from fixer.rules.iptables import COMMANDS
from fixer.rules.rawtable import Chains
from fixer.rules.selection import FAMILIES, IPV4, IPV6, Selection
from fixer.rules.suspects import Version

MTU = 1500
LONGEST = 65535  # so nothing counts as merged
HERE = Path(__file__).parents[1]


@cache
def exempting(version: Version, tunnel: bool, longest: int, syns: bool) -> list[tuple[str, ...]]:
    """The programs of our exemptions; all of one must match for a packet to pass."""
    exemptions = (prefilter.tunnelled if tunnel else prefilter.plain)(version, longest, syns)
    return [each.programs for each in exemptions]


def is_queued(packet: bytes, *, plain: bool = False, longest: int = MTU, syns: bool = False) -> bool:
    """Whether our rules would queue a packet (that has come as far as our chain)."""
    outer = oracle.read_ip(packet, 0, len(packet))
    tunnel = oracle.is_udp_to(packet, outer, PORTS)
    if not tunnel and not plain:
        return False
    exemptions = exempting(version_of(packet), tunnel, longest, syns)
    return not any(all(run(program, packet) for program in programs) for programs in exemptions)


def is_repaired(packet: bytes, *, plain: bool = False, skb_info: int = 0) -> bool:
    """Whether the datapath repairs a packet by what stands in it: without a memory, but knowing its VNI."""
    vni = Pipeline(ports=PORTS, plain=plain, stale="off").examine(bytearray(packet), skb_info=skb_info).vni
    pipeline = Pipeline(ports=PORTS, plain=plain, vnis=[(vni, vni)])
    return pipeline.examine(bytearray(packet), skb_info=skb_info).action is Action.REPAIR


# What must be queued


def every_pair() -> Iterator[tuple[bytes, str]]:
    for underlay in (4, 6):
        for version in (4, 6):
            for kind in KINDS[version]:
                for inner_state in INNER_STATES[kind]:
                    inner = made(version, kind, ADDRESSES[version], b"payload", inner_state)
                    for outer_state in OUTER_STATES:
                        for tags in ((), (7,), (7, 8)):
                            what = f"{version} {kind} {inner_state} in {underlay} {outer_state} {tags}"
                            yield tunnelled(inner, outer_state, underlay, *tags), what


def test_every_pair_of_states() -> None:
    repaired = 0
    for packet, what in every_pair():
        if is_repaired(packet):
            repaired += 1
            assert is_queued(packet), what
    assert repaired > 200


def test_sound_packets_of_ordinary_shape_are_not_queued() -> None:
    """Else it would not be worth having."""
    for packet, what in every_pair():
        ordinary = "(7, 8)" not in what and not any(state in what for state in ("PARTIAL", "LENGTH_0", "FFFF"))
        if ordinary:
            assert not is_queued(packet), what


@pytest.mark.parametrize(("version", "kind"), [(version, kind) for version in KINDS for kind in KINDS[version]])
def test_sound_packets_are_hardly_ever_queued(version: int, kind: str) -> None:
    """Where they are, it is because the right checksum happens to be near the pseudo-header's sum."""
    chance = random.Random(4097)
    queued = 0
    for _ in range(2000):
        addresses = chance.randbytes(len(ADDRESSES[version]))
        inner = made(version, kind, addresses, chance.randbytes(chance.randrange(64)), "VERIFIES")
        queued += is_queued(tunnelled(inner, "VERIFIES", version))
    assert queued <= 3


@settings(max_examples=2000, deadline=None)
@given(packets(repairable=True))
def test_whatever_the_datapath_repairs_by_signature_is_queued(made: Made) -> None:
    if is_repaired(made.packet, plain=made.plain):
        assert is_queued(made.packet, plain=made.plain, longest=LONGEST)


LENGTHS = st.integers(0, 1300)
UNFINISHED = {
    version: st.sampled_from(
        [(kind, state) for kind in KINDS[version] for state in INNER_STATES[kind] if state in ("PARTIAL", "LENGTH_0")]
    )
    for version in KINDS
}


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from([4, 6]), st.sampled_from([4, 6]), st.data())
def test_every_sum_of_addresses_is_recognised(version: int, underlay: int, data: st.DataObject) -> None:
    """A sum of 32-bit words loses its carries: with the most of them, and with none, what is partial is seen."""
    kind, state = data.draw(UNFINISHED[version])
    payload = bytes(data.draw(LENGTHS))
    inner = made(version, kind, data.draw(ANY_ADDRESSES[version]), payload, state)
    assert is_queued(inner, plain=True)
    sound = made(4, "icmp", ADDRESSES[4], payload, "VERIFIES")
    behind = vxlan(frame(sound))
    outer = made(underlay, "udp", data.draw(ANY_ADDRESSES[underlay]), behind, "PARTIAL", 4789)
    assert is_queued(outer)
    assert is_queued(tunnelled(inner, "ZERO", underlay))


def syn(version: int, state: str, flags: int = 0x02) -> bytes:
    """A TCP packet with a timestamp option and these flags."""
    header = HEADERS["tcp"][:12] + bytes([0x80, flags]) + HEADERS["tcp"][14:]
    option = bytes.fromhex("0101080a0000000100000000")
    return made(version, "tcp", ADDRESSES[version], option + b"payload", state, header=header)


@pytest.mark.parametrize("state", INNER_STATES["tcp"])
def test_a_syn_whose_timestamps_are_stripped_is_queued(state: str) -> None:
    everybody = [(bytes(4), 0), (bytes(16), 0)]
    stripped = 0
    for version in (4, 6):
        for flags in range(256):
            inner = syn(version, state, flags)
            for packet in (inner, *(tunnelled(inner, "ZERO", underlay, 7) for underlay in (4, 6))):
                changed = bytearray(packet)
                pipeline = Pipeline(ports=PORTS, plain=True, timestamps="strip", sources=everybody, syn_ack=True)
                pipeline.examine(changed)
                if pipeline.counters()["timestamps"]["stripped"]:
                    stripped += 1
                    assert changed != packet
                    assert is_queued(packet, plain=True, syns=True)
    assert stripped > 100 or state == "WRONG"  # which is dropped


def test_syns_are_queued_for_those_alone_who_handle_timestamps() -> None:
    for version in (4, 6):
        assert is_queued(syn(version, "VERIFIES"), plain=True, syns=True)
        for underlay in (4, 6):
            for tags in ((), (7,)):
                for wanted in (False, True):
                    assert (
                        is_queued(tunnelled(syn(version, "VERIFIES"), "ZERO", underlay, *tags), syns=wanted) is wanted
                    )
                    assert not is_queued(
                        tunnelled(syn(version, "VERIFIES", 0x18), "ZERO", underlay, *tags), syns=wanted
                    )


@pytest.mark.parametrize("folder", sorted((HERE / "cases").iterdir()), ids=lambda folder: folder.name)
def test_cases(folder: Path) -> None:
    """Each packet by itself: what is stale by history nobody can see in one."""
    for text in (folder / "in.hex").read_text().split():
        packet = bytes.fromhex(text)
        for plain in (False, True):
            if is_repaired(packet, plain=plain):
                assert is_queued(packet, plain=plain, longest=LONGEST)


@pytest.mark.parametrize("plain", [False, True])
def test_captures(plain: bool) -> None:
    repaired = looked_at = seen = 0
    for path in shared.captures():
        with Capture(path) as capture:
            for each in capture:
                packet = bytes(each.data[each.ip_at :]) if each.ip_at >= 0 else b""
                if not packet or packet[0] >> 4 not in (4, 6) or each.wire_length > len(each.data):
                    continue
                seen += 1
                repair, queued = is_repaired(packet, plain=plain), is_queued(packet, plain=plain)
                repaired, looked_at = repaired + repair, looked_at + queued
                assert queued or not repair or len(packet) > MTU, f"{path.name} {packet.hex()}"
    assert seen > 140
    assert repaired >= 4
    assert looked_at < 30


# What cannot be read


def unreadable() -> Iterator[tuple[str, bytes]]:
    whole = tunnelled(made(4, "tcp", ADDRESSES[4], b"payload", "VERIFIES"))
    options = bytearray(whole[:20] + bytes.fromhex("01010101") + whole[20:])
    options[0] = 0x46
    yield "outer options", bytes(options)
    whole6 = tunnelled(made(6, "tcp", ADDRESSES[6], b"payload", "VERIFIES"), "ZERO", 6)
    extended = bytearray(whole6[:40] + bytes.fromhex("1100010400000000") + whole6[40:])
    extended[6], extended[5] = 60, extended[5] + 8
    yield "outer extension header", bytes(extended)
    inner = bytearray(made(4, "tcp", ADDRESSES[4], b"payload", "VERIFIES"))
    inner[0] = 0x46
    yield "inner options", tunnelled(bytes(inner))
    inner = bytearray(made(6, "tcp", ADDRESSES[6], b"payload", "VERIFIES"))
    inner[6] = 60
    yield "inner extension header", tunnelled(bytes(inner))
    yield "two tags", tunnelled(made(4, "tcp", ADDRESSES[4], b"", "VERIFIES"), "ZERO", 4, 7, 8)
    yield "no IP", tunnelled(bytes(28), ethertype=0x0806)
    for version in (4, 6):
        inner = bytearray(made(version, "tcp", ADDRESSES[version], b"payload", "VERIFIES"))
        at = 2 if version == 4 else 4
        inner[at : at + 2] = b"\0\0"
        yield f"IPv{version} length 0", tunnelled(bytes(inner))
    for version in (4, 6):
        inner = made(version, "tcp", ADDRESSES[version], b"", "VERIFIES")
        yield f"IPv{version} cut in the TCP header", tunnelled(inner[:-9])
    yield "cut in the Ethernet header", made(4, "udp", ADDRESSES[4], vxlan(bytes(12)), "ZERO", 4789)
    yield "cut in the VXLAN header", made(4, "udp", ADDRESSES[4], b"\x08\0", "ZERO", 4789)


@pytest.mark.parametrize(("what", "packet"), list(unreadable()), ids=lambda value: value if type(value) is str else "")
def test_what_a_program_does_not_follow_is_queued(what: str, packet: bytes) -> None:
    assert is_queued(packet)


def test_merged_packets_are_left_out_by_their_length() -> None:
    """GRO's: CHECKSUM_PARTIAL again, so the field is the pseudo-header's sum, though every part has verified."""
    merged = tunnelled(made(4, "tcp", ADDRESSES[4], bytes(1451), "PARTIAL"))
    assert len(merged) == 1541
    assert not is_queued(merged, longest=1540)
    assert is_queued(merged, longest=1541)


def test_what_suspects_cannot_see() -> None:
    """As the help says: random corruption, and a stale outer that is not ffff."""
    corrupt = tunnelled(made(4, "tcp", ADDRESSES[4], b"payload", "WRONG"))
    assert Pipeline(ports=PORTS).examine(bytearray(corrupt)).diagnosis is Diagnosis.CORRUPT
    assert not is_queued(corrupt)
    wrong = tunnelled(made(4, "tcp", ADDRESSES[4], b"payload", "VERIFIES"), "WRONG")
    pipeline = Pipeline(ports=PORTS, stale="inner-verifies")
    assert pipeline.examine(bytearray(wrong)).diagnosis is Diagnosis.OUTER_STALE
    assert not is_queued(wrong)


# The programs


def test_programs_fit_the_kernel_and_old_iptables() -> None:
    for version in (4, 6):
        for each in [*prefilter.tunnelled(version, 65535, True), *prefilter.plain(version, 65535, True)]:
            assert len(each.why) < 256, "XT_MAX_COMMENT_LEN"
            for program in each.programs:
                parse(program)
                assert len(program) < 1024, "iptables-restore before 1.8.3: Parameter too long!"


def test_a_program_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="66 instructions, xt_bpf takes 64"):
        bytecode.assemble([bytecode.Instruction(0x07)] * 64)


# In the kernel


def sent(version: int) -> list[bytes]:
    """Packets from every branch of every program, from loopback to loopback."""
    found = [packet for packet, _ in every_pair() if version_of(packet) == version]
    found += [packet for _, packet in unreadable() if version_of(packet) == version]
    found += [
        tunnelled(made(4, "tcp", ADDRESSES[4], bytes(1501), state), "ZERO", version) for state in ("PARTIAL", "WRONG")
    ]
    for kind in KINDS[version]:
        for state in INNER_STATES[kind]:
            found.append(made(version, kind, loopback(version), b"plain", state))
    for inside in (4, 6):
        found += [tunnelled(syn(inside, "VERIFIES", flags), "ZERO", version) for flags in (0x02, 0x12, 0x18)]
    found += [syn(version, "VERIFIES", flags) for flags in (0x02, 0x12, 0x18)]
    return [over_loopback(packet) for packet in found]


def matched(chains: Chains, packet: bytes, protocol: int, port: int) -> tuple[str, int]:
    """Which of our rules decides about a packet, by the interpreter: its chain, and its number there."""
    names = {"udp": 17, "tcp": 6, "icmp": 1, "ipv6-icmp": 58}
    for words in chains["FIXER"]:
        ports = option(words, "--dports").split(",") if "--dports" in words else [str(port)]
        if names[option(words, "-p")] == protocol and str(port) in ports:
            chain = words[-1]
            break
    for number, words in enumerate(chains[chain]):
        if all(run(words[at + 1], packet) for at, word in enumerate(words) if word == "--bytecode"):
            return chain, number
    raise AssertionError("the last rule takes all that is left")


@pytest.mark.root
@pytest.mark.parametrize("plain", [pytest.param(False, marks=pytest.mark.kernels), True])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_kernel_does_what_the_interpreter_does(netns: Namespace, variant: Any, family: Any, plain: bool) -> None:
    interface = "lo" if plain else None
    selection = Selection(queue=7, ports=PORTS, plain=plain, interface=interface, suspects_up_to=MTU, syns=plain)
    netns.call(turn_on, Host(), selection, variant)
    netns.run(f"{COMMANDS[family]}-{variant}", "-t", "mangle", "-A", "PREROUTING", "-j", "DROP")  # no answers to count
    chains = chains_of(selection, family)
    assert raw_table(netns, family, variant).own_chains() == chains, "iptables spells them as we do"
    expected = {(chain, number): 0 for chain in chains if chain != "FIXER" for number in range(len(chains[chain]))}
    packets = []
    for packet in sent(family.version):
        layer = oracle.read_ip(packet, 0, len(packet))
        to_port = oracle.is_udp_to(packet, layer, PORTS)
        if to_port or plain:
            packets.append(packet)
            expected[matched(chains, packet, layer.protocol, 4789 if to_port else 5300)] += 1
    netns.send_raw(packets, family.version)
    table = raw_table(netns, family, variant)
    counted = {(chain, number): table.chains[chain][number].packets for chain, number in expected}
    assert counted == expected
    assert sum(count > 0 for count in counted.values()) >= 6
    assert table.scope == "suspects"
    assert sum(line.packets for line in table.queueing()) == sum(
        counted[chain, len(chains[chain]) - 1] for chain in chains if chain != "FIXER"
    )


@pytest.mark.root
def test_on_twice_changes_nothing_and_a_new_length_replaces(netns: Namespace, variant: Any) -> None:
    suspects = Selection(queue=7, ports=PORTS, suspects_up_to=1500)
    said = netns.call(turn_on, Host(), suspects, variant)
    assert said[0].startswith("IPv4: on: suspects among UDP to port 4789, 8472, 6784 to queue 7; rule 1 of 1")
    assert all("already on" in line for line in netns.call(turn_on, Host(), suspects, variant))
    longer = Selection(queue=7, ports=PORTS, suspects_up_to=9000)
    assert not any("already on" in line for line in netns.call(turn_on, Host(), longer, variant))
    back = netns.call(turn_on, Host(), Selection(queue=7, ports=PORTS), variant)
    assert back[1].startswith("IPv6: on: UDP to port")
    for family in (IPV4, IPV6):
        table = raw_table(netns, family, variant)
        assert (table.scope, len(table.ours())) == ("all", 1)
