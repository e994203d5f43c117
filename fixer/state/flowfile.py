"""The flow table's file, shared between the daemon that lives and the one that follows.

The daemon maps it (`open_flows`), so that what `kill -9` interrupts is found again. ``fixer off`` and ``fixer status``
read a few numbers of its header, and switch draining on and off there; for that they need nothing compiled.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fixer.errors import QueueBusy, SystemRefused
from fixer.host.machine import Host
from fixer.state import place

if TYPE_CHECKING:
    from fixer.datapath.flows import Flows

# `struct Header` of fixer/datapath/flows.pxd: a test holds the two together.
_HEADER = struct.Struct("=8s4IQ3I")
_MAGIC, _VERSION = b"FIXFLOWS", 2
_DRAINING = _HEADER.size - 12  # offset
_NOT_TO_BE_KEPT = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT}
"""What a file system says that takes no file; EPERM of one that is immutable, and of place.opened about strangers."""


class Live(NamedTuple):
    """What the header says. ``normalised``: live connections whose timestamps are shifted, which need the daemon."""

    normalised: int
    draining: bool
    used: int
    capacity: int


class Opened(NamedTuple):
    """A flow table, ready, and what to tell about how it was found."""

    flows: Flows
    taken: int  # connections that were found in the file
    warnings: tuple[str, ...]


def path_of(host: Host, queue: int) -> Path:
    """The file of the daemon whose first queue this is, in the host's network namespace."""
    return place.path_of(host, "flows", queue)


def paths(host: Host) -> list[Path]:
    """The files of all daemons of the host's network namespace, living or not."""
    return place.every(host, "flows")


def look(path: Path) -> Live | None:
    """What the file's header says; None if there is no file. ValueError if it is no flow table of ours, OSError too."""
    try:
        with os.fdopen(place.opened(path), "rb") as file:
            header = file.read(_HEADER.size)
    except FileNotFoundError:
        return None
    if len(header) < _HEADER.size:
        raise ValueError("it is too short")
    magic, version, capacity, _clocks, _check, _seed, draining, normalised, used = _HEADER.unpack(header)
    if magic != _MAGIC or version != _VERSION:
        raise ValueError("it is no flow table of this version of fixer")
    return Live(normalised, draining == 1, used, capacity)


def set_draining(path: Path, draining: bool) -> None:
    """Have new connections left alone from now on, or not any more; the daemon sees it at once. ValueError, OSError."""
    if look(path) is None:
        raise FileNotFoundError(path)
    with os.fdopen(place.opened(path, os.O_RDWR), "r+b") as file:
        file.seek(_DRAINING)
        file.write(struct.pack("=I", draining))


def remove_unused(host: Host) -> None:
    """Remove the files of this network namespace that no daemon has open: without rules they are of no use to anybody.

    (A namespace that is made later may get the number of this one.) What cannot be removed stays.
    """
    for path in paths(host):
        with suppress(OSError, QueueBusy), _held(path):
            path.unlink()


def open_flows(path: Path, capacity: int) -> Opened:
    """A table of ``capacity`` flows in a new file under ``path``, with all that can be taken over from the one there.

    The file is locked for as long as the table lives: its mapping keeps a descriptor.
    What is not a flow table, or damaged, is set aside. Nothing is lost if we are killed on the way: the old file is
    there until the new one, complete, takes its name. Where no file can be made (a file system that is full or
    read-only) the table is in memory alone, and warned of. Raises :class:`QueueBusy` or :class:`SystemRefused`.
    """
    from fixer.datapath.flows import Flows

    try:
        place.make(path.parent)
        with _held(path):
            return _make(path, capacity)
    except OSError as error:
        is_ours = error.errno != errno.EPERM or error.filename is not None  # what a stranger has put there is refused
        if error.errno in _NOT_TO_BE_KEPT and is_ours:
            return _in_memory(path, capacity, error)
        raise SystemRefused(
            f"the flow table {path} ({Flows.size(capacity) >> 20} MiB for timestamps.flows = {capacity}) cannot be "
            f"made: {error.strerror}"
        ) from error


def _make(path: Path, capacity: int) -> Opened:
    """`open_flows`, while nobody else can."""
    from fixer.datapath.flows import Flows

    size = Flows.size(capacity)
    fresh = path.with_name(path.name + place.UNFINISHED)
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, path)
        # No hole: a full file system must be an error now, not a SIGBUS in the packet path.
        os.posix_fallocate(descriptor, 0, size)
        # All of it now, so that no packet waits for a page.
        flows = Flows(mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE), capacity)
        taken, warnings = _adopt(flows, path)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    return Opened(flows, taken, warnings)


def _in_memory(path: Path, capacity: int, why: OSError) -> Opened:
    """A table without a file, with all that can be taken over from the one there: a daemon that did not start would let
    those connections stall at once, and this one does when it ends."""
    from fixer.datapath.flows import Flows

    flows = Flows(mmap.mmap(-1, Flows.size(capacity), flags=mmap.MAP_PRIVATE | mmap.MAP_POPULATE), capacity)
    taken = 0
    warnings: tuple[str, ...] = (
        f"the flow table {path} cannot be kept: {why.strerror}; connections that are normalised stall when this daemon "
        "ends, and with fixer off, which cannot count them and does not wait",
    )
    with suppress(OSError), os.fdopen(place.opened(path), "rb") as file:
        _lock(file.fileno(), path)
        taken, more = _adopt(flows, path)
        warnings += more
    return Opened(flows, taken, warnings)


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Lock the file that is there, if one is, until ours has taken its name."""
    try:
        old = place.opened(path, os.O_RDWR)
    except FileNotFoundError:
        yield
        return
    try:
        _lock(old, path)
        yield
    finally:
        os.close(old)


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise QueueBusy(
            f"another daemon uses {path}: see fixer status, or choose another queue with --queue N"
        ) from None


def _adopt(flows: Flows, path: Path) -> tuple[int, tuple[str, ...]]:
    """Take over what the file under ``path`` holds; how many connections, and what to warn of."""
    try:
        with os.fdopen(place.opened(path), "rb") as file:
            old = file.read()
    except FileNotFoundError:
        return 0, ()
    try:
        taken, damaged, left = flows.adopt(old, int(time.monotonic()))
    except ValueError as error:
        aside = path.with_suffix(".flows.damaged")
        path.replace(aside)
        return 0, (f"{path} is set aside as {aside.name}: {error}; connections normalised before are not any more",)
    warnings = []
    if damaged:
        warnings.append(f"{path}: {damaged} damaged entries are left out; if normalised, those connections stall")
    if left:
        warnings.append(
            f"{path}: no room for {left} entries that were there; raise timestamps.flows above {taken + left}"
        )
    return taken, tuple(warnings)
