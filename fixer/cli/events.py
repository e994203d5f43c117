"""What ``on`` and ``off`` did, as an ECS event in the journal where no daemon lives that logs it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from fixer.config import Log
    from fixer.host.machine import Host
    from fixer.rules.wanted import Intent


def note(
    host: Host, action: Literal["rule-on", "rule-off", "rule-ended"], before: Intent | None, log: Log | None = None
) -> None:
    """To be called once it is done; ``before`` is what was wanted until then. A journal that is not there is none.

    ``log``: as configured; by default, in the file that is read where no other is named. An end that a daemon has not
    come to do is no event of its.
    """
    from fixer.host import journal
    from fixer.rules import wanted
    from fixer.state import report
    from fixer.telemetry import rules
    from fixer.telemetry.log import Origin, logger

    said = wanted.read(host)
    if said is None or (action != "rule-ended" and report.every(host)):  # the daemon sees it, and logs it
        return
    start = before.since if before and before.on else said.since
    fields = rules.who_and_why(said.by.user, said.by.login, said.by.sudo, said.reason)
    fields |= rules.how_long(start, said.until, host.now())
    event = rules.event(action, f"{action.removeprefix('rule-')}, as {said.by} wanted", fields)
    log = log or configured()
    line = io.StringIO()
    fields = Origin(log.namespace, log.labels, log.tags).mark(event.fields)
    getattr(logger(line), event.level)(event.message, **fields)
    journal.write(line.getvalue().rstrip("\n"))


def configured() -> Log:
    """What the default file says of the log. One that is wrong is not what who switches off wants to hear of."""
    from fixer.config import Log, load
    from fixer.errors import FixerError

    try:
        return load().log
    except FixerError:
        return Log()
