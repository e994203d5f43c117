from fixer.datapath.result import Result
from fixer.findings.conversations import Fate
from fixer.findings.roads import Roads
from fixer.findings.strangers import Strangers

class Census:
    frames: int
    not_ip: int
    full: bool
    roads: Roads
    strangers: Strangers
    unfollowed: int
    def __init__(
        self,
        *,
        common_mtu: int,
        largest_mtu: int,
        most_kinds: int = 65536,
        most_conversations: int = 65536,
        most_waiting: int = 131072,
    ) -> None: ...
    def add(self, result: Result, outgoing: bool | None, packet: bytes | bytearray = b"") -> None: ...
    def add_other(self, ethertype: int = 0) -> None: ...
    def drain(self) -> list[tuple[Result, bool | None, Fate, int, int]]: ...
    def end(self) -> None: ...
