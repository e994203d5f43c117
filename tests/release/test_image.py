"""The container image and deploy/: what the manifests ask for is enough to repair a path, and no rule outlives it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.made import (
    ROOT,
    SWARM,
    elf_files,
    elf_machine,
    has_our_rule,
    made,
    need,
    need_root,
    on_this_machine,
    run,
)

from fixer.host.machine import Host
from fixer.lab import traffic
from fixer.lab.net import End, Lab, Layout, Pump

yaml = pytest.importorskip("yaml", reason="no kubernetes-validate here: make test-image installs it")
kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="no kubernetes-validate here")

KUBERNETES = ROOT / "deploy" / "kubernetes"
VERSIONS = ("1.25", "1.31", "1.37")
READY_SECONDS = 20.0


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """A podman with storage of its own, which holds the image; the limits are those that a container may be given."""
    [image] = made("fixer-*-image-x86_64.tar.gz", "image")
    need_root()
    need("podman", "runc")
    room = tmp_path_factory.mktemp("podman")
    (room / "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n'
        '[engine]\ncgroup_manager = "cgroupfs"\nruntime = "runc"\n'
    )
    command = ["env", f"CONTAINERS_CONF={room}/containers.conf", "podman", "--storage-driver", "vfs"]
    command += ["--root", f"{room}/root", "--runroot", f"{room}/run"]
    (room / "image.tar").write_bytes(subprocess.run(["gunzip", "-c", image], capture_output=True, check=True).stdout)
    run(*command, "load", "-q", "-i", room / "image.tar")
    (room / "image.tar").unlink()
    yield command
    run(*command, "rm", "--all", "--force")


def image_of(podman: Sequence[str]) -> str:
    """Its name; beside it podman has made one for Pods."""
    names = run(*podman, "images", "--format", "{{.Repository}}:{{.Tag}}").split()
    return next(name for name in names if "/fixer:" in name)


def inside(end: End) -> list[str]:
    """What to begin each podman command with, so that the host's network is this one, for what is executed later too.

    (`ip netns exec` would hide the cgroups.)
    """
    return ["nsenter", f"--net=/run/netns/{end.name}"]


@contextmanager
def serving(podman: Sequence[str], end: End, start: Sequence[str]) -> Iterator[str]:
    """A container in ``end``'s network namespace, once ``fixer status`` in it says that all is in place; its name."""
    run(*inside(end), *podman, *start)
    name = run(*podman, "ps", "--latest", "--format", "{{.Names}}").strip()
    try:
        ready = [*inside(end), *podman, "exec", name, "fixer", "status"]
        give_up = time.monotonic() + READY_SECONDS
        while (said := subprocess.run(ready, capture_output=True, text=True, check=False)).returncode != 0:
            assert time.monotonic() < give_up, f"{said.returncode}: {said.stdout}\n{said.stderr}"
            time.sleep(0.5)
        yield name
    finally:
        run(*podman, "stop", "--time", "10", name)


@pytest.mark.timeout(200)
def test_with_net_admin_alone_and_a_root_that_is_read_only_it_repairs_and_leaves_no_rule(podman: list[str]) -> None:
    content = bytes(range(256)) * 2000
    start = ["run", "-d", "--network=host", "--cap-drop=all", "--cap-add=NET_ADMIN", "--read-only", "--tmpfs=/run"]
    start.append(image_of(podman))
    with Lab(Layout(), Pump(), Host()) as lab, traffic.serving(lab.right, content):
        assert traffic.connect(lab.left, lab.right.overlay4, traffic.HTTP_PORT) == "timed out"
        with serving(podman, lab.left, start), serving(podman, lab.right, start):
            page = traffic.download(lab.left, lab.right.overlay4)
            assert page.sha256 == hashlib.sha256(content).hexdigest()
            assert has_our_rule(lab.right)
        assert not any(map(has_our_rule, (lab.left, lab.right)))


@pytest.mark.parametrize(("machine", "name"), [("x86_64", "amd64"), ("aarch64", "arm64")])
def test_each_image_says_its_machine_has_programs_of_no_other_and_judges_a_capture(
    machine: str, name: str, tmp_path: Path
) -> None:
    [image] = made(f"fixer-*-image-{machine}.tar.gz", "image")
    need_root()  # for the owners of files, and devices
    run("tar", "-xzf", image, "-C", tmp_path)
    [manifest] = json.loads((tmp_path / "manifest.json").read_text())
    assert json.loads((tmp_path / manifest["Config"]).read_text())["architecture"] == name
    root = tmp_path / "root"
    root.mkdir()
    for layer in manifest["Layers"]:
        run("tar", "-xf", tmp_path / layer, "-C", root)
    assert {elf_machine(path) for path in elf_files(root)} == {machine}
    # What is emulated finds the image's own C library.
    said = run(*on_this_machine(root, root), root / "opt/fixer/bin/fixer", "scan", "--json", SWARM)
    assert '"repairable": 2' in said


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((KUBERNETES / "base" / name).read_text()))


def applied(overlay: str) -> dict[str, dict[str, Any]]:
    """What `kubectl apply -k` hands to the API, by its kind; without kubectl only the base, put together here."""
    if overlay != "base" or shutil.which("kubectl"):
        need("kubectl")
        parts = yaml.safe_load_all(run("kubectl", "kustomize", KUBERNETES / overlay))
    else:
        configuration = {"fixer.toml": (KUBERNETES / "base" / "fixer.toml").read_text()}
        config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "fixer"}, "data": configuration}
        parts = [*documents("namespace.yaml"), config_map, *documents("daemonset.yaml")]
    return {part["kind"]: part for part in parts}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["namespace.yaml", "daemonset.yaml"])
def test_the_manifests_are_what_kubernetes_takes(name: str, version: str) -> None:
    for document in documents(name):
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", ["base", "legacy"])
def test_what_is_applied_is_what_kubernetes_takes(overlay: str, version: str) -> None:
    parts = applied(overlay)
    assert set(parts) == {"Namespace", "ConfigMap", "DaemonSet"}
    for part in parts.values():
        kubernetes_validate.validate(part, version, strict=True)


def test_a_manifest_with_a_field_that_kubernetes_does_not_know_is_refused() -> None:
    [wrong] = documents("daemonset.yaml")
    wrong["spec"]["template"]["spec"]["hostNetwrok"] = True
    with pytest.raises(kubernetes_validate.ValidationError, match="hostNetwrok"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("overlay", ["base", "legacy"])
def test_the_daemonsets_pod_repairs_and_its_hooks_put_the_rule_there_and_take_it_away(
    overlay: str, podman: list[str], tmp_path: Path
) -> None:
    need("catatonit")  # what a Pod's first process is
    parts = applied(overlay)
    template = parts["DaemonSet"]["spec"]["template"]
    template["metadata"]["name"] = "fixer"
    [container] = template["spec"]["containers"]
    container["image"] = image_of(podman)
    # podman knows neither hooks nor selectors; the hooks' commands are run as kubelet would.
    on, off = (container["lifecycle"][hook]["exec"]["command"] for hook in ("postStart", "preStop"))
    ready = container["readinessProbe"]["exec"]["command"]
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    (tmp_path / "pod.yaml").write_text(yaml.safe_dump_all([parts["ConfigMap"], pod]))
    with Lab(Layout(), Pump(), Host()) as lab:
        podman = [*inside(lab.right), *podman]
        run(*podman, "kube", "play", tmp_path / "pod.yaml")
        try:
            run(*podman, "exec", "fixer-fixer", *on)
            run(*podman, "exec", "fixer-fixer", *ready)
            assert has_our_rule(lab.right)
            assert ("FIXER" in lab.right.run("iptables-legacy-save").out) == (overlay == "legacy")
            traffic.connect(lab.left, lab.right.overlay4, traffic.HTTP_PORT, seconds=0.5)
            time.sleep(2)  # the daemon's report is written once a second
            assert '"repair": 0' not in run(*podman, "exec", "fixer-fixer", "fixer", "status", "--json")
            run(*podman, "exec", "fixer-fixer", *off)
            assert not has_our_rule(lab.right)
        finally:
            run(*podman, "kube", "down", tmp_path / "pod.yaml")
