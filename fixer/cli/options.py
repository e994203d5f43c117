"""What several verbs take on their command lines, and what they make of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    from fixer.config import Settings
    from fixer.host.machine import Host

Verb = TypeVar("Verb", bound=Callable[..., Any])

config_option = click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The configuration; without it, /etc/fixer/fixer.toml if there is one.",
)
queue_option = click.option(
    "--queue", type=click.IntRange(0, 65535), metavar="N", help="The queue's number, instead of the configured one."
)

reason_option = click.option(
    "--reason", default="", metavar="TEXT", help="Why, for whoever asks fixer status or reads the log."
)

port_option = click.option(
    "--port",
    "ports",
    type=click.IntRange(1, 65535),
    multiple=True,
    metavar="N",
    help="Read VXLAN on this UDP port too; may be given several times.",
)


def netns_options(verb: Verb) -> Verb:
    """``--netns`` and ``--pid``: in which network namespace the verb works."""
    by_name = click.option(
        "--netns", metavar="NAME", help="Work in this network namespace: a name of `ip netns list`, or a path."
    )
    by_pid = click.option(
        "--pid", type=click.IntRange(1), metavar="PID", help="Work in the network namespace of this process."
    )
    return by_name(by_pid(verb))


def source_option(help: str) -> Callable[[Verb], Verb]:
    """``--source``: networks; none, one or several."""
    return click.option("--source", "sources", type=network, multiple=True, metavar="CIDR", help=help)


def json_option(help: str) -> Callable[[Verb], Verb]:
    """``--json``: for programs."""
    return click.option("--json", "as_json", is_flag=True, help=help)


def network(text: str) -> IPv4Network | IPv6Network:
    """A network, or a single address, from the command line."""
    from ipaddress import ip_network

    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise click.BadParameter(f"{text} is no address or network such as 10.1.0.0/16 or 2001:db8::/32") from None


def settings_of(config: Path | None) -> Settings:
    """The configuration, read and checked."""
    from fixer.config import load

    return load(config)


def host_in(netns: str | None, pid: int | None) -> Host:
    """The host, in the network namespace asked for."""
    if netns is not None and pid is not None:
        raise click.UsageError("--netns and --pid both name a network namespace: give one of them")
    from fixer.host.machine import Host

    host = Host()
    if netns is not None or pid is not None:
        host.enter_netns(netns, pid)
    return host


def spelt(netns: str | None, pid: int | None) -> str:
    """The namespace as another verb's command line names it, a blank before it."""
    return f" --netns {netns}" if netns else f" --pid {pid}" if pid else ""


def is_utf8(typed: str) -> bool:
    """Whether that is what was typed; of other bytes Python makes characters that cannot be written down."""
    try:
        typed.encode()
    except UnicodeEncodeError:
        return False
    return True


def print_json(found: Any) -> None:
    """An object as ``--json`` prints it: in ASCII, whatever the locale, so that no name in it acts on a terminal."""
    import json

    from fixer.state import place

    click.echo(json.dumps(json.loads(place.as_json(found)), indent=2))


def tell(line: str) -> None:
    """A line of what was done or found, on stdout."""
    from fixer.screen.text import printable, settle

    click.echo(printable(line), settle(sys.stdout))


def warn(text: str) -> None:
    """A line on stderr that no exit code goes with."""
    from fixer.screen.text import printable

    click.echo(f"fixer: warning: {printable(text)}", err=True)


def complain(error: Exception | str) -> None:
    """The line on stderr that goes with an exit code."""
    from fixer.screen.text import printable

    click.echo(f"fixer: error: {printable(str(error))}", err=True)
