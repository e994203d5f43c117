"""``fixer doctor timestamps``: releases of every make, counters of four kernels, and what follows from them."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from support.fakehost import FakeHost
from support.netns import Namespace

from fixer import cli, config
from fixer.doctor.kernels import NONE, PASSES, REFUSES, UNKNOWN, VARIANTS, Kernel, Variant
from fixer.doctor.server import NETSTAT, RELEASE, TIMESTAMPS, TW_RECYCLE, Drops, Server, drops_in, knobs, look
from fixer.doctor.timestamps import Verdict, diagnose
from fixer.errors import FileUnreadable
from fixer.host import machine as host_module
from fixer.screen.doctor import show

ROOT = Path(__file__).parents[2]

EL7 = """\
TcpExt: SyncookiesSent SyncookiesRecv SyncookiesFailed EmbryonicRsts PruneCalled RcvPruned OfoPruned OutOfWindowIcmps \
LockDroppedIcmps ArpFilter TW TWRecycled TWKilled PAWSPassive PAWSActive PAWSEstab DelayedACKs DelayedACKLocked \
DelayedACKLost ListenOverflows ListenDrops TCPPrequeued TCPDirectCopyFromBacklog TCPReqQFullDoCookies TCPReqQFullDrop
TcpExt: 0 0 0 31 0 0 0 0 0 0 20418 9120 0 1284 0 3 90210 5 40 26 1310 11 0 0 0
IpExt: InNoRoutes InTruncatedPkts InMcastPkts OutMcastPkts InBcastPkts OutBcastPkts InOctets OutOctets
IpExt: 0 0 0 0 0 0 5521902 8812034
"""
EL7_LATER = EL7.replace(" 1284 ", " 1301 ").replace(" 1310 ", " 1327 ")
# 2.6.18, where the queue of half-open connections is not counted, and nothing was refused.
EL5 = """\
TcpExt: SyncookiesSent SyncookiesRecv SyncookiesFailed EmbryonicRsts PruneCalled RcvPruned OfoPruned OutOfWindowIcmps \
LockDroppedIcmps ArpFilter TW TWRecycled TWKilled PAWSPassive PAWSActive PAWSEstab DelayedACKs ListenOverflows \
ListenDrops
TcpExt: 0 0 0 2 0 0 0 0 0 0 66 0 0 0 0 0 720 0 0
"""
# 6.1: no PAWSPassive; an accept queue overflowed.
MODERN = """\
TcpExt: SyncookiesSent SyncookiesRecv SyncookiesFailed EmbryonicRsts PruneCalled RcvPruned OfoPruned OutOfWindowIcmps \
LockDroppedIcmps ArpFilter TW TWRecycled TWKilled PAWSActive PAWSEstab DelayedACKs DelayedACKLocked DelayedACKLost \
ListenOverflows ListenDrops TCPReqQFullDoCookies TCPReqQFullDrop
TcpExt: 0 0 0 7 0 0 0 0 0 0 812 0 0 0 9 4410 1 17 350 362 0 5
IpExt: InNoRoutes InTruncatedPkts
IpExt: 0 0
MPTcpExt: MPCapableSYNRX
MPTcpExt: 0
"""


def server(
    release: str,
    recycle: int | None = 1,
    netstat: str | None = EL7,
    later: str | None = None,
    timestamps: int | None = 1,
) -> Server:
    first = Drops.read(netstat) if netstat else None
    last = Drops.read(later) if later else first
    return Server(release, recycle, timestamps, last).grown_since(first if later else None)


def shown(found: Verdict) -> str:
    console = Console(file=io.StringIO(), width=100)
    show(found, console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


# Releases


@pytest.mark.parametrize(
    ("release", "variant"),
    [
        ("2.6.18-419.el5", PASSES),
        ("2.6.32-754.35.1.el6.x86_64", PASSES),
        ("3.2.0-4-amd64", PASSES),
        ("3.10.0", PASSES),
        ("3.10-3-amd64", PASSES),
        ("3.10.108", PASSES),
        ("3.10.0-123.el7.x86_64", PASSES),
        ("3.10.0-229.7.2.el7.x86_64", PASSES),
        ("3.10.0-327.el7.x86_64", UNKNOWN),
        ("3.10.0-862.14.4.el7.x86_64", UNKNOWN),
        ("3.10.0-957.12.2.vz7.86.2", REFUSES),
        ("3.10.0-1160.el7.x86_64", REFUSES),
        ("3.10.0-1160.119.1.el7.x86_64", REFUSES),
        ("3.13.0-170-generic", PASSES),
        ("3.16.0-4-amd64", PASSES),
        ("3.17.0", REFUSES),
        ("3.19.0-80-generic", REFUSES),
        ("4.4.0-1.el7.elrepo", REFUSES),
        ("4.9", REFUSES),
        ("4.11.0-44.el7a.x86_64", REFUSES),
        ("4.12.0", NONE),
        ("4.12-rc1", NONE),
        ("4.14.35-2047.el7uek.x86_64", NONE),
        ("5.15.0-91-generic", NONE),
        ("6.1.0-18-amd64", NONE),
        ("10.0.1\n", NONE),
    ],
)
def test_what_a_kernel_does_is_read_from_its_release(release: str, variant: Variant) -> None:
    kernel = Kernel.read(release)
    assert kernel is not None
    assert kernel.variant is variant


@pytest.mark.parametrize(
    "release", ["", "nonsense", "4", "v4.9", "4.x", ".4.9", "\u0661.\u0662", "-3.10", "99999.1", "\0"]
)
def test_nonsense_is_no_kernel_and_no_crash(release: str) -> None:
    assert Kernel.read(release) is None
    assert diagnose(Server(release)).verdict == "unknown"
    assert diagnose(server(release)).verdict == "affected"  # the counters and the setting say it alone


@pytest.mark.parametrize(
    "release", ["3.10.0-99999999999999999999", "3.10.0-", "3.10.99999999", "4.9.-1", "3.10.0-1160x"]
)
def test_what_follows_the_version_may_be_anything(release: str) -> None:
    kernel = Kernel.read(release)
    assert kernel is not None
    assert diagnose(server(release)).verdict == "affected"


# Counters


def test_counters_are_found_by_name() -> None:
    assert Drops.read(EL7) == Drops(1284, 1310, 26, 0)
    assert Drops.read(EL5) == Drops(0, 0, 0, None)
    assert Drops.read(MODERN) == Drops(None, 362, 350, 5)
    read = Drops.read(EL7_LATER)
    assert read is not None
    assert read.since(Drops(1284, 1310, None, 0)) == Drops(17, 17, None, 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "TcpExt: PAWSPassive",
        "TcpExt: PAWSPassive\nTcpExt: 1 2",
        "TcpExt: PAWSPassive\nTcpExt: one",
        "IpExt: InNoRoutes\nIpExt: 0",
        "TcpExt:\nTcpExt:",
    ],
)
def test_what_is_no_netstat_gives_no_counters(text: str) -> None:
    assert Drops.read(text) is None
    host = FakeHost()
    host.files["n"] = text
    with pytest.raises(FileUnreadable, match=r"^n: not a copy of /proc/net/netstat"):
        drops_in(host, "n")


# Verdicts


@pytest.mark.parametrize(
    ("given", "verdict", "because"),
    [
        (server("3.10.0-1160.el7.x86_64"), "affected", "it has refused 1,284 SYNs for their timestamps so far"),
        (server("3.10.0-1160.el7.x86_64", later=EL7_LATER), "affected", "now: PAWSPassive grew by 17"),
        (server("3.10.0-1160.el7.x86_64", later=EL7), "affected", "1,284 SYNs for .*, none of them while"),
        (server("2.6.18-419.el5", netstat=EL5), "affected", "share a source address; none so far"),
        (server("3.16.0-4-amd64", netstat=None), "affected", "clients that share a source address"),
        (server("3.16.0-4-amd64", recycle=0), "unaffected", "is 0, .* refused 1,284 SYNs while it was on"),
        (server("3.16.0-4-amd64", recycle=0, netstat=EL5), "unaffected", "tcp_tw_recycle is 0, .* timestamps.$"),
        (server("3.16.0-4-amd64", timestamps=0), "unaffected", "tcp_timestamps is 0"),
        (server("3.16.0-4-amd64", recycle=0, later=EL7_LATER), "affected", "grew by 17"),
        (server("3.16.0-4-amd64", recycle=None), "unknown", "not known. It has refused 1,284 SYNs"),
        (server("3.16.0-4-amd64", recycle=None, netstat=None), "unknown", "depends on tcp_tw_recycle"),
        (server("6.1.0-18-amd64", recycle=None, netstat=MODERN), "unaffected", "removed in 4.12"),
        (server("6.1.0-18-amd64", recycle=None, netstat=None), "unaffected", "removed in 4.12"),
        # Backports in either direction: what the kernel counts is what it does.
        (server("4.4.180-94-default", netstat=MODERN), "unaffected", "removed in 4.12"),
        (server("5.4.0-odd"), "affected", "has refused 1,284 SYNs"),
        (Server(), "unknown", "depends on tcp_tw_recycle"),
    ],
)
def test_the_verdict(given: Server, verdict: str, because: str) -> None:
    found = diagnose(given)
    assert found.verdict == verdict
    assert re.search(because, found.because)
    assert found.exit_code == (0 if verdict == "unaffected" else 3)
    assert (found.mode is None) == (found.configuration is None) == (found.cure == []) == (verdict == "unaffected")


@pytest.mark.parametrize(
    ("release", "mode"),
    [("3.16.0-4-amd64", "strip"), ("3.10.0-1160.el7.x86_64", "normalise"), ("3.10.0-514.el7.x86_64", "normalise")],
)
def test_the_configuration_is_one_that_fixer_takes(release: str, mode: str) -> None:
    found = diagnose(server(release), ["192.0.2.7/32", "2001:db8::/64"])
    assert found.configuration is not None
    taken = config.parse(found.configuration, "doctor").timestamps
    assert (taken.mode, taken.sources) == (mode, ("192.0.2.7/32", "2001:db8::/64"))
    assert found.mode == mode
    text = shown(found)
    assert found.configuration in text
    assert "sysctl -w net.ipv4.tcp_tw_recycle=0" in text
    assert "Then:\n  fixer on\n  fixer run\n" in text
    example = diagnose(server(release)).configuration
    assert example is not None
    assert config.parse(example, "doctor").timestamps.sources == ("192.0.2.7/32",)
    assert "replace it" in example


def test_an_unaffected_server_is_told_what_its_drops_are() -> None:
    found = diagnose(server("6.1.0-18-amd64", None, MODERN))
    assert found.notes[0] == (
        "Of 362 ListenDrops: 350 accept queue full (ListenOverflows), 5 SYN queue full (TCPReqQFullDrop), "
        "7 for another reason (memory, route, SYN backlog)."
    )
    assert "ss -lnt" in found.notes[1]
    assert found.notes[-1] == "None of these goes away with [timestamps]: leave it off."
    text = shown(found)
    assert text.startswith("Not affected: ")
    assert "leave it off" in text
    assert "tcp_tw_recycle not there" in text
    assert "fixer.toml" not in text


def test_what_contradicts_itself_is_said() -> None:
    assert "5.4.0-odd counts PAWSPassive" in " ".join(diagnose(server("5.4.0-odd")).notes)
    assert "does not count PAWSPassive" in " ".join(diagnose(server("4.4.180", netstat=MODERN)).notes)
    backwards = diagnose(server("3.16.0-4-amd64", netstat=EL7_LATER, later=EL7))
    assert "Counters went down" in " ".join(backwards.notes)
    assert "grew" not in backwards.because


def test_the_tables_in_the_documents_are_what_the_doctor_says() -> None:
    text = (ROOT / "docs/timestamps.md").read_text(encoding="utf-8")
    for variant in VARIANTS:
        row = f"| {variant.kernels} | {variant.without_timestamp} | {variant.strip} | {variant.normalise} |"
        assert row in text, row


@pytest.mark.parametrize(("name", "head"), [("README.md", " | head -2"), ("docs/timestamps.md", "")])
def test_the_output_in_the_documents_is_real(old: FakeHost, name: str, head: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    printed = text.partition(f"# fixer doctor timestamps --source 192.0.2.7{head}\n")[2].partition("```")[0]
    real = [line.rstrip() for line in run("--source", "192.0.2.7").stdout.splitlines()]
    assert printed.splitlines() == (real[:2] if head else real)


# This host


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    host = FakeHost()
    host.files |= {RELEASE: "3.10.0-1160.el7.x86_64\n", NETSTAT: EL7, TW_RECYCLE: "1\n", TIMESTAMPS: "1\n"}
    monkeypatch.setattr(host_module, "Host", lambda: host)
    return host


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli.cli, ["doctor", "timestamps", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_this_host(old: FakeHost) -> None:
    result = run("--source", "192.0.2.7")
    assert result.exit_code == 3
    assert result.stdout.startswith("Affected: tcp_tw_recycle is on: it has refused 1,284 SYNs")
    assert 'mode = "normalise"\nsources = ["192.0.2.7/32"]\n' in result.stdout
    assert old.ran == []
    found = json.loads(run("--json").stdout)
    assert (found["verdict"], found["mode"], found["server"]["counters"]["paws_passive"]) == (
        "affected",
        "normalise",
        1284,
    )


def test_a_cured_host(old: FakeHost) -> None:
    old.files[TW_RECYCLE] = "0\n"
    result = run()
    assert result.exit_code == 0
    assert result.stdout.startswith("Not affected: tcp_tw_recycle is 0")


def test_watching_sees_what_grows(old: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        old.files[NETSTAT] = EL7_LATER

    monkeypatch.setattr(time, "sleep", sleep)
    result = run("--watch", "10")
    assert slept == [10]
    assert "PAWSPassive grew by 17" in result.stdout
    assert "Of 17 ListenDrops: 17 for their timestamps." in result.stdout
    assert result.stderr == "Watching for 10 s ...\n"


def test_a_namespace_of_an_old_kernel_is_told_what_only_the_host_shows(
    old: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def enter(*_: object) -> None:
        del old.files[TW_RECYCLE], old.files[TIMESTAMPS]

    monkeypatch.setattr(old, "enter_netns", enter)
    result = run("--netns", "web")
    assert result.stdout.startswith("Affected: ")
    assert "fixer on --plain --netns web\n  fixer run --plain --netns web\n" in result.stdout


def test_a_namespaces_own_setting_counts(old: FakeHost) -> None:
    assert look(old, outside=(0, 0)).tw_recycle == 1
    del old.files[TW_RECYCLE]
    assert look(old, outside=(0, 0)).tw_recycle == 0
    assert knobs(old) == (None, 1)


def test_from_within_a_container_of_an_old_kernel_it_cannot_be_told(old: FakeHost) -> None:
    del old.files[TW_RECYCLE]
    result = run()
    assert result.exit_code == 3
    assert result.stdout.startswith("Not known: ")
    assert "only the host itself shows it" in " ".join(result.stdout.split())


def test_a_host_that_shows_nothing_is_no_crash(old: FakeHost) -> None:
    old.files = {RELEASE: "odd", NETSTAT: "odd", TW_RECYCLE: "odd", TIMESTAMPS: ""}
    result = run()
    assert (result.exit_code, result.stdout[:9]) == (3, "Not known")
    old.files = {}
    assert run("--json").exit_code == 3


@pytest.mark.root
def test_the_kernel_of_this_machine(netns: Namespace) -> None:
    found = diagnose(netns.call(look, netns.host))
    assert found.verdict == "unaffected"
    assert found.server.counters is not None
    assert found.server.counters.listen_drops == 0


# Another server


def test_another_server_is_what_one_says_of_it(old: FakeHost) -> None:
    old.files = {"before": EL7, "after": EL7_LATER}  # so nothing of this host can be read
    result = run("--release", "3.16.0-4-amd64", "--netstat", "before", "--netstat", "after")
    assert "PAWSPassive grew by 17" in result.stdout
    assert 'mode = "strip"' in result.stdout
    assert run("--netstat", "before").stdout.startswith("Not known: ")
    assert run("--netstat", "before", "--tw-recycle", "0").exit_code == 0
    assert run("--release", "5.15.0-91-generic").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--netstat", "gone"], 66, "gone: no such file; on the server: cat /proc/net/netstat > netstat.txt"),
        (["--release", "4.4.0", "--netns", "web"], 2, "are of another server"),
        (["--tw-recycle", "1", "--watch", "3"], 2, "are of another server"),
        (["--netstat", "n", "--netstat", "n", "--netstat", "n"], 2, "two copies are enough"),
        (["--netns", "a", "--pid", "1"], 2, "--netns and --pid both name"),
        (["--source", "10.0.0.300"], 2, "10.0.0.300 is no address or network"),
        (["--watch", "0"], 2, "0 is not in the range"),
    ],
)
def test_what_cannot_be_asked(old: FakeHost, arguments: list[str], code: int, said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == code
    assert said in result.stderr
