"""What ``fixer cure`` says, for people: the cost first, then who keeps it, file and command; or whether it holds."""

from __future__ import annotations

from fixer.cure.apply import NOBODY, Held
from fixer.cure.plan import Plan
from fixer.screen.console import Console, exactly, say


def show(plan: Plan, cost: str, console: Console) -> None:
    """What is to be done, and by what it lasts."""
    setting = plan.setting
    say(console, (setting.device, "bold"), f": {', '.join(setting.features)} off. {cost}")
    say(console)
    say(console, ("Now", "bold"), ", until the next start:")
    exactly(console, f"  {' '.join(setting.command)}")
    say(console)
    kept = f"kept by {plan.keeper} ({plan.why})" if plan.keeper != NOBODY else plan.why
    say(console, ("To last", "bold"), f", {kept}:")
    for file in plan.files:
        exactly(console, f"  # {file.path}", *(f"  {line}" for line in file.text.splitlines()))
    for command in plan.commands:
        exactly(console, f"  {' '.join(command.tell)}")
    exactly(console, *(f"  {line}" for line in plan.by_hand))
    for note in plan.notes:
        say(console, f"- {note}")
    say(console)
    if plan.is_by_hand:
        say(console, "This is not kept on this node: `--apply` only sets it now.")
    else:
        say(console, "`--apply` does both, `--undo` takes both back, `--check` says whether it still holds.")


def show_held(held: Held, console: Console) -> None:
    """Whether it holds, and if not, where it was lost."""
    setting = held.plan.setting
    off = ", ".join(setting.features)
    if held.holds:
        kept = (
            f"kept by {held.plan.keeper}"
            if not held.plan.is_by_hand
            else f"to be kept by {held.plan.keeper}, not on this node"
        )
        say(console, (f"{setting.device}: it holds", "bold green"), f": {off} off, {kept}.")
        return
    if held.is_lost:
        say(console, (f"{setting.device}: it does not hold", "bold red"), ".")
    else:
        say(console, (f"{setting.device}: it cannot be told whether it holds", "bold yellow"), ".")
    for name in held.drifted:
        say(console, f"- {name} is on{' again' * held.recorded}. Now: `{' '.join(setting.command)}`")
    for where in held.unkept:
        say(console, f"- {where} does not keep it: it is lost at the next start.")
    if held.unread:
        say(
            console,
            f"- {', '.join(held.unread)} cannot be read: {setting.device} is not there, or `ethtool -k "
            f"{setting.device}` does not say it.",
        )
    if held.unkept and not held.plan.is_by_hand:
        say(console, f"{'Again' if held.recorded else 'To last'}: `fixer cure --apply --device {setting.device}`")
