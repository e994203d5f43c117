"""A host made of dictionaries, for the error paths that no real machine has all at once."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from fixer.errors import FileUnreadable
from fixer.host.machine import NET, Completed, Host, Owner
from fixer.state import place

T = TypeVar("T")
Answer = Completed | Callable[[Sequence[str], str | None], Completed]

OK = Completed(0, "", "")
NFT = Completed(0, "iptables v1.8.9 (nf_tables)\n", "")


class FakeHost(Host):
    """Commands answer from ``answers`` (whole command line, or its first word), files from ``files``.

    What lies below /run lies in a directory of its own. A method of :class:`Host` that is not here fails the test: it
    would ask this machine.

    Out of the box: root, IPv6, and the nf_tables variant of iptables with nothing in the raw table.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        for command in ("iptables", "ip6tables"):
            self.answers |= {f"{command} --version": NFT, f"{command}-save": OK, f"{command}-restore": OK, command: OK}
        self.files: dict[str, str | Exception] = {f"{NET}/if_inet6": ""}
        self.modes: dict[str, int] = {}
        self.owners: dict[int, Owner] = {}
        self.net_admin = True
        self.tcx: dict[str, list[str]] = {}
        self.namespaces: list[tuple[str, Path]] = []
        self.inside: dict[Path, FakeHost] = {}
        """What is found in each of the other namespaces; one that is missing is as if it had ended."""
        self.ran: list[str] = []
        self.run_directory = Path(tempfile.mkdtemp(prefix="fx-fakehost-"))
        weakref.finalize(self, shutil.rmtree, self.run_directory, ignore_errors=True)
        place.make(self.run_directory / "fixer")

    def run(self, argv: Sequence[str], input: str | None = None, seconds: float | None = None) -> Completed:
        self._path_of(argv[0])
        self.ran.append(" ".join(argv))
        answer = self.answers.get(" ".join(argv)) or self.answers[argv[0]]
        return answer if isinstance(answer, Completed) else answer(argv, input)

    def which(self, program: str) -> str | None:
        return f"/usr/sbin/{program}" if program in self.answers else None

    def resolved(self, program: str) -> str | None:
        return program if self.which(program) else None

    def read(self, path: str) -> str | None:
        content = self.files.get(path)
        if isinstance(content, Exception):
            raise content
        return content

    read_exactly = read
    peek = Host.peek

    def exists(self, path: str) -> bool:
        return path in self.files

    def listed(self, directory: str) -> list[str]:
        return sorted(
            {
                path.removeprefix(f"{directory}/").partition("/")[0]
                for path in self.files
                if path.startswith(f"{directory}/")
            }
        )

    def write(self, path: str, text: str, mode: int | None = None) -> None:
        self.files[path] = text
        self.modes[path] = mode or self.modes.get(path, 0o644)

    def remove(self, path: str) -> None:
        self.files.pop(path, None)

    def now(self) -> datetime:
        return datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def geteuid(self) -> int:
        return 0 if self.net_admin else 1000

    def has_net_admin(self) -> bool:
        return self.net_admin

    def netns_inode(self) -> int:
        return 4026531840

    def is_init_netns(self) -> bool:
        return True

    def netns_cookie(self) -> int | None:
        return 4711

    def other_namespaces(self) -> list[tuple[str, Path]]:
        return self.namespaces

    def within(self, namespace: Path, look: Callable[[Host], T]) -> T:
        if namespace not in self.inside:
            raise FileUnreadable(f"there is no network namespace {namespace}")
        return look(self.inside[namespace])

    def leads_into(self, namespace: Path) -> bool:
        return True

    def tcx_programs(self, interface: str) -> list[str]:
        return self.tcx.get(interface, [])

    def socket_owner(self, inode: int) -> Owner | None:
        return self.owners.get(inode)

    @property
    def changed(self) -> list[str]:
        """The commands that could have changed something."""
        return [line for line in self.ran if "-restore" in line]


def _forgotten(name: str) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError(f"FakeHost has no {name}: it would ask this machine")

    return fail


for _name in {name for name, member in vars(Host).items() if callable(member)} - vars(FakeHost).keys():
    if not _name.startswith("_"):
        setattr(FakeHost, _name, _forgotten(_name))
