"""What is wrong, and what to type: from the facts alone."""

from __future__ import annotations

from collections.abc import Iterator

from fixer.host import links
from fixer.rules.installed import Installed
from fixer.rules.selection import FAMILIES, Family, shown_queues
from fixer.state.report import InKernel, Report
from fixer.status import intended, paths, unseen
from fixer.status.facts import Facts, FlowTable, Rules
from fixer.status.reason import Reason, Severity

_SILENT_SECONDS = 10


def judge(facts: Facts) -> list[Reason]:
    """Everything there is to know, worst first, and then in the order of a packet's way: rules, listener, daemon."""
    found = [
        *intended.reasons(facts),
        *paths.reasons(facts),
        *(reason for family in FAMILIES for reason in _rules(family, facts.families[family.key])),
        *_listeners(facts),
        *_report(facts),
        *_flows(facts),
        *_outgoing(facts),
        *_set_up(facts),
        *_daemon(facts),
        *_losses(facts),
        *_interfaces(facts),
    ]
    return sorted(found, key=lambda reason: list(Severity).index(reason.severity))


def ahead(rules: Installed) -> list[Reason]:
    """What stands before our rules and keeps packets from us, with a way out."""
    found = []
    for end in rules.ahead:
        if end.chain:
            ports = "" if end.takes_all else f" to port {', '.join(map(str, end.ports))}"
            what = f"{end.entry} in {end.chain} drops all our packets{ports} before our rules meet them"
            found.append(Reason(Severity.WARNING, what, f"nft -a list table {end.chain.rpartition(' ')[0]}", by="See"))
            continue
        extent = "all our packets" if end.takes_all else "the packets it matches"
        via = f' leads to "{end.rule}", which' if end.entry != end.rule else ""
        what = f'"{end.entry}" stands before our jump and{via} ends the walk for {extent}: move it behind'
        if end.alike > 1:
            rules_like = f'{end.alike} rules like "{end.entry}" stand before our jump'
            what = f"{rules_like} and end the walk for {extent}: move them behind"
        if rules.elsewhere:
            way_out = f"{what}, or use the other table, which it does not reach"
            found.append(Reason(Severity.WARNING, way_out, f"fixer on --variant {rules.elsewhere}", by=""))
        else:
            found.append(Reason(Severity.WARNING, what))
    return found


def _rules(family: Family, rules: Rules) -> Iterator[Reason]:
    if not rules.found:
        return
    first, *others = rules.found
    said = list(_first(first))
    said += [
        Reason(Severity.WARNING, f"our rules are in {other.backend} too, so packets are queued twice", "fixer on")
        for other in others
        if other.is_there
    ]
    for reason in said:
        yield Reason(reason.severity, f"{family.name}: {reason.what}", reason.command, reason.by)


def _first(rules: Installed) -> Iterator[Reason]:
    """One family's rules, in the backend that counts."""
    if rules.is_there and not rules.on:
        yield Reason(Severity.WARNING, "a chain or a jump of ours is left over", "fixer on, or fixer off")
    if not rules.on:
        return
    if rules.surplus:
        yield Reason(Severity.WARNING, "more than one jump leads to our chain", "fixer on")
    places = [rules.place]
    if rules.takes_what_leaves:
        places.append(rules.way_back)
    so = [
        *(["no timestamps are normalised"] if rules.flows_queue is not None else []),
        *(["what leaves is not completed"] if rules.outgoing_queue is not None else []),
    ]
    for place in places:
        if place.position is None:
            what = f"the way back is missing: no jump to {place.target} in {place.hook}, so {' and '.join(so)}"
            yield Reason(Severity.WARNING, what, "fixer on")
        elif not place.is_last:
            what = f"our jump is not last in {place.hook}, what we take never meets the rules behind it"
            yield Reason(Severity.WARNING, what, "fixer on")
    yield from ahead(rules)


def _report(facts: Facts) -> Iterator[Reason]:
    daemon = facts.daemon
    if daemon.is_foreign:
        yield Reason(Severity.WARNING, f"{daemon.path} is not a report of a fixer daemon; it is ignored")
    elif facts.listeners and daemon.report is None and not facts.strangers:
        what = f"{facts.listeners[0]} listens and does not report: what it does is not known"
        yield Reason(Severity.WARNING, what, "start fixer run again")
    if daemon.report and daemon.silent > _SILENT_SECONDS:
        silence = f"has not reported for {daemon.silent:.0f} s: its figures are old, it may hang"
        yield Reason(Severity.WARNING, f"the daemon (pid {daemon.report.pid}) {silence}")


def _listeners(facts: Facts) -> Iterator[Reason]:
    as_if = "pass as if fixer were not there"
    if not facts.listeners:
        if facts.on():
            what = f"nobody listens on {shown_queues(facts.queues)}: packets {as_if}"
            yield Reason(Severity.DOWN, what, "fixer run")
    elif deserted := set(facts.queues) - {each.queue for each in facts.listeners}:
        numbers = ", ".join(map(str, sorted(deserted)))
        command = f"fixer run with queue.count = {len(facts.queues)}"
        yield Reason(Severity.DOWN, f"nobody listens on queue {numbers}: those packets {as_if}", command)


def _flows(facts: Facts) -> Iterator[Reason]:
    report, flows = facts.daemon.report, facts.flows
    on = [rules for _, rules in facts.on()]
    if report and report.timestamps == "normalise" and not all(rules.flows_queue is not None for rules in on):
        what = "the daemon normalises timestamps, but not all rules lead them to it"
        yield Reason(Severity.WARNING, what, "fixer on")
    if flows is None:
        return
    if flows.trouble is not None:
        yield Reason(Severity.WARNING, f"{flows.path} cannot be read: {flows.trouble}")
    elif flows.live is None and flows.listener is not None:
        what = (
            f"{flows.path} is not there: connections that are normalised stall when the daemon ends, and with fixer "
            "off, which cannot count them"
        )
        yield Reason(Severity.WARNING, what, "make room below /run, then systemctl restart fixer while none is open")
    if flows.listener is None:
        yield _untranslated(facts, flows)
    if flows.live and flows.live.draining:
        what = f"draining: {flows.live.normalised:,} normalised connections left, new ones are left alone"
        yield Reason(Severity.NOTE, what, "fixer off --drain waits for them, fixer on ends it")


def _outgoing(facts: Facts) -> Iterator[Reason]:
    """Whether somebody completes what leaves, where that is led to a queue."""
    outgoing = facts.outgoing
    if outgoing is None:
        return
    report = facts.daemon.report
    if outgoing.listener is None:
        what = f"nobody has queue {outgoing.queue} open: what leaves is not completed"
        if report and report.monitor:
            yield Reason(Severity.DOWN, f"{what}, for a daemon in monitor mode changes nothing", "fixer run")
        elif report:
            yield Reason(Severity.DOWN, what, "fixer on --outgoing, and look into the daemon's log")
        else:
            yield Reason(Severity.DOWN, what, "fixer run")
    elif outgoing.is_strange:
        what = f"queue {outgoing.queue} is held by {outgoing.listener}, which is no fixer and is fed all that leaves"
        yield Reason(Severity.DOWN, what, "fixer off, then fixer on --outgoing --queue N and fixer run --queue N")


def _untranslated(facts: Facts, flows: FlowTable) -> Reason:
    live, report = flows.live, facts.daemon.report
    stalling = f", and {live.normalised:,} connections stall" if live and live.normalised else ""
    cure = 'start fixer run again, with timestamps.mode = "normalise"' if report else "fixer run"
    cure += ", or fixer on if the mode is another now" if report and report.timestamps != "normalise" else ""
    what = f"nobody listens on queue {flows.queue}: no timestamps are normalised{stalling}"
    return Reason(Severity.DOWN, what, cure)


def _set_up(facts: Facts) -> Iterator[Reason]:
    """What there is of the two that have to be there, a rule and a listener on its queue."""
    beside = {each.queue for each in (facts.flows, facts.outgoing) if each}
    others = sorted(facts.bound - set(facts.queues) - beside)
    on = facts.on()
    if not facts.listeners and others:
        what = f"somebody listens on queue {', '.join(map(str, others))}"
        yield Reason(Severity.DOWN, what, f"fixer status --queue {others[0]}", by="See")
    if not (on or facts.listeners or others):
        yield Reason(Severity.DOWN, "nothing is set up here", "fixer on, then fixer run")
    if facts.listeners and not on and not (facts.wanted and facts.wanted.on):
        yield Reason(Severity.DOWN, "no rule sends packets to the queue", "fixer on")
    if len(facts.led) > 1:
        which = ", ".join(map(shown_queues, facts.led))
        yield Reason(Severity.WARNING, f"the two families send to different queues ({which})", "fixer on")


def _daemon(facts: Facts) -> Iterator[Reason]:
    """Where the daemon and the rules do not want the same, and what the kernel does not give it."""
    report = facts.daemon.report
    if report is None:
        return
    on = [rules for _, rules in facts.on()]
    if on and report.queues > len(facts.queues):
        served = shown_queues(range(facts.queues[0], facts.queues[0] + report.queues))
        what = f"the daemon serves {served}, the rule sends to {shown_queues(facts.queues)}"
        yield Reason(Severity.WARNING, what, "fixer on")
    yield from _kernel(facts, report)
    if any(rules.takes_plain for rules in on) and not report.plain:
        what = "the rule takes plain packets, the daemon judges VXLAN only"
        yield Reason(Severity.WARNING, what, "fixer run --plain")
    if report.timestamps == "strip" and not all(rules.takes_syns for rules in on):
        what = "the daemon strips timestamps, the rule lets SYNs pass"
        yield Reason(Severity.WARNING, what, "fixer on --scope suspects")
    if report.monitor and facts.monitor:
        yield Reason(Severity.NOTE, "monitor mode: the daemon reports and changes nothing")
    elif report.monitor:
        what = "monitor mode, which the configuration does not ask for: the daemon reports and changes nothing"
        yield Reason(Severity.WARNING, what, "fixer run without --monitor")
    for flag, meaning in _REFUSED.items():
        if getattr(report.asked, flag) and not getattr(report.flags, flag):
            yield Reason(Severity.NOTE, f"{meaning} (queue.{flag} is refused)")


def _kernel(facts: Facts, report: Report) -> Iterator[Reason]:
    """Why the kernel does not finish what it could: the queue repairs it all the same."""
    wanted = facts.wanted if facts.wanted and facts.wanted.holds(facts.now) else None
    if wanted is None or wanted.selection is None or not wanted.selection.in_kernel:
        return
    if not isinstance(found := report.kernel, InKernel):
        return
    if found.trouble:
        what = f"the kernel does not finish everything that it could: {found.trouble}; the queue repairs it"
        yield Reason(Severity.NOTE, what)
    for interface, count in found.ahead.items():
        who = "1 tc program" if count == 1 else f"{count} tc programs"
        what = f"{who} of others before ours on {interface}: what ends there it never sees"
        yield Reason(Severity.NOTE, what, f"bpftool net show dev {interface}", by="See")


_REFUSED = {
    "fail_open": "a full queue loses packets, for this kernel cannot let them pass",
    "gso": "this kernel hands merged packets over in segments, with checksums of its own: that costs more, and "
    "they count as sound though nobody verified what came",
}


def _losses(facts: Facts) -> Iterator[Reason]:
    """What was lost or passed unseen since the daemon listens; another start counts anew."""
    lost = sum(each.queue_dropped + each.user_dropped for each in facts.listeners)
    if facts.on() and lost:
        what = f"{lost:,} packets were lost at the queue since the daemon listens: it is too slow, or stood still"
        yield Reason(Severity.WARNING, what, "raise queue.length or queue.count, and start fixer run again")
    if facts.on() and (missed := unseen.passed(facts)):
        what = f"{missed:,} packets passed unseen: the queue was full"
        yield Reason(Severity.WARNING, what, "raise queue.length or queue.count, and start fixer run again")
    if (report := facts.daemon.report) and report.log.lost:
        what = f"{report.log.lost:,} lines of the log were lost: whoever reads it is slow or gone, or its disk is full"
        yield Reason(Severity.NOTE, what)


def _interfaces(facts: Facts) -> Iterator[Reason]:
    """Packets that are too long for our rules, and yet not merged; flows that several queues do not share."""
    for interface, longest in dict.fromkeys((rules.interface, rules.longest) for _, rules in facts.on()):
        for link in links.named(facts.links, interface):
            if longest is not None and link.mtu > longest:
                what = f"packets longer than {longest:,} bytes are not looked at, but {link.name} may bring some of "
                command = f"fixer on --scope suspects --mtu {link.mtu}"
                by = "Next, unless no VXLAN comes that way"
                yield Reason(Severity.WARNING, f"{what}{link.mtu:,}", command, by)
    for obstacle in dict.fromkeys(filter(None, facts.obstacles.values())):
        yield Reason(Severity.NOTE, obstacle.what, obstacle.cure)
