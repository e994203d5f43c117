"""The runs: what traffic, what damage, what memory, how many packets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

PORT = 4789
MANY = 10_000_000
KINDS = {"tcp": 8, "syn": 1, "udp": 4, "udp-none": 2, "icmp": 1, "arp": 1, "fragment": 1, "other": 1, "not-ip": 1}
SUMMED = {"tcp": 8, "syn": 1, "udp": 4, "icmp": 1}  # with an inner checksum
CHANCE = ("bit", "two-bits", "burst", "swap", "shift", "slip", "length", "field", "bytes", "payload")
HARMS = dict.fromkeys((*CHANCE, "vni-bit", "mac-bit", "source-bit"), 1)
ENVELOPE = {"vni-bit": 1, "mac-bit": 1}
SOURCES = [(bytes([172, 16, 0, 0]), 12), (bytes([0xFD, 0x10]) + bytes(14), 16)]
CELL = [("vxlan", 5, 0x02, False)]  # one bit of the VNI
NIC = [("ethernet", 3, 0x5A, True)]  # a byte of the destination MAC has one value, whatever was sent
CAME_FIRST = (
    "No packet of the pair verifies, and the same bit is damaged in one of twenty or ten: where three such come first "
    "between two inner addresses, they are believed until the others outnumber them."
)
NO_VOUCHER = (
    "The sender never finished the inner checksum, and NAT rewrites the ports without the outer one: the port that a "
    "wrong outer implies is all there is, and damage implies one of the right range 0.43 times."
)
ALL_DAMAGED = "No packet of the pair verifies, and none is undamaged: the damage looks like what the sender meant."
FEW: dict[str, Any] = {"remains": CAME_FIRST, "most": 0.005}
OWN_WORDS = "Whoever can send the damaged envelope under sums that verify needs nobody to launder it."


@dataclass(frozen=True)
class Run:
    """packets: in the long run; memory: packets for which one memory is kept, 0: all of them.

    remains: why what is laundered here cannot be told; up to the share ``most`` of the damaged it fails nothing.
    """

    group: str
    name: str
    packets: int
    traffic: Mapping[str, Any]
    path: Mapping[str, Any] = field(default_factory=dict)
    memory: int = 0
    flows: int = 0  # of the flow table that normalising needs
    remains: str = ""
    most: float = 1.0


def all_runs() -> list[Run]:
    return [*every_kind(), *issued(), *translated(), *cells(), *neighbours(), *adversaries(), *limits(), *modes()]


def every_kind() -> Iterator[Run]:
    """Every kind of packet and of damage; nine of ten packets are damaged."""
    group = "every packet, every damage"
    world = {"kinds": KINDS, "pairs": 8, "envelopes": 8, "flows": 2000, "harms": HARMS, "damaged": 0.9}
    yield Run(group, "a memory for each packet", MANY // 20, world, memory=1)
    yield Run(group, "a memory for 1,000 packets", MANY, world, memory=1000)
    yield Run(group, "one memory", 3 * MANY, world)
    yield Run(group, "one memory, 1 in 10 damaged", 2 * MANY, world | {"damaged": 0.1})
    yield Run(group, "without any memory of wrong outers", MANY, world, {"stale": "off"})
    yield Run(group, "outer zero", 2 * MANY, world | {"sent": {"zero": 1}})
    yield Run(group, "outer zero or good", MANY, world | {"sent": {"zero": 1, "good": 1}})
    yield Run(group, "outer never finished", MANY, world | {"sent": {"pseudo": 1}})
    unfinished = world | {"unfinished": 700}
    yield Run(group, "inner unfinished, outer LCO", 2 * MANY, unfinished | {"sent": {"lco": 1}})
    yield Run(group, "inner unfinished, outer zero", MANY, unfinished | {"sent": {"zero": 1}})
    yield Run(group, "inner unfinished, outer over the payload", MANY, unfinished | {"sent": {"good": 1}})
    yield Run(group, "inner and outer unfinished", MANY, unfinished | {"sent": {"pseudo": 1}})
    yield Run(group, "damaged before encapsulation", MANY, unfinished | {"before": 1.0, "sent": {"lco": 2, "zero": 1}})
    yield Run(group, "damaged packets are sent again", MANY, world | {"damaged": 0.02, "again": 5})


def issued() -> Iterator[Run]:
    """Healthy traffic in which now and then a bit flips that only the outer checksum covers."""
    group = "many flows in one memory, all of them healthy"
    for flows in (100, 1000, 4000):
        for share in (0.01, 0.0001):
            world = {"kinds": SUMMED, "flows": flows, "fresh_port": 0, "damaged": share, "harms": ENVELOPE}
            yield Run(group, f"{flows:,} flows, {share:.2%} with a flipped VNI or MAC bit", 3 * MANY, world)
    for flows in (100, 1000, 4000):
        world = {"kinds": SUMMED, "flows": flows, "fresh_port": 0, "damaged": 0.01, "harms": {"cell": 1}, "cells": CELL}
        yield Run(group, f"{flows:,} flows, 1% with the same flipped VNI bit", MANY, world)
    one = {"flows": 1000, "envelopes": 4, "fresh_port": 0, "damaged": 0.01}
    payload = one | {"kinds": {"udp-none": 1}, "inner6": 0, "harms": {"payload": 1}}
    yield Run(group, "UDP without checksum, a payload bit", MANY // 2, payload)
    beats = {"flows": 4000, "still": True, "fresh_port": 0, "damaged": 0.01, "kinds": {"udp-none": 1}, "inner6": 0}
    yield Run(group, "UDP heartbeats without checksum, a payload bit", MANY // 2, beats | {"harms": {"payload": 1}})
    yield Run(group, "ARP, fragments and others without checksum, any damage", MANY // 2,
              one | {"kinds": {"arp": 1, "fragment": 1, "other": 1, "not-ip": 1}, "harms": HARMS})  # fmt: skip
    source = one | {"kinds": SUMMED, "pairs": 8, "underlay6": 1000, "harms": {"source-bit": 1}}
    yield Run(group, "a bit of the outer IPv6 source", MANY // 2, source)
    yield Run(
        group, "the same bit of it", MANY // 2, source | {"harms": {"cell": 1}, "cells": [("ip", 20, 0x10, False)]}
    )
    yield Run(group, "a bit of the checksum field where it is zero", MANY // 2, one | {
        "kinds": SUMMED, "sent": {"zero": 1}, "harms": {"cell": 1}, "cells": [("udp", 7, 0x01, False)]})  # fmt: skip


def translated() -> Iterator[Run]:
    """Pairs behind NAT, or a NIC that cannot add: 1 in 10 packets is damaged, the others are what should be righted."""
    group = "outers that are wrong for a reason"
    base = {"kinds": SUMMED, "pairs": 4, "envelopes": 8, "flows": 2000, "damaged": 0.1, "harms": HARMS}
    for cause in ("ffff", "field", "port", "address", "nic"):
        world = base | {"causes": {cause: 1}}
        yield Run(group, f"{cause}: all of a pair's", MANY, world)
        yield Run(group, f"{cause}: half of a pair's", MANY, world | {"translated": 500})
        yield Run(group, f"{cause}: all, some without inner checksum", MANY // 2, world | {"kinds": KINDS})
        if cause != "nic":
            yield Run(group, f"{cause}: all, inner unfinished", MANY // 2, world | {"unfinished": 1000})
    mixed = base | {"causes": dict.fromkeys(("straight", "ffff", "field", "port", "address", "nic"), 1), "pairs": 60}
    yield Run(group, "all causes and none, side by side", MANY, mixed | {"kinds": KINDS, "unfinished": 200})


def cells() -> Iterator[Run]:
    """The same place is damaged, again and again."""
    group = "damage that repeats"
    healthy = {"kinds": SUMMED, "flows": 1000, "envelopes": 4, "harms": {"cell": 1}}
    for share in (0.0001, 0.001, 0.01, 0.1, 0.5, 0.9):
        for name, cell in (("a memory cell in the VNI", CELL), ("a NIC that sets a MAC byte", NIC)):
            yield Run(group, f"{name}, {share:.2%} of a healthy pair", MANY // 2,
                      healthy | {"damaged": share, "cells": cell})  # fmt: skip
    yield Run(group, "four cells, 1% of a healthy pair", MANY // 2, healthy | {"damaged": 0.01, "cells": [
        *CELL, *NIC, ("udp", 1, 0x08, False), ("ethernet", 12, 0x01, False)]})  # fmt: skip
    yield Run(group, "a cell in the VNI, 1% of a pair that sends zero or a sum", MANY // 2, healthy | {
        "damaged": 0.01, "cells": CELL, "sent": {"zero": 1, "good": 1}})  # fmt: skip
    yield Run(group, "a cell in the VNI, 1%, after idle hours", MANY // 2,
              healthy | {"damaged": 0.01, "cells": CELL, "pause_s": 7200, "pause_every": 20})  # fmt: skip
    yield Run(group, "a cell in the VNI, 1%, and sent again", MANY // 2,
              healthy | {"damaged": 0.01, "cells": CELL, "again": 20})  # fmt: skip
    broken = healthy | {"causes": {"port": 1}}
    for share in (0.0001, 0.001, 0.01, 0.05, 0.1):
        yield Run(group, f"a cell in the VNI, {share:.2%} of a pair behind NAT", MANY // 2,
                  broken | {"damaged": share, "cells": CELL}, **(FEW if share >= 0.05 else {}))  # fmt: skip
    yield Run(group, "a cell in the VNI, every packet of a pair behind NAT", MANY // 2,
              broken | {"damaged": 1.0, "cells": CELL}, remains=ALL_DAMAGED)  # fmt: skip
    yield Run(group, "a cell in the VNI, every packet of a healthy pair", MANY // 2,
              healthy | {"damaged": 1.0, "cells": CELL}, remains=ALL_DAMAGED)  # fmt: skip


def neighbours() -> Iterator[Run]:
    """Containers with numbers next to one another: damage makes of one envelope another that is in use."""
    group = "envelopes one bit apart"
    dense = {"kinds": SUMMED, "pairs": 4, "envelopes": 64, "flows": 4000, "dense": True, "damaged": 0.01}
    yield Run(group, "healthy, any damage", MANY, dense | {"harms": HARMS})
    yield Run(group, "healthy, a VNI or MAC bit", MANY, dense | {"harms": ENVELOPE})
    yield Run(group, "healthy, headers of the packet before", MANY // 2, dense | {"harms": {"torn": 1}})
    behind = dense | {"causes": {"port": 1}}
    yield Run(group, "behind NAT, any damage", MANY, behind | {"harms": HARMS})
    yield Run(group, "half behind NAT, a VNI or MAC bit", MANY, behind | {"harms": ENVELOPE, "translated": 500})
    yield Run(group, "behind NAT, headers of the packet before", MANY // 2, behind | {"harms": {"torn": 1}})


def adversaries() -> Iterator[Run]:
    """Somebody sends packets so that the memory may come to believe in damage."""
    group = "somebody trains the memory"
    base = {
        "kinds": SUMMED,
        "pairs": 2,
        "envelopes": 4,
        "flows": 1000,
        "damaged": 0.01,
        "harms": {"cell": 1},
        "cells": CELL,
    }
    for sent in ("good", "zero"):
        for cause in ("straight", "nic") if sent == "good" else ("straight",):
            how = "wrong" if cause == "nic" else sent
            yield Run(group, f"in the name of a pair, outer {how}, 1 in 2", MANY // 2, base | {
                "strangers": 0.5, "strange_pair": False, "strange_sent": sent, "strange_cause": cause})  # fmt: skip
    yield Run(group, "in the name of a pair, outer wrong, 9,995 in 10,000", MANY, base | {
        "strangers": 0.9995, "strange_pair": False, "strange_cause": "nic", "damaged": 0.2})  # fmt: skip
    zeros = base | {"before": 0.5, "sent": {"zero": 1, "good": 1}}
    yield Run(
        group,
        "the damaged envelope itself, half of it as if it were right",
        MANY // 2,
        base | {"before": 0.5},
        remains=OWN_WORDS,
    )
    yield Run(group, "the same under zero and good outers", MANY // 2, zeros, remains=OWN_WORDS)


def kernel() -> Iterator[Run]:
    """With the program before the packet path that finishes packets in the kernel: 100 packets are one of `MANY`."""
    group = "finished in the kernel"
    base = {"kinds": KINDS, "pairs": 4, "envelopes": 8, "flows": 1000, "unfinished": 700, "options": 20, "tagged": 20,
            "padded": 50, "damaged": 0.3, "harms": HARMS, "step_ns": 1_000_000}  # fmt: skip
    few = MANY // 10
    for sent in ("zero", "pseudo", "lco", "good"):
        yield Run(group, f"outer {sent}, any damage", few, base | {"sent": {sent: 1}})
        yield Run(group, f"outer {sent}, envelopes one bit apart", few, base | {"sent": {sent: 1}, "dense": True,
            "envelopes": 64, "harms": ENVELOPE})  # fmt: skip
    mixed = base | {"sent": {"zero": 1, "pseudo": 1, "lco": 1, "good": 1}}
    yield Run(group, "all outers, any damage", few, mixed)
    yield Run(group, "all outers, a memory cell in the VNI", few, mixed | {"harms": {"cell": 1}, "cells": CELL}, **FEW)
    yield Run(group, "all outers, damage that repeats", few, mixed | {"again": 20})
    yield Run(group, "behind NAT", few, mixed | {"causes": {"straight": 1, "port": 1, "address": 1, "field": 1}},
              remains=NO_VOUCHER, most=0.001)  # fmt: skip


def limits() -> Iterator[Run]:
    """Every table is full."""
    group = "tables at their limits"
    base = {
        "kinds": SUMMED,
        "flows": 4000,
        "envelopes": 4,
        "damaged": 0.01,
        "harms": {"cell": 3, "vni-bit": 1},
        "cells": CELL,
    }
    for what, pair in (("pairs and envelopes", True), ("envelopes of known pairs", False)):
        for how, settings in (("good", {}), ("zero", {"strange_sent": "zero"}), ("wrong", {"strange_cause": "nic"})):
            yield Run(group, f"a flood of {what}, outer {how}", MANY // 2,
                      base | {"strangers": 0.5, "strange_pair": pair} | settings)  # fmt: skip
    yield Run(group, "20,000 envelopes of 2,000 pairs", MANY, base | {
        "pairs": 2000, "envelopes": 10, "flows": 60_000, "damaged": 0.05})  # fmt: skip
    yield Run(group, "the same behind NAT and not", MANY, base | {
        "pairs": 2000, "envelopes": 10, "flows": 60_000, "damaged": 0.05,
        "causes": {"straight": 1, "port": 1, "address": 1}}, **FEW)  # fmt: skip
    yield Run(group, "a flood, and idle hours", MANY // 2, base | {
        "strangers": 0.5, "pause_s": 7200, "pause_every": 5000})  # fmt: skip


def modes() -> Iterator[Run]:
    """Where timestamps are edited, and where the kernel says what it will finish itself."""
    group = "other modes"
    base = {"kinds": {"tcp": 2, "syn": 3, "udp": 1}, "pairs": 2, "envelopes": 8, "flows": 2000, "dense": True,
            "damaged": 0.5, "harms": HARMS, "stamps": True}  # fmt: skip
    strip = {"timestamps": "strip", "sources": SOURCES}
    normalise = {"timestamps": "normalise", "sources": SOURCES}
    local = base | {"unfinished": 700, "sent": {"lco": 2, "zero": 1, "good": 1, "pseudo": 1}, "local": True}
    yield Run(group, "CSUMNOTREADY", MANY, local | {"stamps": False})
    yield Run(group, "strip", MANY, base, strip)
    yield Run(group, "strip, CSUMNOTREADY where something is unfinished", MANY, local, strip)
    yield Run(group, "strip, CSUMNOTREADY on everything", MANY, base | {"skb_info": 1, "unfinished": 500}, strip)
    yield Run(group, "normalise", MANY // 2, base | {"kinds": {"tcp": 1}}, normalise, flows=8192)
    yield Run(group, "normalise, CSUMNOTREADY where something is unfinished", MANY // 2,
              local | {"kinds": {"tcp": 1}}, normalise, flows=8192)  # fmt: skip
    yield Run(group, "trust_device", MANY // 2, base | {"unfinished": 500, "stamps": False}, {"trust_device": True})
    yield Run(group, "trust_device, strip", MANY // 2, base | {"unfinished": 500}, {"trust_device": True, **strip})
    yield Run(
        group, "trust_device, strip, NOTVERIFIED", MANY // 2, base | {"skb_info": 4}, {"trust_device": True, **strip}
    )
    yield Run(group, "outer zero over IPv6 that its receiver drops", MANY // 2,
              base | (zero6 := {"underlay6": 1000, "sent": {"zero": 1}, "zero6": False, "stamps": False}))  # fmt: skip
    filled = {"actions": {"outer_absent6": "repair"}}
    yield Run(group, "the same, and it is computed", MANY, base | zero6, filled)
    yield Run(
        group, "the same, and envelopes one bit apart", MANY, base | zero6 | {"dense": True, "envelopes": 64}, filled
    )
