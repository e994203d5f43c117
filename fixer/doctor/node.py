"""All that can be seen of a node, in one object: what the checks judge, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial

import msgspec
from msgspec import Struct

from fixer.cure import apply as cures
from fixer.cure import mentions as mentioned
from fixer.cure import record
from fixer.cure.apply import Held
from fixer.cure.plan import CHECKSUMS, Setting
from fixer.doctor import server
from fixer.doctor.kernels import Kernel
from fixer.doctor.server import Server
from fixer.errors import FixerError
from fixer.host import counters, devices, openvswitch, platform, queues
from fixer.host.devices import Device
from fixer.host.machine import NET, Host
from fixer.host.openvswitch import Bridge
from fixer.host.platform import Platform
from fixer.host.queues import Listener
from fixer.rules.rawtable import RawTable, parse

SETTINGS = (
    "net/netfilter/nf_conntrack_checksum",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/default/rp_filter",
)
SAVERS = ("iptables-save", "iptables-legacy-save", "ip6tables-save", "ip6tables-legacy-save")
TABLES = ("nat", "filter", "mangle", "raw")


class Space(Struct, frozen=True):
    """One network namespace."""

    option: str
    """How a verb's command line names it; '' is the one that was asked about."""
    devices: list[Device]
    counters: dict[str, int]

    @property
    def where(self) -> str:
        """For sentences, a blank before it."""
        return f" in the namespace {self.option.partition(' ')[2] or self.option}" if self.option else ""

    def tunnels(self) -> list[Device]:
        return [device for device in self.devices if device.vxlan]


class Node(Struct, frozen=True):
    """What was seen. What could not be is in ``unseen``, and nothing is concluded from it."""

    platform: Platform
    spaces: list[Space]
    """The one that was asked about first."""
    server: Server
    settings: dict[str, str]
    """Of /proc/sys, by their path below it."""
    tables: dict[str, RawTable]
    """By ``iptables-save nat`` and the like."""
    conntrack: list[str]
    """Its entries of UDP to a port that VXLAN ends at here."""
    bridges: list[Bridge]
    listeners: list[Listener]
    """On the queues of the configuration."""
    ports: tuple[int, ...]
    """Those of the configuration."""
    unheld: list[Held]
    """Cures that do not hold, or that nothing keeps."""
    unseen: list[str]
    seconds: float = 0
    """How long it was watched."""
    before: Node | None = None
    """The same node at the beginning of that."""

    @property
    def here(self) -> Space:
        return self.spaces[0]

    @property
    def kernel(self) -> Kernel | None:
        """The release it was made from, or the one it says to be."""
        return Kernel.read(self.platform.upstream or self.platform.release)

    def tunnels(self) -> Iterator[tuple[Space, Device]]:
        """Every VXLAN device, with the namespace it stands in."""
        return ((space, device) for space in self.spaces for device in space.tunnels())

    def nics(self) -> list[Device]:
        """What the underlay's packets come from."""
        return devices.nics(self.here.devices)

    def growth(self, space: Space, name: str) -> int | None:
        """By how much a counter grew while the node was watched; None if it was not, or is not counted."""
        earlier = self._earlier(space)
        if earlier is None or name not in space.counters or name not in earlier.counters:
            return None
        return space.counters[name] - earlier.counters[name]

    def sent(self, space: Space, device: Device) -> int:
        """Packets that a device sent while the node was watched; 0 if it was not."""
        earlier = self._earlier(space)
        then = next((each for each in earlier.devices if each.name == device.name), None) if earlier else None
        return 0 if then is None or then.sent is None or device.sent is None else device.sent - then.sent

    def _earlier(self, space: Space) -> Space | None:
        return next((each for each in self.before.spaces if each.option == space.option), None) if self.before else None


def look(host: Host, ports: Sequence[int], queue_numbers: Sequence[int], *, alone: bool = False) -> Node:
    """The namespace of the thread, and every other that can be entered, unless ``alone``.

    Raises :class:`fixer.errors.FixerError` only if not even the devices of this one can be listed.
    """
    unseen: list[str] = []
    spaces = [_space(host, "")]
    if not alone:
        spaces += _others(host, unseen)
    ends = {device.vxlan.port for space in spaces for device in space.devices if device.vxlan}
    try:
        listeners = queues.listeners(host, queue_numbers)
    except FixerError:
        listeners = []
        unseen.append("who listens on the queues (root)")
    return Node(
        platform=platform.look(host),
        spaces=spaces,
        server=server.look(host),
        settings=_settings(host),
        tables=_tables(host, unseen),
        conntrack=_conntrack(host, ends, unseen) if ends else [],
        bridges=openvswitch.bridges(host),
        listeners=listeners,
        ports=tuple(ports),
        unheld=[] if alone else _unheld(host, spaces[0].devices, unseen),
        unseen=unseen,
    )


def watch(host: Host, before: Node, seconds: float, *, alone: bool = False) -> Node:
    """The node as :func:`look` finds it after so long, beside what it was."""
    time.sleep(seconds)
    after = look(host, before.ports, [], alone=alone)
    return msgspec.structs.replace(
        after,
        listeners=before.listeners,
        server=after.server.grown_since(before.server.counters),
        before=before,
        seconds=seconds,
    )


def _space(host: Host, option: str) -> Space:
    return Space(option, devices.look(host), counters.look(host))


def _others(host: Host, unseen: list[str]) -> list[Space]:
    found = []
    refused = 0
    for option, path in host.other_namespaces():
        try:
            found.append(host.within(path, partial(_space, option=option)))
        except FixerError:  # it has just ended, or only root may enter it
            refused += 1
    if refused or host.geteuid() != 0:
        unseen.append("other network namespaces (root)")
    return found


def _unheld(host: Host, there: Sequence[Device], unseen: list[str]) -> list[Held]:
    """What `fixer cure` applied here, and what somebody has turned off by hand, as far as nothing else keeps it."""
    found: list[Held] = []
    recorded = record.devices(host)
    for name in recorded:
        try:
            found += [cures.held(host, entry.plan, recorded=True) for entry in [record.load(host, name)] if entry]
        except FixerError as error:
            unseen.append(f"whether the cure of {name} holds ({error})")
    unseen += [f"whether the cure of {each.plan.setting.device} holds" for each in found if each.unread]
    by_hand = [
        Setting(device.name, (CHECKSUMS[0],))
        for device in (*devices.nics(there), *(each for each in there if each.vxlan))
        if device.name not in recorded and device.features.get(CHECKSUMS[0]) == "off"
    ]
    if by_hand:
        found += _unkept(host, by_hand, unseen)
    return [each for each in found if each.is_lost]


def _unkept(host: Host, by_hand: Sequence[Setting], unseen: list[str]) -> Iterator[Held]:
    mentions = mentioned.of_checksums(host)
    if mentions.unread and not mentions.found:
        unseen.append("whether a file keeps checksums off (root)")
    if mentions.found or mentions.unread:
        return
    for setting in by_hand:
        try:
            plan = cures.plan(host, setting)
        except FixerError as error:
            unseen.append(f"whether anything keeps checksums of {setting.device} off ({error})")
            continue
        # What is kept outside of the node cannot be seen here.
        if not plan.is_by_hand or plan.keeper == cures.NOBODY:
            yield cures.held(host, plan, recorded=False)


def _settings(host: Host) -> dict[str, str]:
    found = {}
    for name in SETTINGS:
        try:
            text = host.read(f"/proc/sys/{name}")
        except FixerError:
            continue
        if text is not None:
            found[name] = text.strip()
    return found


def _tables(host: Host, unseen: list[str]) -> dict[str, RawTable]:
    found: dict[str, RawTable] = {}
    refused = False
    for saver in SAVERS:
        if host.which(saver) is None:
            continue
        try:
            done = host.run([saver, "-c"])
        except FixerError:
            refused = True
            continue
        refused = refused or done.status != 0
        for part in done.out.split("\n*")[1:] if done.out.startswith("#") else done.out.split("*")[1:]:
            name, _, lines = part.partition("\n")
            if name in TABLES:
                found[f"{saver} {name}"] = parse(lines.partition("\nCOMMIT")[0])
    if refused:
        unseen.append("iptables rules (root)")
    return found


def _conntrack(host: Host, ports: set[int], unseen: list[str]) -> list[str]:
    try:
        text = host.read(f"{NET}/nf_conntrack")
    except FixerError:
        unseen.append("conntrack's entries (root)")
        return []
    wanted = {f"dport={port}" for port in ports}
    return [line for line in (text or "").splitlines() if " udp " in f" {line} " and wanted & set(line.split())]
