"""``fixer demo``: a path that carries ping and no TCP, what ``fixer`` says about it, and the path with ``fixer`` on."""

from __future__ import annotations

import hashlib
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

from fixer.errors import FixerError
from fixer.host.machine import Host
from fixer.lab import traffic
from fixer.lab.net import Lab, Layout, Pump, missing
from fixer.lab.service import Service
from fixer.screen.console import Console, Part, say, table

MEGABYTES = 5
LOG_SECONDS = 3.0  # how long an event may take into the log; it usually takes a tenth of a second


def tell(console: Console, host: Host | None = None) -> int:
    """Tell it on ``console``, in namespaces, or where the machine lacks a part on a capture; the exit code."""
    host = host or Host()
    lacking = missing(host)
    if lacking is not None:
        say(console, "The laboratory cannot be built here: ", (lacking, "yellow"), ".")
        say(console, "Here is the main job on a capture.")
        say(console)
        return _on_the_capture(console)
    started = time.monotonic()
    with _unwound_by_sigterm():
        try:
            worked = _in_the_laboratory(console, host)
        except FixerError as error:
            say(console, (f"The demo broke off: {error}", "red"))
            return error.exit_code
    say(console)
    say(console, "It works" if worked else ("It does not work", "red"), f"; {time.monotonic() - started:.0f} s.")
    return 0 if worked else 1


@dataclass(frozen=True)
class Seen:
    """What a user saw on the path, and how many packets both kernels refused for their checksum meanwhile."""

    ping: bool
    tcp: str
    udp: str
    page: traffic.Download
    refused: dict[str, int]


def _in_the_laboratory(console: Console, host: Host) -> bool:
    content = Random().randbytes(MEGABYTES << 20)  # noqa: S311 - a page, not a secret
    sha256 = hashlib.sha256(content).hexdigest()
    layout = Layout()
    with Lab(layout, Pump(), host) as lab:
        _step(console, 1, f"Two hosts with kernel VXLAN (VNI {layout.vni}, UDP {layout.port}) ...")
        ends = f"{lab.left.overlay4} on {lab.left.underlay}  ──  {lab.right.underlay} with {lab.right.overlay4}"
        say(console, ends, indent=3)
        say(console, "... and a wire between them on which no hardware finishes a checksum.", indent=3)
        with traffic.serving(lab.right, content):
            _step(console, 2, "Without fixer")
            without = _look(lab)
            _show(console, without, sha256)

            _step(console, 3, "What fixer sees, changing nothing: fixer on; fixer run --monitor")
            event = _diagnosis(lab)
            _explain(console, event)

            _step(console, 4, "With fixer on both hosts: fixer on; fixer run")
            with Service(lab.left), Service(lab.right):
                fixed = _look(lab)
            _show(console, fixed, sha256)

        _step(console, 5, "Everything off again: fixer off")
        rules = [end.run(tool).out for end in (lab.left, lab.right) for tool in ("iptables-save", "ip6tables-save")]
        clean = not any("FIXER" in table for table in rules)
        say(console, "rules ", _removed(clean), " on both hosts", indent=3)
    namespaces = host.run(["ip", "netns", "list"]).out
    gone = not any(name in namespaces for name in (lab.left.name, lab.right.name, lab.between.name))
    say(console, "namespaces ", _removed(gone), indent=3)
    say(console)
    _compare(console, without, fixed, sha256)
    broken = without.ping and without.tcp == "timed out" and without.udp == "lost" and any(without.refused.values())
    mended = fixed.ping and fixed.tcp == "connected" and fixed.udp == "answered" and not any(fixed.refused.values())
    return broken and event is not None and mended and fixed.page.sha256 == sha256 and clean and gone


def _look(lab: Lab) -> Seen:
    """Try what a user would try from the left host to the right one."""
    ends = lab.left, lab.right
    before = [traffic.checksum_errors(end) for end in ends]
    ping = traffic.ping(lab.left, lab.right.overlay4)
    tcp = traffic.connect(lab.left, lab.right.overlay4, traffic.HTTP_PORT)
    udp = traffic.ask(lab.left, lab.right.overlay4, traffic.ECHO_PORT)
    page = traffic.download(lab.left, lab.right.overlay4)
    after = [traffic.checksum_errors(end) for end in ends]
    refused = {name: sum(a[name] - b[name] for a, b in zip(after, before, strict=True)) for name in after[0]}
    return Seen(ping, tcp, udp, page, refused)


def _diagnosis(lab: Lab) -> dict[str, Any] | None:
    """The receiver's log entry about a SYN that nobody repaired; None if none came."""
    with Service(lab.right, run=("--monitor",)) as service:
        traffic.connect(lab.left, lab.right.overlay4, traffic.HTTP_PORT, seconds=0.3)
        give_up = time.monotonic() + LOG_SECONDS
        while time.monotonic() < give_up:
            for event in service.events():
                if event["event"]["dataset"] == "fixer.packet" and event.get("network", {}).get("transport") == "tcp":
                    return event
            time.sleep(0.05)
    return None


def _step(console: Console, number: int, title: str) -> None:
    say(console)
    say(console, (f"{number}  {title}", "bold"))


def _removed(all_of_it: bool) -> Part:
    return "removed" if all_of_it else ("left behind", "red")


def _show(console: Console, seen: Seen, sha256: str) -> None:
    for what, came in _rows(seen, sha256):
        say(console, f"{what:<22} {came}", indent=3)


def _rows(seen: Seen, sha256: str) -> Iterator[tuple[str, str]]:
    """What was seen, line by line, as (what was tried, what came of it)."""
    yield "ping", "answered" if seen.ping else "no answer"
    yield "TCP connect", seen.tcp
    yield "UDP request", {"lost": "no answer"}.get(seen.udp, seen.udp)
    if seen.page.error:
        yield f"HTTP, {MEGABYTES} MB", f"{seen.page.size} bytes: {seen.page.error}"
    else:
        same = "sha256 as sent" if seen.page.sha256 == sha256 else "wrong sha256"
        yield f"HTTP, {MEGABYTES} MB", f"{same}, {seen.page.seconds:.1f} s"
    for name, count in seen.refused.items():
        yield name, f"+{count}"


def _explain(console: Console, event: dict[str, Any] | None) -> None:
    """The log line, and then the same in words, for somebody who sees it for the first time."""
    if event is None:
        say(console, ("nothing came into its log", "red"), indent=3)
        return
    fixer = event["fixer"]
    found, right = (fixer["inner"]["checksum"][which] for which in ("found", "right"))
    sender, vni = fixer["vtep"]["source"]["ip"], fixer["vni"]
    words = (
        f"VTEP {sender} sent a TCP segment into VNI {vni} with checksum {found}, and {right} is right. "
        f"{found} is the sum of the pseudo-header alone: Linux left the rest to the network card (CHECKSUM_PARTIAL), "
        "which never did it. The receiver refuses the segment; ping is summed in software and works. The permanent "
        "cure is at the sender: ethtool -K DEVICE tx-checksum-ip-generic off."
    )
    say(console, (event["message"], "cyan"), indent=3)
    say(console, words, indent=3)


def _compare(console: Console, without: Seen, fixed: Seen, sha256: str) -> None:
    lines = [
        (what, before, after)
        for (what, before), (_, after) in zip(_rows(without, sha256), _rows(fixed, sha256), strict=True)
    ]
    title = f"VNI {Layout().vni} over a wire that finishes no checksum"
    console.print(table(title, ("", "without fixer", "with fixer"), lines))


RECEIVER = bytes([192, 168, 102, 5])
"""The VTEP on which the Swarm packets were captured."""


def _on_the_capture(console: Console) -> int:
    """Scan the two Swarm packets that the package carries, mend them, and scan what came out."""
    from fixer import scan  # only here: the laboratory needs none of it
    from fixer.config import Settings
    from fixer.screen.scan import show

    def judge(path: Path, write: Path | None) -> dict[str, Any]:
        report = scan.scan_file(path, Settings(), write, lambda position, size: None, RECEIVER)
        show(report, console)
        return scan.as_object(report)

    with (
        resources.as_file(resources.files("fixer.data") / "swarm.pcap") as swarm,
        tempfile.TemporaryDirectory() as room,
    ):
        mended = Path(room, "mended.pcap")
        found = judge(swarm, mended)
        say(console)
        say(console, "The same packets, mended:")
        say(console)
        left = judge(mended, None)
    worked = found["repairable"] == found["inner"]["partial"] == left["inner"]["good"] == left["outer"]["good"] == 2
    say(console)
    say(console, "It works." if worked else ("It does not work.", "red"))
    return 0 if worked else 1


@contextmanager
def _unwound_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does: what was built is removed on the way out."""

    def leave(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
