"""A real rsyslog that carries a log to Elasticsearch as `deploy/elk/rsyslog.conf` says; and a road with many VTEPs."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.netns import Namespace
from support.packets import tunnelled
from support.road import Road
from support.wire import ip_header

from deploy import shippers
from fixer.lab.net import stop

KINDS = {"inner_unfinished": "PARTIAL", "corrupt": "WRONG"}
PAYLOADS = {kind: tunnelled(state, "ZERO")[28:] for kind, state in KINDS.items()}
"""A VXLAN header and its frame; the outer has no checksum."""


class Rsyslog:
    """One, in a namespace. Only paths and the port differ from what is shipped."""

    def __init__(self, namespace: Namespace, folder: Path, log: Path, port: int) -> None:
        if shutil.which("rsyslogd") is None or not list(Path("/usr/lib").rglob("omelasticsearch.so")):
            pytest.skip("needs rsyslog-elasticsearch")
        self._namespace = namespace
        self.refused = folder / "fixer-refused.json"
        text = shippers.RSYSLOG.replace(shippers.LOG, str(log)).replace(f'"{shippers.PORT}"', f'"{port}"')
        text = text.replace("/var/spool/rsyslog/fixer-refused.json", str(self.refused))
        text = text.replace(f'server="{shippers.HOST}"', 'server="127.0.0.1"')
        self._file = folder / "rsyslog.conf"
        self._file.write_text(f'global(workDirectory="{folder}")\n{text}')
        self._pid = folder / "rsyslog.pid"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._process = self._namespace.start("rsyslogd", "-n", "-f", str(self._file), "-i", str(self._pid))

    def stop(self) -> None:
        if self._process:
            stop(self._process)
            self._process = None


def flood(road: Road, vteps: Sequence[str], kinds: Sequence[str], number: int) -> None:
    """One packet from each of these VTEPs, of the kind that belongs to it."""
    packets = []
    for place, (vtep, kind) in enumerate(zip(vteps, kinds, strict=True)):
        payload = PAYLOADS[kind] + number.to_bytes(4, "big")
        udp = struct.pack("!HHHH", 40_000 + place, 4789, 8 + len(payload), 0) + payload
        packets.append(ip_header(vtep, "192.0.2.2", 17, len(udp), number % 65536) + udp)
    sock = raw_socket(road)
    for packet in packets:
        sock.sendto(packet, ("192.0.2.2", 0))


_sockets: dict[int, socket.socket] = {}


def raw_socket(road: Road) -> socket.socket:
    """One for each road, opened in the sender's namespace; closed with :func:`close`."""
    if id(road) not in _sockets:
        _sockets[id(road)] = road.sender.call(socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    return _sockets[id(road)]


def close(road: Road) -> None:
    _sockets.pop(id(road)).close()
