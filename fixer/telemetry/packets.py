"""The datapath's events as ECS documents, one JSON line each.

``source`` and ``destination`` are the inner flow, which is the one an application sees; the VTEPs that carry it are
``fixer.vtep.source`` and ``fixer.vtep.destination``. A document describes one packet, or (``fixer.packets_left_out``
without a flow) how many of a kind were not told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from fixer.datapath.diagnose import Diagnosis, Explanation, InnerState, OuterState, Vouch
from fixer.datapath.pipeline import Pipeline
from fixer.datapath.repair import Action
from fixer.datapath.result import Result
from fixer.datapath.walk import Reason
from fixer.telemetry.events import Level, Saying, header
from fixer.words import (
    ACTIONS,
    EXPLANATIONS,
    INNER_STATES,
    OUTER_STATES,
    TRANSPORTS,
    VOUCHES,
    diagnosis_words,
    reason_words,
)


def happened(pipelines: Iterable[Pipeline]) -> Iterator[Saying]:
    """What the pipelines' rings hold, taken out of them, as lines for the log."""
    for event in [event for pipeline in pipelines for event in pipeline.drain()]:
        level: Level = "warning" if event.diagnosis is Diagnosis.CORRUPT else "info"
        yield Saying(level, sentence(event), document(event), None if event.summary else event.when_ns)


def document(event: Result) -> dict[str, Any]:
    """The fields of one event of the ring, without ``message`` (see :func:`sentence`)."""
    action = "left-out" if event.summary else event.action.name.lower()
    fields = header("fixer.packet", action, when_ns=event.when_ns) | {
        "event.reason": words_of(event),
        "fixer.diagnosis": event.diagnosis.name.lower(),
        "fixer.packets_left_out": event.left_out,
    }
    if event.summary:
        sender = "fixer.vtep.source.ip" if event.vxlan else "source.ip"
        return fields | ({sender: event.outer_source} if event.outer_source else {})
    fields |= {
        "fixer.policy": event.would.name.lower(),
        "fixer.packet.bytes": event.length,
        "fixer.inner.state": INNER_STATES[event.inner],
    }
    if event.inner not in (InnerState.NONE, InnerState.ABSENT, InnerState.UNCHECKABLE):
        fields |= checksums("fixer.inner", event.inner_found, event.inner_right)
    if event.reason is not Reason.NONE:
        fields["fixer.reason"] = reason_words(event.reason, event.outer)
    if event.explanation is not Explanation.UNEXPLAINED:
        fields["fixer.explanation"] = EXPLANATIONS[event.explanation]
    if event.vouch is not Vouch.NOBODY:
        fields["fixer.vouch"] = VOUCHES[event.vouch]
    if event.would is Action.REPAIR:
        fields["fixer.payload.verified"] = not event.unverified
    if event.vxlan:
        fields |= {
            "fixer.outer.state": OUTER_STATES[event.outer],
            "fixer.vni": event.vni,
            "fixer.vtep.source.ip": event.outer_source,
            "fixer.vtep.source.port": event.outer_source_port,
            "fixer.vtep.destination.ip": event.outer_destination,
            "fixer.vtep.destination.port": event.outer_destination_port,
        }
        if event.outer not in (OuterState.ZERO, OuterState.UNCHECKABLE):
            fields |= checksums("fixer.outer", event.outer_found, event.outer_right)
    if event.vlan is not None:
        fields["network.inner.vlan.id"] = str(event.vlan)
    return fields | flow(event)


def checksums(layer: str, found: int, right: int) -> dict[str, str]:
    """Both fields as tcpdump and tshark print them: four hexadecimal digits."""
    return {f"{layer}.checksum.found": f"{found:04x}", f"{layer}.checksum.right": f"{right:04x}"}


def flow(event: Result) -> dict[str, Any]:
    """The inner five-tuple, as far as there is one."""
    if not event.inner_version:
        return {}
    fields: dict[str, Any] = {
        "source.ip": event.inner_source,
        "destination.ip": event.inner_destination,
        "network.type": f"ipv{event.inner_version}",
        "network.iana_number": str(event.inner_protocol),
    }
    if event.inner_protocol in TRANSPORTS:
        fields["network.transport"] = TRANSPORTS[event.inner_protocol]
    if event.inner_source_port or event.inner_destination_port:
        fields |= {"source.port": event.inner_source_port, "destination.port": event.inner_destination_port}
    return fields


def sentence(event: Result) -> str:
    """The event in a line for somebody who reads the log itself."""
    if event.summary:
        sender = event.outer_source or "other senders"
        return f"{words_of(event)}: {event.left_out} more from {sender}, not told"
    layers = []
    if event.inner in (InnerState.PARTIAL, InnerState.WRONG):
        layer = "inner" if event.vxlan else "checksum"
        layers.append(f"{layer} {event.inner_found:04x} (right {event.inner_right:04x})")
    if event.outer in (OuterState.PARTIAL, OuterState.STALE, OuterState.WRONG):
        layers.append(f"outer {event.outer_found:04x} (right {event.outer_right:04x})")
    done = ACTIONS[event.action] if event.action is event.would else f"would be {ACTIONS[event.would]}"
    if event.unverified and event.would is Action.REPAIR:
        done += ", payload unverified"
    parts = [words_of(event), *layers, where(event), done]
    return "; ".join(part for part in parts if part)


def words_of(event: Result) -> str:
    """What the diagnosis is called; of packets without a tunnel, which have one layer, without "inner"."""
    return diagnosis_words(event.diagnosis, event.outer)


def where(event: Result) -> str:
    """``10.0.0.1:80 > 10.0.0.2:5000 tcp in 192.0.2.1 > 192.0.2.2 VNI 7``, as far as it is known."""
    inner = ""
    if event.inner_version:
        transport = TRANSPORTS.get(event.inner_protocol, f"protocol {event.inner_protocol}")
        inner = (
            f"{endpoint(event.inner_source, event.inner_source_port)} > "
            f"{endpoint(event.inner_destination, event.inner_destination_port)} {transport}"
        )
    if not event.vxlan:
        return inner
    return f"{inner} in {event.outer_source} > {event.outer_destination} VNI {event.vni}".strip()


def endpoint(address: str, port: int) -> str:
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
