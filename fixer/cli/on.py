"""``fixer on``: send packets to the queue."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from fixer.cli.options import (
    config_option,
    host_in,
    netns_options,
    queue_option,
    settings_of,
    source_option,
    spelt,
    tell,
    warn,
)

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    from fixer.host.machine import Host
    from fixer.rules.selection import Selection


@click.command(short_help="Send VXLAN packets to the queue.")
@config_option
@queue_option
@click.option("--plain", is_flag=True, help="Take all TCP, UDP and ICMP that arrives, not only VXLAN.")
@netns_options
@click.option("--interface", metavar="IF", help="Only what arrives on this interface.")
@source_option("Only from this network; may be repeated.")
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
    settings = settings_of(config).overridden(queue=queue, plain=plain)
    host = host_in(netns, pid)
    from fixer.host import links, spread
    from fixer.rules import drain, switch
    from fixer.rules.selection import Selection
    from fixer.screen.changes import turned_on

    if scope == "suspects" and mtu is None:
        mtu = links.longest_packet(host, interface)
    selection = Selection.of(settings, interface=interface, sources=sources, suspects_up_to=mtu)
    switch.require_net_admin(host, "fixer on")
    drain.check(host, "fixer on", selection.flows_queues(), force, warn)
    switched = switch.on(host, selection, variant)
    for line in turned_on(switched):
        tell(line)
    if selection.flows_queue is not None and drain.end(host):
        tell("The drain is ended: new connections are normalised again.")
    if mtu is not None:
        tell(f"Packets longer than {mtu:,} bytes are taken for merged by GRO and not looked at.")
    versions = {change.family.version for change in switched.changes if change.after and change.after.on}
    for obstacle in spread.met(host, interface, settings.queue.count, versions):
        tell(str(obstacle))
    if settings.timestamps.mode == "strip":
        tell('timestamps.mode = "strip" needs no rule of its own.')
    asked = (f" --config {config}" if config else "") + (f" --queue {queue}" if queue is not None else "")
    for line in who_listens(host, selection, f"fixer run{asked}{' --plain' if plain else ''}{spelt(netns, pid)}"):
        tell(line)


def who_listens(host: Host, selection: Selection, command: str) -> Iterator[str]:
    """Who takes what the rules send, a line each; ``command`` is what to type where nobody does."""
    from fixer.host.queues import bound, listeners
    from fixer.rules.selection import shown_queues

    queues = shown_queues(selection.queues)
    found = listeners(host, selection.queues)
    if not found:
        yield f"Nobody listens on {queues} yet: packets pass untouched. Next: {command}"
        return
    heard = found[0]
    who = f"{heard.process} (pid {heard.pid})" if heard.pid else "A process that cannot be seen from here"
    served = queues if len(found) == len(selection.queues) else f"some of the {queues}, and not on all"
    yield f"{who} listens on {served}. See: fixer status"
    if selection.flows_queue is not None and selection.flows_queue not in bound(host):
        yield (
            f"Nobody listens on queue {selection.flows_queue} yet, so no timestamps are normalised. "
            "Next: start fixer run again"
        )
