"""Do it, undo it, and say whether it still holds. What is done twice is done once; what fails is as it was before."""

from __future__ import annotations

from contextlib import suppress

from msgspec import Struct

from fixer.cure import offloads, record
from fixer.cure.clusters import CLUSTERS
from fixer.cure.keepers import FOR_HARDWARE, KEEPERS
from fixer.cure.plan import Plan, Setting
from fixer.cure.record import Record
from fixer.errors import FixerError, NotPermitted, SystemRefused
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
    recorded: bool
    """Whether `fixer cure --apply` was here."""

    @property
    def holds(self) -> bool:
        return not self.drifted and not self.unkept

    @property
    def exit_code(self) -> int:
        """0: it holds and is kept; 3: it does not, or nothing keeps it."""
        return 0 if self.holds else 3


def plan(host: Host, setting: Setting, keeper: str | None = None) -> Plan:
    """How it is kept here: by whoever is in charge of the device, or by the one that was asked for.

    Raises :class:`SystemRefused` if that one is not here.
    """
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

    Raises :class:`NotPermitted`, or :class:`SystemRefused` with all as it was before.
    """
    if host.geteuid() != 0:
        raise NotPermitted("root is needed to change how links are configured: try sudo")
    earlier = record.load(host, setting.device)
    if earlier is not None and (earlier.plan.setting != setting or keeper is not None):
        undo(host, earlier)
        earlier = None
    wanted = earlier.plan if earlier else plan(host, setting, keeper)
    states = offloads.states(host, setting)
    entry = earlier or Record(
        wanted,
        {file.path: host.read(file.path) for file in wanted.files},
        {name: state.partition(" ")[0] for name, state in states.items()},
    )
    if not wanted.is_by_hand:
        record.save(host, entry)
    try:
        _keep(host, wanted)
        _must(host, setting.command)
    except FixerError:
        _roll_back(host, entry)
        raise
    return check(host, setting, keeper)


def undo(host: Host, entry: Record) -> None:
    """Put back what was there before, and set the offloads as they were.

    Raises :class:`SystemRefused` before anything is changed, if somebody has changed a file of it since.
    """
    for file in entry.plan.files:
        if host.read(file.path) not in (file.text, entry.before[file.path], None):
            raise SystemRefused(
                f"{file.path} was changed since: take out by hand what `fixer cure` wrote there, then remove "
                f"{record.path(entry.plan.setting.device)}, which has what was there before"
            )
    for file in entry.plan.files:
        before = entry.before[file.path]
        if before is None:
            host.remove(file.path)
        elif host.read(file.path) is not None:
            host.write(file.path, before, file.mode)
    for command in entry.plan.commands:
        _must(host, command.undo)
    if entry.plan.verify:
        _must(host, entry.plan.verify)
    setting = entry.plan.setting
    back = [word for name, state in entry.was.items() if state == "on" for word in (name, "on")]
    if back and offloads.states(host, setting):  # the device may be gone
        _must(host, ("ethtool", "-K", setting.device, *back))
    record.forget(host, setting.device)


def _roll_back(host: Host, entry: Record) -> None:
    """As :func:`undo`, and on through whatever refuses: the error that is told is the first one."""
    for file in entry.plan.files:
        before = entry.before[file.path]
        with suppress(FixerError):
            host.remove(file.path) if before is None else host.write(file.path, before, file.mode)
    for command in (*(each.undo for each in entry.plan.commands), *([entry.plan.verify] * bool(entry.plan.verify))):
        with suppress(FixerError):
            host.run(command)
    back = [word for name, state in entry.was.items() if state == "on" for word in (name, "on")]
    if back:
        with suppress(FixerError):
            host.run(("ethtool", "-K", entry.plan.setting.device, *back))
    record.forget(host, entry.plan.setting.device)


def check(host: Host, setting: Setting, keeper: str | None = None) -> Held:
    """Whether it holds now and is kept; without a record, by whoever would keep it."""
    entry = record.load(host, setting.device)
    judged = entry.plan if entry and entry.plan.setting == setting else plan(host, setting, keeper)
    return held(host, judged, recorded=entry is not None)


def held(host: Host, judged: Plan, *, recorded: bool) -> Held:
    """Whether what a plan wants is so."""
    states = offloads.states(host, judged.setting)
    unkept = [file.path for file in judged.files if _text(host, file.path) != file.text]
    unkept += [" ".join(command.ask) for command in judged.commands if _answer(host, command.ask) != command.expected]
    if judged.is_by_hand and judged.keeper == NOBODY:
        unkept.append("this node, as far as is known,")
    drifted = [name for name, state in states.items() if state.startswith("on")]
    return Held(judged, states, drifted, unkept, recorded)


def _keep(host: Host, wanted: Plan) -> None:
    for file in wanted.files:
        if host.read(file.path) != file.text:
            host.write(file.path, file.text, file.mode)
    if wanted.verify:
        _must(host, wanted.verify)
    for command in wanted.commands:
        if _answer(host, command.ask) != command.expected:
            _must(host, command.tell)


def _must(host: Host, command: tuple[str, ...]) -> None:
    done = host.run(command)
    if done.status != 0:
        words = " ".join((done.err or done.out).split()) or f"status {done.status}"
        raise SystemRefused(f"`{' '.join(command)}` failed, and all is as it was before: {words}")


def _answer(host: Host, ask: tuple[str, ...]) -> str:
    try:
        return host.run(ask).out.strip()
    except FixerError:
        return ""


def _text(host: Host, path: str) -> str | None:
    try:
        return host.read(path)
    except FixerError:  # only root may read it
        return None
