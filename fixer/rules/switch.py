"""``fixer on`` and ``fixer off``: our chain in the raw table, and the one jump to it, last in PREROUTING.

Where timestamps are normalised there is a second jump, last in OUTPUT, for the way back. Every change is one
transaction of ``iptables-restore --noflush``: the chains are filled, the old jumps (wherever they stood) go and the new
ones come, all or nothing. Rules, counters and order of everybody else stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, NamedTuple

from fixer.errors import FixerError, KernelLacks, NotPermitted, ProgramMissing, SystemRefused
from fixer.host import queues
from fixer.host.machine import NET, Completed, Host
from fixer.rules import sources
from fixer.rules import suspects as prefilter
from fixer.rules.rawtable import (
    CHAIN,
    CHAIN_FLOWS,
    CHAIN_OUTPUT,
    CHAIN_PLAIN,
    CHAIN_VXLAN,
    ENTRIES,
    FAMILIES,
    HOOK,
    IPV6,
    OUTPUT,
    Chains,
    Family,
    Hook,
    Match,
    RawTable,
    Words,
    parse,
    spelt,
)
from fixer.rules.sources import Network
from fixer.rules.suspects import Exemption
from fixer.state import baseline
from fixer.state.baseline import Baseline

Variant = Literal["nft", "legacy"]

_LOCK_SECONDS = "5"
_ATTEMPTS = 5

# Debian's iptables 1.8 and the kernel, in their own words.
_NO_PERMISSION = re.compile(r"Permission denied|must be root|Operation not permitted")
_ADVICE = r" (Error occurred at line|Try `|Perhaps ip\w+ or your kernel).*"
_NO_SUCH_TABLE = re.compile(r"Table (`\w+' )?does not exist")
_NOT_IN_KERNEL = re.compile(
    r"Table does not exist|initialize table|can't initialize|do you need to insmod|missing kernel module"
    r"|not supported|No chain/target/match by that name|RULE_(?!DELETE)\w+ failed \(No such file|not implemented"
)


@dataclass(frozen=True)
class Selection:
    """What goes to the queue: VXLAN by its UDP ports or, with ``plain``, all TCP, UDP and ICMP that arrives.

    With a ``count`` there are as many queues, from ``queue`` on; a packet goes to that of the CPU it is received on.
    ``interface`` and ``sources`` narrow it. A family that has no source of its own, while the other has, gets no rule.
    With ``suspects_up_to``, what :mod:`fixer.rules.suspects` exempts passes, and all that is longer than so many bytes;
    with ``syns`` none of it that may be a SYN.
    With a ``flows_queue``, the TCP of ``flows_sources`` goes there, inside VXLAN and with ``plain`` outside too, and so
    do the replies to it, which leave through OUTPUT; ``interface`` and ``sources`` narrow both directions.
    """

    queue: int
    count: int = 1
    ports: Sequence[int] = ()
    plain: bool = False
    interface: str | None = None
    sources: Sequence[Network] = ()
    suspects_up_to: int | None = None
    syns: bool = False
    flows_queue: int | None = None
    flows_sources: Sequence[Network] = ()

    @property
    def queues(self) -> range:
        return range(self.queue, self.queue + self.count)

    def flows_queues(self) -> dict[str, int]:
        """The queue where timestamps are normalised, for each family that has rules that lead there."""
        if self.flows_queue is None:
            return {}
        return {family.key: self.flows_queue for family in FAMILIES if not self.sources or self._sources(family)}

    def chains(self, family: Family) -> Chains:
        """Our chains and their rules, word by word, spelt as iptables-save spells them so that the two can be compared.

        Empty where there is nothing to take.
        """
        if self.sources and not self._sources(family):
            return {}
        where = self._where(family, "-s", "-i")
        plain = [("-p", "tcp"), ("-p", "udp"), ("-p", "ipv6-icmp" if family is IPV6 else "icmp")]
        queue = _queue("--queue-num", str(self.queue))
        if self.count > 1:
            queue = (*_queue("--queue-balance", f"{self.queues[0]}:{self.queues[-1]}"), "--queue-cpu-fanout")
        found: Chains = {CHAIN: []}
        if self.flows_queue is not None:
            found[CHAIN] = self._normalised(family, HOOK)
            found[CHAIN_OUTPUT] = self._normalised(family, OUTPUT)
            found[CHAIN_FLOWS] = [_queue("--queue-num", str(self.flows_queue))]
        longest = self.suspects_up_to
        if longest is None:
            kinds = plain if self.plain else [self._vxlan]
            found[CHAIN] += [(*here, *kind, *queue) for here in where for kind in kinds]
            return found
        # What goes to a VXLAN port must not be exempted as plain UDP: what is inside has to be looked at.
        led = [(self._vxlan, CHAIN_VXLAN), *((kind, CHAIN_PLAIN) for kind in plain if self.plain)]
        # A chain of their own, for the others shall meet one rule and not six; -g, so that who returns is done with us.
        found[CHAIN] += [(*here, *kind, "-g", chain) for here in where for kind, chain in led]
        found[CHAIN_VXLAN] = [*map(_exempting, prefilter.tunnelled(family.version, longest, self.syns)), queue]
        if self.plain:
            found[CHAIN_PLAIN] = [*map(_exempting, prefilter.plain(family.version, longest, self.syns)), queue]
        return found

    def _normalised(self, family: Family, hook: Hook) -> list[Words]:
        """The rules that lead TCP of the sources (in OUTPUT: to them) to the queue of its own."""
        address, device = ("-s", "-i") if hook == HOOK else ("-d", "-o")
        programs = sources.tunnelled(family.version, self.flows_sources, back=hook == OUTPUT)
        matches: list[Words] = [(*self._vxlan, "-m", "bpf", "--bytecode", program) for program in programs]
        found = [(*here, *match) for here in self._where(family, address, device) for match in matches]
        if self.plain:
            both = _common(self._sources(family), self.flows_sources, family)
            found += [(*_limit(address, each), *self._through(device), "-p", "tcp") for each in both]
        return [(*words, "-g", CHAIN_FLOWS) for words in found]

    @property
    def _vxlan(self) -> Words:
        return ("-p", "udp", "-m", "multiport", "--dports", ",".join(map(str, self.ports)))

    def _where(self, family: Family, address: str, device: str) -> list[Words]:
        """What narrows each rule, once for each network: by the address and the device that these options name."""
        limits = [_limit(address, each) for each in self._sources(family)] or [()]
        return [(*limit, *self._through(device)) for limit in limits]

    def _through(self, device: str) -> Words:
        if self.interface:
            return (device, self.interface)
        # What a host sends itself is never finished, and never needs to be.
        return ("!", device, "lo") if self.plain else ()

    def _sources(self, family: Family) -> list[Network]:
        return [source for source in self.sources if source.version == family.version]


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


def _queue(option: str, number: str) -> Words:
    """--queue-bypass: packets pass while nobody listens. fixer may be gone, the network must not."""
    return ("-j", "NFQUEUE", option, number, "--queue-bypass")


def _exempting(exemption: Exemption) -> Words:
    """A rule that lets the exempted go on, behind us: all its programs have to match."""
    programs = [word for program in exemption.programs for word in ("-m", "bpf", "--bytecode", program)]
    comment = ("-m", "comment", "--comment", exemption.why) if exemption.why else ()
    return (*programs, *comment, "-j", "RETURN")


class Tool(NamedTuple):
    """One variant of a family's iptables. The two variants' raw tables are separate hooks; a packet meets both."""

    family: Family
    variant: Variant
    command: str


def turn_on(host: Host, selection: Selection, variant: Variant | None = None) -> list[str]:
    """Put the rules in place in both families, or in neither; what was done and what to know, one line each.

    What is in place already is left alone. Leftovers (a second jump, one that is not last, rules in the other variant)
    are removed. Unless named, ``variant`` is the one that has our rules, or else the host's own choice.
    """
    require_net_admin(host, "fixer on")
    lines: list[str] = []
    before: list[tuple[Tool, RawTable]] = []
    try:
        for family in FAMILIES:
            if family is IPV6 and (absence := _absence(host, family)):
                lines.append(f"IPv6: not covered: {absence}")
                continue
            try:
                lines += _turn_on_family(host, family, selection, variant, before)
            except KernelLacks as error:
                if family is not IPV6:
                    raise
                lines.append(f"IPv6: not covered: {error}")
    except BaseException as error:
        _put_back(host, before, error)
        raise
    if before:
        try:
            _note(host, selection.queues)
        except FixerError as error:
            lines.append(f"fixer status cannot tell what passes unseen: {error}")
    return lines


def _put_back(host: Host, before: list[tuple[Tool, RawTable]], error: BaseException) -> None:
    """Undo after ``error``, the last change first."""
    try:
        for tool, table in reversed(before):
            _settle(host, tool, table.own_chains() if table.position() else {})
        for led in {table.queues for _, table in before if table.is_on}:
            with suppress(FixerError):
                _note(host, led)
    except FixerError as second:
        raise SystemRefused(f"{error}; taking back what was done failed too ({second}): run fixer off") from error


def _note(host: Host, led: range) -> None:
    """A rule that leads to these queues was written: from now on, what passes unseen is counted anew."""
    # The queues are read before the rules: what comes in between must not look like a loss.
    handed = queues.handed(host, led)
    baseline.write(host, Baseline(rule_packets(host, led.start), handed))


def _turn_on_family(
    host: Host, family: Family, selection: Selection, variant: Variant | None, before: list[tuple[Tool, RawTable]]
) -> Iterator[str]:
    """One family; ``before`` gets each table that is changed, as it was before."""
    found = _tables(host, family, variant)
    if variant is None:
        found.sort(key=lambda pair: not pair[1].has_ours)  # stable: among equals the host's own choice stays first
    (chosen, old), *others = found
    for other, leftover in others:
        if leftover.has_ours:
            before.append((other, leftover))
            _settle(host, other, {})
            yield f"{family.name}: removed what we had left in {other.command}"
    before.append((chosen, old))
    wanted = selection.chains(family)
    changed = _settle(host, chosen, wanted)
    if not changed:
        before.pop()
    table = read(host, chosen)
    if not wanted:
        yield f"{family.name}: off: no {family.name} source is given" + (" (was on)" if old.is_on else "")
        return
    yield f"{family.name}: {'on' if changed else 'already on'}: {table}; {placed(table)}"
    if table.flows_queue is not None:
        yield (
            f"{family.name}: normalising: TCP of the configured sources, and the replies to it, "
            f"to queue {table.flows_queue}; {placed(table, OUTPUT)}"
        )
    if old.is_on and not old.in_place:
        entered = " and ".join(f"raw/{hook}" for hook, chain in ENTRIES.items() if chain in old.chains)
        yield f"{family.name}: our jump was not the only one or not the last in {entered}: put right"
    for end in ends(host, chosen, table):
        yield f"{family.name}: {end}"


def turn_off(host: Host) -> list[str]:
    """Remove our chain and what leads to it, from both families and both variants; what was removed, one line each.

    What can be removed is removed, then the first error is raised.
    """
    require_net_admin(host, "fixer off")
    lines: list[str] = []
    errors: list[FixerError] = []
    for family in FAMILIES:
        if family is IPV6 and host.which(family.command) is None:
            continue
        was_on = False
        try:
            for tool, table in _tables(host, family):
                if table.has_ours:
                    was_on = True
                    _settle(host, tool, {})
                    baseline.remove(host)
                    queued = sum(rule.packets for rule in table.ours() if rule.target == "NFQUEUE")
                    lines.append(
                        f"{family.name}: off: removed chain {CHAIN} ({_count(table.ours(), 'rule')}, "
                        f"{queued:,} packets) and {_count(table.jumps(), 'jump')} to it ({tool.command})"
                    )
        except FixerError as error:
            if family is IPV6 and isinstance(error, KernelLacks):
                lines.append(f"IPv6: not covered: {error}")
            else:
                errors.append(error)
        else:
            if not was_on:
                lines.append(f"{family.name}: nothing of ours was there")
    if errors:
        raise errors[0]
    return lines


def rule_packets(host: Host, queue: int) -> dict[str, int | None]:
    """How many packets our rules have sent to the queue (and those beside it) so far: ``{"ipv4": 12, "ipv6": None}``.

    None where no rule of ours sends to ``queue``, or nothing can be read. Never raises: a count is not worth a daemon.
    """
    found: dict[str, int | None] = {}
    for family in FAMILIES:
        found[family.key] = None
        try:
            both = _tables(host, family)
        except FixerError:
            continue
        for _, table in both:
            if table.is_on and queue in table.queues:
                found[family.key] = table.packets
                break
    return found


def flows_queues(host: Host) -> dict[str, int]:
    """The queue where timestamps are normalised, for each family with rules of ours that lead there.

    Raises what :func:`tables` does, but for a family that is not to be had.
    """
    found: dict[str, int] = {}
    for family in FAMILIES:
        try:
            led = [table.flows_queue for _, table in tables(host, family)]
        except (KernelLacks, ProgramMissing):
            continue
        for queue in led:
            if queue is not None:
                found[family.key] = queue
    return found


def tables(host: Host, family: Family) -> list[tuple[Tool, RawTable]]:
    """The raw tables of a family: the variant with our rules first, else the host's own choice.

    Raises :class:`KernelLacks` or :class:`ProgramMissing` where the family is not to be had.
    """
    if family is IPV6 and (absence := _absence(host, family)):
        raise KernelLacks(absence)
    return sorted(_tables(host, family), key=lambda pair: not pair[1].is_on)


def _tables(host: Host, family: Family, variant: Variant | None = None) -> list[tuple[Tool, RawTable]]:
    """The raw table of each variant there is, ``variant`` (or else the host's choice) first.

    One that the kernel lacks is left out if the other is the one asked for, or has our rules. Else nobody can say that
    we have none: :class:`KernelLacks`.
    """
    found: list[tuple[Tool, RawTable]] = []
    lacking: KernelLacks | None = None
    for tool in _tools(host, family, variant):
        try:
            found.append((tool, read(host, tool)))
        except KernelLacks as error:
            if tool.variant == variant:
                raise
            lacking = error
    if lacking and variant is None and not any(table.has_ours for _, table in found):
        raise lacking
    return found


def read(host: Host, tool: Tool) -> RawTable:
    """The raw table as it is; one that does not exist is empty. Looking does not create it.

    Any other refusal is an error: an unread table is not an empty one.
    """
    if tool.variant == "legacy":
        names = "ip6_tables_names" if tool.family is IPV6 else "ip_tables_names"
        # iptables-legacy-save creates the table it is asked for.
        if "raw" not in (host.read(f"{NET}/{names}") or "").split():
            return RawTable()
    done = host.run([f"{tool.command}-save", "-c", "-t", "raw"])
    if done.status == 0:
        return parse(done.out)
    if _NO_SUCH_TABLE.search(done.err):
        return RawTable()
    raise _refusal(tool, done)


def placed(table: RawTable, hook: Hook = HOOK) -> str:
    """Where our jump stands, for people."""
    position, count = table.position(hook), len(table.hook(hook))
    return f"rule {position} of {count} in raw/{hook}" + (", last" if position == count else ", not last")


def ends(host: Host, tool: Tool, table: RawTable) -> Iterator[str]:
    """The rules before ours that keep packets from us, one line each, with a way out."""
    way_out = ""
    for other in _tools(host, tool.family, None):
        if other.variant != tool.variant:
            way_out = f", or use the other table, which it does not reach: fixer on --variant {other.variant}"
    entered = [hook for hook, chain in ENTRIES.items() if chain in table.chains]
    for end in (end for hook in entered for end in table.ends_before_us(table.traffic(hook), hook)):
        extent = "all our packets" if end.match is Match.ALL else "the packets it matches"
        via = f' leads to "{end.rule}", which' if end.entry != end.rule else ""
        yield f'"{end.entry}" stands before our jump and{via} ends the walk for {extent}: move it behind{way_out}'


def _tools(host: Host, family: Family, variant: Variant | None) -> list[Tool]:
    """The variants there are of a family's iptables, the chosen one (or else the host's choice) first."""
    own: Variant = "nft" if "nf_tables" in host.run([family.command, "--version"]).out else "legacy"
    found = [Tool(family, own, family.command)]
    other: Variant = "legacy" if own == "nft" else "nft"
    command = f"{family.command}-{other}"
    if host.which(command):
        found.append(Tool(family, other, command))
    elif variant == other:
        raise ProgramMissing(f"{command} is not installed, so there is no --variant {other} here")
    return sorted(found, key=lambda tool: tool.variant != (variant or own))


def _absence(host: Host, family: Family) -> str | None:
    """Why this host has no IPv6 to speak of; None if it has."""
    if host.which(family.command) is None:
        return f"{family.command} is not installed (apt-get install iptables)"
    if not host.exists(f"{NET}/if_inet6"):
        return "IPv6 is switched off on this host"
    return None


def _settle(host: Host, tool: Tool, wanted: Chains) -> bool:
    """Make our chains be ``wanted`` (empty: none) with one jump, last; whether there was anything to do."""
    table = read(host, tool)
    if _settled(table, wanted) and table.own_chains() == wanted:
        return False
    refusal: FixerError | None = None
    for _ in range(_ATTEMPTS):  # somebody else may change the table between our reading and our writing
        done = host.run([f"{tool.command}-restore", "--noflush", "-w", _LOCK_SECONDS], input=_script(table, wanted))
        refusal = _refusal(tool, done) if done.status != 0 else None
        if isinstance(refusal, NotPermitted):
            raise refusal  # what looks lacking may be a chain or a rule that has just been removed
        table = read(host, tool)
        if _settled(table, wanted):
            return True
    raise refusal or SystemRefused(f"{tool.command}: something else keeps changing raw/{HOOK}; find it, then try again")


def _settled(table: RawTable, wanted: Chains) -> bool:
    """Counts only: an older iptables-save may spell a rule in another way than we do."""
    if not wanted:
        return not table.has_ours
    own = table.own_chains()
    return table.in_place and {name: len(own[name]) for name in own} == {name: len(wanted[name]) for name in wanted}


def _script(table: RawTable, wanted: Chains) -> str:
    """The transaction for iptables-restore. Naming a chain empties or makes it; the jump comes once it is full."""
    own = [*wanted, *(name for name in table.own_chains() if name not in wanted)] or [CHAIN]
    lines = ["*raw", *(f":{name} - [0:0]" for name in own)]
    lines += [f"-A {name} {spelt(words)}" for name, rules in wanted.items() for words in rules]
    lines += [f"-D {jump.chain} {spelt(jump.words)}" for jump in table.jumps()]
    lines += [f"-A {hook} -j {chain}" for hook, chain in ENTRIES.items() if chain in wanted]
    lines += [f"-X {name}" for name in own if name not in wanted]
    return "\n".join([*lines, "COMMIT", ""])


def require_net_admin(host: Host, command: str) -> None:
    """Raises :class:`NotPermitted` without CAP_NET_ADMIN; ``command`` is what to type as root."""
    if not host.has_net_admin():
        raise NotPermitted(f"the rules can only be changed by root (CAP_NET_ADMIN): sudo {command}")


def _refusal(tool: Tool, done: Completed) -> FixerError:
    """A failed command as the error it means, with its own words."""
    said = " ".join(line for line in done.err.splitlines() if not line.startswith("#")).split()
    words = re.sub(_ADVICE, "", " ".join(said)) or f"{tool.command} failed with status {done.status}"
    if _NO_PERMISSION.search(words):
        return NotPermitted(f"no permission to use the raw table, run this as root: {words}")
    if "queue-cpu-fanout" in words or "queue-balance" in words:
        lacking = "cannot spread packets over queues (--queue-cpu-fanout, Linux 3.10): set queue.count = 1"
        return KernelLacks(f"the kernel or its {tool.family.command} {lacking}: {words}")
    if _NOT_IN_KERNEL.search(words):
        lacking = "the raw table, multiport, NFQUEUE or (for --scope suspects and to normalise timestamps) bpf"
        return KernelLacks(f"the kernel lacks {lacking} for {tool.family.name}: {words}")
    if "xtables lock" in words:
        return SystemRefused(f"another program holds the xtables lock; try again when it is done: {words}")
    return SystemRefused(f"{tool.command} refused: {words}")


def _count(things: Sequence[object], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"
