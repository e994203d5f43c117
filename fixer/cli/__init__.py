"""The command line: one thin function per verb.

What a verb needs is imported inside it, so that ``fixer --help`` answers at once and ``fixer off`` works even where a
compiled part is missing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

import click

from fixer import __version__
from fixer.errors import FixerError

if TYPE_CHECKING:
    from fixer.config import Settings
    from fixer.host.machine import Host

INTERRUPTED = 130
"""What a shell reports for a command that SIGINT ended."""

BROKEN_PIPE = 141
"""What a shell reports for a command that SIGPIPE ended: the reader of a pipe (``| head``) had enough."""


class Verbs(click.Group):
    """The group of verbs, in the order in which they are met, with our errors turned into lines and exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FixerError as error:
            click.echo(f"fixer: error: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            _give_up_stdout()
            ctx.exit(BROKEN_PIPE)
        except ImportError as error:
            if (error.name or "").split(".")[0] not in ("fixer", "netfilterqueue"):
                raise
            click.echo(f"fixer: error: this installation is incomplete, install it again: {error}", err=True)
            ctx.exit(FixerError.exit_code)


def network(text: str) -> IPv4Network | IPv6Network:
    """A network, or a single address, from the command line."""
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise click.BadParameter(f"{text} is no address or network such as 10.1.0.0/16 or 2001:db8::/32") from None


F = TypeVar("F", bound=Callable[..., Any])

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


def netns_options(verb: F) -> F:
    """``--netns`` and ``--pid``: in which network namespace the verb works."""
    by_name = click.option(
        "--netns", metavar="NAME", help="Work in this network namespace: a name of `ip netns list`, or a path."
    )
    by_pid = click.option(
        "--pid", type=click.IntRange(1), metavar="PID", help="Work in the network namespace of this process."
    )
    return by_name(by_pid(verb))


# click: a paragraph that begins with \b keeps its lines.
@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="fixer", message="%(prog)s %(version)s")
def cli() -> None:
    """Repair VXLAN packets whose checksums were never finished, or went stale on the way.

    Ping works over the overlay and TCP does not? fixer takes the packets from a netfilter queue on the receiving host,
    finishes what can be proven to be unfinished, drops what can be proven to be corrupt, and says what it found. It
    does not touch healthy packets, does not encapsulate or route, and does not replace the cure at the sender
    (`ethtool -K DEV tx-checksum-ip-generic off`): it carries you until then.

    \b
    Two commands, as root, on the host that receives:
      fixer on       send VXLAN packets to the queue (they pass while nobody listens)
      fixer run      listen, repair, log
    And:
      fixer status   is it on, does it listen, what was lost
      fixer off      take the rule away again
      fixer scan capture.pcap   the same judgement over a capture, without root
      fixer doctor timestamps   does this server refuse clients behind SNAT, and what helps

    \b
    Exit codes:
      0   done                             69  the kernel lacks a part (NFQUEUE, raw table)
      2   wrong command line               71  the system refused something
      3   not in order (status, doctor)    72  a program is missing (iptables)
      4   off, on: normalised connections  75  the queue is held by another process
          are alive, and need the rule     77  root (CAP_NET_ADMIN) is needed
      65  a capture is damaged or cut      78  the configuration is wrong
      66  a file is missing or unreadable  130 interrupted
    """


@cli.command(short_help="Listen on the queue, repair, log.")
@config_option
@queue_option
@click.option("--monitor", is_flag=True, help="Change nothing, only report what would be done.")
@click.option("--plain", is_flag=True, help="Also judge packets that are not VXLAN.")
@netns_options
def run(config: Path | None, queue: int | None, monitor: bool, plain: bool, netns: str | None, pid: int | None) -> None:
    """Listen on the queue, repair, log; in the foreground, until SIGTERM or Ctrl-C.

    Logs JSON lines (ECS) on stdout. Needs root, but no rule: without `fixer on` (or a rule of your own that sends to
    the queue) nothing arrives. A stop loses no packet: what is held is answered first.

    \b
    Examples:
      fixer run --monitor                   look first, change nothing
      fixer run --queue 7 --netns web       in a network namespace, on queue 7
      fixer run --plain --pid 4711          packets without a tunnel, in a container

    \b
    Exit codes: 0 stopped, 69 no NFQUEUE in this kernel, 75 the queue is held by another process,
    77 no root, 78 wrong configuration.
    """
    settings = _settings(config).overridden(queue=queue, plain=plain, monitor=monitor)
    host = _host(netns, pid)
    from fixer.daemon.run import run as serve

    sys.exit(serve(settings, host))


@cli.command(short_help="Send VXLAN packets to the queue.")
@config_option
@queue_option
@click.option("--plain", is_flag=True, help="Take all TCP, UDP and ICMP that arrives, not only VXLAN.")
@netns_options
@click.option("--interface", metavar="IF", help="Only what arrives on this interface.")
@click.option(
    "--source",
    "sources",
    type=network,
    multiple=True,
    metavar="CIDR",
    help="Only from this network; may be repeated.",
)
@click.option(
    "--scope",
    type=click.Choice(["all", "suspects"]),
    default="all",
    show_default=True,
    help="Queue all of it, or only what looks unfinished.",
)
@click.option(
    "--mtu",
    type=click.IntRange(576, 65535),
    metavar="BYTES",
    help="With suspects: the longest packet that a wire brings. By default the largest MTU there is.",
)
@click.option("--variant", type=click.Choice(["nft", "legacy"]), help="Which iptables to use, if the host has both.")
@click.option("--force", is_flag=True, help="Go on although that cuts off normalised connections: they stall.")
def on(
    config: Path | None,
    queue: int | None,
    plain: bool,
    netns: str | None,
    pid: int | None,
    interface: str | None,
    sources: tuple[IPv4Network | IPv6Network, ...],
    scope: Literal["all", "suspects"],
    mtu: int | None,
    variant: Literal["nft", "legacy"] | None,
    force: bool,
) -> None:
    """Send VXLAN packets to the queue: one rule in iptables and one in ip6tables.

    The rule is in a chain of its own, FIXER, and the jump to it stands last in raw/PREROUTING, before conntrack. While
    nobody listens, packets pass (--queue-bypass). Nobody else's rules are touched. Doing it twice changes nothing. The
    rule is gone after a reboot.

    With --plain, all TCP, UDP and ICMP that arrives is taken, VXLAN or not. A container's or a macvlan server's packets
    do not pass the host's PREROUTING: put the rule into its network namespace, and `fixer run --plain` as well. A
    family that --source names no network of gets no rule.

    With --scope suspects, the kernel itself looks at each packet's headers (-m bpf) and queues only what may be
    unfinished: an inner or outer checksum field that holds its pseudo-header's sum, an outer ffff, and headers that it
    does not follow; with [timestamps], SYNs as well. The rest passes at full speed and unverified. What suspects cannot
    see: random corruption (so corrupt = "drop" does not hold), a stale outer checksum other than ffff, VXLAN that was
    fragmented on the underlay, and whatever is longer than --mtu: those are taken for packets that GRO has merged,
    which look unfinished and are not. The default for --mtu is the MTU of --interface, or the largest of all interfaces
    but loopback and tunnels, and at least 1500; say it again after an MTU has grown. `fixer status` shows what share of
    the path is looked at.

    With queue.count, packets go to as many queues, each CPU's to one of them (--queue-cpu-fanout), so that they stay in
    order. That spreads the flows of one VTEP pair only where the NIC (RSS) or the kernel (RPS) spreads them over CPUs
    by their ports: where they do not, `fixer on` and `fixer status` say so, and what to do.

    With timestamps.mode = "normalise", TCP from the configured sources goes to a queue of its own, and so do the
    replies to it: a second jump stands last in raw/OUTPUT. --interface and --source narrow both directions (a reply by
    the interface it leaves through, and by the network it goes to). A drain that was begun is ended. Rules that live
    normalised connections need are not taken away without --force.

    \b
    Examples:
      fixer on
      fixer on --scope suspects --interface eth0
      fixer on --plain --netns web --interface eth0 --source 10.1.0.0/16

    \b
    Exit codes: 0 on, 4 normalised connections are alive, 69 the kernel lacks a part, 71 refused,
    72 iptables is missing, 77 no root, 78 wrong configuration.
    """
    if interface == "lo":
        raise click.BadParameter(
            "what a host sends itself is never finished and needs no repair", param_hint="'--interface'"
        )
    if mtu is not None and scope == "all":
        raise click.BadParameter("belongs to --scope suspects; all are looked at otherwise", param_hint="'--mtu'")
    settings = _settings(config).overridden(queue=queue, plain=plain)
    host = _host(netns, pid)
    from fixer.host import links
    from fixer.rules import drain
    from fixer.rules import switch as rules
    from fixer.rules.rawtable import shown_queues
    from fixer.status import facts as status

    if scope == "suspects" and mtu is None:
        mtu = links.longest_packet(host, interface)

    selection = rules.Selection(
        queue=settings.queue.number,
        count=settings.queue.count,
        ports=settings.vxlan.ports,
        plain=settings.plain,
        interface=interface,
        sources=sources,
        suspects_up_to=mtu,
        syns=settings.timestamps.mode == "strip",
        flows_queue=settings.timestamps_queue if settings.timestamps.mode == "normalise" else None,
        flows_sources=[ip_network(source) for source in settings.timestamps.sources],
    )
    rules.require_net_admin(host, "fixer on")
    drain.check(host, "fixer on", selection.flows_queues(), force, _warn)
    for line in rules.turn_on(host, selection, variant):
        click.echo(line)
    if selection.flows_queue is not None and drain.end(host):
        click.echo("The drain is ended: new connections are normalised again.")
    if mtu is not None:
        click.echo(f"Packets longer than {mtu:,} bytes are taken for merged by GRO and not looked at.")
    found = status.collect(host, settings.queue.number, settings.queue.count)
    for obstacle in dict.fromkeys(filter(None, found.spread.values())):
        click.echo(obstacle)
    if settings.timestamps.mode == "strip":
        click.echo('timestamps.mode = "strip" needs no rule of its own.')
    queues = shown_queues(found.queues)
    if not found.listeners:
        arguments = ["fixer run"]
        arguments += [f"--config {config}"] if config else []
        arguments += [f"--queue {queue}"] if queue is not None else []
        arguments += ["--plain"] if plain else []
        arguments += [f"--netns {netns}"] if netns else [f"--pid {pid}"] if pid else []
        click.echo(f"Nobody listens on {queues} yet: packets pass untouched. Next: {' '.join(arguments)}")
    else:
        heard = found.listeners[0]
        who = f"{heard.process} (pid {heard.pid})" if heard.pid else "A process that cannot be seen from here"
        served = queues if len(found.listeners) == len(found.queues) else f"some of the {queues}, and not on all"
        click.echo(f"{who} listens on {served}. See: fixer status")
        if found.flows and not found.flows.listener:
            click.echo(
                f"Nobody listens on queue {found.flows.queue} yet, so no timestamps are normalised. "
                "Next: start fixer run again"
            )


@cli.command(short_help="Remove the rule again.")
@click.option(
    "--drain", "drains", is_flag=True, help="First let normalised connections end; new ones are left alone meanwhile."
)
@click.option("--timeout", type=click.FloatRange(0), metavar="SECONDS", help="With --drain: give up after so long.")
@click.option("--force", is_flag=True, help="Remove it although normalised connections are alive: they stall.")
@netns_options
def off(drains: bool, timeout: float | None, force: bool, netns: str | None, pid: int | None) -> None:
    """Remove the rule: chain FIXER and the jump to it, from iptables and ip6tables, and nothing else.

    Says what was removed; fine to do twice. A running `fixer run` goes on running, and gets no more packets.

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
    host = _host(netns, pid)
    from fixer.rules import drain
    from fixer.rules import switch as rules
    from fixer.state import flowfile

    rules.require_net_admin(host, "fixer off")
    if drains:
        drain.wait(host, timeout, click.echo, _warn)
    else:
        drain.check(host, "fixer off", {}, force, _warn)
    for line in rules.turn_off(host):
        click.echo(line)
    flowfile.remove_unused(host)


@cli.command(short_help="Show rule, listener, losses.")
@config_option
@queue_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of the table.")
@netns_options
def status(config: Path | None, queue: int | None, as_json: bool, netns: str | None, pid: int | None) -> None:
    """Show rule, listener, queue counters and losses, and what the daemon has found.

    "passed unseen" counts packets that were to be queued and the daemon was not given: the queue was full and let them
    pass; since the daemon began, or since `fixer on` last wrote a rule. It is "at least" so many where the kernel did
    not grant GSO. With several queues, each has a line and the losses are of all; whether RSS or RPS spreads the flows
    of one VTEP pair over them is checked. "GRO" says whether every packet can be verified: what it merges nobody can.
    With --scope suspects, the share of the path that is looked at stands beside the rule.

    \b
    Exit codes: 0 the rule is on and every queue has a listener, 3 not so, 77 no root.
    """
    settings = _settings(config).overridden(queue=queue)
    host = _host(netns, pid)
    from fixer.status import facts as status

    found = status.collect(host, settings.queue.number, settings.queue.count)
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    else:
        from rich.console import Console

        from fixer.screen.status import show

        show(found, Console())
    sys.exit(found.exit_code)


@cli.command(short_help="Judge the packets of captures.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@config_option
@click.option("--plain", is_flag=True, help="Also judge packets that are not VXLAN.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per file instead of tables.")
@click.option(
    "--write", type=click.Path(path_type=Path), metavar="OUT.pcap", help="Write all frames, the broken ones repaired."
)
def scan(files: tuple[Path, ...], config: Path | None, plain: bool, as_json: bool, write: Path | None) -> None:
    """Judge the packets of captures (pcap or pcapng, plain or gzip) as `fixer run` would. Needs no root.

    A capture taken on the sender shows unfinished checksums that its NIC finishes later: that is said, and is no fault.
    Captures are only read; --write makes a new file.

    \b
    Examples:
      tcpdump -ni eth0 -c 1000 -w vxlan.pcap udp port 4789 && fixer scan vxlan.pcap
      fixer scan --json *.pcap.gz | jq .repairable
      fixer scan broken.pcap --write mended.pcap

    \b
    Exit codes: 0 read to the end (whatever was found), 65 a capture is damaged or cut, 66 unreadable,
    78 wrong configuration.
    """
    settings = _settings(config).overridden(plain=plain)
    from rich.console import Console

    from fixer import scan as scanner

    sys.exit(scanner.scan(files, settings, as_json=as_json, write=write, console=Console()))


@cli.group(short_help="Say what is wrong with a host.")
def doctor() -> None:
    """Say what is wrong with a host that fixer can only carry, what cures it, and which settings help until then.

    \b
    Exit codes: 0 nothing is wrong, 3 something is, or that cannot be told, 66 a file is unreadable.
    """


@doctor.command(short_help="Does it refuse clients behind SNAT?")
@netns_options
@click.option("--watch", type=click.IntRange(1, 3600), metavar="SECONDS", help="Look twice: is it happening now?")
@click.option(
    "--source",
    "sources",
    type=network,
    multiple=True,
    metavar="CIDR",
    help="A source address of clients behind SNAT, for the configuration; may be repeated.",
)
@click.option("--release", metavar="UNAME", help="Another server: what `uname -r` says there.")
@click.option(
    "--netstat",
    "netstats",
    multiple=True,
    metavar="FILE",
    help="Another server: a copy of its /proc/net/netstat; twice, the earlier one first, to see what grows.",
)
@click.option("--tw-recycle", type=click.IntRange(0), metavar="N", help="Another server: its net.ipv4.tcp_tw_recycle.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
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
    from fixer.doctor import timestamps as doctor

    host = _host(None, None)
    where = ""
    if elsewhere:
        counted = [doctor.counters_in(host, name) for name in netstats]
        server = doctor.Server(release, tw_recycle, counters=counted[-1] if counted else None)
        before = counted[0] if len(counted) == 2 else None
    else:
        outside = doctor.knobs(host)
        host = _host(netns, pid)
        where = f" --plain --netns {netns}" if netns else f" --plain --pid {pid}" if pid else ""
        server = doctor.look(host, outside)
        before = None
        if watch is not None:
            import time

            click.echo(f"Watching for {watch} s ...", err=True)
            time.sleep(watch)
            before, server = server.counters, doctor.look(host, outside)
    found = doctor.diagnose(server.grown_since(before), [str(source) for source in sources], where)
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    else:
        from rich.console import Console

        doctor.show(found, Console())
    sys.exit(found.exit_code)


@cli.command(short_help="Show the fault and its repair.")
def demo() -> None:
    """Show the fault and its repair on two hosts in network namespaces, joined by a wire that finishes no checksum.

    Under a minute; everything is removed at the end. Without root, or where the kernel lacks a part, it says which, and
    judges an embedded capture instead.

    \b
    Exit codes: 0 the main job was shown to work, 130 interrupted, anything else: it did not work.
    """
    from rich.console import Console

    from fixer import lab

    sys.exit(lab.demo(Console()))


def _warn(text: str) -> None:
    click.echo(f"fixer: warning: {text}", err=True)


def _settings(config: Path | None) -> Settings:
    from fixer.config import load

    return load(config)


def _host(netns: str | None, pid: int | None) -> Host:
    """The host, in the network namespace asked for."""
    if netns is not None and pid is not None:
        raise click.UsageError("--netns and --pid both name a network namespace: give one of them")
    from fixer.host.machine import Host

    host = Host()
    if netns is not None or pid is not None:
        host.enter_netns(netns, pid)
    return host


def main() -> NoReturn:
    """The ``fixer`` command. Never returns: ends the process with the exit code."""
    try:
        try:
            cli(prog_name="fixer")
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _give_up_stdout()
        sys.exit(BROKEN_PIPE)
    sys.exit(0)


def _give_up_stdout() -> None:
    """What is still buffered would raise again when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
