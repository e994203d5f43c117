"""Whether anything on this node looks as if it turned checksums off at every start, whoever wrote it."""

from __future__ import annotations

import re
from typing import NamedTuple

from fixer.errors import FixerError, NotPermitted
from fixer.host.machine import Host

DIRECTORIES = (
    *("/etc/systemd/network", "/run/systemd/network", "/etc/udev/rules.d", "/etc/netplan", "/etc/network/interfaces.d"),
    *("/etc/network/if-up.d", "/etc/NetworkManager/dispatcher.d", "/etc/NetworkManager/system-connections"),
    *("/etc/sysconfig/network-scripts", "/etc/systemd/system", "/etc/cron.d", "/etc/networkd-dispatcher/routable.d"),
)
FILES = ("/etc/network/interfaces", "/etc/rc.local", "/etc/crontab", "/var/spool/cron/crontabs/root")

# kops writes its unit there, beside hundreds of others.
_UNITS = "/lib/systemd/system"
_NAMED = re.compile(r"flannel|calico|offload|checksum|ethtool")
_WORDS = re.compile(
    r"tx-checksum|TransmitChecksumOffload|transmit-checksum-offload|\boffload-tx\b|ethtool\s+(-K|--offload|--features)\s"
    r"|^ETHTOOL_OPTS=.*-K",
    re.MULTILINE,
)


class Mentions(NamedTuple):
    found: list[str]
    """The files that have such a word."""
    unread: list[str]
    """Files and directories that only root may read: they may have one too."""


def of_checksums(host: Host) -> Mentions:
    paths = [*FILES, *(f"{directory}/{name}" for directory in DIRECTORIES for name in host.listed(directory))]
    paths += [f"{_UNITS}/{name}" for name in host.listed(_UNITS) if _NAMED.search(name)]
    found, unread = [], []
    for path in (*DIRECTORIES, *paths):
        try:
            if _WORDS.search(host.read(path) or ""):
                found.append(path)
        except NotPermitted:
            unread.append(path)
        except FixerError:  # a directory: what is in those above has been listed
            pass
    return Mentions(found, unread)
