from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fixer.datapath.flows import Flows
from fixer.datapath.result import Result
from fixer.datapath.snat import Sight

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
    def settle(self, when_ns: int, uptime: int, all: bool) -> None: ...
    def snat_sights(self, now_ns: int) -> list[Sight]: ...
    def want_unfinished(self, wanted: bool) -> None: ...
    def take_unfinished(self) -> list[tuple[bytes, int]]: ...
    def adopt(self, other: Pipeline) -> None: ...
    def finish(self, when_ns: int) -> None: ...
    def counters(self) -> dict[str, Any]: ...
