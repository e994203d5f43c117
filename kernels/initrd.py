"""An initial file system: busybox, ``init``, and the modules with which a kernel reaches its root."""

from __future__ import annotations

import lzma
from pathlib import Path

from fixer.host.machine import Host

from .debian import Kernel, NotToBeHad

INIT = Path(__file__).with_name("init")
BUSYBOX = "/bin/busybox"  # Debian's busybox-static: there is no library in there
DIRECTORY, FILE = 0o040755, 0o100755


def make(path: Path, kernel: Kernel, wanted: tuple[str, ...], host: Host) -> None:
    """Write it with the modules ``wanted`` and what they need; NotToBeHad if the kernel lacks one."""
    entries: list[tuple[str, int, bytes]] = [(name, DIRECTORY, b"") for name in ("bin", "dev", "modules", "proc")]
    entries += [("bin/busybox", FILE, Path(BUSYBOX).read_bytes()), ("init", FILE, INIT.read_bytes())]
    for number, module in enumerate(_needed(kernel, wanted, host)):
        name = module.name.split(".")[0]
        entries.append((f"modules/{number:02}-{name}.ko", FILE, _content(module)))
    path.write_bytes(packed(entries))


def packed(entries: list[tuple[str, int, bytes]]) -> bytes:
    """Names, modes and contents as a cpio archive."""
    return b"".join(_entry(*entry) for entry in [*entries, ("TRAILER!!!", 0, b"")])


def _needed(kernel: Kernel, wanted: tuple[str, ...], host: Host) -> list[Path]:
    """The modules' files, in the order in which they are to be loaded."""
    found: dict[Path, None] = {}
    for name in wanted:
        base = kernel.modules.parents[2]
        done = host.run(["modprobe", "-d", str(base), "-S", kernel.release, "--show-depends", name])
        if done.status != 0:
            raise NotToBeHad(f"{kernel.release} cannot reach its root here: no module {name}")
        lines = (line.partition(" ") for line in done.out.splitlines())  # builtin NAME, or insmod FILE
        found |= {Path(file.strip()): None for kind, _, file in lines if kind == "insmod"}
    return list(found)


def _content(module: Path) -> bytes:
    if module.suffix == ".xz":
        return lzma.decompress(module.read_bytes())
    return module.read_bytes()


def _entry(name: str, mode: int, content: bytes) -> bytes:
    """One entry of a cpio archive in the format newc (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    path = name.encode() + b"\0"
    numbers = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
    head = b"070701" + b"".join(b"%08x" % number for number in numbers) + path
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)
