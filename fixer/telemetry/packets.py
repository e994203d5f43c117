"""The datapath's events as ECS documents, one JSON line each.

Field names are those of the Elastic Common Schema; what it has no field for (VXLAN, checksums) lives under ``fixer.*``.
``source`` and ``destination`` are the inner flow, which is the one an application sees; the VTEPs that carry it are
``fixer.vtep.source`` and ``fixer.vtep.destination``. A document describes one packet, or (``fixer.packets_left_out``
without a flow) how many of a kind were not told.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any, TextIO, cast

import ecs_logging
import structlog

from fixer import __version__
from fixer.datapath.diagnose import Diagnosis, InnerState, OuterState
from fixer.datapath.evidence import Explanation
from fixer.datapath.pipeline import Pipeline
from fixer.datapath.repair import Action
from fixer.datapath.result import Result
from fixer.datapath.walk import Reason
from fixer.words import ACTIONS, DIAGNOSES, EXPLANATIONS, INNER_STATES, OUTER_STATES, REASONS, TRANSPORTS

DRAIN_SECONDS = 0.1
"""How long an event may lie in the ring. At most ``Pipeline.drain``'s default are told in that time."""

_TYPES = {Action.PASS: ["allowed"], Action.REPAIR: ["allowed", "info"], Action.DROP: ["denied"]}


def logger(stream: TextIO) -> structlog.typing.FilteringBoundLogger:
    """A logger that writes ECS JSON lines to ``stream``, one write and one flush each."""
    formatter = cast(structlog.typing.Processor, ecs_logging.StructlogFormatter(ensure_ascii=False))
    bare: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(stream),
        processors=[formatter],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
    )
    return bare.bind(**{"service.name": "fixer", "service.version": __version__, "event.module": "fixer"})


def state_change(action: str, **fields: Any) -> dict[str, Any]:
    """The fields of an event about fixer itself: ``started``, ``stopped``, ``degraded`` or ``failed``."""
    types = {"started": ["start"], "stopped": ["end"], "degraded": ["info"], "failed": ["end"]}[action]
    return {
        "event.dataset": "fixer.daemon",
        "event.kind": "event",
        "event.category": ["process"],
        "event.type": types,
        "event.outcome": "failure" if action in ("degraded", "failed") else "success",
        "event.action": action,
        **fields,
    }


def document(event: Result) -> dict[str, Any]:
    """The fields of one event of the ring, without ``message`` (see :func:`sentence`)."""
    fields: dict[str, Any] = {
        "@timestamp": timestamp(event.when_ns),
        "event.dataset": "fixer.packet",
        "event.kind": "event",
        "event.category": ["network"],
        "event.reason": DIAGNOSES[event.diagnosis],
        "fixer.diagnosis": event.diagnosis.name.lower(),
        "fixer.packets_left_out": event.left_out,
    }
    if event.summary:
        fields |= {"event.type": ["info"], "event.action": "left-out"}
        return fields | ({"fixer.vtep.source.ip": event.outer_source} if event.outer_source else {})
    fields |= {
        "event.type": _TYPES[event.action],
        "event.action": event.action.name.lower(),
        "fixer.policy": event.would.name.lower(),
        "fixer.packet.bytes": event.length,
        "fixer.inner.state": INNER_STATES[event.inner],
    }
    if event.inner not in (InnerState.NONE, InnerState.ABSENT, InnerState.UNCHECKABLE):
        fields |= checksums("fixer.inner", event.inner_found, event.inner_right)
    if event.reason is not Reason.NONE:
        fields["fixer.reason"] = REASONS[event.reason]
    if event.explanation is not Explanation.UNEXPLAINED:
        fields["fixer.explanation"] = EXPLANATIONS[event.explanation]
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
        return f"{DIAGNOSES[event.diagnosis]}: {event.left_out} more from {sender}, not told"
    layers = []
    if event.inner in (InnerState.PARTIAL, InnerState.WRONG):
        layers.append(f"inner {event.inner_found:04x} (right {event.inner_right:04x})")
    if event.outer in (OuterState.PARTIAL, OuterState.STALE, OuterState.WRONG):
        layers.append(f"outer {event.outer_found:04x} (right {event.outer_right:04x})")
    done = ACTIONS[event.action] if event.action is event.would else f"would be {ACTIONS[event.would]}"
    if event.unverified and event.would is Action.REPAIR:
        done += ", payload unverified"
    parts = [DIAGNOSES[event.diagnosis], *layers, where(event), done]
    return "; ".join(part for part in parts if part)


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


def timestamp(nanoseconds: int) -> str:
    """Nanoseconds since the epoch as ECS writes a time, to the millisecond."""
    moment = datetime.fromtimestamp(nanoseconds // 1_000_000 / 1000, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Teller(threading.Thread):
    """The only thread that writes the log: what the pipelines' rings hold, and what the daemon says of itself.

    If whoever reads the log is slow, this thread waits, the ring fills and counts what it lost; no packet waits. A line
    that cannot be written (a closed pipe, a full disk) is given up: traffic is worth more than its description.
    """

    def __init__(self, pipelines: Sequence[Pipeline], stream: TextIO) -> None:
        super().__init__(name="teller", daemon=True)
        self.failed = False
        """Whether a line could not be written."""
        self._pipelines = pipelines
        self._log = logger(stream)
        self._said: SimpleQueue[tuple[str, str, dict[str, Any]]] = SimpleQueue()
        self._over = threading.Event()

    def say(self, level: str, message: str, **fields: Any) -> None:
        """A line about fixer itself (see :func:`state_change`), from any thread; does not wait."""
        self._said.put((level, message, fields))

    def run(self) -> None:
        while not self._over.wait(DRAIN_SECONDS):
            self._tell_said()
            self.tell()
        while self.tell():
            pass
        self._tell_said()

    def tell(self) -> int:
        """Write the events that there are; how many that were."""
        events = [event for pipeline in self._pipelines for event in pipeline.drain()]
        for event in events:
            level = "warning" if event.diagnosis is Diagnosis.CORRUPT else "info"
            self._write(level, sentence(event), document(event))
        return len(events)

    def finish(self, seconds: float, level: str, message: str, **fields: Any) -> bool:
        """Let the rest and this last line be written, for at most ``seconds``; False if the log is stuck or broken."""
        self._over.set()
        self.say(level, message, **fields)
        self.join(seconds)
        return not (self.is_alive() or self.failed)

    def _tell_said(self) -> None:
        while not self._said.empty():
            self._write(*self._said.get())

    def _write(self, level: str, message: str, fields: dict[str, Any]) -> None:
        try:
            getattr(self._log, level)(message, **fields)
        except OSError:
            self.failed = True
