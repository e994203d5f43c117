from fixer.datapath.result import Result

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
    ) -> None: ...
    def add(self, result: Result, outgoing: bool | None) -> None: ...
    def add_other(self) -> None: ...
    def drain(self) -> list[tuple[Result, bool | None, int]]: ...
    def answers(self) -> dict[tuple[bool, str], tuple[int, int]]: ...
