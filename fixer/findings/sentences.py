"""What a tally means to the engineer on call: a sentence a finding, each with what to do about it.

A finding says who, what and how often; whether it is a fault at all; what `fixer` does about it; and the lasting cure,
which is always at the sender or at the hop that broke the checksum, never here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from fixer.datapath.diagnose import Diagnosis, OuterState
from fixer.datapath.repair import Action
from fixer.datapath.walk import Reason
from fixer.findings.causes import WRONG_OUTER, in_hindsight
from fixer.findings.tally import UNFINISHED, Row, Sender, Tally, is_unfinished
from fixer.words import reason_words

SENDER_CURE = "`ethtool -K DEV tx-checksum-ip-generic off`"
"""DEV is the sender's NIC: the kernel then finishes every checksum itself before the packet leaves."""

MOST_SAID = 20
"""Senders that are spoken of one by one: the worst."""

MOST_VNIS = 4
"""VNIs that a sentence names before it only counts."""


def findings(tally: Tally, ports: Sequence[int], *, plain: bool) -> list[str]:
    """Everything worth saying about one file, most urgent first for each sender; never empty."""
    said: list[str] = []
    worst, others = tally.worst(MOST_SAID)
    for is_vtep, address, sender in worst:
        who = f"VTEP {address or 'unknown'}" if is_vtep else address or "An unknown sender"
        said += of_sender(who, sender)
    if others.harm:
        said.append(f"And {others.words}: {others.harm} of {_packets(others.sender.packets)} not sound.")
    said += of_file(tally, ports, plain=plain)
    if not said:
        judged = sum(sender.packets for sender in tally.everybody())
        uncheckable = sum(_count(sender, {Diagnosis.UNCHECKABLE}) for sender in tally.everybody())
        reasons = {
            reason_words(row.reason, row.outer)
            for sender in tally.everybody()
            for row in sender.rows
            if row.diagnosis is Diagnosis.UNCHECKABLE
        }
        but = f"; {uncheckable} cannot be checked: {'; '.join(sorted(reasons))}" if uncheckable else ""
        said.append(f"Nothing to repair in {_packets(judged)}{but}.")
    return said


def of_sender(who: str, sender: Sender) -> Iterator[str]:
    """What is wrong with one sender's packets, or why what looks wrong is not."""
    own, why = sender.own_capture()
    of_all = f"of {_packets(sender.packets)}"
    headers = sum(
        count for row, count in sender.rows.items() if row.diagnosis is Diagnosis.CORRUPT and is_unfinished(row)
    )
    faulty = sender.unfinished - (own or headers)
    behind_nat = sum(sender.rows[row] for row in in_hindsight(sender.rows) if row.diagnosis is Diagnosis.CORRUPT)
    corrupt = _count(sender, {Diagnosis.CORRUPT}) - (headers if own else 0) - behind_nat
    never = sum(
        count
        for row, count in sender.rows.items()
        if row.diagnosis is Diagnosis.CORRUPT and row.reason is Reason.NEVER_COMPUTED
    )
    if never:
        yield (
            f"{who}: a checksum field of 0000 in {never} {of_all}: nobody ever computed it; `fixer run` drops such. "
            f"Cure, on its host: what generates these packets, or the offload that should have finished them."
        )
    if corrupt := corrupt - never:
        yield f"{who}: {corrupt} {of_all} corrupt: `fixer run` drops such. " + (
            "It leaves checksums unfinished too, and a NAT hop behind such a sender can turn one into the other."
            if faulty
            else "Damaged before encapsulation or on the way: look at the links, NICs and memory between."
        )
    if faulty:
        unfinished = [row for row in sender.rows if row.diagnosis in UNFINISHED]
        yield (
            f"{who} sends unfinished {_layers(sender)}checksums{_vnis(sender, unfinished)} in {faulty} {of_all}; "
            f"receivers discard such. Cure, on its host: {SENDER_CURE} for its NIC. Until then, on the receiver: "
            f"`fixer on` and `fixer run`."
        )
    yield from of_wrong_outers(who, sender)
    if headers_wrong := _count(sender, {Diagnosis.OUTER_IP_WRONG}):
        yield (
            f"{who}: the outer IP header's own checksum is wrong in {headers_wrong} {of_all}: a receiver's kernel "
            f"drops such before any rule sees them, so `fixer run` never gets them. Cure: the hop that writes or "
            f"damages that header."
        )
    if absent := _count(sender, {Diagnosis.OUTER_ABSENT6}):
        yield (
            f"{who} sends outer checksum zero over IPv6 in {absent} {of_all}: receivers drop such unless their VXLAN "
            f"device has udp6zerocsumrx (`ip -d link`). Cure: make it with that, or the sender's without "
            f'udp6zerocsumtx. Until then `fixer run` computes it with policy.outer_absent6 = "repair".'
        )
    if own:
        yield (
            f"{who}: {own} {of_all} unfinished here, but {why}: taken on this host before its NIC finished the "
            f"checksums, not a fault by itself. What reaches the other side shows in a capture there."
        )


def of_wrong_outers(who: str, sender: Sender) -> Iterator[str]:
    """A sentence for each cause that made its outer checksums wrong."""
    causes = in_hindsight(sender.rows)
    for cause, (what, cure) in WRONG_OUTER.items():
        rows = [row for row, found in causes.items() if found is cause]
        if not rows:
            continue
        count = sum(sender.rows[row] for row in rows)
        righted = sum(sender.rows[row] for row in rows if row.action is Action.REPAIR)
        does = "rights them" if righted == count else f"rights {righted} of them" if righted else "rights none of them"
        yield (
            f"{who}: a wrong outer checksum{_vnis(sender, rows)} in {count} of {_packets(sender.packets)}, because "
            f"{what}; kernels discard such, `fixer run` {does}. Cure: {cure}."
        )


def of_file(tally: Tally, ports: Sequence[int], *, plain: bool) -> Iterator[str]:
    """What is to be said of the capture as a whole."""
    cut = sum(
        count for sender in tally.everybody() for row, count in sender.rows.items() if row.reason is Reason.TRUNCATED
    )
    if cut:
        yield f"{_packets(cut)} cut short by the capture, so they cannot be checked: capture with `tcpdump -s 0`."
    if tally.other[Reason.GENEVE]:
        yield f"{_packets(tally.other[Reason.GENEVE])} of Geneve (UDP 6081), which is another tunnel than VXLAN."
    if not tally.frames:
        yield "The capture is empty: nothing arrived while it was taken, or its filter let nothing pass."
    elif not tally.total.vxlan and not tally.plain:
        *most, last = [str(port) for port in ports]
        named = f"{', '.join(most)} or {last}" if most else last
        yield (
            f"No VXLAN on UDP {named} here. Other ports go into `ports` of the configuration"
            + ("." if plain else "; --plain judges packets without a tunnel as well.")
        )


def _count(sender: Sender, diagnoses: set[Diagnosis]) -> int:
    return sum(count for row, count in sender.rows.items() if row.diagnosis in diagnoses)


def _layers(sender: Sender) -> str:
    """'inner ', or nothing for a plain sender, whose packets have one layer."""
    seen = {row.diagnosis for row in sender.rows if row.diagnosis in UNFINISHED}
    if all(row.outer is OuterState.NO_TUNNEL for row in sender.rows):
        return ""
    if seen == {Diagnosis.INNER_UNFINISHED}:
        return "inner "
    return "outer " if seen == {Diagnosis.OUTER_UNFINISHED} else "inner and outer "


def _vnis(sender: Sender, rows: Iterable[Row]) -> str:
    """' (VNI 4097)', or nothing for a plain sender."""
    vnis = sorted(set().union(*(sender.vnis[row] for row in rows)))
    if not vnis:
        return ""
    if len(vnis) > MOST_VNIS:
        return f" ({len(vnis)} VNIs)"
    return f" (VNI {', '.join(map(str, vnis))})"


def _packets(count: int) -> str:
    return f"{count} packet{'' if count == 1 else 's'}"
