"""``fixer on`` and ``fixer off``: the rules of both families put in place, or in none; taken away; looked at.

Says what was done as :class:`fixer.rules.installed.Change`; the sentences are made where they are shown.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import msgspec

from fixer.errors import FixerError, KernelLacks, NotPermitted, ProgramMissing, SystemRefused
from fixer.host import queues
from fixer.host.machine import NET, Host
from fixer.host.queues import Handed
from fixer.rules.installed import Change, Installed
from fixer.rules.iptables import COMMANDS, Iptables, Variant, absence, variants
from fixer.rules.nftables import Nftables
from fixer.rules.selection import FAMILIES, IPV6, Family, Selection
from fixer.state import baseline
from fixer.state.baseline import Baseline, Written

Backend = Iptables | Nftables
Found = list[tuple[Backend, Installed]]


class Switched(NamedTuple):
    """What `on` did; ``trouble`` is why nobody will know what passes unseen, nor whether the rules are still right."""

    changes: list[Change]
    trouble: FixerError | None = None


def on(host: Host, selection: Selection, variant: Variant | None = None) -> Switched:
    """Put the rules in place in both families, or in neither.

    What is in place already is left alone. Leftovers (a second jump, one that is not last, rules in the other variant)
    are removed. Unless named, ``variant`` is the one that has our rules; else nftables itself where a trial of it
    succeeds, else the host's own choice of iptables.
    Raises :class:`NotPermitted`, :class:`KernelLacks`, :class:`ProgramMissing` or :class:`SystemRefused`.
    """
    require_net_admin(host, "fixer on")
    noted = remembered(host)
    work = _Work(host, selection, variant, noted)
    try:
        for family in FAMILIES:
            try:
                work.do(family)
            except KernelLacks as error:
                if family is not IPV6:
                    raise
                work.changes.append(Change(family, "uncovered", why=str(error)))
    except BaseException as error:
        _put_back(host, work.begun, noted, error)
        raise
    try:
        _remember(host, selection, work.changes, noted)
    except FixerError as error:
        return Switched(work.changes, error)
    return Switched(work.changes)


@dataclass
class _Work:
    """What `on` has begun and done so far, so that it can be put back."""

    host: Host
    selection: Selection
    variant: Variant | None
    noted: Baseline
    begun: Found = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    def do(self, family: Family) -> None:
        """One family: the others of its backends cleared, then the chosen one. Raises :class:`KernelLacks`."""
        _require(self.host, family)
        found = _found(self.host, family, self.noted, self.variant, self.selection)
        if self.variant in (None, "iptables"):
            is_fresh = not any(before.is_there for _, before in found)
            # Stable: among equals the host's choice stays first.
            found.sort(key=lambda pair: self._rank(pair[0], pair[1], is_fresh))
        (chosen, before), *others = found
        for backend, leftover in others:
            if leftover.is_there:
                self.begun.append((backend, leftover))
                self.changes.append(replace(backend.apply(None, leftover), did="cleared"))
        self.begun.append((chosen, before))
        change = chosen.apply(self.selection, before)
        if not change.is_one:
            self.begun.pop()
        self.changes.append(change)

    def _rank(self, backend: Backend, before: Installed, is_fresh: bool) -> int:
        """0 for the backend that is to have our rules, unless another one is nearer to it."""
        if not isinstance(backend, Nftables):
            return 0 if before.is_there else 2
        if self.variant == "iptables" or not (before.is_there or is_fresh) or not backend.takes(self.selection):
            return 3
        return 0 if before.is_there else 1


def _put_back(host: Host, begun: Found, noted: Baseline, error: BaseException) -> None:
    """Undo after ``error``, the last change first."""
    try:
        for backend, before in reversed(begun):
            backend.put_back(before)
        for led in {before.queues for _, before in begun if before.on}:
            with suppress(FixerError):
                _note(host, led, noted.written)
    except FixerError as second:
        raise SystemRefused(f"{error}; taking back what was done failed too ({second}): run fixer off") from error


def _remember(host: Host, selection: Selection, changes: list[Change], noted: Baseline) -> None:
    """What the rules mean and how the kernel spells them; where counting begins, if there are others than before."""
    encoded = msgspec.Raw(msgspec.json.encode(selection))
    written = {
        change.family.key: Written(change.after.backend, change.after.said, encoded)
        for change in changes
        if change.did in ("written", "kept") and change.after
    }
    if any(change.is_one for change in changes):
        _note(host, selection.queues, written)
    elif written != noted.written:
        baseline.write(host, Baseline(noted.rule_packets, noted.handed, written))


def _note(host: Host, led: range, written: dict[str, Written]) -> None:
    """A rule that leads to these queues was written: from now on, what passes unseen is counted anew."""
    # The queues are read before the rules: what comes in between must not look like a loss.
    handed: dict[int, Handed] = {}
    with suppress(NotPermitted):  # a daemon that is nobody cannot see them, and counts from its own start
        handed = queues.handed(host, led)
    baseline.write(host, Baseline(rule_packets(host, led.start), handed, written))


def remembered(host: Host) -> Baseline:
    """What was remembered last; nothing, if it cannot be read: `on` writes it anew."""
    try:
        return baseline.read(host) or Baseline()
    except FixerError:
        return Baseline()


def off(host: Host) -> list[Change]:
    """Remove all that is ours, from both families and all backends.

    What can be removed is removed, then the first error is raised.
    """
    require_net_admin(host, "fixer off")
    changes: list[Change] = []
    errors: list[FixerError] = []
    for family in FAMILIES:
        if family is IPV6 and host.which(COMMANDS[IPV6]) is None and host.which("nft") is None:
            continue
        removed: list[Change] = []
        try:
            for backend, before in _found(host, family, Baseline()):
                if before.is_there:
                    removed.append(backend.apply(None, before))
            changes += removed or [Change(family, "nothing")]
        except FixerError as error:
            changes += removed
            if family is IPV6 and isinstance(error, KernelLacks):
                changes.append(Change(family, "uncovered", why=str(error)))
            else:
                errors.append(error)
    if errors:
        raise errors[0]
    baseline.remove(host)
    return changes


def look(host: Host, family: Family) -> list[Installed]:
    """What there is of ours in each backend of a family: the one that is on first, else the host's own choice.

    Raises :class:`KernelLacks` or :class:`ProgramMissing` where the family is not to be had, and what reading does.
    """
    _require(host, family)
    return sorted((found for _, found in _found(host, family, remembered(host))), key=lambda found: not found.on)


def rule_packets(host: Host, queue: int) -> dict[str, int | None]:
    """How many packets our rules have sent to the queue (and those beside it) so far: ``{"ipv4": 12, "ipv6": None}``.

    None where no rule of ours sends to ``queue``, or there is nothing to read; a family that only root may read has no
    entry. Never raises: a count is not worth a daemon.
    """
    counted: dict[str, int | None] = {}
    for family in FAMILIES:
        found: list[Installed] = []
        try:
            found = [each for _, each in _found(host, family, Baseline())]
        except NotPermitted:
            continue
        except FixerError:
            pass
        ours = (each.counted.packets for each in found if each.on and queue in each.queues)
        counted[family.key] = next(ours, None)
    return counted


def flows_queues(host: Host) -> dict[str, int]:
    """The queue where timestamps are normalised, for each family with rules of ours that lead there.

    Raises what :func:`look` does, but for a family that is not to be had.
    """
    led: dict[str, int] = {}
    for family in FAMILIES:
        try:
            found = look(host, family)
        except (KernelLacks, ProgramMissing):
            continue
        for each in found:
            if each.flows_queue is not None:
                led[family.key] = each.flows_queue
    return led


def require_net_admin(host: Host, command: str) -> None:
    """Raises :class:`NotPermitted` without CAP_NET_ADMIN; ``command`` is what to type as root."""
    if not host.has_net_admin():
        raise NotPermitted(f"the rules can only be changed by root (CAP_NET_ADMIN): sudo {command}")


def _require(host: Host, family: Family) -> None:
    lacking = absence(host, family)
    if lacking and (host.which("nft") is None or not host.exists(f"{NET}/if_inet6")):
        raise KernelLacks(lacking)


def _backends(host: Host, family: Family, variant: Variant | None) -> list[Backend]:
    """Those that this host has, the one asked for first; else iptables' own choice, and nftables where that is missing.

    Raises :class:`ProgramMissing` if there is none, or not the one asked for.
    """
    native: list[Backend] = [Nftables(host, family)] if host.which("nft") else []
    if variant == "native" and not native:
        raise ProgramMissing("nft is not installed; on Debian and Ubuntu: apt-get install nftables")
    try:
        named = None if variant in ("native", "iptables") else variant
        others: list[Backend] = [*variants(host, family, named)]
    except ProgramMissing:
        if variant not in (None, "native") or not native:
            raise
        others = []
    return [*native, *others] if variant == "native" else [*others, *native]


def _found(
    host: Host, family: Family, noted: Baseline, variant: Variant | None = None, wanted: Selection | None = None
) -> Found:
    """What there is of ours in each backend, ``variant`` (or else the host's choice) first.

    One that the kernel lacks is left out if the other is the one asked for, has our rules, or can have what is
    ``wanted``. Else nobody can say that we have none: :class:`KernelLacks`.
    """
    found: Found = []
    lacking: KernelLacks | None = None
    for backend in _backends(host, family, variant):
        try:
            found.append((backend, backend.read(noted.written.get(family.key))))
        except NotPermitted:
            # The second one's table, as a daemon sees it that is nobody: it writes to the first.
            if not found:
                raise
        except KernelLacks as error:
            if backend.variant == variant:
                raise
            if not isinstance(backend, Nftables):  # without it there is nothing of ours in it
                lacking = error
    if lacking and variant in (None, "iptables"):
        native = [(backend, there) for backend, there in found if isinstance(backend, Nftables)]
        counted = [pair for pair in found if variant is None or pair not in native]
        has_ours = any(there.is_there for _, there in counted)
        if not has_ours and not (variant is None and wanted and any(backend.takes(wanted) for backend, _ in native)):
            raise lacking
    return found
