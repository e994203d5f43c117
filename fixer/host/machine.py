"""The host: the only module that runs a command or reads ``/proc`` and ``/sys``.

Everything else asks a :class:`Host`, so that tests can hand in one of their own.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

from fixer.errors import FileUnreadable, FixerError, NotPermitted, ProgramMissing, SystemRefused

T = TypeVar("T")

CAP_NET_ADMIN = 12
"""linux/capability.h"""

CLONE_NEWNET = 0x40000000
"""linux/sched.h"""

NET = "/proc/thread-self/net"
"""The network namespace's files as *this thread* sees them: ``/proc/net`` belongs to the process's first thread."""

_NEW_NSID, _GET_NSID = 88, 90
"""RTM_*, linux/rtnetlink.h"""

SO_NETNS_COOKIE = 71
"""asm-generic/socket.h, Linux 5.14"""

RUN_SECONDS = 30.0
"""How long a command may take: the slowest of ours waits 5 s for a lock."""

# A login shell of an ordinary user, cron and some containers leave the sbin directories out.
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
_PACKAGES = {"ethtool": "ethtool", "ip": "iproute2", "ip6tables": "iptables", "iptables": "iptables"}


class Completed(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str


class Owner(NamedTuple):
    """A process that holds a socket."""

    pid: int
    name: str


class Host:
    """The machine fixer runs on, in the network namespace of the calling thread."""

    run_directory = Path("/run")
    """Where what is gone after a reboot is kept: see :mod:`fixer.state.place`."""

    def run(self, argv: Sequence[str], input: str | None = None, seconds: float | None = RUN_SECONDS) -> Completed:
        """Run a command to its end; ``input`` goes to its stdin. A failing command is a status, not an exception.

        Raises :class:`ProgramMissing` if there is no such command, and :class:`SystemRefused` if it has not ended after
        so many ``seconds``: it is killed.
        """
        try:
            done = subprocess.run(
                [self._path_of(argv[0]), *argv[1:]],
                input=input,
                stdin=subprocess.DEVNULL if input is None else None,
                capture_output=True,
                text=True,
                errors="replace",
                env=_environment(),
                check=False,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            raise SystemRefused(f"{argv[0]} has not ended after {seconds:g} s and was killed: try again") from None
        return Completed(done.returncode, done.stdout, done.stderr)

    def start(self, argv: Sequence[str], stdout: IO[str] | int = subprocess.PIPE) -> subprocess.Popen[str]:
        """Start a command that runs beside us; the caller ends it and reads what it says on ``stdout``.

        Raises :class:`ProgramMissing` if there is no such command.
        """
        return subprocess.Popen(
            [self._path_of(argv[0]), *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            text=True,
            errors="replace",
            env=_environment(),
        )

    def _path_of(self, program: str) -> str:
        path = self.which(program)
        if path is None:
            package = _PACKAGES.get(program.partition("-")[0], program)
            raise ProgramMissing(f"{program} is not installed; on Debian and Ubuntu: apt-get install {package}")
        return path

    def resolved(self, program: str) -> str | None:
        """The name of the file that ``program`` is, behind all links (``xtables-nft-multi``); None without one."""
        path = self.which(program)
        return None if path is None else Path(path).resolve().name

    def which(self, program: str) -> str | None:
        """The path of a command, the sbin directories included; None if it is not installed."""
        return shutil.which(program, path=_PATH)

    def read(self, path: str) -> str | None:
        """The text of a file, None if there is none. Raises :class:`NotPermitted` or :class:`SystemRefused`."""
        content = self._content(path)
        return None if content is None else io.TextIOWrapper(io.BytesIO(content), "utf-8", "replace").read()

    def read_exactly(self, path: str) -> str | None:
        """As :meth:`read`, for what is to be written again: line ends are as they are, and what is no UTF-8 (Latin-1)
        stands as surrogates, of which :meth:`write` makes the same bytes."""
        content = self._content(path)
        return None if content is None else content.decode("utf-8", "surrogateescape")

    def peek(self, path: str) -> str:
        """The text of a file; nothing where there is none, or it cannot be read."""
        try:
            return self.read(path) or ""
        except FixerError:
            return ""

    def _content(self, path: str) -> bytes | None:
        try:
            return Path(path).read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return None
        except PermissionError:
            raise NotPermitted(f"{path} cannot be read: run this as root") from None
        except OSError as error:
            raise SystemRefused(f"{path} cannot be read: {error.strerror}") from None

    def exists(self, path: str) -> bool:
        """Whether there is such a file; not, if it lies where only root may look."""
        try:
            return Path(path).exists()
        except OSError:
            return False

    def listed(self, directory: str) -> list[str]:
        """The names in a directory, in order; none where there is no such one, or it cannot be read."""
        try:
            return sorted(path.name for path in Path(directory).iterdir())
        except OSError:
            return []

    def write(self, path: str, text: str, mode: int | None = None) -> None:
        """Have a file say just this, whole or not at all, and after a power cut too; directories are made.

        Where a link leads to it, the file there is written, and the link stays. It keeps its owner, and its mode where
        none is given; a new one has 0644. Raises :class:`NotPermitted` or :class:`SystemRefused`.
        """
        target = Path(path)
        with suppress(OSError, RuntimeError):  # links that lead in a circle
            target = target.resolve()
        # Hidden, so that nobody who reads all files of a directory takes it for one of his.
        beside = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            there = target.stat() if target.exists() else None
            # Nobody else may read it before it has its mode.
            opened = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(opened, "wb") as file:
                if there is not None:
                    os.fchown(file.fileno(), there.st_uid, there.st_gid)
                os.fchmod(file.fileno(), mode or (stat.S_IMODE(there.st_mode) if there else 0o644))
                file.write(text.encode("utf-8", "surrogateescape"))
                file.flush()
                os.fsync(file.fileno())
            beside.replace(target)
        except OSError as error:
            with suppress(OSError):
                beside.unlink()
            raise _refused(path, "written", error) from None

    def remove(self, path: str) -> None:
        """Remove a file; one that is not there is fine. Raises :class:`NotPermitted` or :class:`SystemRefused`."""
        try:
            Path(path).unlink(missing_ok=True)
        except OSError as error:
            raise _refused(path, "removed", error) from None

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        return datetime.now(UTC)

    def geteuid(self) -> int:
        return os.geteuid()

    def has_net_admin(self) -> bool:
        """Whether CAP_NET_ADMIN is effective, which root in a container may lack and a service user may have."""
        for line in (self.read("/proc/thread-self/status") or "").splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> CAP_NET_ADMIN & 1)
        return False

    def netns_inode(self) -> int:
        """The inode of the thread's network namespace: its name for as long as it lives."""
        return Path("/proc/thread-self/ns/net").stat().st_ino

    def is_init_netns(self) -> bool:
        """Whether this is the network namespace of process 1, in which services run."""
        return Path("/proc/1/ns/net").stat().st_ino == self.netns_inode()

    def netns_cookie(self) -> int | None:
        """The thread's network namespace by a number that is given once until a reboot; None before Linux 5.14."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            try:
                return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), sys.byteorder)
            except OSError:
                return None

    def other_namespaces(self) -> list[tuple[str, Path]]:
        """Each network namespace but ours that can be seen, once: how a verb's command line names it, and its file."""
        found: dict[int, tuple[str, Path]] = {self.netns_inode(): ("", Path())}
        docker = Path("/run/docker/netns")
        named = [(f"--netns {name}", Path("/run/netns", name)) for name in self.listed("/run/netns")]
        named += [(f"--netns {docker / name}", docker / name) for name in self.listed(str(docker))]
        numbers = sorted(int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
        named += [(f"--pid {number}", Path(f"/proc/{number}/ns/net")) for number in numbers]
        for option, path in named:
            with suppress(OSError):  # it has just ended, or is somebody else's
                found.setdefault(path.stat().st_ino, (option, path))
        return [each for each in found.values() if each[0]]

    def leads_into(self, namespace: Path) -> bool:
        """Whether an interface of ours has its other end in that namespace, or the other way round: the kernel numbers
        those for each other (``linux/net_namespace.h``). False too if it is gone.
        """
        with suppress(OSError), namespace.open() as file, socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as route:
            # nlmsghdr, rtgenmsg, NETNSA_FD
            route.send(struct.pack("=IHHIIB3xHHI", 28, _GET_NSID, 1, 0, 0, 0, 8, 3, file.fileno()))
            answer = route.recv(4096)
            (kind,) = struct.unpack_from("=H", answer, 4)
            return bool(kind == _NEW_NSID and struct.unpack_from("=i", answer, 24)[0] >= 0)  # the first: NETNSA_NSID
        return False

    def tcx_programs(self, interface: str) -> list[str]:
        """The names of the eBPF programs at the entry of an interface by TCX, in order; none where there is no TCX."""
        from fixer.kernel import bpf  # only here: it is not to be paid for by who does not ask

        with suppress(OSError, KeyError):
            index = socket.if_nametoindex(interface)
            return [bpf.name_of(each) for each in bpf.attached_tcx(index, bpf.TCX_INGRESS)]
        return []

    def enter_netns(self, name: str | None = None, pid: int | None = None) -> None:
        """Move this thread, and the commands it runs, into a network namespace.

        ``name`` is one of ``ip netns list``, or a path such as ``/run/docker/netns/1-abc``; ``pid`` a process inside.
        Raises :class:`FileUnreadable` (no such namespace or process), :class:`NotPermitted` or :class:`SystemRefused`.
        """
        if pid is not None:
            path, missing = Path(f"/proc/{pid}/ns/net"), f"there is no process {pid}"
        else:
            # Path() with an absolute second part is that part.
            path, missing = Path("/run/netns", str(name)), f"there is no network namespace {name}; see: ip netns list"
        try:
            namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise FileUnreadable(missing) from None
        except PermissionError:
            raise NotPermitted(f"{path} cannot be opened: root (CAP_SYS_PTRACE) is needed") from None
        except OSError as error:
            raise SystemRefused(f"{path} cannot be opened: {error.strerror}") from None
        try:
            _setns(namespace)
        except PermissionError:
            raise NotPermitted(f"{path} cannot be entered: root (CAP_SYS_ADMIN) is needed") from None
        except OSError as error:
            raise SystemRefused(
                f"{path} cannot be entered as a network namespace: {os.strerror(error.errno or 0)}"
            ) from None
        finally:
            os.close(namespace)

    def within(self, namespace: Path, look: Callable[[Host], T]) -> T:
        """What ``look`` finds in another network namespace: a thread of its own enters it, and ours stays where it is.

        Raises what :meth:`enter_netns` and ``look`` do.
        """
        found: list[T] = []
        errors: list[Exception] = []

        def enter() -> None:
            try:
                self.enter_netns(str(namespace))
                found.append(look(self))
            except Exception as error:
                errors.append(error)  # raised below, in the thread of whoever asked

        thread = threading.Thread(target=enter, name=f"in {namespace}", daemon=True)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return found[0]

    def socket_owner(self, inode: int) -> Owner | None:
        """The process that holds the socket with this inode; None if it cannot be seen from here."""
        wanted = f"socket:[{inode}]"
        for process in Path("/proc").iterdir():
            if not process.name.isdigit():
                continue
            try:
                if any(str(descriptor.readlink()) == wanted for descriptor in (process / "fd").iterdir()):
                    return Owner(int(process.name), (process / "comm").read_text(errors="replace").strip())
            except OSError:  # it has just ended, or is somebody else's
                continue
        return None


def _setns(namespace: int) -> None:
    """Move this thread into the network namespace behind a descriptor. Raises :class:`OSError`."""
    if sys.version_info >= (3, 12):
        os.setns(namespace, os.CLONE_NEWNET)
        return
    import ctypes  # only here: it is not to be paid for by who stays where he is

    if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _refused(path: str, what: str, error: OSError) -> FixerError:
    if isinstance(error, PermissionError):
        return NotPermitted(f"{path} cannot be {what}: run this as root")
    return SystemRefused(f"{path} cannot be {what}: {error.strerror}")


def _environment() -> dict[str, str]:
    # What commands say is matched and shown, so it must come in one language.
    return os.environ | {"LC_ALL": "C", "PATH": _PATH}
