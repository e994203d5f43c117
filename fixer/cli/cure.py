"""``fixer cure``: on the sender's node, the setting that cures it, where it is kept, and whether it still holds."""

from __future__ import annotations

import sys

import click

from fixer.cli.options import host_in, json_option, print_json, tell

KEEPERS = ("talos", "felix", "networkmanager", "netplan", "ifupdown", "ifcfg", "networkd", "udev")


@click.command(short_help="Cure the sender so that it lasts, and check that it does.")
@click.option(
    "--device", "devices", multiple=True, metavar="DEV", help="Which one; may be repeated. Else the NICs below VXLAN."
)
@click.option(
    "--feature",
    "features",
    multiple=True,
    metavar="NAME",
    help="What to turn off, as `ethtool -k` calls it; may be repeated.",
)
@click.option("--keeper", type=click.Choice(KEEPERS), help="Who is to keep it, instead of who is found in charge.")
@click.option("--apply", "action", flag_value="apply", help="Write what keeps it, and set it now.")
@click.option("--undo", "action", flag_value="undo", help="Put back what was there before --apply.")
@click.option("--check", "action", flag_value="check", help="Does it still hold? For monitoring: exit code 3 if not.")
@json_option("One JSON object instead of text.")
def cure(
    devices: tuple[str, ...], features: tuple[str, ...], keeper: str | None, action: str | None, as_json: bool
) -> None:
    """On the node that SENDS broken checksums: turn off what its NIC cannot do, so that it stays off.

    Finds out who configures links here (systemd-udevd's .link files, NetworkManager, netplan, ifupdown, RHEL's ifcfg,
    a udev rule for devices that others make; Talos and Calico's Felix, which keep it elsewhere), and prints what it
    costs, the file and the command. Changes nothing without --apply, which keeps what was there before below
    /var/lib/fixer/cure, can be said twice, and is undone by --undo.

    Without --device: the NICs that carry this node's VXLAN. For one tunnel alone: --device flannel.1.

    \b
    Examples:
      fixer cure                     what to write where, and what it costs
      fixer cure --apply             write it and set it now
      fixer cure --check             still so? (an upgrade or a new NIC brings the fault back)
      fixer cure --device flannel.1 --apply
      fixer cure --device ens192 --feature tx-udp_tnl-segmentation

    \b
    Exit codes: 0 done, or it holds; 2 no such feature; 3 --check: it does not hold,
    --apply: it holds now, and is to be kept elsewhere; 66 no such device;
    71 a configurator refused, and that device is as before; 77 no root.
    """
    host = host_in(None, None)
    from fixer.cure import apply, offloads, record
    from fixer.cure.plan import cost
    from fixer.errors import FixerError
    from fixer.screen.console import console_on
    from fixer.screen.cure import show, show_held

    recorded = {entry.plan.setting.device: entry for entry in record.every(host)}
    if action == "undo":
        for name in devices or tuple(recorded):
            if name in recorded:
                apply.undo(host, recorded[name])
                tell(f"{name}: as it was before")
        if not set(devices or recorded) & set(recorded):
            tell("Nothing was applied here.")
        return
    if action == "check" and not devices and not features and recorded:
        settings = [entry.plan.setting for entry in recorded.values()]
    else:
        settings = offloads.chosen(host, devices, features)
    if action is None:
        plans = [apply.plan(host, setting, keeper) for setting in settings]
        prices = [cost(plan.setting, offloads.kind(host, plan.setting)) for plan in plans]
        if as_json:
            print_json([{"plan": plan, "cost": price} for plan, price in zip(plans, prices, strict=True)])
            return
        for plan, price in zip(plans, prices, strict=True):
            show(plan, price, console_on())
        return
    do = apply.apply if action == "apply" else apply.check
    found, refused = [], None
    for setting in settings:
        try:
            found.append(do(host, setting, keeper))
        except FixerError as error:  # what was done before it is told first
            refused = error
            break
    if as_json:
        print_json([{"holds": each.holds, "held": each} for each in found])
    else:
        for each in found:
            show_held(each, console_on())
            if action == "apply" and each.plan.is_by_hand:
                show(each.plan, cost(each.plan.setting, offloads.kind(host, each.plan.setting)), console_on())
    if refused is not None:
        raise refused
    kept_elsewhere = action == "apply" and any(each.plan.is_by_hand for each in found)
    sys.exit(3 if kept_elsewhere else max(each.exit_code for each in found))
