"""The program at the entry of one interface: put there, looked after, taken away.

By TCX where there is TCX (Linux 6.6), as the first: the kernel takes it away when its link is closed, which kill -9
does too. Else as a filter of clsact: that stays, and without entries does nothing.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from errno import EINVAL, EOPNOTSUPP
from typing import Literal

from fixer.kernel import bpf, clsact
from fixer.kernel.finisher import PROGRAM, Finisher

How = Literal["TCX", "clsact"]


class Attachment:
    """Of a program to an interface of this network namespace."""

    def __init__(self, finisher: Finisher, interface: int, ways: tuple[How, ...] = ("TCX", "clsact")) -> None:
        """``interface``: its index; ``ways``: which to try, the first one first. Raises OSError."""
        self.interface = interface
        self._program = finisher.program
        self._id = bpf.id_of(finisher.program)
        self._link: int | None = None
        self._made_clsact = False
        self.how: How = "TCX"
        if "TCX" in ways:
            self._link = self._linked("clsact" in ways)
        if self._link is None:
            self.how = "clsact"
            remove_left(interface)
            self._made_clsact = clsact.attach(self._program, interface, PROGRAM)

    def _linked(self, is_optional: bool) -> int | None:
        """The link by TCX; None before Linux 6.6, if there is another way."""
        try:
            return bpf.attach_tcx(self._program, self.interface, bpf.TCX_INGRESS, first=True)
        except OSError as error:
            if is_optional and error.errno in (EINVAL, EOPNOTSUPP):
                return None
            raise

    def is_there(self) -> bool:
        """Whether the kernel runs it still: others may delete clsact, and a device may go. Never raises."""
        try:
            return self._id in self._programs()
        except OSError:
            return False

    def ahead(self) -> int:
        """How many programs a packet meets before it, which may end its way. Never raises."""
        try:
            found = self._programs()
        except OSError:
            return 0
        return found.index(self._id) if self._id in found else 0

    def _programs(self) -> list[int]:
        if self.how == "TCX":
            return bpf.attached_tcx(self.interface, bpf.TCX_INGRESS)
        return [each.program for each in clsact.filters(self.interface)]

    def close(self) -> None:
        """Take it away, and nothing of anybody else's. Never raises: what is gone is gone."""
        if self._link is not None:
            os.close(self._link)
            self._link = None
            return
        with suppress(OSError):
            remove_left(self.interface)
            if self._made_clsact:
                clsact.remove_empty(self.interface)


def remove_left(interface: int) -> int:
    """Take away what a daemon left there that was killed; how many. Raises OSError."""
    left = [each for each in clsact.filters(interface) if (each.name, each.handle) == (PROGRAM, clsact.HANDLE)]
    for each in left:
        clsact.detach(interface, each)
    return len(left)


def remove_left_everywhere() -> int:
    """As :func:`remove_left`, on every interface of this network namespace. Never raises."""
    removed = 0
    for interface, _ in socket.if_nameindex():
        with suppress(OSError):
            removed += remove_left(interface)
    return removed
