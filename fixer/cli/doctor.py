"""``fixer doctor``: what is wrong with a host."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fixer.cli.options import (
    config_option,
    host_in,
    json_option,
    netns_options,
    print_json,
    settings_of,
    source_option,
    spelt,
)

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network


@click.group(invoke_without_command=True, short_help="Say what is wrong with a host, and what cures it.")
@config_option
@netns_options
@click.option("--watch", type=click.IntRange(1, 3600), metavar="SECONDS", help="Look twice: which counters move?")
@json_option("One JSON object instead of text.")
@click.pass_context
def doctor(
    context: click.Context, config: Path | None, netns: str | None, pid: int | None, watch: int | None, as_json: bool
) -> None:
    """Say what is wrong with this host or will be, what shows it, what cures it now, and what cures it for good.

    Looks at VXLAN devices in every network namespace, the NICs below them and what they are left to do, the kernel and
    its known faults, NAT and conntrack, MTUs, counters, eBPF, Open vSwitch; docs/doctor.md has every check. With
    --watch it looks twice, and what grows meanwhile is proof. Changes nothing. Without root it says less, and what it
    could not see. With --netns or --pid it looks at that namespace alone.

    A finding is a fault (it breaks traffic, and something shows it), unclear (with what would decide), or only to be
    known.

    \b
    Examples:
      fixer doctor --watch 10
      fixer doctor --json | jq -r '.findings[] | "\\(.verdict) \\(.cause) \\(.cure)"'
      fixer doctor timestamps

    \b
    Exit codes: 0 nothing is wrong, 3 something is, or that cannot be told, 66 a file is unreadable,
    72 ip is not installed, 77 no root (--netns, --pid).
    """
    if context.invoked_subcommand is not None:
        return
    settings = settings_of(config)
    host = host_in(netns, pid)
    alone = netns is not None or pid is not None
    from fixer.doctor import node as nodes
    from fixer.doctor.checks import diagnose, exit_code

    seen = nodes.look(host, settings.vxlan.ports, settings.queue.numbers, alone=alone)
    if watch is not None:
        click.echo(f"Watching for {watch} s ...", err=True)
        seen = nodes.watch(host, seen, watch, alone=alone)
    found = diagnose(seen)
    if as_json:
        from fixer.doctor.answer import as_object

        print_json(as_object(seen, found))
    else:
        from fixer.screen.console import console_on
        from fixer.screen.node import show

        show(seen, found, console_on())
    sys.exit(exit_code(found))


@doctor.command(short_help="Does it refuse clients behind SNAT?")
@netns_options
@click.option("--watch", type=click.IntRange(1, 3600), metavar="SECONDS", help="Look twice: is it happening now?")
@source_option("A source address of clients behind SNAT, for the configuration; may be repeated.")
@click.option("--release", metavar="UNAME", help="Another server: what `uname -r` says there.")
@click.option(
    "--netstat",
    "netstats",
    multiple=True,
    metavar="FILE",
    help="Another server: a copy of its /proc/net/netstat; twice, the earlier one first, to see what grows.",
)
@click.option("--tw-recycle", type=click.IntRange(0), metavar="N", help="Another server: its net.ipv4.tcp_tw_recycle.")
@json_option("One JSON object instead of text.")
def timestamps(
    netns: str | None,
    pid: int | None,
    watch: int | None,
    sources: tuple[IPv4Network | IPv6Network, ...],
    release: str | None,
    netstats: tuple[str, ...],
    tw_recycle: int | None,
    as_json: bool,
) -> None:
    """Does the server refuse clients behind SNAT for their TCP timestamps, and which mode helps?

    A kernel before 4.12 with tcp_tw_recycle does: connections from behind one address fail now and then, and
    PAWSPassive and ListenDrops grow. Says what cures it, which mode of fixer works on that kernel, and the
    configuration to use until then. Changes nothing, and needs no root but for --netns and --pid.

    By default it looks at this host, which is right where fixer runs on the server's own node. A container shares its
    kernel, but has counters of its own: --netns or --pid. Of any other server, say what you know.

    \b
    Examples:
      fixer doctor timestamps --watch 10
      fixer doctor timestamps --pid 4711 --source 192.0.2.7
      fixer doctor timestamps --release 3.10.0-1160.el7.x86_64 --tw-recycle 1
      ssh web cat /proc/net/netstat | fixer doctor timestamps --netstat /dev/stdin

    \b
    Exit codes: 0 the server is not affected, 3 it is, or that cannot be told, 66 a file is unreadable,
    77 no root.
    """
    elsewhere = release is not None or bool(netstats) or tw_recycle is not None
    if elsewhere and (netns is not None or pid is not None or watch is not None):
        raise click.UsageError(
            "--release, --netstat and --tw-recycle are of another server; the rest looks at this one"
        )
    if len(netstats) > 2:
        raise click.BadParameter("two copies are enough: the earlier one and the later one", param_hint="'--netstat'")
    from fixer.doctor import server as about
    from fixer.doctor.timestamps import diagnose

    host = host_in(None, None)
    where = spelt(netns, pid)
    if elsewhere:
        server = about.told(host, release, tw_recycle, netstats)
    else:
        outside = about.knobs(host)
        host = host_in(netns, pid)
        server = about.look(host, outside)
        if watch is not None:
            click.echo(f"Watching for {watch} s ...", err=True)
            server = about.look_again(host, outside, server, watch)
    found = diagnose(server, [str(source) for source in sources], where and f" --plain{where}")
    if as_json:
        print_json(found)
    else:
        from fixer.screen.console import console_on
        from fixer.screen.doctor import show

        show(found, console_on())
    sys.exit(found.exit_code)
