from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fixer.datapath.diagnose import Diagnosis, InnerState, OuterState
from fixer.datapath.evidence import Explanation
from fixer.datapath.flows import Flows
from fixer.datapath.repair import Action
from fixer.datapath.snat import Sight
from fixer.datapath.walk import Reason

DEFAULT_ACTIONS: dict[Diagnosis, Action]
ALLOWED_ACTIONS: dict[Diagnosis, frozenset[Action]]

class Result:
    when_ns: int
    left_out: int
    summary: bool
    inner: InnerState
    outer: OuterState
    diagnosis: Diagnosis
    reason: Reason
    explanation: Explanation
    unverified: bool
    action: Action
    would: Action
    inner_found: int
    inner_right: int
    outer_found: int
    outer_right: int
    vxlan: bool
    length: int
    vni: int
    vlan: int | None
    outer_source: str
    outer_destination: str
    outer_source_port: int
    outer_destination_port: int
    inner_source: str
    inner_destination: str
    inner_source_port: int
    inner_destination_port: int
    inner_version: int
    inner_protocol: int
    inner_tcp_flags: int  # 0 where it is not TCP, or they were not captured

class Pipeline:
    def __init__(
        self,
        *,
        ports: Iterable[int],
        vnis: Iterable[tuple[int, int]] = (),
        plain: bool = False,
        monitor: bool = False,
        stale: str = "explained",
        trust_device: bool = False,
        actions: Mapping[str, str] | None = None,
        timestamps: str = "off",
        sources: Sequence[tuple[bytes, int]] = (),
        syn_ack: bool = False,
        when_full: str = "pass",
        flows: Flows | None = None,
        ring_size: int = 1024,
        events_per_second: int = 5,
        seed: int | None = None,
    ) -> None: ...
    def examine(
        self,
        packet: bytearray,
        wire_length: int = 0,
        skb_info: int = 0,
        when_ns: int = 0,
        uptime: int = 0,
        outgoing: bool = False,
    ) -> Result: ...
    def drain(self, most: int = 1024) -> list[Result]: ...
    def settled(self, when_ns: int, uptime: int) -> None: ...
    def snat_sights(self, now_ns: int) -> list[Sight]: ...
    def finish(self, when_ns: int) -> None: ...
    def counters(self) -> dict[str, Any]: ...
