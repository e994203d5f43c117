"""The .deb on bare systems that boot, the .rpm in a root of its own: from nothing to a repaired path to nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.container import boot, overlaid
from support.made import NODE, bare_system, made, need, need_root, newer, run


@pytest.mark.timeout(500)
@pytest.mark.parametrize("suite", ["bullseye", "bookworm", "trixie", "xenial"])
def test_a_bare_system_installs_repairs_upgrades_and_is_left_as_it_was(suite: str, tmp_path: Path) -> None:
    [old] = made("fixer_*_amd64.deb", "bundle")
    need_root()
    need("systemd-nspawn")
    bare = bare_system(suite)
    new = newer("deb", tmp_path)
    with overlaid(bare, tmp_path) as root:
        files = {"node": NODE, "old.deb": old, "new.deb": new}
        status, said = boot(root, files, "node /root/old.deb /root/new.deb", seconds=400)
    print(said)
    assert status == 0
    assert said.rstrip().endswith("left as it was found")


def test_all_that_is_in_the_deb_has_one_time() -> None:
    """That of the commit: two builds differ in nothing."""
    [deb] = made("fixer_*_amd64.deb", "bundle")
    need("dpkg-deb")
    listed = run("sh", "-c", 'dpkg-deb --fsys-tarfile "$0" | tar -tv --full-time', deb).splitlines()
    assert len(listed) > 1000
    assert len({tuple(line.split()[3:5]) for line in listed}) == 1


def test_an_rpm_installs_upgrades_with_its_configuration_kept_and_leaves_nothing(tmp_path: Path) -> None:
    [old] = made("fixer-*.x86_64.rpm", "bundle")
    need_root()
    need("rpm")
    assert run("rpm", "-qp", "--recommends", old).split() == ["iptables", "iproute"]  # RHEL's name for it
    bare = bare_system("bookworm")
    new = newer("rpm", tmp_path)
    with overlaid(bare, tmp_path) as root:
        run("rpm", "--root", root, "--initdb")
        before = files_of(root)
        # --nodeps: the root's /bin/sh came from dpkg, which rpm does not know.
        said = run("rpm", "--root", root, "--nodeps", "-U", old)
        assert "systemctl enable --now fixer" in said
        assert run("chroot", root, "fixer", "--version").startswith("fixer ")
        assert run("rpm", "--root", root, "-V", "--nodeps", "fixer") == ""
        configuration = root / "etc/fixer/fixer.toml"
        configuration.write_text(configuration.read_text() + "# kept\n")
        run("rpm", "--root", root, "--nodeps", "-U", new)
        assert configuration.read_text().endswith("# kept\n")
        assert run("rpm", "--root", root, "-q", "fixer").startswith("fixer-99.0")
        # Without the machine's network: what is removed takes every rule of fixer's away.
        run("unshare", "--net", "rpm", "--root", root, "-e", "fixer")
        assert files_of(root) - before == {"/etc/fixer", "/etc/fixer/fixer.toml.rpmsave"}
        assert before - files_of(root) == set()


def files_of(root: Path) -> set[str]:
    """Everything below ``root``, but rpm's own books."""
    paths = (f"/{path.relative_to(root)}" for path in root.rglob("*"))
    return {path for path in paths if not path.startswith(("/var/lib/rpm", "/root"))}
