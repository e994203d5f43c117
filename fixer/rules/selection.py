"""What is to be taken, and to which queue: in no backend's words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta, Struct

from fixer.config import Port, QueueCount, QueueNumber, Settings
from fixer.errors import ConfigWrong

Network = IPv4Network | IPv6Network
Scope = Literal["all", "suspects"]


class Family(NamedTuple):
    """An address family, which has rules of its own."""

    name: Literal["IPv4", "IPv6"]
    version: Literal[4, 6]

    @property
    def key(self) -> str:
        """The family's name in JSON."""
        return self.name.lower()


IPV4 = Family("IPv4", 4)
IPV6 = Family("IPv6", 6)
FAMILIES = (IPV4, IPV6)

MOST_QUEUE = 65535

# IFNAMSIZ; to iptables, "eth+" is all that begin so.
Moment = Annotated[datetime, Meta(tz=True)]
InterfaceName = Annotated[str, Meta(pattern=r"^[^\s/]{1,15}$")]


class Selection(Struct, frozen=True, forbid_unknown_fields=True):
    """What goes to the queue: VXLAN by its UDP ports or, with ``plain``, all TCP, UDP and ICMP that arrives.

    With a ``count`` there are as many queues, from ``queue`` on; a packet goes to that of the CPU it is received on.
    ``interface`` and ``sources`` narrow it. A family that has no source of its own, while the other has, gets no rule.
    With ``suspects_up_to``, what :mod:`fixer.rules.suspects` exempts passes, and all that is longer than so many bytes;
    with ``syns`` none of it that may be a SYN.
    With a ``flows_queue``, the TCP of ``flows_sources`` goes there, inside VXLAN and with ``plain`` outside too, and so
    do the replies to it, which leave by another hook; ``interface`` and ``sources`` narrow both directions.
    With an ``outgoing_queue``, all of the same kind that this host sends goes there, whatever ``suspects_up_to`` says;
    ``interface`` narrows it, and so do ``sources``, as what it is sent to.

    Networks are text, as they stand in a file. ValueError if one is none; what else is wrong there, msgspec finds.
    """

    queue: QueueNumber
    count: QueueCount = 1
    ports: tuple[Port, ...] = ()
    plain: bool = False
    interface: InterfaceName | None = None
    sources: tuple[str, ...] = ()
    suspects_up_to: int | None = None
    syns: bool = False
    flows_queue: QueueNumber | None = None
    flows_sources: tuple[str, ...] = ()
    outgoing_queue: QueueNumber | None = None
    in_kernel: bool = False
    """Whether the daemon has the kernel finish what it has diagnosed, before any rule meets it (docs/kernel.md)."""
    overlay_ends_here: bool = False
    """Whether the kernel may mark it as verified instead: no packet of the overlay is forwarded to another host."""
    until: Moment | None = None
    """When the kernel itself stops taking any; to the second."""

    def __post_init__(self) -> None:
        for source in (*self.sources, *self.flows_sources):
            ip_network(source)
        if not (self.ports or self.plain):
            raise ValueError("neither ports nor plain: nothing to take")
        if self.overlay_ends_here and not self.in_kernel:
            raise ValueError("overlay_ends_here: says what the kernel may do, and it is to do nothing")

    @classmethod
    def of(
        cls,
        settings: Settings,
        *,
        interface: str | None = None,
        sources: Iterable[Network] = (),
        suspects_up_to: int | None = None,
        outgoing: bool = False,
        in_kernel: bool = False,
        overlay_ends_here: bool = False,
        until: datetime | None = None,
    ) -> Selection:
        """What the settings want taken, narrowed by what was asked for on the command line.

        Raises :class:`ConfigWrong` if ``outgoing`` packets are wanted too, and no queue is left for them; and if the
        settings want packets in a queue to which one that is marked as verified must not come.
        """
        if outgoing and settings.outgoing_queue > MOST_QUEUE:
            raise ConfigWrong("no queue number is left for what leaves: take lower ones for the others")
        mode = settings.timestamps.mode
        if overlay_ends_here and mode != "off":
            raise ConfigWrong(f'timestamps.mode = "{mode}" queues what the kernel has marked: not --overlay-ends-here')
        return cls(
            queue=settings.queue.number,
            count=settings.queue.count,
            ports=settings.vxlan.ports,
            plain=settings.plain,
            interface=interface,
            sources=tuple(map(str, sources)),
            suspects_up_to=suspects_up_to,
            in_kernel=in_kernel,
            overlay_ends_here=overlay_ends_here,
            syns=mode == "strip",
            flows_queue=settings.timestamps_queue if mode == "normalise" else None,
            flows_sources=settings.timestamps.sources,
            outgoing_queue=settings.outgoing_queue if outgoing else None,
            until=until,
        )

    @property
    def queues(self) -> range:
        return range(self.queue, self.queue + self.count)

    def concerns(self, family: Family) -> bool:
        """Whether there is anything to take of this family."""
        return not self.sources or bool(self.networks(family))

    def networks(self, family: Family) -> list[Network]:
        """The sources of this family that narrow what is taken; empty if nothing does, or nothing is taken."""
        return [each for each in map(ip_network, self.sources) if each.version == family.version]

    def flows_networks(self) -> list[Network]:
        """The sources whose timestamps are normalised, of both families."""
        return [ip_network(source) for source in self.flows_sources]

    def flows_queues(self) -> dict[str, int]:
        """The queue where timestamps are normalised, for each family that has rules that lead there."""
        if self.flows_queue is None:
            return {}
        return {family.key: self.flows_queue for family in FAMILIES if self.concerns(family)}

    def every_queue(self) -> list[int]:
        """Each queue that packets are sent to."""
        beside = [] if self.outgoing_queue is None else [self.outgoing_queue]
        return [*self.queues, *dict.fromkeys(self.flows_queues().values()), *beside]


def shown_queues(numbers: Sequence[int]) -> str:
    """Consecutive queues, for people."""
    return f"queue {numbers[0]}" if len(numbers) == 1 else f"queues {numbers[0]} to {numbers[-1]}"
