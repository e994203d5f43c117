"""``ip`` as it was before ``-json`` (RHEL and CentOS 7 have 4.11): its lines, in the shape of its JSON."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from fixer.errors import SystemRefused
from fixer.host.machine import Host

_LINK = re.compile(r"^\d+: ([^:@\s]+)(?:@\S+)?: <([^>]*)> mtu (\d+)")
_ADDRESS = re.compile(r"^\d+: (\S+)\s+inet6? ([^/\s]+).* scope (\w+)")
_NUMBERS = {"id": "id", "dstport": "port"}
_WORDS = {"dev": "link"}
_FLAGS = {"udpcsum": "udp_csum", "udp6zerocsumtx": "udp_zero_csum6_tx", "udp6zerocsumrx": "udp_zero_csum6_rx"}
_ENDS = ("local", "remote", "group")


def links(host: Host) -> list[dict[str, Any]]:
    """What ``ip -details -json address show`` would say, as far as it is asked here. Raises :class:`SystemRefused`."""
    done, addressed = host.run(["ip", "-details", "-oneline", "link", "show"]), host.run(["ip", "-oneline", "address"])
    if done.status != 0:
        raise SystemRefused(f"the interfaces cannot be listed: ip: {' '.join(done.err.split())}")
    addresses: dict[str, list[dict[str, str]]] = {}
    for line in addressed.out.splitlines():
        if found := _ADDRESS.match(line):
            addresses.setdefault(found[1].partition("@")[0], []).append({"local": found[2], "scope": found[3]})
    links = (_link(line) for line in done.out.splitlines())
    return [link | {"addr_info": addresses.get(link["ifname"], [])} for link in links if link]


def _link(line: str) -> dict[str, Any] | None:
    found = _LINK.match(line)
    if found is None:
        return None
    parts = [part.strip() for part in line.split("\\")]
    kind = re.search(r"\blink/(\w+)", line)
    link: dict[str, Any] = {
        "ifname": found[1],
        "flags": found[2].split(","),
        "mtu": int(found[3]),
        "link_type": kind[1] if kind else "",
    }
    if "link-netnsid" in line:
        link["link_netnsid"] = 0
    made = parts[2].split() if len(parts) > 2 else []
    if made and made[0] not in ("addrgenmode", "alias", "promiscuity"):
        link["linkinfo"] = {"info_kind": made[0], "info_data": _vxlan(made) if made[0] == "vxlan" else {}}
    return link


def _vxlan(words: list[str]) -> dict[str, Any]:
    data: dict[str, Any] = {name: name in words for name in ("external",) if name in words}
    data |= {name: word in words for word, name in _FLAGS.items() if {word, f"no{word}"} & set(words)}
    for word, value in pairwise(words):
        if word in _NUMBERS and value.isdecimal():
            data[_NUMBERS[word]] = int(value)
        elif word in _WORDS:
            data[_WORDS[word]] = value
        elif word in _ENDS:
            data[f"{word}6" if ":" in value else word] = value
    return data
