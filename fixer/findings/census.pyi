from fixer.datapath.pipeline import Pipeline
from fixer.datapath.repair import Action
from fixer.datapath.result import Result

class Census:
    frames: int
    not_ip: int
    full: bool
    def __init__(
        self,
        pipeline: Pipeline,
        *,
        common_mtu: int,
        largest_mtu: int,
        most_kinds: int = 65536,
        most_conversations: int = 65536,
    ) -> None: ...
    def add(self, packet: bytearray, wire_length: int, when_ns: int, outgoing: bool | None) -> Action: ...
    def add_other(self) -> None: ...
    def drain(self) -> list[tuple[Result, bool | None, int]]: ...
    def answers(self) -> dict[tuple[bool, str], tuple[int, int]]: ...
