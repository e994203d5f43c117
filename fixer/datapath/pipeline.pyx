# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
import time

cimport cython
from libc.string cimport memcpy, memset

from fixer.datapath.diagnose cimport (IN_WRONG, OUT_ZERO6, OUTER_ABSENT6, SKB_CHECKSUM_NOT_READY, SKB_GSO, SOUND,
                                      UNCHECKABLE, Judgement, Vouch, conclude, is_right_once_finished, is_unfinished,
                                      judge)
from fixer.datapath.diagnose import Diagnosis as DiagnosisName, InnerState, OuterState
from fixer.datapath.flows cimport Flows, sweep
from fixer.datapath.evidence cimport evidence_free, evidence_new, know_vni, know_vnis_of, weigh
from fixer.datapath.diagnose import Explanation as ExplanationName, Vouch as VouchName
from fixer.datapath.hash cimport seed_or_drawn
from fixer.datapath.repair cimport DROP, PASS, REPAIR, Stale, decide, mend
from fixer.datapath.repair import ALLOWED_ACTIONS, DEFAULT_ACTIONS, Action as ActionName, Stale as StaleName
from fixer.datapath.result cimport Result
from fixer.datapath.ring cimport describe, ring_free, ring_new, ring_settle, ring_take, ring_tell
from fixer.datapath.snat cimport PLAIN, snat_free, snat_new, snat_note, snat_sights
from fixer.datapath.timestamps cimport (MAX_SOURCES, Asked, Edit, Mode, Outcome, Timestamps, apply, consider, look,
                                        normalise, prepare)
from fixer.datapath.timestamps import Mode as ModeName, Outcome as OutcomeName
from fixer.datapath.unfinished cimport unfinished_free, unfinished_new, unfinished_note, unfinished_take
from fixer.datapath.walk cimport MAX_PORTS, Reason, Walk, walk
from fixer.datapath.walk import Reason as ReasonName
from fixer.datapath.wire cimport *


@cython.final
cdef class Pipeline:
    """One packet path: its policy, what it remembers, what it counts and the ring of its events. One thread at once."""

    def __cinit__(self, *, ports, vnis=(), plain=False, monitor=False, stale="explained", trust_device=False,
                  actions=None, timestamps="off", sources=(), syn_ack=False, when_full="pass", flows=None,
                  ring_size=1024, events_per_second=5, seed=None):
        """ports: UDP ports of VXLAN, 1…15 of them; vnis: (first, last) ranges known to be ours; stale: "explained",
        "inner-verifies" or "off"; trust_device: pass unjudged what NFQA_SKB_INFO says a device has verified; actions:
        what to do by diagnosis, e.g. {"corrupt": "pass"}, over the defaults; timestamps: "off", "strip" or
        "normalise", for the sources, each (address as 4 or 16 bytes, prefix length); syn_ack: strip the SYN-ACKs that
        answer them, too; when_full: "pass" or "strip" a SYN for which flows, the table that normalising needs, has no
        room; events_per_second: for each diagnosis and VTEP; seed: of the memory's hashes, random if None."""
        cdef uint32_t vni
        ports = list(ports)
        if not 1 <= len(ports) <= MAX_PORTS or not all(1 <= port <= 65535 for port in ports):
            raise ValueError(f"1 to {MAX_PORTS} ports of 1..65535 are needed, not {ports}")
        chosen = DEFAULT_ACTIONS | {DiagnosisName[name.upper()]: ActionName[action.upper()]
                                    for name, action in (actions or {}).items()}
        for diagnosis, action in chosen.items():
            if action not in ALLOWED_ACTIONS[diagnosis]:
                raise ValueError(f"{diagnosis.name.lower()} cannot be {action.name.lower()}")
        memset(&self.policy, 0, sizeof(Policy))
        memset(&self.counted, 0, sizeof(Counters))
        self.policy.ports.count = <uint8_t>len(ports)
        for i, port in enumerate(ports):
            self.policy.ports.port[<int>i] = port
        self.policy.plain = plain
        self.policy.monitor = monitor
        self.policy.trust_device = trust_device
        self.policy.stale = <uint8_t><int>StaleName[stale.upper().replace("-", "_")]
        for diagnosis, action in chosen.items():
            self.policy.action[<int>diagnosis] = <uint8_t><int>action
        take_sources(&self.timestamps, sources)
        self.timestamps.mode = <uint8_t><int>ModeName[timestamps.upper()]
        self.timestamps.syn_ack = syn_ack
        self.timestamps.strip_when_full = {"pass": False, "strip": True}[when_full]
        if (flows is None) != (self.timestamps.mode != Mode.NORMALISE):
            raise ValueError("a flow table is what normalising needs, and nothing else does")
        self.flows = flows
        self.table = NULL if flows is None else &(<Flows>flows).table
        seed = seed_or_drawn(seed)
        self.evidence = evidence_new(seed)
        self.snat = snat_new(seed)
        self.unfinished = unfinished_new(seed)
        for first, last in vnis:
            for vni in range(<uint32_t>first, <uint32_t>last + 1):
                know_vni(self.evidence, vni)
        self.ring = ring_new(ring_size, events_per_second, seed)

    def __dealloc__(self):
        evidence_free(self.evidence)
        ring_free(self.ring)
        snat_free(self.snat)
        unfinished_free(self.unfinished)

    cdef Action process(self, uint8_t *packet, uint32_t captured, uint32_t length, const Handed *handed,
                        Event *event) noexcept nogil:
        """Take one packet (see `walk`) from door to door: it was changed in place if the answer is REPAIR.

        event: where to describe the packet whatever it is, or NULL.
        """
        cdef Walk route
        cdef Judgement judgement
        cdef Event own
        cdef Action would, action
        cdef Asked asked
        cdef bint broken, witnessed
        cdef uint32_t now = <uint32_t>(handed.when // 1000000000U)
        walk(packet, captured, length, &self.policy.ports, self.policy.plain, &route)
        if self.timestamps.mode == Mode.NORMALISE:
            prepare(&self.timestamps, self.table, packet, &route, handed.outgoing, &asked)
        if handed.outgoing:
            return self.send(packet, &route, handed, &asked, event)
        judge(packet, &route, &self.policy.ports, handed.skb_info, self.policy.trust_device, &judgement)
        if self.policy.stale != Stale.OFF:
            weigh(self.evidence, packet, &route, &judgement, self.policy.stale == Stale.INNER_VERIFIES, now)
        judgement.outer_filled = (judgement.outer == OUT_ZERO6 and judgement.vouch != Vouch.NOBODY
                                  and self.policy.action[<int>OUTER_ABSENT6] == REPAIR)
        conclude(&route, handed.skb_info, &judgement)
        would = decide(&self.policy, &judgement)
        action = PASS if self.policy.monitor else would
        count(&self.counted, &route, &judgement, <uint8_t>action, <uint8_t>would)
        broken = judgement.diagnosis != SOUND and judgement.diagnosis != UNCHECKABLE
        witnessed = self.witness is not None and (broken or (self.witness.asks
                                                             and self.witness.wants(packet, &route)))
        if event != NULL or broken or witnessed:
            if event == NULL:
                event = &own
            describe(event, packet, &route, &judgement, handed.when)
            event.action = <uint8_t>action
            event.would = <uint8_t>would
            if broken:
                ring_tell(self.ring, event)
            if witnessed:
                self.witness.came(packet, &route, event)
        if action == REPAIR:
            # What this host's kernel finishes by itself is not for it to finish earlier.
            if self.unfinished.wanted and not handed.skb_info & SKB_CHECKSUM_NOT_READY:
                unfinished_note(self.unfinished, packet, &route, &judgement, handed.when)
            mend(packet, &route, &judgement)
        if judgement.inner != IN_WRONG and is_syn(packet, &route):
            self.sight(packet, &route, handed.when)
        if self.timestamps.mode != Mode.OFF and action != DROP:
            action = self.stamp(packet, &route, &judgement, handed, &asked, action)
        if witnessed:
            self.witness.left(packet, captured, action)
        return action

    cdef void sight(self, const uint8_t *packet, const Walk *route, uint64_t when) noexcept nogil:
        """Learn from a SYN which clock its source speaks with."""
        cdef const uint8_t *tcp = packet + route.inner.transport
        cdef Edit edit
        if look(packet, route, &edit) == Outcome.STRIPPED:
            snat_note(self.snat, packet + route.inner.source, packet + route.inner.destination, route.inner.version,
                      route.vni if route.vxlan else PLAIN, be16(tcp), be32(tcp + TCP_SEQUENCE),
                      be32(packet + edit.option + TCP_TSVAL), when)

    cdef Action stamp(self, uint8_t *packet, const Walk *route, const Judgement *judgement, const Handed *handed,
                      Asked *asked, Action action) noexcept nogil:
        """Strip or normalise the timestamps of a packet that is about to pass; REPAIR if it was changed."""
        cdef Edit edit
        cdef Outcome outcome
        cdef bint whole = judgement.reason != Reason.SUPER_PACKET and route.captured == route.length
        # What nobody can send back changed, and what its receiver will throw away, teaches nothing either.
        if self.timestamps.mode == Mode.NORMALISE and (not whole or judgement.inner == IN_WRONG or self.policy.monitor):
            self.counted.timestamps[<int>Outcome.INCOMPLETE] += not whole
            return action
        if not whole:
            return action
        if self.timestamps.mode == Mode.NORMALISE:
            outcome = normalise(&self.timestamps, self.table, packet, route, False, handed.uptime, asked, &edit)
        else:
            outcome = consider(&self.timestamps, packet, route, &edit)
        if (outcome == Outcome.STRIPPED or outcome == Outcome.TRANSLATED) and not self.policy.monitor:
            if action != REPAIR and handed.skb_info & SKB_CHECKSUM_NOT_READY:
                # What is given back must be complete. Only what the kernel would have finished itself is finished.
                if is_right_once_finished(route, judgement):
                    mend(packet, route, judgement)
                else:
                    outcome = Outcome.INCOMPLETE
            elif action != REPAIR and is_unfinished(packet, route, judgement):
                outcome = Outcome.INCOMPLETE    # left so by policy, or believed a device: P does not cover the options
            if outcome != Outcome.INCOMPLETE:
                apply(packet, route, &edit)
                action = REPAIR
        self.counted.timestamps[<int>outcome] += 1
        return action

    cdef Action send(self, uint8_t *packet, const Walk *route, const Handed *handed, Asked *asked,
                     Event *event) noexcept nogil:
        """A packet that leaves: the reply to a source is translated back. Its checksums are not judged.

        This host has just made them: the kernel finishes them before it hands them to a queue without the GSO flag.
        """
        cdef Edit edit
        cdef Action action = PASS
        cdef Outcome outcome = Outcome.NOT_CONCERNED
        if self.timestamps.mode == Mode.NORMALISE and not self.policy.monitor:
            if handed.skb_info & (SKB_CHECKSUM_NOT_READY | SKB_GSO) or route.captured != route.length:
                outcome = Outcome.INCOMPLETE
            else:
                outcome = normalise(&self.timestamps, self.table, packet, route, True, handed.uptime, asked, &edit)
        if outcome == Outcome.TRANSLATED:
            apply(packet, route, &edit)
            action = REPAIR
        self.counted.replies[<int>outcome] += 1
        if event != NULL:
            memset(event, 0, sizeof(Event))
            event.when = handed.when
            event.action = event.would = <uint8_t>action
        return action

    cpdef void settle(self, uint64_t when_ns, uint32_t uptime, bint all) noexcept nogil:
        """To be called about once a second, and with `all` at a stop: see `ring_settle` and `sweep`."""
        ring_settle(self.ring, when_ns, all)
        if self.witness is not None:
            self.witness.turn(when_ns)
        if self.table != NULL:
            sweep(self.table, uptime)

    def examine(self, unsigned char[::1] packet not None, uint32_t wire_length=0, uint32_t skb_info=0,
                uint64_t when_ns=0, uint32_t uptime=0, bint outgoing=False):
        """Put one packet through and return its `Result`; `packet` is mended in place if its action is REPAIR.

        packet: from its first IP header; wire_length: its length on the wire where that is more than is captured;
        uptime: seconds; outgoing: it leaves through OUTPUT.
        """
        cdef Result result = Result.__new__(Result)
        cdef uint8_t nothing = 0
        cdef Handed handed = Handed(when=when_ns, uptime=uptime, skb_info=skb_info, outgoing=outgoing)
        cdef uint32_t captured = <uint32_t>packet.shape[0]
        self.process(&packet[0] if captured else &nothing, captured, max(captured, wire_length), &handed,
                     &result.event)
        return result

    def drain(self, int most=1024):
        """At most `most` events of the ring, oldest first. One reader at a time; any thread."""
        cdef Result result
        events = []
        while len(events) < most:
            result = Result.__new__(Result)
            if not ring_take(self.ring, &result.event):
                break
            events.append(result)
        return events

    def snat_sights(self, uint64_t now_ns):
        """The sources that SYNs have come from, with their clocks: see `fixer.datapath.snat.Sight`. Any thread."""
        return snat_sights(self.snat, now_ns)

    def want_unfinished(self, bint wanted):
        """Whether `take_unfinished` is going to be called. Any thread."""
        self.unfinished.wanted = wanted

    def take_unfinished(self):
        """Envelopes that lately carried unfinished packets: see `fixer.datapath.unfinished`. One reader; any thread."""
        return unfinished_take(self.unfinished)

    def adopt(self, Pipeline other not None):
        """Be set up as `other` from the next packet on; what was learnt, counted and not yet told stays.

        For the thread that puts packets through, between two. ValueError unless both have one flow table, or none.
        """
        if self.table != other.table:
            raise ValueError("the flow table is chosen when a pipeline is made")
        self.policy = other.policy
        self.timestamps = other.timestamps
        self.ring.per_second = other.ring.per_second
        know_vnis_of(self.evidence, other.evidence)

    def finish(self, uint64_t when_ns):
        """At a stop: put what was left out of the log into the ring."""
        self.settle(when_ns, <uint32_t><uint64_t>time.monotonic(), True)

    def counters(self):
        """Everything counted so far, as plain dictionaries keyed by lower-case names. Safe while a queue is running."""
        cdef Counters *c = &self.counted
        return {
            "packets": c.packets,
            "bytes": c.bytes,
            "vxlan": c.tunnel,
            "unverified": c.unverified,
            "inner": {state.name.lower(): c.inner[<int>state] for state in InnerState},
            "outer": {state.name.lower(): c.outer[<int>state] for state in OuterState},
            "diagnosis": {name.name.lower(): c.diagnosis[<int>name] for name in DiagnosisName},
            "action": {name.name.lower(): c.action[<int>name] for name in ActionName},
            "would": {name.name.lower(): c.would[<int>name] for name in ActionName},
            "reason": {name.name.lower(): c.reason[<int>name] for name in ReasonName},
            "vouch": {name.name.lower(): c.vouch[<int>name] for name in VouchName},
            "explanation": {name.name.lower(): c.explanation[<int>name] for name in ExplanationName},
            "timestamps": {name.name.lower(): c.timestamps[<int>name] for name in OutcomeName},
            "replies": {name.name.lower(): c.replies[<int>name] for name in OutcomeName},
            "events_told": self.ring.written,
            "events_left_out": self.ring.left_out,
            "events_lost": self.ring.lost,
        }


cdef inline bint is_syn(const uint8_t *packet, const Walk *route) noexcept nogil:
    """Whether this is the SYN of a connection, and its options can be read."""
    return (route.inner.reason == Reason.NONE and route.inner.protocol == PROTO_TCP
            and packet[route.inner.transport + TCP_FLAGS] & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN) == TCP_SYN)


cdef take_sources(Timestamps *out, sources):
    memset(out, 0, sizeof(Timestamps))
    if len(sources) > MAX_SOURCES:
        raise ValueError(f"at most {MAX_SOURCES} sources, not {len(sources)}")
    for i, (address, bits) in enumerate(sources):
        if len(address) not in (4, 16) or not 0 <= bits <= 8 * len(address):
            raise ValueError(f"a source is an address of 4 or 16 bytes and a prefix length, not {address!r}/{bits}")
        out.sources[<int>i].version = 4 if len(address) == 4 else 6
        out.sources[<int>i].bits = bits
        memcpy(out.sources[<int>i].address, <const uint8_t *><bytes>address, len(address))
    out.count = <uint8_t>len(sources)


cdef inline void count(Counters *counted, const Walk *route, const Judgement *judgement, uint8_t action,
                       uint8_t would) noexcept nogil:
    counted.packets += 1
    counted.bytes += route.length
    counted.tunnel += route.tunnel
    counted.inner[judgement.inner] += 1
    counted.outer[judgement.outer] += 1
    counted.diagnosis[judgement.diagnosis] += 1
    counted.action[action] += 1
    counted.would[would] += 1
    counted.reason[judgement.reason] += 1
    counted.explanation[judgement.explanation] += 1
    counted.vouch[judgement.vouch] += 1
    counted.unverified += judgement.unverified and action == REPAIR
