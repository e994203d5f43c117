"""``python -m kernels [NAME...]``, as root: boot each kernel of kernels.txt, try fixer on it, note it in the table."""

from __future__ import annotations

import argparse
import sys

from fixer.host.machine import Host

from . import debian, guest, selection, table


def main() -> int:
    asked = arguments()
    host = Host()
    if lacking := guest.missing(host):
        print(f"kernels: skipped: {lacking}")
        return 0
    tests = [] if asked.read else selection.files(asked.tests, host)
    worst = 0
    for package in debian.packages():
        if asked.names and package.name not in asked.names:
            continue
        try:
            kernel = debian.have(package, host)
            outcome = guest.UNSEEN if asked.read else guest.run(kernel, host, tests, dict(asked.set))
        except debian.NotToBeHad as reason:
            print(f"{package.name}: skipped: {reason}", flush=True)
            continue
        if not asked.read:
            print(*table.story(package.name, kernel, outcome), sep="\n", flush=True)
            worst = worst if outcome.worked else 1
        if asked.write or asked.read:
            table.note(table.DOCUMENT, package.name, kernel, outcome)
    return worst


def arguments() -> argparse.Namespace:
    names = [package.name for package in debian.packages()]
    parser = argparse.ArgumentParser(prog="python -m kernels", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {' '.join(names)} (all)")
    parser.add_argument("--tests", nargs="+", metavar="TEST", default=[], help="only these, as pytest names them")
    parser.add_argument("--set", nargs="+", metavar="NAME=VALUE", type=pair, default=[], help="for their environment")
    parser.add_argument("--write", action="store_true", help="put what came of it into docs/compatibility.md")
    parser.add_argument("--read", action="store_true", help="boot none: put there what their configurations promise")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(names):
        parser.error(f"no such kernel: {' '.join(sorted(unknown))}")
    return asked


def pair(text: str) -> tuple[str, str]:
    """Raises ValueError for what has no =."""
    name, value = text.split("=", 1)
    return name, value


if __name__ == "__main__":
    sys.exit(main())
