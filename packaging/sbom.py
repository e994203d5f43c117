"""List what the tree of a machine, or its container image, is made of, as CycloneDX 1.5.

packaging/sbom.py TREE SYSROOT [DEBS]    -> standard output; TREE is .../opt/fixer, SYSROOT has Debian's packages as
                                            files, DEBS the names of those that are in the image beside the tree
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from email.parser import HeaderParser
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

LINKED = ("libnetfilter-queue1", "libnfnetlink0", "libmnl0", "zlib1g-dev", "libffi8")


def component(name: str, version: str, purl: str, license: str | None = None) -> dict[str, Any]:
    about: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    return about | ({"licenses": [{"license": {"name": license}}]} if license else {})


def distributions(site: Path) -> Iterator[dict[str, Any]]:
    """The Python packages, fixer among them."""
    for metadata in sorted(site.glob("*.dist-info/METADATA")):
        said = HeaderParser().parsestr(metadata.read_text(encoding="utf-8"))
        name, version = said["Name"], said["Version"]
        license = said["License-Expression"] or (said["License"] or "").strip().splitlines()[:1] or None
        license = license[0] if isinstance(license, list) else license
        yield component(name, version, f"pkg:pypi/{re.sub('[-_.]+', '-', name).lower()}@{version}", license)


def debian(package: str) -> dict[str, Any]:
    """One of Debian's packages, by the name of its file."""
    name, version, machine = package.removesuffix(".deb").split("_")
    version = version.replace("%3a", ":")
    return component(name, version, f"pkg:deb/debian/{name}@{version.replace(':', '%3A')}?arch={machine}")


def libraries(sysroot: Path) -> Iterator[dict[str, Any]]:
    """Debian's libraries that are linked in or lie beside NetfilterQueue."""
    for name in LINKED:
        [package] = (sysroot / "debs").glob(f"{name}_*.deb")
        yield debian(package.name)


def interpreter(tree: Path) -> dict[str, Any]:
    built = (tree / "bin/python3.13").read_bytes()
    version = max(re.findall(rb"\x00(3\.13\.\d+)\x00", built), key=len).decode()
    purl = f"pkg:generic/cpython@{version}"
    return component("CPython", version, purl, "Python-2.0")


def main(tree: Path, sysroot: Path, debs: Path | None = None) -> None:
    components = [*distributions(tree / "lib/python3.13/site-packages"), interpreter(tree), *libraries(sysroot)]
    linked = {one["purl"] for one in components}
    beside = map(debian, debs.read_text().split() if debs else [])
    components += [one for one in beside if one["purl"] not in linked]
    [ours] = (one for one in components if one["name"] == "vxlan-fixer")
    listed = json.dumps(components, sort_keys=True)
    sbom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, listed)}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), UTC).isoformat(),
            "component": ours | {"type": "container" if debs else "application"},
        },
        "components": [one for one in components if one is not ours],
    }
    print(json.dumps(sbom, indent=1))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
