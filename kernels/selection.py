"""Which tests a kernel is asked: found here, where looking through all files takes seconds and not minutes."""

from __future__ import annotations

import sys
from pathlib import Path

from fixer.errors import SystemRefused
from fixer.host.machine import Host

MARK = "kernels"
CHECKOUT = Path(__file__).parents[1]


def files(wanted: list[str], host: Host) -> list[str]:
    """The files, from the checkout on, with tests that have the MARK; of ``wanted`` (all) as pytest names tests."""
    asked = ["-m", MARK, "--collect-only", "-q", "--no-header", "-p", "no:cacheprovider", *wanted]
    done = host.run([sys.executable, "-m", "pytest", f"--rootdir={CHECKOUT}", *asked], seconds=120)
    found = dict.fromkeys(line.partition("::")[0] for line in done.out.splitlines() if "::" in line)
    if not found:
        raise SystemRefused(f"no test has the mark {MARK}: {(done.err or done.out).strip()[-200:]}")
    return wanted or list(found)
