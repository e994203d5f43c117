"""Faults that people look for a wrong checksum behind, and that are none: long packets that do not arrive, nothing that
answers, another tunnel than VXLAN, VXLAN on another port. Of captures alone: who sees one direction knows none of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fixer.findings.causes import MTU
from fixer.findings.finding import Fact, Finding, Role, Verdict
from fixer.findings.names import TUNNELS, tunnels_among
from fixer.findings.roads import Seen, Sight
from fixer.findings.tally import Tally
from fixer.findings.words import packets_words, some_of

MOST_ROADS = 5
"""Roads, and VTEPs without an answer, that are spoken of one by one: the worst."""
ENOUGH_ASKED = 2
"""Questions without an answer that are worth a word; one may have been too late for the capture."""

TRY = "`ping -M do -s 1400 ADDRESS` over the overlay, with other sizes, shows what still passes."
PLAIN_MTU_CURE = "a smaller MTU at the sender, or let ICMP's 'fragmentation needed' pass, which tells it"
WHOLE_FILTER = "`tcpdump 'udp port 4789 or ip[6:2] & 0x1fff != 0'`"


def lookalikes(tally: Tally, ports: Sequence[int], accused: set[str]) -> Iterator[Finding]:
    """accused: senders whose checksums explain why nothing answers them."""
    yield from of_long_packets(tally)
    yield from of_silence(tally, accused)
    yield from of_ports(tally, ports)
    yield from of_tunnels(tally)


# Long packets that do not arrive.


def of_long_packets(tally: Tally) -> Iterator[Finding]:
    found = [finding for road in tally.roads if (finding := of_road(road, tally.later_parts))]
    order = list(Verdict)
    yield from sorted(found, key=lambda one: (order.index(one.verdict), -one.packets))[:MOST_ROADS]


def of_road(road: Seen, later_parts: int) -> Finding | None:
    """An MTU that is too large for the way; None where nothing says so."""
    count = road.counts
    cut = count[Sight.WHOLE] + count[Sight.REST_MISSING]
    told = count[Sight.TOO_LONG]
    long, stalled = count[Sight.STALLED_LONG], count[Sight.STALLED]
    if not (long or cut or (told and road.tunnel)):
        return None
    if (long and (count[Sight.STALLED_HEARD] or told or count[Sight.TOO_LONG_INSIDE])) or (stalled and (cut or told)):
        verdict = Verdict.FAULT
    elif long or told or count[Sight.REST_MISSING]:
        verdict = Verdict.UNCLEAR
    else:
        verdict = Verdict.HARMLESS
    who = f"VTEP {road.source}" if road.tunnel else road.source
    cure = MTU.cure if road.tunnel else PLAIN_MTU_CURE
    seen = "; ".join(what_of_road(road, later_parts))
    if verdict is Verdict.FAULT:
        text = (
            f"{who} to {road.destination}: long packets do not arrive: an MTU is too large, and no checksum is wrong. "
            f"Seen: {seen}"
        )
    elif long:
        text = (
            f"{who} to {road.destination}: long packets may be lost, as where an MTU is too large. Seen: {seen}. Or "
            f"the other side has gone. What decides: {TRY[:-1]}"
        )
    else:
        text = f"{who} to {road.destination}: longer packets than the underlay takes: {seen}"
    text += ". " + (
        f"It works here, but many devices drop fragments of VXLAN. To be safe, {cure}."
        if verdict is Verdict.HARMLESS
        else f"Cure: {cure}." + (f" {TRY}" if not long or verdict is Verdict.FAULT else "")
    )
    packets = count[Sight.REPEATS] + cut + told
    return Finding(
        road.source,
        Role.PATH,
        "mtu",
        verdict,
        text,
        packets=packets,
        of=max(packets, count[Sight.PACKETS] + cut),
        evidence=tuple(facts_of(road)),
        cure=cure,
    )


def what_of_road(road: Seen, later_parts: int) -> Iterator[str]:
    count = road.counts
    repeats = count[Sight.REPEATS]
    if long := count[Sight.STALLED_LONG]:
        passes = f"up to {road.through:,} bytes are" if road.through else "the handshake is"
        yield (
            f"{some_of(long, 'connection')} sent segments of {road.stalled:,} bytes or more again, {repeats:,} times "
            f"in all, and got no acknowledgement, while {passes} acknowledged"
        )
    elif stalled := count[Sight.STALLED]:
        yield f"{some_of(stalled, 'connection')} sent the same again, {repeats:,} times, and got no acknowledgement"
    if whole := count[Sight.WHOLE]:
        yield f"{packets_words(whole)} of up to {road.longest:,} bytes cut to fragments by the underlay"
    if missing := count[Sight.REST_MISSING]:
        rest = "of which the rest never comes"
        if not later_parts:
            rest += f" (or a filter by port leaves it out: {WHOLE_FILTER} does not)"
        yield f"{packets_words(missing)} cut to fragments {rest}"
    for sight in (Sight.TOO_LONG, Sight.TOO_LONG_INSIDE):
        if told := count[sight]:
            passes = f", only {road.mtu:,} bytes pass" if road.mtu else ""
            yield f"a router says so, {some_of(told, 'time')} (ICMP{passes})"


FACTS = {
    Sight.REPEATS: "sent again and never acknowledged, while shorter ones are",
    Sight.WHOLE: "cut to fragments by the underlay, all of which are here",
    Sight.REST_MISSING: "cut to fragments by the underlay, of which some are missing",
    Sight.TOO_LONG: "a router says by ICMP that they are too long for the underlay",
    Sight.TOO_LONG_INSIDE: "a router says by ICMP that they are too long, inside the tunnel",
}


def facts_of(road: Seen) -> Iterator[Fact]:
    for sight, what in FACTS.items():
        if count := road.counts[sight]:
            if sight is Sight.REPEATS and not road.counts[Sight.STALLED_LONG]:
                what = "sent again and never acknowledged"
            yield Fact(what, count, road.firsts[sight])


# Nothing that answers.


def of_silence(tally: Tally, accused: set[str]) -> Iterator[Finding]:
    tunnels = [road for road in tally.roads if road.tunnel]
    between = {(road.source, road.destination): road for road in tunnels}
    found: set[str] = {road.destination for road in tunnels if road.counts[Sight.FOUND]}
    silent: dict[str, list[Seen]] = {}
    for road in tunnels:
        back = between.get((road.destination, road.source))
        answered = road.counts[Sight.ANSWERED] + (back.counts[Sight.ANSWERED] if back else 0)
        if not answered and asked_of(road, found) and road.source not in accused:
            silent.setdefault(road.source, []).append(road)
    spoken: set[str] = set()
    for source, roads in sorted(silent.items(), key=lambda each: -sum(asked_of(road, found) for road in each[1])):
        asked = sum(asked_of(road, found) for road in roads)
        if asked < ENOUGH_ASKED or source in spoken:
            continue
        if len(spoken) >= MOST_ROADS:
            return
        names = [road.destination for road in roads]
        backs = [back for road in roads if (back := between.get((road.destination, source)))]
        both = any(asked_of(back, found) for back in backs)
        spoken |= {source, *(back.source for back in backs)}
        if both:
            how = f"nothing is answered, in neither direction: {asked:,} questions (ARP, SYN, ping, DNS) from there"
        elif backs:
            how = f"{asked:,} questions (ARP, SYN, ping, DNS) and no answer to any, though something comes back"
        else:
            how = f"{asked:,} questions (ARP, SYN, ping, DNS), and nothing whatever comes back"
        text = (
            f"VTEP {source} to {named_ends(names)}: {how}. Their checksums are right, so look elsewhere: a firewall, a "
            f"cloud's security group, a wrong peer address, a hypervisor that takes the UDP port for itself (ESXi "
            f"4789, NSX 8472), or a capture of one direction. What decides: capture on the other host at the same "
            f"time, "
            f"then `fixer compare` both."
        )
        first = min((road.firsts[Sight.SOUGHT] for road in roads if road.firsts[Sight.SOUGHT]), default=0)
        yield Finding(
            source,
            Role.PATH,
            "unanswered",
            Verdict.UNCLEAR,
            text,
            packets=asked,
            of=max(asked, sum(road.counts[Sight.PACKETS] for road in roads)),
            evidence=(Fact("sound questions without an answer", asked, first),),
        )


def asked_of(road: Seen, found: set[str]) -> int:
    """Questions without an answer; for a MAC address only where nobody answers such: all are asked, and one answers."""
    return road.counts[Sight.ASKED] + (0 if road.source in found else road.counts[Sight.SOUGHT])


def named_ends(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} and {len(names) - 1} others"


# Another tunnel, another port.


def of_ports(tally: Tally, ports: Sequence[int]) -> Iterator[Finding]:
    """VXLAN where nobody looked for it."""
    alike = {port: seen for port, seen in tally.strangers.alike_seen().items() if port not in ports}
    if not alike:
        return
    worst = sorted(alike, key=lambda port: -alike[port][0])[:MOST_ROADS]
    packets = sum(count for count, _ in alike.values())
    where = " and ".join(f"{port} ({alike[port][0]})" for port in worst)
    more = f" and {len(alike) - len(worst)} other ports" if len(alike) > len(worst) else ""
    options = " ".join(f"--port {port}" for port in worst)
    verb = "looks" if packets == 1 else "look"
    yield Finding(
        "",
        Role.FILE,
        "odd_port",
        Verdict.UNCLEAR,
        f"{packets_words(packets)} {verb} like VXLAN, on UDP {where}{more}, which was not read as such. Read it with "
        f"`fixer scan {options}`; `fixer on` and `fixer run` take it from `vxlan.ports` of the configuration.",
        packets,
        tally.frames,
        evidence=tuple(Fact(f"VXLAN by its shape, on UDP {port}", *alike[port]) for port in worst),
        cure=f"`fixer scan {options}`",
    )


def of_tunnels(tally: Tally) -> Iterator[Finding]:
    for name, packets in tunnels_among(tally.strangers).most_common(MOST_ROADS):
        knows = f": {TUNNELS[name]}" if TUNNELS[name] else ""
        text = f"{packets_words(packets)} of {name}, which is another tunnel than VXLAN{knows}."
        verdict = Verdict.HARMLESS if tally.total.vxlan else Verdict.UNCLEAR
        yield Finding(
            "", Role.FILE, "geneve" if name == "Geneve" else "other_tunnel", verdict, text, packets, tally.frames
        )
