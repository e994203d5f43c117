from typing import Any

from fixer.findings.match import Match

def fates(match: Match) -> list[dict[str, Any]]: ...
