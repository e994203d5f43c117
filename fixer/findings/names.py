"""What is no VXLAN, in words: protocols, ports and EtherTypes that people meet where they look for a tunnel."""

from __future__ import annotations

from collections import Counter

from fixer.findings.strangers import Strangers

UDP = 17
PROTOCOLS = {
    0: "IPv6 options",
    1: "ICMP",
    2: "IGMP",
    4: "IP in IP",
    6: "TCP",
    41: "IPv6 in IP",
    43: "IPv6 routing header",
    44: "IPv6 fragments",
    47: "GRE",
    50: "ESP (IPsec)",
    51: "AH (IPsec)",
    58: "ICMPv6",
    60: "IPv6 options",
    88: "EIGRP",
    89: "OSPF",
    103: "PIM",
    112: "VRRP",
    132: "SCTP",
    137: "MPLS in IP",
}
PORTS = {
    53: "DNS",
    67: "DHCP",
    68: "DHCP",
    123: "NTP",
    443: "QUIC",
    500: "IKE (IPsec)",
    1701: "L2TP",
    2152: "GTP-U",
    3784: "BFD",
    4500: "ESP in UDP (IPsec)",
    4790: "VXLAN-GPE",
    5353: "mDNS",
    6080: "GUE",
    6081: "Geneve",
    6635: "MPLS in UDP",
    51820: "WireGuard",
}
ETHERTYPES = {
    0x0806: "ARP",
    0x8035: "RARP",
    0x88CC: "LLDP",
    0x8847: "MPLS",
    0x8848: "MPLS",
    0x8863: "PPPoE",
    0x8864: "PPPoE",
    0x8809: "LACP",
    0x888E: "EAPOL",
    0x88E5: "MACsec",
    0x8906: "FCoE",
}
LEAST_ETHERTYPE = 0x0600
"""What is less is a length: 802.3."""

TUNNELS = {
    "ESP (IPsec)": "what is encrypted shows no checksum: capture on the device behind it, where it is decrypted",
    "AH (IPsec)": "it covers every byte, so nothing in it can be repaired",
    "IKE (IPsec)": "",
    "ESP in UDP (IPsec)": "what is encrypted shows no checksum: capture on the device behind it, where it is decrypted",
    "WireGuard": "what is encrypted shows no checksum: capture on the device behind it, where it is decrypted",
    "Geneve": "OVN, Cilium and NSX use it; it is not read here",
    "GRE": "Open vSwitch and NVGRE use it; it is not read here",
    "VXLAN-GPE": "another format behind the header; it is not read here",
    "IP in IP": "Calico uses it where VXLAN is off; `--plain` reads neither",
    "IPv6 in IP": "it is not read here",
    "L2TP": "it is not read here",
    "GTP-U": "it is not read here",
    "GUE": "it is not read here",
    "MPLS": "it is not read here",
    "MPLS in IP": "it is not read here",
    "MPLS in UDP": "it is not read here",
    "MACsec": "what is encrypted shows no checksum: capture where it is decrypted",
}
"""Other tunnels, and what to know of them; IKE stands for the ESP that goes with it."""


def named(strangers: Strangers, *, ip: bool) -> Counter[str]:
    """Packets by what they are, the most first; without IP packets where these are judged themselves."""
    found: Counter[str] = Counter()
    for ethertype, packets in strangers.ethertypes_seen().items():
        found[ethertype_words(ethertype)] += packets
    if ip:
        found += ip_named(strangers)
    return Counter(dict(found.most_common()))


def ip_named(strangers: Strangers) -> Counter[str]:
    found: Counter[str] = Counter()
    for protocol, packets in strangers.protocols_seen().items():
        if protocol != UDP:
            found[PROTOCOLS.get(protocol, f"IP protocol {protocol}")] += packets
    for port, packets in strangers.ports_seen().items():
        found[PORTS.get(port, "UDP")] += packets
    found["fragments"] += strangers.fragments
    return +found


def tunnels_among(strangers: Strangers) -> Counter[str]:
    """Packets of other tunnels than VXLAN."""
    found = named(strangers, ip=True)
    return Counter({name: found[name] for name in TUNNELS if found[name]})


def ethertype_words(ethertype: int) -> str:
    if ethertype == 0:
        return "without IP"
    if ethertype < LEAST_ETHERTYPE:
        return "802.3 (spanning tree and the like)"
    return ETHERTYPES.get(ethertype, f"EtherType {ethertype:04x}")
