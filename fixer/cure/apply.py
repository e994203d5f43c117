"""Do it, undo it, and say whether it still holds. What is done twice is done once; what fails is as it was before."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from msgspec import Struct

from fixer.cure import offloads, record
from fixer.cure.clusters import CLUSTERS
from fixer.cure.keepers import FOR_HARDWARE, KEEPERS
from fixer.cure.plan import Command, File, Plan, Setting, is_safe
from fixer.cure.record import Record
from fixer.errors import CommandWrong, FixerError, NotPermitted, SystemRefused
from fixer.host.machine import Host

NOBODY = "nobody known"
"""The keeper where no configurator of links was found."""


class Held(Struct, frozen=True):
    """Whether a setting holds now, and whether it is kept."""

    plan: Plan
    states: dict[str, str]
    """What ``ethtool -k`` says of each feature."""
    drifted: list[str]
    """Features that are on."""
    unkept: list[str]
    """Files and settings that do not say it (any more)."""
    unread: list[str]
    """Features of which nothing can be told: the device is gone, or ethtool cannot read it."""
    recorded: bool
    """Whether `fixer cure --apply` was here."""

    @property
    def is_lost(self) -> bool:
        """Whether it is seen not to hold, or not to be kept."""
        return bool(self.drifted or self.unkept)

    @property
    def holds(self) -> bool:
        return not self.is_lost and not self.unread

    @property
    def exit_code(self) -> int:
        """0: it holds and is kept; 3: it does not, nothing keeps it, or that cannot be told."""
        return 0 if self.holds else 3


def plan(host: Host, setting: Setting, keeper: str | None = None) -> Plan:
    """How it is kept here: by whoever is in charge of the device, or by the one that was asked for.

    Raises :class:`SystemRefused` if that one is not here, :class:`CommandWrong` if the device's name would act where it
    is written.
    """
    if not is_safe(setting.device):
        raise CommandWrong(
            f"{setting.device!r} has more in its name than letters, digits and _.@-, and the name would stand in files "
            "that others run: rename the device (ip link set DEV name NEW)"
        )
    every = CLUSTERS | KEEPERS
    if keeper is not None:
        found = every[keeper](host, setting)
        if found is None:
            raise SystemRefused(f"{keeper} is not in charge of {setting.device} here, or has no word for it")
        return found
    virtual = not host.exists(f"/sys/class/net/{setting.device}/device")
    for name, look in every.items():
        if not (virtual and name in FOR_HARDWARE) and (found := look(host, setting)):
            return found
    command = " ".join(setting.command)
    return Plan(
        keeper=NOBODY,
        why="no configurator of links was found here",
        setting=setting,
        by_hand=(f"{command}   # wherever this node sets up its links, at every start",),
    )


def apply(host: Host, setting: Setting, keeper: str | None = None) -> Held:
    """Write what keeps it, and set it now.

    Raises :class:`NotPermitted`, :class:`CommandWrong`, or :class:`SystemRefused`: with the device as it was before, or
    with what could not be put back.
    """
    if host.geteuid() != 0:
        raise NotPermitted("root is needed to change how links are configured: try sudo")
    earlier = record.load(host, setting.device)
    again = earlier if earlier and earlier.plan.setting == setting and keeper is None else None
    # Asked before anything is undone: the keeper may not be in charge here.
    wanted = again.plan if again else plan(host, setting, keeper)
    if earlier:
        _refuse_if_changed(host, earlier, to_write=again is not None)
    start = _Start.of(host, [wanted, *([earlier.plan] if earlier else [])])
    try:
        if earlier and not again:
            _take_back(host, earlier)
            wanted = plan(host, setting, keeper)  # of the files and profiles as they are without the earlier one
        if not wanted.is_by_hand and not again:
            before = {file.path: host.read_exactly(file.path) for file in wanted.files}
            record.save(host, Record(wanted, before, _words(host, setting)))
        _keep(host, wanted)
        _must(host, setting.command)
    except FixerError as error:
        left = start.put_back(host)
        told = f"could not be put back: {', '.join(left)}" if left else f"{setting.device} is as it was before"
        raise type(error)(f"{error}; {told}") from None
    return check(host, setting, keeper)


def undo(host: Host, entry: Record) -> None:
    """Put back what was there before, and set the offloads as they were.

    Raises :class:`SystemRefused` before anything is changed, if somebody has changed a file of it since; later, if a
    configurator refuses: said again, it goes on where it ended.
    """
    _refuse_if_changed(host, entry)
    _take_back(host, entry)


def _refuse_if_changed(host: Host, entry: Record, *, to_write: bool = False) -> None:
    """Raise :class:`SystemRefused` if a file is neither as we wrote it nor as it was before: it would be lost.

    ``to_write``: what was not made by us and is gone is changed too; what still says it needs no writing.
    """
    for file in entry.plan.files:
        text, before = host.read_exactly(file.path), entry.before[file.path]
        if text in (file.text, before) or (to_write and _says(file, text)):
            continue
        if text is not None or (to_write and before is not None):
            raise SystemRefused(
                f"{file.path} was changed since: take out by hand what `fixer cure` wrote there, then remove "
                f"{record.path(entry.plan.setting.device)}, which has what was there before"
            )


def _take_back(host: Host, entry: Record) -> None:
    for file in entry.plan.files:
        before = entry.before[file.path]
        if before is None:
            host.remove(file.path)
        elif host.read_exactly(file.path) is not None:
            host.write(file.path, before)
    for command in entry.plan.commands:
        if command.gone is None or host.run(command.ask).status != command.gone:
            _must(host, command.undo)
    if entry.plan.verify:
        _must(host, entry.plan.verify)
    setting = entry.plan.setting
    back = [word for name, state in entry.was.items() if state == "on" for word in (name, "on")]
    if back and offloads.states(host, setting):  # the device may be gone
        _must(host, ("ethtool", "-K", setting.device, *back))
    record.forget(host, setting.device)


class _Start(Struct, frozen=True):
    """All that an apply may change, as it was when it began."""

    device: str
    files: dict[str, tuple[str | None, int | None]]
    """Text and mode of each, the record among them."""
    commands: list[tuple[Command, str]]
    """What each was answered."""
    verify: list[tuple[str, ...]]
    states: dict[str, str]

    @classmethod
    def of(cls, host: Host, plans: Sequence[Plan]) -> _Start:
        device = plans[0].setting.device
        files = {file.path: (host.read_exactly(file.path), file.mode) for each in plans for file in each.files}
        kept = record.path(device)
        return cls(
            device,
            files | {kept: (host.read_exactly(kept), None)},
            [(command, _answer(host, command.ask)) for each in plans for command in each.commands],
            [each.verify for each in plans if each.verify],
            {name: state for each in plans for name, state in _words(host, each.setting).items()},
        )

    def put_back(self, host: Host) -> list[str]:
        """On through whatever refuses: what did."""
        left = []
        for path, (text, mode) in self.files.items():
            try:
                if text is None:
                    host.remove(path)
                elif host.read_exactly(path) != text:
                    host.write(path, text, mode)
            except FixerError:
                left.append(path)
        orders = [
            command.tell if answer == command.expected else command.undo
            for command, answer in self.commands
            if _answer(host, command.ask) != answer
        ]
        now = _words(host, Setting(self.device, tuple(self.states)))
        for name, state in self.states.items():
            if now.get(name, state) != state:
                orders.append(("ethtool", "-K", self.device, name, state))
        for order in orders:
            try:
                _must(host, order)
            except FixerError:
                left.append(f"`{' '.join(order)}`")
        for each in self.verify:
            with suppress(FixerError):  # told to read the files again: it may be what refuses
                host.run(each)
        return left


def check(host: Host, setting: Setting, keeper: str | None = None) -> Held:
    """Whether it holds now and is kept; without a record, by whoever would keep it."""
    entry = record.load(host, setting.device)
    judged = entry.plan if entry and entry.plan.setting == setting else plan(host, setting, keeper)
    return held(host, judged, recorded=entry is not None)


def held(host: Host, judged: Plan, *, recorded: bool) -> Held:
    """Whether what a plan wants is so."""
    states = offloads.states(host, judged.setting)
    unkept = [file.path for file in judged.files if not _says(file, _text(host, file.path))]
    unkept += [" ".join(command.ask) for command in judged.commands if _answer(host, command.ask) != command.expected]
    if judged.is_by_hand and judged.keeper == NOBODY:
        unkept.append("this node, as far as is known,")
    drifted = [name for name, state in states.items() if state.startswith("on")]
    unread = [name for name in judged.setting.features if name not in states]
    return Held(judged, states, drifted, unkept, unread, recorded)


def _keep(host: Host, wanted: Plan) -> None:
    for file in wanted.files:
        if not _says(file, host.read_exactly(file.path)):
            host.write(file.path, file.text, file.mode)
    if wanted.verify:
        _must(host, wanted.verify)
    for command in wanted.commands:
        if _answer(host, command.ask) != command.expected:
            _must(host, command.tell)


def _says(file: File, text: str | None) -> bool:
    """Whether a text does what the file is to do: in one that others write too our line is enough."""
    return text == file.text or bool(file.line and text and file.line in text.splitlines())


def _words(host: Host, setting: Setting) -> dict[str, str]:
    """``on`` or ``off`` for each feature."""
    return {name: state.partition(" ")[0] for name, state in offloads.states(host, setting).items()}


def _must(host: Host, command: tuple[str, ...]) -> None:
    done = host.run(command)
    if done.status != 0:
        words = " ".join((done.err or done.out).split()) or f"status {done.status}"
        raise SystemRefused(f"`{' '.join(command)}` failed: {words}")


def _answer(host: Host, ask: tuple[str, ...]) -> str:
    try:
        return host.run(ask).out.strip()
    except FixerError:
        return ""


def _text(host: Host, path: str) -> str | None:
    try:
        return host.read_exactly(path)
    except FixerError:  # only root may read it
        return None
