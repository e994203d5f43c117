"""What is shown of names that others chose, and on terminals that show little."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from rich.console import Console
from support.commands import FIXER
from support.fakehost import FakeHost
from support.netns import Namespace

from fixer.doctor.server import Server
from fixer.doctor.timestamps import diagnose
from fixer.host.machine import NET, Completed, Owner
from fixer.screen import doctor, status
from fixer.screen.console import console_on, exactly, say, table, text
from fixer.screen.text import printable, settle
from fixer.status.answer import collect

HOSTILE = ["[/red]", "[bold", "eth0[red]", ":b:", "\x1b[2J", "a\nb", "\x9b31m", "\u202egnp", "\udcff", "naïve"]
"""Markup, an emoji's name, a terminal's commands (ESC and the C1 one), a second line, text that runs backwards, a byte
that is not UTF-8, and one that is only far away."""


def shown(*parts: str, width: int = 80) -> str:
    out = io.StringIO()
    say(Console(file=out, width=width), *parts)
    return out.getvalue()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_shown_and_does_nothing(name: str) -> None:
    escaped = printable(name)
    assert escaped.isprintable()
    assert shown(f"<{name}>") == f"<{escaped}>\n"


def test_what_can_be_shown_is_shown_as_it_is() -> None:
    assert [name for name in HOSTILE if printable(name) == name] == ["[/red]", "[bold", "eth0[red]", ":b:", "naïve"]
    assert (printable("\x1b[2J"), printable("a\nb"), printable("\udcff")) == (r"\x1b[2J", r"a\nb", r"\udcff")


@pytest.mark.parametrize("name", HOSTILE)
def test_status_shows_a_listener_and_an_interface_of_any_name(name: str) -> None:
    host = FakeHost()
    interface = name.replace("\n", "")  # the kernel allows no white space in one
    takes = f'-i "{interface}" -p udp -j NFQUEUE --queue-num 7 --queue-bypass'
    host.answers["iptables-save"] = Completed(0, f"[0:0] -A PREROUTING -j FIXER\n[1:9] -A FIXER {takes}\n", "")
    host.files |= {
        f"{NET}/netfilter/nfnetlink_queue": "7 4242 0 2 65531 0 0 0 1\n",
        f"{NET}/netlink": "head\n0 12 4242 0 0 0 0 2 0 777\n",
    }
    host.owners[777] = Owner(4711, name)
    found = collect(host, 7)
    out = io.StringIO()
    status.show(found, Console(file=out, width=300))
    assert f"{printable(name)} (pid 4711) on queue 7" in out.getvalue()
    assert f"UDP on {printable(interface)} to queue 7;" in out.getvalue()


def test_doctor_shows_a_release_of_any_name() -> None:
    for name in HOSTILE:
        out = io.StringIO()
        doctor.show(diagnose(Server(f"3.10.0 {name}", 1)), Console(file=out, width=200))
        assert f"3.10.0 {printable(name)}" in out.getvalue()


@pytest.mark.root
@pytest.mark.parametrize("name", [b"[/red]", b"\x1b[2J[/]\xff\n"])
def test_a_listener_that_is_called_so_in_a_namespace(netns: Namespace, name: bytes) -> None:
    """A real process with that name holds the queue, and `status` and `on` speak of it."""
    listen = (
        "import sys; from netfilterqueue import NetfilterQueue; q = NetfilterQueue(); q.bind(9, lambda p: p.accept());"
        f"open('/proc/self/comm', 'wb').write({name!r}); print('bound', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        ["ip", "netns", "exec", netns.name, sys.executable, "-W", "ignore", "-c", listen],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"bound\n"
        escaped = printable(name.decode(errors="replace").strip())
        on = subprocess.run([*FIXER, "on", "--queue", "9", "--netns", netns.name], capture_output=True, check=False)
        assert f"{escaped} (pid {process.pid})".encode() in on.stderr, "refused, by name"
        status = [*FIXER, "status", "--queue", "9", "--netns", netns.name]
        done = subprocess.run(status, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (3, b"")
        assert f"{escaped} (pid {process.pid})".encode() in done.stdout
        assert b"\x1b" not in done.stdout
    finally:
        process.communicate()


RULE = ["iptables", "-t", "raw", "-A", "PREROUTING", "-p", "icmp", "-j", "ACCEPT", "-m", "comment", "--comment"]
TYPED = [b"[/red]", b"\x1b[2J\xff\x9b31m", "two\nlines \x9b31m \u202egnp".encode()]


@pytest.mark.root
@pytest.mark.parametrize("word", TYPED)
def test_what_others_named_and_typed_is_shown_by_every_verb_and_obeyed_by_none(netns: Namespace, word: bytes) -> None:
    """A VXLAN device that is called so, a reason, a configuration's file, and the comment of a rule before ours."""
    name = word.replace(b"\n", b"").replace(b"/", b"").replace(b" ", b"")[:15]
    for link in (
        [b"add", b"wire", b"type", b"veth", b"peer", b"name", b"eth1"],
        [b"add", name, b"type", b"vxlan", b"id", b"7", b"dstport", b"4789", b"local", b"192.0.2.1"],
        [b"set", name, b"up"],
    ):
        netns.run("ip", "link", *map(os.fsdecode, link))
    netns.run(*RULE, os.fsdecode(word))
    netns.run("ip", "link", "set", "lo", "up")
    here = ["--netns", netns.name]

    def lines(*arguments: str) -> list[str]:
        done = subprocess.run([*FIXER, *arguments], capture_output=True, check=False)
        assert b"Traceback" not in done.stderr, done.stderr
        said = (done.stdout + done.stderr).decode()
        assert all(line.isprintable() for line in said.splitlines()), said
        return said.splitlines()

    reason = os.fsdecode(word)
    assert any("Nobody listens" in line for line in lines("on", "--queue", "9", *here, "--reason", reason))
    for verb in ("status", "doctor"):
        for more in ([], ["--json"]):
            shown = lines(verb, *here, *more)
            assert shown
            if more:
                json.loads("\n".join(line for line in shown if not line.startswith("fixer: ")))
    whole = "".join(lines("status", "--queue", "9", *here)).replace(" ", "")  # it is wrapped somewhere
    assert printable(word.decode(errors="replace")).replace(" ", "") in whole
    lines("events", *here, "--config", f"/nowhere/{reason}")
    lines("off", *here, "--reason", reason)
    refused = lines("on", "--queue", "9", *here, "--interface", os.fsdecode(name))
    assert len(refused) >= 1
    lines("off", *here)


# Terminals


@pytest.fixture(params=["ascii", "latin-1", "C"])
def narrow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.TextIOWrapper]:
    """A stream that cannot show everything: by its encoding, or by LC_ALL, which Python takes for UTF-8."""
    monkeypatch.delenv("LC_ALL", raising=False)
    if request.param == "C":
        monkeypatch.setenv("LC_ALL", "C")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8" if request.param == "C" else request.param)
    yield stream
    stream.close()


def test_what_a_terminal_cannot_show_gives_way_to_one_character_that_it_can(narrow: io.TextIOWrapper) -> None:
    console = console_on(narrow)
    console.print(table("a → b", ["x"], [["1 → 2 …"]]))
    say(console, "──", indent=3)
    exactly(console, "пять")
    narrow.flush()
    lines = narrow.buffer.getvalue().decode("ascii").splitlines()  # type: ignore[attr-defined]
    assert lines[0] == "a > b      "
    assert "| 1 > 2 . |" in lines
    assert len({len(line) for line in lines[:-2]}) == 1, "columns stand where they stood"
    assert (lines[-2].strip(), lines[-1]) == ("--", "????")


def test_a_terminal_that_can_show_all_is_shown_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    exactly(console_on(stream), "1 → 2 пять \udcff")
    stream.flush()
    assert stream.buffer.getvalue().decode() == "1 → 2 пять \\udcff\n"  # type: ignore[attr-defined]


def test_a_stream_that_is_no_file_is_left_alone() -> None:
    out = io.StringIO()
    assert settle(out) is out
    exactly(console_on(out), text(("→", "red"), " 1"))
    assert out.getvalue() == "→ 1\n"


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}])
def test_an_error_and_help_in_any_locale(locale: dict[str, str]) -> None:
    environment = os.environ | locale
    named = b"/nowhere/\xff\xc3\xa9[/red].pcap"
    done = subprocess.run([*FIXER, "scan", named], capture_output=True, env=environment, check=False)
    assert done.returncode == 66
    assert b"Traceback" not in done.stderr
    assert b"[/red].pcap" in done.stderr
    helped = subprocess.run([*FIXER, "status", "--help"], capture_output=True, env=environment, check=False)
    assert (helped.returncode, helped.stderr) == (0, b"")
