"""What kernels do with timestamps of SYNs, and so what each mode brings: the table of docs/timestamps.md, as data."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

REMOVED = (4, 12)
"""The first kernel without the test: 4396e46187ca."""

PER_NAMESPACE = (4, 11)
"""The first kernel with a tcp_tw_recycle for each network namespace; before, one holds for all, and only the first
namespace shows it."""

Mode = Literal["strip", "normalise"]


class Variant(NamedTuple):
    """What one kind of kernel does with SYNs, and so what each mode brings: a row of the table there."""

    kernels: str
    without_timestamp: str
    """What becomes of a SYN without a timestamp in the 60 s."""
    strip: str
    normalise: str
    mode: Mode | None
    """The one to use."""


_NORMALISE = "works once what the server remembered before is 60 s old"
PASSES = Variant(
    kernels="up to 3.16; RHEL and CentOS 7 up to 3.10.0-229",
    without_timestamp="passes",
    strip="works at once",
    normalise=_NORMALISE,
    mode="strip",
)
REFUSES = Variant(
    kernels="3.17 to 4.11; RHEL and CentOS 7 from 3.10.0-957",
    without_timestamp="is refused",
    strip="works 60 s after the source's last connection with timestamps closed, until the next such one closes",
    normalise=_NORMALISE,
    mode="normalise",
)
UNKNOWN = Variant(
    kernels="RHEL and CentOS 7 between those two; any other kernel with backports",
    without_timestamp="passes or is refused: unknown",
    strip="works at once, or no better than with 3.17 to 4.11",
    normalise=_NORMALISE,
    mode="normalise",
)
NONE = Variant(
    kernels="4.12 and newer, or any with tcp_tw_recycle = 0",
    without_timestamp="passes",
    strip="no use",
    normalise="no use",
    mode=None,
)
VARIANTS = (PASSES, REFUSES, UNKNOWN, NONE)


class Kernel(NamedTuple):
    """A release as far as it matters here: ``3.10.0-1160.el7.x86_64`` is version (3, 10), patch 0, build 1160."""

    version: tuple[int, int]
    patch: int
    build: int | None

    @classmethod
    def read(cls, release: str) -> Kernel | None:
        """What ``uname -r`` says, of whatever distribution; None where it begins with no version."""
        found = re.match(r"\s*([0-9]{1,4})\.([0-9]{1,4})(?:\.([0-9]{1,6}))?(?:-([0-9]{1,6})(?![0-9]))?", release)
        if found is None:
            return None
        major, minor, patch, build = found.groups()
        return cls((int(major), int(minor)), int(patch or 0), int(build) if build else None)

    @property
    def variant(self) -> Variant:
        """The kind of kernel. docs/timestamps.md says which sources were read, and what is not known."""
        if self.version >= REMOVED:
            return NONE
        # Only RHEL 7 and its kin count builds of 3.10.0; 229 is without a26552afe894, 957 and 1160 are with it.
        if self.version == (3, 10) and self.patch == 0 and self.build is not None and self.build > 229:
            return REFUSES if self.build >= 957 else UNKNOWN
        return REFUSES if self.version >= (3, 17) else PASSES
