"""iptables as a backend: our chains in the raw table of one family, and the one jump to them, last in PREROUTING.

Where timestamps are normalised, or what leaves is completed, there is a second jump, last in OUTPUT. Every change is
one transaction of ``iptables-restore --noflush``: the chains are filled, the old jumps (wherever they stood) go and the
new ones come, all or nothing. Rules, counters and order of everybody else stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from fixer.errors import FixerError, KernelLacks, NotPermitted, ProgramMissing, SystemRefused
from fixer.host import addresses
from fixer.host.machine import NET, Completed, Host
from fixer.rules import ahead
from fixer.rules.chains import chains_of
from fixer.rules.installed import Ahead, Change, Counted, Installed, Place
from fixer.rules.rawtable import CHAIN, ENTRIES, HOOK, OUTPUT, Chains, Hook, Line, RawTable, parse, spelt
from fixer.rules.selection import IPV4, IPV6, Family, Selection
from fixer.state.baseline import Written

Variant = Literal["iptables", "nft", "legacy", "native"]
"""Which of the two iptables, or either (``iptables``); or nftables itself, in :mod:`fixer.rules.nftables`."""

COMMANDS = {IPV4: "iptables", IPV6: "ip6tables"}

_LOCK_SECONDS = "5"
_ATTEMPTS = 5

# Debian's iptables 1.8 and the kernel, in their own words.
_NO_PERMISSION = re.compile(r"Permission denied|must be root|Operation not permitted")
_ADVICE = r" (Error occurred at line|Try `|Perhaps ip\w+ or your kernel).*"
_NO_SUCH_TABLE = re.compile(r"Table (`\w+' )?does not exist")
_FOREIGN = re.compile(r"^# Table `raw' is incompatible|^# Table `raw` is incompatible", re.MULTILINE)
_NO_WAIT = re.compile(r"(unrecognized|invalid|unknown) option.*w\b")
_NOT_IN_KERNEL = re.compile(
    r"Table does not exist|initialize table|can't initialize|do you need to insmod|missing kernel module"
    r"|not supported|No chain/target/match by that name|Couldn't load (match|target)"
    r"|RULE_(?!DELETE)\w+ failed \(No such file|not implemented"
)


@dataclass(frozen=True)
class Iptables:
    """One variant of a family's iptables. The two variants' raw tables are separate hooks; a packet meets both."""

    host: Host
    family: Family
    variant: Variant
    command: str
    other: Variant | None
    """The other variant, if this host has it."""

    def read(self, written: Written | None = None) -> Installed:
        """What there is of ours. It means what ``written`` says if it is just that: the kernel's spelling is compared.

        Looking does not create the table. Any refusal is an error: an unread table is not an empty one.
        """
        return self._installed(self._table(), written)

    def apply(self, wanted: Selection | None, before: Installed) -> Change:
        """Make our rules be ``wanted`` (None: none), if they are not; ``before`` is what was read.

        What the kernel says of them afterwards is what was written. Raises :class:`KernelLacks`,
        :class:`NotPermitted` or :class:`SystemRefused`; then it is not known what there is.
        """
        rules = chains_of(wanted, self.family) if wanted else {}
        if not rules and not before.is_there:
            return Change(self.family, "nothing", before, before)
        if rules and before.in_place and (_chains(before) == rules or before.selection == wanted):
            return Change(self.family, "kept", before, replace(before, selection=wanted))
        after = self._installed(self._write(_ours(before), rules), None)
        if not rules:
            return Change(self.family, "removed", before, after)
        return Change(self.family, "written", before, replace(after, selection=wanted))

    def put_back(self, before: Installed) -> None:
        """Make our rules be as they were; none, if nothing led to them. Raises what :meth:`apply` does."""
        table = self._table()
        wanted = _chains(before) if before.place.position else {}
        if not _exactly(table, wanted):
            self._write(table, wanted)

    def _table(self) -> RawTable:
        # iptables-legacy-save creates the table it is asked for.
        if self.variant == "legacy" and not _has_legacy_raw(self.host, self.family):
            return RawTable()
        done = self.host.run([f"{self.command}-save", "-c", "-t", "raw"])
        if done.status == 0:
            if _FOREIGN.search(done.out):
                # iptables-nft shows nothing of a table that holds what it cannot say: that is not an empty one.
                raise SystemRefused(
                    f"{self.command} cannot show the raw table, for it has rules of nft's own: use --backend nft, or "
                    "see nft list ruleset"
                )
            return parse(done.out)
        if _NO_SUCH_TABLE.search(done.err):
            return RawTable()
        raise self._refusal(done)

    def _installed(self, table: RawTable, written: Written | None) -> Installed:
        ordinary = table.ordinary()
        taken = ahead.traffic(table)
        queueing, merged = table.queueing(), table.merged()
        passing = _packets(table.exempting()) - _packets(merged)
        said = table.said()
        queued = _packets([line for line in table.ours() if line.target == "NFQUEUE"])
        return Installed(
            family=self.family,
            backend=self.command,
            said=said,
            parts=f"chain {CHAIN} ({_count(table.ours(), 'rule')}, {queued:,} packets) and "
            f"{_count(table.jumps(), 'jump')} to it",
            selection=_selection(written)
            if written and (written.backend, written.said) == (self.command, said)
            else None,
            on=table.is_on,
            queues=table.queues,
            flows_queue=table.flows_queue,
            outgoing_queue=table.outgoing_queue,
            scope=table.scope,
            takes=str(table) if table.is_on else "",
            takes_plain=table.is_on and (bool(taken.protocols - {"udp"}) or taken.ports is None),
            ports=taken.ports,
            interface=table.interface(ordinary),
            until=table.until,
            place=_place(table, HOOK),
            way_back=_place(table, OUTPUT),
            in_place=table.in_place,
            surplus=table.has_surplus_jumps(),
            counted=Counted(
                packets=_packets(queueing),
                bytes=sum(line.bytes for line in queueing),
                finished=passing,
                merged=_packets(merged),
                arrived=_packets(table.normalising(HOOK)),
                left=_packets(table.normalising(OUTPUT)),
                outgoing=_packets(table.outgoing()),
            ),
            ahead=tuple(_ahead(table, addresses.local(self.host, self.family.version))),
            elsewhere=self.other,
        )

    def _write(self, table: RawTable, wanted: Chains) -> RawTable:
        """Make our chains be ``wanted`` (empty: none) with one jump, last; the table then, ``table`` before."""
        refusal: FixerError | None = None
        for _ in range(_ATTEMPTS):  # somebody else may change the table between our reading and our writing
            command = [f"{self.command}-restore", "--noflush"]
            done = self.host.run([*command, "-w", _LOCK_SECONDS], input=_script(table, wanted))
            if done.status != 0 and _NO_WAIT.search(done.err):  # before 1.6.2
                done = self.host.run(command, input=_script(table, wanted))
            refusal = self._refusal(done) if done.status != 0 else None
            if isinstance(refusal, NotPermitted):
                raise refusal  # what looks lacking may be a chain or a rule that has just been removed
            table = self._table()
            if _exactly(table, wanted) or (refusal is None and _alike(table, wanted)):
                return table
        raise refusal or SystemRefused(
            f"{self.command}: something else keeps changing raw/{HOOK}; find it, then try again"
        )

    def _refusal(self, done: Completed) -> FixerError:
        """A failed command as the error it means, with its own words."""
        said = " ".join(line for line in done.err.splitlines() if not line.startswith("#")).split()
        words = re.sub(_ADVICE, "", " ".join(said)) or f"{self.command} failed with status {done.status}"
        if _NO_PERMISSION.search(words):
            return NotPermitted(f"no permission to use the raw table, run this as root: {words}")
        if "queue-cpu-fanout" in words or "queue-balance" in words:
            lacking = "cannot spread packets over queues (--queue-cpu-fanout, Linux 3.10): set queue.count = 1"
            return KernelLacks(f"the kernel or its {COMMANDS[self.family]} {lacking}: {words}")
        if _NOT_IN_KERNEL.search(words):
            lacking = "the raw table, multiport, NFQUEUE or (for --scope suspects and to normalise timestamps) bpf"
            return KernelLacks(f"the kernel lacks {lacking} for {self.family.name}: {words}")
        if "xtables lock" in words:
            return SystemRefused(f"another program holds the xtables lock; try again when it is done: {words}")
        return SystemRefused(f"{self.command} refused: {words}")


def _has_legacy_raw(host: Host, family: Family) -> bool:
    names = "ip6_tables_names" if family is IPV6 else "ip_tables_names"
    return "raw" in (host.read(f"{NET}/{names}") or "").split()


def variants(host: Host, family: Family, asked: Variant | None = None) -> list[Iptables]:
    """The variants there are of a family's iptables, the one asked for (or else the host's choice) first.

    Raises :class:`ProgramMissing` if there is none, or not the one asked for.
    """
    command = COMMANDS[family]
    own = _own_variant(host, command)
    other: Variant = "legacy" if own == "nft" else "nft"
    second = f"{command}-{other}"
    if host.which(second) is None:
        if asked == other:
            raise ProgramMissing(f"{second} is not installed, so there is no --variant {other} here")
        return [Iptables(host, family, own, command, None)]
    found = [Iptables(host, family, own, command, other), Iptables(host, family, other, second, own)]
    return sorted(found, key=lambda each: each.variant != (asked or own))


def _own_variant(host: Host, command: str) -> Variant:
    """Which variant a plain ``iptables`` is: its file is called so, or it says so itself."""
    name = host.resolved(command) or ""
    for variant in ("nft", "legacy"):
        if variant in name:
            return variant
    return "nft" if "nf_tables" in host.run([command, "--version"]).out else "legacy"


def absence(host: Host, family: Family) -> str | None:
    """Why this host has no IPv6 to speak of; None if it has."""
    if family is not IPV6:
        return None
    if host.which(COMMANDS[IPV6]) is None:
        return f"{COMMANDS[IPV6]} is not installed (apt-get install iptables)"
    if not host.exists(f"{NET}/if_inet6"):
        return "IPv6 is switched off on this host"
    return None


def _script(table: RawTable, wanted: Chains) -> str:
    """The transaction for iptables-restore. Naming a chain empties or makes it; the jump comes once it is full."""
    own = [*wanted, *(name for name in table.own_chains() if name not in wanted)] or [CHAIN]
    lines = ["*raw", *(f":{name} - [0:0]" for name in own)]
    lines += [f"-A {name} {spelt(words)}" for name, rules in wanted.items() for words in rules]
    lines += [f"-D {jump.chain} {spelt(jump.words)}" for jump in table.jumps()]
    lines += [f"-A {hook} -j {chain}" for hook, chain in ENTRIES.items() if chain in wanted]
    lines += [f"-X {name}" for name in own if name not in wanted]
    return "\n".join([*lines, "COMMIT", ""])


def _exactly(table: RawTable, wanted: Chains) -> bool:
    return table.in_place and table.own_chains() == wanted if wanted else not table.has_ours


def _alike(table: RawTable, wanted: Chains) -> bool:
    """As many rules in the same chains. That is all to be asked of what was not refused: an older iptables-save may
    spell a rule in another way than we do."""
    own = table.own_chains()
    return table.in_place and {name: len(own[name]) for name in own} == {name: len(wanted[name]) for name in wanted}


def _ours(found: Installed) -> RawTable:
    """Our part of the table that ``found`` was read from."""
    return parse("\n".join(found.said))


def _chains(found: Installed) -> Chains:
    return _ours(found).own_chains()


def _selection(written: Written) -> Selection | None:
    """None if another version of fixer wrote it."""
    try:
        return msgspec.json.decode(written.selection, type=Selection)
    except msgspec.DecodeError:
        return None


def _place(table: RawTable, hook: Hook) -> Place:
    return Place(f"raw/{hook}", table.position(hook), len(table.hook(hook)), ENTRIES[hook])


def _ahead(table: RawTable, local: ahead.Addresses | None) -> Iterator[Ahead]:
    for hook, chain in ENTRIES.items():
        if chain in table.chains:
            yield from ahead.told(ahead.ends(table, ahead.traffic(table, hook, local), hook))


def _packets(lines: Sequence[Line]) -> int:
    return sum(line.packets for line in lines)


def _count(things: Sequence[object], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"
