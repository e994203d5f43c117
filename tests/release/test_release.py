"""`make release` and tools/get: what is installed is what was released, or nothing is."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.container import boot, overlaid
from support.made import BUILD, DIST, NODE, ROOT, bare_system, made, need, need_root, newer, run

FIRST_REPAIR_SECONDS = 60


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("ssh-keygen")
    path = tmp_path_factory.mktemp("key") / "key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path)
    return path


@pytest.fixture(scope="module")
def release(key: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release of what is in dist, for this machine, signed with a key of ours."""
    made("fixer_*_amd64.deb", "bundle")
    made("fixer-*-image-x86_64.tar.gz", "image")
    dist = tmp_path_factory.mktemp("dist")
    for path in DIST.glob("fixer[-_]*"):
        if path.is_file():
            (dist / path.name).symlink_to(path)
    environment = os.environ | {"KEY": str(key), "DIST": str(dist), "BUILD": str(BUILD), "MACHINES": "x86_64"}
    run(ROOT / "packaging/release", env=environment)
    [directory] = (path for path in dist.iterdir() if path.is_dir())
    return directory


@pytest.fixture
def node(release: Path, tmp_path: Path) -> Iterator[Path]:
    """A bare system with the release in /release."""
    need_root()
    with overlaid(bare_system("bookworm"), tmp_path) as root:
        if not (root / "usr/bin/ssh-keygen").exists():
            pytest.skip("the bare bookworm has no ssh-keygen: remove it, and packaging/roots makes one with")
        shutil.copytree(release, root / "release")
        yield root


def get(root: Path, *options: str) -> tuple[int, str]:
    command = ["chroot", str(root), "/bin/sh", "/release/get", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def installed(root: Path) -> bool:
    return (root / "opt/fixer").exists() or (root / "usr/bin/fixer").exists()


def fingerprint(key: Path) -> str:
    return run("ssh-keygen", "-lf", key).split()[1]


def test_it_installs_this_hosts_package_and_says_the_next_command(node: Path, key: Path) -> None:
    status, said = get(node, "--signer", fingerprint(key))
    assert status == 0, said
    assert f"signed by {fingerprint(key)}" in said
    assert "fixer_0.1.0-1_amd64.deb" in said
    assert "next: fixer on; fixer run" in said  # no systemd runs in a chroot
    assert run("chroot", node, "fixer", "--version")


def test_the_archive_is_an_artifact_too(node: Path) -> None:
    status, said = get(node, "--kind", "tar")
    assert status == 0, said
    assert run("chroot", node, "/usr/local/bin/fixer", "--version")


def test_the_rpm_is_an_artifact_too_and_the_readmes_line_installs_it(release: Path, tmp_path: Path) -> None:
    """On an overlay of this machine, which has rpm; what it knows of other packages does not matter to ours."""
    need_root()
    need("rpm")
    lines = [line for line in readme()["RHEL and kin"] if not line.startswith("systemctl")]
    with overlaid(Path("/"), tmp_path) as root:
        shutil.copytree(release, root / "release")
        (root / "var/lib/rpm").mkdir(exist_ok=True)
        run("chroot", root, "rpm", "--initdb")
        run("chroot", root, "/bin/sh", "-ec", "\n".join(["cd /release", *lines]))
        assert run("chroot", root, "/usr/bin/fixer", "--version").startswith("fixer ")
        run("unshare", "--net", "chroot", root, "rpm", "-e", "fixer")  # it takes every rule of fixer's away
        assert not installed(root)
        status, said = get(root, "--kind", "rpm")
        assert status == 0, said
        assert "fixer-0.1.0-1.x86_64.rpm" in said
        assert run("chroot", root, "/usr/bin/fixer", "--version").startswith("fixer ")


def test_where_usr_is_read_only_the_archive_puts_the_command_beside_it(node: Path) -> None:
    """Flatcar."""
    run("mount", "--bind", node / "usr", node / "usr")
    try:
        run("mount", "-o", "remount,bind,ro", node / "usr")
        status, said = get(node, "--kind", "tar")
    finally:
        run("umount", node / "usr")
    assert status == 0, said
    assert "next: fixer on" in said
    assert run("chroot", node, "/opt/bin/fixer", "--version").startswith("fixer ")


def readme() -> dict[str, list[str]]:
    """The commands in the README's table of what to type, by what is to be installed on."""
    section = (ROOT / "README.md").read_text().partition("\n## On a node\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\w.*?) \| (.+) \|$", section, flags=re.MULTILINE)
    return {where: re.findall(r"(?:^|<br> )`([^`]+)`", lines) for where, lines in rows}


def test_the_readme_takes_three_lines_at_most_and_names_what_the_release_has(release: Path) -> None:
    said = readme()
    assert set(said) == {"whichever it is", "Debian, Ubuntu", "RHEL and kin", "Kubernetes", "Docker Swarm", "by hand"}
    assert all(1 <= len(lines) <= 3 for lines in said.values())
    words = [word for lines in said.values() for line in lines for word in line.split()]
    named = [word for word in words if re.match(r"fixer[-_][0-9]|deploy/", word)]
    assert len(named) == 7
    assert [one for one in named if not (release / one).exists() and not (release.parent / one).exists()] == []


@pytest.mark.parametrize("where", ["Debian, Ubuntu", "by hand"])
def test_the_readmes_lines_install_it(where: str, node: Path) -> None:
    lines = [line for line in readme()[where] if not line.startswith("systemctl")]  # no systemd runs in a chroot
    run("chroot", node, "/bin/sh", "-ec", "\n".join(["cd /release", *lines]))
    assert run("chroot", node, "fixer", "--version").startswith("fixer ")


def test_every_file_of_the_release_is_in_its_list_as_it_is(release: Path) -> None:
    run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=release)
    listed = {line.split(maxsplit=1)[1] for line in (release / "SHA256SUMS").read_text().splitlines()}
    files = {str(path.relative_to(release)) for path in release.rglob("*") if path.is_file()}
    assert files - listed == {"SHA256SUMS", "SHA256SUMS.sig", "signers"}


@pytest.fixture
def alpine(release: Path, tmp_path: Path) -> Path:
    """What a system without glibc looks like to the script: busybox and the release, nothing else."""
    need_root()
    need("busybox")
    for name in ("bin", "release", "dev"):
        (tmp_path / "root" / name).mkdir(parents=True)
    (tmp_path / "root" / "dev" / "null").touch()
    busybox = tmp_path / "root" / "bin" / "busybox"
    shutil.copy(shutil.which("busybox") or "", busybox)
    if subprocess.run(["chroot", tmp_path / "root", "/bin/busybox", "true"], check=False).returncode != 0:
        pytest.skip("this busybox needs libraries: apt-get install busybox-static")
    run("chroot", tmp_path / "root", "/bin/busybox", "--install", "-s", "/bin")
    for name in ("dpkg", "getconf", "rpm"):  # busybox has small ones of its own, which Alpine does without
        (tmp_path / "root" / "bin" / name).unlink(missing_ok=True)
    shutil.copytree(release, tmp_path / "root" / "release", dirs_exist_ok=True)
    return tmp_path / "root"


def test_a_host_without_glibc_is_told_what_it_needs_and_nothing_is_installed(alpine: Path) -> None:
    status, said = get(alpine, "--unsigned")
    assert status == 1
    assert "no glibc (Alpine?), and neither docker nor podman to run the container image" in said
    status, said = get(alpine, "--unsigned", "--kind", "tar")
    assert status == 1
    assert "no glibc (Alpine?): --kind image" in said
    assert not installed(alpine)


@pytest.fixture
def brief() -> Iterator[Path]:
    """A directory whose name is short: podman's --runroot may have 50 characters."""
    with tempfile.TemporaryDirectory(prefix="fx-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def test_the_image_is_loaded_and_the_next_command_runs_it(
    release: Path, key: Path, tmp_path: Path, brief: Path
) -> None:
    need_root()
    need("podman", "runc")
    podman = tmp_path / "bin" / "podman"
    podman.parent.mkdir()
    own = f"--storage-driver vfs --root {tmp_path}/root --runroot {brief}/run --runtime runc --cgroup-manager cgroupfs"
    podman.write_text(f'#!/bin/sh\nexec {shutil.which("podman")} {own} "$@"\n')
    podman.chmod(0o755)
    # No docker on this PATH, which else would be asked to load it.
    for name in ("id", "uname", "dirname", "getconf", "sed", "grep", "sha256sum", "gunzip", "gzip", "sh", "ssh-keygen"):
        (podman.parent / name).symlink_to(shutil.which(name) or "")
    command = ["/bin/sh", release / "get", "--kind", "image", "--signer", fingerprint(key)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": str(podman.parent)})
    assert done.returncode == 0, done.stderr
    assert "loaded localhost/fixer:0.1.0" in done.stderr
    [following] = re.findall(r"next: podman (run .*)$", done.stderr, flags=re.MULTILINE)
    following = following.replace("run -d", "run --rm").replace("--restart unless-stopped", "")
    limits = ["--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096"]
    said = run(
        "unshare", "--net", podman, *following.split()[:2], *limits, *following.split()[2:], "fixer", "--version"
    )
    assert said.startswith("fixer ")


@pytest.mark.parametrize("what", ["package", "list", "signer", "signature"])
def test_what_is_not_as_released_is_refused_and_nothing_is_installed(what: str, node: Path, key: Path) -> None:
    release = node / "release"
    options = ["--signer", fingerprint(key)]
    match what:
        case "package":
            [path] = release.glob("*_amd64.deb")
            damaged = bytearray(path.read_bytes())
            damaged[len(damaged) // 2] ^= 1
            path.write_bytes(damaged)
            why = "its checksum is another"
        case "list":
            with (release / "SHA256SUMS").open("a") as file:
                file.write("0" * 64 + "  another\n")
            why = "the signature is not that of the release"
        case "signer":
            options = ["--signer", "SHA256:somebody+else"]
            why = "not by SHA256:somebody+else"
        case _:
            (release / "SHA256SUMS.sig").unlink()
            why = "is not signed"
    status, said = get(node, *options)
    assert status == 1
    assert why in said.strip().splitlines()[-1]
    assert not installed(node)


@pytest.mark.timeout(400)
def test_from_a_release_directory_to_the_first_repair_takes_less_than_a_minute(
    release: Path, key: Path, tmp_path: Path
) -> None:
    need_root()
    need("systemd-nspawn")
    new = newer("deb", tmp_path)
    signer = tmp_path / "signer"
    signer.write_text(fingerprint(key))
    with overlaid(bare_system("bookworm"), tmp_path) as root:
        shutil.copytree(release, root / "root" / "release")
        files = {"node": NODE, "new.deb": new, "signer": signer}
        status, said = boot(root, files, "node /root/release /root/new.deb", seconds=300)
    print(said)
    assert status == 0
    steps = re.findall(r"^(\d+) s: ([a-z ]+)", said, flags=re.MULTILINE)
    at = {step: int(seconds) for seconds, step in steps}
    assert at["repaired"] - at["a bare system"] < FIRST_REPAIR_SECONDS


def test_the_bill_of_materials_names_what_the_tree_holds(release: Path) -> None:
    [file] = release.glob("*-linux-*.cdx.json")
    bill = json.loads(file.read_text())
    named = {component["name"]: component["version"] for component in bill["components"]}
    linked = {"libnetfilter-queue1", "libnfnetlink0", "libmnl0", "zlib1g-dev", "libffi8"}
    site = BUILD / "bundle-x86_64/opt/fixer/lib/python3.13/site-packages"
    packages = {path.name.split("-")[0].lower() for path in site.glob("*.dist-info")} - {"vxlan_fixer"}
    assert {name.replace("-", "_").lower() for name in set(named) - linked - {"CPython"}} == packages
    assert linked <= set(named)
    assert named["CPython"].startswith("3.13.")
    assert bill["metadata"]["component"]["name"] == "vxlan-fixer"


def test_the_bill_of_the_image_names_each_of_debians_packages_in_it_too(release: Path) -> None:
    [tree], [image] = (
        [{component["purl"] for component in json.loads(file.read_text())["components"]} for file in release.glob(glob)]
        for glob in ("*-linux-*.cdx.json", "*-image-*.cdx.json")
    )
    assert tree < image
    named = {found[1] for purl in image if (found := re.match(r"pkg:deb/debian/([^@]+)@", purl))}
    documents = run("tar", "-tf", BUILD / "image-x86_64.tar", "--wildcards", "./usr/share/doc/*/copyright").split()
    there = {path.split("/")[4] for path in documents}
    assert {"iptables", "nftables", "iproute2", "libc6"} <= there
    assert there <= named


@pytest.mark.parametrize("what", ["linux", "image"])
def test_the_bill_of_materials_is_what_cyclonedx_takes(what: str, release: Path) -> None:
    validation = pytest.importorskip("cyclonedx.validation.json", reason="no cyclonedx here: make test-release has it")
    schema = pytest.importorskip("cyclonedx.schema")
    judge = validation.JsonStrictValidator(schema.SchemaVersion.V1_5)
    [file] = release.glob(f"*-{what}-*.cdx.json")
    assert judge.validate_str(file.read_text()) is None
    wrong = json.loads(file.read_text())
    wrong["components"][0]["licences"] = wrong["components"][0].pop("version")
    assert judge.validate_str(json.dumps(wrong)) is not None


def contents(directory: Path) -> dict[str, str]:
    """The SHA-256 of every file below ``directory`` but signatures: only some kinds of keys sign alike each time."""
    files = (path for path in directory.rglob("*") if path.is_file() and path.suffix != ".sig")
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_two_builds_are_the_same_to_the_byte() -> None:
    again = ROOT / "build" / "again" / "dist"
    stamps = [[path.stat().st_mtime for path in dist.glob("fixer-*/SHA256SUMS")] for dist in (DIST, again)]
    if [] in stamps or stamps[0] != stamps[1]:  # they have the time of the commit
        pytest.skip("there is no second build of this commit: make test-reproducible")
    first, second = contents(DIST), contents(again)
    assert set(second) <= set(first)
    assert [name for name, checksum in second.items() if checksum != first[name]] == []
