"""Whether anything on this node looks as if it turned checksums off at every start, whoever wrote it."""

from __future__ import annotations

import re

from fixer.errors import FixerError
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


def of_checksums(host: Host) -> list[str]:
    """The files that have such a word; one that cannot be read is left out."""
    paths = [*FILES, *(f"{directory}/{name}" for directory in DIRECTORIES for name in host.listed(directory))]
    paths += [f"{_UNITS}/{name}" for name in host.listed(_UNITS) if _NAMED.search(name)]
    return [path for path in paths if _WORDS.search(_read(host, path))]


def _read(host: Host, path: str) -> str:
    try:
        return host.read(path) or ""
    except FixerError:  # a directory, or somebody else's
        return ""
