# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
from libc.stdint cimport uint64_t

from fixer.datapath.diagnose import Diagnosis, InnerState, OuterState
from fixer.datapath.diagnose import Explanation, Vouch
from fixer.datapath.repair import Action
from fixer.datapath.walk import Reason
from fixer.datapath.wire cimport address_text


cdef class Result:
    """What became of one packet (`examine`), or one event of the ring (`drain`). Numbers are host numbers."""

    @property
    def alike(self):
        """Of all results that say the same of their checksums, and of what was or would be done, the same number."""
        return (<uint64_t>self.event.judgement.diagnosis | <uint64_t>self.event.judgement.inner << 8
                | <uint64_t>self.event.judgement.outer << 16 | <uint64_t>self.event.judgement.reason << 24
                | <uint64_t>self.event.judgement.explanation << 32 | <uint64_t>self.event.would << 40
                | <uint64_t>self.event.judgement.unverified << 48)

    @property
    def when_ns(self): return self.event.when
    @property
    def left_out(self): return self.event.left_out
    @property
    def summary(self): return bool(self.event.summary)
    @property
    def inner(self): return InnerState(self.event.judgement.inner)
    @property
    def outer(self): return OuterState(self.event.judgement.outer)
    @property
    def diagnosis(self): return Diagnosis(self.event.judgement.diagnosis)
    @property
    def reason(self): return Reason(self.event.judgement.reason)
    @property
    def explanation(self): return Explanation(self.event.judgement.explanation)
    @property
    def vouch(self): return Vouch(self.event.judgement.vouch)
    @property
    def unverified(self): return bool(self.event.judgement.unverified)
    @property
    def action(self): return Action(self.event.action)
    @property
    def would(self): return Action(self.event.would)
    @property
    def inner_found(self): return self.event.judgement.inner_found
    @property
    def inner_right(self): return self.event.judgement.inner_right
    @property
    def outer_found(self): return self.event.judgement.outer_found
    @property
    def outer_right(self): return self.event.judgement.outer_right
    @property
    def vxlan(self): return bool(self.event.tunnel)
    @property
    def length(self): return self.event.length
    @property
    def vni(self): return self.event.vni
    @property
    def vlan(self): return None if self.event.vlan < 0 else self.event.vlan
    @property
    def outer_source(self): return address_text(self.event.outer.version, self.event.outer.source)
    @property
    def outer_destination(self): return address_text(self.event.outer.version, self.event.outer.destination)
    @property
    def outer_source_port(self): return self.event.outer.source_port
    @property
    def outer_destination_port(self): return self.event.outer.destination_port
    @property
    def inner_source(self): return address_text(self.event.inner.version, self.event.inner.source)
    @property
    def inner_destination(self): return address_text(self.event.inner.version, self.event.inner.destination)
    @property
    def inner_source_port(self): return self.event.inner.source_port
    @property
    def inner_destination_port(self): return self.event.inner.destination_port
    @property
    def inner_version(self): return self.event.inner.version
    @property
    def inner_protocol(self): return self.event.inner.protocol
    @property
    def inner_tcp_flags(self): return self.event.inner.tcp_flags

    def __repr__(self):
        return (f"<Result {self.diagnosis.name} inner {self.inner.name} outer {self.outer.name} "
                f"reason {self.reason.name} → {self.action.name}>")
