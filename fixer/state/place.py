"""Where state is kept: ``/run/fixer``, a file for each thing of a network namespace, gone after a reboot.

Nobody else spells that path or writes below it. A file is named by the namespace's inode and, where there may be
several, by the first queue of the daemon that it is of: ``4026531840-0.flows``. It is there whole or not at all.

The directory may belong to the service's user, and root writes and reads there too. So that this user, were it taken
over, could not lead root anywhere else, nothing is opened there that is linked, or of somebody without business there.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import msgspec

from fixer.errors import NotPermitted, SystemRefused
from fixer.host.machine import Host

Kind = Literal["baseline", "flows", "intent", "json", "lock", "pcapng"]

UNFINISHED = ".new"
"""The end of a name that is not a file's own yet."""
_UNFINISHED_SECONDS = 60.0
_LOCK_SECONDS = 15.0
_LOCK_LOOK_SECONDS = 0.05


def path_of(host: Host, kind: Kind, queue: int | None = None, which: str = "") -> Path:
    """The file of this kind for the host's network namespace; for the daemon whose first queue is ``queue``; the one
    that is called ``which`` of several."""
    name = f"{host.netns_inode()}" + ("" if queue is None else f"-{queue}") + (which and f"-{which}")
    return _directory(host) / f"{name}.{kind}"


def every(host: Host, kind: Kind) -> list[Path]:
    """The files of this kind for all daemons of the host's network namespace, living or not."""
    return sorted(_directory(host).glob(f"{host.netns_inode()}-*.{kind}"))


def make(directory: Path) -> None:
    """Make the directory that files are kept in. Raises OSError, also if it is there and belongs to a stranger."""
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    owner = directory.stat().st_uid
    # To root it may belong to anybody: to make it there took root, which gives it to the service's user.
    if os.geteuid() not in (0, owner) and owner != 0:
        raise OSError(errno.EPERM, f"{directory} belongs to uid {owner}, which is neither root nor this process's")


def opened(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a file of ours, never waiting for anybody. Raises OSError, which says so if it is none of ours.

    Ours is a file with one name, of root, of this process's user or of the directory's, which is the service's.
    """
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a symbolic link, which fixer makes none of: remove it") from None
        raise
    try:
        _must_be_ours(path, os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _must_be_ours(path: Path, found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise OSError(errno.EPERM, "it is no ordinary file of one name, as fixer makes them: remove it")
    if found.st_uid not in (0, os.geteuid(), path.parent.stat().st_uid):
        raise OSError(errno.EPERM, f"it belongs to uid {found.st_uid}, and not to fixer: remove it")


def read(path: Path) -> bytes | None:
    """What the file holds; None if there is none. Raises :class:`NotPermitted` and :class:`SystemRefused`."""
    try:
        with os.fdopen(opened(path), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except PermissionError as error:
        if error.errno == errno.EACCES:
            raise NotPermitted(f"{path} cannot be read: run this as root") from None
        raise SystemRefused(f"{path} cannot be read: {error.strerror}") from None
    except OSError as error:
        raise SystemRefused(f"{path} cannot be read: {error.strerror}") from None


def as_json(thing: Any) -> bytes:
    """As JSON, which is UTF-8: a name that others chose, or a word typed, need not be; what is not becomes U+FFFD."""
    try:
        return msgspec.json.encode(thing)
    except UnicodeEncodeError:
        text = json.dumps(msgspec.to_builtins(thing), ensure_ascii=False)
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace").encode()


def write(path: Path, content: bytes, *, private: bool = False) -> None:
    """Replace a file, whole or not at all. Raises :class:`SystemRefused`.

    Unless it is ``private`` anybody may read it: a daemon that is nobody reads what root has written, under whatever
    umask.
    """
    # Two who write at once must not meet in one unfinished file.
    fresh = path.with_name(f"{path.name}.{threading.get_native_id()}{UNFINISHED}")
    try:
        make(path.parent)
        fresh.unlink(missing_ok=True)  # of somebody who was killed, or laid there for us to write through
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), 0o600 if private else 0o644)
        fresh.replace(path)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise SystemRefused(f"{path} cannot be written: {error.strerror}") from None


@contextmanager
def locked(host: Host) -> Iterator[None]:
    """Alone with what is wanted of the network namespace and the rules for it, while the context lasts.

    Raises :class:`SystemRefused` if somebody else is at it for 15 s.
    """
    path = path_of(host, "lock")
    try:
        make(path.parent)
        descriptor = _opened_to_lock(path)
    except OSError as error:
        raise SystemRefused(f"{path} cannot be opened: {error.strerror}") from None
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while not _has_locked(descriptor):
            if time.monotonic() > deadline:
                raise SystemRefused(f"another fixer holds {path} for {_LOCK_SECONDS:.0f} s: try again when it is done")
            time.sleep(_LOCK_LOOK_SECONDS)
        yield
    finally:
        # Closing alone is not enough: a process that another thread is starting has it, too, until it executes.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _opened_to_lock(path: Path) -> int:
    """To lock a file it is enough to read it, which whoever is not its owner may."""
    try:
        return opened(path)
    except FileNotFoundError:
        descriptor = opened(path, os.O_RDWR | os.O_CREAT)
        with suppress(OSError):
            os.fchmod(descriptor, 0o644)
        return descriptor


def _has_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def remove(path: Path) -> None:
    """Remove a file, if it is there and can be removed."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def remove_unfinished(host: Host) -> None:
    """Remove what somebody of this network namespace was killed over while writing it, a minute ago or more."""
    for path in _directory(host).glob(f"{host.netns_inode()}[.-]*{UNFINISHED}"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _UNFINISHED_SECONDS:
                path.unlink()


def _directory(host: Host) -> Path:
    return host.run_directory / "fixer"
