"""``fixer on``: send packets to the queue."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from fixer.cli import events
from fixer.cli.options import (
    config_option,
    host_in,
    is_utf8,
    netns_options,
    queue_option,
    reason_option,
    settings_of,
    source_option,
    spelt,
    tell,
    warn,
)
from fixer.cli.when import until_of

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    from fixer.host.machine import Host
    from fixer.rules.iptables import Variant
    from fixer.rules.selection import Selection
    from fixer.rules.switch import Switched

NOBODY_LISTENS = 3
"""As ``fixer status`` ends then."""

GUARD_SECONDS = 4.0
"""How long a daemon that runs may take to learn what is wanted, and to open a queue for it: mostly half a second."""

START_SECONDS = 10.0
"""How long a service waits for its daemon to listen: that takes half a second, on a loaded machine more."""


@click.command(short_help="Send VXLAN packets to the queue.")
@config_option
@queue_option
@click.option("--plain", is_flag=True, help="Take all TCP, UDP and ICMP that arrives, not only VXLAN.")
@netns_options
@click.option("--interface", metavar="IF", help="Only what arrives on this interface.")
@source_option("Only from this network; may be repeated.")
@click.option(
    "--scope",
    type=click.Choice(["all", "suspects", "kernel"]),
    default="all",
    show_default=True,
    help="Queue all of it, or only what looks unfinished; kernel: and have the kernel finish what was diagnosed.",
)
@click.option(
    "--overlay-ends-here",
    is_flag=True,
    help="With kernel: no packet of the overlay goes on to another host, so mark it as verified and sum nothing.",
)
@click.option(
    "--mtu",
    type=click.IntRange(576, 65535),
    metavar="BYTES",
    help="With suspects and kernel: the longest packet that a wire brings. By default the largest MTU there is.",
)
@click.option(
    "--backend",
    type=click.Choice(["auto", "iptables", "nft"]),
    default="auto",
    show_default=True,
    envvar="FIXER_BACKEND",
    show_envvar=True,
    help="Rules of iptables, or of nftables itself; auto: what has ours, else nft where that can, else iptables.",
)
@click.option("--variant", type=click.Choice(["nft", "legacy"]), help="Which iptables to use, if the host has both.")
@click.option("--outgoing", is_flag=True, help="Also have what this host sends completed before it leaves.")
@click.option("--force", is_flag=True, help="Go on although that cuts off normalised connections: they stall.")
@click.option("--for", "span", metavar="SPAN", help="End it after so long: 30m, 2h, 1h30m, 1d.")
@click.option("--until", "clock", metavar="TIME", help="End it then: 14:30 by this host's clock, or 2026-01-31T14:30.")
@reason_option
@click.option(
    "--service", is_flag=True, help="As fixer.service says it: obey what was said last, and wait for the daemon."
)
def on(
    config: Path | None,
    queue: int | None,
    plain: bool,
    netns: str | None,
    pid: int | None,
    interface: str | None,
    sources: tuple[IPv4Network | IPv6Network, ...],
    scope: Literal["all", "suspects", "kernel"],
    overlay_ends_here: bool,
    mtu: int | None,
    backend: Literal["auto", "iptables", "nft"],
    variant: Literal["nft", "legacy"] | None,
    outgoing: bool,
    force: bool,
    span: str | None,
    clock: str | None,
    reason: str,
    service: bool,
) -> None:
    """Send VXLAN packets to the queue: one rule in iptables and one in ip6tables.

    The rule is in a chain of its own, FIXER, and the jump to it stands last in raw/PREROUTING, before conntrack. While
    nobody listens, packets pass (--queue-bypass). Nobody else's rules are touched. Doing it twice changes nothing. A
    queue that another program holds is refused.

    That the rule is wanted, by whom and why (--reason) is noted until a reboot: a daemon that starts obeys it, `fixer
    off` ends it. Where fixer.service is installed and does not run it is started, and `fixer off` stops it again.

    With --for or --until the kernel itself stops taking packets then (-m time), whoever is dead by that time; a daemon
    that lives takes the rule away. Where the kernel cannot, a daemon that lives then does, or a timer of systemd's.
    Said again, it is prolonged or shortened. Without either it is on until `fixer off`, and `fixer status` asks after a
    day whether it was forgotten.

    With --plain, all TCP, UDP and ICMP that arrives is taken, VXLAN or not. A container's or a macvlan server's packets
    do not pass the host's PREROUTING: put the rule into its network namespace, and `fixer run --plain` as well. A
    family that --source names no network of gets no rule.

    With --scope suspects, the kernel itself looks at each packet's headers (-m bpf) and queues only what may be
    unfinished: an inner or outer checksum field that holds its pseudo-header's sum, an outer ffff, and headers that it
    does not follow; with [timestamps], SYNs as well. The rest passes at full speed and unverified. What suspects cannot
    see: random corruption (so corrupt = "drop" does not hold), a wrong outer checksum other than ffff, VXLAN that was
    fragmented on the underlay, and whatever is longer than --mtu: those are taken for packets that GRO has merged,
    which look unfinished and are not. The default for --mtu is the MTU of --interface, or the largest of all interfaces
    but loopback and tunnels, and at least 1500; say it again after an MTU has grown. `fixer status` shows what share of
    the path is looked at.

    With --scope kernel it is as with suspects, and a daemon that lives has the kernel itself finish the packets of each
    sender that it has diagnosed (a tc program on the interfaces they arrive on; docs/kernel.md): those pass the queue
    by and reach the rules repaired. One packet a second of each goes to the queue all the same, and what is no longer
    found unfinished there is finished no longer, within five seconds. Nothing is put on an interface before something
    was diagnosed, and where the kernel does not take it the queue repairs, as ever. A daemon that dies leaves nothing
    that goes on for more than five seconds.

    With --overlay-ends-here too, the kernel sums no payload: it marks the packet as verified, for whoever receives it
    on this host, a container too. That is quicker, and only right where nothing of the overlay is forwarded to another
    host: what is leaves with a checksum that nobody takes, TCP at least. Nor does it suit who verifies by himself, as
    an IDS does. fixer on warns of what it sees that leads on (docs/kernel.md).

    With --outgoing, what this host sends is completed before it leaves: for a path that eats what its hardware would
    have left unfinished, so that nothing reaches a receiver that could mend it. A second jump, last in raw/OUTPUT,
    leads it to a queue of its own, in which nothing waits: the kernel finishes checksums and cuts segments where a
    packet is queued, and passes it on by itself. A daemon only has that queue open: without one, what leaves is as
    unfinished as before. Every VXLAN packet is taken (with --plain, all TCP, UDP and ICMP), whatever --scope says;
    --interface and --source narrow it by the interface it leaves through and the network it goes to. `ethtool -K DEV
    tx off` on the underlay's interface does the same for less, and for all that leaves through it.

    With queue.count, packets go to as many queues, each CPU's to one of them (--queue-cpu-fanout), so that they stay in
    order. That spreads the flows of one VTEP pair only where the NIC (RSS) or the kernel (RPS) spreads them over CPUs
    by their ports: where they do not, `fixer on` and `fixer status` say so, and what to do.

    With timestamps.mode = "normalise", TCP from the configured sources goes to a queue of its own, and so do the
    replies to it: a second jump stands last in raw/OUTPUT. --interface and --source narrow both directions (a reply by
    the interface it leaves through, and by the network it goes to). A drain that was begun is ended. Rules that live
    normalised connections need are not taken away without --force.

    \b
    Examples:
      fixer on --for 2h --reason "INC-4711: no TCP over the overlay"
      fixer on --scope suspects --interface eth0
      fixer on --outgoing --reason "the hypervisor eats unfinished packets"
      fixer on --scope kernel --for 8h
      fixer on --scope kernel --overlay-ends-here
      fixer on --plain --netns web --interface eth0 --source 10.1.0.0/16

    \b
    Exit codes: 0 on, 3 on but nobody listens, 4 normalised connections are alive, 69 the kernel lacks
    a part, 71 refused, 72 iptables is missing, 75 the queue is held by another program, 77 no root,
    78 wrong configuration.
    """
    if interface == "lo":
        raise click.BadParameter(
            "what a host sends itself is never finished and needs no repair", param_hint="'--interface'"
        )
    if interface is not None and not is_utf8(interface):
        raise click.BadParameter(
            "its name is not UTF-8, which is what a wish is written in: `ip link set ... name` another",
            param_hint="'--interface'",
        )
    if overlay_ends_here and scope != "kernel":
        raise click.BadParameter(
            "says what the kernel may do: belongs to --scope kernel", param_hint="'--overlay-ends-here'"
        )
    if mtu is not None and scope == "all":
        raise click.BadParameter(
            "belongs to --scope suspects and kernel; all are looked at otherwise", param_hint="'--mtu'"
        )
    if variant is not None and backend == "nft":
        raise click.BadParameter("says which iptables, and --backend nft takes none", param_hint="'--variant'")
    settings = settings_of(config).overridden(queue=queue, plain=plain)
    host = host_in(netns, pid)
    from fixer.host import leading, links
    from fixer.host.operator import operator
    from fixer.rules import drain, switch, wanted
    from fixer.rules.selection import Selection
    from fixer.screen.changes import turned_on, wanted_off

    switch.require_net_admin(host, "fixer on")
    before = wanted.read(host) if service else wanted.before(host)
    if service and before and not before.holds(host.now()):
        tell(wanted_off(before))
        return
    if service and before and before.selection:
        selection = before.selection
        switched = wanted.obey(host)
    else:
        if scope != "all" and mtu is None:
            mtu = links.longest_packet(host, interface)
        selection = Selection.of(
            settings,
            interface=interface,
            sources=sources,
            suspects_up_to=mtu,
            outgoing=outgoing,
            in_kernel=scope == "kernel",
            overlay_ends_here=overlay_ends_here,
            until=until_of(span, clock, host.now()),
        )
        ways = list(leading.leads_on(host, selection.ports)) if overlay_ends_here else []
        drain.check(host, "fixer on", selection.flows_queues(), force, warn)
        asked_for: Variant | None = {"auto": variant, "iptables": variant or "iptables", "nft": "native"}[backend]
        switched = wanted.on(host, selection, by=operator(host), variant=asked_for, reason=reason)
        events.note(host, "rule-on", before, settings.log)
        for way in ways:
            warn(f"{way}: what is forwarded to another host leaves with a wrong checksum (--overlay-ends-here)")
    for line in (
        *turned_on(switched),
        *what_to_know(host, selection, switched),
        *until_when(host, selection, switched, netns, pid),
    ):
        tell(line)
    if settings.timestamps.mode == "strip":
        tell('timestamps.mode = "strip" needs no rule of its own.')
    asked = (f" --config {config}" if config else "") + (f" --queue {queue}" if queue is not None else "")
    if not (service or asked or plain or netns or pid):
        start_service(host)
    if service:
        wait_for_listeners(host, selection, START_SECONDS)
    elif selection.outgoing_queue is not None and is_served(host, selection):
        wait_for_listeners(host, selection, GUARD_SECONDS)
    for line in who_listens(host, selection, f"fixer run{asked}{' --plain' if plain else ''}{spelt(netns, pid)}"):
        tell(line)
    if not is_listened_to(host, selection):
        sys.exit(NOBODY_LISTENS)


def what_to_know(host: Host, selection: Selection, switched: Switched) -> Iterator[str]:
    """What goes with rules that are in place, a line each."""
    from fixer.host import spread
    from fixer.rules import drain

    if selection.flows_queue is not None and drain.end(host):
        yield "The drain is ended: new connections are normalised again."
    if selection.plain and any(change.after and change.after.is_passed_over for change in switched.changes):
        yield (
            "A DROP that others append to raw later, as Docker 28 does for each container, is met by what we take only "
            "when the guard of fixer run has put our jump last again, 2 s later. --backend nft knows no such gap."
        )
    if selection.suspects_up_to is not None:
        yield f"Packets longer than {selection.suspects_up_to:,} bytes are taken for merged by GRO and not looked at."
    if selection.in_kernel:
        does = "it has the kernel mark as verified" if selection.overlay_ends_here else "the kernel repairs"
        yield f"Whom the daemon diagnoses, {does} (tc), while the queue goes on confirming it: fixer status."
    versions = {change.family.version for change in switched.changes if change.after and change.after.on}
    yield from map(str, spread.met(host, selection.interface, selection.count, versions))


def until_when(
    host: Host, selection: Selection, switched: Switched, netns: str | None, pid: int | None
) -> Iterator[str]:
    """When it ends, and who sees to that."""
    from fixer.host import timer
    from fixer.screen.changes import moment

    if selection.until is None:
        return
    in_kernel = all(change.after.until for change in switched.changes if change.after and change.after.on)
    who = "the kernel ends it"
    if not in_kernel:
        by = timer.at(host, selection.until, netns=netns, pid=pid)
        others = f"a daemon that lives then does, or systemd ({by})" if by else "only a daemon that lives then does"
        who = f"this kernel cannot end it (no -m time): {others}"
    yield f"Until {moment(selection.until)}, in {(selection.until - host.now()).total_seconds() / 60:,.0f} min: {who}."


def start_service(host: Host) -> None:
    """Start fixer.service where it is installed and does not run: `fixer off` stops it again."""
    from fixer.host import service
    from fixer.rules import wanted

    if service.state(host) == "stopped":
        service.start(host)
        wanted.note_started_service(host)
        tell(f"{service.UNIT} is started; fixer off stops it again.")


def is_served(host: Host, selection: Selection) -> bool:
    """Whether a daemon has the ordinary queues: then it is going to open the one for what leaves."""
    from fixer.host.queues import bound

    return set(selection.queues) <= bound(host).keys()


def wait_for_listeners(host: Host, selection: Selection, seconds: float) -> None:
    """Wait until the daemon, which starts or learns of what is wanted at the same time, listens."""
    deadline = time.monotonic() + seconds
    while not is_listened_to(host, selection) and time.monotonic() < deadline:
        time.sleep(0.1)


def is_listened_to(host: Host, selection: Selection) -> bool:
    """Whether every queue has a listener."""
    from fixer.host.queues import bound

    return set(selection.every_queue()) <= bound(host).keys()


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
    if selection.outgoing_queue is not None and selection.outgoing_queue not in bound(host):
        yield f"Nobody has queue {selection.outgoing_queue} open, so what leaves is not completed. See: fixer status"
    if selection.flows_queue is not None and selection.flows_queue not in bound(host):
        yield (
            f"Nobody listens on queue {selection.flows_queue} yet, so no timestamps are normalised. "
            "Next: start fixer run again"
        )
