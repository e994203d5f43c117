"""Whether flows reach more than one queue: what RSS and RPS say, and what the kernel does with real flows."""

from __future__ import annotations

import json
import os
import select
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from support.fakehost import FakeHost
from support.netns import Namespace
from support.packets import tunnelled

from fixer.host import spread
from fixer.host.links import Link
from fixer.host.machine import NET, Completed, Host
from fixer.lab import net
from fixer.lab.service import Service

BY_ADDRESSES = "UDP over IPV4 flows use these fields for computing Hash flow key:\nIP SA\nIP DA\n"
BY_PORTS = BY_ADDRESSES + "L4 bytes 0 & 1 [TCP/UDP src port]\nL4 bytes 2 & 3 [TCP/UDP dst port]\n"
NOTHING = "UDP over IPV4 flows use these fields for computing Hash flow key:\nNone\n"
NOT_SPREAD = "eth0 does not spread the flows of one VTEP pair over CPUs, so all come to one queue. Next: "
BY_ADDRESSES_ONLY = "eth0 hashes UDP by addresses only, so the flows of one VTEP pair all come to one queue. Next: "


def obstacle(
    masks: list[str], *hashed: str, kind: str = "", queues: int = 2, online: str = "0-7", versions: Any = (4, 6)
) -> str | None:
    """What is told of eth0 with these RPS masks, and ethtool's words on udp4 and udp6."""
    host = FakeHost()
    lines = [f"eth0/queues/rx-{at}/rps_cpus:{mask}\n" for at, mask in enumerate(masks)]
    host.answers["unshare"] = Completed(0, "lo/queues/rx-0/rps_cpus:0\n" + "".join(lines), "")
    for version, said in zip((4, 6), hashed, strict=False):
        host.answers[f"ethtool -n eth0 rx-flow-hash udp{version}"] = Completed(0, said, "")
        host.answers["ethtool"] = Completed(1, "", "Operation not supported")
    host.files["/sys/devices/system/cpu/online"] = f"{online}\n"
    found = spread.obstacles(host, [Link("eth0", 1500, kind)], queues, versions)["eth0"]
    return str(found) if found else None


@pytest.mark.parametrize(
    ("masks", "hashed", "more"),
    [
        (["3"], [], {}),
        (["f0"], [], {"kind": "veth"}),
        (["00000003,00000000"], [], {}),
        (["3", "c"], [BY_ADDRESSES, BY_ADDRESSES], {}),  # RPS of each receive queue hashes ports
        (["0", "0"], [BY_PORTS, BY_PORTS], {}),
        (["0", "0"], [BY_PORTS, BY_ADDRESSES], {"versions": {4}}),
    ],
)
def test_flows_are_spread(masks: list[str], hashed: list[str], more: dict[str, Any]) -> None:
    assert obstacle(masks, *hashed, **more) is None


@pytest.mark.parametrize(
    ("masks", "hashed", "more", "told"),
    [
        (["0"], [], {}, NOT_SPREAD + "echo 3 > /sys/class/net/eth0/queues/rx-0/rps_cpus"),
        (["1"], [], {}, NOT_SPREAD + "echo 3 > /sys/class/net/eth0/queues/rx-0/rps_cpus"),
        # CPUs 0 and 2 are of the same queue of two.
        (["5"], [], {}, NOT_SPREAD + "echo 3 > /sys/class/net/eth0/queues/rx-0/rps_cpus"),
        (["0"], [BY_PORTS, BY_PORTS], {}, NOT_SPREAD + "echo 3 > /sys/class/net/eth0/queues/rx-0/rps_cpus"),
        (["0"], [], {"queues": 6}, NOT_SPREAD + "echo 3f > /sys/class/net/eth0/queues/rx-0/rps_cpus"),
        (["0"], [], {"queues": 6, "online": "4-5"}, NOT_SPREAD + "echo 30 > /sys/class/net/eth0/queues/rx-0/rps_cpus"),
        (
            ["0"],
            [],
            {"queues": 2, "online": "31-32"},
            NOT_SPREAD + "echo 1,80000000 > /sys/class/net/eth0/queues/rx-0/rps_cpus",
        ),
        (["3", "0"], [BY_ADDRESSES] * 2, {}, BY_ADDRESSES_ONLY + "ethtool -N eth0 rx-flow-hash udp4 sdfn && ethtool"),
        (["0", "0"], [BY_PORTS, BY_ADDRESSES], {}, BY_ADDRESSES_ONLY + "ethtool -N eth0 rx-flow-hash udp6 sdfn"),
        (["0", "0"], [BY_ADDRESSES], {"versions": {4}}, BY_ADDRESSES_ONLY + "ethtool -N eth0 rx-flow-hash udp4 sdfn"),
        # It cannot be told what they hash (virtio), or they are no device's.
        (["0", "0"], [NOTHING], {}, NOT_SPREAD + "echo 3 | tee /sys/class/net/eth0/queues/rx-*/rps_cpus"),
        (["0", "0"], [], {}, NOT_SPREAD + "echo 3 | tee /sys/class/net/eth0/queues/rx-*/rps_cpus"),
        (["0", "0"], [BY_PORTS] * 2, {"kind": "veth"}, NOT_SPREAD + "echo 3 | tee /sys/class/net/eth0/queues"),
        (["0"], [], {"online": "0"}, "the CPU online (0) can fill one queue only. Next: queue.count = 1"),
        (["0"], [], {"online": "0,2"}, "the CPUs online (0, 2) can fill one queue only. Next: queue.count = 1"),
        ([], [], {}, "whether eth0 spreads the flows of one VTEP pair over CPUs cannot be told"),
    ],
)
def test_what_keeps_flows_together_is_told_with_its_cure(
    masks: list[str], hashed: list[str], more: dict[str, Any], told: str
) -> None:
    found = obstacle(masks, *hashed, **more)
    assert found is not None
    assert found.startswith(told)
    assert "\n" not in found


def test_who_may_not_mount_sees_the_right_sys_already() -> None:
    host = FakeHost()
    host.answers["unshare"] = Completed(1, "", "unshare: unshare failed: Operation not permitted")
    host.answers["sh"] = Completed(0, "eth0/queues/rx-0/rps_cpus:3\n", "")
    assert spread.obstacles(host, [Link("eth0", 1500)], 2, {4}) == {"eth0": None}
    assert "mount" not in next(line for line in host.ran if line.startswith("sh ")), "not over everybody's /sys"


# The real thing


class Underlay:
    """Two namespaces and a veth pair; from the first go VXLAN flows, the second has two queues."""

    def __init__(self, sender: net.Namespace, receiver: net.Namespace) -> None:
        self.sender = sender
        self.receiver = receiver
        sender.configure(f"link add eth0 type veth peer name eth0 netns {receiver.name}")
        for number, namespace in enumerate((sender, receiver), 1):
            namespace.configure(f"address add 192.0.2.{number}/24 dev eth0", "link set eth0 up")

    def choose_cpus(self, mask: str) -> None:
        """RPS on the receiver's end."""
        path = "/sys/class/net/eth0/queues/rx-0/rps_cpus"
        assert self.receiver.run("sh", "-c", f"echo {mask} > {path} && grep -qi {mask} {path}").status == 0

    def flows(self, count: int, packets: int) -> dict[int, list[int]]:
        """Send from one CPU, flow by flow in turns; for each source port the packets' numbers as they arrived."""
        with ExitStack() as undo:
            sockets = [
                undo.enter_context(self.sender.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM))
                for _ in range(count)
            ]
            outlet: socket.socket = undo.enter_context(
                self.receiver.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
            )
            outlet.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE
            outlet.bind(("192.0.2.2", 4789))
            for each in sockets:
                each.connect(("192.0.2.2", 4789))
            self.sender.call(self._send, sockets, packets)
            found: dict[int, list[int]] = {each.getsockname()[1]: [] for each in sockets}
            for _ in range(count * packets):
                assert select.select([outlet], [], [], 5)[0], f"only {sum(map(len, found.values()))} arrived"
                data, (_, port) = outlet.recvfrom(65535)
                found[port].append(int.from_bytes(data[-4:], "big"))
            return found

    @staticmethod
    def _send(sockets: list[socket.socket], packets: int) -> None:
        os.sched_setaffinity(0, {0})  # of this thread alone: without RPS, veth delivers on the sender's CPU
        frame = tunnelled("PARTIAL", "ZERO")[28:]
        for number in range(packets):
            for each in sockets:
                each.send(frame + number.to_bytes(4, "big"))

    def queued(self) -> Counter[int]:
        """Packets that each queue was given so far."""
        table = self.receiver.call(self.receiver.host.read, f"{NET}/netfilter/nfnetlink_queue") or ""
        return Counter({int(line.split()[0]): int(line.split()[7]) for line in table.splitlines()})


@pytest.fixture
def underlay() -> Iterator[Underlay]:
    if not {0, 1} <= os.sched_getaffinity(0):
        pytest.skip("the CPUs 0 and 1 are not both ours to use")
    host, name = Host(), net.own_name()
    with net.Namespace(f"{name}-left", host) as sender, net.Namespace(f"{name}-right", host) as receiver:
        yield Underlay(sender, receiver)


@pytest.mark.root
def test_flows_of_one_vtep_pair_land_in_two_queues_where_rps_spreads_them(underlay: Underlay) -> None:
    def status() -> Any:
        return json.loads(service.ask("status", "--json").out)

    with Service(underlay.receiver, settings="[queue]\nnumber = 40\ncount = 2\n") as service:
        alone = underlay.flows(8, 20)
        assert sorted(+underlay.queued()) == [40], "the queue of the sender's CPU, whatever the ports"
        found = status()
        assert (found["on"], found["listening"], found["queues"]) == (True, True, [40, 41])
        cure = "echo 3 > /sys/class/net/eth0/queues/rx-0/rps_cpus"
        assert found["spread"] == {"eth0": NOT_SPREAD + cure}
        assert found["notes"][-1] == NOT_SPREAD + cure
        assert NOT_SPREAD + cure in service.ask("on").out.splitlines()

        underlay.choose_cpus("3")
        spread_out = underlay.flows(8, 100)
        for _ in range(3):  # source ports are drawn anew: eight of them fall on one CPU once in 128 times
            if len(+underlay.queued()) > 1:
                break
            spread_out = underlay.flows(8, 100)
        assert set(+underlay.queued()) == {40, 41}
        for numbers in (*alone.values(), *spread_out.values()):
            assert numbers == list(range(len(numbers))), "in order within a flow"
        found = status()
        assert (found["spread"], found["notes"]) == ({"eth0": None}, [])
        assert found["rules"]["ipv4"]["packets"] == sum(each["id_sequence"] for each in found["listeners"])
        assert found["passed_unseen"] == 0
        assert "does not spread" not in service.ask("on").out
    assert service.counters["action"]["repair"] == service.counters["packets"] > 8 * 100


@pytest.mark.root
def test_a_real_namespace_and_not_the_machines(netns: Namespace) -> None:
    """Entered by setns alone, where /sys still shows the namespace one came from."""
    netns.run("ip", "link", "add", "fx0", "type", "veth", "peer", "name", "fx1")
    netns.run("sh", "-c", "echo 3 > /sys/class/net/fx0/queues/rx-0/rps_cpus")
    here = [Link("fx0", 1500, "veth"), Link("fx1", 1500, "veth")]
    found = netns.call(spread.obstacles, Host(), here, 2, {4})
    assert found["fx0"] is None
    assert found["fx1"].cure == "echo 3 > /sys/class/net/fx1/queues/rx-0/rps_cpus"
    assert not Host().exists("/sys/class/net/fx0"), "nothing of it is left mounted"
