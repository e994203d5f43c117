"""The device that VXLAN runs over on the laboratory's hosts: eth0, a VLAN or a bond on it, or WireGuard through it."""

from __future__ import annotations

import tempfile
from base64 import b64encode
from enum import StrEnum
from typing import TYPE_CHECKING

from fixer.errors import KernelLacks
from fixer.host.machine import Host

if TYPE_CHECKING:
    from fixer.lab.net import Namespace

VLAN = 100
WIREGUARD_PORT = 51820
WIREGUARD_OVERHEAD = 80  # bytes, over IPv6: what its own default MTU of 1420 leaves room for


class Carrier(StrEnum):
    """The value is the device's name on both hosts."""

    ETH0 = "eth0"
    VLAN = f"eth0.{VLAN}"
    BOND = "bond0"
    WIREGUARD = "wg0"

    @property
    def overhead(self) -> int:
        """How many bytes fewer than eth0 it carries; an 802.1Q tag does not count to an MTU."""
        return WIREGUARD_OVERHEAD if self is Carrier.WIREGUARD else 0

    @property
    def hides_vxlan(self) -> bool:
        """Whether what crosses the wire is no VXLAN."""
        return self is Carrier.WIREGUARD

    def lay(self, here: Namespace, number: int, there: int) -> None:
        """Make it on the host ``number``, whose eth0 is up and has no address; ``there`` is the other host's number.

        KernelLacks with ip's words if the kernel has no such device, ProgramMissing without the program ``wg``.
        """
        if self is Carrier.ETH0:
            return
        here.configure(self._made)
        if self is Carrier.BOND:
            here.configure("link set eth0 down", f"link set eth0 master {self}")
        if self is Carrier.WIREGUARD:
            here.configure(f"address add 172.31.102.{number}/24 dev eth0")
            _meet(here, number, there)
        here.configure(f"link set {self} addrgenmode none", f"link set {self} up")

    def cross(self, between: Namespace) -> None:
        """Let the wire's legs be where its frames are without a tag: AF_PACKET reads a tag beside the frame only."""
        if self is Carrier.VLAN:
            for leg in ("left", "right"):
                between.configure(
                    f"link set {leg} down",  # a device that is up could not be renamed before 6.2
                    f"link set {leg} name {leg}0",
                    f"link set {leg}0 up",
                    f"link add link {leg}0 {leg} type vlan id {VLAN}",
                    f"link set {leg} addrgenmode none",
                    f"link set {leg} up",
                )

    def missing(self, host: Host) -> str | None:
        """What this machine lacks for it, in one line; None if it has all."""
        from fixer.lab.net import Namespace, own_name  # only here: it imports us

        if self is Carrier.WIREGUARD and host.which("wg") is None:
            return "no program wg: apt install wireguard-tools"
        try:
            with Namespace(f"{own_name()}-probe", host) as here:
                here.configure("link add eth0 type veth peer name eth1")
                if self is not Carrier.ETH0:
                    here.configure(self._made)
        except KernelLacks as error:
            return f"no {self.name} device in this kernel: {error}"
        return None

    @property
    def _made(self) -> str:
        """What ``ip`` is told to make it; nothing for eth0, which is there."""
        return {
            Carrier.ETH0: "",
            Carrier.VLAN: f"link add link eth0 {self} type vlan id {VLAN}",
            Carrier.BOND: f"link add {self} type bond mode active-backup miimon 100",
            Carrier.WIREGUARD: f"link add {self} type wireguard",
        }[self]


def _meet(here: Namespace, number: int, there: int) -> None:
    """Keys and peer for WireGuard: the laboratory's hosts know each other's, for they are made from their numbers."""
    public = here.host.run(["wg", "pubkey"], input=_private_key(there)).out.strip()
    with tempfile.NamedTemporaryFile("w", encoding="ascii") as private:
        private.write(_private_key(number))
        private.flush()
        peer = ("peer", public, "endpoint", f"172.31.102.{there}:{WIREGUARD_PORT}", "allowed-ips", "0.0.0.0/0,::/0")
        done = here.run("wg", "set", "wg0", "listen-port", str(WIREGUARD_PORT), "private-key", private.name, *peer)
    if done.status != 0:
        raise KernelLacks(f"wg set: {done.err.strip()}")


def _private_key(number: int) -> str:
    """No secret: any 32 bytes are a key."""
    return b64encode(bytes([number]) * 32).decode()
