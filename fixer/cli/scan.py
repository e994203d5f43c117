"""``fixer scan``: judge the packets of captures."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from fixer.cli.options import config_option, json_option, settings_of


@click.command(short_help="Judge the packets of captures.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@config_option
@click.option("--plain", is_flag=True, help="Also judge packets that are not VXLAN.")
@json_option("One JSON object per file instead of tables.")
@click.option(
    "--write", type=click.Path(path_type=Path), metavar="OUT.pcap", help="Write all frames, the broken ones repaired."
)
def scan(files: tuple[Path, ...], config: Path | None, plain: bool, as_json: bool, write: Path | None) -> None:
    """Judge the packets of captures (pcap or pcapng, plain or gzip) as `fixer run` would. Needs no root.

    A capture taken on the sender shows unfinished checksums that its NIC finishes later: that is said, and is no fault.
    Captures are only read; --write makes a new file.

    \b
    Examples:
      tcpdump -ni eth0 -c 1000 -w vxlan.pcap udp port 4789 && fixer scan vxlan.pcap
      fixer scan --json *.pcap.gz | jq .repairable
      fixer scan broken.pcap --write mended.pcap

    \b
    Exit codes: 0 read to the end (whatever was found), 65 a capture is damaged or cut, 66 unreadable,
    78 wrong configuration.
    """
    settings = settings_of(config).overridden(plain=plain)
    from fixer import scan as scanner
    from fixer.screen.console import console_on

    sys.exit(scanner.scan(files, settings, as_json=as_json, write=write, console=console_on()))
