"""``python -m deploy``: write ``deploy/elk``, ``deploy/prometheus`` and docs; ``--check``: say what differs."""

from __future__ import annotations

import sys
from pathlib import Path

from . import alerts, elastic, kibana, manual, shippers

ROOT = Path(__file__).parents[1]


def files() -> dict[str, str]:
    """Every file that is made, by its path below the checkout, with its text."""
    made = elastic.files() | kibana.files() | shippers.files()
    found = {f"deploy/elk/{name}": text for name, text in made.items()}
    found |= {f"deploy/prometheus/{name}": text for name, text in alerts.files().items()}
    return found | {"docs/log.md": manual.log(), "docs/metrics.md": manual.metrics()}


def main() -> int:
    """The exit code: 1 if a file was to be checked and is not as it would be made."""
    differ = [name for name, text in files().items() if not _is(ROOT / name, text)]
    for name in differ:
        print(name)
        if "--check" not in sys.argv:
            (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / name).write_text(files()[name], encoding="utf-8")
            (ROOT / name).chmod(0o755 if files()[name].startswith("#!") else 0o644)
    return int(bool(differ) and "--check" in sys.argv)


def _is(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
