"""A network namespace with traffic of its own, for tests of rules and queues."""

from __future__ import annotations

import itertools
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

from fixer.node.host import Completed, Host

_numbers = itertools.count(1)


class Namespace:
    """A namespace with its loopback up."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.name = f"fx-{os.getpid()}-node{next(_numbers)}"

    def run(self, *argv: str) -> Completed:
        """A command inside that must work."""
        done = self.host.run(["ip", "netns", "exec", self.name, *argv])
        assert done.status == 0, (argv, done)
        return done

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in a thread that has entered; its result or its exception."""
        outcome: list[Any] = []

        def enter_and_call() -> None:
            try:
                self.host.enter_netns(self.name)
                outcome.extend((True, function(*arguments)))
            except BaseException as error:
                outcome.extend((False, error))

        thread = threading.Thread(target=enter_and_call)
        thread.start()
        thread.join()
        if not outcome[0]:
            raise outcome[1]
        return outcome[1]

    def send(self, count: int, port: int = 4789, version: int = 4) -> None:
        """UDP datagrams over loopback: they pass raw/PREROUTING like any that arrive."""

        def sender() -> None:
            family, address = (socket.AF_INET, "127.0.0.1") if version == 4 else (socket.AF_INET6, "::1")
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                for _ in range(count):
                    sock.sendto(b"x", (address, port))

        self.call(sender)

    def saved(self, command: str = "iptables") -> list[str]:
        """The raw table with its rules' counters, without comments.

        Not the policies' counters: any change at all by iptables-legacy, ``-A`` included, sets them to zero.
        """
        lines = self.run(f"{command}-save", "-c", "-t", "raw").out.splitlines()
        return [line.partition(" [")[0] if line.startswith(":") else line for line in lines if line[0] != "#"]
