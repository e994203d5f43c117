"""What a tally means to the engineer on call: findings, each with a sentence or two and with what to do about it.

A finding says who, what and how often; whether it is a fault at all; what `fixer` does about it; and the lasting cure,
which is always at the sender or at the hop that broke the checksum, never here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from fixer.datapath.diagnose import Diagnosis, Explanation, OuterState
from fixer.datapath.repair import Action
from fixer.datapath.walk import Reason
from fixer.findings.causes import ABSENT6, CORRUPT, NEVER_COMPUTED, OUTER_IP_HEADER, WRONG_OUTER, in_hindsight
from fixer.findings.causes import UNFINISHED as LEFT_UNFINISHED
from fixer.findings.conversations import Fate
from fixer.findings.finding import Fact, Finding, Place, Role, Verdict
from fixer.findings.lookalikes import lookalikes
from fixer.findings.sender import UNFINISHED, Door, Row, Sender, is_unfinished
from fixer.findings.tally import MOST_CONVERSATIONS, MOST_KINDS, Others, Tally
from fixer.findings.verdicts import Unfinished, other
from fixer.findings.words import packets_words, share
from fixer.words import reason_words

UNTIL_THEN = {
    Door.CAPTURE: ", on the receiver: `fixer on` and `fixer run`",
    Door.TOLD: ", on the receiver: `fixer on` and `fixer run`",
    Door.WATCHED: " `fixer run` can repair them here; as it is set up, it only watches",
    Door.MENDED: ", `fixer run` repairs them here",
}
"""What carries somebody until the cure is done, by where the packets were seen."""

MOST_SAID = 20
"""Senders that are spoken of one by one: the worst."""

MOST_VNIS = 4
"""VNIs that a sentence names before it only counts."""

FACTS = {
    Fate.LOST: "sent again and never answered",
    Fate.UNANSWERED: "never answered",
    Fate.ACCEPTED: "acknowledged or answered by the other side",
    Fate.ACCEPTED_DATA: "acknowledged by the other side",
    Fate.REFUSED: "refused by the other side's kernel (RST or port unreachable), which had verified them",
    Fate.MERGED: "merged from several where this was captured (longer than a wire or the MSS allows)",
    Fate.UNKNOWN: "of unknown fate: nothing answers such, or one direction is missing",
}


ON_WIRE = FACTS | {
    Fate.LOST: "sent again",
    Fate.UNANSWERED: "of unknown fate: answers leave this host, and do not pass here",
    Fate.UNKNOWN: "of unknown fate: answers leave this host, and do not pass here",
}
"""The same where packets come in: that nobody answered cannot be seen there."""


def findings(tally: Tally, ports: Sequence[int], *, plain: bool) -> list[Finding]:
    """Everything worth saying about one file, most urgent first for each sender; never empty."""
    worst, others = tally.worst(MOST_SAID)
    said = [finding for each in of_senders(worst) for finding in each.findings()]
    if tally.unfollowed:
        said.append(of_unfollowed(tally))
    said += of_others(others)
    accused = {one.who for one in said if one.verdict is not Verdict.HARMLESS}
    said += lookalikes(tally, ports, accused)
    said += of_file(tally, ports, plain=plain)
    return said or [nothing(tally)]


def of_senders(senders: Sequence[tuple[bool, str, Sender]]) -> list[OfSender]:
    """Each of them by itself, as `Tally.by_harm` tells them."""
    seen = [Unfinished(sender, address) for _, address, sender in senders]
    alike = any(one.accepted for one in seen) and sum(bool(one.accepted or one.outgoing) for one in seen) > 1
    return [OfSender(sender, address, is_vtep=is_vtep, everybody=alike) for is_vtep, address, sender in senders]


def of_others(others: Others) -> list[Finding]:
    """Those who are not told one by one."""
    if not others.harm:
        return []
    text = f"And {others.words}: {share(others.harm, others.sender.packets)} not sound."
    return [Finding(others.words, Role.VTEP, "others", Verdict.UNCLEAR, text, others.harm, others.sender.packets)]


class OfSender:
    """What is wrong with one sender's packets, or why what looks wrong is not."""

    def __init__(self, sender: Sender, address: str, *, is_vtep: bool, everybody: bool) -> None:
        self.sender = sender
        self.address = address
        self.is_vtep = is_vtep
        self.who = f"VTEP {address or 'unknown'}" if is_vtep else address or "An unknown sender"
        self.unfinished = Unfinished(sender, address)
        self.place = self.unfinished.place(everybody=everybody)
        self.rows: dict[tuple[Role, str], set[Row]] = {}
        """Of which kinds of packets each finding speaks, by role and cause: of those that were told so far."""

    def findings(self) -> Iterator[Finding]:
        yield from self.of_corrupt()
        yield from self.of_unfinished(Verdict.FAULT)
        yield from self.of_wrong_outers()
        yield from self.of_headers()
        yield from self.of_unfinished(Verdict.UNCLEAR)
        yield from self.of_unfinished(Verdict.HARMLESS)

    def of(self, count: int) -> str:
        return share(count, self.sender.packets)

    def found(
        self,
        cause: str,
        verdict: Verdict,
        text: str,
        rows: Sequence[Row],
        *,
        packets: int = 0,
        role: Role | None = None,
        cure: str = "",
        kernel: str = "",
    ) -> Finding:
        role = role or (Role.VTEP if self.is_vtep else Role.HOST)
        self.rows.setdefault((role, cause), set()).update(rows)
        return Finding(
            who=self.address,
            role=role,
            cause=cause,
            verdict=verdict,
            text=f"{self.who}{text}",
            packets=packets or self.sender.count(rows),
            of=self.sender.packets,
            vnis=tuple(self.sender.vnis(rows)),
            taken=self.place,
            evidence=tuple(facts(self.sender, rows)),
            cure=cure,
            kernel=kernel,
        )

    def of_unfinished(self, verdict: Verdict) -> Iterator[Finding]:
        rows = [row for row in self.sender.rows if is_unfinished(row) and self.unfinished.verdicts(row)[verdict]]
        if not rows:
            return
        packets = sum(self.unfinished.verdicts(row)[verdict] for row in rows)
        cure = LEFT_UNFINISHED.cure
        what = f"unfinished {_layers(rows)}checksums{_vni_words(self.sender, rows)} in {self.of(packets)}"
        if verdict is Verdict.FAULT:
            text = (
                f" sends {what}{self.in_vain(packets)}; receivers discard such. Cure, on its host: {cure}. "
                f"Until then{UNTIL_THEN[self.sender.door]}."
            )
        elif verdict is Verdict.UNCLEAR and self.unfinished.accepted:
            text = (
                f": {what}, sent again and never answered, though others like them are accepted: a filter, or somebody "
                f"who does not listen. A capture of the other side shows whether they arrive."
            )
        elif verdict is Verdict.UNCLEAR:
            text = (
                f": {what}{self.in_vain(packets)}. Taken on its own host, before its NIC, that is normal; behind it "
                f"that is a fault, and receivers discard such. What decides: a capture on the other side, or where "
                f"this one was taken, said with `--taken-on ADDRESS`. Cure of a fault, on its host: {cure}."
            )
        else:
            text = f": {self.of(packets)} unfinished here, which is no fault by itself: {self.why()}." + (
                " What reaches the other side shows in a capture there." if self.place is Place.SENDER else ""
            )
            cure = ""
        yield self.found("unfinished", verdict, text, rows, packets=packets, cure=cure)

    def in_vain(self, packets: int) -> str:
        lost, none = self.unfinished.lost, self.unfinished.in_vain
        if self.sender.door is Door.MENDED:
            return f", {lost:,} of them sent again though repaired (is the way back broken, too?)" if lost else ""
        if self.sender.door is Door.WATCHED:
            return f", {lost:,} of them sent again" if lost else ""
        if lost:
            return f", {'all' if lost == packets else f'{lost:,}'} of them sent again and never answered"
        return ", never answered" if none else ""

    def why(self) -> str:
        """Why what is harmless is; without a full stop."""
        behind = "or repaired behind this point"
        if self.sender.door is Door.WATCHED and self.unfinished.accepted:
            return f"this host accepts them as they come: a device says that it has verified them, {behind}"
        if self.unfinished.loopback:
            return "on loopback nobody finishes a checksum and nobody asks for it"
        if self.place is Place.ONE_HOST:
            return f"the other side accepts them, and sends such too: one host for both (veth, a hypervisor), {behind}"
        if self.unfinished.accepted_incoming:
            return f"they came in so and are accepted: {behind[3:]}, or sender and receiver are on one host"
        if self.unfinished.outgoing:
            return "they are marked as outgoing: taken on this host before its NIC finished the checksums"
        if self.unfinished.accepted:
            return f"the other side answers them: taken on this host before its NIC finished the checksums, {behind}"
        return (
            "merged from several here (GRO, LRO), or still to be cut (GSO), which says nothing of what was on the wire"
        )

    def of_corrupt(self) -> Iterator[Finding]:
        behind_nat = in_hindsight(self.sender)
        rows = [
            row
            for row in self.sender.rows
            if row.diagnosis is Diagnosis.CORRUPT and not is_unfinished(row) and row not in behind_nat
        ]
        never = [row for row in rows if row.reason is Reason.NEVER_COMPUTED]
        damaged = [row for row in rows if row.reason is not Reason.NEVER_COMPUTED]
        if never:
            count = self.sender.count(never)
            cure = NEVER_COMPUTED.cure
            text = (
                f": a checksum field of 0000 in {self.of(count)}: nobody ever computed it; `fixer run` drops such. "
                f"Cure, on its host: {cure}."
            )
            yield self.found("never_computed", other(self.sender, never), text, never, cure=cure)
        if damaged:
            count = self.sender.count(damaged)
            cure = CORRUPT.cure
            broken = any(self.unfinished.verdicts(row)[Verdict.FAULT] for row in self.sender.rows if is_unfinished(row))
            text = f": {self.of(count)} corrupt: `fixer run` drops such. " + (
                "It leaves checksums unfinished too, and a NAT hop behind such a sender can turn one into the other."
                if broken or self.unfinished.in_vain
                else f"Damaged before encapsulation or on the way: {cure}."
            )
            yield self.found("corrupt", other(self.sender, damaged), text, damaged, role=Role.PATH, cure=cure)

    def of_wrong_outers(self) -> Iterator[Finding]:
        """One for each cause that made its outer checksums wrong."""
        causes = in_hindsight(self.sender)
        for name, cause in WRONG_OUTER.items():
            rows = [row for row, found in causes.items() if found is name]
            if not rows:
                continue
            count = self.sender.count(rows)
            righted = self.sender.count(row for row in rows if row.action is Action.REPAIR)
            does = (
                "rights them"
                if righted == count
                else f"rights {righted:,} of them"
                if righted
                else "rights none of them"
            )
            verdict = Verdict.UNCLEAR if name is Explanation.UNEXPLAINED else other(self.sender, rows)
            text = (
                f": a wrong outer checksum{_vni_words(self.sender, rows)} in {self.of(count)}, because {cause.what}; "
                f"kernels discard such, `fixer run` {does}. Cure: {cause.cure}."
            )
            yield self.found(
                f"outer_{name.name.lower()}", verdict, text, rows, role=Role.PATH, cure=cause.cure, kernel=cause.kernel
            )

    def of_headers(self) -> Iterator[Finding]:
        rows = [row for row in self.sender.rows if row.diagnosis is Diagnosis.OUTER_IP_WRONG]
        if rows:
            count = self.sender.count(rows)
            cure = OUTER_IP_HEADER.cure
            text = (
                f": the outer IP header's own checksum is wrong in {self.of(count)}: a receiver's kernel drops such "
                f"before any rule sees them, so `fixer run` never gets them. Cure: {cure}."
            )
            yield self.found("outer_ip_header", other(self.sender, rows), text, rows, role=Role.PATH, cure=cure)
        rows = [row for row in self.sender.rows if row.is_absent]
        if rows:
            count = self.sender.count(rows)
            verdict = other(self.sender, rows)
            cure = ABSENT6.cure
            text = f" sends outer checksum zero over IPv6 in {self.of(count)}: " + (
                "the other side answers them, so its VXLAN device has udp6zerocsumrx."
                if verdict is Verdict.HARMLESS
                else f"receivers drop such unless their VXLAN device has udp6zerocsumrx (`ip -d link`). Cure: {cure}. "
                f'Until then `fixer run` computes it with policy.outer_absent6 = "repair".'
            )
            yield self.found("outer_zero_over_ipv6", verdict, text, rows, cure=cure)


def facts(sender: Sender, rows: Sequence[Row]) -> Iterator[Fact]:
    """What became of these packets, and whether the same sender's others are finished."""
    said: dict[str, Fact] = {}
    cells = sender.cells(rows)
    for fate, what in (ON_WIRE if sender.door.is_wire else FACTS).items():
        count = sum(packets for (_, found), packets in cells.items() if found is fate)
        if count > 0:
            first = min(sender.rows[row].first[fate] for row in rows if fate in sender.rows[row].first)
            before = said[what].packets if what in said else 0
            said[what] = Fact(what, before + count, 0 if fate is Fate.UNKNOWN else first)
    yield from said.values()
    for mark, what in ((True, "marked as outgoing"), (False, "marked as incoming")):
        count = sum(packets for (found, _), packets in cells.items() if found is mark)
        if count:
            yield Fact(what, count, 0)
    if sender.finished:
        yield Fact("finished segments of the same sender", sender.finished, 0)


def nothing(tally: Tally) -> Finding:
    judged = sum(sender.packets for sender in tally.everybody())
    rows = [
        (row, packets.count)
        for sender in tally.everybody()
        for row, packets in sender.rows.items()
        if row.diagnosis is Diagnosis.UNCHECKABLE
    ]
    reasons = {reason_words(row.reason, row.outer) for row, _ in rows}
    but = f"; {sum(count for _, count in rows):,} cannot be checked: {'; '.join(sorted(reasons))}" if rows else ""
    text = f"Nothing to repair in {packets_words(judged)}{but}."
    return Finding("", Role.FILE, "sound", Verdict.HARMLESS, text, judged, judged)


def of_unfollowed(tally: Tally) -> Finding:
    """What no conclusion holds for."""
    text = (
        f"What became of {packets_words(tally.unfollowed)} is not known: there are more conversations "
        f"({MOST_CONVERSATIONS:,}) or kinds of packets ({MOST_KINDS:,}) than can be followed. Split the capture "
        f"(`editcap -c 100000 IN OUT`) and scan the parts."
    )
    return Finding("", Role.FILE, "not_followed", Verdict.UNCLEAR, text, tally.unfollowed, tally.frames)


def of_file(tally: Tally, ports: Sequence[int], *, plain: bool) -> Iterator[Finding]:
    """What is to be said of the capture as a whole."""

    def found(cause: str, text: str, packets: int = 0) -> Finding:
        return Finding("", Role.FILE, cause, Verdict.UNCLEAR, text, packets, tally.frames)

    cut = sum(
        packets.count
        for sender in tally.everybody()
        for row, packets in sender.rows.items()
        if row.reason is Reason.TRUNCATED
    )
    if cut:
        text = f"{packets_words(cut)} cut short by the capture, so they cannot be checked: capture with `tcpdump -s 0`."
        yield found("truncated", text, cut)
    if not tally.frames:
        text = "The capture is empty: nothing arrived while it was taken, or its filter let nothing pass."
        yield found("empty", text)
    elif not tally.total.vxlan and not tally.plain and not set(tally.strangers.alike_seen()) - set(ports):
        *most, last = [str(port) for port in ports]
        named = f"{', '.join(most)} or {last}" if most else last
        yield found(
            "no_vxlan",
            f"No VXLAN on UDP {named} here. Other ports go into `ports` of the configuration"
            + ("." if plain else "; --plain judges packets without a tunnel as well."),
        )


def _layers(rows: Sequence[Row]) -> str:
    """'inner ', or nothing for a plain sender, whose packets have one layer."""
    seen = {row.diagnosis for row in rows if row.diagnosis in UNFINISHED}
    if all(row.outer is OuterState.NO_TUNNEL for row in rows):
        return ""
    if seen == {Diagnosis.INNER_UNFINISHED}:
        return "inner "
    return "outer " if seen == {Diagnosis.OUTER_UNFINISHED} else "inner and outer "


def _vni_words(sender: Sender, rows: Iterable[Row]) -> str:
    """' (VNI 4097)', or nothing for a plain sender."""
    vnis = sender.vnis(rows)
    if not vnis:
        return ""
    if len(vnis) > MOST_VNIS:
        return f" ({len(vnis)} VNIs)"
    return f" (VNI {', '.join(map(str, vnis))})"
