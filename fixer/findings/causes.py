"""What makes outer checksums wrong, as data: what is said of it, and what cures it for good.

The datapath names a cause packet by packet, from what it has seen by then. In a file all packets are there, so the name
is given with hindsight, to all that it explains (`in_hindsight`).
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from fixer.datapath.diagnose import Diagnosis, Explanation, InnerState, OuterState
from fixer.findings.sender import Row

NO_OFFLOAD = "`ethtool -K VXLANDEV tx off` on the sender"
"""The kernel then sums the outer checksum itself, over a segment that it has finished."""

KUBE_PROXY = "kube-proxy and kubelet masquerade VXLAN only once since 1.16.14, 1.17.11, 1.18.8 and 1.19"
"""kubernetes#92035 and its backports: VXLAN keeps the mark of the packet inside, so that it was masqueraded again."""


class Cause(NamedTuple):
    """``what`` stands behind "because"; ``cure`` is for whoever can change the sender or the hop."""

    what: str
    cure: str
    kernel: str = ""
    """Which ones do it, and the commit that mended them."""


WRONG_OUTER = {
    Explanation.FIELD_FFFF: Cause(
        "its NAT turned a zero checksum into ffff, as nf_nat does on kernels before 5.7, 5.4.41 and 4.19.123",
        f"such a kernel (ea64d8d6c675); {KUBE_PROXY}; until then {NO_OFFLOAD}",
        "before 5.7, 5.4.41 and 4.19.123 (ea64d8d6c675)",
    ),
    Explanation.SAME_FIELD: Cause(
        'a NAT or middlebox "updated" a zero checksum: differing packets have one field',
        "keep VXLAN out of that NAT, or let the sender sum (`ip link set … udpcsum`, where the VXLAN device is made)",
    ),
    Explanation.SAME_ERROR: Cause(
        "addresses were rewritten behind the checksum and not folded in: one error in every flow",
        "keep VXLAN out of that NAT (ESP in transport mode behind NAT does it too)",
    ),
    Explanation.FLOW_ERROR: Cause(
        "a NAT rewrote the port and did not fold it in: one error in each flow",
        f"keep VXLAN out of that NAT; {KUBE_PROXY}; or {NO_OFFLOAD}",
    ),
    Explanation.IMPLIED_PORTS: Cause(
        "a NAT rewrites the port of each packet (MASQUERADE --random-fully) and does not fold it in",
        f"keep VXLAN out of that NAT; {KUBE_PROXY}; or {NO_OFFLOAD}",
    ),
    Explanation.SYSTEMATIC: Cause(
        "whoever sums it does so wrongly, in every packet: the sender's NIC, or a middlebox that rewrites packets",
        f"{NO_OFFLOAD}, or its NIC's firmware and driver; if that changes nothing, capture behind each hop",
    ),
    Explanation.SINGLE_DAMAGE: Cause(
        "they were damaged on the way, for other outer checksums of this VTEP are right",
        "look at the links, NICs and memory between",
    ),
    Explanation.UNEXPLAINED: Cause(
        "of damage on the way or of NAT: too few packets to tell which",
        "capture more of them",
    ),
}
BY_RANK = tuple(WRONG_OUTER)[:6]
WRONG_DIAGNOSES = (Diagnosis.OUTER_STALE, Diagnosis.STALE_UNFINISHED, Diagnosis.OUTER_WRONG)


def in_hindsight(rows: Counter[Row]) -> dict[Row, Explanation]:
    """The cause of each kind of packets of one sender whose outer checksum is wrong and whose inner one is not.

    Where one cause of BY_RANK explains most of them, it explains all that came before it was seen; if none of the
    sender's outers verifies, that is an unfinished inner under a wrong outer too. What has another name keeps it.
    """
    broken = not any(row.outer in (OuterState.GOOD, OuterState.AGREES) for row in rows)
    wrong = [
        row
        for row in rows
        if row.diagnosis in WRONG_DIAGNOSES
        or (broken and row.outer is OuterState.WRONG and row.inner is InnerState.PARTIAL)
    ]
    named: Counter[Explanation] = Counter()
    for row in wrong:
        named[row.explanation] += rows[row]
    most = max(BY_RANK, key=lambda cause: named[cause])
    if named[most] == 0 or (not broken and 2 * named[most] <= named.total()):
        return {row: row.explanation for row in wrong if row.diagnosis in WRONG_DIAGNOSES}
    return {row: most if row.explanation not in BY_RANK or broken else row.explanation for row in wrong}
