"""Open vSwitch's userspace datapath as the wire: a real switch that forwards unfinished checksums as they are.

Its two daemons run by hand in the wire's namespace, with a database and a run directory of their own; a switch that the
machine may have is not touched. The kernel needs no openvswitch module for this, only tun.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fixer.errors import SystemRefused
from fixer.host.machine import Host
from fixer.lab.net import Namespace, own_name, stop

PROGRAMS = ("ovsdb-server", "ovs-vswitchd", "ovsdb-tool", "ovs-vsctl")
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
START_SECONDS = 5.0


def missing(host: Host) -> str | None:
    """Which part this machine lacks for the switch, in one line; None if it has all."""
    for program in PROGRAMS:
        if host.which(program) is None:
            return f"no program {program}: apt install openvswitch-switch"
    if not host.exists(SCHEMA):
        return f"no {SCHEMA}: apt install openvswitch-common"
    if not host.exists("/dev/net/tun"):
        return "no tun in this kernel (/dev/net/tun)"
    return None


class Switch:
    """A ``fixer.lab.net.Wire``: both legs are ports of one netdev bridge, which learns addresses and forwards."""

    @contextmanager
    def join(self, namespace: Namespace, port: int) -> Iterator[None]:
        """Switch frames while the context lasts; SystemRefused with the switch's own words if it does not start."""
        with tempfile.TemporaryDirectory(prefix=f"{own_name()}-") as run, ExitStack() as undo:
            database, socket, log = Path(run, "conf.db"), Path(run, "db.sock"), Path(run, "log")

            def daemon(program: str, *arguments: str) -> None:
                own = ("--verbose=console:off", f"--log-file={log}", f"--unixctl={run}/{program}.ctl", "--no-chdir")
                inside = ("env", f"OVS_RUNDIR={run}", f"OVS_DBDIR={run}", f"OVS_SYSCONFDIR={run}", program)
                undo.callback(stop, namespace.start(*inside, *own, *arguments))

            def must(*argv: str) -> None:
                done = namespace.run("env", f"OVS_RUNDIR={run}", *argv)
                if done.status != 0:
                    raise SystemRefused(f"{argv[0]} ended with status {done.status}: {done.err.strip()}")

            must("ovsdb-tool", "create", str(database), SCHEMA)
            daemon("ovsdb-server", f"--remote=punix:{socket}", str(database))
            give_up = time.monotonic() + START_SECONDS
            while not socket.exists():
                if time.monotonic() > give_up:
                    raise SystemRefused(f"ovsdb-server did not start within {START_SECONDS:g} s")
                time.sleep(0.01)
            ask = ("ovs-vsctl", f"--db=unix:{socket}", f"--timeout={START_SECONDS:.0f}")
            must(*ask, "--no-wait", "init")
            daemon("ovs-vswitchd", f"unix:{socket}")
            must(*ask, "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
            must(*ask, "add-port", "br0", "left", "--", "add-port", "br0", "right")
            yield
