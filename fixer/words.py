"""What the datapath's enumerators are called in front of people: one table each, complete (a test holds that)."""

from __future__ import annotations

from fixer.datapath.diagnose import Diagnosis, InnerState, OuterState
from fixer.datapath.evidence import Explanation
from fixer.datapath.repair import Action
from fixer.datapath.walk import Reason

DIAGNOSES = {
    Diagnosis.SOUND: "sound",
    Diagnosis.INNER_UNFINISHED: "inner checksum never finished",
    Diagnosis.OUTER_UNFINISHED: "outer checksum never finished",
    Diagnosis.BOTH_UNFINISHED: "inner and outer checksum never finished",
    Diagnosis.OUTER_STALE: "outer checksum stale behind NAT",
    Diagnosis.STALE_UNFINISHED: "outer checksum stale behind NAT, inner never finished",
    Diagnosis.OUTER_WRONG: "outer checksum wrong, unexplained",
    Diagnosis.CORRUPT: "corrupt",
    Diagnosis.UNCHECKABLE: "cannot be checked",
}

REASONS = {
    Reason.NONE: "",
    Reason.TRUNCATED: "the copy is cut short",
    Reason.SUPER_PACKET: "a super-packet merged by GRO or GSO",
    Reason.DEVICE_VERIFIED: "a device says it has verified it",
    Reason.OTHER_TRAFFIC: "not UDP to a VXLAN port",
    Reason.GENEVE: "Geneve",
    Reason.OUTER_UNREADABLE: "the underlay's headers cannot be read",
    Reason.OUTER_FRAGMENT: "a fragment of the underlay",
    Reason.NOT_VXLAN: "a VXLAN port, but no VXLAN header",
    Reason.GPE: "VXLAN-GPE",
    Reason.REMOTE_CHECKSUM: "Remote Checksum Offload",
    Reason.NO_IP: "no IP inside (ARP and the like)",
    Reason.INNER_FRAGMENT: "an inner fragment",
    Reason.OTHER_PROTOCOL: "an inner protocol without a checksum of its own",
    Reason.NO_CHECKSUM: "inner UDP without a checksum",
    Reason.INNER_ETHERNET: "the inner Ethernet header cannot be read",
    Reason.INNER_IP: "the inner IP header cannot be read",
    Reason.INNER_TRANSPORT: "the inner transport header cannot be read",
    Reason.SOURCE_ROUTE: "a source route that is not followed",
    Reason.EXTENSION_HEADERS: "too many IPv6 extension headers",
}

PLAIN_DIAGNOSES = DIAGNOSES | {Diagnosis.INNER_UNFINISHED: "checksum never finished"}
"""Of packets without a tunnel, which have one layer."""

PLAIN_REASONS = REASONS | {
    Reason.INNER_FRAGMENT: "a fragment",
    Reason.OTHER_PROTOCOL: "a protocol without a checksum of its own",
    Reason.NO_CHECKSUM: "UDP without a checksum",
    Reason.INNER_IP: "the IP header cannot be read",
    Reason.INNER_TRANSPORT: "the transport header cannot be read",
}

EXPLANATIONS = {
    Explanation.UNEXPLAINED: "",
    Explanation.FIELD_FFFF: "nf_nat on a kernel before 5.7 turned a zero checksum into ffff",
    Explanation.SAME_FIELD: "a NAT updated a zero checksum: differing packets of this VTEP pair have the same field",
    Explanation.SAME_ERROR: "a NAT changed a port or address without folding it in: the error is constant in this flow",
    Explanation.INNER_VERIFIES: 'the inner segment verifies, which policy.stale = "inner-verifies" takes for enough',
}

INNER_STATES = {
    InnerState.VERIFIES: "good",
    InnerState.PARTIAL: "partial",
    InnerState.WRONG: "wrong",
    InnerState.NONE: "none",
    InnerState.ABSENT: "absent",
    InnerState.UNCHECKABLE: "uncheckable",
}

OUTER_STATES = {
    OuterState.GOOD: "good",
    OuterState.AGREES: "agrees",
    OuterState.ZERO: "absent",
    OuterState.PARTIAL: "partial",
    OuterState.STALE: "stale",
    OuterState.WRONG: "wrong",
    OuterState.UNCHECKABLE: "uncheckable",
    OuterState.NO_TUNNEL: "none",
}

ACTIONS = {
    Action.PASS: "passed",
    Action.REPAIR: "repaired",
    Action.DROP: "dropped",
}

TRANSPORTS = {1: "icmp", 6: "tcp", 17: "udp", 58: "ipv6-icmp"}
"""IANA protocol numbers of the checksums that are judged, by the keywords ECS uses."""


def diagnosis_words(diagnosis: Diagnosis, outer: OuterState) -> str:
    return (PLAIN_DIAGNOSES if outer is OuterState.NO_TUNNEL else DIAGNOSES)[diagnosis]


def reason_words(reason: Reason, outer: OuterState) -> str:
    return (PLAIN_REASONS if outer is OuterState.NO_TUNNEL else REASONS)[reason]
