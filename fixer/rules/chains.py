"""A selection in the words of iptables: the rules of each of our chains."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from fixer.rules import sources, suspects
from fixer.rules.rawtable import (
    CHAIN,
    CHAIN_FLOWS,
    CHAIN_OUTPUT,
    CHAIN_PLAIN,
    CHAIN_VXLAN,
    HOOK,
    OUTPUT,
    Chains,
    Hook,
    Words,
)
from fixer.rules.selection import IPV6, Family, Network, Selection
from fixer.rules.suspects import Exemption


def chains_of(selection: Selection, family: Family) -> Chains:
    """Our chains and their rules, word by word, spelt as iptables-save spells them so that the two can be compared.

    Empty where there is nothing to take.
    """
    if not selection.concerns(family):
        return {}
    vxlan = _vxlan(selection)
    where = _where(selection, family, "-s", "-i")
    plain: list[Words] = []
    if selection.plain:
        plain = [("-p", "tcp"), ("-p", "udp"), ("-p", "ipv6-icmp" if family is IPV6 else "icmp")]
    queue = _queue(selection)
    found: Chains = {CHAIN: []}
    if selection.flows_queue is not None or selection.outgoing_queue is not None:
        found[CHAIN_OUTPUT] = []
    if selection.flows_queue is not None:
        found[CHAIN] = _normalised(selection, family, HOOK)
        found[CHAIN_OUTPUT] += _normalised(selection, family, OUTPUT)
        found[CHAIN_FLOWS] = [_bypassed("--queue-num", str(selection.flows_queue))]
    if selection.outgoing_queue is not None:
        # Behind what is normalised: that queue completes what it is given as well.
        found[CHAIN_OUTPUT] += [
            (*there, *kind, *_bypassed("--queue-num", str(selection.outgoing_queue)))
            for there in _where(selection, family, "-d", "-o")
            for kind in plain or [vxlan]
        ]
    if selection.until is not None:
        for chain in {CHAIN, CHAIN_OUTPUT} & found.keys():
            found[chain].insert(0, _over(selection.until))
    longest, syns = selection.suspects_up_to, selection.syns
    if longest is None:
        found[CHAIN] += [(*here, *kind, *queue) for here in where for kind in plain or [vxlan]]
        return found
    # What goes to a VXLAN port must not be exempted as plain UDP: what is inside has to be looked at.
    led = [(vxlan, CHAIN_VXLAN), *((kind, CHAIN_PLAIN) for kind in plain)]
    # A chain of their own, for the others shall meet one rule and not six; -g, so that who returns is done with us.
    found[CHAIN] += [(*here, *kind, "-g", chain) for here in where for kind, chain in led]
    found[CHAIN_VXLAN] = [*map(_exempting, suspects.tunnelled(family.version, longest, syns)), queue]
    if plain:
        found[CHAIN_PLAIN] = [*map(_exempting, suspects.plain(family.version, longest, syns)), queue]
    return found


def _over(until: datetime) -> Words:
    """From then on nothing is taken any more, whoever is alive to take the rule away. xt_time counts in UTC."""
    return ("-m", "time", "--datestart", f"{until.astimezone(UTC):%Y-%m-%dT%H:%M:%S}", "-j", "RETURN")


def _vxlan(selection: Selection) -> Words:
    return ("-p", "udp", "-m", "multiport", "--dports", ",".join(map(str, selection.ports)))


def _queue(selection: Selection) -> Words:
    first, last = selection.queues[0], selection.queues[-1]
    if first == last:
        return _bypassed("--queue-num", str(first))
    return (*_bypassed("--queue-balance", f"{first}:{last}"), "--queue-cpu-fanout")


def _bypassed(option: str, number: str) -> Words:
    """--queue-bypass: packets pass while nobody listens. fixer may be gone, the network must not."""
    return ("-j", "NFQUEUE", option, number, "--queue-bypass")


def _normalised(selection: Selection, family: Family, hook: Hook) -> list[Words]:
    """The rules that lead TCP of the sources (in OUTPUT: to them) to the queue of its own."""
    address, device = ("-s", "-i") if hook == HOOK else ("-d", "-o")
    programs = sources.tunnelled(family.version, selection.flows_networks(), back=hook == OUTPUT)
    matches: list[Words] = [(*_vxlan(selection), "-m", "bpf", "--bytecode", program) for program in programs]
    found = [(*here, *match) for here in _where(selection, family, address, device) for match in matches]
    if selection.plain:
        both = _common(selection.networks(family), selection.flows_networks(), family)
        found += [(*_limit(address, each), *_through(selection, device), "-p", "tcp") for each in both]
    return [(*words, "-g", CHAIN_FLOWS) for words in found]


def _where(selection: Selection, family: Family, address: str, device: str) -> list[Words]:
    """What narrows each rule, once for each network: by the address and the device that these options name."""
    limits = [_limit(address, each) for each in selection.networks(family)] or [()]
    return [(*limit, *_through(selection, device)) for limit in limits]


def _through(selection: Selection, device: str) -> Words:
    if selection.interface:
        return (device, selection.interface)
    # What a host sends itself is never finished, and never needs to be.
    return ("!", device, "lo") if selection.plain else ()


def _limit(option: str, network: Network) -> Words:
    """As iptables-save spells it: nothing for all addresses."""
    return (option, str(network)) if network.prefixlen else ()


def _common(ours: Sequence[Network], theirs: Sequence[Network], family: Family) -> list[Network]:
    """The addresses of a family that are in both; in ``theirs`` alone if ``ours`` names none."""
    wanted = [each for each in theirs if each.version == family.version]
    if not ours:
        return sources.collapsed(wanted)
    # Of two networks that overlap, one holds the other.
    return sources.collapsed(
        [max(one, other, key=lambda each: each.prefixlen) for one in ours for other in wanted if one.overlaps(other)]
    )


def _exempting(exemption: Exemption) -> Words:
    """A rule that lets the exempted go on, behind us: all its programs have to match."""
    programs = [word for program in exemption.programs for word in ("-m", "bpf", "--bytecode", program)]
    comment = ("-m", "comment", "--comment", exemption.why) if exemption.why else ()
    return (*programs, *comment, "-j", "RETURN")
