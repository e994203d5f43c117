"""The command line: help, exit codes, one line per error and never a traceback."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from support.commands import FIXER, started
from support.fakehost import FakeHost
from support.flowtable import header

import fixer
from fixer import cli, errors
from fixer.cli import on
from fixer.config import Settings
from fixer.host import machine as host_module
from fixer.host.machine import NET, Completed, Host, Owner
from fixer.rules import wanted
from fixer.state import flowfile, intent
from fixer.state.report import path_of

VERBS = ["run", "on", "off", "status", "scan", "compare", "doctor", "cure", "demo"]
ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.FixerError)]

ON = """\
[0:0] -A PREROUTING -j FIXER
[4:40] -A FIXER -p udp -m multiport --dports 4789,8472,6784 -j NFQUEUE --queue-num 0 --queue-bypass
"""


def invoke(*arguments: str) -> Result:
    result = CliRunner().invoke(cli.cli, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """The host that every verb gets."""
    host = FakeHost()
    for command in ("iptables", "ip6tables"):
        host.answers[f"{command}-save"] = Completed(0, ON, "")
    host.files[f"{NET}/netfilter/nfnetlink_queue"] = ""
    monkeypatch.setattr(host_module, "Host", lambda: host)
    return host


def reporting(host: FakeHost) -> None:
    """A daemon of ours lives, and has written its report."""
    host.files["/proc/4711"] = ""
    flags = {"fail_open": True, "gso": True}
    report = {"pid": 4711, "version": "0.1.0", "queue": 0, "monitor": False, "plain": False, "asked": flags}
    report |= {"flags": flags, "started": "2026-01-02T03:00:00Z", "updated": "2026-01-02T03:04:04Z"}
    path_of(host, 0).write_text(json.dumps(report | {"counters": {}, "queue_counters": {}}))


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., int]], None]:
    """Put a function in the place of `fixer.daemon.run`, whose real one needs the compiled datapath."""

    def put(run: Callable[..., int]) -> None:
        module = types.ModuleType("fixer.daemon.run")
        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "fixer.daemon.run", module)

    return put


# Help


def test_help_names_every_verb_in_the_order_of_use() -> None:
    listed = invoke("--help").output.partition("Commands:")[2]
    assert re.findall(r"^  (\w+) ", listed, re.MULTILINE) == VERBS


def test_the_incident_of_the_manual_can_be_typed() -> None:
    """`tools/incident` writes it from a real run; an option that has gone since would show here."""
    text = (Path(__file__).parents[2] / "docs" / "incident.md").read_text(encoding="utf-8")
    typed = re.findall(r"^\w+# fixer (\w+)([^\n;&>]*)", text, re.MULTILINE)
    assert {verb for verb, _ in typed} == {"doctor", "on", "run", "cure", "off"}
    for verb, rest in typed:
        assert set(re.findall(r"--[a-z-]+", rest)) <= set(re.findall(r"--[a-z-]+", invoke(verb, "--help").output))


@pytest.mark.parametrize("verb", VERBS)
def test_each_verbs_help_says_what_it_does_and_how_it_ends(verb: str) -> None:
    result = invoke(verb, "--help")
    assert result.exit_code == 0
    assert "Exit codes:" in result.output
    for line in result.output.splitlines():
        assert len(line) <= 100, line
    command = cli.cli.commands[verb]
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{verb} {option.name} has no help"


def test_help_lists_every_exit_code_there_is() -> None:
    text = invoke("--help").output
    for kind in ERRORS:
        if kind is not errors.FixerError:
            assert re.search(rf"\b{kind.exit_code}\b", text), kind


def test_help_is_quick_and_needs_nothing_heavy() -> None:
    probe = "import sys, fixer.cli; print(*sorted(m for m in sys.modules if m.split('.')[0] in "
    probe += "('scapy', 'rich', 'msgspec', 'structlog', 'netfilterqueue')))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_version() -> None:
    assert invoke("--version").output == f"fixer {fixer.__version__}\n"


# Errors


def test_exit_codes_are_distinct() -> None:
    assert len({kind.exit_code for kind in ERRORS}) == len(ERRORS)


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_is_one_line_and_its_own_exit_code(kind: type[errors.FixerError], daemon: Any) -> None:
    def fail(*_: Any, **__: Any) -> int:
        raise kind("whose fault it is; what to do")

    daemon(fail)
    result = invoke("run", "--log-format", "human")
    assert (result.exit_code, result.stdout) == (kind.exit_code, "")
    assert result.stderr == "fixer: error: whose fault it is; what to do\n"


def test_what_keeps_the_daemon_from_serving_is_a_line_of_its_log_too(daemon: Any, tmp_path: Path) -> None:
    def fail(*_: Any, **__: Any) -> int:
        raise errors.QueueBusy("queue 0 is held by another process")

    daemon(fail)
    result = invoke("run")
    assert (result.exit_code, result.stderr.count("\n")) == (errors.QueueBusy.exit_code, 1)
    said = json.loads(result.stdout)
    assert (said["event"]["action"], said["log.level"]) == ("failed", "error")
    assert (said["message"], said["process"]["exit_code"]) == ("queue 0 is held by another process", 75)
    config = tmp_path / "f.toml"
    config.write_text(f'[log]\nto = "{tmp_path}/log"\n')
    assert invoke("run", "--config", str(config)).stdout == ""
    assert json.loads((tmp_path / "log").read_text())["message"] == said["message"]
    config.write_text("plane = true\n")
    wrong = invoke("run", "--config", str(config))
    assert "unknown key plane" in json.loads(wrong.stdout)["message"]
    assert wrong.exit_code == 78


def test_a_fault_of_ours_is_a_line_of_the_log_and_a_traceback(daemon: Any) -> None:
    def fail(*_: Any, **__: Any) -> int:
        raise ZeroDivisionError

    daemon(fail)
    result = CliRunner().invoke(cli.cli, ["run"])
    assert isinstance(result.exception, ZeroDivisionError)
    assert json.loads(result.stdout)["message"] == "ZeroDivisionError"


def test_people_are_shown_lines_and_programs_json(daemon: Any) -> None:
    shown: list[Any] = []
    daemon(lambda *_, show, **__: shown.append(show) or 0)
    for arguments in ((), ("--log-format", "json"), ("--log-format", "human")):
        assert invoke("run", *arguments).exit_code == 0
    assert [show is None for show in shown] == [True, True, False], "here stdout is no terminal"


def test_ctrl_c_is_quiet(daemon: Any) -> None:
    def interrupt(*_: Any, **__: Any) -> int:
        raise KeyboardInterrupt

    daemon(interrupt)
    result = invoke("run")
    assert (result.exit_code, result.output) == (130, "")


def test_a_missing_compiled_part_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(fixer, "daemon", raising=False)
    for name in ["fixer.daemon", *(name for name in sys.modules if name.startswith("fixer.daemon."))]:
        monkeypatch.setitem(sys.modules, name, None)  # import raises ImportError, as for a missing extension
    result = invoke("run")
    assert result.exit_code == 1
    assert result.stderr.startswith("fixer: error: this installation is incomplete, install it again: ")
    assert result.stderr.count("\n") == 1


def test_a_reader_that_has_enough_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        done = subprocess.run([*FIXER, "--help"], stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode in (1, cli.BROKEN_PIPE)  # click's own, where it meets the pipe before we do


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--queue", "65536"], "65536 is not in the range 0<=x<=65535"),
        (["run", "--queue", "seven"], "'seven' is not a valid integer"),
        (["on", "--source", "10.0.0.300"], "10.0.0.300 is no address or network such as 10.1.0.0/16"),
        (["on", "--interface", "lo"], "what a host sends itself is never finished"),
        (["on", "--variant", "ebtables"], "'ebtables' is not one of 'nft', 'legacy'"),
        (["on", "--scope", "some"], "'some' is not one of 'all', 'suspects'"),
        (["on", "--mtu", "1500"], "belongs to --scope suspects"),
        (["on", "--scope", "suspects", "--overlay-ends-here"], "belongs to --scope kernel"),
        (["on", "--scope", "suspects", "--mtu", "100"], "100 is not in the range 576<=x<=65535"),
        (["off", "--netns", "a", "--pid", "1"], "--netns and --pid both name a network namespace"),
        (["off", "--pid", "0"], "0 is not in the range x>=1"),
        (["off", "--drain", "--force"], "--drain lets connections end, --force cuts them off: give one of them"),
        (["off", "--timeout", "5"], "belongs to --drain"),
        (["off", "--drain", "--timeout", "-1"], "-1.0 is not in the range x>=0"),
        (["scan"], "Missing argument 'FILE...'"),
        (["compare", "a.pcap"], "Missing argument 'RECEIVER.pcap'"),
        (["compare", "a.pcap", "a.pcap"], "a.pcap is given twice"),
        (["mend"], "No such command 'mend'"),
    ],
)
def test_a_wrong_command_line(arguments: list[str], said: str, fake: FakeHost) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert fake.ran == []


@pytest.mark.parametrize("verb", ["run", "on", "status", "scan"])
def test_a_wrong_configuration_stops_every_verb_that_reads_it(verb: str, tmp_path: Path, fake: FakeHost) -> None:
    config = tmp_path / "f.toml"
    config.write_text("[queue]\nnumbr = 1\n")
    more = ["x.pcap"] if verb == "scan" else []
    result = invoke(verb, "--config", str(config), *more)
    assert result.exit_code == 78
    assert result.stderr == f"fixer: error: {config}: unknown key queue.numbr; did you mean queue.number?\n"
    assert invoke(verb, "--config", f"{config}.not", *more).exit_code == 66
    assert fake.ran == []


# Verbs


def test_run_hands_the_daemon_settings_with_the_command_lines_on_top(
    daemon: Any, fake: FakeHost, tmp_path: Path
) -> None:
    config = tmp_path / "f.toml"
    config.write_text("[queue]\nnumber = 3\nlength = 9\n")
    seen: list[tuple[Settings, Host]] = []

    def remember(settings: Settings, host: Host, again: Callable[[], Settings], *, keeps: bool, show: Any) -> int:
        assert again() == settings
        config.write_text("[queue]\nlength = 10\n")
        assert (again().queue.length, again().monitor) == (10, True)
        seen.append((settings, host))
        return 7

    daemon(remember)
    assert invoke("run", "--config", str(config), "--queue", "0", "--monitor", "--plain").exit_code == 7
    settings, host = seen[0]
    assert (settings.queue.number, settings.queue.length, settings.monitor, settings.plain) == (0, 9, True, True)
    assert host is fake


def test_run_check_reads_the_configuration_and_starts_nothing(daemon: Any, tmp_path: Path) -> None:
    config = tmp_path / "f.toml"
    config.write_text("plain = true\n")
    daemon(lambda *_: pytest.fail("it was started"))
    assert invoke("run", "--check", "--config", str(config)).exit_code == 0
    config.write_text("plane = true\n")
    assert invoke("run", "--check", "--config", str(config)).exit_code == 78


def test_run_works_in_the_namespace_that_is_named(daemon: Any, fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[Any] = []
    monkeypatch.setattr(fake, "enter_netns", lambda *where: entered.append(where))
    daemon(lambda *_, **__: 0)
    invoke("run", "--netns", "web")
    invoke("run", "--pid", "4711")
    invoke("run")
    assert entered == [("web", None), (None, 4711)]


def test_on_says_what_to_type_next(fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    result = invoke("on")
    assert result.exit_code == 3, "it is on, and nobody listens"
    assert result.output == (
        "IPv4: already on: UDP to port 4789, 8472, 6784 to queue 0; rule 1 of 1 in raw/PREROUTING, last\n"
        "IPv6: already on: UDP to port 4789, 8472, 6784 to queue 0; rule 1 of 1 in raw/PREROUTING, last\n"
        "Nobody listens on queue 0 yet: packets pass untouched. Next: fixer run\n"
    )
    monkeypatch.setattr(fake, "enter_netns", lambda *_: None)
    said = invoke("on", "--queue", "0", "--netns", "web").output
    assert said.endswith("Next: fixer run --queue 0 --netns web\n")


@pytest.fixture
def taking_over(fake: FakeHost) -> FakeHost:
    """iptables-save shows what iptables-restore was given; there is one interface, eth0."""
    saved = Completed(0, ON, "")

    def restore(argv: Any, script: str | None) -> Completed:
        nonlocal saved
        lines = [f"[0:0] {line}" for line in (script or "").splitlines() if line.startswith("-A")]
        saved = Completed(0, "\n".join(lines), "")
        return Completed(0, "", "")

    for command in ("iptables", "ip6tables"):
        fake.answers |= {f"{command}-restore": restore, f"{command}-save": lambda *_: saved}
    eth0 = {"ifname": "eth0", "mtu": 9000, "flags": ["UP"], "link_type": "ether"}
    fake.answers["ip"] = Completed(0, json.dumps([eth0]), "")
    return fake


def test_on_warns_of_what_leads_on_from_where_the_overlay_is_said_to_end(taking_over: FakeHost, tmp_path: Path) -> None:
    here = ("on", "--scope", "kernel", "--overlay-ends-here")
    warned = "what is forwarded to another host leaves with a wrong checksum (--overlay-ends-here)"
    assert (
        "warning: no VXLAN device is in this namespace, so where its packets go cannot be seen" in invoke(*here).stderr
    )
    port = {"linkinfo": {"info_kind": "vxlan", "info_data": {"port": 4789}}, "master": "br0"}
    vxlan0 = {"ifname": "vxlan0", "mtu": 1450, "flags": ["UP"], "link_type": "ether"}
    taking_over.answers["ip"] = Completed(0, json.dumps([vxlan0 | port]), "")
    taking_over.files["/proc/sys/net/ipv4/ip_forward"] = "0\n"
    found = invoke(*here)
    assert found.stderr == ""
    assert "Whom the daemon diagnoses, it has the kernel mark as verified (tc)" in found.stdout
    taking_over.files["/proc/sys/net/ipv4/ip_forward"] = "1\n"
    assert f"warning: net.ipv4.ip_forward is on: IPv4 is routed on from here: {warned}" in invoke(*here).stderr
    assert invoke("on", "--scope", "kernel").stderr == ""
    config = tmp_path / "f.toml"
    config.write_text('[timestamps]\nmode = "strip"\nsources = ["192.0.2.1/32"]\n')
    refused = invoke(*here, "--config", str(config))
    assert refused.exit_code == 78
    assert 'timestamps.mode = "strip" queues what the kernel has marked' in refused.stderr


def test_on_with_several_queues_says_what_they_lack(taking_over: FakeHost, tmp_path: Path) -> None:
    config = tmp_path / "f.toml"
    config.write_text("[queue]\nnumber = 3\ncount = 2\n")
    taking_over.answers["unshare"] = Completed(0, "eth0/queues/rx-0/rps_cpus:1\n", "")
    lines = invoke("on", "--config", str(config)).output.splitlines()
    assert lines[0].startswith("IPv4: on: UDP to port 4789, 8472, 6784 to queues 3 to 4;")
    assert lines[2].startswith("eth0 does not spread the flows of one VTEP pair over CPUs")
    assert lines[2].endswith("Next: echo 3 > /sys/class/net/eth0/queues/rx-0/rps_cpus")
    assert lines[3].startswith("Nobody listens on queues 3 to 4 yet: ")
    taking_over.answers["unshare"] = Completed(0, "eth0/queues/rx-0/rps_cpus:3\n", "")
    reporting(taking_over)
    bound = "3 4242 0 2 65531 0 0 0 1\n"
    taking_over.files[f"{NET}/netfilter/nfnetlink_queue"] = bound
    half = invoke("on", "--config", str(config))
    lines = half.output.splitlines()
    assert half.exit_code == 3
    assert len(lines) == 3
    assert lines[2].endswith("listens on some of the queues 3 to 4, and not on all. See: fixer status")
    taking_over.files[f"{NET}/netfilter/nfnetlink_queue"] = bound + bound.replace("3 4242", "4 4243")
    whole = invoke("on", "--config", str(config))
    assert whole.exit_code == 0
    assert whole.output.endswith("listens on queues 3 to 4. See: fixer status\n")
    assert json.loads(invoke("status", "--json", "--config", str(config)).output)["queues"] == [3, 4]


def test_on_says_that_timestamps_need_no_more(taking_over: FakeHost, tmp_path: Path) -> None:
    config = tmp_path / "f.toml"
    config.write_text('[timestamps]\nmode = "strip"\nsources = ["192.0.2.1/32"]\n')
    said = 'timestamps.mode = "strip" needs no rule of its own.\n'
    for scope in ("all", "suspects"):
        assert said in invoke("on", "--config", str(config), "--scope", scope).output
    assert said not in invoke("on").output


NORMALISE = '[timestamps]\nmode = "normalise"\nsources = ["192.0.2.1/32"]\n'


def flow_table(host: FakeHost, normalised: int, draining: int = 0) -> Path:
    """The file of a daemon whose first queue is 0."""
    path = flowfile.path_of(host, 0)
    path.write_bytes(header(normalised=normalised, used=normalised, draining=draining))
    return path


@pytest.fixture
def normalising(taking_over: FakeHost, tmp_path: Path) -> Path:
    """A configuration that normalises; `fixer on` was said, and both queues have a listener."""
    config = tmp_path / "f.toml"
    config.write_text(NORMALISE)
    invoke("on", "--config", str(config))
    reporting(taking_over)
    bound = "0 4242 0 2 65531 0 0 0 1\n1 4243 0 2 65531 0 0 0 1\n"
    taking_over.files[f"{NET}/netfilter/nfnetlink_queue"] = bound
    return config


def test_on_says_where_what_is_normalised_goes(taking_over: FakeHost, normalising: Path) -> None:
    lines = invoke("on", "--config", str(normalising)).output.splitlines()
    assert lines[0].startswith("IPv4: on: UDP to port 4789, 8472, 6784 to queue 0;")
    assert lines[1] == (
        "IPv4: normalising: TCP of the configured sources, and the replies to it, to queue 1; "
        "rule 1 of 1 in raw/OUTPUT, last"
    )
    assert lines[4:] == ["A process that cannot be seen from here listens on queue 0. See: fixer status"]
    taking_over.files[f"{NET}/netfilter/nfnetlink_queue"] = "0 4242 0 2 65531 0 0 0 1\n"
    lines = invoke("on", "--config", str(normalising)).output.splitlines()
    assert lines[4:] == [
        "A process that cannot be seen from here listens on queue 0. See: fixer status",
        "Nobody listens on queue 1 yet, so no timestamps are normalised. Next: start fixer run again",
    ]


def test_suspects_need_no_syns_for_what_is_normalised(taking_over: FakeHost, normalising: Path) -> None:
    def programs(*more: str) -> set[str]:
        invoke("on", "--scope", "suspects", "--mtu", "1500", *more)
        saved = taking_over.run(["iptables-save"]).out
        return {line for line in saved.splitlines() if "-A FIXER-VXLAN -m bpf" in line}

    assert programs("--config", str(normalising)) == programs()


def test_off_refuses_while_normalised_connections_live(taking_over: FakeHost, normalising: Path) -> None:
    flow_table(taking_over, 2)
    refused = invoke("off")
    assert (refused.exit_code, refused.stdout) == (4, "")
    assert refused.stderr == (
        "fixer: error: 2 normalised connections would stall without the rule of queue 1: let them end with "
        "fixer off --drain, or cut them off with fixer off --force\n"
    )
    waited = invoke("off", "--drain", "--timeout", "0")
    assert waited.exit_code == 4
    assert waited.stdout == "draining: 2 normalised connections left, new ones are left alone\n"
    assert waited.stderr.startswith("fixer: error: 2 normalised connections left after 0 s; the rules stay")
    assert "FIXER-FLOWS" in taking_over.run(["iptables-save"]).out
    forced = invoke("off", "--force")
    assert forced.exit_code == 0
    assert forced.stderr.startswith("fixer: warning: 2 normalised connections will stall")
    assert forced.stdout.startswith("IPv4: off: removed chain FIXER ")
    assert "FIXER" not in taking_over.run(["iptables-save"]).out


def test_off_takes_the_rules_away_once_all_is_drained(taking_over: FakeHost, normalising: Path) -> None:
    flow_table(taking_over, 0)
    done = invoke("off", "--drain")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("drained: no normalised connection is left\nIPv4: off: removed chain FIXER ")
    assert invoke("off", "--drain").stdout == "IPv4: nothing of ours was there\nIPv6: nothing of ours was there\n"


def test_on_ends_a_drain_and_takes_no_rule_away_that_is_needed(taking_over: FakeHost, normalising: Path) -> None:
    path = flow_table(taking_over, 2, draining=1)
    assert (
        "The drain is ended: new connections are normalised again.\n"
        in invoke("on", "--config", str(normalising)).output
    )
    live = flowfile.look(path)
    assert live is not None
    assert not live.draining
    assert "drain" not in invoke("on", "--config", str(normalising)).output
    refused = invoke("on")
    assert (refused.exit_code, refused.stdout) == (4, "")
    assert refused.stderr.endswith("or cut them off with fixer on --force\n")
    assert "FIXER-FLOWS" in taking_over.run(["iptables-save"]).out
    forced = invoke("on", "--force")
    assert forced.exit_code == 0
    assert "will stall" in forced.stderr
    assert "FIXER-FLOWS" not in taking_over.run(["iptables-save"]).out


def test_off_needs_nothing_compiled(taking_over: FakeHost, normalising: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("fixer.datapath.")]:
        monkeypatch.setitem(sys.modules, module, None)
    flow_table(taking_over, 1).write_bytes(b"of another world")
    done = invoke("off")
    assert done.exit_code == 0
    assert done.stdout.startswith("IPv4: off: removed chain FIXER ")
    assert done.stderr.startswith("fixer: warning: ")
    assert done.stderr.count("\n") == 1


def test_on_says_what_suspects_leave_out(taking_over: FakeHost, tmp_path: Path) -> None:
    said = invoke("on", "--scope", "suspects").output
    assert "IPv4: on: suspects among UDP to port 4789, 8472, 6784 to queue 0;" in said
    assert "Packets longer than 9,000 bytes are taken for merged by GRO and not looked at.\n" in said
    assert "longer than 1,450 bytes" in invoke("on", "--scope", "suspects", "--mtu", "1450").output
    without_syns = taking_over.run(["iptables-save"]).out
    config = tmp_path / "f.toml"
    config.write_text('[timestamps]\nmode = "strip"\nsources = ["192.0.2.1/32"]\n')
    invoke("on", "--scope", "suspects", "--mtu", "1450", "--config", str(config))
    assert len(taking_over.run(["iptables-save"]).out) > len(without_syns), "the programs look for SYNs as well"
    missing = invoke("on", "--scope", "suspects", "--interface", "eth9")
    assert missing.exit_code == 66
    assert "there is no interface eth9 to read the MTU of; name that with --mtu BYTES" in missing.stderr


def test_on_knows_who_listens_already(fake: FakeHost) -> None:
    fake.files[f"{NET}/netfilter/nfnetlink_queue"] = "0 4242 0 2 65531 0 0 0 1\n"
    reporting(fake)
    done = invoke("on")
    assert done.exit_code == 0
    assert done.output.endswith("A process that cannot be seen from here listens on queue 0. See: fixer status\n")


def test_on_refuses_a_queue_that_another_program_holds(fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wanted, "_REPORT_SECONDS", 0.2)
    fake.files[f"{NET}/netfilter/nfnetlink_queue"] = "0 4242 0 2 65531 0 0 0 1\n"
    fake.files[f"{NET}/netlink"] = "sk\n0000000000000000 12 4242 00000000 0 0 0 2 0 777\n"
    fake.owners[777] = Owner(99, "suricata")
    reporting(fake)
    refused = invoke("on")
    assert (refused.exit_code, refused.stdout) == (75, "")
    assert refused.stderr.startswith("fixer: error: queue 0 is held by suricata (pid 99), which is no fixer")
    assert not intent.path_of(fake).exists()
    fake.owners[777] = Owner(4711, "python3")
    assert invoke("on").exit_code == 0, "the same program, which reports"


# The service


@pytest.fixture
def systemd(taking_over: FakeHost) -> list[str]:
    """What `systemctl` was asked to do; fixer.service is installed and does not run, and a start has it listen."""
    asked: list[str] = []
    running = False

    def systemctl(argv: Any, _: str | None) -> Completed:
        nonlocal running
        if argv[1] == "show":
            return Completed(0, f"LoadState=loaded\nActiveState={'active' if running else 'inactive'}\n", "")
        asked.append(" ".join(argv[1:]))
        running = argv[1] == "start"
        taking_over.files[f"{NET}/netfilter/nfnetlink_queue"] = "0 4242 0 2 65531 0 0 0 1\n" if running else ""
        if running:
            reporting(taking_over)
        return Completed(0, "", "")

    taking_over.files["/run/systemd/system"] = ""
    taking_over.answers["systemctl"] = systemctl
    return asked


def test_on_starts_a_service_that_does_not_run_and_off_stops_it_again(systemd: list[str]) -> None:
    done = invoke("on")
    assert done.exit_code == 0
    assert "fixer.service is started; fixer off stops it again.\n" in done.output
    invoke("on", "--scope", "suspects")
    assert systemd == ["start fixer.service"], "it runs"
    assert invoke("off").output.endswith("fixer.service is stopped, as it was before fixer on.\n")
    assert systemd == ["start fixer.service", "stop fixer.service"]


def without_time(host: FakeHost) -> None:
    """This kernel has no -m time."""
    for command in ("iptables-restore", "ip6tables-restore"):
        answer = host.answers[command]
        assert callable(answer)

        def restore(argv: Any, script: str | None, had: Any = answer) -> Completed:
            if "-m time" in (script or ""):
                return Completed(1, "", "iptables-restore: Couldn't load match `time':No such file or directory\n")
            return Completed(0, *had(argv, script)[1:])

        host.answers[command] = restore


def test_what_the_kernel_cannot_end_a_timer_does(
    taking_over: FakeHost, systemd: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[list[str]] = []

    def run(argv: Any, _: str | None) -> Completed:
        begun.append(list(argv[1:]))
        return Completed(0, "", "")

    assert "the kernel ends it" in invoke("on", "--for", "30m").output
    without_time(taking_over)
    assert "only a daemon that lives then does" in invoke("on", "--for", "31m").output, "no systemd-run"
    taking_over.answers["systemd-run"] = run
    now = taking_over.now()
    until = (now + timedelta(minutes=32)).replace(microsecond=0)
    name = f"fixer-end-{until:%Y%m%dT%H%M%SZ}"
    assert f"a daemon that lives then does, or systemd ({name}.timer)" in invoke("on", "--for", "32m").output
    assert f"stop {name}.timer" in systemd, "the same words said again are no second one"
    [options] = begun
    assert options[:4] == [
        "--quiet",
        f"--unit={name}",
        f"--on-calendar={until:%Y-%m-%d %H:%M:%S} UTC",
        "--timer-property=AccuracySec=1s",
    ]
    assert options[-2:] == ["off", "--over"]

    assert invoke("off", "--over").output == "", "it is not over: prolonged, say"
    assert "-j NFQUEUE" in taking_over.run(["iptables-save", "-c", "-t", "raw"]).out
    monkeypatch.setattr(taking_over, "now", lambda: until)
    logged: list[str] = []
    monkeypatch.setattr("fixer.host.journal.write", logged.append)
    assert "IPv4: off: removed chain FIXER" in invoke("off", "--over").output
    assert invoke("off", "--over").output.count("removed") == 0
    [line] = logged
    event = json.loads(line)
    assert (event["event"]["action"], event["fixer"]["rule"]["until"]) == ("rule-ended", until.isoformat())
    assert "-j NFQUEUE" not in taking_over.run(["iptables-save", "-c", "-t", "raw"]).out

    monkeypatch.setattr(taking_over, "now", lambda: now)
    monkeypatch.setattr(taking_over, "enter_netns", lambda *_: None)
    assert f"({name}-netns-web.timer)" in invoke("on", "--netns", "web", "--for", "32m").output
    assert begun[-1][-4:] == ["off", "--over", "--netns", "web"]
    monkeypatch.setattr(taking_over, "is_init_netns", lambda: False)
    assert "only a daemon that lives then does" in invoke("on", "--for", "33m").output, "a service is elsewhere"
    taking_over.answers["systemd-run"] = Completed(1, "", "Failed to start transient timer unit\n")
    monkeypatch.setattr(taking_over, "is_init_netns", lambda: True)
    assert "only a daemon that lives then does" in invoke("on", "--for", "34m").output


def test_a_service_that_runs_goes_on_running(systemd: list[str], taking_over: FakeHost) -> None:
    taking_over.run(["systemctl", "start", "fixer.service"])
    systemd.clear()
    invoke("on")
    invoke("off")
    assert systemd == []


@pytest.mark.parametrize("more", [["--plain"], ["--queue", "0"], ["--netns", "web"]])
def test_a_service_that_would_serve_something_else_is_not_started(
    systemd: list[str], taking_over: FakeHost, more: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking_over, "enter_netns", lambda *_: None)
    assert invoke("on", *more).exit_code == 3
    assert systemd == []


def test_a_service_obeys_what_was_said_last(taking_over: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on, "START_SECONDS", 0.0)
    assert "to queue 0" in invoke("on", "--service").output, "nobody has said anything: as it is configured"
    invoke("on", "--interface", "eth0", "--reason", "INC-1")
    invoke("off", "--service")
    assert "FIXER" not in taking_over.run(["iptables-save"]).out
    assert "on eth0 to queue 0" in invoke("on", "--service").output
    invoke("off", "--reason", "cured")
    done = invoke("on", "--service")
    assert done.exit_code == 0
    assert re.match(r"off, as \w+ wanted it at 2026-01-02 .* \(cured\): fixer on\n", done.output)
    assert "FIXER" not in taking_over.run(["iptables-save"]).out


def test_a_service_that_is_stopped_leaves_the_next_one_what_it_remembers(taking_over: FakeHost) -> None:
    """`systemctl restart` is a stop and a start, and an upgrade is one: normalised connections go on."""
    table = flowfile.path_of(taking_over, 0)
    flowfile.open_flows(table, 1024)
    invoke("off", "--service")
    assert table.exists()
    invoke("off")
    assert not table.exists()


def test_status_is_a_table_or_json_and_an_exit_code(fake: FakeHost) -> None:
    result = invoke("status", "--json")
    assert result.exit_code == 3
    status = json.loads(result.output)
    assert (status["on"], status["listening"], status["rules"]["ipv6"]["packets"]) == (True, False, 4)
    table = invoke("status")
    assert table.exit_code == 3
    assert "nobody listens on queue 0" in table.output
    fake.net_admin = False
    refused = invoke("status")
    assert (refused.exit_code, refused.stdout) == (77, "")
    assert refused.stderr.startswith("fixer: error: ")


def test_scan_gets_files_and_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def remember(files: Any, settings: Settings, **options: Any) -> int:
        seen.update(options, files=files, plain=settings.plain)
        return 65

    monkeypatch.setattr(fixer.cli.scan, "scan_each", remember)
    assert invoke("scan", "a.pcap", "b.pcap", "--json", "--plain", "--write", "out.pcap").exit_code == 65
    del seen["console"]
    assert seen == {
        "files": (Path("a.pcap"), Path("b.pcap")),
        "as_json": True,
        "write": Path("out.pcap"),
        "taken_on": b"",
        "plain": True,
    }


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("192.0.2.5", bytes([192, 0, 2, 5])),
        ("::1", bytes(15) + b"\1"),
        ("02:42:A:0:1:b0", bytes.fromhex("02420a0001b0")),
    ],
)
def test_where_a_capture_was_taken_is_an_address_or_a_mac(
    monkeypatch: pytest.MonkeyPatch, said: str, expected: bytes
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(fixer.cli.scan, "scan_each", lambda *_, **options: seen.update(options) or 0)
    assert invoke("scan", "a.pcap", "--taken-on", said).exit_code == 0
    assert seen["taken_on"] == expected
    wrong = invoke("scan", "a.pcap", "--taken-on", "eth0")
    assert wrong.exit_code == 2
    assert "neither an IP address nor a MAC" in wrong.output


# The command as it is started


def test_the_module_is_the_command() -> None:
    done = started("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"fixer {fixer.__version__}\n", "")


def test_an_error_of_the_started_command_has_no_traceback() -> None:
    done = started("status", "--netns", "fx-no-such-namespace")
    assert (done.returncode, done.stdout) == (66, "")
    assert done.stderr == "fixer: error: there is no network namespace fx-no-such-namespace; see: ip netns list\n"


def test_ctrl_c_of_the_started_command_is_quiet() -> None:
    """In the middle of an import, where Python itself would tell a story."""
    probe = "import sys; from fixer import cli, config; config.load = lambda path: (print('ready', flush=True), "
    probe += "__import__('time').sleep(30)); sys.argv = ['fixer', 'status']; cli.main()"
    process = subprocess.Popen([sys.executable, "-c", probe], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out, err) == (130, "", "")
