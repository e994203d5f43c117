# cython: language_level=3
"""What is remembered to explain a stale outer checksum: fixed memory, every operation O(1).

A wrong outer over a sound inner is either an outer that was right until somebody rewrote addresses or ports (NAT), or
damage in the bytes only it covers (inner MACs, VXLAN header). NAT errs the same way in every packet of a flow; damage
does not, and it leaves the flow's other packets right. So two things are kept: *evidence*, how many differing packets
showed the same wrong field or the same error, and a *score* of how many packets of a flow verify, which speaks
against it.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fixer.datapath.diagnose cimport Judgement
from fixer.datapath.walk cimport Walk


cpdef enum Explanation:
    UNEXPLAINED = 0
    FIELD_FFFF              # nf_nat "updated" a zero checksum, address kept (fixed by linux ea64d8d6c675)
    SAME_FIELD              # the same field on differing packets of a VTEP pair: a zero checksum was "updated"
    SAME_ERROR              # right − field constant for an outer five-tuple: a port or address change not folded in
    INNER_VERIFIES          # the operator chose to trust a verifying inner segment


cdef enum:
    DIFFERING = 3           # packets that must show the same before it explains anything
    WAYS = 4
    EVIDENCE_SETS = 2048    # × WAYS entries of 32 bytes: 256 KiB
    EVIDENCE_SECONDS = 300
    FLOWS = 8192            # × 12 bytes: 96 KiB
    FLOW_SECONDS = 600
    SCORE_GOOD = 8          # a verifying packet outweighs this many wrong ones of its flow …
    SCORE_MOST = 256        # … up to this many in a row, so that a flow that NAT begins to break is explained at last
    VNI_BYTES = 0x200000    # one bit for each of 2^24 VNIs (touched pages only)


cdef struct Evidence:
    uint64_t key            # hash of (VTEP pair, field) or (five-tuple, error); 0: free
    uint64_t digest[DIFFERING - 1]
    uint32_t seen           # seconds
    uint8_t count


cdef struct Flow:
    uint32_t tag            # of the outer five-tuple
    uint32_t seen           # seconds
    uint32_t score


cdef struct History:
    uint64_t seed
    uint32_t turn
    Evidence evidence[EVIDENCE_SETS * WAYS]
    Flow flows[FLOWS]
    uint8_t vnis[VNI_BYTES]


cdef History *history_new(uint64_t seed) except NULL
cdef void history_free(History *history) noexcept
cdef void know_vni(History *history, uint32_t vni) noexcept nogil
cdef void remember(History *history, const uint8_t *packet, const Walk *walk, const Judgement *judgement,
                   uint32_t now) noexcept nogil
cdef Explanation explain(History *history, const uint8_t *packet, const Walk *walk, const Judgement *judgement,
                         uint32_t now) noexcept nogil
