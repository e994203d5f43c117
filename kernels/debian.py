"""Kernels of Debian's, fetched by an apt with its own lists, cache and status, and unpacked: nothing is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fixer.host.machine import Host

HERE = Path(__file__).parent
BUILD = HERE.parent / "build" / "kernels"
ARCHIVE = "http://deb.debian.org"
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
PARTS = re.compile(r"linux-(image|binary|modules|base)-.")  # packages that one kernel is spread over
# Of half a gigabyte of modules what a kernel may need here: no graphics, sound, disks or cards.
NET = ("*.ko*", "bonding", "vxlan", "wireguard")
KEPT = ("arch", "crypto", "fs", "lib", "net", "drivers/virtio", *(f"drivers/net/{driver}" for driver in NET))
OWN = ("modules.*", "vmlinuz", "config")  # the two lie in /boot up to 6.12
FETCH_SECONDS = 600.0


class NotToBeHad(Exception):
    """Why there is no such kernel here, in one line."""


@dataclass(frozen=True)
class Package:
    """A line of kernels.txt."""

    name: str
    package: str
    suites: tuple[str, ...]


@dataclass(frozen=True)
class Kernel:
    """An unpacked one: the ``image`` to boot, its directory of ``modules``, and what it was configured with."""

    name: str
    version: str  # of the Debian package
    release: str  # as uname -r says
    image: Path
    modules: Path  # BASE/lib/modules/RELEASE, with depmod's files
    config: dict[str, str]  # CONFIG_NAME: y, m or a value; what is not set is not there


def packages() -> list[Package]:
    lines = (line.split("#")[0].split() for line in (HERE / "kernels.txt").read_text(encoding="utf-8").splitlines())
    return [Package(words[0], words[1], tuple(words[2:])) for words in lines if words]


def have(package: Package, host: Host) -> Kernel:
    """Fetch and unpack it where that has not been done; NotToBeHad with apt's own words if it cannot be."""
    apt = _Apt(package.suites, host)
    parts = apt.parts(package.package)
    version = apt.version(parts[0])
    home = BUILD / package.name
    stamp, made = home / "complete", f"{' '.join(parts)} {version}\n"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != made:
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        for part in parts:
            _unpack(apt.download(part, home), home)
        _must(host, "depmod", "-b", str(home), _modules(home).name)
        stamp.write_text(made, encoding="utf-8")
    modules = _modules(home)
    return Kernel(
        name=package.name,
        version=version,
        release=modules.name,
        image=_one_of(home / "boot" / f"vmlinuz-{modules.name}", modules / "vmlinuz"),
        modules=modules,
        config=_configuration(_one_of(home / "boot" / f"config-{modules.name}", modules / "config").read_text()),
    )


class _Apt:
    """apt-get and apt-cache that know some suites of Debian's, and nothing of this machine's."""

    def __init__(self, suites: tuple[str, ...], host: Host) -> None:
        """Fetches the lists, once for each run of ours."""
        self._host = host
        self._room = BUILD / ("apt-" + suites[0].replace("/", "-"))
        for directory in ("lists/partial", "cache/archives/partial"):
            (self._room / directory).mkdir(parents=True, exist_ok=True)
        (self._room / "status").touch()
        lines = [f"deb [signed-by={KEYS}] {ARCHIVE}/{suite.replace('/', ' ', 1)} main\n" for suite in suites]
        (self._room / "sources.list").write_text("".join(lines), encoding="utf-8")
        self._options = [
            f"-oDir::Etc::sourcelist={self._room}/sources.list",
            "-oDir::Etc::sourceparts=-",
            "-oDir::Etc::main=-",
            "-oDir::Etc::parts=-",
            "-oDir::Etc::preferencesparts=-",
            f"-oDir::State={self._room}",
            f"-oDir::State::status={self._room}/status",
            f"-oDir::Cache={self._room}/cache",
            "-oAPT::Architecture=amd64",
            "-oAPT::Architectures=amd64",
            "-oAPT::Sandbox::User=root",
            "-oAcquire::Languages=none",
        ]
        if self._room not in _updated:
            self._run("apt-get", "-qq", "update", "--error-on=any")
            _updated.add(self._room)

    def parts(self, package: str) -> list[str]:
        """The packages of the kernel that ``package``, which has none itself, depends on; the first names it."""
        found: list[str] = []
        waiting = [package]
        while waiting:
            for line in self._run("apt-cache", "depends", "--important", waiting.pop(0)).splitlines():
                kind, _, name = line.strip().partition(": ")
                if kind == "Depends" and PARTS.match(name) and name not in found:
                    found.append(name)
                    waiting.append(name)
        if not found:
            raise NotToBeHad(f"{package} depends on no kernel")
        return found

    def version(self, package: str) -> str:
        for line in self._run("apt-cache", "show", "--no-all-versions", package).splitlines():
            if line.startswith("Version: "):
                return line.removeprefix("Version: ")
        raise NotToBeHad(f"apt tells no version of {package}")

    def download(self, package: str, where: Path) -> Path:
        self._run("apt-get", "-qq", "download", package, cwd=where)
        return next(where.glob("*.deb"))

    def _run(self, program: str, *arguments: str, cwd: Path | None = None) -> str:
        command = [program, *self._options, *arguments]
        if cwd is not None:
            command = ["env", "-C", str(cwd), *command]
        return _must(self._host, *command)


_updated: set[Path] = set()


def _unpack(package: Path, home: Path) -> None:
    """The kernel, its configuration and the modules that are KEPT, as far as this package has them; it is removed."""
    kept = (f"./*lib/modules/*/kernel/{part}" for part in KEPT)
    wanted = ["./boot/vmlinuz-*", "./boot/config-*", *(f"./*lib/modules/*/{file}" for file in OWN), *kept]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as archive:
        # tar complains of each pattern that this kernel has nothing for: what is missing shows when it boots.
        tar: list[str | Path] = ["tar", "-x", "-C", home, "--wildcards", *wanted]
        subprocess.run(tar, stdin=archive.stdout, stderr=subprocess.DEVNULL, check=False)
    package.unlink()


def _modules(home: Path) -> Path:
    """The one directory with modules, below /lib or, since /usr is one with it, below /usr/lib."""
    found = [*home.glob("lib/modules/*"), *home.glob("usr/lib/modules/*")]
    if len(found) != 1:
        raise NotToBeHad(f"{len(found)} kernels are in the packages of {home.name}")
    if found[0].is_relative_to(home / "usr"):
        (home / "usr" / "lib").rename(home / "lib")
    return home / "lib" / "modules" / found[0].name


def _one_of(*paths: Path) -> Path:
    for path in paths:
        if path.exists():
            return path
    raise NotToBeHad(f"its packages have no {paths[-1].name}")


def _configuration(text: str) -> dict[str, str]:
    pairs = (line.removeprefix("CONFIG_").split("=", 1) for line in text.splitlines() if line.startswith("CONFIG_"))
    return dict(pairs)


def _must(host: Host, *command: str) -> str:
    done = host.run(command, seconds=FETCH_SECONDS)
    if done.status != 0:
        raise NotToBeHad((done.err or done.out).strip().split("\n")[-1])
    return done.out
