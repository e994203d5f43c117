"""Where the rules wait in a place that VXLAN does not come by: another port, interface or namespace, or too late."""

from __future__ import annotations

from collections.abc import Iterator

from fixer.host import links
from fixer.rules.installed import Installed
from fixer.status import intended
from fixer.status.facts import Facts
from fixer.status.reason import Reason, Severity
from fixer.status.wire import LOOK_SECONDS, Wire

_EBPF = "bpftool net show"
_SETTING = "vxlan.ports in /etc/fixer/fixer.toml, then fixer on and start fixer run again"


def reasons(facts: Facts) -> Iterator[Reason]:
    """What there is to know of that."""
    on = [rules for _, rules in facts.on()]
    if not on:
        return
    yield from _strangers(facts)
    yield from _interfaces(facts, on)
    yield from _ports(facts, on)
    yield from _namespace(facts, on)
    yield from _wire(facts)


def _strangers(facts: Facts) -> Iterator[Reason]:
    """Another program on our queue is fed what is to be repaired."""
    for each in facts.strangers:
        what = f"queue {each.queue} is held by {each}, which is no fixer and is fed all that the rule takes"
        yield Reason(Severity.DOWN, what, "fixer off, then fixer on --queue N and fixer run --queue N")


def _interfaces(facts: Facts, on: list[Installed]) -> Iterator[Reason]:
    if not facts.links:
        return  # nobody could say which there are
    names = ", ".join(each.name for each in facts.links if each.is_up)
    for interface in dict.fromkeys(rules.interface for rules in on if rules.interface):
        if not links.named(facts.links, interface):
            what = f"the rule is for what arrives on {interface}, and there is no such interface (there are: {names})"
            yield Reason(Severity.DOWN, what, "fixer on --interface IF")


def _ports(facts: Facts, on: list[Installed]) -> Iterator[Reason]:
    taken = None if any(rules.ports is None for rules in on) else {port for rules in on for port in rules.ports or ()}
    report = facts.daemon.report
    if taken is not None and report and report.ports and not report.plain and not taken <= set(report.ports):
        missing = _shown(taken - set(report.ports))
        what = f"the rule takes port {missing}, which the daemon does not read as VXLAN"
        yield Reason(Severity.DOWN, what, _SETTING)
    for each in facts.tunnels:
        if taken is not None and each.is_up and each.ends_here and each.port not in taken:
            what = f"{each.name} receives VXLAN on port {each.port}, which the rule does not take"
            yield Reason(Severity.DOWN, what, _SETTING)


def _namespace(facts: Facts, on: list[Installed]) -> Iterator[Reason]:
    """Nothing has met the rules, and no socket here takes what they are for."""
    ports = _shown({port for rules in on for port in rules.ports or ()})
    if facts.elsewhere:
        what = f"VXLAN (port {ports}) ends in another network namespace than the rule's"
        command = f"fixer off, then fixer on {facts.elsewhere} and fixer run {facts.elsewhere}"
        yield Reason(Severity.DOWN, what, command)
    elif facts.is_unvisited:
        yield Reason(Severity.NOTE, f"no VXLAN (port {ports}) ends here: no device, no socket; and none has passed")


def _wire(facts: Facts) -> Iterator[Reason]:
    """VXLAN arrives and passes the rules by: why, as far as that can be seen."""
    wire = facts.wire
    if wire is None or any(rules.selection and rules.selection.sources for _, rules in facts.on()):
        return  # of what comes from elsewhere none is to meet them
    if not wire.passes_by:
        yield from _unseen(facts, wire)
        return
    came = f"{wire.arrived:,} packets came out of {', '.join(wire.devices)} in {LOOK_SECONDS:.0f} s"
    if not wire.arrived:
        came = (
            f"{wire.came:,} VXLAN packets arrived in {LOOK_SECONDS:.0f} s, none came out of {', '.join(wire.devices)}"
        )
    what = f"{came}, and none met the rule"
    blame = [f"an eBPF program ({', '.join(found)}) on {name}" for name, found in facts.programs.items() if found]
    if blame:
        yield Reason(Severity.DOWN, f"{what}: {' and '.join(blame)} sees them first", _EBPF, by="See")
        return
    interfaces = [rules.interface for _, rules in facts.on() if rules.interface]
    if any(rules.ahead for _, rules in facts.on()):
        yield Reason(Severity.DOWN, f"{what}: a rule before ours ends the walk (below)")
    elif any(intended.is_changed(facts, family, rules) for family, rules in facts.on()):
        yield Reason(Severity.DOWN, f"{what}: it is not as fixer on wrote it", "fixer on")
    elif interfaces:
        yield Reason(Severity.DOWN, f"{what}: they do not arrive on {interfaces[0]}", "fixer on, for every interface")
    else:
        command = f"tcpdump -ni any udp port {_any(facts)}"
        yield Reason(Severity.DOWN, f"{what}: nothing is known to be in the way", command)


def _unseen(facts: Facts, wire: Wire) -> Iterator[Reason]:
    """Nothing arrives that can be counted here: what XDP takes cannot."""
    xdp = [name for name, found in facts.programs.items() if any(each.startswith("XDP") for each in found)]
    if xdp and not (wire.arrived or wire.came or wire.met):
        what = f"no VXLAN was seen just now; what an eBPF program (XDP) on {', '.join(xdp)} takes, nobody sees here"
        yield Reason(Severity.NOTE, what, _EBPF, by="See")


def _any(facts: Facts) -> str:
    return next((str(each.port) for each in facts.tunnels), "4789")


def _shown(ports: set[int]) -> str:
    return ", ".join(map(str, sorted(ports)))
