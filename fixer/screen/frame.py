"""One frame taken apart for people, with the checksums that were found and the right ones beside their fields.

scapy dissects, here and nowhere else on a verb's way: it knows more protocols than anybody who reads a capture.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from fixer.capture.frames import Frame
from fixer.capture.link import LinkType
from fixer.datapath.diagnose import InnerState, OuterState
from fixer.datapath.result import Result
from fixer.screen.console import Console, Part, exactly, rows, text
from fixer.words import ACTIONS, INNER_STATES, OUTER_STATES, diagnosis_words, reason_words

_LAYER = re.compile(r"###\[ (.*?) \]###")
_CHECKSUM = re.compile(r"^[ |]*c(?:h)?ksum *= ")
_TRANSPORTS = ("TCP", "UDP", "ICMP", "ICMPv6")
INNER_BESIDE = {
    InnerState.VERIFIES: "right",
    InnerState.PARTIAL: "never finished, right is {right}",
    InnerState.WRONG: "wrong, right is {right}",
    InnerState.ABSENT: "none was made",
}
OUTER_BESIDE = {
    OuterState.GOOD: "right",
    OuterState.AGREES: "right once the inner one is",
    OuterState.ZERO: "none was made",
    OuterState.PARTIAL: "never finished, right is {right}",
    OuterState.STALE: "stale, right is {right}",
    OuterState.WRONG: "wrong, right is {right}",
}


def show(number: int, frame: Frame, result: Result | None, ports: Sequence[int], console: Console) -> None:
    """Frame `number` of a capture, and what the datapath says of it; None where it has no IP packet."""
    exactly(console, text((f"Frame {number}", "bold"), f": {', '.join(_about(frame))}"))
    for line in _dissected(frame, result, ports):
        exactly(console, line)
    if result is not None:
        console.print(rows(_judged(result)))


def _about(frame: Frame) -> Iterator[str]:
    if frame.when_ns:
        seconds, nanoseconds = divmod(frame.when_ns, 10**9)
        yield f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{nanoseconds:09} UTC"
    whole = "" if len(frame.data) == frame.wire_length else f" of {frame.wire_length} on the wire"
    yield f"{len(frame.data)} bytes{whole}"
    if frame.outgoing is not None:
        yield "marked as outgoing" if frame.outgoing else "marked as incoming"


def _dissected(frame: Frame, result: Result | None, ports: Sequence[int]) -> Iterator[Part]:
    """scapy's lines. Behind the checksum of each layer that is judged stands what is right."""
    beside = _beside(result) if result is not None else {}
    tunnel = result is not None and result.vxlan
    layer, inside = "", not tunnel
    for line in _packet(frame, ports).show(dump=True).splitlines():
        if found := _LAYER.search(line):
            layer = found[1].split(" ")[0]
            inside |= layer == "VXLAN"
        if layer in _TRANSPORTS and _CHECKSUM.match(line) and (words := beside.pop(inside, "")):
            yield text(line, (f"  ← {words}", "bold"))
        elif line.strip():
            yield line


def _beside(result: Result) -> dict[bool, str]:
    """Words for the outer (False) and the inner (True) field."""
    return {
        False: OUTER_BESIDE.get(result.outer, "").format(right=f"{result.outer_right:04x}"),
        True: INNER_BESIDE.get(result.inner, "").format(right=f"{result.inner_right:04x}"),
    }


def _judged(result: Result) -> Iterator[tuple[str, Part]]:
    yield "diagnosis", diagnosis_words(result.diagnosis, result.outer)
    is_plain = result.outer is OuterState.NO_TUNNEL
    inner = INNER_STATES[result.inner]
    if result.inner in INNER_BESIDE:
        inner += f", found {result.inner_found:04x}, right {result.inner_right:04x}"
    elif words := reason_words(result.reason, result.outer):
        inner = words
    yield "checksum" if is_plain else "inner", inner
    if not is_plain:
        outer = OUTER_STATES[result.outer]
        if result.outer in OUTER_BESIDE:
            outer += f", found {result.outer_found:04x}, right {result.outer_right:04x}"
        yield "outer", outer
    yield "fixer run", ACTIONS[result.would]


def _packet(frame: Frame, ports: Sequence[int]) -> Any:
    """The frame as scapy has it."""
    logging.getLogger("scapy").setLevel(logging.CRITICAL)  # it warns of this host's interfaces
    from scapy.layers.inet import IP, UDP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import CookedLinux, CookedLinuxV2, Ether, Loopback
    from scapy.layers.vxlan import VXLAN
    from scapy.packet import Raw, bind_bottom_up

    for port in ports:
        bind_bottom_up(UDP, VXLAN, dport=port)
    by_link = {
        LinkType.ETHERNET: Ether,
        LinkType.SLL: CookedLinux,
        LinkType.SLL2: CookedLinuxV2,
        LinkType.BSD_LOOP: Loopback,
        LinkType.LOOP: Loopback,
    }
    first = by_link.get(frame.link_type)  # type: ignore[call-overload]
    if first is None:
        first = Raw if frame.ip_at else IPv6 if frame.data[0] >> 4 == 6 else IP
    try:
        return first(frame.data)
    except Exception:  # the first layer is cut short: each has its own way to say so
        return Raw(frame.data)
