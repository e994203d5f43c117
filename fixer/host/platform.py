"""What the machine is: kernel, distribution, and whose hardware it takes itself for."""

from __future__ import annotations

import re

from msgspec import Struct

from fixer.errors import FixerError
from fixer.host.machine import Host

RELEASE = "/proc/sys/kernel/osrelease"
DMI = "/sys/class/dmi/id"


class Platform(Struct, frozen=True):
    """'' is what nothing says."""

    release: str = ""
    """What ``uname -r`` says."""
    upstream: str = ""
    """The kernel.org release it was made from, where its distribution says so: Debian and Ubuntu do."""
    distribution: str = ""
    vendor: str = ""
    product: str = ""
    """As the firmware calls the machine: ``VMware7,1``, ``KVM``."""
    firmware: str = ""
    """Its date: VMware's tells the virtual hardware's age."""

    @property
    def is_vmware(self) -> bool:
        return "vmware" in f"{self.vendor} {self.product}".lower()


def look(host: Host) -> Platform:
    """Nothing of this needs root."""
    version = _line(host, "/proc/version")
    signature = _line(host, "/proc/version_signature").split()  # Ubuntu 5.4.0-42.46-generic 5.4.44
    debian = re.search(r"\bDebian ([0-9]+\.[0-9]+\.[0-9]+)", version)  # Debian 6.1.76-1
    named = re.search(r'^PRETTY_NAME="?([^"\n]*)', _read(host, "/etc/os-release"), re.MULTILINE)
    return Platform(
        release=_line(host, RELEASE),
        upstream=signature[2] if len(signature) > 2 else debian[1] if debian else "",
        distribution=named[1] if named else "",
        vendor=_line(host, f"{DMI}/sys_vendor"),
        product=_line(host, f"{DMI}/product_name"),
        firmware=_line(host, f"{DMI}/bios_date"),
    )


def _line(host: Host, path: str) -> str:
    return (_read(host, path).splitlines() or [""])[0].strip()


def _read(host: Host, path: str) -> str:
    try:
        return host.read(path) or ""
    except FixerError:
        return ""
