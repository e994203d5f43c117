"""``fixer off``: take the rules away."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from fixer.cli import events
from fixer.cli.options import host_in, netns_options, reason_option, tell, warn

if TYPE_CHECKING:
    from fixer.host.machine import Host

TAKE_BACK_SECONDS = 5.0
"""How long `off` waits for a daemon to take its program out of the kernel."""


@click.command(short_help="Remove the rule again.")
@click.option(
    "--drain", "drains", is_flag=True, help="First let normalised connections end; new ones are left alone meanwhile."
)
@click.option("--timeout", type=click.FloatRange(0), metavar="SECONDS", help="With --drain: give up after so long.")
@click.option("--force", is_flag=True, help="Remove it although normalised connections are alive: they stall.")
@reason_option
@click.option("--service", is_flag=True, help="As fixer.service says it: what is wanted stays wanted.")
@click.option("--over", is_flag=True, help="As a timer says it: remove it only if its time (fixer on --for) is over.")
@netns_options
def off(
    drains: bool,
    timeout: float | None,
    force: bool,
    reason: str,
    service: bool,
    over: bool,
    netns: str | None,
    pid: int | None,
) -> None:
    """Remove the rule: chain FIXER and the jump to it, from iptables and ip6tables, and nothing else.

    Says what was removed; fine to do twice. A running `fixer run` goes on running, and gets no more packets; a service
    that `fixer on` has started is stopped. Until a reboot no daemon that starts puts the rule back.

    Connections whose timestamps are normalised need rule and daemon until they end. While there are any, nothing is
    removed without --drain or --force. --drain waits in the foreground, says how many are left, and removes the rule
    when none is. Ctrl-C ends the waiting and not the draining: new connections are left alone until `fixer on`.

    \b
    Examples:
      fixer off
      fixer off --drain --timeout 3600
      fixer off --force

    \b
    Exit codes: 0 off, 4 normalised connections are alive, 71 refused, 72 iptables is missing,
    77 no root, 130 interrupted.
    """
    if drains and force:
        raise click.UsageError("--drain lets connections end, --force cuts them off: give one of them")
    if timeout is not None and not drains:
        raise click.BadParameter("belongs to --drain; nothing else waits", param_hint="'--timeout'")
    host = host_in(netns, pid)
    from fixer.host.operator import operator
    from fixer.rules import drain, switch, wanted
    from fixer.screen.changes import turned_off
    from fixer.state import leftovers

    switch.require_net_admin(host, "fixer off")
    if over:
        ended = wanted.end(host)
        if any(change.did == "removed" for change in ended):
            events.note(host, "rule-ended", None)
        for line in turned_off(ended):
            tell(line)
        return
    if drains:
        drain.wait(host, timeout, tell, warn)
    else:
        drain.check(host, "fixer off", {}, force, warn)
    changes, before = (switch.off(host), None) if service else wanted.off(host, by=operator(host), reason=reason)
    if before and before.on:
        events.note(host, "rule-off", before)
    for line in turned_off(changes):
        tell(line)
    remove_program(host, waits=bool(before and before.selection and before.selection.in_kernel))
    if before and before.started_service:
        stop_service(host)
    leftovers.remove(host, comes_back=service)  # systemctl restart, and an upgrade, stop and start


def remove_program(host: Host, *, waits: bool) -> None:
    """Remove what a dead daemon left; one that lives takes its program back within a second: ``waits`` for that."""
    from fixer.kernel.attachment import remove_left_everywhere
    from fixer.state import report

    def finishes() -> bool:
        return any(isinstance(each.kernel, report.InKernel) and each.kernel.interfaces for each in report.every(host))

    deadline = time.monotonic() + TAKE_BACK_SECONDS
    while waits and finishes() and time.monotonic() < deadline:
        time.sleep(0.1)
    if remove_left_everywhere():
        tell("Removed the program that a daemon before had left in the kernel.")


def stop_service(host: Host) -> None:
    """Stop fixer.service, which did not run before `fixer on`."""
    from fixer.host import service

    if service.state(host) == "running":
        service.stop(host)
        tell(f"{service.UNIT} is stopped, as it was before fixer on.")
