"""Every field that a document of the log can have: its name, its type, and what it says.

The one list: the index template, the shippers' configurations, the dashboards and docs/fields.md are made from it
(``python -m deploy``), and a test holds it against what the code tells. Types are Elasticsearch's. The daemon never
reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Literal, NamedTuple

from fixer.datapath.diagnose import Diagnosis, Explanation, InnerState, OuterState, Vouch
from fixer.datapath.repair import Action
from fixer.datapath.timestamps import Outcome
from fixer.datapath.walk import Reason

Type = Literal["keyword", "match_only_text", "constant_keyword", "date", "ip", "long", "float", "boolean", "object"]


class Field(NamedTuple):
    """``name`` is dotted. A keyword may be of a list."""

    name: str
    type: Type
    words: str


ECS = (
    Field("@timestamp", "date", "when it happened; of a packet, when it arrived"),
    Field("message", "match_only_text", "the event in one line"),
    Field("ecs.version", "keyword", "the schema's version"),
    Field("log.level", "keyword", "`info`, `warning`, `error`"),
    Field("labels", "object", "`log.labels` of the configuration"),
    Field("tags", "keyword", "`log.tags` of the configuration"),
    Field("host.name", "keyword", "the host that tells, as it calls itself"),
    Field("service.name", "keyword", "`fixer`"),
    Field("service.version", "keyword", "fixer's version"),
    Field("data_stream.type", "constant_keyword", "`logs`"),
    Field("data_stream.dataset", "constant_keyword", "as `event.dataset`"),
    Field("data_stream.namespace", "constant_keyword", "`log.namespace` of the configuration"),
    Field("event.module", "keyword", "`fixer`"),
    Field("event.dataset", "keyword", "what the event is about, see the events"),
    Field("event.action", "keyword", "what happened, see the events"),
    Field("event.kind", "keyword", "`event`, or `alert`: somebody should look"),
    Field("event.category", "keyword", "ECS's category of the data set"),
    Field("event.type", "keyword", "ECS's types of the event"),
    Field("event.outcome", "keyword", "`success` or `failure`"),
    Field("event.reason", "keyword", "a packet's diagnosis in words; of a rule, what its operator gave as reason"),
    Field("event.id", "keyword", "the document's: the same line has the same id, however often it is sent"),
    Field("event.sequence", "long", "the line's number in its process's log; a gap is a line that was lost"),
    Field("event.start", "date", "when a finding was opened"),
    Field("event.end", "date", "when it last grew, once it is closed"),
    Field("event.duration", "long", "nanoseconds between the two"),
    Field("process.pid", "long", "of the daemon; of a lost rule, of who changed the ruleset"),
    Field("process.exit_code", "long", "what the daemon ended with, where it could not serve"),
    Field("process.name", "keyword", "who changed the ruleset"),
    Field("user.name", "keyword", "who wanted the rule on or off"),
    Field("related.user", "keyword", "every name that this person goes by here"),
    Field("related.ip", "ip", "whom a finding is about, where that is an address"),
    Field("source.ip", "ip", "of the inner flow, the one an application sees"),
    Field("source.port", "long", ""),
    Field("destination.ip", "ip", "of the inner flow"),
    Field("destination.port", "long", ""),
    Field("network.type", "keyword", "`ipv4`, `ipv6`: of the inner flow"),
    Field("network.transport", "keyword", "`tcp`, `udp`, `icmp`, `ipv6-icmp`"),
    Field("network.iana_number", "keyword", "the inner protocol's number"),
    Field("network.inner.vlan.id", "keyword", "of the inner frame's VLAN tag"),
)
"""The fields of the Elastic Common Schema that are used, with its types."""

PACKET = (
    Field("fixer.diagnosis", "keyword", "what is wrong, by its name in the configuration"),
    Field("fixer.policy", "keyword", "what the policy says, whether or not `monitor` kept it from being done"),
    Field("fixer.reason", "keyword", "why a layer could not be judged, or that its checksum was never computed"),
    Field("fixer.explanation", "keyword", "what made an outer checksum wrong, as far as that is known"),
    Field("fixer.vouch", "keyword", "why a wrong outer checksum may be righted all the same"),
    Field("fixer.inner.state", "keyword", "`good`, `partial`, `absent`, `wrong`, `uncheckable`, `none`"),
    Field("fixer.inner.checksum.found", "keyword", "four hexadecimal digits, as tcpdump prints them"),
    Field("fixer.inner.checksum.right", "keyword", ""),
    Field("fixer.outer.state", "keyword", "`good`, `partial`, `absent`, `wrong`, `uncheckable`, `agrees`, `stale`"),
    Field("fixer.outer.checksum.found", "keyword", ""),
    Field("fixer.outer.checksum.right", "keyword", ""),
    Field("fixer.payload.verified", "boolean", "false: nothing vouches for the payload of this repair"),
    Field("fixer.packet.bytes", "long", "from its first IP header on"),
    Field("fixer.packets_left_out", "long", "events of this kind that were not told before this one"),
    Field("fixer.vni", "long", "the tunnel's VNI"),
    Field("fixer.vtep.source.ip", "ip", "who sent it over the underlay"),
    Field("fixer.vtep.source.port", "long", ""),
    Field("fixer.vtep.destination.ip", "ip", ""),
    Field("fixer.vtep.destination.port", "long", ""),
)

DAEMON = (
    Field("fixer.queue", "long", "the queues that are served"),
    Field("fixer.timestamps.mode", "keyword", "`off`, `strip`, `normalise`"),
    Field("fixer.monitor", "boolean", "whether nothing is changed"),
    Field("fixer.plain", "boolean", "whether packets without a tunnel are judged"),
    Field("fixer.ports", "long", "UDP ports that are read as VXLAN"),
    Field("fixer.fail_open", "boolean", "whether a full queue lets packets pass"),
    Field("fixer.gso", "boolean", "whether merged packets come whole"),
    Field("fixer.changed", "keyword", "keys of the configuration that a reload changed"),
    Field("fixer.log.lost", "long", "lines that could not be written since the last one that could"),
)

RULE = (
    Field("fixer.rule.login", "keyword", "who has logged in, where that is another name"),
    Field("fixer.rule.sudo", "keyword", "who has called sudo"),
    Field("fixer.rule.since", "date", "since when it has been wanted"),
    Field("fixer.rule.until", "date", "when it ends"),
    Field("fixer.rule.seconds", "long", "for how long it has been on"),
    Field("fixer.rule.packets.before.ipv4", "long", "what it had counted before"),
    Field("fixer.rule.packets.before.ipv6", "long", ""),
    Field("fixer.rule.packets.after.ipv4", "long", "and what after"),
    Field("fixer.rule.packets.after.ipv6", "long", ""),
    Field("fixer.rule.lost", "keyword", "`gone`, `twice`, `not last`, `changed`, `leftover`"),
)

FINDING = (
    Field("fixer.finding.id", "keyword", "one for each, from its opening to its end"),
    Field("fixer.finding.who", "keyword", "address of the VTEP or plain sender"),
    Field("fixer.finding.role", "keyword", "`vtep`, `host`, `path`"),
    Field("fixer.finding.cause", "keyword", "what is wrong ([findings](findings.md))"),
    Field("fixer.finding.verdict", "keyword", "`fault`, `unclear`, `harmless`"),
    Field("fixer.finding.packets", "long", "packets that show it, since it was opened"),
    Field("fixer.finding.of", "long", "of so many of that sender"),
    Field("fixer.finding.vnis", "long", "in which tunnels"),
    Field("fixer.finding.taken", "keyword", "where it was seen, as far as that is known"),
    Field("fixer.finding.evidence", "keyword", "what shows it"),
    Field("fixer.finding.cure", "keyword", "what ends it"),
    Field("fixer.finding.kernel", "keyword", "kernels that have it, and the commit that mended it"),
    Field("fixer.finding.samples", "keyword", "the file with some of its packets, as they came and as they left"),
    Field("fixer.finding.left_out", "long", "findings that were not told"),
)

SNAT = (
    Field("fixer.snat.suspect", "keyword", "`several-clocks` or `random-offsets`"),
    Field("fixer.snat.clocks", "long", "clocks that ran at once: hosts that are there at least"),
    Field("fixer.snat.ticks_hz", "long", "at what rate each of them ticks"),
    Field("fixer.snat.more_possible", "boolean", "whether there was no room to remember more clocks"),
    Field("fixer.snat.syns", "long", "SYNs that were looked at"),
    Field("fixer.snat.syns_on_lines", "long", "of these, on a line with an earlier one"),
    Field("fixer.snat.syns_on_lines_by_chance", "float", "how many chance puts there"),
    Field("fixer.snat.refused_share", "float", "what share tcp_tw_recycle would refuse"),
)

TIMESTAMPS = (
    Field("fixer.timestamps.flows", "long", "connections that were found again"),
    Field("fixer.timestamps.normalised", "long", "of these, with a delta"),
    Field("fixer.timestamps.connections", "long", "connections that it is about"),
    Field("fixer.timestamps.used", "long", "entries of the flow table that are in use"),
    Field("fixer.timestamps.capacity", "long", "entries that there are"),
    Field("fixer.timestamps.source.ip", "ip", "whose replies do not come by"),
)

_TABLES: dict[str, type[IntEnum]] = {
    "inner": InnerState,
    "outer": OuterState,
    "diagnosis": Diagnosis,
    "action": Action,
    "would": Action,
    "reason": Reason,
    "vouch": Vouch,
    "explanation": Explanation,
    "timestamps": Outcome,
    "replies": Outcome,
}
"""Of ``Pipeline.counters()``: tables, and what they tell apart."""

_NUMBERS = {
    "packets": "packets that were looked at",
    "bytes": "and their bytes",
    "vxlan": "packets that are VXLAN",
    "unverified": "repairs whose payload nothing vouches for",
    "events_told": "packet events that went to the log",
    "events_left_out": "over the limit of `log.per_second`",
    "events_lost": "the log was too slow for them",
    "received": "packets that the kernel handed over",
    "sends": "system calls that carried verdicts",
    "batch_verdicts": "verdicts for several packets at once",
    "changed": "packets given back changed",
    "dropped": "packets dropped",
    "truncated": "copies shorter than their packet",
    "overruns": "times that the socket was full",
    "refused": "verdicts that the kernel refused",
    "unsent": "verdicts that could not be sent",
    "unreadable": "messages that could not be read",
}
"""Of ``Pipeline.counters()`` and ``Queue.counters()``."""

_FLOWS = {
    "capacity": "entries of the flow table",
    "used": "in use",
    "normalised": "connections with a delta",
    "draining": "whether it is being drained",
    "evicted": "half-open connections that gave way",
    "expired": "connections that were forgotten",
    "damaged": "entries that failed their check",
    "one_way": "connections whose replies were not seen",
}
"""Of ``Flows.counters()``."""


def counters() -> Iterator[Field]:
    """What the daemon has counted, as its last line tells it."""
    for name, words in _NUMBERS.items():
        yield Field(f"fixer.counters.{name}", "long", words)
    for name, apart in _TABLES.items():
        for each in apart:
            yield Field(f"fixer.counters.{name}.{each.name.lower()}", "long", "")
    for name, words in _FLOWS.items():
        yield Field(f"fixer.counters.flows.{name}", "boolean" if name == "draining" else "long", words)
    for name, words in _KERNEL.items():
        yield Field(f"fixer.counters.kernel.{name}", "long", words)
    for name, words in {"written": "lines of the log", "lost": "lines that could not be written"}.items():
        yield Field(f"fixer.counters.log.{name}", "long", words)


KERNEL = (
    Field("fixer.kernel.interfaces", "keyword", "where the program stands, or should"),
    Field("fixer.kernel.packets", "long", "how many packets of the VTEP the kernel has finished"),
)
_KERNEL = {
    "packets": "packets that the kernel finished at the daemon's word",
    "unknown": "left to the queue: no entry for that envelope, or its time was over",
    "sampled": "left to the queue, for the judge to see whether the fault goes on",
    "merged": "left, for GRO has merged it",
    "local": "left, for the kernel finishes it itself",
    "header_wrong": "left to the queue: an IPv4 header's own checksum is wrong",
    "outer_open": "left to the queue: only a sum over the payload can tell whether the outer checksum is right",
    "verifies": "left, for its pseudo-header's sum happens to be right",
    "too_long": "left to the queue: a longer segment than is summed",
    "refused": "left to the queue: the kernel let us not read or write it",
}
"""Of what `fixer.daemon.finishing` reports."""

OURS = {
    "fixer.packet": PACKET,
    "fixer.finding": (*FINDING, *SNAT),
    "fixer.rule": RULE,
    "fixer.kernel": KERNEL,
    "fixer.daemon": (*DAEMON, *counters()),
    "fixer.timestamps": TIMESTAMPS,
}
"""What lives under ``fixer.*``, by the data set that has it first."""

FIELDS = {field.name: field for field in (*ECS, *(field for several in OURS.values() for field in several))}
