# cython: language_level=3
"""What is remembered so that a wrong outer checksum may be righted: fixed memory, every operation O(1).

Not why the outer checksum is wrong decides, but what could be damaged if it is. Where the inner IP header and the inner
segment verify, everything is vouched for but the *envelope* (VXLAN header, inner MACs and tags; an EtherType that leads
to a header which verifies is right), and what nobody reads: the UDP source port, the checksum field, and of an inner
IPv6 header class, flow label and hop limit. A wrong outer over a verifying inner is righted if its envelope is one that
its pair of VTEPs is known to use: a damaged envelope is one that nobody has seen. Known is an envelope that was seen

* on DIFFERING differing packets under an outer that verifies, and on no fewer than 1 in RARELY of all it was seen on (a
  damaged one that comes again and again verifies by chance once in 65,536);
* or on as many whose inner verifies under an outer that nobody summed (zero or unfinished), or under a wrong one while
  the pair is *broken*: while fewer than 1 in RARELY of its outers verify. But not if another one is seen between
  the same two inner addresses, more than once in CLEARLY packets of this one: one of them is a memory cell that flips
  the same bit now and then.

And never if it was seen lately in use from another VTEP: a damaged outer address, or somebody who spoofs one.

A pair's first envelope is its *main* one and serves all inner addresses (flannel and Calico have one for each pair of
nodes). Once another is in use (Swarm: one for each pair of containers), one that belongs to some inner addresses says
nothing about others, for damage can turn one into another: from then on each is asked for with the inner addresses.

Where no inner checksum vouches (unfinished, or none) the *regime* of the pair does, and only while it is broken: an
error or a field that repeats whatever the ports are, or old ports that all come from one range.

What is displaced counts as *verifies*, not as *never seen*: a pair that had no room, or comes back into a set where one
had to go, is not broken until much more shows that it is.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fixer.datapath.diagnose cimport Judgement
from fixer.datapath.memory cimport Evidence
from fixer.datapath.walk cimport Walk


cdef Evidence *evidence_new(uint64_t seed) except NULL
cdef void evidence_free(Evidence *memory) noexcept
cdef void know_vni(Evidence *memory, uint32_t vni) noexcept nogil
cdef void know_vnis_of(Evidence *memory, const Evidence *other) noexcept nogil
cdef void weigh(Evidence *memory, const uint8_t *packet, const Walk *walk, Judgement *judgement, bint on_sight,
                uint32_t now) noexcept nogil
