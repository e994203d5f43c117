"""Does the cure of this node hold, and does anything keep it? Drift is what brings a fault back after an upgrade."""

from __future__ import annotations

from collections.abc import Iterator

from fixer.doctor.check import Ailment, Check, Verdict, ailment
from fixer.doctor.node import Node


def judge(node: Node) -> Iterator[Ailment]:
    for each in node.unheld:
        setting = each.plan.setting
        device, names = setting.device, ", ".join(setting.features)
        again = f"`fixer cure --apply --device {device}`"
        if each.recorded:
            gone = f"; {each.unkept[0]} does not say it any more" if each.unkept else ""
            yield ailment(
                device,
                "cure_lost",
                Verdict.FAULT if each.drifted else Verdict.UNCLEAR,
                f"{names} of {device} was turned off to cure broken checksums, kept by {each.plan.keeper}, and "
                + (f"is on again{gone}." if each.drifted else f"will be on again after the next start{gone}."),
                [
                    *(f"`ethtool -k {device}`: {name} on" for name in each.drifted),
                    *(f"not as written: {where}" for where in each.unkept),
                ],
                now=f"`{' '.join(setting.command)}`" if each.drifted else "",
                cure=again,
            )
        else:
            yield ailment(
                device,
                "cure_unkept",
                Verdict.UNCLEAR,
                f"{names} of {device} is off, and nothing that is known here keeps it so: it was turned off by hand, "
                "and the next start brings the fault back that it cures. What decides: whether automation of your "
                "own sets it at every start.",
                [f"`ethtool -k {device}`: {name} off" for name in setting.features],
                cure=again,
            )


CHECKS = (
    Check(
        "kept",
        "what `fixer cure` applied; transmit checksums that are off, and the files of every configurator that would "
        "keep that",
        ("cure_lost", "cure_unkept"),
        {
            Verdict.FAULT: "the cure was applied here, and the offload is on again",
            Verdict.UNCLEAR: "it is off and its file is gone; or it is off and no file has a word of it",
        },
        (
            "https://github.com/flannel-io/flannel/issues/2152",
            "https://github.com/mitchross/talos-argocd-proxmox/pull/1953",
        ),
        judge,
    ),
)
