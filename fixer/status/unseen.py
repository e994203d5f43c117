"""What the rules queued and no daemon was given, and where counting begins."""

from __future__ import annotations

from collections.abc import Sequence

from fixer.host.queues import Handed, Listener
from fixer.state.baseline import Baseline, not_handed
from fixer.status.facts import Facts, Rules


def passed(found: Facts) -> int | None:
    """Packets that passed unseen; None if that cannot be known."""
    return _passed_unseen(found.families, found.listeners, _since(found))


def _since(found: Facts) -> Baseline | None:
    """Where counting begins: a rule was written since one of the queues was bound, or else the daemon's own start."""
    if found.noted and any(each.socket in found.noted.handed for each in found.listeners):
        return found.noted
    report = found.daemon.report
    return Baseline(report.rule_packets_at_start) if report else None


def _passed_unseen(families: dict[str, Rules], heard: Sequence[Listener], since: Baseline | None) -> int | None:
    """Packets the rule queued ``since`` then, less those the queues were given; None if that cannot be known."""
    if not heard or since is None:
        return None
    matched = 0
    for key, rules in families.items():
        if rules.first and rules.first.on and key not in since.rule_packets:
            return None  # the daemon may not read what its rule had counted when it began
        before = since.rule_packets.get(key)
        counted = rules.first.counted.packets if rules.first else 0
        more = counted - (before or 0)
        if more < 0 or (rules.unavailable and before is not None):  # somebody else put it there anew, or it is not seen
            return None
        matched += more if rules.first and rules.first.on else 0
    return not_handed(since, matched, [(each.socket, Handed(each.id_sequence, each.socket_drops)) for each in heard])
