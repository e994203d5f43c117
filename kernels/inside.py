"""What runs in the guest: the probes, then the tests marked ``kernels``. All that it tells goes to the console."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from fixer.host.machine import Host

from . import probes
from .debian import BUILD
from .guest import RESULT
from .selection import MARK

PATIENCE_SECONDS = 600  # for one test: an emulated CPU is many times slower


def say(**told: object) -> None:
    print(f"\n{RESULT}{json.dumps(told)}", flush=True)


class Reporter:
    """Tells of each test what came of it, as soon as that is known: a guest that dies later has told so much."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped:
            say(**{report.nodeid: f"skipped: {report.longrepr[2] if isinstance(report.longrepr, tuple) else ''}"})
        elif report.failed or report.when == "call":
            say(**{report.nodeid: report.outcome})
        if report.failed:
            print(report.longreprtext, flush=True)
        elif report.when == "call" and report.capstdout:
            print(report.capstdout, flush=True)


def main() -> int:
    say(kernel=os.uname().release)
    say(probes=probes.all_of_them(Host()))
    selection, environment = json.loads((BUILD / sys.argv[1] / "selection.json").read_text(encoding="utf-8"))
    os.environ.update(environment)
    options = [
        "-m",
        MARK,
        "-q",
        "-p",
        "no:cacheprovider",
        f"--timeout={PATIENCE_SECONDS}",
        "--tb=short",
        "--no-summary",
    ]
    status = pytest.main([*options, "--durations=20", *selection], plugins=[Reporter()])
    say(status=int(status))
    return int(status)


if __name__ == "__main__":
    os.chdir(Path(__file__).parents[1])
    sys.exit(main())
