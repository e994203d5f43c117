from fixer.datapath.pipeline import Pipeline
from fixer.datapath.result import Result
from fixer.findings.conversations import Fate

class Ledger:
    left_out: int
    def __init__(
        self,
        *,
        common_mtu: int,
        largest_mtu: int,
        most_kinds: int = 2048,
        most_conversations: int = 4096,
        most_waiting: int = 8192,
        seed: int | None = None,
    ) -> None: ...
    def watch(self, pipeline: Pipeline) -> None: ...
    def drain(self) -> list[tuple[Result, bool | None, Fate, int, int]]: ...
    def take_samples(self) -> list[tuple[Result, bytes, bytes | None]]: ...
