"""``fixer cure``: who keeps it, the file of each, done once, undone, and what is lost again is seen."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.fakenode import FakeNode

from fixer import cli
from fixer.cure import apply, record
from fixer.cure.plan import File, Plan, Setting, cost
from fixer.errors import CommandWrong, NotPermitted, SystemRefused
from fixer.host import machine as host_module
from fixer.host.machine import Completed

ETH0 = Setting("eth0", ("tx-checksum-ip-generic",))
OK = Completed(0, "", "")


class Node(FakeNode):
    """A node whose ethtool remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.state: dict[str, dict[str, str]] = {}
        self.answers["ethtool"] = self._ask

    def nic(self, name: str = "eth0", driver: str = "virtio_net", *rest: object, **features: str) -> Node:
        super().nic(name, driver, *rest, **features)  # type: ignore[arg-type]
        return self._own(
            name, {"rx-checksumming": "on", "tx-checksum-ip-generic": "on", "tx-udp_tnl-segmentation": "on"}
        )

    def tunnel(self, name: str = "flannel.1", *rest: object, **data: object) -> Node:
        super().tunnel(name, *rest, **data)  # type: ignore[arg-type]
        return self._own(name, {"tx-checksum-ip-generic": "on"})

    def _own(self, name: str, features: dict[str, str]) -> Node:
        self.state[name] = features
        del self.answers[f"ethtool -k {name}"]
        return self

    def _ask(self, argv: Sequence[str], _: str | None) -> Completed:
        option, device, *words = argv[1:]
        if option == "-k":
            return Completed(0, "".join(f"{name}: {state}\n" for name, state in self.state.get(device, {}).items()), "")
        if option == "-K":
            self.state[device] |= dict(zip(words[::2], words[1::2], strict=True))
            return OK
        return Completed(0, "Permanent address: 52:54:00:12:34:56\n", "") if option == "-P" else OK


def ifupdown() -> Node:
    host = Node().nic()
    host.answers["ifup"] = OK
    host.files["/etc/network/interfaces"] = "source /etc/network/interfaces.d/*\nauto eth0\niface eth0 inet dhcp\n"
    return host


def network_manager(value: str = "") -> Node:
    """One profile, whose property nmcli changes."""
    host = Node().nic()
    profile = {"ethtool.feature-tx-checksum-ip-generic": value}

    def nmcli(argv: Sequence[str], _: str | None) -> Completed:
        if argv[1] == "-t":
            file = r"/etc/NetworkManager/system-connections/a\:b.nmconnection"
            return Completed(0, f"lo:0-0:x\neth0:1234-5678:{file}\n", "")
        if argv[1] == "-g":
            return Completed(0, f"{profile.get(argv[2], '')}\n", "")
        profile[argv[4]] = "" if argv[5] == "ignore" else argv[5]
        return OK

    host.answers["nmcli"] = nmcli
    return host


def netplan() -> Node:
    host = Node().nic()
    host.answers["netplan"] = OK
    host.files["/run/systemd/network/10-netplan-uplink.network"] = "[Match]\nName=eth0\n[Network]\nDHCP=yes\n"
    host.files["/etc/netplan/50-cloud-init.yaml"] = "network: {}\n"
    return host


def ifcfg(options: str = "") -> Node:
    host = Node().nic()
    host.files["/etc/sysconfig/network-scripts/ifcfg-eth0"] = f"DEVICE=eth0\nONBOOT=yes\n{options}NM_CONTROLLED=no\n"
    return host


def networkd() -> Node:
    host = Node().nic()
    host.answers |= {
        "systemctl": Completed(0, "systemd 252 (252.39-1~deb12u2)\n", ""),
        "udevadm": Completed(0, "INTERFACE=eth0\nID_NET_LINK_FILE=/usr/lib/systemd/network/99-default.link\n", ""),
    }
    host.files |= {
        "/run/udev/control": "",
        "/sys/class/net/eth0/device": "",
        "/usr/lib/systemd/network/99-default.link": "# GPL\n[Match]\nOriginalName=*\n\n[Link]\nNamePolicy=keep kernel\n"
        "# no\nMACAddressPolicy=persistent\n",
    }
    return host


def udev() -> Node:
    host = Node().nic().tunnel()
    host.answers["udevadm"] = OK
    host.files["/run/udev/control"] = ""
    return host


KEYS = {ifupdown: "ifupdown", networkd: "networkd", udev: "udev", netplan: "netplan"}
FLANNEL = Setting("flannel.1", ("tx-checksum-ip-generic",))
EVERY = {
    "NetworkManager": (network_manager, ETH0),
    "netplan": (netplan, ETH0),
    "ifupdown": (ifupdown, ETH0),
    "ifcfg": (ifcfg, ETH0),
    "systemd-udevd (.link)": (networkd, ETH0),
    "udev": (udev, FLANNEL),
}


# Who is in charge, and the file


@pytest.mark.parametrize(("name", "made", "setting"), [(name, *rest) for name, rest in EVERY.items()], ids=EVERY)
def test_who_is_in_charge(name: str, made: type[Node], setting: Setting) -> None:
    plan = apply.plan(made(), setting)
    assert plan.keeper == name
    assert plan.why
    assert not plan.is_by_hand


def text_of(host: Node, setting: Setting = ETH0) -> File:
    (file,) = apply.plan(host, setting).files
    return file


def test_the_file_of_ifupdown() -> None:
    file = text_of(ifupdown())
    assert (file.path, file.mode) == ("/etc/network/if-up.d/fixer-eth0", 0o755)
    assert file.text.splitlines()[2:] == [
        "[ \"$IFACE\" = 'eth0' ] || exit 0",
        "exec /sbin/ethtool -K eth0 tx-checksum-ip-generic off",
    ]


def test_the_file_of_netplan_has_the_name_of_the_definition_and_cloud_init_is_spoken_of() -> None:
    file = text_of(netplan())
    assert (file.path, file.mode) == ("/etc/netplan/90-fixer-eth0.yaml", 0o600)
    assert "    uplink:\n      transmit-checksum-offload: false\n" in file.text
    assert any("cloud-init" in note for note in apply.plan(netplan(), ETH0).notes)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", 'ETHTOOL_OPTS="-K ${DEVICE} tx-checksum-ip-generic off"'),
        (
            'ETHTOOL_OPTS="speed 1000 duplex full"\n',
            'ETHTOOL_OPTS="speed 1000 duplex full; -K ${DEVICE} tx-checksum-ip-generic off"',
        ),
        (
            "ETHTOOL_OPTS='-K ${DEVICE} gro off'\n",
            'ETHTOOL_OPTS="-K ${DEVICE} gro off; -K ${DEVICE} tx-checksum-ip-generic off"',
        ),
        (
            'ETHTOOL_OPTS="speed 1000"   # the switch is old\n',
            'ETHTOOL_OPTS="speed 1000; -K ${DEVICE} tx-checksum-ip-generic off"   # the switch is old',
        ),
        ("ETHTOOL_OPTS=\n", 'ETHTOOL_OPTS="-K ${DEVICE} tx-checksum-ip-generic off"'),
        ("  export ETHTOOL_OPTS=wol\n", '  export ETHTOOL_OPTS="wol; -K ${DEVICE} tx-checksum-ip-generic off"'),
    ],
)
def test_the_line_of_ifcfg_keeps_what_was_there(before: str, after: str) -> None:
    lines = text_of(ifcfg(before)).text.splitlines()
    assert [line for line in lines if "ETHTOOL" in line] == [after]
    assert {"DEVICE=eth0", "ONBOOT=yes", "NM_CONTROLLED=no"} < set(lines)


def test_the_last_line_of_ifcfg_counts_and_one_that_is_not_understood_is_left() -> None:
    text = text_of(ifcfg("ETHTOOL_OPTS=a\n#ETHTOOL_OPTS=b\nETHTOOL_OPTS='c'\n")).text
    assert text.splitlines()[2:5] == [
        "ETHTOOL_OPTS=a",
        "#ETHTOOL_OPTS=b",
        'ETHTOOL_OPTS="c; -K ${DEVICE} tx-checksum-ip-generic off"',
    ]
    plan = apply.plan(ifcfg('ETHTOOL_OPTS="$A" ; [ -e x ]\n'), ETH0)
    assert plan.is_by_hand
    assert "ETHTOOL_OPTS" in plan.by_hand[0]


def test_every_other_byte_of_ifcfg_stays() -> None:
    host = ifcfg()
    path = "/etc/sysconfig/network-scripts/ifcfg-eth0"
    host.files[path] = before = 'DEVICE=eth0\r\n# caf\udce9\r\nETHTOOL_OPTS="wol g"\r\nONBOOT=yes\r\n'
    apply.apply(host, ETH0)
    ours = 'ETHTOOL_OPTS="wol g; -K ${DEVICE} tx-checksum-ip-generic off"\r'
    assert str(host.files[path]).split("\n") == ["DEVICE=eth0\r", "# caf\udce9\r", ours, "ONBOOT=yes\r", ""]
    assert apply.check(host, ETH0).holds
    entry = record.load(host, "eth0")
    assert entry is not None
    apply.undo(host, entry)
    assert host.files[path] == before


def test_the_link_file_takes_over_what_the_applied_one_says() -> None:
    file = text_of(networkd())
    assert file.path == "/etc/systemd/network/05-fixer-eth0.link"
    assert file.text.splitlines()[1:] == [
        "[Match]",
        "PermanentMACAddress=52:54:00:12:34:56",
        "",
        "[Link]",
        "NamePolicy=keep kernel",
        "MACAddressPolicy=persistent",
        "TransmitChecksumOffload=no",
    ]


def test_an_older_systemd_or_another_feature_has_udevs_rule() -> None:
    host = networkd()
    host.answers["systemctl"] = Completed(0, "systemd 239 (239-82.el8)\n", "")
    assert apply.plan(host, ETH0).keeper == "udev"
    host = networkd()
    assert apply.plan(host, Setting("eth0", ("tx-udp_tnl-segmentation",))).keeper == "udev"


def test_the_rule_of_udev_is_that_of_flannels_manual() -> None:
    file = text_of(udev(), FLANNEL)
    assert file.path == "/etc/udev/rules.d/90-fixer-flannel.1.rules"
    assert file.text.splitlines()[1] == (
        'SUBSYSTEM=="net", ACTION=="add|change|move", ENV{INTERFACE}=="flannel.1", '
        'RUN+="/usr/sbin/ethtool -K flannel.1 tx-checksum-ip-generic off"'
    )


def test_networkmanager_comes_before_the_files_it_may_have_been_made_from() -> None:
    host = network_manager()
    host.files |= ifcfg().files | netplan().files
    assert apply.plan(host, ETH0).keeper == "NetworkManager"


def test_talos_and_felix_keep_it_elsewhere() -> None:
    host = networkd()
    host.files["/etc/os-release"] = 'NAME="Talos"\nID=talos\n'
    plan = apply.plan(host, ETH0)
    assert (plan.keeper, plan.is_by_hand) == ("Talos", True)
    assert plan.by_hand[1:6] == (
        "apiVersion: v1alpha1",
        "kind: EthernetConfig",
        "name: eth0",
        "features:",
        "  tx-checksum-ip-generic: false",
    )
    calico = Setting("vxlan.calico", ("tx-checksum-ip-generic",))
    plan = apply.plan(udev(), calico)
    assert plan.keeper == "Felix"
    assert "ChecksumOffloadBroken=true" in plan.by_hand[0]
    assert any("kubespray" in note for note in plan.notes)
    host = udev()
    host.files["/var/lib/rancher/rke2"] = ""
    assert "HelmChartConfig" in " ".join(apply.plan(host, calico).by_hand)
    assert apply.plan(udev(), calico, "udev").keeper == "udev"


def test_nobody_known() -> None:
    plan = apply.plan(Node().nic(), ETH0)
    assert plan.is_by_hand
    assert "ethtool -K eth0 tx-checksum-ip-generic off" in plan.by_hand[0]
    with pytest.raises(SystemRefused, match="netplan is not in charge of eth0"):
        apply.plan(Node().nic(), ETH0, "netplan")


def test_the_cost() -> None:
    assert cost(FLANNEL, "tunnel").startswith("Costs TSO inside this tunnel")
    assert "inside tunnels and outside" in cost(ETH0, "nic")
    assert "Outside of them it keeps TSO" in cost(Setting("eth0", ("tx-udp_tnl-segmentation",)), "nic")


# Done, done again, lost, undone


@pytest.mark.parametrize(("made", "setting"), EVERY.values(), ids=EVERY)
def test_done_twice_is_done_once_and_undone_is_as_before(made: type[Node], setting: Setting) -> None:
    host = made()
    before, state = dict(host.files), dict(host.state[setting.device])
    held = apply.apply(host, setting)
    assert held.holds
    assert held.states == {"tx-checksum-ip-generic": "off"}
    after = dict(host.files)
    assert apply.apply(host, setting).holds
    assert host.files == after
    entry = record.load(host, setting.device)
    assert entry is not None
    apply.undo(host, entry)
    assert host.files == before
    assert host.state[setting.device] == state
    assert not apply.check(host, setting).holds


@pytest.mark.parametrize(("made", "setting"), EVERY.values(), ids=EVERY)
def test_what_is_lost_is_seen(made: type[Node], setting: Setting) -> None:
    host = made()
    apply.apply(host, setting)
    host.state[setting.device]["tx-checksum-ip-generic"] = "on"
    held = apply.check(host, setting)
    assert (held.drifted, held.unkept, held.exit_code) == (["tx-checksum-ip-generic"], [], 3)
    apply.apply(host, setting)
    entry = record.load(host, setting.device)
    assert entry is not None
    for path, text in entry.before.items():
        if text is None:
            del host.files[path]
        else:
            host.files[path] = text
    for command in held.plan.commands:
        host.run(command.undo)
    held = apply.check(host, setting)
    assert held.drifted == []
    assert len(held.unkept) == 1
    assert apply.apply(host, setting).holds


def test_a_profile_that_had_a_word_for_it_gets_it_back() -> None:
    host = network_manager("on")
    apply.apply(host, ETH0)
    entry = record.load(host, "eth0")
    assert entry is not None
    apply.undo(host, entry)
    assert host.run(entry.plan.commands[0].ask).out == "on\n"


def test_a_file_that_somebody_has_changed_since_is_not_overwritten() -> None:
    host = ifcfg()
    apply.apply(host, ETH0)
    path = "/etc/sysconfig/network-scripts/ifcfg-eth0"
    host.files[path] = f"{host.files[path]}MTU=9000\n"
    entry = record.load(host, "eth0")
    assert entry is not None
    with pytest.raises(SystemRefused, match="was changed since"):
        apply.undo(host, entry)
    assert "MTU=9000" in str(host.files[path])
    assert record.load(host, "eth0") is not None


@pytest.mark.parametrize("fails", ["netplan generate", "ethtool -K eth0 tx-checksum-ip-generic off"])
def test_what_a_configurator_refuses_leaves_all_as_it_was(fails: str) -> None:
    host = netplan()
    before = dict(host.files)
    host.answers[fails] = Completed(1, "", "Error in network definition: unknown key 'transmit-checksum-offload'")
    with pytest.raises(SystemRefused, match=r"Error in network definition: .*; eth0 is as it was before"):
        apply.apply(host, ETH0)
    assert host.files == before
    assert host.state["eth0"]["tx-checksum-ip-generic"] == "on"


def test_a_file_that_somebody_has_changed_since_is_not_written_over_by_a_second_apply() -> None:
    host = udev()
    (file,) = apply.apply(host, FLANNEL).plan.files
    host.files[file.path] = theirs = file.text.replace("flannel.1", "flannel.2")
    with pytest.raises(SystemRefused, match="was changed since"):
        apply.apply(host, FLANNEL)
    with pytest.raises(SystemRefused, match="was changed since"):
        apply.apply(host, Setting("flannel.1", ("tx-other",)))
    assert host.files[file.path] == theirs
    host = ifcfg()
    (file,) = apply.apply(host, ETH0).plan.files
    host.files[file.path] = theirs = "DEVICE=eth0\nMTU=9000\n"
    with pytest.raises(SystemRefused, match="was changed since"):
        apply.apply(host, ETH0)
    assert host.files[file.path] == theirs


def test_a_line_in_somebody_elses_file_counts_and_not_what_else_stands_there() -> None:
    host = ifcfg()
    (file,) = apply.apply(host, ETH0).plan.files
    host.files[file.path] = theirs = f"{file.text}MTU=9000\n"
    assert apply.check(host, ETH0).holds
    host.state["eth0"]["tx-checksum-ip-generic"] = "on"
    assert apply.apply(host, ETH0).holds
    assert host.files[file.path] == theirs
    host.files[file.path] = file.text.replace("ETHTOOL_OPTS", "# ETHTOOL_OPTS")
    assert not apply.check(host, ETH0).holds


@pytest.mark.parametrize(("made", "setting"), EVERY.values(), ids=EVERY)
def test_a_second_apply_that_fails_leaves_the_first_one(made: Callable[[], Node], setting: Setting) -> None:
    host = made()
    apply.apply(host, setting)
    after = dict(host.files)
    command = f"ethtool -K {setting.device} tx-checksum-ip-generic off"
    host.answers[command] = Completed(1, "", "Device or resource busy")
    with pytest.raises(SystemRefused, match=r"busy; .* is as it was before"):
        apply.apply(host, setting)
    assert host.files == after
    assert apply.check(host, setting).holds
    entry = record.load(host, setting.device)
    assert entry is not None
    assert entry.was == {"tx-checksum-ip-generic": "on"}


@pytest.mark.parametrize(("made", "setting"), EVERY.values(), ids=EVERY)
def test_another_setting_that_fails_leaves_the_first_one(made: Callable[[], Node], setting: Setting) -> None:
    host = made()
    host.state[setting.device]["tx-gso"] = "on"
    apply.apply(host, setting)
    after, state = dict(host.files), dict(host.state[setting.device])
    answers = dict(host.answers)
    host.answers[f"ethtool -K {setting.device} tx-gso off"] = Completed(1, "", "Device or resource busy")
    with pytest.raises(SystemRefused, match="is as it was before"):
        apply.apply(host, Setting(setting.device, ("tx-gso",)), "udev" if "udevadm" in answers else None)
    assert host.files == after
    assert host.state[setting.device] == state
    assert apply.check(host, setting).holds


def test_a_keeper_that_is_not_in_charge_is_refused_before_anything_is_undone() -> None:
    host = ifupdown()
    apply.apply(host, ETH0)
    after = dict(host.files)
    host.ran.clear()
    with pytest.raises(SystemRefused, match="netplan is not in charge"):
        apply.apply(host, ETH0, "netplan")
    assert host.files == after
    assert not [line for line in host.ran if " -K " in line]


def test_what_could_not_be_put_back_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    host = ifupdown()
    host.answers["ethtool -K eth0 tx-checksum-ip-generic off"] = Completed(1, "", "no")

    def remove(path: str) -> None:
        raise SystemRefused(f"{path} cannot be removed: Read-only file system")

    monkeypatch.setattr(host, "remove", remove)
    with pytest.raises(SystemRefused, match=r"could not be put back: /etc/network/if-up\.d/fixer-eth0"):
        apply.apply(host, ETH0)


def test_a_device_that_is_gone_is_not_said_to_be_cured() -> None:
    host = udev()
    apply.apply(host, FLANNEL)
    host.state.pop("flannel.1")
    held = apply.check(host, FLANNEL)
    assert (held.unread, held.drifted, held.unkept) == (["tx-checksum-ip-generic"], [], [])
    assert (held.holds, held.exit_code) == (False, 3)


@pytest.mark.parametrize("name", ["$(reboot)", "a'b", "x;id", "-K", "caf\u00e9", 'e"0', ".."])
def test_a_name_that_would_act_in_a_file_is_refused(name: str) -> None:
    with pytest.raises(CommandWrong, match="letters, digits"):
        apply.plan(ifupdown(), Setting(name, ("tx-checksum-ip-generic",)))


@pytest.mark.parametrize("made", [ifupdown, networkd, udev, netplan])
def test_no_two_devices_share_a_file(made: Callable[[], Node]) -> None:
    paths = set()
    for name in ("eth0.1", "eth0_1", "eth0-1", "eth0@1"):
        host = made().nic(name)
        for path in ("/etc/network/interfaces", "/run/systemd/network/10-netplan-uplink.network"):
            if path in host.files:
                host.files[path] = f"{host.files[path]}".replace("eth0", name)
        (file,) = apply.plan(host, Setting(name, ("tx-checksum-ip-generic",)), KEYS[made]).files
        paths.add(file.path)
        if made is ifupdown:
            assert re.fullmatch(r"/etc/network/if-up\.d/[A-Za-z0-9_-]+", file.path), "run-parts(8)"
    assert len(paths) == 4


@pytest.mark.parametrize("path", ["/etc/network/interfaces.d/old", "/run/systemd/network/10-netplan-a.network"])
def test_one_file_that_cannot_be_read_ends_nothing(path: str) -> None:
    host = ifupdown()
    host.answers["netplan"] = OK
    host.files[path] = SystemRefused(f"{path} cannot be read: Is a directory")
    assert apply.plan(host, ETH0).keeper == "ifupdown"


def test_a_profile_that_was_deleted_has_nothing_to_undo() -> None:
    host = network_manager()
    apply.apply(host, ETH0)
    gone = Completed(10, "", "Error: 1234-5678 - no such connection profile.")
    host.answers["nmcli"] = gone
    entry = record.load(host, "eth0")
    assert entry is not None
    apply.undo(host, entry)
    assert record.load(host, "eth0") is None
    assert host.state["eth0"]["tx-checksum-ip-generic"] == "on"


def test_a_networkmanager_that_does_not_run_is_not_taken_for_a_profile_that_is_gone() -> None:
    host = network_manager()
    apply.apply(host, ETH0)
    host.answers["nmcli"] = Completed(8, "", "Error: NetworkManager is not running.")
    entry = record.load(host, "eth0")
    assert entry is not None
    with pytest.raises(SystemRefused, match="NetworkManager is not running"):
        apply.undo(host, entry)
    assert record.load(host, "eth0") is not None


def test_another_setting_of_the_same_device_takes_the_place_of_the_first() -> None:
    host = udev()
    apply.apply(host, FLANNEL)
    other = Setting("eth0", ("tx-udp_tnl-segmentation",))
    apply.apply(host, Setting("eth0", ("tx-checksum-ip-generic",)))
    apply.apply(host, other)
    assert host.state["eth0"]["tx-checksum-ip-generic"] == "on"
    assert host.state["eth0"]["tx-udp_tnl-segmentation"] == "off"
    assert [entry.plan.setting for entry in record.every(host)] == [other, FLANNEL]


def test_without_root_nothing_is_changed() -> None:
    host = ifupdown()
    host.net_admin = False
    before = dict(host.files)
    with pytest.raises(NotPermitted):
        apply.apply(host, ETH0)
    assert host.files == before


def test_a_damaged_record_is_an_error_that_names_it() -> None:
    host = ifupdown()
    host.files[record.path("eth0")] = "{"
    with pytest.raises(SystemRefused, match=r"/var/lib/fixer/cure/eth0\.json is damaged"):
        record.load(host, "eth0")


def test_a_record_is_what_was_saved() -> None:
    host = ifupdown()
    apply.apply(host, ETH0)
    entry = record.load(host, "eth0")
    assert entry is not None
    assert isinstance(entry.plan, Plan)
    assert entry.before == {"/etc/network/if-up.d/fixer-eth0": None}
    assert entry.was == {"tx-checksum-ip-generic": "on"}


# As a command


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Node:
    made = ifupdown().tunnel()
    monkeypatch.setattr(host_module, "Host", lambda: made)
    return made


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli.cli, ["cure", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_it_says_the_cost_first_and_changes_nothing(host: Node) -> None:
    before = dict(host.files)
    result = run()
    assert result.exit_code == 0
    said = " ".join(result.stdout.split())
    assert (
        said.index("Costs TSO")
        < said.index("ethtool -K eth0 tx-checksum-ip-generic off")
        < said.index("if-up.d/fixer-eth0")
    )
    assert host.files == before


def test_the_manual_shows_what_it_says(host: Node) -> None:
    text = (Path(__file__).parents[2] / "docs" / "cure.md").read_text(encoding="utf-8")
    printed = text.partition("# fixer cure\n")[2].partition("```")[0]
    assert printed.splitlines() == [line.rstrip() for line in run().stdout.splitlines()]


def test_apply_check_undo(host: Node) -> None:
    assert run("--check").exit_code == 3
    assert run("--apply").exit_code == 0
    assert run("--check").exit_code == 0
    host.state["eth0"]["tx-checksum-ip-generic"] = "on"
    result = run("--check")
    assert (result.exit_code, "is on again" in result.stdout) == (3, True)
    assert run("--apply").exit_code == 0
    assert json.loads(run("--check", "--json").stdout)[0]["holds"] is True
    assert run("--undo").stdout == "eth0: as it was before\n"
    assert run("--undo").stdout == "Nothing was applied here.\n"


def test_one_tunnel_alone(host: Node) -> None:
    host.files["/run/udev/control"] = ""
    host.answers["udevadm"] = OK
    result = run("--device", "flannel.1")
    assert result.stdout.startswith("flannel.1: tx-checksum-ip-generic off. Costs TSO inside this tunnel")


def test_what_is_kept_elsewhere_is_set_now_and_said(host: Node) -> None:
    host.files["/etc/os-release"] = "ID=talos\n"
    result = run("--apply")
    assert result.exit_code == 3
    assert host.state["eth0"]["tx-checksum-ip-generic"] == "off"
    assert "talosctl" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--device", "eth9"], 66, "there is no interface eth9 here"),
        (["--feature", "tx-magic"], 2, "eth0 has no feature tx-magic"),
        (["--keeper", "netplan"], 71, "netplan is not in charge of eth0"),
        (["--keeper", "wicked"], 2, "'wicked' is not one of"),
    ],
)
def test_what_cannot_be_asked(host: Node, arguments: list[str], code: int, said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == code
    assert said in result.stderr


def test_a_nic_that_computes_nothing_needs_no_cure(host: Node) -> None:
    host.state["eth0"] = {"tx-checksum-ip-generic": "off [fixed]"}
    result = run()
    assert (result.exit_code, "there is nothing to cure" in result.stderr) == (2, True)


def test_two_nics_and_no_tunnel_in_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Node().nic().nic("eth1", address="10.0.0.1")
    monkeypatch.setattr(host_module, "Host", lambda: made)
    assert "name it with --device" in run().stderr


def test_what_was_done_before_another_device_failed_is_told(host: Node) -> None:
    host.nic("eth1", address="10.0.0.1")
    host.files["/etc/network/interfaces"] = f"{host.files['/etc/network/interfaces']}iface eth1 inet dhcp\n"
    host.answers["ethtool -K eth1 tx-checksum-ip-generic off"] = Completed(1, "", "Device or resource busy")
    result = run("--apply", "--device", "eth0", "--device", "eth1")
    assert result.exit_code == 71
    assert "eth0: it holds" in result.stdout
    assert "eth1 is as it was before" in result.stderr
    assert "/etc/network/if-up.d/fixer-eth1" not in host.files
    assert [entry.plan.setting.device for entry in record.every(host)] == ["eth0"]
    result = run("--apply", "--json", "--device", "eth0", "--device", "eth1")
    assert (result.exit_code, [each["holds"] for each in json.loads(result.stdout)]) == (71, [True])


def test_a_device_that_is_gone_is_said_to_be(host: Node) -> None:
    run("--apply")
    host.state.pop("eth0")
    result = run("--check")
    assert (result.exit_code, "cannot be told" in result.stdout) == (3, True)


def test_a_file_that_is_no_utf_8_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    made = ifcfg("# caf\udce9\n")
    monkeypatch.setattr(host_module, "Host", lambda: made)
    assert "# caf" in run().stdout
    assert "# caf\N{REPLACEMENT CHARACTER}" in json.loads(run("--json").stdout)[0]["plan"]["files"][0]["text"]
    assert run("--apply", "--json").exit_code == 0
