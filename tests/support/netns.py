"""A network namespace with traffic of its own, for tests of rules and queues."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from fixer.host.machine import Completed
from fixer.lab import net


class Namespace(net.Namespace):
    """The laboratory's, where every command must work."""

    def run(self, *argv: str) -> Completed:
        """A command inside that must work."""
        done = super().run(*argv)
        assert done.status == 0, (argv, done)
        return done

    @contextmanager
    def receiving(self, port: int = 4789) -> Iterator[None]:
        """A socket that VXLAN ends at, over IPv4 and IPv6, as a VXLAN device has one."""

        def opened() -> list[socket.socket]:
            socks = [socket.socket(family, socket.SOCK_DGRAM) for family in (socket.AF_INET, socket.AF_INET6)]
            socks[1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            for sock in socks:
                sock.bind(("", port))
            return socks

        with ExitStack() as until:
            for sock in self.call(opened):
                until.enter_context(sock)
            yield

    def send(self, count: int, port: int = 4789, version: int = 4) -> None:
        """UDP datagrams over loopback: they pass raw/PREROUTING like any that arrive."""

        def sender() -> None:
            family, address = (socket.AF_INET, "127.0.0.1") if version == 4 else (socket.AF_INET6, "::1")
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                for _ in range(count):
                    sock.sendto(b"x", (address, port))

        self.call(sender)

    def send_raw(self, packets: list[bytes], version: int) -> None:
        """Packets from their IP header on, to loopback, whatever address stands in them."""

        def sender() -> None:
            family, address = (socket.AF_INET, "127.0.0.1") if version == 4 else (socket.AF_INET6, "::1")
            with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
                for packet in packets:
                    sock.sendto(packet, (address, 0))

        self.call(sender)

    def saved(self, command: str = "iptables") -> list[str]:
        """The raw table with its rules' counters, without comments.

        Not the policies' counters: any change at all by iptables-legacy, ``-A`` included, sets them to zero.
        """
        lines = self.run(f"{command}-save", "-c", "-t", "raw").out.splitlines()
        return [line.partition(" [")[0] if line.startswith(":") else line for line in lines if line[0] != "#"]
