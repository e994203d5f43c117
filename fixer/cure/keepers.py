"""Who configures links on a node, and where each keeps an offload: a function each, None where it is not in charge.

The order is that of :data:`KEEPERS`: the first that is in charge of the device keeps it. Each docstring says where the
file's form is known from.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePosixPath

from fixer.cure.plan import Command, File, Plan, Setting, is_safe
from fixer.errors import FixerError
from fixer.host.machine import Host

OURS = "# Written by `fixer cure`; `fixer cure --undo` takes it away."
NETWORKD_WITH_OFFLOADS = 245
"""The first systemd whose .link files know TransmitChecksumOffload."""

INTERFACES, IFCFG = "/etc/network/interfaces", "/etc/sysconfig/network-scripts"
NETPLAN, LINKS, RULES = "/etc/netplan", "/etc/systemd/network", "/etc/udev/rules.d"
_VENDOR_LINKS = ("/usr/lib/systemd/network/99-default.link", "/lib/systemd/network/99-default.link")
_RELOAD = ("udevadm", "control", "--reload")  # udevd by itself looks for new files every 3 s at most
_UNKNOWN = 10
"""nmcli(1): connection, device, or access point does not exist."""

# A line of shell: what is before the value, the value in one of three forms, a comment, a carriage return.
_ETHTOOL_OPTS = re.compile(
    r"""^(?P<head>[ \t]*(?:export[ \t]+)?ETHTOOL_OPTS=)
        (?:"(?P<double>[^"\\`\r\n]*)"|'(?P<single>[^'"\\\r\n]*)'|(?P<bare>[^\s"'\\`$;\#&|<>()]*))
        (?P<tail>(?:[ \t]+\#[^\r\n]*|[ \t]*)\r?)$""",
    re.MULTILINE | re.VERBOSE,
)
_ETHTOOL_OPTS_AT_ALL = re.compile(r"^[ \t]*(?:export[ \t]+)?ETHTOOL_OPTS=", re.MULTILINE)

Keeper = Callable[[Host, Setting], Plan | None]


def network_manager(host: Host, setting: Setting) -> Plan | None:
    """nm-settings-nmcli(5), ``ethtool.feature-*``: NetworkManager 1.14 and newer, set at each activation.

    In the profile's file it is ``[ethtool] feature-tx-checksum-ip-generic=false`` (coreos/fedora-coreos-tracker#1372).
    """
    said = _said(host, "nmcli", "-t", "-f", "DEVICE,UUID,FILENAME", "connection", "show", "--active")
    for line in said.splitlines():
        device, uuid, file = (*re.split(r"(?<!\\):", line, maxsplit=2), "", "")[:3]
        if device == setting.device and uuid:
            return Plan(
                keeper="NetworkManager",
                why=f"`nmcli connection show --active` has {setting.device}: profile {uuid}, {file or 'its own file'}",
                setting=setting,
                commands=tuple(_feature(host, uuid, name) for name in setting.features),
            )
    return None


def _feature(host: Host, uuid: str, name: str) -> Command:
    property_ = f"ethtool.feature-{name}"
    ask = ("nmcli", "-g", property_, "connection", "show", uuid)
    before = _said(host, *ask).strip()
    modify = ("nmcli", "connection", "modify", uuid, property_)
    undo = (*modify, before if before in ("on", "off") else "ignore")
    return Command((*modify, "off"), undo, ask, "off", _UNKNOWN)


def netplan(host: Host, setting: Setting) -> Plan | None:
    """netplan's YAML reference: ``transmit-checksum-offload``, since 0.104, networkd only.

    Files are merged by the definition's name; networkd's file made from it tells that name.
    """
    made = [name for name in host.listed("/run/systemd/network") if re.fullmatch(r"10-netplan-.+\.network", name)]
    for name in made:
        text = host.peek(f"/run/systemd/network/{name}")
        identity = name.removeprefix("10-netplan-").removesuffix(".network")
        if identity != setting.device and not re.search(rf"^Name={re.escape(setting.device)}$", text, re.MULTILINE):
            continue
        if not setting.is_checksums or host.which("netplan") is None or not is_safe(identity):
            return None  # it has no word for others: udev's rule has
        text = (
            f"{OURS}\nnetwork:\n  version: 2\n  ethernets:\n    {identity}:\n      transmit-checksum-offload: false\n"
        )
        return Plan(
            keeper="netplan",
            why=f"/run/systemd/network/{name} was made by it",
            setting=setting,
            files=(File(f"{NETPLAN}/90-fixer-{setting.device}.yaml", text, 0o600),),
            verify=("netplan", "generate"),
            notes=_cloud_init(host),
        )
    return None


def ifupdown(host: Host, setting: Setting) -> Plan | None:
    """interfaces(5): what is in /etc/network/if-up.d is run with ``IFACE`` set, once an interface is up."""
    if host.which("ifup") is None:
        return None
    directory = f"{INTERFACES}.d"
    for path in (INTERFACES, *(f"{directory}/{name}" for name in host.listed(directory))):
        if re.search(rf"^\s*iface\s+{re.escape(setting.device)}\s", host.peek(path), re.MULTILINE):
            script = (
                f"#!/bin/sh\n{OURS}\n[ \"$IFACE\" = '{setting.device}' ] || exit 0\n"
                f"exec /sbin/{' '.join(setting.command)}\n"
            )
            return Plan(
                keeper="ifupdown",
                why=f"{path} has `iface {setting.device}`",
                setting=setting,
                files=(File(f"/etc/network/if-up.d/fixer-{setting.file_name}", script, 0o755),),
                notes=_cloud_init(host),
            )
    return None


def ifcfg(host: Host, setting: Setting) -> Plan | None:
    """RHEL 6 and 7, initscripts' sysconfig.txt: ``ETHTOOL_OPTS``, several separated by ``;``.

    What begins with ``-`` is handed to ethtool as it is. With NetworkManager the profile's property is used instead.
    """
    path = f"{IFCFG}/ifcfg-{setting.device}"
    text = host.read_exactly(path)
    if text is None:
        return None
    why = f"{path} is there, and NetworkManager is not in charge"
    ours = f"-K ${{DEVICE}} {' '.join(f'{name} off' for name in setting.features)}"
    lines = list(_ETHTOOL_OPTS.finditer(text))
    if len(lines) != len(_ETHTOOL_OPTS_AT_ALL.findall(text)):
        return Plan("ifcfg", why, setting, by_hand=(f"into the value of ETHTOOL_OPTS in {path}, behind a `;`: {ours}",))
    if lines:
        found = lines[-1]  # a shell reads it: the last one counts
        options = [part.strip() for part in (found["double"] or found["single"] or found["bare"] or "").split(";")]
        if ours not in options:
            options.append(ours)
        line = f'{found["head"]}"{"; ".join(filter(None, options))}"{found["tail"]}'
        after = text[: found.start()] + line + text[found.end() :]
    else:
        line, end = f'ETHTOOL_OPTS="{ours}"', "\r\n" if "\r\n" in text else "\n"
        after = f"{text}{'' if text.endswith(end) or not text else end}{line}{end}"
    return Plan("ifcfg", why, setting, (File(path, after, None, line.rstrip("\r")),))


def networkd(host: Host, setting: Setting) -> Plan | None:
    """systemd.link(5): udev applies the first file that matches, and no other, whoever gives the link its addresses.

    So this one takes over what the one that was applied says (udev's ``ID_NET_LINK_FILE``).
    """
    if not host.exists("/run/udev/control") or not setting.is_checksums:
        return None
    if _systemd(host) < NETWORKD_WITH_OFFLOADS:
        return None
    base = re.search(
        r"^ID_NET_LINK_FILE=(.*)$", _said(host, "udevadm", "info", "-q", "property", "-p", _sys(setting)), re.MULTILINE
    )
    path = f"{LINKS}/05-fixer-{setting.device}.link"
    applied = base[1] if base else next((vendor for vendor in _VENDOR_LINKS if host.exists(vendor)), "")
    kept = [line for line in _section(host.peek(applied), "Link") if "TransmitChecksumOffload" not in line]
    address = re.search(
        r"Permanent address: ([0-9a-f]{2}(?::[0-9a-f]{2})+)", _said(host, "ethtool", "-P", setting.device)
    )
    who = (
        f"PermanentMACAddress={address[1]}" if address and address[1].strip("0:") else f"OriginalName={setting.device}"
    )
    text = "\n".join((OURS, "[Match]", who, "", "[Link]", *kept, "TransmitChecksumOffload=no", ""))
    notes = (f"What {applied} says of this link is taken over: only one .link file is applied.",) if kept else ()
    return Plan("systemd-udevd (.link)", "udev runs here", setting, (File(path, text),), verify=_RELOAD, notes=notes)


def udev(host: Host, setting: Setting) -> Plan | None:
    """udev(7); flannel's Documentation/troubleshooting.md has this rule for flannel.1: ``move`` is a device renamed."""
    if not host.exists("/run/udev/control"):
        return None
    ethtool = host.which("ethtool") or "/usr/sbin/ethtool"
    text = (
        f"{OURS}\n"
        f'SUBSYSTEM=="net", ACTION=="add|change|move", ENV{{INTERFACE}}=="{setting.device}", '
        f'RUN+="{" ".join((ethtool, *setting.command[1:]))}"\n'
    )
    path = f"{RULES}/90-fixer-{setting.device}.rules"
    return Plan(
        "udev", "udev runs here, and sees every device that is made", setting, (File(path, text),), verify=_RELOAD
    )


FOR_HARDWARE = ("networkd",)
"""Who is asked for devices that are there at the start alone: a .link may rename what somebody makes under a name."""

KEEPERS: dict[str, Keeper] = {
    "networkmanager": network_manager,
    "netplan": netplan,
    "ifupdown": ifupdown,
    "ifcfg": ifcfg,
    "networkd": networkd,
    "udev": udev,
}


def _cloud_init(host: Host) -> tuple[str, ...]:
    made = ("/etc/netplan/50-cloud-init.yaml", f"{INTERFACES}.d/50-cloud-init", f"{INTERFACES}.d/50-cloud-init.cfg")
    found = next((path for path in made if host.exists(path)), None)
    if found is None:
        return ()
    return (f"cloud-init writes {found} anew for a new instance, and leaves this file alone; an image needs it too.",)


def _systemd(host: Host) -> int:
    found = re.match(r"systemd ([0-9]+)", _said(host, "systemctl", "--version"))
    return int(found[1]) if found else 0


def _sys(setting: Setting) -> str:
    return str(PurePosixPath("/sys/class/net") / setting.device)


def _section(text: str, name: str) -> list[str]:
    """The lines of one section of an ini file, without comments."""
    inside, found = False, []
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            inside = line == f"[{name}]"
        elif inside and line and line[0] not in "#;":
            found.append(line)
    return found


def _said(host: Host, *argv: str) -> str:
    """What a command says; nothing where it is missing or refuses."""
    try:
        done = host.run(argv)
    except FixerError:
        return ""
    return done.out if done.status == 0 else ""
