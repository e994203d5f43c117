"""Faults of the kernel by release: which ones have them, and where a distribution may have mended one all the same."""

from __future__ import annotations

import re
from typing import NamedTuple

from fixer.doctor.kernels import Kernel
from fixer.host.platform import Platform


class KernelFault(NamedTuple):
    """``stable``: the first release of an older branch that is mended, as far as that was read."""

    commit: str
    what: str
    mended: tuple[int, int]
    """The first kernel.org release without it."""
    stable: dict[tuple[int, int], int] = {}  # noqa: RUF012 - a constant of constants

    @property
    def versions(self) -> str:
        older = (f"{major}.{minor}.{patch}" for (major, minor), patch in sorted(self.stable.items(), reverse=True))
        return f"{self.commit}: {', '.join((f'{self.mended[0]}.{self.mended[1]}', *older))}"


NAT_OF_ZERO = KernelFault(
    "ea64d8d6c675",
    "nf_nat writes into a UDP checksum of zero when it changes address or port",
    (5, 7),
    {(5, 6): 13, (5, 4): 41, (4, 19): 123, (4, 14): 181},
)
VMXNET3_PORTS = KernelFault(
    "b22580233d47",
    "vmxnet3 leaves checksums inside tunnels to the hypervisor on ports that it does not know",
    (5, 14),
    {(5, 10): 53},
)
VETH_BELIEVES = KernelFault(
    "ce8c839b74e3",
    "veth takes every checksum for verified, so that damaged data reaches the application",
    (4, 4),
)


def has(fault: KernelFault, platform: Platform) -> bool | None:
    """Whether the kernel has it; None where its release is older, and a distribution may have brought the mend."""
    kernel = Kernel.read(platform.upstream or platform.release)
    if kernel is None:
        return None
    if kernel.version >= fault.mended or kernel.patch >= fault.stable.get(kernel.version, 1 << 30):
        return False
    return True if platform.upstream or _is_mainline(platform.release) else None


def said(fault: KernelFault, platform: Platform) -> str:
    """The same for people, with what would tell."""
    state = has(fault, platform)
    shown = f"{platform.release}, made from {platform.upstream}," if platform.upstream else platform.release
    if state is None:
        return (
            f"{shown or 'This kernel'} is older than the mend ({fault.versions}); its distribution may have brought "
            f"it all the same: look for {fault.commit} or its title in the changelog of the kernel's package."
        )
    return f"{shown} has it ({fault.versions} are without)." if state else f"{shown} is without it."


def _is_mainline(release: str) -> bool:
    return re.fullmatch(r"[0-9]+\.[0-9]+(\.[0-9]+)?(-rc[0-9]+)?", release) is not None
