"""What breaks packets, or looks as if it did, as data: what proves it, what it is not, who does it, and what cures it.

The datapath names a cause of a wrong outer checksum packet by packet, from what it has seen by then. In a file all
packets are there, so the name is given with hindsight, to all that it explains (`in_hindsight`). docs/causes.md is
made of this.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from fixer.datapath.diagnose import Diagnosis, Explanation, InnerState, OuterState
from fixer.findings.sender import Row, Sender

NO_OFFLOAD = "`ethtool -K VXLANDEV tx off` on the sender"
"""The kernel then sums the outer checksum itself, over a segment that it has finished."""

KUBE_PROXY = "kube-proxy and kubelet masquerade VXLAN only once since 1.16.14, 1.17.11, 1.18.8 and 1.19"
"""kubernetes#92035 and its backports: VXLAN keeps the mark of the packet inside, so that it was masqueraded again."""


SENDER_CURE = "`ethtool -K DEV tx-checksum-ip-generic off`"
"""DEV is the sender's NIC: the kernel then finishes every checksum itself before the packet leaves. A NIC without that
one has `tx-checksum-ipv4` and `-ipv6`; `tx off` is all of them."""

SEGMENTATION = "`ethtool -K DEV tx-udp_tnl-segmentation off tx-udp_tnl-csum-segmentation off`"
"""vmxnet3 gives up all that it does inside tunnels with these, checksums as well (vmxnet3_disable_encap_offloads)."""

MTU_CURE = (
    "give every VXLAN device and pod an MTU of 50 bytes less than the smallest MTU of the underlay, 70 over IPv6 "
    "(`ip link set VXLANDEV mtu 1450` where that is 1500)"
)


class Cause(NamedTuple):
    """``what`` stands behind "because"; ``cure`` is for whoever can change the sender or the hop."""

    what: str
    cure: str
    kernel: str = ""
    """Which ones do it, and the commit that mended them."""
    proof: str = ""
    """What has to be seen before it is called that."""
    unlike: str = ""
    """What looks the same, and by what it is told apart."""
    drivers: str = ""
    platforms: tuple[tuple[str, str], ...] = ()
    """Where it is met, and what cures it there."""
    meanwhile: str = ""
    """What `fixer run` does until it is cured."""


RIGHTS = "rights the outer checksum once its pair of VTEPs has shown its envelope or its regime"

UNFINISHED = Cause(
    "the sender's kernel left the checksum to a NIC or hypervisor that does not compute it inside a tunnel",
    f"{SENDER_CURE} for its NIC",
    proof="the field is the sum of its pseudo-header, and the packet was sent again and never answered behind the NIC: "
    "marked as incoming, beside finished packets of the same sender, or where `--taken-on` says",
    unlike="before the sender's NIC, between the ends of a veth, on loopback, and in what GRO or LRO merged every "
    "checksum "
    "is unfinished: the other side acknowledges it. Segmentation alone at fault, so that SYNs and short segments are "
    "finished and what TSO cut is not, has no name of its own: no report shows it (weave#3887, cited for it, could not "
    "open a connection), and the cure is the same: without checksums the kernel takes no TSO from a device",
    drivers="vmxnet3 (VMware's virtual hardware 14 and newer), virtio and others that promise `tx-checksum-ip-generic`",
    platforms=(
        ("Docker Swarm", f"{SENDER_CURE} on every node; or another `--data-path-port`"),
        (
            "flannel, Calico, Cilium",
            f"{SENDER_CURE} on the node's NIC or on `flannel.1`, `vxlan.calico`, `cilium_vxlan`",
        ),
        (
            "VMware ESXi",
            f"{SENDER_CURE}, or a port that is neither 4789 nor 8472 (vmxnet3 before Linux 5.14: one of them)",
        ),
        (
            "Weave fastdp on vmxnet3",
            f"{SEGMENTATION}: the driver then leaves nothing inside a tunnel to the NIC, and all else stays",
        ),
        ("Open vSwitch, userspace", "`ethtool -K eth0 tx off` in every container, where its network is set up"),
    ),
    meanwhile="finishes the inner checksum, then the outer one; the payload stays unverified",
)
NEVER_COMPUTED = Cause(
    "nobody ever computed the checksum: the field is 0000",
    "mend what generates these packets, or turn off the offload that should have finished them "
    "(`ethtool -K DEV tx off`)",
    proof="a field of 0000 where zero does not mean none, and wrong",
    unlike="damage, which leaves any value; UDP over IPv4, where 0000 means that there is none",
    meanwhile="drops it, as corrupt",
)
CORRUPT = Cause(
    "the packet was damaged before encapsulation or on the way",
    "look at the links, NICs and memory between",
    proof="the inner checksum is wrong, and neither its pseudo-header's sum nor 0000",
    unlike="an unfinished checksum that a NAT hop has rewritten: the same VTEP sends unfinished ones, too",
    meanwhile="drops it",
)
OUTER_IP_HEADER = Cause(
    "the outer IPv4 header's own checksum is wrong",
    "find the hop that writes or damages that header: capture before and behind it, and `fixer compare` the two",
    proof="the header's sum",
    unlike="a wrong UDP checksum, which a receiver's kernel looks at later",
    meanwhile="never gets it: the receiver's kernel drops it before any rule",
)
ABSENT6 = Cause(
    "the sender makes no outer checksum, which over IPv6 only some receivers take (RFC 6935)",
    "make the receiver's VXLAN device with udp6zerocsumrx, or the sender's without udp6zerocsumtx",
    proof="outer checksum zero over IPv6, and packets in it that are sent again and never answered",
    unlike="zero over IPv4, which means none; a receiver with udp6zerocsumrx: it answers",
    platforms=(("Gluon, batman-adv", "`udp6zerocsumrx` on every VXLAN device, or outer checksums on"),),
    meanwhile='computes it with `policy.outer_absent6 = "repair"`',
)
MTU = Cause(
    "an MTU is too large for the way: long packets are lost, short ones are not",
    MTU_CURE,
    proof="segments of 512 bytes and more that are sent again at least three times and never acknowledged, while "
    "shorter "
    "ones are and the other side is heard; or the same with the underlay's fragments, or ICMP that says so",
    unlike="unfinished checksums, which hit short segments too; loss, of which as long a segment gets through in the "
    "end; "
    "a filter by port in the capture, which leaves out all fragments but the first",
    platforms=(
        ("Docker Swarm", "`com.docker.network.driver.mtu` of the overlay network"),
        ("Kubernetes", "the CNI's MTU: `Backend.MTU` of flannel, `mtu` of Calico and Cilium"),
        ("clouds", "GCE has 1460 on the underlay, VPNs less"),
    ),
    meanwhile="nothing: no checksum is wrong",
)
UNANSWERED = Cause(
    "nothing answers sound questions: they or their answers are lost, or not in this capture",
    "what a second capture on the other host shows, with `fixer compare`",
    proof="ARP, SYNs, pings and DNS queries, two at least, and not one answer between those two VTEPs",
    unlike="unfinished checksums, which are not sound; one closed port beside others that answer",
    platforms=(
        ("VMware ESXi", "takes UDP 4789 for itself where NSX is prepared: another VXLAN port"),
        ("VMware NSX", "takes UDP 8472: another VXLAN port"),
        ("clouds", "the security group must let the VXLAN port pass between the nodes"),
    ),
    meanwhile="nothing",
)

WRONG_OUTER = {
    Explanation.FIELD_FFFF: Cause(
        "its NAT turned a zero checksum into ffff, as nf_nat does on kernels before 5.7, 5.4.41 and 4.19.123",
        f"a newer kernel where the NAT is (ea64d8d6c675); {KUBE_PROXY}; until then {NO_OFFLOAD}",
        "before 5.7, 5.4.41 and 4.19.123 (ea64d8d6c675)",
        proof="the field is ffff in differing packets",
        unlike="damage: a field of ffff once in 65,536",
        platforms=(("Kubernetes", "kube-proxy that masquerades once, or a sender that sums: see the cure"),),
        meanwhile=RIGHTS,
    ),
    Explanation.SAME_FIELD: Cause(
        'a NAT or middlebox "updated" a zero checksum: differing packets have one field',
        "keep VXLAN out of that NAT, or let the sender sum (`ip link set … udpcsum`, where the VXLAN device is made)",
        proof="one field in packets that differ inside",
        unlike="complete inner segments of one length in a flow, which have one field as well: theirs verifies",
        meanwhile=RIGHTS,
    ),
    Explanation.SAME_ERROR: Cause(
        "addresses were rewritten behind the checksum and not folded in: one error in every flow",
        "keep VXLAN out of that NAT (ESP in transport mode behind NAT does it too)",
        proof="field and right checksum differ by one number in all flows of a pair",
        unlike="a NIC that computes it wrongly: its errors differ",
        platforms=(("Docker Swarm, encrypted overlays behind NAT", "make the VXLAN devices with `noudpcsum`"),),
        meanwhile=RIGHTS,
    ),
    Explanation.FLOW_ERROR: Cause(
        "a NAT rewrote the port and did not fold it in: one error in each flow",
        f"keep VXLAN out of that NAT; {KUBE_PROXY}; or {NO_OFFLOAD}",
        "4.6 and newer, 6.18 included: nf_nat does not fold the port into an outer checksum made by LCO",
        proof="one number in all packets of an outer flow, another one in each flow",
        unlike="rewritten addresses: the same number in every flow",
        meanwhile=RIGHTS,
    ),
    Explanation.IMPLIED_PORTS: Cause(
        "a NAT rewrites the port of each packet (MASQUERADE --random-fully) and does not fold it in",
        f"keep VXLAN out of that NAT; {KUBE_PROXY}; or {NO_OFFLOAD}",
        "4.6 and newer, 6.18 included: nf_nat does not fold the port into an outer checksum made by LCO",
        proof="the old ports that the errors imply all lie in the sender's ephemeral range",
        unlike="a NIC that adds a little: what its errors imply lies where the source port lies anyway",
        meanwhile=RIGHTS,
    ),
    Explanation.SYSTEMATIC: Cause(
        "whoever sums it does so wrongly, in every packet: the sender's NIC, or a middlebox that rewrites packets",
        f"{NO_OFFLOAD}, or its NIC's firmware and driver; if that changes nothing, capture behind each hop",
        proof="no outer of the pair verifies, the inner segments do, and the errors fit no NAT",
        unlike="damage: some outers of the pair verify",
        drivers="ice, i40e (X710)",
        meanwhile=RIGHTS,
    ),
    Explanation.SINGLE_DAMAGE: Cause(
        "they were damaged on the way, for other outer checksums of this VTEP are right",
        "look at the links, NICs and memory between",
        proof="outers of the same pair verify",
        unlike="NAT or a NIC, which spare none",
        meanwhile="rights it if the inner segment verifies in an envelope that is known: nothing else can be damaged; "
        "else it passes, as it came",
    ),
    Explanation.UNEXPLAINED: Cause(
        "of damage on the way or of NAT: too few packets to tell which",
        "capture more of them",
        proof="nothing yet",
        meanwhile="lets it pass as it came",
    ),
}
CAUSES = {
    "unfinished": UNFINISHED,
    "never_computed": NEVER_COMPUTED,
    "corrupt": CORRUPT,
    "outer_ip_header": OUTER_IP_HEADER,
    "outer_zero_over_ipv6": ABSENT6,
    **{f"outer_{name.name.lower()}": cause for name, cause in WRONG_OUTER.items()},
    "mtu": MTU,
    "unanswered": UNANSWERED,
}
"""By what findings call them."""

BY_RANK = tuple(WRONG_OUTER)[:6]
WRONG_DIAGNOSES = (Diagnosis.OUTER_STALE, Diagnosis.STALE_UNFINISHED, Diagnosis.OUTER_WRONG)


def in_hindsight(sender: Sender) -> dict[Row, Explanation]:
    """The cause of each kind of a sender's packets whose outer checksum is wrong and whose inner one is not.

    Where one cause of BY_RANK explains most of them, it explains all that came before it was seen; if none of the
    sender's outers verifies, that is an unfinished inner under a wrong outer too. What has another name keeps it.
    """
    broken = not any(row.outer in (OuterState.GOOD, OuterState.AGREES) for row in sender.rows)
    wrong = [
        row
        for row in sender.rows
        if row.diagnosis in WRONG_DIAGNOSES
        or (broken and row.outer is OuterState.WRONG and row.inner is InnerState.PARTIAL)
    ]
    named: Counter[Explanation] = Counter()
    for row in wrong:
        named[row.explanation] += sender.rows[row].count
    most = max(BY_RANK, key=lambda cause: named[cause])
    if named[most] == 0 or (not broken and 2 * named[most] <= named.total()):
        return {row: row.explanation for row in wrong if row.diagnosis in WRONG_DIAGNOSES}
    return {row: most if row.explanation not in BY_RANK or broken else row.explanation for row in wrong}
