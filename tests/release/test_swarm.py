"""A Docker Swarm of two nodes over a wire that finishes no inner checksum, and deploy/swarm, which carries it."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from support.docker import Engine, engine
from support.made import ROOT, has_our_rule, made, need, need_root, run

from fixer.host.machine import Host
from fixer.lab.net import End, Lab, Layout, Namespace, Pump
from fixer.lab.pump import Fault, Finish

pytestmark = pytest.mark.long
STACK = ROOT / "deploy" / "swarm"
VXLAN_PORT = "4789"
WEB = ("timeout", "3", "wget", "-q", "-O", "-", "http://web:8080/page")  # (-T makes Debian 12's busybox crash)
APPLETS = ("httpd", "ping", "sh", "sleep", "timeout", "wget")


class MobysWire:
    """The NIC computes what it finds left to it in the underlay's header, and does not look into the tunnel."""

    @contextmanager
    def join(self, namespace: Namespace, port: int) -> Iterator[None]:
        with Pump(Fault(Finish.OUTER)).join(namespace, int(VXLAN_PORT)):
            yield


def lay_underlay(end: End) -> None:
    """The report's addresses; and the kernel finishes what is no VXLAN, as a NIC does that knows plain TCP and UDP."""
    end.configure("address flush dev eth0", f"address add {end.underlay}/24 dev eth0")
    for match in (("tcp",), ("udp", "!", "--dport", VXLAN_PORT)):
        fill = ("-j", "CHECKSUM", "--checksum-fill")
        done = end.run("iptables", "-t", "mangle", "-A", "POSTROUTING", "-o", "eth0", "-p", *match, *fill)
        if done.status != 0:
            pytest.skip(f"no CHECKSUM target in this kernel: {done.err.strip()}")


class Node:
    """A host of the laboratory with its engine; what is typed there goes into the transcript with its answer."""

    def __init__(self, end: End, docker: Engine) -> None:
        self.end = end
        self.docker = docker

    def types(self, *words: str, shown: str = "", lines: int | None = None) -> None:
        """``shown`` is what to show instead, ``lines`` how many lines of the answer."""
        said = self.docker(*words, cwd=ROOT).splitlines()[:lines]
        print("\n".join([f"{self.docker.hostname}# {shown or 'docker ' + ' '.join(words)}", *said]))

    def container(self, service: str) -> str:
        """The id of the service's container that runs here, or ''."""
        return self.docker("ps", "-q", "-f", f"label=com.docker.swarm.service.name={service}")

    def status(self) -> subprocess.CompletedProcess[str]:
        """What `fixer status` says in the container here; if there is none, what docker says to that."""
        return self.docker.tries("exec", self.container("fixer_fixer") or "none", "fixer", "status")

    def is_ready(self) -> bool:
        return self.status().returncode == 0

    def load(self, archive: Path) -> None:
        self.types("load", "-i", str(archive), shown=f"docker load -i {archive.name}")

    def asks_for_the_page(self) -> tuple[int, float]:
        """The exit status of the service's client here, and how many seconds it took; what it got must be the page."""
        shell = self.container("shell")
        started = time.monotonic()
        done = self.docker.tries("exec", shell, *WEB)
        seconds = time.monotonic() - started
        print(f"{self.docker.hostname}# docker exec $shell {' '.join(WEB)}")
        print(done.stdout.strip() or f"[exit status {done.returncode} after {seconds:.1f} s]")
        assert done.returncode != 0 or done.stdout == "hello from web\n"
        return done.returncode, seconds


def within(seconds: float, holds: Callable[[], object], why: Callable[[], object] = str) -> None:
    """Wait until it ``holds``; ``why`` says what there was instead."""
    give_up = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up, why()
        time.sleep(0.3)


def busybox(docker: Engine, room: Path) -> None:
    """A container image of one program, as Debian's busybox-static has it."""
    directory = room / "busybox" / "bin"
    directory.mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", directory / "busybox")
    for applet in APPLETS:
        (directory / applet).symlink_to("busybox")
    run("tar", "-C", room / "busybox", "-cf", room / "busybox.tar", "bin")
    docker("import", str(room / "busybox.tar"), "busybox")
    shutil.rmtree(room / "busybox")


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """Two nodes that have joined; skipped by its name where dockerd does not start."""
    need_root()
    need("dockerd", "docker", "containerd", "runc", "busybox", "unshare", "nsenter")
    if "dynamic" not in subprocess.run(["ldd", "/bin/busybox"], capture_output=True, text=True, check=False).stderr:
        pytest.skip("this busybox needs libraries: apt-get install busybox-static")
    with Lab(Layout(tunnel=False), MobysWire(), Host()) as lab, ExitStack() as until:
        nodes = []
        for end in (lab.left, lab.right):
            lay_underlay(end)
            try:
                name = end.name.rpartition("-")[2]
                docker = until.enter_context(engine(end, name, tmp_path / name))
            except RuntimeError as error:
                pytest.skip(f"dockerd does not start here: {error}")
            busybox(docker, tmp_path)
            nodes.append(Node(end, docker))
        left, right = nodes
        left.types("swarm", "init", "--advertise-addr", left.end.underlay, lines=1)
        token = left.docker("swarm", "join-token", "-q", "worker")
        join = ("swarm", "join", "--token", token, f"{left.end.underlay}:2377")
        right.types(*join, shown=f"docker {' '.join(join).replace(token, '…')}")
        yield left, right


@pytest.mark.timeout(500)
def test_http_between_two_nodes_times_out_until_the_stack_is_deployed(swarm: tuple[Node, Node]) -> None:
    [image] = made("fixer-*-image-x86_64.tar.gz", "image")
    left, right = swarm
    for node in swarm:
        node.load(image)
    left.types("node", "ls", "--format", "table {{.Hostname}}\t{{.Status}}\t{{.ManagerStatus}}\t{{.EngineVersion}}")
    left.types("network", "create", "--driver", "overlay", "over", lines=0)
    create = ("service", "create", "-d", "--no-resolve-image", "--network", "over", "--endpoint-mode", "dnsrr")
    serve = "echo hello from web >/page; exec httpd -f -p 8080 -h /"
    left.types(*create, "--name", "web", "--constraint", "node.hostname==right", "busybox", "sh", "-c", serve, lines=0)
    left.types(*create, "--name", "shell", "--constraint", "node.hostname==left", "busybox", "sleep", "1d", lines=0)
    within(60, lambda: left.container("shell") and right.container("web"))
    shell = left.container("shell")
    within(20, lambda: left.docker.tries("exec", shell, "ping", "-c1", "-W1", "web").returncode == 0)
    left.types("exec", shell, "ping", "-c1", "web", shown="docker exec $shell ping -c1 web")
    status, seconds = left.asks_for_the_page()
    assert status != 0
    assert seconds > 2.5

    left.types("stack", "deploy", "-c", "deploy/swarm/fixer.yaml", "fixer")
    time.sleep(3)
    assert not left.container("fixer_fixer"), "it runs on a node that has not the label"
    for node in swarm:
        left.types("node", "update", "--label-add", "fixer.rule=on", node.docker.hostname, lines=0)
    for node in swarm:
        within(180, node.is_ready, lambda: (left.docker("service", "ps", "--no-trunc", "fixer_fixer"), node.status()))  # noqa: B023
    assert all(has_our_rule(node.end) for node in swarm)
    status, seconds = left.asks_for_the_page()
    assert status == 0
    print(f"[{seconds * 1000:.0f} ms, docker exec and all]")
    print(f"right# docker exec $fixer fixer status\n{right.status().stdout}")
    log = right.docker("logs", right.container("fixer_fixer"))
    assert re.search(r'"vni":\s*4097', log), log[-1500:]

    left.types("node", "update", "--label-rm", "fixer.rule", "right", lines=0)
    within(40, lambda: not right.container("fixer_fixer"))
    assert not has_our_rule(right.end)
    assert has_our_rule(left.end)
    left.types("stack", "rm", "fixer")
    within(40, lambda: not left.container("fixer_fixer"))
    assert not has_our_rule(left.end)
    status, _ = left.asks_for_the_page()
    assert status != 0


def test_the_legacy_overlay_adds_what_iptables_legacy_needs() -> None:
    need("docker")
    yaml = pytest.importorskip("yaml", reason="no yaml here: make test-swarm installs it")
    files = ("-c", STACK / "fixer.yaml", "-c", STACK / "legacy.yaml")
    done = subprocess.run(["docker", "stack", "config", *files], capture_output=True, text=True, check=False)
    if "unknown" in done.stderr or "is not a docker command" in done.stderr:
        pytest.skip("this docker cannot show what a stack's files add up to")
    assert done.returncode == 0, done.stderr
    service = yaml.safe_load(done.stdout)["services"]["fixer"]
    assert sorted(service["cap_add"]) == ["NET_ADMIN", "NET_RAW"]
    assert {volume["target"] for volume in service["volumes"]} == {"/run", "/run/xtables.lock"}
