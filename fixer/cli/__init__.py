"""The command line: a file for each verb, ``options`` for what they share, and here what holds for all of them.

What a verb needs is imported inside it, so that ``fixer --help`` answers at once and ``fixer off`` works even where a
compiled part is missing.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import click

from fixer import __version__
from fixer.cli import compare, cure, demo, doctor, off, on, run, scan, status
from fixer.cli.options import complain
from fixer.errors import FixerError

INTERRUPTED = 130
"""What a shell reports for a command that SIGINT ended."""

BROKEN_PIPE = 141
"""What a shell reports for a command that SIGPIPE ended: the reader of a pipe (``| head``) had enough."""


class Verbs(click.Group):
    """The group of verbs, in the order in which they are met, with our errors turned into lines and exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FixerError as error:
            complain(error)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            _give_up_stdout()
            ctx.exit(BROKEN_PIPE)
        except ImportError as error:
            if (error.name or "").split(".")[0] not in ("fixer", "netfilterqueue"):
                raise
            complain(f"this installation is incomplete, install it again: {error}")
            ctx.exit(FixerError.exit_code)


# click: a paragraph that begins with \b keeps its lines.
@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="fixer", message="%(prog)s %(version)s")
def cli() -> None:
    """Repair VXLAN packets whose checksums were never finished, or that somebody on the way has spoiled.

    Ping works over the overlay and TCP does not? fixer takes the packets from a netfilter queue on the receiving host,
    finishes what can be proven to be unfinished, drops what can be proven to be corrupt, and says what it found. It
    does not touch healthy packets, does not encapsulate or route, and does not replace the cure at the sender
    (`ethtool -K DEV tx-checksum-ip-generic off`): it carries you until then.

    \b
    Two commands, as root, on the host that receives:
      fixer on       send VXLAN packets to the queue (they pass while nobody listens)
      fixer run      listen, repair, log
    And:
      fixer status   is it on, does it listen, what was lost
      fixer off      take the rule away again
      fixer scan capture.pcap   the same judgement over a capture, without root
      fixer compare left.pcap right.pcap   on which side of two captures does it die
      fixer doctor   is it this node, what shows that, and what cures it so that it lasts
      fixer cure     on the sender: what to change so that it stays changed, and does it hold
      fixer doctor timestamps   does this server refuse clients behind SNAT, and what helps

    \b
    Exit codes:
      0   done                             69  the kernel lacks a part (NFQUEUE, raw table)
      2   wrong command line               71  the system refused something
      3   not in order (status, on, …)     72  a program is missing (iptables)
      4   off, on: normalised connections  75  the queue is held by another process
          are alive, and need the rule     77  root (CAP_NET_ADMIN) is needed
      65  a capture is damaged or cut      78  the configuration is wrong
      66  a file is missing or unreadable  130 interrupted
    """


for verb in (run.run, on.on, off.off, status.status, scan.scan, compare.compare, doctor.doctor, cure.cure, demo.demo):
    cli.add_command(verb)


def main() -> NoReturn:
    """The ``fixer`` command. Never returns: ends the process with the exit code."""
    try:
        try:
            cli(prog_name="fixer")
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _give_up_stdout()
        sys.exit(BROKEN_PIPE)
    sys.exit(0)


def _give_up_stdout() -> None:
    """What is still buffered would raise again when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
