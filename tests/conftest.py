"""Tests marked ``root``: skipped by the name of the one part that is missing, and no quiet skip where CI has all parts.

Under ``CI=true`` a root test that is skipped although root is there is a failure, unless its reason names a part of the
kernel (has the word in it): programs can be installed, a kernel cannot.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Generator, Iterator

import pytest
from support.netns import Namespace
from support.told import TOLD

from fixer.host.machine import Host
from fixer.lab import net
from fixer.state import leftovers

IN_CI = os.environ.get("CI") == "true"
os.environ.setdefault("FIXER_BACKEND", "iptables")  # whose tables most tests look into; who wants another, says so


@functools.cache
def missing_part() -> str | None:
    """What this machine lacks for root tests, in one line; None if it has all. Probed once, in an own namespace."""
    return net.missing(Host())


def is_root_test(item: pytest.Item) -> bool:
    return item.get_closest_marker("root") is not None


class Heard:
    """What the tests have reported, wherever they ran: with `-n` that is in processes of pytest-xdist's."""

    def __init__(self) -> None:
        self.ran_as_root: list[bool] = []  # one for each root test: whether it ran
        self.told: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if "root" in report.keywords and (report.skipped or report.when == "call"):
            self.ran_as_root.append(not report.skipped)
        if report.when == "call":
            self.told += [str(what) for name, what in report.user_properties if name == TOLD]


heard = pytest.StashKey[Heard]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[heard] = Heard()
    config.pluginmanager.register(config.stash[heard])


def pytest_runtest_setup(item: pytest.Item) -> None:
    if is_root_test(item) and (part := missing_part()):
        pytest.skip(part)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if is_root_test(item) and report.skipped and IN_CI and os.geteuid() == 0:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if "kernel" not in reason:
            report.outcome = "failed"
            report.longrepr = f"root is there, and yet this did not run: {reason}"
    return report


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """CI without a single root test that ran is not green, whatever the reasons."""
    root_tests = session.config.stash[heard].ran_as_root
    if IN_CI and os.geteuid() == 0 and root_tests and not any(root_tests) and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in terminalreporter.config.stash[heard].told:
        terminalreporter.write_line(line)
    if root_tests := terminalreporter.config.stash[heard].ran_as_root:
        ran = sum(root_tests)
        terminalreporter.write_line(f"tests that need root: {ran} ran, {len(root_tests) - ran} skipped")
    reasons = Counter(report.longrepr[2] for report in terminalreporter.stats.get("skipped", []))
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count} {reason.replace('Skipped:', 'skipped:')}")


@pytest.fixture
def netns() -> Iterator[Namespace]:
    with Namespace(net.own_name(), Host()) as here:
        yield here
        here.call(leftovers.forget, Host())


@pytest.fixture(params=["nft", "legacy"])
def variant(request: pytest.FixtureRequest, netns: Namespace) -> str:
    """Both iptables, as far as this machine and its kernel have them."""
    name: str = request.param
    for command in (f"iptables-{name}", f"ip6tables-{name}"):
        if netns.host.which(command) is None:
            pytest.skip(f"needs {command}")
        # In a namespace of its own, so that looking (which makes the table) is not what a test sees.
        tried = netns.host.run(["unshare", "-n", command, "-t", "raw", "-L"])
        if tried.status != 0:
            pytest.skip(f"needs {command} in the kernel: {tried.err.strip()}")
    return name
