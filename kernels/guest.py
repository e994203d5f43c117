"""One kernel, booted in an emulator with this machine's root below it, and what came of what runs ``inside``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fixer.host.machine import Host

from . import initrd
from .debian import BUILD, Kernel, NotToBeHad

CHECKOUT = Path(__file__).parents[1]
QEMU = "qemu-system-x86_64"
PROGRAMS = {  # what is needed beside what the lab needs, and the Debian package that has it
    QEMU: "qemu-system-x86",
    "busybox": "busybox-static",
    "depmod": "kmod",
    "nft": "nftables",
    "wg": "wireguard-tools",
    "dpkg-deb": "dpkg",
    "apt-get": "apt",
}
VIRTIOFSD = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")  # C, with QEMU up to 7.2; in Rust since
WITH_US = ("setpriv", "--pdeathsig", "TERM")  # ended by the kernel should we be killed
# An emulated CPU leaks nothing by speculation, and what is done against that costs most there.
BOOT = ("console=ttyS0", "quiet", "panic=-1", "mitigations=off")
MEMORY_MB = 2048
SECONDS = 7200.0  # for all of it, on a machine that has other things to do
RESULT = "fixer-result: "  # what ``inside`` says on the console that is meant for us


@dataclass(frozen=True)
class Outcome:
    """What the guest told: for each probe what is lacking (None: nothing), for each test what came of it."""

    release: str
    probes: dict[str, str | None]
    tests: dict[str, str]  # passed, failed, or skipped: and why
    seconds: float  # from starting the emulator to its end
    finished: bool

    @property
    def worked(self) -> bool:
        return self.finished and "failed" not in self.tests.values()


UNSEEN = Outcome(release="", probes={}, tests={}, seconds=0.0, finished=False)


def missing(host: Host) -> str | None:
    """Which program this machine lacks for a guest, in one line; None if it has all."""
    if host.geteuid() != 0:
        return "no root: the guest's root is this machine's"
    for program, package in PROGRAMS.items():
        if host.which(program) is None:
            return f"no program {program}: apt install {package}"
    return None


def run(kernel: Kernel, host: Host, selection: list[str], environment: dict[str, str]) -> Outcome:
    """Boot it; NotToBeHad if it cannot reach its root. The console is kept beside the kernel."""
    nine_p = "NET_9P_VIRTIO" in kernel.config
    share = _over_9p if nine_p else _over_virtiofs
    filesystem = ("9p", ",trans=virtio,version=9p2000.L,msize=512000,cache=loose") if nine_p else ("virtiofs", "")
    room = BUILD / kernel.name
    modules = ("virtio_pci", "overlay", *(("9pnet_virtio", "9p") if nine_p else ("virtiofs",)))
    initrd.make(room / "initrd", kernel, modules, host)
    words = {
        "checkout": CHECKOUT,
        "name": kernel.name,
        "modules": kernel.modules,
        "shared": filesystem[0],
        "options": filesystem[1],
    }
    (room / "selection.json").write_text(json.dumps([selection, environment]), encoding="utf-8")
    with share(room) as options:
        command = [
            *("nice", "-n", "10", QEMU, "-accel", "tcg,thread=multi", "-cpu", "max", "-m", str(MEMORY_MB)),
            *("-smp", str(min(os.cpu_count() or 1, 4)), "-nodefaults", "-no-user-config", "-no-reboot"),
            *("-display", "none", "-serial", "stdio", "-kernel", str(kernel.image), "-initrd", str(room / "initrd")),
            *("-append", " ".join([*BOOT, *(f"fixer.{key}={value}" for key, value in words.items())])),
            *options,
        ]
        return _watch(command, room / "console.log", kernel)


def _watch(command: list[str], console: Path, kernel: Kernel) -> Outcome:
    """Run the emulator to its end, or for so many SECONDS, and gather what ``inside`` says."""
    begun = time.monotonic()
    said: dict[str, Any] = {}
    limited = [*WITH_US, "timeout", str(SECONDS), *command]
    with (
        console.open("wb") as log,
        subprocess.Popen(limited, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as qemu,
    ):
        for line in qemu.stdout or ():
            log.write(line)
            log.flush()
            _, found, told = line.decode(errors="replace").partition(RESULT)
            if found:
                said |= json.loads(told)
    seconds = time.monotonic() - begun
    tests = {name: came for name, came in said.items() if name.startswith(("tests/", "packaging/"))}
    return Outcome(kernel.release, said.get("probes", {}), tests, seconds, "status" in said)


@contextmanager
def _over_9p(_: Path) -> Iterator[list[str]]:
    """QEMU itself shares the root, read-only."""
    shared = "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"
    yield ["-fsdev", shared, "-device", "virtio-9p-pci,fsdev=root,mount_tag=root"]


@contextmanager
def _over_virtiofs(room: Path) -> Iterator[list[str]]:
    """For kernels without 9p, such as Debian's for clouds: a daemon shares the root, mounted read-only for it alone."""
    socket, mounted = room / "virtiofs", room / "root"
    mounted.mkdir(exist_ok=True)
    socket.unlink(missing_ok=True)
    program = next((path for path in VIRTIOFSD if Path(path).exists()), None) or shutil.which("virtiofsd")
    if program is None:
        raise NotToBeHad("this kernel has no 9p, and there is no virtiofsd: apt install virtiofsd")
    ours = ["-o", f"source={mounted}", "-o", "cache=always", "-f"]
    if program != VIRTIOFSD[0]:
        ours = ["--shared-dir", str(mounted), "--cache=always"]
    mount = 'mount --bind / "$0" && mount -o remount,ro,bind "$0" && exec nice -n 10 "$@"'
    command: list[str | Path] = [*WITH_US, "unshare", "--mount", "sh", "-c", mount, mounted, program]
    command += [f"--socket-path={socket}", *ours]
    with (room / "virtiofsd.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as daemon:
        try:
            give_up = time.monotonic() + 30
            while not socket.exists() and daemon.poll() is None and time.monotonic() < give_up:
                time.sleep(0.1)
            if not socket.exists():
                raise NotToBeHad(f"virtiofsd did not start: see {log.name}")
            yield [
                *("-object", f"memory-backend-memfd,id=memory,size={MEMORY_MB}M,share=on"),
                *("-machine", "memory-backend=memory", "-chardev", f"socket,id=root,path={socket}"),
                *("-device", "vhost-user-fs-pci,chardev=root,tag=root"),
            ]
        finally:
            daemon.terminate()
