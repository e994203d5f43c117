"""What the datapath's enumerators are called in front of people: one table each, complete (a test holds that)."""

from __future__ import annotations

from fixer.datapath.diagnose import Diagnosis, Explanation, InnerState, OuterState, Vouch
from fixer.datapath.repair import Action
from fixer.datapath.walk import Reason

DIAGNOSES = {
    Diagnosis.SOUND: "sound",
    Diagnosis.INNER_UNFINISHED: "inner checksum never finished",
    Diagnosis.OUTER_UNFINISHED: "outer checksum never finished",
    Diagnosis.BOTH_UNFINISHED: "inner and outer checksum never finished",
    Diagnosis.OUTER_STALE: "outer checksum wrong, the packet vouched for",
    Diagnosis.STALE_UNFINISHED: "outer checksum wrong as its pair's are, inner never finished",
    Diagnosis.OUTER_WRONG: "outer checksum wrong, nobody vouches for the packet",
    Diagnosis.CORRUPT: "corrupt",
    Diagnosis.UNCHECKABLE: "cannot be checked",
    Diagnosis.OUTER_IP_WRONG: "outer IP header checksum wrong",
    Diagnosis.OUTER_ABSENT6: "outer checksum zero over IPv6",
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
    Reason.NOT_IP: "no IP inside: MPLS, PPPoE or another EtherType that is not looked into",
    Reason.NEVER_COMPUTED: "the field is 0000: nobody ever computed it",
    Reason.MERGED_BY_NIC: "merged by a NIC (LRO): the checksum is that of the first segment",
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
    Explanation.SAME_FIELD: "a middlebox updated a zero checksum: differing packets of this VTEP pair have one field",
    Explanation.SAME_ERROR: "addresses were rewritten and not folded in: one error in all flows of this VTEP pair",
    Explanation.FLOW_ERROR: "a NAT changed port or addresses and did not fold it in: one error in this flow",
    Explanation.IMPLIED_PORTS: "a NAT changes each packet's port and does not fold it in: all imply an ephemeral one",
    Explanation.SYSTEMATIC: "no outer checksum of this VTEP pair is right: computed wrongly, by its NIC or a middlebox",
    Explanation.SINGLE_DAMAGE: "other outer checksums of this VTEP pair are right: damage on the way",
}
"""What made an outer checksum wrong."""

VOUCHES = {
    Vouch.NOBODY: "",
    Vouch.ENVELOPE: "the inner segment verifies, and its VTEP pair is known to use this envelope",
    Vouch.REGIME: "the pair's other packets are wrong in the same way; nothing vouches for the payload",
    Vouch.OPERATOR: "the configuration takes it for enough (policy.stale or vxlan.vnis)",
}
"""Why a wrong outer checksum is righted all the same."""

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
    OuterState.ZERO6: "absent",
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
