"""nftables as a backend: a table of our own for each family, hooked between raw and conntrack.

Being last is the priority's work there and not the position's: nobody can append behind us, and nobody's raw rules are
passed over. One transaction of ``nft -f`` makes the table anew, whole or not at all. What a rule of nftables cannot
express (``--scope suspects``, the sources whose timestamps are normalised: both are programs of classic BPF) is
iptables' alone.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC
from ipaddress import ip_network
from typing import Any, Literal

import msgspec

from fixer.errors import FixerError, KernelLacks, NotPermitted, SystemRefused
from fixer.host.machine import Completed, Host
from fixer.host.queues import bound
from fixer.rules import earlier
from fixer.rules.installed import Ahead, Change, Counted, Installed, Place
from fixer.rules.selection import IPV6, Family, Selection, shown_queues
from fixer.state.baseline import Written

TABLE, CHAIN, OUTPUT = "fixer", "prerouting", "output"
"""Ours, and its chains, which are called as the hooks that they are in; the second one is for what leaves."""
PRIORITY = -299
"""Behind raw (-300), where others say NOTRACK, and before conntrack (-200), which calls a broken packet INVALID."""

DRAIN_SECONDS = 1.0
"""How long packets that a daemon holds are waited for, before the kernel drops them with our hooks."""
_PLAIN = {4: "tcp, udp, icmp", 6: "tcp, udp, icmpv6"}
_NO_PERMISSION = re.compile(r"Operation not permitted|Permission denied")
_NO_TABLE = re.compile(r"No such file or directory|does not exist")


@dataclass(frozen=True)
class Nftables:
    """The table of one family."""

    host: Host
    family: Family
    variant: Literal["native"] = "native"
    command: str = "nft"

    @property
    def _kind(self) -> str:
        return "ip6" if self.family is IPV6 else "ip"

    def read(self, written: Written | None = None) -> Installed:
        """What there is of ours. It means what ``written`` says if it is just that. Any refusal is an error."""
        return self._seen(self._table(), written)

    def apply(self, wanted: Selection | None, before: Installed) -> Change:
        """Make our table be ``wanted`` (None: none), if it is not; ``before`` is what was read.

        Raises :class:`KernelLacks`, :class:`NotPermitted` or :class:`SystemRefused`; then all is as it was.
        """
        wants = wanted is not None and wanted.concerns(self.family)
        if not wants and not before.is_there:
            return Change(self.family, "nothing", before, before)
        if wants and before.in_place and before.selection == wanted:
            return Change(self.family, "kept", before, before)
        if not wants or wanted is None:
            self._remove(before)
            return Change(self.family, "removed", before, self.read())
        hooked = sum('"hook"' in each for each in before.said)
        self._write(script(wanted, self.family), keeps_hook=before.in_place and hooked <= len(_chains(wanted)))
        table = self._table()
        # What the kernel says of it now is what was written.
        meant = Written(self.command, tuple(map(_spelt, table)), msgspec.Raw(msgspec.json.encode(wanted)))
        return Change(self.family, "written", before, self._seen(table, meant))

    def takes(self, wanted: Selection) -> bool:
        """Whether nft and this kernel can: the rules that would be written, in a scratch table that is never committed.

        Without its hook: to take one back, as an abort does too, the kernel drops what every queue here holds.
        """
        try:
            trial = script(wanted, self.family, f"{TABLE}-trial", is_hooked=False)
        except KernelLacks:
            return False
        return self._run("--check", "-f", "-", input=trial).status == 0

    def put_back(self, before: Installed) -> None:
        """Make our table be as it was; none, if nobody knows what it meant. Raises what :meth:`apply` does."""
        selection = before.selection if before.on else None
        self._write(script(selection, self.family) if selection else "")

    def _table(self) -> list[dict[str, Any]]:
        """The objects of our table; none if it does not exist."""
        return self._objects("table", self._kind, TABLE)

    def _objects(self, *what: str) -> list[dict[str, Any]]:
        """What ``nft list`` says of it; nothing if it does not exist."""
        done = self._run("-j", "list", *what)
        if done.status != 0:
            if _NO_TABLE.search(done.err):
                return []
            raise self._refusal(done)
        try:
            said = msgspec.json.decode(done.out)["nftables"]
        except (msgspec.DecodeError, KeyError) as error:
            raise SystemRefused("nft -j is too old to be understood: use --backend iptables") from error
        return [each for each in said if "metainfo" not in each]

    def _seen(self, table: list[dict[str, Any]], written: Written | None) -> Installed:
        """Our table, and what stands before it, as far as others' tables can be read: ours is right without that."""
        found = self._installed(table, written)
        with suppress(FixerError):
            if found.on:
                return replace(found, ahead=tuple(self._ahead(found)))
        return found

    def _ahead(self, found: Installed) -> Iterator[Ahead]:
        """What drops our packets before our rules meet them."""
        ports = sorted(found.ports) if found.ports else [None]
        packets = [earlier.Packet(self.family, port, found.interface) for port in ports]
        for chain in earlier.chains(self._objects("chains"), self.family, PRIORITY):
            yield from earlier.drops(chain, self._objects("table", chain.family, chain.table), packets)

    def _installed(self, table: list[dict[str, Any]], written: Written | None) -> Installed:
        said = tuple(map(_spelt, table))
        rules = [each["rule"] for each in table if "rule" in each]
        hooks = {each["chain"].get("hook"): each["chain"].get("prio") for each in table if "chain" in each}
        place, way_back = (self._place(hook, hooks.get(hook) == PRIORITY) for hook in (CHAIN, OUTPUT))
        queues = next(map(_queues, _parts(rules, CHAIN, "queue")), range(0))
        outgoing = next(map(_queues, _parts(rules, OUTPUT, "queue")), None)
        counters, beside = (list(_parts(rules, chain, "counter")) for chain in (CHAIN, OUTPUT))
        selection = _selection(written, said)
        meant = selection or _as_read(rules, queues)
        met, left = (sum(each["packets"] for each in counted) for counted in (counters, beside))
        takes = f"what its rules say, to {shown_queues(queues)}" if queues else ""
        return Installed(
            family=self.family,
            backend=self.command,
            said=said,
            parts=f"table {self._kind} {TABLE} ({len(rules)} rules, {met + left:,} packets)",
            selection=selection,
            on=place.position is not None and bool(queues),
            queues=queues,
            flows_queue=None,
            outgoing_queue=outgoing.start if outgoing else None,
            scope="all",
            takes=_takes(meant) if meant else takes,
            takes_plain=meant is not None and meant.plain,
            ports=frozenset(meant.ports) if meant and not meant.plain else None,
            interface=meant.interface if meant else None,
            until=selection.until if selection else None,
            place=place,
            way_back=way_back,
            in_place=place.position is not None and (outgoing is None or way_back.position is not None),
            surplus=False,
            counted=Counted(packets=met, bytes=sum(each["bytes"] for each in counters), outgoing=left),
            ahead=(),
            elsewhere=None,
        )

    def _place(self, hook: str, is_there: bool) -> Place:
        """Nobody can append behind us there."""
        return Place(f"{self._kind} {TABLE} {hook} at priority {PRIORITY}", 1 if is_there else None, 1, hook)

    def _remove(self, before: Installed) -> None:
        """Take our table away: first its rules, then its hooks, once our queues hold nothing any more.

        For the kernel drops with a hook what every queue here holds. A daemon that stands still is not waited for.
        """
        self._write("", keeps_hook=True)
        outgoing = before.outgoing_queue
        ours = {*before.queues} | (set() if outgoing is None else {outgoing})
        deadline = time.monotonic() + DRAIN_SECONDS
        with suppress(NotPermitted):
            while any(line.waiting for number, line in bound(self.host).items() if number in ours):
                if time.monotonic() >= deadline:
                    break
                time.sleep(0.002)
        self._write("")

    def _write(self, text: str, *, keeps_hook: bool = False) -> None:
        """Make our table anew, or remove it. Adding it first makes that no error where it is not there.

        ``keeps_hook``: the rules alone, for taking back a hook makes the kernel drop what every queue here holds
        (nf_unregister_net_hook, nfqnl_nf_hook_drop).
        """
        verb = "flush" if keeps_hook else "delete"
        head = f"add table {self._kind} {TABLE}\n{verb} table {self._kind} {TABLE}\n"
        done = self._nft(head + text)
        if done.status != 0:
            raise self._refusal(done)

    def _nft(self, text: str) -> Completed:
        return self._run("-f", "-", input=text)

    def _run(self, *arguments: str, input: str | None = None) -> Completed:
        # nft reads and writes times of day by the clock of the place, and knows no other way.
        return self.host.run(["env", "TZ=UTC0", self.command, *arguments], input=input)

    def _refusal(self, done: Completed) -> FixerError:
        words = " ".join(line for line in done.err.splitlines() if not set(line.strip()) <= {"^", "~"}).strip()
        if _NO_PERMISSION.search(words):
            return NotPermitted(f"no permission to change nftables, run this as root: {words}")
        if _NO_TABLE.search(words) or "not supported" in words or "syntax error" in words:
            return KernelLacks(
                f"the kernel (or its nft) lacks the queue statement or meta time for {self.family.name}: {words}"
            )
        return SystemRefused(f"nft refused: {words or f'status {done.status}'}")


def script(selection: Selection, family: Family, table: str = TABLE, *, is_hooked: bool = True) -> str:
    """The table as nft reads it."""
    kind = "ip6" if family is IPV6 else "ip"
    chains = "".join(_chain(chain, selection, family, is_hooked) for chain in _chains(selection))
    return f"table {kind} {table} {{\n{chains}}}\n"


def _chains(selection: Selection) -> list[str]:
    return [CHAIN] if selection.outgoing_queue is None else [CHAIN, OUTPUT]


def _chain(chain: str, selection: Selection, family: Family, is_hooked: bool) -> str:
    hook = f"type filter hook {chain} priority {PRIORITY}; policy accept;"
    lines = [*([hook] if is_hooked else []), *_rules(chain, selection, family)]
    body = "\n".join(f"\t\t{line}" for line in lines)
    return f"\tchain {chain} {{\n{body}\n\t}}\n"


def _rules(chain: str, selection: Selection, family: Family) -> Iterator[str]:
    if selection.suspects_up_to is not None or selection.flows_queue is not None:
        raise KernelLacks("--scope suspects and normalised timestamps are programs that iptables alone can hold")
    way, device = ("saddr", "iifname") if chain == CHAIN else ("daddr", "oifname")
    if selection.until is not None:
        yield f'meta time >= "{selection.until.astimezone(UTC):%Y-%m-%d %H:%M:%S}" return'
    match = ""
    if networks := selection.networks(family):
        kind = "ip6" if family is IPV6 else "ip"
        match += f"{kind} {way} {{ {', '.join(map(str, networks))} }} "
    if selection.interface:
        match += f'{device} "{selection.interface.replace("+", "*")}" '
    elif selection.plain:
        match += f'{device} != "lo" '  # what a host sends itself is never finished, and never needs to be
    if selection.plain:
        match += f"meta l4proto {{ {_PLAIN[family.version]} }} "
    else:
        match += f"udp dport {{ {', '.join(map(str, selection.ports))} }} "
    if chain == OUTPUT:
        yield match + f"counter queue num {selection.outgoing_queue} bypass"
        return
    first, last = selection.queues[0], selection.queues[-1]
    yield match + "counter queue num " + (f"{first} bypass" if first == last else f"{first}-{last} bypass,fanout")


def _takes(selection: Selection) -> str:
    """Which packets go where, for people."""
    ports = "" if selection.plain else f" to port {', '.join(map(str, selection.ports))}"
    said = ("TCP, UDP, ICMP" if selection.plain else "UDP") + ports
    said += f" on {selection.interface}" if selection.interface else ""
    said += f" from {', '.join(selection.sources)}" if selection.sources else ""
    return f"{said} to {shown_queues(selection.queues)}"


def _spelt(thing: dict[str, Any]) -> str:
    """One object as the kernel spells it, without what changes by itself."""
    return msgspec.json.encode(_still(thing), order="sorted").decode()


def _still(thing: Any) -> Any:
    if isinstance(thing, dict):
        return {key: 0 if key in ("packets", "bytes", "handle") else _still(value) for key, value in thing.items()}
    return [_still(each) for each in thing] if isinstance(thing, list) else thing


def _parts(rules: list[dict[str, Any]], chain: str, name: str) -> Iterator[Any]:
    """Every ``name`` that the rules of a chain of ours have in them."""
    for rule in rules:
        if rule["chain"] == chain:
            yield from (part[name] for part in rule["expr"] if name in part)


def _queues(queue: dict[str, Any]) -> range:
    number = queue.get("num", 0)
    if isinstance(number, dict):
        first, last = number["range"]
        return range(first, last + 1)
    return range(number, number + 1)


def _as_read(rules: list[dict[str, Any]], queues: range) -> Selection | None:
    """What the rule of the queue takes, where nobody remembers what was written; None if it is not as we write it."""
    ours = (rule["expr"] for rule in rules if rule["chain"] == CHAIN)
    queueing = [expression for expression in ours if any("queue" in part for part in expression)]
    if len(queueing) != 1:
        return None
    found: dict[str, Any] = {"queue": queues.start, "count": len(queues)}
    try:
        for match in (part["match"] for part in queueing[0] if "match" in part):
            found |= _meaning(match)
        return msgspec.convert(found, Selection)
    except (msgspec.ValidationError, ValueError):
        return None


def _meaning(match: dict[str, Any]) -> dict[str, Any]:
    """What a condition of a rule says of a selection; ValueError if it is none that we write."""
    right = match["right"]
    several = right["set"] if isinstance(right, dict) and "set" in right else [right]
    match [match["op"], *_path(match["left"])]:
        case ["==", "payload", "udp", "dport"]:
            return {"ports": several}
        case ["==", "payload", "ip" | "ip6", "saddr"]:
            return {"sources": list(map(_network, several))}
        case ["==", "meta", "iifname"]:
            return {"interface": str(right).replace("*", "+")}
        case ["!=", "meta", "iifname"]:
            return {}
        case ["==", "meta", "l4proto"] if len(several) > 1:
            return {"plain": True}
    raise ValueError(match)


def _path(left: dict[str, Any]) -> list[Any]:
    """``{"meta": {"key": "l4proto"}}`` as meta, l4proto."""
    (kind, what), *_ = left.items()
    return [kind, *what.values()] if isinstance(what, dict) else [kind]


def _network(source: Any) -> str:
    prefix = source.get("prefix") if isinstance(source, dict) else None
    return str(ip_network(f"{prefix['addr']}/{prefix['len']}" if prefix else source))


def _selection(written: Written | None, said: tuple[str, ...]) -> Selection | None:
    if written is None or (written.backend, written.said) != ("nft", said):
        return None
    try:
        return msgspec.json.decode(written.selection, type=Selection)
    except msgspec.DecodeError:
        return None
