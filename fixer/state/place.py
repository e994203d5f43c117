"""Where state is kept: ``/run/fixer``, a file for each thing of a network namespace, gone after a reboot.

Nobody else spells that path or writes below it. A file is named by the namespace's inode and, where there may be
several, by the first queue of the daemon that it is of: ``4026531840-0.flows``. It is there whole or not at all.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

from fixer.errors import NotPermitted, SystemRefused
from fixer.host.machine import Host

Kind = Literal["baseline", "flows", "json"]

UNFINISHED = ".new"
"""The end of a name that is not a file's own yet."""
_UNFINISHED_SECONDS = 60.0


def path_of(host: Host, kind: Kind, queue: int | None = None) -> Path:
    """The file of this kind for the host's network namespace; for the daemon whose first queue is ``queue``."""
    name = f"{host.netns_inode()}" + ("" if queue is None else f"-{queue}")
    return _directory(host) / f"{name}.{kind}"


def every(host: Host, kind: Kind) -> list[Path]:
    """The files of this kind for all daemons of the host's network namespace, living or not."""
    return sorted(_directory(host).glob(f"{host.netns_inode()}-*.{kind}"))


def make(directory: Path) -> None:
    """Make the directory that files are kept in. Raises OSError."""
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)


def read(path: Path) -> bytes | None:
    """What the file holds; None if there is none. Raises :class:`NotPermitted` and :class:`SystemRefused`."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except PermissionError:
        raise NotPermitted(f"{path} cannot be read: run this as root") from None
    except OSError as error:
        raise SystemRefused(f"{path} cannot be read: {error.strerror}") from None


def write(path: Path, content: bytes) -> None:
    """Replace a file, whole or not at all. Raises :class:`SystemRefused`."""
    # Two who write at once must not meet in one unfinished file.
    fresh = path.with_name(f"{path.name}.{threading.get_native_id()}{UNFINISHED}")
    try:
        make(path.parent)
        fresh.write_bytes(content)
        fresh.replace(path)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise SystemRefused(f"{path} cannot be written: {error.strerror}") from None


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
