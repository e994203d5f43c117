"""Write fixer/data/swarm.pcap: two packets of a Docker Swarm overlay as the receiving host captured them.

VNI 4097, 192.168.102.4 to 192.168.102.5, UDP 4789: a TCP SYN and its repetition, whose inner checksums were left
unfinished by the sender (179e is the sum of the pseudo-header in both). Raw IPv4; the times are those of the two TCP
timestamps, 1.023 s apart, because when they were captured is not known.
"""

from __future__ import annotations

from pathlib import Path

from support.captures import pcap

SWARM = [
    "4500006e6b4700004011c1ddc0a86604c0a86605ed6212b5005a9c61080000000010010002420a0001c002420a0001b0"
    "08004500003c5a6b40004006c8e10a0001b00a0001c0936100509dedb1af00000000a0026e28179e0000020405820402080ab6fee0100000000001030307",
    "4500006e6dac00004011bf78c0a86604c0a86605bd4212b5005acc81080000000010010002420a0001c002420a0001b0"
    "08004500003c5a6c40004006c8e00a0001b00a0001c0936100509dedb1af00000000a0026e28179e0000020405820402080ab6fee40f0000000001030307",
]
RAW_IP = 101
FILE = Path(__file__).parents[2] / "fixer/data/swarm.pcap"


def swarm() -> bytes:
    first, second = (bytes.fromhex(packet) for packet in SWARM)
    header_and_first = pcap([first], RAW_IP, when_ns=0)
    return header_and_first + pcap([second], RAW_IP, when_ns=1_023_000_000)[24:]


if __name__ == "__main__":
    FILE.write_bytes(swarm())
