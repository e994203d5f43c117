"""``make guard``: each way of losing the rule, under a TCP connection over a broken wire; a table of what came of it.

Not collected with the rest, for it takes minutes.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.eventlog import EventLog
from support.talk import Talk, answering

from fixer.host.machine import Host
from fixer.lab import traffic
from fixer.lab.net import Lab, Layout, Namespace, Pump
from fixer.lab.service import Service

pytestmark = [pytest.mark.root, pytest.mark.timeout(1800)]

AT_MOST_SECONDS = 2.0  # on a machine with nothing else to do


class Way(NamedTuple):
    """``command`` loses the rule as ``kind`` says; {v} is the variant of iptables, {process} who did it."""

    command: str
    kind: str
    process: str | None


RAW = "iptables-{v} -t raw"
IPTABLES = {
    "raw flushed": Way(f"{RAW} -F", "gone", "iptables-{v}"),
    "a restore without ours": Way("printf '*raw\\nCOMMIT\\n' | iptables-{v}-restore", "gone", "iptables-{v}-res"),
    "a rule appended behind ours": Way(f"{RAW} -A PREROUTING -p udp --dport 1 -j DROP", "not last", "iptables-{v}"),
    "a jump appended behind ours": Way(f"{RAW} -N OTHERS; {RAW} -A PREROUTING -j OTHERS", "not last", "iptables-{v}"),
    "our jump deleted": Way(f"{RAW} -D PREROUTING -j FIXER", "gone", "iptables-{v}"),
    "our chain emptied": Way(f"{RAW} -F FIXER", "gone", "iptables-{v}"),
    "our rule changed": Way(f"{RAW} -R FIXER 1 -p udp -j NFQUEUE --queue-num 9", "changed", "iptables-{v}"),
    "a second jump to ours": Way(f"{RAW} -I PREROUTING -j FIXER", "twice", "iptables-{v}"),
}
OLD = "*raw\\n:FIXER - [0:0]\\n-A PREROUTING -j FIXER\\nCOMMIT\\n"
BY_VARIANT = {
    "nft": {
        "the ruleset flushed": Way("nft flush ruleset", "gone", "nft"),
        **IPTABLES,
        "iptables-legacy loads an old FIXER beside nft": Way(
            "printf '*raw\\n:FIXER - [0:0]\\n-A PREROUTING -j FIXER\\nCOMMIT\\n' | iptables-legacy-restore",
            "leftover",
            None,
        ),
    },
    "legacy": IPTABLES,
    "native": {
        "the ruleset flushed": Way("nft flush ruleset", "gone", "nft"),
        "our table deleted": Way("nft delete table ip fixer", "gone", "nft"),
        "our chain emptied": Way("nft flush chain ip fixer prerouting", "gone", "nft"),
        "a rule put before ours": Way("nft insert rule ip fixer prerouting accept", "changed", "nft"),
    },
}


class Site:
    """A lab with a broken wire, repaired on the right; and one connection that talks."""

    def __init__(self, lab: Lab, service: Service, on: tuple[str, ...]) -> None:
        self.right = lab.right
        self.talk = Talk(lab.left, lab.right.overlay4, traffic.ECHO_PORT)
        self.service = service
        self.event = EventLog(service).event
        self._on = on

    def begin(self, way: str) -> None:
        """Said again, so that the guard counts anew."""
        assert self.service.ask("on", *self._on, "--reason", way).status == 0
        self.event("rule-on")
        assert self.talk.goes_on(), (way, self.talk.failure)


@contextmanager
def site(variant: str, *more: str, underlay: int = 4) -> Iterator[Site]:
    on = ("--backend", "nft") if variant == "native" else ("--variant", variant)
    with (
        Lab(Layout(underlay=underlay, outer_checksum=underlay == 6), Pump(), Host()) as lab,
        Service(lab.left),
        Service(lab.right, on=(*on, *more)) as service,
        answering(lab.right, traffic.ECHO_PORT),
    ):
        here = Site(lab, service, (*on, *more))
        try:
            yield here
        finally:
            here.talk.end()


def seconds(event: dict[str, Any], since: float) -> float:
    return datetime.fromisoformat(event["@timestamp"]).timestamp() - since


def lose(here: Site, name: str, way: Way, variant: str) -> None:
    """One row of the table."""
    here.begin(name)
    answers, began = here.talk.said, time.time()
    done = here.right.run("sh", "-c", way.command.format(v=variant))
    assert done.status == 0, done.err
    lost = here.event("rule-lost")
    back = here.event("rule-put-back")
    kinds = lost["fixer"]["rule"]["lost"]
    assert set(kinds) == {way.kind}
    if way.process and variant != "legacy":
        assert lost["process"]["name"] == way.process.format(v=variant)[:15]
    assert here.talk.goes_on(), (name, here.talk.failure)
    status = here.service.ask("status")
    assert status.status == 0, status.out
    took = seconds(back, began)
    told(name, variant, seconds(lost, began), took, lost["message"])
    assert here.talk.said > answers
    assert took <= AT_MOST_SECONDS + load()


def load() -> float:
    """Seconds more that are allowed where so many processes wait for each CPU."""
    return max(os.getloadavg()[0] / (os.cpu_count() or 1) - 1, 0.0)


def told(name: str, variant: str, seen: float, back: float | None, message: str) -> None:
    again = "" if back is None else f"{back:.1f} s"
    print(f"| {name} | {variant} | {seen:.1f} s | {again} | `{message}` |", flush=True)


def needs(variant: str) -> None:
    host = Host()
    words = {
        "native": ["nft", "-f", "-"],
        "nft": ["iptables-nft", "-t", "raw", "-L"],
        "legacy": ["iptables-legacy", "-t", "raw", "-L"],
    }[variant]
    if host.which(words[0]) is None:
        pytest.skip(f"needs {words[0]}")
    trial = "table ip t { chain c { queue num 0 bypass; }; }\n"
    tried = host.run(["unshare", "-n", *words], input=trial if variant == "native" else None)
    if tried.status != 0:
        pytest.skip(f"this kernel lacks it: {tried.err.splitlines()[0]}")


@pytest.mark.kernels
@pytest.mark.parametrize("variant", BY_VARIANT)
def test_each_way_of_losing_the_rule(variant: str) -> None:
    needs(variant)
    with site(variant) as here:
        for name, way in BY_VARIANT[variant].items():
            if "legacy" in way.command:
                needs("legacy")
            lose(here, name, way, variant)


def test_ip6tables_alone_where_ipv6_carries_it() -> None:
    needs("nft")
    with site("nft", underlay=6) as here:
        lose(here, "ip6tables alone flushed", Way("ip6tables-nft -t raw -F", "gone", "ip6tables-nft"), "nft")


def test_an_interface_that_is_renamed_is_named_and_a_word_of_the_operator_mends_it() -> None:
    needs("nft")
    with site("nft", "--interface", "eth0") as here:
        began = time.time()
        here.right.configure("link set eth0 down", "link set eth0 name eth9", "link set eth9 up")
        lost = here.event("rule-lost")
        assert lost["fixer"]["rule"]["lost"] == ["no interface"]
        told("the interface renamed", "nft", seconds(lost, began), None, lost["message"])
        assert seconds(lost, began) <= AT_MOST_SECONDS + load()
        assert here.service.ask("status").status == 3
        assert here.service.ask("on", "--variant", "nft", "--interface", "eth9").status == 0
        assert here.talk.goes_on(), here.talk.failure
        assert here.service.ask("status").status == 0


@contextmanager
def dockerd(there: Namespace, room: Path) -> Iterator[list[str]]:
    """A real one in this network namespace, with a mount namespace and all directories of its own; how to ask it."""
    host = there.host
    if host.which("dockerd") is None or host.which("docker") is None:
        pytest.skip("needs dockerd (docker.io)")
    address = f"unix://{room}/socket"
    own = [f"--data-root={room}/data", f"--exec-root={room}/exec", f"--pidfile={room}/pid", f"--host={address}"]
    daemon = ["dockerd", *own, "--storage-driver=vfs", "--userland-proxy=false"]
    hidden = (
        'mount -t tmpfs tmpfs /run/containerd 2>/dev/null; mount -t tmpfs tmpfs /run/docker 2>/dev/null; exec "$@" 2>&1'
    )
    command = [*("setpriv", "--pdeathsig", "TERM", "nsenter", f"--net=/run/netns/{there.name}", "unshare", "--mount")]
    with (room / "log").open("w") as log:
        process = host.start([*command, "sh", "-c", hidden, "sh", *daemon], stdout=log)
        try:
            ask = ["docker", f"--host={address}"]
            deadline = time.monotonic() + 120
            while host.run([*ask, "version"]).status != 0:
                assert process.poll() is None, "dockerd did not start"
                assert time.monotonic() < deadline, "dockerd does not answer"
                time.sleep(0.5)
            yield ask
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def test_dockers_own_rules_are_no_loss_and_those_of_28_are_put_before_ours(tmp_path: Path) -> None:
    needs("nft")
    with site("nft") as here:
        here.begin("dockerd")
        with dockerd(here.right, tmp_path) as ask:
            assert here.right.host.run([*ask, "network", "create", "another"]).status == 0
            assert "DOCKER" in here.right.run("iptables-save").out
            time.sleep(AT_MOST_SECONDS)
            assert "rule-lost" not in [each["event"]["action"] for each in here.service.events()]
            assert here.talk.goes_on(), here.talk.failure
            print("| dockerd starts and makes a network | nft | – | – | nothing: no rule of ours is touched |")
            command = f"{RAW} -A PREROUTING -d 172.18.0.2/32 ! -i docker0 -j DROP"
            lose(here, "a DROP for a container, as Docker 28 appends", Way(command, "not last", "iptables-{v}"), "nft")
        assert here.talk.goes_on(), here.talk.failure
        assert here.service.ask("status").status == 0
