"""``fixer compare``: two captures of one way."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from fixer.cli.options import complain, config_option, json_option, port_option, print_json, settings_of


@click.command(short_help="Compare captures of sender and receiver: on which hop does it die.")
@click.argument("sender", type=click.Path(path_type=Path), metavar="SENDER.pcap")
@click.argument("receiver", type=click.Path(path_type=Path), metavar="RECEIVER.pcap")
@config_option
@click.option("--plain", is_flag=True, help="Also compare packets that are not VXLAN.")
@port_option
@json_option("One JSON object instead of a table (docs/compare.md has its schema).")
def compare(
    sender: Path, receiver: Path, config: Path | None, plain: bool, ports: tuple[int, ...], as_json: bool
) -> None:
    """Tell on which side of two points of capture packets die. Needs no root.

    Matches the packets of both by what no hop changes, and says what was lost, what arrived changed, what nobody sent,
    in which direction, and how far the clocks are apart. Capture on both at once, whole packets, the VXLAN port alone.
    What a capture cannot have seen is not called lost.

    \b
    Examples:
      tcpdump -ni eth0 -s 0 -w left.pcap udp port 4789      (on left; on right the same)
      fixer compare left.pcap right.pcap
      fixer compare --json left.pcap right.pcap | jq .verdict
      ssh right tcpdump -ni eth0 -s 0 -c 1000 -w - udp port 4789 | fixer compare left.pcap -

    \b
    Exit codes: 0 both read to the end (whatever was found), 65 a capture is damaged or cut,
    66 unreadable, 78 wrong configuration.
    """
    settings = settings_of(config).overridden(plain=plain, ports=ports)
    if str(sender) == str(receiver) or (sender.exists() and receiver.exists() and sender.samefile(receiver)):
        raise click.UsageError(f"{sender} is given twice: give one capture of the sender and one of the receiver")
    from fixer.compare import as_object
    from fixer.compare import compare as compared
    from fixer.screen.compare import show
    from fixer.screen.console import console_on

    comparison = compared(sender, receiver, settings)
    if as_json:
        print_json(as_object(comparison))
    else:
        show(comparison, console_on())
    if comparison.error is not None:
        complain(comparison.error)
        sys.exit(comparison.error.exit_code)
