"""``fixer scan``: judge the packets of captures."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fixer.cli.options import complain, config_option, json_option, port_option, settings_of

if TYPE_CHECKING:
    from fixer.config import Settings
    from fixer.screen.console import Console


def address_bytes(_context: click.Context, _option: click.Parameter, value: str | None) -> bytes:
    """An IP address or a MAC as bytes; none where there is none."""
    if value is None:
        return b""
    if re.fullmatch(r"[0-9a-fA-F]{1,2}([:-][0-9a-fA-F]{1,2}){5}", value):
        return bytes(int(part, 16) for part in re.split("[:-]", value))
    try:
        return ip_address(value).packed
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither an IP address nor a MAC") from None


@click.command(short_help="Judge the packets of captures.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@config_option
@click.option("--plain", is_flag=True, help="Also judge packets that are not VXLAN.")
@port_option
@json_option("One JSON object per file instead of tables.")
@click.option(
    "--write", type=click.Path(path_type=Path), metavar="OUT.pcap", help="Write all frames, the broken ones repaired."
)
@click.option("--taken-on", callback=address_bytes, metavar="ADDRESS|MAC", help="An address of the host that captured.")
@click.option("--show", type=click.IntRange(1), metavar="FRAME", help="Take one frame apart, its checksums beside it.")
def scan(
    files: tuple[Path, ...],
    config: Path | None,
    plain: bool,
    ports: tuple[int, ...],
    as_json: bool,
    write: Path | None,
    taken_on: bytes,
    show: int | None,
) -> None:
    """Judge the packets of captures as `fixer run` would. Needs no root.

    Reads pcap and pcapng, plain or packed (gzip, bzip2, xz, zstd), and hex dumps (tcpdump -xx); `-` is standard input.

    A capture taken on the sender shows unfinished checksums that its NIC finishes later, and GRO on a receiver makes
    some: what the other side answers tells them from a fault. Where nothing answers, --taken-on does: a VTEP's address
    or the MAC of the host on which the capture was taken.
    Captures are only read; --write makes a new file.

    \b
    Examples:
      tcpdump -ni eth0 -c 1000 -w vxlan.pcap udp port 4789 && fixer scan vxlan.pcap
      fixer scan --taken-on 192.0.2.5 vxlan.pcap
      fixer scan --port 7777 vxlan.pcap
      fixer scan --json *.pcap.gz | jq .repairable
      fixer scan broken.pcap --write mended.pcap
      fixer scan broken.pcap --show 3
      ssh right tcpdump -ni eth0 -c 1000 -U -w - udp port 4789 | fixer scan -

    \b
    Exit codes: 0 read to the end (whatever was found), 65 a capture is damaged or cut, 66 unreadable,
    78 wrong configuration.
    """
    settings = settings_of(config).overridden(plain=plain, ports=ports)
    from fixer.screen.console import console_on

    if show is not None:
        if len(files) > 1 or as_json or write:
            raise click.UsageError("--show takes one FILE, and goes neither with --json nor with --write")
        show_one(files[0], show, settings, console_on())
        return
    sys.exit(scan_each(files, settings, as_json=as_json, write=write, taken_on=taken_on, console=console_on()))


def show_one(path: Path, number: int, settings: Settings, console: Console) -> None:
    """Take one frame of a capture apart."""
    from fixer.scan import frame_of
    from fixer.screen.frame import show

    show(number, *frame_of(path, number, settings), settings.vxlan.ports, console)


def scan_each(
    files: Sequence[Path],
    settings: Settings,
    *,
    as_json: bool = False,
    write: Path | None = None,
    taken_on: bytes = b"",
    console: Console,
) -> int:
    """Scan `files` in turn and print each one's report on `console`: tables and sentences, or one JSON object a line.

    write: a pcap file for the frames, with what is repairable mended; taken_on: see `scan_file`. Errors go to stderr,
    one line a file; the exit code is the worst one's, 0 if every file was read to its end (whatever was found in it: a
    finding is no error).
    """
    from fixer.capture.source import STDIN
    from fixer.scan import as_object, scan_file
    from fixer.screen.scan import progress, show

    if write is not None:
        refuse_to_overwrite(files, write)
    worst = 0
    for path in files:
        if path == STDIN and sys.stdin.isatty():
            click.echo("fixer: paste a hex dump (tcpdump -xx), then Ctrl-D", err=True)
        with progress(path) as step:
            report = scan_file(path, settings, write, step, taken_on)
        if as_json:
            console.file.write(json.dumps(as_object(report)) + "\n")
        else:
            show(report, console)
        console.file.flush()  # so that an error on stderr stands behind the report it belongs to
        if report.error is not None:
            complain(report.error)
            worst = max(worst, report.error.exit_code)
    return worst


def refuse_to_overwrite(files: Sequence[Path], write: Path) -> None:
    """`write` must not be one of `files`, by whatever name; and it takes one file's frames, not several files'."""
    if len(files) > 1:
        raise click.UsageError("--write takes the frames of one FILE: scan several one at a time")
    if any(path.exists() and write.exists() and write.samefile(path) for path in files):
        raise click.UsageError(f"--write {write} is the capture that is read: choose another name")
