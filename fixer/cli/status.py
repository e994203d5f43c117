"""``fixer status``: is it on, does it listen, what was lost."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from fixer.cli.options import (
    config_option,
    host_in,
    json_option,
    netns_options,
    print_json,
    queue_option,
    settings_of,
)


@click.command(short_help="Show rule, listener, losses.")
@config_option
@queue_option
@json_option("One JSON object instead of the table.")
@click.option("--watch", is_flag=True, help="Show it again and again, with what happens each second; q leaves.")
@netns_options
def status(
    config: Path | None, queue: int | None, as_json: bool, watch: bool, netns: str | None, pid: int | None
) -> None:
    """Show rule, listener, queue counters and losses, and what the daemon has found.

    It ends with 0 only if every promise holds: the rule in each family that carries VXLAN here, as it was written and
    last; its ports, interface and namespace those of the VXLAN there is; our daemon on every queue, reporting, losing
    nothing, and in monitor mode only if the configuration says so. Otherwise with 3 and a line a reason, the worst
    first, each with the command that mends it. Where VXLAN devices are it watches their counters for up to two seconds:
    if packets arrive and none meets the rule, it says so and looks for why.

    "passed unseen" counts packets that were to be queued and the daemon was not given: the queue was full and let them
    pass; since the daemon began, or since `fixer on` last wrote a rule. It is "at least" so many where the kernel did
    not grant GSO. With several queues, each has a line and the losses are of all; whether RSS or RPS spreads the flows
    of one VTEP pair over them is checked. "GRO" says whether every packet can be verified: what it merges nobody can.
    With --scope suspects, the share of the path that is looked at stands beside the rule.

    \b
    Exit codes: 0 every packet that is to be looked at is, 3 not so, 77 no root.
    """
    if watch and as_json:
        raise click.UsageError("--watch is for people, --json for programs: give one of them")
    settings = settings_of(config).overridden(queue=queue)
    host = host_in(netns, pid)
    from fixer.status.answer import Status, collect

    def look() -> Status:
        return collect(host, settings.queue.number, settings.queue.count, monitor=settings.monitor)

    if watch:
        from fixer.screen.console import console_on
        from fixer.screen.live import watch as watching

        sys.exit(watching(look, host, console_on()))
    found = look()
    if as_json:
        print_json(found)
    else:
        from fixer.screen.console import console_on
        from fixer.screen.status import show

        show(found, console_on())
    sys.exit(found.exit_code)
