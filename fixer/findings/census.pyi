from fixer.datapath.result import Result
from fixer.findings.conversations import Fate

class Census:
    frames: int
    not_ip: int
    full: bool
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
    def add_other(self) -> None: ...
    def drain(self) -> list[tuple[Result, bool | None, Fate, int, int]]: ...
    def end(self) -> None: ...
