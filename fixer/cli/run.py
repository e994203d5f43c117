"""``fixer run``: listen, repair, log."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fixer.cli.options import config_option, host_in, netns_options, queue_option, settings_of

if TYPE_CHECKING:
    from fixer.config import Settings
    from fixer.telemetry.events import Saying


@click.command(short_help="Listen on the queue, repair, log.")
@config_option
@queue_option
@click.option("--monitor", is_flag=True, help="Change nothing, only report what would be done.")
@click.option("--plain", is_flag=True, help="Also judge packets that are not VXLAN.")
@click.option("--check", is_flag=True, help="Only read the configuration: 78 and what is wrong with it, or 0.")
@click.option("--no-guard", is_flag=True, help="Do not put the rule back when somebody else removes or changes it.")
@click.option(
    "--textfile",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write metrics for node_exporter's textfile collector, as metrics.textfile does: DIR/fixer.prom.",
)
@click.option(
    "--log-format",
    type=click.Choice(["auto", "human", "json"]),
    default="auto",
    help="On stdout: a coloured line an event for people, or JSON; auto: people if it is a terminal.",
)
@netns_options
def run(
    config: Path | None,
    queue: int | None,
    monitor: bool,
    plain: bool,
    check: bool,
    no_guard: bool,
    textfile: Path | None,
    log_format: str,
    netns: str | None,
    pid: int | None,
) -> None:
    """Listen on the queue, repair, log; in the foreground, until SIGTERM or Ctrl-C.

    SIGHUP, which a closed terminal sends as well, has it read the configuration again: a new one is taken between two
    packets, a wrong one is refused, and the log says which. Queues take a restart. Nothing ends.

    On a terminal it shows a line an event, and findings as they open; elsewhere, and in the file or socket that log.to
    names, it logs JSON lines (ECS). What keeps it from serving is logged, too.

    Needs root, but no rule: without `fixer on` (or a rule of your own that sends to the queue) nothing arrives. A stop
    loses no packet: what is held is answered first.

    What `fixer on` has said is done at the start, and guarded: a rule that others flush, delete, change or push out of
    its place is put back, at once where nftables tells of it, else at a look once a second, five times a minute at the
    most. The log says what happened and, where the kernel tells, which process did it. `fixer off` ends that;
    --no-guard is for who manages rules elsewhere.

    \b
    Examples:
      fixer run --monitor                   look first, change nothing
      fixer run --queue 7 --netns web       in a network namespace, on queue 7
      fixer run --plain --pid 4711          packets without a tunnel, in a container

    \b
    Exit codes: 0 stopped, or --check found nothing wrong; 69 no NFQUEUE in this kernel, 75 the queue
    is held by another process, 77 no root, 78 wrong configuration.
    """

    def settings() -> Settings:
        return settings_of(config).overridden(queue=queue, plain=plain, monitor=monitor, textfile=textfile)

    if check:
        settings()
        return
    if textfile and textfile.suffix != ".prom":
        raise click.BadParameter("node_exporter reads files that end in .prom", param_hint="'--textfile'")
    show = shown() if log_format == "human" or (log_format == "auto" and sys.stdout.isatty()) else None
    first = None
    try:
        first = settings()
        host = host_in(netns, pid)
        from fixer.daemon.run import run as serve

        code = serve(first, host, settings, keeps=not no_guard, show=show)
    except Exception as error:
        failed(error, first, logs=show is None)
        raise
    sys.exit(code)


def shown() -> Callable[[Saying], None]:
    """What shows a line of the log to people, on stdout."""
    from fixer.screen.console import console_on
    from fixer.screen.events import show

    return partial(show, console=console_on())


def failed(error: Exception, settings: Settings | None, *, logs: bool) -> None:
    """Have the log say what keeps the daemon from serving: whoever reads only that must learn of it. (People read it on
    stderr: ``logs`` says whether stdout is a log.)"""
    with suppress(OSError, ImportError):
        from fixer.config import Log
        from fixer.telemetry import outputs
        from fixer.telemetry.events import state_change
        from fixer.telemetry.log import Origin, logger

        log = settings.log if settings else Log()
        if log.to == outputs.STDOUT and not logs:
            return
        code = {"process.exit_code": getattr(error, "exit_code", 1)}  # ours, and click's
        said = state_change("failed", str(error) or type(error).__name__, code)
        fields = Origin(log.namespace, log.labels, log.tags).mark(said.fields)
        output = outputs.opened(log.to)
        getattr(logger(output), said.level)(said.message, **fields)
        if isinstance(output, outputs.File | outputs.Socket):
            output.close()
