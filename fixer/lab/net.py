"""Two hosts in network namespaces, joined by a wire, with a kernel VXLAN between them; removed whatever happens.

    with Lab(Layout(mtu=9000), Pump(), host) as lab:
        lab.left.run("ping", "-c1", lab.right.overlay4)

The namespaces are called ``fx-PID-SERIAL-left``, ``…-right`` and ``…-wire`` (where the legs end): what a killed
process left behind can be told from what is in use, and is removed by the next one.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self, TypeVar

from fixer.errors import KernelLacks, NotPermitted, SystemRefused
from fixer.host import queues
from fixer.host.machine import Completed, Host
from fixer.lab.carrier import Carrier
from fixer.lab.pump import Fault

T = TypeVar("T")

STOP_SECONDS = 5.0  # what a process gets between being asked to end and being ended
VXLAN_OVERHEAD = {4: 50, 6: 70}  # bytes, by underlay: outer IP, UDP, VXLAN, inner Ethernet
VLAN_TAG = 4  # bytes
PROGRAMS = {  # what the lab runs, and the Debian package that has it
    "ip": "iproute2",
    "ethtool": "ethtool",
    "ping": "iputils-ping",
    "setpriv": "util-linux",
    "iptables": "iptables",
}
QUEUE_CONFIG, NLM_F_REQUEST = 0x0302, 1  # <linux/netfilter/nfnetlink_queue.h>, <linux/netlink.h>
_serial = itertools.count(1)


@dataclass(frozen=True)
class Layout:
    """What stands between the two hosts: by default the Swarm report's VNI 4097 on UDP 4789, without outer checksum."""

    underlay: int = 4  # IP version
    port: int = 4789
    vni: int = 4097
    mtu: int = 1500  # of the underlay, bytes
    outer_checksum: bool = False  # Linux's default over IPv4 is none, Swarm asks for one
    takes_absent6: bool = True  # over IPv6: whether the hosts accept an outer without one (udp6zerocsumrx)
    unfinished: bool = True  # the hosts leave transmit checksums to the (missing) hardware
    acquainted: bool = False  # they know each other's MAC addresses from the start, as a managed overlay's hosts do
    vlan: bool = False  # leave room for a tag inside the tunnel
    tunnel: bool = True  # False: no VXLAN, the overlay's addresses are on the wire itself
    carrier: Carrier = Carrier.ETH0  # the device below VXLAN

    @property
    def overlay_mtu(self) -> int:
        if not self.tunnel:
            return self.mtu
        return self.mtu - self.carrier.overhead - VXLAN_OVERHEAD[self.underlay] - VLAN_TAG * self.vlan


class Namespace:
    """A network namespace of ours, which is there while the context lasts."""

    def __init__(self, name: str, host: Host) -> None:
        self.name = name
        self.host = host

    def __enter__(self) -> Self:
        """Make it; KernelLacks with ip's own words, or NotPermitted."""
        _ip(self.host, [f"netns add {self.name}"])
        try:
            self.configure("link set lo up")
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove it; one that is not there is fine."""
        self.host.run(["ip", "netns", "delete", self.name])

    def configure(self, *lines: str) -> None:
        """Run ``lines`` as one ``ip -batch`` here; KernelLacks with ip's own words if one is refused."""
        _ip(self.host, lines, "-n", self.name)

    def run(self, *argv: str) -> Completed:
        """Run a command here to its end, however long that is; the completed process, whatever its exit status."""
        return self.host.run(self._inside(argv), seconds=None)

    def start(self, *argv: str, stdout: IO[str] | int = subprocess.PIPE) -> subprocess.Popen[str]:
        """Start a command here that ends with us: by ``stop``, or by the kernel (PDEATHSIG) should we be killed.

        To be called from a thread that stays, usually the main one: to the kernel, the parent is a thread.
        """
        return self.host.start(["setpriv", "--pdeathsig", "TERM", *self._inside(argv)], stdout=stdout)

    def _inside(self, argv: tuple[str, ...]) -> list[str]:
        return ["ip", "netns", "exec", self.name, *argv]

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call ``function`` in a thread that has entered here: sockets it opens stay here, ``NET`` is this one's."""
        outcome: list[T] = []
        errors: list[BaseException] = []

        def enter_and_call() -> None:
            try:
                self.host.enter_netns(self.name)
                outcome.append(function(*arguments))
            except BaseException as error:
                errors.append(error)  # raised below, in the thread of whoever called

        thread = threading.Thread(target=enter_and_call, name=self.name, daemon=True)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return outcome[0]


@contextmanager
def meanwhile(action: Callable[[threading.Event], object], name: str | None = None) -> Iterator[None]:
    """Do something in a thread of its own while the context lasts; it is to return soon once the event is set."""
    ended = threading.Event()
    thread = threading.Thread(target=action, args=(ended,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class End(Namespace):
    """One of the two hosts: its addresses ``underlay``, ``overlay4`` and ``overlay6``, and the overlay's ``device``."""

    def __init__(self, name: str, host: Host, layout: Layout, number: int) -> None:
        super().__init__(name, host)
        self.number = number
        self.underlay = f"192.168.102.{number}" if layout.underlay == 4 else f"fd00:102::{number}"
        self.overlay4 = f"10.0.1.{number}"
        self.overlay6 = f"fd00:1::{number}"
        self.device = "vxlan0" if layout.tunnel else "eth0"
        self.mac = f"02:00:00:00:01:{number:02x}"  # of ``device``, if the hosts are acquainted


class Wire(Protocol):
    """What joins the legs ``left`` and ``right`` in the wire's namespace for as long as the context lasts."""

    def join(self, namespace: Namespace, port: int) -> AbstractContextManager[None]: ...


@dataclass(frozen=True)
class Pump:
    """A wire of two processes (``fixer.lab.pump``), one for each direction, both with the same fault."""

    fault: Fault = field(default_factory=Fault)

    @contextmanager
    def join(self, namespace: Namespace, port: int) -> Iterator[None]:
        """Carry frames while the context lasts; SystemRefused if the pump does not start, or died on the way."""
        eats = ("--eat",) * self.fault.eats
        fault = (
            *eats,
            f"--finish={self.fault.finish}",
            f"--corrupt={self.fault.corrupt}",
            f"--damage={self.fault.damage}",
        )
        directions = [
            namespace.start(sys.executable, "-m", "fixer.lab.pump", *direction, f"--port={port}", *fault)
            for direction in (("left", "right"), ("right", "left"))
        ]
        try:
            for process in directions:
                if process.stdout is None or process.stdout.readline() != "ready\n":
                    raise SystemRefused("the lab's wire did not start: see the message above")
            yield
            if any(process.poll() is not None for process in directions):
                raise SystemRefused("the lab's wire broke: see the message above")
        finally:
            for process in directions:
                stop(process)


class Lab:
    """The whole laboratory, as a context: ``left`` and ``right`` are the hosts, ``between`` is where the wire is."""

    def __init__(self, layout: Layout, wire: Wire, host: Host) -> None:
        name = own_name()
        self.layout = layout
        self.host = host
        self.left = End(f"{name}-left", host, layout, 4)
        self.right = End(f"{name}-right", host, layout, 5)
        self.between = Namespace(f"{name}-wire", host)
        self._wire = wire
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        """Build it; KernelLacks, NotPermitted or ProgramMissing if that cannot be, and nothing is left behind."""
        sweep(self.host)
        with ExitStack() as undo:
            for namespace in (self.left, self.right, self.between):
                undo.enter_context(namespace)
            self._lay_underlay()
            for here, there in ((self.left, self.right), (self.right, self.left)):
                self._configure_end(here, there)
            self.layout.carrier.cross(self.between)
            visible = self.layout.tunnel and not self.layout.carrier.hides_vxlan
            undo.enter_context(self._wire.join(self.between, self.layout.port if visible else 0))
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._undo.__exit__(kind, error, trace)

    def _lay_underlay(self) -> None:
        """A veth pair from each host to the wire; without link-local addresses, so that nobody else speaks on it."""
        for leg, end in (("left", self.left), ("right", self.right)):
            self.between.configure(
                f"link add {leg} mtu {self.layout.mtu} type veth peer name eth0 mtu {self.layout.mtu} netns {end.name}",
                f"link set {leg} addrgenmode none",
                f"link set {leg} up",
            )

    def _configure_end(self, here: End, there: End) -> None:
        layout = self.layout
        here.configure("link set eth0 addrgenmode none", "link set eth0 up")
        layout.carrier.lay(here, here.number, there.number)
        # Frames as long as the wire's, and none longer.
        checksums = "on" if layout.unfinished else "off"
        for device in dict.fromkeys(("eth0", layout.carrier.value)):
            offloads = here.run("ethtool", "-K", device, "tso", "off", "gso", "off", "gro", "off", "tx", checksums)
            if offloads.status != 0:
                raise SystemRefused(f"ethtool refused the lab's offloads on {device}: {_one_line(offloads.err)}")
        if layout.tunnel:
            if layout.underlay == 4:
                checksum = "udpcsum" if layout.outer_checksum else "noudpcsum"
                length = 24
            else:
                sends = "no" if layout.outer_checksum else ""
                takes = "no" if layout.outer_checksum or not layout.takes_absent6 else ""
                checksum = f"{sends}udp6zerocsumtx {takes}udp6zerocsumrx"
                length = 64
            here.configure(
                f"address add {here.underlay}/{length} dev {layout.carrier}" + " nodad" * (layout.underlay == 6),
                f"link add vxlan0 type vxlan id {layout.vni} local {here.underlay} remote {there.underlay}"
                f" dstport {layout.port} {checksum} dev {layout.carrier}",
                f"link set vxlan0 addrgenmode none mtu {layout.overlay_mtu}",
                "link set vxlan0 up",
            )
        here.configure(
            f"address add {here.overlay4}/24 dev {here.device}",
            f"address add {here.overlay6}/64 dev {here.device} nodad",
        )
        if layout.acquainted:
            here.configure(
                f"link set {here.device} address {here.mac}",
                *(
                    f"neighbour replace {address} lladdr {there.mac} dev {here.device} nud permanent"
                    for address in (there.overlay4, there.overlay6)
                ),
            )


def own_name() -> str:
    """A name that no other namespace has, by which ``sweep`` knows whose it is."""
    return f"fx-{os.getpid()}-{next(_serial)}"


def stop(process: subprocess.Popen[str]) -> int:
    """Ask a process that we started to end (SIGTERM), insist after STOP_SECONDS (SIGKILL); its exit status."""
    process.terminate()
    try:
        return process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
    finally:
        if process.stdout is not None:
            process.stdout.close()


def sweep(host: Host) -> list[str]:
    """Remove what labs of processes that are no more left behind (they were killed): namespaces, temporary directories.

    Returns the names of what was removed.
    """

    def of_the_dead(names: Iterable[str]) -> list[str]:
        owned = ((name, re.match(r"fx-(\d+)-", name)) for name in names)
        return [name for name, owner in owned if owner and not host.exists(f"/proc/{owner[1]}")]

    namespaces = of_the_dead(line.split()[0] for line in host.run(["ip", "netns", "list"]).out.splitlines())
    for name in namespaces:
        Namespace(name, host).remove()
    room = Path(tempfile.gettempdir())
    directories = of_the_dead(path.name for path in room.glob("fx-*-*"))
    for name in directories:
        shutil.rmtree(room / name, ignore_errors=True)
    return namespaces + directories


def missing(host: Host) -> str | None:
    """Which part this machine lacks for the lab, in one line, each tried in an own namespace; None: it has all."""
    if host.geteuid() != 0:
        return "no root: network namespaces need it"
    for program, package in PROGRAMS.items():
        if host.which(program) is None:
            return f"no program {program}: apt install {package}"
    part = "network namespaces"
    try:
        with Namespace(f"{own_name()}-probe", host) as here:
            part = "veth"
            here.configure("link add left type veth peer name right")
            part = "VXLAN"
            here.configure("link add vxlan0 type vxlan id 1 dstport 4789 dev left")
            rule = "-t raw -A PREROUTING -p udp -j NFQUEUE --queue-num 0 --queue-bypass"
            tried = here.run("iptables", *rule.split())
            if tried.status != 0:
                return f"no NFQUEUE in the raw table of this kernel: {_one_line(tried.err)}"
            here.call(_wake_queues)
            if not here.call(queues.are_there, host):
                return "no nfnetlink_queue in this kernel"
    except KernelLacks as error:
        return f"no {part} in this kernel: {error}"
    return None


def _wake_queues() -> None:
    """Have the kernel load nfnetlink_queue, as whoever binds a queue does: a rule alone does not need it.

    A CONFIG without attributes changes nothing, and its answer does not matter.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, queues.NETLINK_NETFILTER) as nfnetlink:
        nfnetlink.send(struct.pack("=IHHII4x", 20, QUEUE_CONFIG, NLM_F_REQUEST, 0, 0))


def _ip(host: Host, lines: Iterable[str], *options: str) -> None:
    if host.geteuid() != 0:
        raise NotPermitted("the lab builds network namespaces and needs root: try sudo")
    done = host.run(["ip", *options, "-batch", "-"], input="\n".join(lines) + "\n")
    if done.status != 0:
        raise KernelLacks(f"ip {' '.join(lines)!r}: {_one_line(done.err)}")


def _one_line(text: str) -> str:
    return text.strip().split("\n")[0]
